"""The best model: accelerate launch training/best.py [studies/cpu_best.yaml]

Trains the study's run of lowest validation loss further: short runs search its learning rate, dropout and weight decay,
then a long run uses the best setting. The test split is scored once, at the end.
"""

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import cli
from cli import UserError, option
from modeling.loading import model_sha256
from preprocessing.corpus import Corpus
from training.arguments import MAX_TOKENS, TINY, ExecutionArguments
from training.config import COSINE, RunConfig
from training.costs import print_costs
from training.planning import PlannedRun, plan_run
from training.processes import launched, say
from training.record import BEST, SEARCH, read_ladders, run_folder
from training.workers import report_failures, training_in

SEED_OFFSET = 1000  # so that the data come in another order
WARMUP_FRACTION = 0.02  # of the budget of a run that starts from trained weights


@dataclass
class BestArguments:
    """The search and the long run."""

    corpus: str = option("data/processed_music_data", "the corpus folder")
    output_dir: str = option("data", "the folder of the study, which gets the folder best_model")
    search_tokens: int = option(300_000, "training tokens of each run of the search", least=1, most=MAX_TOKENS)
    learning_rate_factors: list[float] = option(
        [0.03, 0.1, 0.3], "learning rates tried, times the best run's", least=TINY, most=1e6
    )
    dropouts: list[float] = option([0.0, 0.1], "dropouts tried", least=0, most=0.99)
    weight_decays: list[float] = option([0.01, 0.1], "weight decays tried", least=0, most=1e6)
    tokens: int = option(4_000_000, "training tokens of the long run", least=1, most=MAX_TOKENS)


def plan_search(best: BestArguments, corpus: Corpus) -> list[PlannedRun]:
    """Return the short runs that continue the study's run of lowest validation loss with all settings.

    Raises UserError if no run has finished.
    """
    root = Path(best.output_dir)
    finished = [run for ladder in read_ladders(root).values() for run in ladder.finished]
    if not finished:
        raise UserError(f"{root}: no run of the study has finished, so there is no best one")
    start = min(finished, key=lambda run: run.measured_loss).config
    folder = run_folder(root, start)
    further = replace(
        start,
        corpus=corpus.digest(),
        n_keys=corpus.n_keys,
        seed=start.seed + SEED_OFFSET,
        schedule=COSINE,
        init_from=str(folder),
        init_sha256=model_sha256(str(folder)),
    )
    runs = []
    for i, (factor, dropout, decay) in enumerate(
        product(best.learning_rate_factors, best.dropouts, best.weight_decays)
    ):
        learning_rate = float(f"{factor * start.learning_rate:.3g}")
        config = replace(further, learning_rate=learning_rate, dropout=dropout, weight_decay=decay)
        runs.append(plan_run(with_warmup(config, best.search_tokens), root / BEST / SEARCH / f"{i:02d}", corpus))
    return runs


def with_warmup(config: RunConfig, tokens: int) -> RunConfig:
    """Return the configuration with a budget, for a run that starts from trained weights."""
    return replace(config, tokens=tokens, warmup_tokens=round(WARMUP_FRACTION * tokens), cooldown_tokens=0)


def plan_long(chosen: RunConfig, best: BestArguments, corpus: Corpus) -> PlannedRun:
    """Return the long run of the best model with the setting of one run of the search."""
    return plan_run(with_warmup(chosen, best.tokens), Path(best.output_dir) / BEST, corpus, score_test=True)


def run(best: BestArguments, execution: ExecutionArguments) -> None:
    """Run the search and the long run with its best setting, or print what they will cost."""
    corpus, root = Corpus.open(best.corpus), Path(best.output_dir)
    with launched():
        search = plan_search(best, corpus)
        if execution.dry_run:
            runs = [*search, plan_long(search[0].config, best, corpus)]
            print_costs(runs, corpus, execution.num_parallel_runs, "best model")
            return
        with training_in(root, corpus, execution) as train:
            results = train(search, "best model, search", execution.num_parallel_runs)
            report_failures(results)
            chosen = min((result.record for result in results if result.record), key=lambda found: found.measured_loss)
            [result] = train([plan_long(chosen.config, best, corpus)], "best model, long run", 1)
            report_failures([result])
        assert result.record is not None
        say(f"{root / BEST}: test loss {result.record.test_loss:.4f} nats per character")


def main() -> None:
    """Run the command."""
    cli.main(run, BestArguments, ExecutionArguments, about=__doc__)


if __name__ == "__main__":
    main()
