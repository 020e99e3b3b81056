"""A study's axes → its runs: sizes × budgets × fractions of the data × seeds, for both architectures."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from cli import UserError
from modeling.ladder import LADDER, Shape, shape_of
from preprocessing.corpus import Corpus
from training.config import COSINE, WINDOWS, WSD, RunConfig, steps_of
from training.learning_rate import Rule
from training.loop import Plan
from training.processes import decide_together
from training.record import run_folder
from training.study import Job, make_job, measure

FEWEST_STEPS = 100  # a run of fewer says nothing about its size
MOST_TOKENS = 10**10  # of a run: thousands of times the bundled corpus
AUTO = "auto"
WIDTH_FOR_BF16 = 128  # narrower models gain nothing from bf16


@dataclass(frozen=True)
class Recipe:
    """What all runs of a study have in common, in units that do not depend on a run's size or budget.

    `cooldown_fraction` is of a WSD run's budget.
    """

    batch_size: int = 4
    context: int = 256
    sequences: str = WINDOWS
    stream_groups: int = 16
    schedule: str = COSINE
    warmup_tokens: int = 20_000
    cooldown_fraction: float = 0.2
    final_lr_fraction: float = 0.01
    weight_decay: float = 0.1
    dropout: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.98
    adam_epsilon: float = 1e-8
    clip_norm: float = 1.0
    activation: str = "gelu"
    slowest_wave: float = 100.0
    forget_bias: float = 1.0
    precision: str = AUTO


@dataclass(frozen=True)
class Axes:
    """The axes of a study. Budgets are `tokens`, or where `flops` are given, the tokens that these buy each size.

    An architecture has the peak learning rates of its schedule's rule, or of one in `lr_rules`.
    """

    sizes: dict[str, Sequence[str]]  # by architecture
    seeds: Sequence[int]
    tokens: Sequence[int]
    flops: Sequence[float]
    data_fractions: Sequence[float]
    lr_rules: dict[str, Rule] = field(default_factory=dict)  # by architecture


def resolve_precision(recipe: Recipe, width: int) -> Recipe:
    """Return a recipe with the precision that "auto" stands for: bf16 for wide models where the hardware has it.

    Wide is WIDTH_FOR_BF16. It follows from the width and the hardware of rank 0, never from a clock.
    """
    if recipe.precision != AUTO:
        return recipe
    return replace(recipe, precision="bf16" if width >= WIDTH_FOR_BF16 and decide_together(has_bf16) else "fp32")


def has_bf16() -> bool:
    """Return whether the device computes in bf16 itself."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def base_config(recipe: Recipe, architecture: str, size: str, shape: Shape, corpus: str, n_keys: int) -> RunConfig:
    """Return the configuration of a model on a corpus (a hash); budget, learning rate and seed are still open."""
    values = asdict(recipe)
    del values["cooldown_fraction"]
    return RunConfig(
        corpus=corpus,
        n_keys=n_keys,
        data_fraction=1.0,
        architecture=architecture,
        size=size,
        **asdict(shape),
        init_from=None,
        init_sha256=None,
        tokens=0,
        cooldown_tokens=0,
        learning_rate=0.0,
        seed=0,
        **values,
    )


def with_budget(config: RunConfig, tokens: int, recipe: Recipe) -> RunConfig:
    """Return a configuration with a budget and the cooldown that belongs to it."""
    cooldown = 0
    if config.schedule == WSD:
        steps = steps_of(tokens, config.tokens_per_step)
        cooldown_steps = round(recipe.cooldown_fraction * steps)
        if not 0 < cooldown_steps < steps:
            raise UserError(
                f"--cooldown_fraction {recipe.cooldown_fraction:g}: a run of {steps} steps has no cooldown, or no trunk"
            )
        cooldown = cooldown_steps * config.tokens_per_step
    return replace(config, tokens=tokens, cooldown_tokens=cooldown)


def plan_ladders(axes: Axes, recipe: Recipe, corpus: Corpus, root: Path) -> list[Job]:
    """Return the runs of a grid, with the trunks that its WSD runs branch off.

    Raises UserError if there are no sizes, if a budget of FLOPs buys a size fewer than FEWEST_STEPS steps, if a
    fraction of the data holds no two sequences, or if an automatic precision is not the same for all sizes.
    """
    for fraction in axes.data_fractions:
        if len(corpus.part(fraction)[0]) < 2 * recipe.context:
            raise UserError(
                f"--data_fraction {fraction:g}: too little of this corpus for sequences of {recipe.context}"
            )
    jobs: list[Job] = []
    for architecture, sizes in axes.sizes.items():
        for size in dict.fromkeys(sizes):
            resolved = resolve_precision(recipe, LADDER[size].n_embd)  # the same for a size's GPT and LSTM
            shape = shape_of(architecture, size, len(corpus.vocabulary), recipe.context)
            base = base_config(resolved, architecture, size, shape, corpus.digest(), corpus.n_keys)
            budgets = _budgets(axes, base, corpus)
            for fraction in dict.fromkeys(axes.data_fractions):
                for seed in dict.fromkeys(axes.seeds):
                    config = replace(base, seed=seed, data_fraction=float(fraction))
                    jobs += _branches(config, budgets, recipe, corpus, root, axes.lr_rules.get(architecture))
    if not jobs:
        raise UserError("no sizes: give --gpt_sizes or --lstm_sizes, or a study file such as studies/quick.yaml")
    by_precision = {job.plan.config.precision: job.plan.config.size for job in jobs}
    if len(by_precision) > 1:
        found = ", ".join(f"{precision} for {size}" for precision, size in by_precision.items())
        raise UserError(f"--precision {AUTO} is {found}, and a law needs one precision: give --precision fp32 or bf16")
    return jobs


def _budgets(axes: Axes, config: RunConfig, corpus: Corpus) -> list[int]:
    if not axes.flops:
        return sorted(set(axes.tokens))
    _, _, flops_per_token = measure(config, corpus)
    budgets = sorted({round(flops / flops_per_token) for flops in axes.flops})
    least = FEWEST_STEPS * config.tokens_per_step
    if budgets[0] < least:
        raise UserError(
            f"--flops {min(axes.flops):g}: that buys {config.architecture} {config.size} {budgets[0]} tokens only: "
            f"leave the size out or give {1.01 * least * flops_per_token:.3g}"
        )
    if budgets[-1] > MOST_TOKENS:
        raise UserError(f"--flops {max(axes.flops):g}: that buys {config.size} more than {MOST_TOKENS:,} tokens")
    return budgets


def _branches(
    config: RunConfig, budgets: Sequence[int], recipe: Recipe, corpus: Corpus, root: Path, rule: Rule | None
) -> list[Job]:
    """Return a run for each budget; with WSD, a trunk and its branches."""
    configs = [with_budget(config, tokens, recipe) for tokens in budgets]
    plans = [Plan(one, run_folder(root, one)) for one in configs]
    if config.schedule == WSD:
        starts = tuple(one.cooldown_start for one in configs)
        trunk = configs[0].trunk(max(starts) * config.tokens_per_step)
        folder = run_folder(root, trunk)
        plans = [Plan(trunk, folder, keep_at=starts), *(replace(plan, trunk=folder) for plan in plans)]
    return [make_job(plan, corpus, rule) for plan in plans]
