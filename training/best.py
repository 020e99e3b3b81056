"""The best model: the ladders' best run trained further, after a small search; and any model trained on other tunes."""

from dataclasses import replace
from itertools import product
from pathlib import Path

from cli import UserError
from modeling.ladder import ARCHITECTURE_OF, Shape
from modeling.loading import load_config, load_model, load_tokenizer, model_sha256
from preprocessing.corpus import Corpus
from training.config import COSINE, RunConfig
from training.evaluation import held_out_losses
from training.grid import Recipe, base_config, resolve_precision
from training.learning_rate import learning_rate
from training.loop import ExecutionConfig, Plan
from training.record import BEST, FINE_TUNED, SEARCH, RunRecord, read_ladders, run_folder
from training.study import Job, make_job, measure, report_failures, run_jobs

NEW_ORDER = 1000  # added to the seed, so that the data come in an order that the run has not seen
WARMUP_FRACTION = 0.02  # of the budget of a run that starts from trained weights


def best_run(root: Path) -> RunConfig:
    """Return the configuration of the finished ladder run with the lowest validation loss."""
    runs = [run for ladder in read_ladders(root).values() for run in ladder.finished]
    if not runs:
        raise UserError(f"{root}: no ladder run finished, so there is no best one")
    return min(runs, key=lambda run: run.measured_loss).config


def plan_search(
    root: Path, corpus: Corpus, tokens: int, rates: list[float], dropouts: list[float], decays: list[float]
) -> list[Job]:
    """Return the short runs that continue the best ladder run with every combination of the three."""
    start = best_run(root)
    folder = run_folder(root, start)
    further = replace(
        start,
        corpus=corpus.digest(),
        n_keys=corpus.n_keys,
        seed=start.seed + NEW_ORDER,
        schedule=COSINE,
        init_from=str(folder),
        init_sha256=model_sha256(str(folder)),
    )
    jobs = []
    for i, (factor, dropout, decay) in enumerate(product(rates, dropouts, decays)):
        rate = float(f"{factor * start.learning_rate:.3g}")
        config = _with_budget(replace(further, learning_rate=rate, dropout=dropout, weight_decay=decay), tokens)
        jobs.append(make_job(Plan(config, root / BEST / SEARCH / f"{i:02d}"), corpus))
    return jobs


def _with_budget(config: RunConfig, tokens: int) -> RunConfig:
    return replace(config, tokens=tokens, warmup_tokens=round(WARMUP_FRACTION * tokens), cooldown_tokens=0)


def plan_long(chosen: Job, root: Path, corpus: Corpus, tokens: int) -> Job:
    """Return the long run of the best model with the setting of one run of the search."""
    return make_job(Plan(_with_budget(chosen.plan.config, tokens), root / BEST, score_test=True), corpus)


def train_best(
    search: list[Job],
    root: Path,
    corpus: Corpus,
    tokens: int,
    num_parallel: int,
    threads: int,
    execution: ExecutionConfig,
) -> RunRecord:
    """Run the search, then the long run with its best setting, and return that run's record.

    The test split is scored once, at the end of the long run. Raises UserError if a run does not finish.
    """
    found = run_jobs(search, corpus, num_parallel, threads, execution, "best model, search")
    report_failures(found)
    chosen, _ = min(
        ((result.job, result.record.measured_loss) for result in found if result.record is not None),
        key=lambda pair: pair[1],
    )
    job = plan_long(chosen, root, corpus, tokens)
    [result] = run_jobs([job], corpus, 1, num_parallel * threads, execution, "best model, long run")
    report_failures([result])
    assert result.record is not None
    return result.record


def plan_fine_tuning(recipe: Recipe, source: str, corpus: Corpus, root: Path, epochs: float, rate_share: float) -> Job:
    """Return the run that trains the model `source`, a folder or a Hub id, further on another corpus.

    The peak learning rate is `rate_share` times the rule's. Raises UserError if the model cannot be loaded, or if the
    corpus was not built with its vocabulary or is read in longer sequences than it takes.
    """
    try:
        built = load_config(source)  # before its weights come, which may be many gigabytes
        load_model(source)
        vocabulary = load_tokenizer(source).get_vocab()
    except UserError as error:
        raise UserError(f"--init_from {error}") from None
    if vocabulary != corpus.vocabulary:
        raise UserError(
            f"{corpus.folder} has another vocabulary than {source}: "
            f"build it with preprocessing/run.py --vocabulary {source}"
        )
    longest = getattr(built, "n_positions", recipe.context)
    if recipe.context > longest:
        raise UserError(f"--context {recipe.context}: {source} takes {longest} characters at most")
    stream, _ = corpus.part()
    shape = (
        Shape(built.n_layer, built.n_embd, built.n_head, built.n_embd, built.initializer_range)
        if built.model_type == "gpt2"
        else Shape(built.num_hidden_layers, built.hidden_size, 0, built.embedding_size, built.embedding_std)
    )
    recipe = resolve_precision(recipe, shape.width)
    recipe = (
        replace(recipe, activation=built.activation_function)
        if built.model_type == "gpt2"
        else replace(recipe, forget_bias=built.forget_bias)
    )
    name, architecture = Path(source).name, ARCHITECTURE_OF[built.model_type]
    base = base_config(recipe, architecture, name, shape, corpus.digest(), corpus.n_keys)
    config = replace(base, init_from=source, init_sha256=model_sha256(source))
    rate = float(f"{rate_share * learning_rate(config.architecture, measure(config, corpus)[1]):.3g}")
    config = _with_budget(replace(config, learning_rate=rate), round(epochs * (len(stream) - 1)))
    return make_job(Plan(config, root / FINE_TUNED, score_test=True), corpus)


def loss_before(job: Job, corpus: Corpus) -> float:
    """Return the validation loss of the model that a fine-tuning starts from, in nats per character."""
    config = job.plan.config
    model = load_model(str(config.init_from))
    return held_out_losses(model, corpus, "validation", config.context, config.stateful).whole.loss
