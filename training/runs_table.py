"""All runs of a study as one table, a parquet file with a row a run, written and read by this module alone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cli import UserError
from files import atomic_write
from training.record import NOT_RUN, RunRecord

MODEL_CONFIG = "model_config"  # JSON in one column, as its fields differ between the architectures
MAPPINGS = (
    *("config", "split_hashes", "versions", "n_params_by_group", "flops_per_token_by_module"),
    *("trunk", "train_curve", "validation_curve"),
)


@dataclass(frozen=True)
class Row:
    """A row of the table: a record, and the study and arm that the run belongs to."""

    study: str
    arm: str
    record: RunRecord


def write_runs(path: Path, rows: Sequence[Row]) -> None:
    """Write the table atomically: a field of a mapping is a column named with a dot."""
    flat = [_flatten(row) for row in rows]
    names = dict.fromkeys(name for values in flat for name in values)
    table = pa.table({name: [values.get(name) for values in flat] for name in names})
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_runs_table(path: Path) -> list[Row]:
    """Return the rows of a table, in its order. Raises UserError naming the row that is not a run's record."""
    try:
        values = pq.read_table(path).to_pylist()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: training/export.py STUDY.yaml --runs {path} writes it") from None
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is not a table of runs ({str(error).splitlines()[0]})") from None
    rows = []
    for number, one in enumerate(values):
        try:
            rows.append(_nest(one))
        except (UserError, KeyError, ValueError) as error:
            raise UserError(
                f"{path}, row {number}: not a run's record ({error}); training/export.py writes one"
            ) from None
    return rows


def replace_arms(path: Path, rows: Sequence[Row]) -> None:
    """Replace the rows of the same studies and arms.

    A run that ended is not replaced by a row that says that it has not been run: it was trained elsewhere.
    """
    ours = {(row.study, row.arm) for row in rows}
    before = read_runs_table(path) if path.is_file() else []
    ended = {_key(row): row for row in before if row.record.status != NOT_RUN}
    newest = [ended.get(_key(row), row) if row.record.status == NOT_RUN else row for row in rows]
    write_runs(path, [*(row for row in before if (row.study, row.arm) not in ours), *newest])


def _key(row: Row) -> tuple[str, str, str]:
    return row.study, row.arm, row.record.config_hash


def _flatten(row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {"study": row.study, "arm": row.arm}
    for name, value in row.record.to_dict().items():
        if name in MAPPINGS:
            flat |= {f"{name}.{key}": item for key, item in (value or {}).items()}
        else:
            flat[name] = json.dumps(value, sort_keys=True) if name == MODEL_CONFIG and value is not None else value
    return flat


def _nest(flat: dict[str, Any]) -> Row:
    record: dict[str, Any] = {}
    for name, value in flat.items():
        outer, _, inner = name.partition(".")
        if inner:
            record.setdefault(outer, {})[inner] = value
        else:
            record[name] = json.loads(value) if name == MODEL_CONFIG and value is not None else value
    for name in MAPPINGS:  # a mapping that only other runs have is columns of None here
        if name != "config" and all(value is None for value in record.get(name, {}).values()):
            record[name] = None
    return Row(record.pop("study"), record.pop("arm"), RunRecord.from_dict(record))
