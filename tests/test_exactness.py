"""A run that is killed at any moment ends with the bits of an uninterrupted one."""

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
from small_runs import made_study, planned, quiet
from test_single_run import CONFIG, OFTEN, assert_same_run, assert_same_weights

from training.config import WSD
from training.planning import plan_study
from training.record import read_record
from training.saving import LATEST, PREVIOUS
from training.single_run import train


def train_alone(run, corpus, execution=OFTEN, dies_before=0):
    """Train, and die by SIGKILL before the change of that number to a name in any folder (0: never).

    A temporary file about to get its name is cut in half first.
    """
    number = count(1)

    def die(event, arguments):
        if event in {"os.rename", "os.remove", "os.rmdir"} and next(number) == dies_before:
            source = Path(arguments[0])
            if source.name.startswith(".") and source.is_file():
                os.truncate(source, source.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(die)
    train(run, corpus, quiet, execution)


def dies_in_checkpoint(number, kept):
    """Return what `train_alone` dies before so that the checkpoint of that number is the first damaged one.

    A checkpoint becomes the previous one, the next gets its name, its temporary file is removed; a kept state has only
    the latter two.
    """
    return 3 * (number - 1) - 1 + 2 * kept + 2


# --- a run -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("architecture", "micro_batch_size"), [("gpt", 3), ("lstm", 1)])
def test_a_run_that_is_killed_at_random_moments_ends_with_the_same_bits(
    small_corpus, tmp_path, architecture, micro_batch_size
):
    config = replace(CONFIG, architecture=architecture, dropout=0.1, tokens=8_000)
    execution = replace(OFTEN, micro_batch_size=micro_batch_size)
    whole, killed = (planned(config, tmp_path / name, small_corpus) for name in ("whole", "killed"))
    start = time.perf_counter()
    train(whole, small_corpus, quiet, execution)
    seconds = time.perf_counter() - start
    draw, ends = random.Random(0), []
    while 0 not in ends:
        assert set(ends) <= {-signal.SIGKILL}
        patience = 0.1 * 1.4 ** len(ends)  # of the time that the run takes: on any machine it ends
        ends.append(exit_code(seconds * patience * draw.uniform(0.5, 2), train_alone, killed, small_corpus, execution))
    assert len(ends) > 3
    assert_same_run(killed.folder, whole.folder)


def test_a_run_killed_between_all_changes_of_its_folder_ends_with_the_same_bits(small_corpus, tmp_path):
    config = replace(CONFIG, dropout=0.1, tokens=3 * CONFIG.tokens_per_step)
    whole, killed = (planned(config, tmp_path / name, small_corpus) for name in ("whole", "killed"))
    train(whole, small_corpus, quiet, OFTEN)
    seen = set()
    for dies_before in chain([4], count(1)):  # the fourth is the second checkpoint's name: only the first is whole
        ended = exit_code(60, train_alone, killed, small_corpus, OFTEN, dies_before)
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        seen.add(tuple(sorted(path.name for path in killed.folder.iterdir() if ".partial" not in path.name)))
    half_moved = {".model", "config.json", LATEST}
    assert any(half_moved <= set(names) and "model.safetensors" not in names for names in seen)
    assert any({"record.json", LATEST} <= set(names) for names in seen)
    assert (PREVIOUS,) in {tuple(name for name in names if not name.startswith(".")) for names in seen}
    assert_same_run(killed.folder, whole.folder)


# --- trunks and their branches ---------------------------------------------------------------------------------------


class Grid:
    """A WSD grid of one size with dropout: a trunk, and a branch for each budget (in steps)."""

    def __init__(self, corpus, root, architecture="gpt", dropout=0.1, **changes):
        self.corpus, self.root, self.dropout = corpus, root, dropout
        sizes = {"gpt_sizes": [], "lstm_sizes": []} | {f"{architecture}_sizes": ["15k"]}
        rules = {f"{architecture}_lr_rule": [CONFIG.learning_rate]}
        self.changes = {"schedule": WSD, **sizes, **rules, **changes}

    def runs(self, *budgets):
        tokens = [steps * CONFIG.tokens_per_step for steps in budgets]
        runs = plan_study(made_study(self.root, tokens=tokens, **self.changes), self.corpus)
        return [replace(run, config=replace(run.config, dropout=self.dropout)) for run in runs]

    def train(self, *budgets):
        """Train as a study does; return the first step of each run, None for one that was finished."""
        firsts = []
        for run in self.runs(*budgets):
            steps = []
            train(run, self.corpus, lambda tokens, _, steps=steps: steps.append(tokens), OFTEN)
            firsts.append(steps[0] // CONFIG.tokens_per_step if steps else None)
        return firsts

    def train_alone(self, *budgets):
        """Train each budget without a trunk; return the folders by budget."""
        runs = [replace(run, trunk=None) for run in self.runs(*budgets)[1:]]
        for run in runs:
            train(run, self.corpus, quiet, OFTEN)
        return {run.config.steps: run.folder for run in runs}

    def assert_branches_are(self, alone, *budgets):
        for run, budget in zip(self.runs(*budgets)[1:], budgets, strict=True):
            assert read_record(run.folder).trunk["step"] == round(0.8 * budget)
            assert_same_weights(run.folder, alone[budget])


@pytest.fixture(scope="module")
def alone(small_corpus, tmp_path_factory):
    """WSD runs of 10, 15 and 20 steps, each trained alone, by budget."""
    return Grid(small_corpus, tmp_path_factory.mktemp("alone")).train_alone(10, 15, 20)


def test_branches_end_with_the_bits_of_runs_trained_alone_also_if_the_trunk_grows_later(small_corpus, tmp_path, alone):
    grid = Grid(small_corpus, tmp_path)
    grid.train(10)
    assert grid.train(10, 20) == [9, None, 17]
    grid.assert_branches_are(alone, 10, 20)


def test_a_smaller_budget_added_later_changes_nothing_that_is_finished_and_costs_only_its_own_steps(
    small_corpus, tmp_path, alone
):
    grid = Grid(small_corpus, tmp_path)
    grid.train(15, 20)
    before = {run.folder: run.config.config_hash for run in grid.runs(15, 20)}
    assert before.items() <= {run.folder: run.config.config_hash for run in grid.runs(10, 15, 20)}.items()
    assert grid.train(10, 15, 20) == [1, 9, None, None]
    assert read_record(grid.runs(10)[0].folder).steps == 8
    grid.assert_branches_are(alone, 10, 15, 20)


@pytest.mark.parametrize(("budgets", "continues_at"), [((10, 20), 14), ((10, 15), 9)], ids=str)
def test_a_killed_trunk_continues_also_to_other_budgets(small_corpus, tmp_path, alone, budgets, continues_at):
    """It has a checkpoint of step 13, between steps 8 and 16; a budget of 15 branches off at step 12."""
    grid = Grid(small_corpus, tmp_path)
    trunk = grid.runs(10, 20)[0]
    dies_before = dies_in_checkpoint(14, kept=1)
    assert exit_code(60, train_alone, trunk, small_corpus, OFTEN, dies_before) == -signal.SIGKILL
    assert grid.train(*budgets)[0] == continues_at
    grid.assert_branches_are(alone, *budgets)
    assert not (trunk.folder / LATEST).exists()
