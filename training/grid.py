"""A study's axes → its runs: sizes × budgets × parts of the data × seeds, for both architectures."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from door import DoorError
from preprocessing.corpus import Corpus
from training.loop import Plan
from training.recipe import WSD, RateRule, Recipe, steps_of, warmup_steps
from training.record import folder_of
from training.study import Job, make_job, measure

FEWEST_STEPS = 100  # a run of fewer says nothing about its size


@dataclass(frozen=True)
class Axes:
    """The axes of a study. Budgets are `tokens`, or where `flops` are given, the tokens that these buy each size.

    An architecture has the peak rates of its schedule's rule, or of a rule in `rate_rules`.
    """

    sizes: dict[str, Sequence[str]]  # by architecture
    seeds: Sequence[int]
    tokens: Sequence[int]
    flops: Sequence[float]
    one_in: Sequence[int]
    rate_rules: dict[str, RateRule] = field(default_factory=dict)  # by architecture


def plan_ladders(axes: Axes, shared: Recipe, corpus: Corpus, root: Path) -> list[Job]:
    """Return the runs of a grid, with the trunks that its WSD runs branch off; `shared` is what all have in common.

    Raises DoorError if there are no sizes, if a budget of FLOPs buys a size fewer than FEWEST_STEPS steps, or if a part
    of the data holds no two windows.
    """
    for one_in in axes.one_in:
        if len(corpus.part(1 / one_in)[0]) < 2 * shared.context:
            raise DoorError(f"--one_in {one_in}: too small a part of this corpus for windows of {shared.context}")
    jobs: list[Job] = []
    for architecture, sizes in axes.sizes.items():
        for size in sizes:
            base = replace(shared, architecture=architecture, size=size)
            budgets = _budgets(axes, base, corpus)
            for one_in in axes.one_in:
                for seed in axes.seeds:
                    recipe = replace(base, seed=seed, one_in=one_in)
                    jobs += _arm(recipe, budgets, corpus, root, axes.rate_rules.get(architecture))
    if not jobs:
        raise DoorError("no sizes: give --gpt_sizes or --lstm_sizes, or a study file such as studies/quick.yaml")
    return jobs


def _budgets(axes: Axes, recipe: Recipe, corpus: Corpus) -> list[int]:
    if not axes.flops:
        return sorted(set(axes.tokens))
    _, _, flops_per_token = measure(recipe, corpus)
    budgets = sorted({round(flops / flops_per_token) for flops in axes.flops})
    least = FEWEST_STEPS * recipe.tokens_per_step
    if budgets[0] < least:
        raise DoorError(
            f"--flops {min(axes.flops):g}: that buys {recipe.architecture} {recipe.size} {budgets[0]} tokens only: "
            f"leave the size out or give {1.01 * least * flops_per_token:.3g}"
        )
    return budgets


def _arm(recipe: Recipe, budgets: Sequence[int], corpus: Corpus, root: Path, rule: RateRule | None) -> list[Job]:
    """Return a run for each budget; with WSD, a trunk and its branches."""

    def plan(one: Recipe) -> Plan:
        return Plan(one, folder_of(root, asdict(one)))

    steps = [steps_of(tokens, recipe.batch_size, recipe.context) for tokens in budgets]
    if recipe.schedule != WSD:
        return [
            make_job(plan(replace(recipe, tokens=tokens, warmup=warmup_steps(count))), corpus, rule)
            for tokens, count in zip(budgets, steps, strict=True)
        ]
    recipe = replace(recipe, warmup=warmup_steps(min(steps)))
    branches = [replace(recipe, tokens=tokens) for tokens in budgets]
    starts = tuple(branch.cooldown_start for branch in branches)
    trunk = plan(recipe.trunk(max(starts) * recipe.tokens_per_step))
    plans = [replace(trunk, keep_at=starts), *(replace(plan(branch), trunk=trunk.folder) for branch in branches)]
    return [make_job(one, corpus, rule) for one in plans]
