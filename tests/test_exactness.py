"""A run that is killed, at whatever moment, ends with the bits of one that never was."""

import os
import random
import signal
import sys
import time
from dataclasses import replace
from itertools import chain, count
from pathlib import Path

import pytest
from forks import exit_code
from small_runs import RECIPE, train
from test_training import CONFIG, OFTEN, assert_same_run, assert_same_weights, quiet
from training.checkpoint import BEFORE, LATEST
from training.grid import Axes, plan_ladders

from training.config import WSD
from training.loop import ExecutionConfig, Plan
from training.record import read_record


def train_alone(plan, corpus, conduct=OFTEN, dies_before=0):
    """Train, and die by SIGKILL before the change of that number to a name in any folder (0: never).

    A temporary file that was about to get its name is cut in half first.
    """
    number = count(1)

    def die(event, arguments):
        if event in {"os.rename", "os.remove", "os.rmdir"} and next(number) == dies_before:
            source = Path(arguments[0])
            if source.name.startswith(".") and source.is_file():
                os.truncate(source, source.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(die)
    train(plan, corpus, quiet, conduct)


def dies_in_checkpoint(number, kept):
    """Return what `train_alone` dies before so that the checkpoint of that number is the first that is not whole.

    A checkpoint makes way for the next, gets its name and takes its temporary one away; a kept state only the latter.
    """
    return 3 * (number - 1) - 1 + 2 * kept + 2


# --- a run -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("architecture", "micro_batch_size"), [("gpt", 3), ("lstm", 1)])
def test_a_run_that_is_killed_at_random_moments_ends_with_the_same_bits(
    small_corpus, tmp_path, architecture, micro_batch_size
):
    config = replace(CONFIG, architecture=architecture, dropout=0.1, tokens=8_000)
    conduct = replace(OFTEN, micro_batch_size=micro_batch_size)
    start = time.perf_counter()
    train(Plan(config, tmp_path / "whole"), small_corpus, quiet, conduct)
    whole = time.perf_counter() - start
    draw, killed = random.Random(0), Plan(config, tmp_path / "killed")
    ends = []
    while 0 not in ends:
        assert set(ends) <= {-signal.SIGKILL}
        patience = 0.1 * 1.4 ** len(ends)  # of the time that the run takes: on any machine it ends
        ends.append(exit_code(whole * patience * draw.uniform(0.5, 2), train_alone, killed, small_corpus, conduct))
    assert len(ends) > 3
    assert_same_run(killed.folder, tmp_path / "whole")


def test_a_run_killed_between_all_changes_of_its_folder_ends_with_the_same_bits(small_corpus, tmp_path):
    config = replace(CONFIG, dropout=0.1, tokens=3 * CONFIG.tokens_per_step)
    whole, killed = Plan(config, tmp_path / "whole"), Plan(config, tmp_path / "killed")
    train(whole, small_corpus, quiet, OFTEN)
    seen = set()
    for dies_before in chain([4], count(1)):  # the fourth is the second checkpoint's name: the first stands aside
        ended = exit_code(60, train_alone, killed, small_corpus, OFTEN, dies_before)
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        seen.add(tuple(sorted(path.name for path in killed.folder.iterdir() if ".partial" not in path.name)))
    half_moved = {".model", "config.json", LATEST}
    assert any(half_moved <= set(names) and "model.safetensors" not in names for names in seen)
    assert any({"record.json", LATEST} <= set(names) for names in seen)
    assert (BEFORE,) in {tuple(name for name in names if not name.startswith(".")) for names in seen}
    assert_same_run(killed.folder, whole.folder)


# --- trunks and their branches ---------------------------------------------------------------------------------------


class Grid:
    """A WSD grid of one size with dropout: a trunk, and a branch for each budget (in steps)."""

    def __init__(self, corpus, root, architecture="gpt"):
        self.corpus, self.root = corpus, root
        self.recipe = replace(RECIPE, schedule=WSD, dropout=0.1)
        self.sizes = {architecture: ["15k"]}

    def plans(self, *budgets):
        tokens = [steps * CONFIG.tokens_per_step for steps in budgets]
        rules = dict.fromkeys(self.sizes, (CONFIG.learning_rate, 0.0))
        axes = Axes(self.sizes, [0], tokens, [], [1.0], rules)
        return [job.plan for job in plan_ladders(axes, self.recipe, self.corpus, self.root)]

    def train(self, *budgets):
        """Train as a study does; return the first step that each run took, None for one that was finished."""
        heard = []
        for plan in self.plans(*budgets):
            first = []
            train(plan, self.corpus, lambda tokens, _, first=first: first.append(tokens), OFTEN)
            heard.append(first[0] // CONFIG.tokens_per_step if first else None)
        return heard

    def kill_trunk(self, *budgets, dies_before):
        assert exit_code(60, train_alone, self.plans(*budgets)[0], self.corpus, OFTEN, dies_before) == -signal.SIGKILL


@pytest.fixture(scope="module")
def alone(small_corpus, tmp_path_factory):
    """WSD runs of 10, 15 and 20 steps, each trained alone, by budget."""
    root = tmp_path_factory.mktemp("alone")
    folders = {}
    for plan in Grid(small_corpus, root).plans(10, 15, 20)[1:]:
        train(replace(plan, trunk=None), small_corpus, quiet, ExecutionConfig())
        folders[plan.config.steps] = plan.folder
    return folders


def assert_branches_are(grid, alone, *budgets):
    for plan, budget in zip(grid.plans(*budgets)[1:], budgets, strict=True):
        assert read_record(plan.folder).trunk["step"] == round(0.8 * budget)
        assert_same_weights(plan.folder, alone[budget])


def test_a_branch_ends_with_the_bits_of_the_same_run_trained_alone(small_corpus, tmp_path, alone):
    grid = Grid(small_corpus, tmp_path)
    grid.train(10, 20)
    assert_branches_are(grid, alone, 10, 20)


def test_a_larger_budget_added_later_grows_the_trunk_from_its_last_kept_state(small_corpus, tmp_path, alone):
    grid = Grid(small_corpus, tmp_path)
    grid.train(10)
    assert grid.train(10, 20) == [9, None, 17]
    assert_branches_are(grid, alone, 10, 20)


def test_a_smaller_budget_added_later_leaves_what_is_finished_and_costs_no_more_than_its_own_steps(
    small_corpus, tmp_path, alone
):
    grid = Grid(small_corpus, tmp_path)
    grid.train(15, 20)
    before = {plan.folder: plan.config.config_hash for plan in grid.plans(15, 20)}
    assert before.items() <= {plan.folder: plan.config.config_hash for plan in grid.plans(10, 15, 20)}.items()
    assert grid.train(10, 15, 20) == [1, 9, None, None]
    assert read_record(grid.plans(10)[0].folder).steps == 8
    assert_branches_are(grid, alone, 10, 15, 20)


@pytest.mark.parametrize(("budgets", "goes_on_at"), [((10, 20), 14), ((10, 15), 9)], ids=str)
def test_a_trunk_killed_on_its_way_goes_on_also_to_other_budgets(small_corpus, tmp_path, alone, budgets, goes_on_at):
    """It has a checkpoint of step 13, on its way from step 8 to step 16; a budget of 15 branches off at step 12."""
    grid = Grid(small_corpus, tmp_path)
    grid.kill_trunk(10, 20, dies_before=dies_in_checkpoint(14, kept=1))
    first, *_ = grid.train(*budgets)
    assert first == goes_on_at
    assert_branches_are(grid, alone, *budgets)
    assert not (grid.plans(10, 20)[0].folder / LATEST).exists()
