"""The best model: the ladders' best run trained further, after a small search; and any model trained on other tunes."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from door import DoorError
from modeling.ladder import ARCHITECTURE_OF
from preprocessing.corpus import Corpus
from training.evaluation import held_out_losses
from training.loop import Conduct, Plan, load_model
from training.recipe import COSINE, Recipe, learning_rate, steps_of, warmup_steps
from training.record import BEST, FINE_TUNED, SEARCH, arm_of, read_ladders, run_folder
from training.study import Job, make_job, measure, report_failures, run_jobs

NEW_ORDER = 1000  # added to the seed, so that the data come in an order that the run has not seen


def best_run(root: Path) -> Recipe:
    """Return the recipe of the finished ladder run with the lowest validation loss."""
    runs = [run for ladder in read_ladders(root).values() for run in ladder.finished]
    if not runs:
        raise DoorError(f"{root}: no ladder run finished, so there is no best one")
    return Recipe(**min(runs, key=lambda run: run["validation_loss"])["recipe"])


def plan_search(
    root: Path, corpus: Corpus, tokens: int, rates: list[float], dropouts: list[float], decays: list[float]
) -> list[Job]:
    """Return the short runs that continue the best ladder run with every combination of the three."""
    start = best_run(root)
    arm = arm_of(start.tokens, start.schedule, start.one_in, start.carry_state)
    folder = run_folder(root, start.architecture, start.size, arm, start.seed)
    jobs = []
    for i, (factor, dropout, decay) in enumerate(product(rates, dropouts, decays)):
        recipe = _budget(
            replace(
                start,
                seed=start.seed + NEW_ORDER,
                schedule=COSINE,
                learning_rate=float(f"{factor * start.learning_rate:.3g}"),
                dropout=dropout,
                weight_decay=decay,
                init_from=str(folder),
            ),
            tokens,
        )
        jobs.append(make_job(Plan(recipe, root / BEST / SEARCH / f"{i:02d}"), corpus))
    return jobs


def _budget(recipe: Recipe, tokens: int) -> Recipe:
    steps = steps_of(tokens, recipe.batch_size, recipe.context)
    return replace(recipe, tokens=tokens, warmup=warmup_steps(steps))


def plan_long(chosen: Job, root: Path, corpus: Corpus, tokens: int) -> Job:
    """Return the long run of the best model with the setting of one run of the search."""
    return make_job(Plan(_budget(chosen.plan.recipe, tokens), root / BEST, score_test=True), corpus)


def train_best(
    search: list[Job], root: Path, corpus: Corpus, tokens: int, at_once: int, threads: int, conduct: Conduct
) -> dict[str, Any]:
    """Run the search, then the long run with its best setting, and return that run's record.

    The test split is scored once, at the end of the long run. Raises DoorError if a run does not finish.
    """
    found = run_jobs(search, corpus, at_once, threads, conduct, "best model, search")
    report_failures(found)
    chosen = min(found, key=lambda outcome: (outcome.record or {})["validation_loss"]).job
    job = plan_long(chosen, root, corpus, tokens)
    [outcome] = run_jobs([job], corpus, 1, at_once * threads, conduct, "best model, long run")
    report_failures([outcome])
    return outcome.record or {}


def plan_fine_tuning(shared: Recipe, source: str, corpus: Corpus, root: Path, epochs: float, rate_share: float) -> Job:
    """Return the run that trains the model `source`, a folder or a Hub id, further on another corpus.

    The peak rate is `rate_share` times the rule's. Raises DoorError if the model cannot be loaded, or if the corpus was
    not built with its vocabulary or is read in longer windows than it takes.
    """
    try:
        config = AutoConfig.from_pretrained(source)
        if config.model_type not in ARCHITECTURE_OF:  # before its weights come, which may be many gigabytes
            raise DoorError(f"--init_from {source}: a {config.model_type} model, not one of {list(ARCHITECTURE_OF)}")
        load_model(source)
        vocabulary = AutoTokenizer.from_pretrained(source).get_vocab()
    except (OSError, ValueError) as error:
        raise DoorError(
            f"--init_from {source}: no folder with a model, and no model of the Hub ({str(error).splitlines()[0]})"
        ) from None
    if vocabulary != corpus.vocabulary:
        raise DoorError(
            f"{corpus.folder} has another vocabulary than {source}: "
            f"build it with preprocessing/run.py --vocabulary {source}"
        )
    longest = getattr(config, "n_positions", shared.context)
    if shared.context > longest:
        raise DoorError(f"--context {shared.context}: {source} takes {longest} characters at most")
    recipe = replace(shared, architecture=ARCHITECTURE_OF[config.model_type], size=Path(source).name, init_from=source)
    rate = rate_share * learning_rate(recipe.architecture, measure(recipe, corpus)[1])
    stream, _ = corpus.part()
    recipe = _budget(replace(recipe, learning_rate=float(f"{rate:.3g}")), round(epochs * (len(stream) - 1)))
    return make_job(Plan(recipe, root / FINE_TUNED, score_test=True), corpus)


def loss_before(job: Job, corpus: Corpus) -> float:
    """Return the validation loss of the model that a fine-tuning starts from, in nats per character."""
    recipe = job.plan.recipe
    model = load_model(str(recipe.init_from))
    return held_out_losses(model, corpus, "validation", recipe.context, recipe.carry_state).whole.loss
