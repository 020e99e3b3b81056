"""A study's axes → its runs: sizes × budgets × fractions of the data × seeds, for both architectures."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cli import UserError
from modeling.loading import load_config
from modeling.shapes import SIZES, count, shape_of
from preprocessing.corpus import SPLITS, Corpus
from training.arguments import MAX_TOKENS, RecipeArguments, StudyArguments
from training.config import WSD, RunConfig, steps_of
from training.execution import AUTO
from training.learning_rate import Rule, peak_learning_rate
from training.processes import decide_together
from training.record import NOT_RUN, RunRecord, run_folder, variant_of

MIN_STEPS = 100  # a run of fewer says nothing about its size
BF16_WIDTH = 128  # narrower models gain nothing from bf16


@dataclass(frozen=True)
class PlannedRun:
    """A run to do: its configuration, its folder, its model's size and cost, and its relation to other runs.

    `trunk` is the folder of the trunk that a WSD run branches off; a trunk keeps its state of the steps `keep_at`.
    """

    config: RunConfig
    folder: Path
    parameters: dict[str, int]  # by group
    flops_by_module: dict[str, int]  # of training, per token
    score_test: bool = False
    trunk: Path | None = None
    keep_at: tuple[int, ...] = ()

    @property
    def n_params(self) -> int:
        return self.parameters["total"]

    @property
    def n_params_non_embedding(self) -> int:
        return self.parameters["total"] - self.parameters["tables"]

    @property
    def flops_per_token(self) -> int:
        return sum(self.flops_by_module.values())

    @property
    def name(self) -> str:
        return f"{self.config.architecture} {self.config.size} {variant_of(self.config)} seed {self.config.seed}"

    @property
    def start(self) -> int:
        """The tokens that the trunk has trained."""
        return 0 if self.trunk is None else self.config.cooldown_start * self.config.tokens_per_step

    def record(self, corpus: Corpus, status: str = NOT_RUN, reason: str | None = None) -> RunRecord:
        """Return the record of the run before it is trained."""
        config = self.config
        tokens = config.steps * config.tokens_per_step
        return RunRecord(
            status=status,
            reason=reason,
            config=config,
            config_hash=config.config_hash,
            split_hashes=corpus.split_hashes,
            n_params=self.n_params,
            n_params_non_embedding=self.n_params_non_embedding,
            steps=config.steps,
            tokens=tokens,
            flops_per_token=self.flops_per_token,
            flops=self.flops_per_token * tokens,
        )


def plan_run(config: RunConfig, folder: Path, corpus: Corpus, rule: Rule | None = None, **relations: Any) -> PlannedRun:
    """Return a planned run; a learning rate of 0 stands for that of `rule`, or of the schedule's own rule."""
    options: dict[str, Any] = {}
    if config.init_from is not None:  # a model that may have been built otherwise
        built = load_config(config.init_from)
        options = {"positions": getattr(built, "n_positions", None), "feed_forward": getattr(built, "n_inner", None)}
        options["tied"] = built.tie_word_embeddings
    parameters, flops = count(config.architecture, config.shape, len(corpus.vocabulary), config.context, **options)
    if config.learning_rate == 0:
        non_embedding = parameters["total"] - parameters["tables"]
        learning_rate = peak_learning_rate(config.architecture, non_embedding, config.schedule, rule)
        config = replace(config, learning_rate=learning_rate)
    return PlannedRun(config, folder, parameters, flops, **relations)


def check_context(context: int, corpus: Corpus) -> None:
    """Raise UserError if a corpus is too short for sequences of `context` tokens."""
    shortest = min(len(corpus.tokens(split)) for split in SPLITS)
    if context > shortest // 2:
        raise UserError(
            f"--context {context}: too long for a corpus whose shortest split has {shortest} tokens: "
            f"give {shortest // 2} or less, or build it from more tunes"
        )


def resolve_precision(precision: str, width: int) -> str:
    """Return the precision that "auto" stands for: bf16 for models of BF16_WIDTH and more where the hardware has it."""
    if precision != AUTO:
        return precision
    return "bf16" if width >= BF16_WIDTH and decide_together(has_bf16) else "fp32"


def has_bf16() -> bool:
    """Return whether the device computes in bf16 natively."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def base_config(recipe: RecipeArguments, architecture: str, size: str, corpus: Corpus) -> RunConfig:
    """Return the configuration of a size on a corpus; budget, learning rate, seed and data fraction are still open."""
    return RunConfig(
        architecture=architecture,
        size=size,
        **asdict(shape_of(architecture, size, len(corpus.vocabulary), recipe.context)),
        corpus=corpus.digest(),
        n_keys=corpus.n_keys,
        precision=resolve_precision(recipe.precision, SIZES[size].n_embd),  # the same for a size's GPT and LSTM
        schedule=recipe.schedule,
        warmup_tokens=recipe.warmup_tokens,
        sequences=recipe.sequences,
        batch_size=recipe.batch_size,
        context=recipe.context,
        weight_decay=recipe.weight_decay,
    )


def with_budget(config: RunConfig, tokens: int, cooldown_fraction: float) -> RunConfig:
    """Return a configuration with a budget, and with the cooldown of a WSD run."""
    cooldown = 0
    if config.schedule == WSD:
        steps = steps_of(tokens, config.tokens_per_step)
        cooldown_steps = round(cooldown_fraction * steps)
        if not 0 < cooldown_steps < steps:
            raise UserError(
                f"--cooldown_fraction {cooldown_fraction:g}: a run of {steps} steps has no cooldown, or no trunk"
            )
        cooldown = cooldown_steps * config.tokens_per_step
    return replace(config, tokens=tokens, cooldown_tokens=cooldown)


def plan_study(study: StudyArguments, corpus: Corpus) -> list[PlannedRun]:
    """Return the runs of a study, with the trunks that its WSD runs branch off.

    Raises UserError if there are no sizes, if a budget of FLOPs buys a size fewer than MIN_STEPS steps, if a fraction
    of the data is too small for two sequences, or if an automatic precision is not the same for all sizes.
    """
    check_context(study.context, corpus)
    for fraction in study.data_fraction:
        if len(corpus.part(fraction)[0]) < 2 * study.context:
            raise UserError(f"--data_fraction {fraction:g}: too little of this corpus for sequences of {study.context}")
    runs: list[PlannedRun] = []
    sizes = [("gpt", size) for size in study.gpt_sizes] + [("lstm", size) for size in study.lstm_sizes]
    for architecture, size in dict.fromkeys(sizes):
        base = base_config(study, architecture, size, corpus)
        budgets = _budgets(study, base, corpus)
        for fraction in dict.fromkeys(study.data_fraction):
            for seed in dict.fromkeys(study.seeds):
                config = replace(base, seed=seed, data_fraction=float(fraction))
                configs = [with_budget(config, tokens, study.cooldown_fraction) for tokens in budgets]
                runs += _branches(configs, study, corpus)
    if not runs:
        raise UserError("no sizes: give --gpt_sizes or --lstm_sizes, or a study file such as studies/quick.yaml")
    by_precision = {run.config.precision: run.config.size for run in runs}
    if len(by_precision) > 1:
        found = ", ".join(f"{precision} for {size}" for precision, size in by_precision.items())
        raise UserError(f"--precision {AUTO} is {found}, and a law needs one precision: give --precision fp32 or bf16")
    return runs


def _budgets(study: StudyArguments, config: RunConfig, corpus: Corpus) -> list[int]:
    """Return the budgets of a size in tokens."""
    if not study.flops:
        return sorted(set(study.tokens))
    flops_per_token = plan_run(config, Path(), corpus).flops_per_token
    budgets = sorted({round(flops / flops_per_token) for flops in study.flops})
    least = MIN_STEPS * config.tokens_per_step
    if budgets[0] < least:
        raise UserError(
            f"--flops {min(study.flops):g}: buys {config.architecture} {config.size} only {budgets[0]} tokens: "
            f"leave the size out or give {1.01 * least * flops_per_token:.3g}"
        )
    if budgets[-1] > MAX_TOKENS:
        raise UserError(f"--flops {max(study.flops):g}: buys {config.size} more than {MAX_TOKENS:,} tokens")
    return budgets


def _branches(configs: Sequence[RunConfig], study: StudyArguments, corpus: Corpus) -> list[PlannedRun]:
    """Return the runs of one size, seed and fraction, one for each budget; with WSD a trunk and its branches."""
    root, rule = Path(study.output_dir), study.lr_rule(configs[0].architecture)
    if study.schedule != WSD:
        return [plan_run(config, run_folder(root, config), corpus, rule) for config in configs]
    starts = tuple(config.cooldown_start for config in configs)
    trunk = configs[0].trunk(max(starts) * configs[0].tokens_per_step)
    folder = run_folder(root, trunk)
    branches = [plan_run(config, run_folder(root, config), corpus, rule, trunk=folder) for config in configs]
    return [plan_run(trunk, folder, corpus, rule, keep_at=starts), *branches]
