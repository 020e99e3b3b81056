"""Learning-rate sweep: accelerate launch training/sweep.py studies/learning_rate_sweep.yaml [--arm wsd]

Trains every size with several peak learning rates, finds the best of each size and fits the rule LR(N) through them.
The runs are added to those of the same kind in --sweep_file.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState

import cli
from cli import UserError, option
from files import read_json, write_json
from modeling.shapes import SIZES
from preprocessing.corpus import Corpus
from training.arguments import MAX_TOKENS, TINY, ExecutionArguments, RecipeArguments
from training.config import RunConfig
from training.costs import print_costs
from training.planning import PlannedRun, base_config, check_context, plan_run, with_budget
from training.processes import launched
from training.record import variant_of
from training.workers import RunResult, report_failures, training_in

FOLDER = "learning_rate_sweep"
VARIED = ("architecture", "size", "seed", "learning_rate")  # fields in which the runs of a sweep differ
BY_SIZE = ("n_layer", "width", "n_head", "embedding_size", "init_std")  # fields that follow from the size


@dataclass
class SweepArguments(RecipeArguments):
    """Sizes and the peak learning rates tried for each."""

    arm: str = option("sweep", "of a file with several arms, the one to train")
    gpt_sizes: list[str] = option([], "GPT sizes", SIZES)
    lstm_sizes: list[str] = option([], "LSTM sizes", SIZES)
    seeds: list[int] = option([0], "one run for each size, learning rate and seed", least=0, most=2**31)
    tokens: int = option(2_000_000, "training tokens of each run", least=1, most=MAX_TOKENS)
    data_fraction: float = option(1.0, "fraction of the training tunes", least=1e-9, most=1)
    gpt_learning_rates: list[float] = option([], "peak learning rates tried at every GPT size", least=TINY, most=1e6)
    lstm_learning_rates: list[float] = option([], "the same for LSTMs", least=TINY, most=1e6)
    sweep_file: str = option("results/learning_rate_sweep.json", "the result, to which runs of the same kind are added")

    def __post_init__(self) -> None:
        for architecture in ("gpt", "lstm"):
            learning_rates = getattr(self, f"{architecture}_learning_rates")
            if getattr(self, f"{architecture}_sizes") and len(set(learning_rates)) < 3:
                raise UserError(f"--{architecture}_learning_rates {learning_rates}: an optimum needs at least three")


def plan_sweep(sweep: SweepArguments, corpus: Corpus) -> list[PlannedRun]:
    """Return a run for each size, learning rate and seed; WSD runs have no trunk here."""
    check_context(sweep.context, corpus)
    runs = []
    for architecture in ("gpt", "lstm"):
        for size in dict.fromkeys(getattr(sweep, f"{architecture}_sizes")):
            base = replace(base_config(sweep, architecture, size, corpus), data_fraction=sweep.data_fraction)
            base = with_budget(base, sweep.tokens, sweep.cooldown_fraction)
            folder = Path(sweep.output_dir) / FOLDER / variant_of(base) / architecture / size
            for seed in dict.fromkeys(sweep.seeds):
                for learning_rate in dict.fromkeys(getattr(sweep, f"{architecture}_learning_rates")):
                    config = replace(base, seed=seed, learning_rate=learning_rate)
                    runs.append(plan_run(config, folder / f"learning_rate_{learning_rate}" / f"seed_{seed}", corpus))
    if not runs:
        raise UserError("no sizes: give --gpt_sizes or --lstm_sizes, or studies/learning_rate_sweep.yaml")
    return runs


def best_learning_rate(learning_rates: np.ndarray, losses: np.ndarray) -> tuple[float, float] | None:
    """Return the best learning rate by a parabola in its log through the lowest run and its neighbours, and its bend.

    The loss is that of the best learning rate plus bend · log(learning rate / best)². None if the lowest run is at an
    edge of the grid or beside a run that diverged, whose loss is infinite.
    """
    order = np.argsort(learning_rates)
    x, y = np.log(learning_rates[order]), losses[order]
    lowest = int(np.argmin(y))
    if lowest in (0, len(x) - 1) or not np.isfinite(y[lowest - 1 : lowest + 2]).all():
        return None
    bend, slope, _ = np.polyfit(x[lowest - 1 : lowest + 2], y[lowest - 1 : lowest + 2], 2)
    return float(np.exp(-slope / (2 * bend))), float(bend)


def fit_rule(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the rule coefficient · N^-exponent through the best learning rates of the sizes of one architecture.

    A run without a loss has diverged. Raises UserError if there are fewer than two sizes, or if a best learning rate is
    on the grid's edge.
    """
    optima, edges = [], []
    for size in dict.fromkeys(row["size"] for row in rows):
        mine = [row for row in rows if row["size"] == size]
        learning_rates = np.unique([row["learning_rate"] for row in mine])
        pairs = [(run["learning_rate"], np.inf if run["loss"] is None else run["loss"]) for run in mine]
        losses = np.array([np.mean([loss for at, loss in pairs if at == each]) for each in learning_rates])
        best = best_learning_rate(learning_rates, losses)
        if best is None:
            edges.append(f"{size} at {learning_rates[np.argmin(losses)]:g}")
        else:
            optima.append({"size": size, "n": mine[0]["n_params_non_embedding"], "rate": best[0], "bend": best[1]})
    architecture = rows[0]["architecture"]
    if edges:
        raise UserError(
            f"--{architecture}_learning_rates: the best one is on the grid's edge, or beside one that diverged "
            f"({', '.join(edges)}): widen the grid, or give more between"
        )
    if len(optima) < 2:
        raise UserError(f"--{architecture}_sizes: a rule needs at least two sizes")
    slope, intercept = np.polyfit(np.log([o["n"] for o in optima]), np.log([o["rate"] for o in optima]), 1)
    return {"coefficient": float(np.exp(intercept)), "exponent": float(-slope), "optima": optima}


def shared_fields(config: RunConfig) -> dict[str, Any]:
    """Return the fields of a configuration that all runs of one sweep share."""
    return {name: value for name, value in config.to_dict().items() if name not in VARIED + BY_SIZE}


def earlier_runs(path: Path, runs: list[PlannedRun]) -> list[dict[str, Any]]:
    """Return the runs of a sweep's file, [] if there is none.

    Raises UserError if they differ from the given runs in anything but VARIED.
    """
    if not path.is_file():
        return []
    before = read_json(path, "config", "runs")
    found = RunConfig.later_defaults() | before["config"]
    different = [
        f"{name} {found.get(name)!r}, not {value!r}"
        for name, value in shared_fields(runs[0].config).items()
        if found.get(name) != value
    ]
    n_params = {(run.config.architecture, run.config.size): run.n_params for run in runs}
    sizes = {(row["architecture"], row["size"]): row["n_params"] for row in before["runs"]}
    different += [f"{size[1]} with {n} parameters" for size, n in sizes.items() if n_params.get(size, n) != n]
    if different:
        raise UserError(f"{path} holds another sweep ({'; '.join(different)}): give another --sweep_file")
    return list(before["runs"])


def write_sweep(results: list[RunResult], path: Path, earlier: list[dict[str, Any]]) -> dict[str, Any]:
    """Write all runs of a sweep, `earlier` ones too, and return the rule of each architecture.

    A run that diverged has no loss. Raises UserError if a run failed, or if a rule cannot be fitted.
    """
    report_failures([result for result in results if result.record is None])
    records = [result.record for result in results if result.record is not None]
    rows = [
        {name: getattr(record.config, name) for name in VARIED}
        | {"n_params": record.n_params, "n_params_non_embedding": record.n_params_non_embedding}
        | {"status": record.status, "loss": record.validation_loss}
        for record in records
    ]
    known = [[row[name] for name in VARIED] for row in rows]
    rows += [row for row in earlier if [row[name] for name in VARIED] not in known]
    rows.sort(key=lambda row: (row["architecture"], row["n_params"], row["seed"], row["learning_rate"]))
    rules = {
        architecture: fit_rule([row for row in rows if row["architecture"] == architecture])
        for architecture in dict.fromkeys(row["architecture"] for row in rows)
    }
    shared = shared_fields(records[0].config)
    write_json(path, {"config": shared, "versions": records[0].versions, "rules": rules, "runs": rows})
    return rules


def train_sweep(sweep: SweepArguments, execution: ExecutionArguments) -> None:
    """Train the runs of a sweep and write its file, or print what it will cost."""
    corpus, root, path = Corpus.open(sweep.corpus), Path(sweep.output_dir), Path(sweep.sweep_file)
    runs = plan_sweep(sweep, corpus)
    if execution.dry_run:
        print_costs(runs, corpus, execution.num_parallel_runs, sweep.arm)
        return
    with training_in(root, corpus, execution) as train:
        earlier = earlier_runs(path, runs)
        results = train(runs, sweep.arm, execution.num_parallel_runs)
    if PartialState().is_main_process:
        for architecture, rule in write_sweep(results, path, earlier).items():
            print(f"{architecture}: learning rate = {rule['coefficient']:.4g} · N^-{rule['exponent']:.4g}")
        print(f"the sweep: {path}")


def run(given: list[tuple[SweepArguments, ExecutionArguments]]) -> None:
    """Train the arms of a sweep one after another."""
    with launched():
        for sweep, execution in given:
            train_sweep(sweep, execution)


def main() -> None:
    """Run the command."""
    cli.main(run, SweepArguments, ExecutionArguments, about=__doc__, arms=True)


if __name__ == "__main__":
    main()
