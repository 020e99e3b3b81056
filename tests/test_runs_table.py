"""All runs as one table: what is written is what is read, and arms replace their rows."""

import json
import re
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from made_results import PUBLISHED
from small_runs import made_config

from cli import UserError
from training.record import FINISHED, NOT_RUN, RunRecord, read_record, write_record
from training.runs_table import Row, read_runs_table, replace_arms, write_runs


def row(arm, loss, seed, **changes):
    config = made_config(seed=seed)
    counts = {"n_params": 15_000, "n_params_non_embedding": 9_000, "flops_per_token": 1e5, "steps": 48}
    record = RunRecord(
        status=NOT_RUN if loss is None else FINISHED,
        config=config,
        config_hash=config.config_hash,
        validation_loss=loss,
        **counts | {"tokens": 12_000, "flops": 1.2e9} | changes,
    )
    return Row("cpu", arm, record)


def test_a_record_comes_back_as_it_was_and_a_missing_mapping_is_none(tmp_path):
    plain = row("ladders", 1.25, 0, model_config={"n_layer": 2, "names": ["a"]})
    branch = row("ladders", 1.5, 1, trunk={"run": "trunk/seed_0", "step": 784})
    write_runs(tmp_path / "runs.parquet", [plain, branch])
    assert read_runs_table(tmp_path / "runs.parquet") == [plain, branch]
    assert plain.record.trunk is None


def test_a_table_without_a_later_field_is_readable_and_one_without_a_field_of_the_configuration_is_not(tmp_path):
    path, plain = tmp_path / "runs.parquet", row("ladders", 1.25, 0)
    write_runs(path, [plain])
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["compiled"]), path)
    assert read_runs_table(path) == [plain]
    pq.write_table(table.drop_columns(["config.seed"]), path)
    with pytest.raises(UserError, match=r"runs\.parquet, row 0: .*no seed"):
        read_runs_table(path)


def test_the_rows_of_an_arm_are_replaced_except_runs_that_ended_elsewhere(tmp_path):
    path = tmp_path / "runs.parquet"
    replace_arms(path, [row("a", 1.0, 0), row("a", None, 1), row("a", 5.0, 4), row("b", 3.0, 0)])
    replace_arms(path, [row("a", None, 0), row("a", 2.0, 1), row("a", None, 2), row("a", 6.0, 4)])
    found = [(one.arm, one.record.config.seed, one.record.validation_loss) for one in read_runs_table(path)]
    assert found == [("b", 0, 3.0), ("a", 0, 1.0), ("a", 1, 2.0), ("a", 2, None), ("a", 4, 6.0)]


def test_a_record_whose_hash_is_not_that_of_its_configuration_is_refused(tmp_path):
    wrong = row("a", 1.0, 0)
    write_runs(tmp_path / "runs.parquet", [replace(wrong, record=replace(wrong.record, config_hash="0" * 16))])
    with pytest.raises(UserError, match="config_hash"):
        read_runs_table(tmp_path / "runs.parquet")


def test_a_file_that_is_missing_or_not_a_table_is_named(tmp_path):
    (tmp_path / "runs.parquet").write_text("loss\n1\n")
    for name in ("runs", "none"):
        with pytest.raises(UserError, match=rf"{name}\.parquet is"):
            read_runs_table(tmp_path / f"{name}.parquet")


DAMAGES = {
    "cut off": lambda record: json.dumps(record)[:200],
    "empty": lambda _: "",
    "a list": lambda record: json.dumps([record]),
    "no config": lambda record: json.dumps({**record, "config": None}),
    "an empty config": lambda record: json.dumps({**record, "config": {}}),
    "another hash": lambda record: json.dumps({**record, "config_hash": "0123456789abcdef"}),
    "no loss": lambda record: json.dumps({**record, "validation_loss": None}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_record_is_refused_by_name(tmp_path, damage):
    write_record(tmp_path, row("a", 1.25, 0).record)
    path = tmp_path / "record.json"
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(UserError, match=re.escape(str(path))):
        read_record(tmp_path)


def test_the_data_dictionary_names_every_column_of_the_committed_table():
    text = (PUBLISHED / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w.*]+)`", text))
    for column in pq.read_schema(PUBLISHED / "runs.parquet").names:
        outer, _, inner = column.partition(".")
        named_so = column in named or (f"{outer}.*" in named and (inner in named or outer == "versions"))
        assert named_so or column.startswith("test_"), column
