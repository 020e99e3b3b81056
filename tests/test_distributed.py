"""Several processes train one run: by DDP and by FSDP2, which Accelerate offers on a CPU only by its plugin."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import yaml
from accelerate import Accelerator, PartialState
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from filelock import FileLock
from forks import FORKS
from small_runs import planned, quiet, train
from test_single_run import CONFIG, OFTEN, assert_same_run, exhausted_above
from torch.distributed import TCPStore
from transformers import AutoModelForCausalLM, GPT2LMHeadModel

from training import single_run
from training.evaluation import token_losses
from training.execution import ExecutionConfig, Tracking
from training.record import read_record
from training.saving import PREVIOUS

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
CPU = ROOT / "configs" / "cpu_two_processes.yaml"


def sharding_accelerator(*_):
    """Stand in for Tracking.accelerator: FSDP2 on the CPU."""
    accelerator = Accelerator(cpu=True)
    PartialState().distributed_type = accelerator.state.distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False
    )
    return accelerator


def train_as(rank, port, sharded, run, corpus, execution):
    """Train as one of two processes, with the environment that torchrun sets."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    address = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": True}
    os.environ |= {name: str(value) for name, value in {**place, **address}.items()}
    if sharded:
        os.environ["ACCELERATE_USE_FSDP"] = "true"
        Tracking.accelerator = sharding_accelerator
    single_run.train(run, corpus, quiet, execution)
    torch.distributed.destroy_process_group()


def train_by_two(run, corpus, execution=OFTEN, sharded=False, kill_at_second_checkpoint=False):
    """Train by two processes; return their exit codes."""
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    shared = (store.port, sharded, run, corpus, execution)
    processes = [FORKS.Process(target=train_as, args=(rank, *shared)) for rank in range(2)]
    try:
        for process in processes:
            process.start()
        deadline = time.monotonic() + 60
        while kill_at_second_checkpoint and not (run.folder / PREVIOUS).is_file():
            assert time.monotonic() < deadline
            assert all(process.is_alive() for process in processes)
            time.sleep(0.005)
        for process in [] if kill_at_second_checkpoint else processes:
            process.join(60)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def assert_close(found, expected):
    """The records' losses agree within 1e-5."""
    for name in ("train_curve", "validation_curve"):
        curve, wanted = getattr(found, name), getattr(expected, name)
        assert curve["step"] == wanted["step"]
        assert curve["loss"] == pytest.approx(wanted["loss"], abs=1e-5)
    assert found.train_curve["gradient_norm"] == pytest.approx(expected.train_curve["gradient_norm"], rel=1e-3)
    assert found.validation_loss == pytest.approx(expected.validation_loss, abs=1e-5)


def launch(log, *arguments, hash_seed=0):
    """Run the documented training command with two processes; return its exit code and its output."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", CPU, "--main_process_port", 0]
    command = [str(part) for part in (*command, ROOT / "training" / "run.py", *arguments)]
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    with log.open("w+") as output:
        launcher = psutil.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            ended = launcher.wait(120)
        finally:
            for process in [*launcher.children(recursive=True), launcher] if launcher.is_running() else []:
                process.kill()
    return ended, log.read_text()


@pytest.mark.parametrize("hash_seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))])
def test_the_documented_launch_trains_as_one_process_does(small_corpus, tmp_path, hash_seed):
    """With all defaults: only the corpus and what makes the runs short is given."""
    ended, output = launch(
        tmp_path / "log",
        *("--corpus", small_corpus.folder, "--output_dir", tmp_path / "two"),
        *("--gpt_sizes", "15k", "--lstm_sizes", "15k", "--tokens", 5_000, "--context", 64, "--warmup_tokens", 252),
        hash_seed=hash_seed,
    )
    assert ended == 0, output
    assert output.count("all 2 runs are finished") == 1
    records = [read_record(path.parent) for path in (tmp_path / "two").rglob("record.json")]
    assert sorted(record.config.architecture for record in records) == ["gpt", "lstm"]
    for record in records:
        assert record.processes == 2
        assert_close(record, train(record.config, tmp_path / record.config.architecture, small_corpus))


@pytest.mark.long
def test_a_dry_run_launched_in_two_processes_prints_its_table_once(small_corpus, tmp_path):
    ended, output = launch(
        tmp_path / "log",
        *("--corpus", small_corpus.folder, "--output_dir", tmp_path / "two", "--dry_run"),
        *("--gpt_sizes", "15k", "30k", "--lstm_sizes", "15k", "--context", 64),
    )
    assert ended == 0, output
    assert output.count("disk, MB") == 1


def test_a_batch_that_two_processes_cannot_share_is_refused(small_corpus, tmp_path):
    ended, output = launch(
        tmp_path / "log",
        *("--corpus", small_corpus.folder, "--output_dir", tmp_path / "two", "--gpt_sizes", "15k", "--batch_size", 3),
    )
    assert ended == 1
    assert "--batch_size 3" in output


@pytest.mark.long
def test_a_study_in_a_folder_in_use_ends_on_every_process(small_corpus, tmp_path):
    (tmp_path / "two").mkdir()
    with FileLock(tmp_path / "two" / ".training.lock"):
        ended, output = launch(
            tmp_path / "log",
            *("--corpus", small_corpus.folder, "--output_dir", tmp_path / "two", "--gpt_sizes", "15k"),
            *("--context", 64),
        )
    assert ended == 1
    assert "another study is training there" in output
    assert "Connection closed" not in output


class LittleMemory(Tracking):
    """Rank 1 has memory for one sequence, rank 0 for all."""

    def accelerator(self, folder):
        if os.environ["RANK"] == "1":
            GPT2LMHeadModel.forward = exhausted_above(1)
        return super().accelerator(folder)


def test_if_one_process_is_short_of_memory_all_take_fewer_sequences(small_corpus, tmp_path):
    run = planned(replace(CONFIG, tokens=3_000), tmp_path / "two", small_corpus)
    assert train_by_two(run, small_corpus, ExecutionConfig(tracking=LittleMemory())) == [0, 0]
    record = read_record(run.folder)
    assert record.micro_batch_size == 1
    assert_close(record, train(run.config, tmp_path / "one", small_corpus))


def assert_killed(exit_codes):
    assert -signal.SIGKILL in exit_codes
    assert 0 not in exit_codes  # the other process may have noticed first that it is alone


def test_a_killed_run_of_two_processes_ends_with_the_same_bits(small_corpus, tmp_path):
    config = replace(CONFIG, dropout=0.1, tokens=6_000)
    execution = replace(OFTEN, micro_batch_size=1)  # of two sequences of a process: gradients are accumulated
    whole, killed = (planned(config, tmp_path / name, small_corpus) for name in ("whole", "killed"))
    assert train_by_two(whole, small_corpus, execution) == [0, 0]
    assert_killed(train_by_two(killed, small_corpus, execution, kill_at_second_checkpoint=True))
    assert read_record(killed.folder) is None
    assert train_by_two(killed, small_corpus, execution) == [0, 0]
    assert_same_run(killed.folder, whole.folder)
    assert read_record(killed.folder).micro_batch_size == 1


@pytest.mark.parametrize("architecture", ["gpt", "lstm"])
def test_a_sharded_run_that_was_killed_trains_as_one_process_does_and_its_model_loads(
    small_corpus, tmp_path, architecture
):
    config = replace(CONFIG, architecture=architecture, tokens=4_000)
    run = planned(config, tmp_path / "sharded", small_corpus)
    assert_killed(train_by_two(run, small_corpus, sharded=True, kill_at_second_checkpoint=True))
    assert train_by_two(run, small_corpus, sharded=True) == [0, 0]
    record = read_record(run.folder)
    assert record.processes == 2
    assert_close(record, train(config, tmp_path / "one", small_corpus))
    model = AutoModelForCausalLM.from_pretrained(run.folder)
    losses = token_losses(model, np.asarray(small_corpus.tokens("validation")), 64)
    assert losses.mean() == pytest.approx(record.validation_loss, rel=1e-5)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_knows_every_field_of_a_launch_configuration(config):
    kind = load_config_from_file(str(config)).distributed_type  # raises for unknown fields
    fields = yaml.safe_load(config.read_text())
    parser = launch_command_parser()
    assert set(fields.get("fsdp_config", {})) <= {action.dest for action in parser._actions}
    node = ["--machine_rank", "1", "--main_process_ip", "10.0.0.1"] if fields["num_machines"] > 1 else []
    launch, *_ = _validate_launch_command(parser.parse_args(["--config_file", str(config), *node, "training/run.py"]))
    assert launch.num_processes == fields["num_processes"]
    assert launch.use_fsdp == (kind == DistributedType.FSDP) == config.stem.startswith("fsdp")
    assert (launch.use_cpu, launch.multi_gpu) == (config == CPU, not launch.use_fsdp)
