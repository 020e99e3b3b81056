"""Train published runs again from their rows alone: python benchmarks/retrain.py --corpus DIR [--num_runs 3]

A run agrees if its validation loss is within 3 standard deviations of seeds of the loss in its row. The deviation is
pooled over all settings (budget, fraction of the tunes) of its architecture, size and corpus. The same seed gives the
same first weights and order of data: on the same kind of machine with the same versions the difference should be 0,
elsewhere it is rounding. A branch of a trunk is trained without one. Exits with 1 if a run does not agree.
"""

import argparse
import tempfile
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from cli import UserError, report_errors
from files import write_json
from preprocessing.corpus import Corpus
from training.config import RunConfig
from training.execution import ExecutionConfig
from training.measurements import hardware, library_versions
from training.planning import plan_run
from training.record import FINISHED, RunRecord, run_folder
from training.runs_table import read_runs_table
from training.single_run import train

TABLE = Path(__file__).parent.parent / "results" / "runs.parquet"
DEVIATIONS = 3  # of seeds


@dataclass(frozen=True)
class Again:
    """A run trained again: losses and the pooled deviation of seeds in nats per character.

    `degrees_of_freedom` are those of the deviation, `seeds` those of the run's own setting.
    """

    run: str
    recorded: float
    now: float | None  # None: it diverged
    difference: float | None
    deviation: float
    degrees_of_freedom: int
    seeds: int
    agrees: bool


def candidates(finished: list[RunRecord], corpus: str, max_params: float, max_tokens: float) -> list[RunRecord]:
    """Return the finished runs on a corpus that start from new weights, are small and short enough and have seeds.

    Raises UserError if there is none.
    """
    mine = [run for run in finished if run.config.corpus == corpus]
    if not mine:
        others = ", ".join(sorted({run.config.corpus for run in finished}))
        raise UserError(
            f"--corpus: its hash is {corpus}, the runs are of {others}: give the corpus that they were trained on"
        )
    some = [
        run
        for run in mine
        if run.config.init_from is None
        and run.n_params <= max_params
        and run.config.tokens <= max_tokens
        and seeds_of(run, mine)[1] > 0
    ]
    if not some:
        raise UserError("--max_params, --max_tokens: no finished run as small as that has other seeds")
    return some


def seeds_of(run: RunRecord, finished: list[RunRecord]) -> tuple[float, int, int]:
    """Return the pooled standard deviation of seeds at a run's size, its degrees of freedom, and its setting's seeds.

    The deviation is infinite if no setting of that size has two seeds.
    """
    settings: dict[RunConfig, list[float]] = defaultdict(list)
    for other in finished:
        if all(getattr(other.config, name) == getattr(run.config, name) for name in ("architecture", "size", "corpus")):
            settings[replace(other.config, seed=0)].append(other.measured_loss)
    degrees_of_freedom = sum(len(losses) - 1 for losses in settings.values())
    squares = sum(float(np.var(losses)) * len(losses) for losses in settings.values())
    deviation = (squares / degrees_of_freedom) ** 0.5 if degrees_of_freedom else float("inf")
    return deviation, degrees_of_freedom, len(settings[replace(run.config, seed=0)])


def train_again(run: RunRecord, finished: list[RunRecord], corpus: Corpus, root: Path) -> Again:
    """Train a run again below `root` and compare it with its row."""
    deviation, degrees_of_freedom, seeds = seeds_of(run, finished)
    name = str(run_folder(Path(), run.config))
    torch.set_num_threads(run.threads or 1)
    compiled = "on" if run.compiled else "off"
    execution = ExecutionConfig(micro_batch_size=run.micro_batch_size or 0, compile=compiled)
    with tqdm(total=run.tokens, desc=name, unit=" tokens", leave=False, disable=None) as bar:

        def progress(done: int, _: float | None) -> None:
            bar.update(done - bar.n)

        planned = plan_run(run.config, run_folder(root, run.config), corpus)
        now = train(planned, corpus, progress, execution).validation_loss
    difference = None if now is None else now - run.measured_loss
    agrees = difference is not None and abs(difference) <= DEVIATIONS * deviation
    return Again(name, run.measured_loss, now, difference, deviation, degrees_of_freedom, seeds, agrees)


def line(again: Again) -> str:
    """Return a row of the table."""
    verdict = "agrees" if again.agrees else "DOES NOT AGREE"
    now = "diverged | –" if again.now is None else f"{again.now:.6f} | {again.difference:+.2g}"
    return (
        f"| {again.run} | {again.recorded:.6f} | {now} | "
        f"{again.deviation:.4f} ({again.degrees_of_freedom}) | {again.seeds} | {verdict} |"
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, help="the folder of the corpus that the runs were trained on")
    parser.add_argument("--runs", type=Path, default=TABLE, help="the table of runs")
    parser.add_argument("--num_runs", type=int, default=3, help="runs drawn")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--max_params", type=float, default=float("inf"))
    parser.add_argument("--max_tokens", type=float, default=float("inf"))
    parser.add_argument("--output_dir", type=Path, help="keeps the runs; those finished there are not trained again")
    parser.add_argument("--out", type=Path, help="a JSON file of the table")
    options = parser.parse_args()
    corpus = Corpus.open(options.corpus)
    finished = [row.record for row in read_runs_table(options.runs) if row.record.status == FINISHED]
    some = candidates(finished, corpus.digest(), options.max_params, options.max_tokens)
    drawn = np.random.default_rng(options.seed).choice(len(some), min(options.num_runs, len(some)), replace=False)
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    versions = library_versions()
    print(f"{hardware(device)}; {', '.join(f'{name} {number}' for name, number in versions.items())}")
    print(f"{len(drawn)} of {len(some)} runs, seed {options.seed}; nats per character\n")
    print("| run | in the record | now | difference | seeds' deviation (degrees of freedom) | seeds of the setting | |")
    print("|---" * 7 + "|", flush=True)
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        for run in (some[i] for i in drawn):
            found.append(train_again(run, finished, corpus, options.output_dir or Path(temporary)))
            print(line(found[-1]), flush=True)
    if options.out is not None:
        made = {"hardware": hardware(device), "versions": versions, "seed": options.seed, "candidates": len(some)}
        write_json(options.out, made | {"deviations": DEVIATIONS, "runs": [asdict(again) for again in found]})
    raise SystemExit(not all(again.agrees for again in found))


if __name__ == "__main__":
    report_errors(main)
