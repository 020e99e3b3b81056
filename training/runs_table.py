"""All runs of the studies as one table, a parquet file with a row a run; this module is its only writer and reader."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from door import DoorError, whole_file
from training.record import FINISHED, NOT_RUN

CONFIG = "config"  # its fields differ from one architecture to the next: JSON, in one column
MAY_BE_NONE = ("reason", "peak_device_memory_bytes")  # in a record; what else is None in a row, its record lacks
PLACE = ("study", "arm")  # what a row has beside its record
Record = dict[str, Any]


def write_runs(path: Path, records: Sequence[Record]) -> None:
    """Write records as a table, whole or not at all: a field of a field is a column named with a dot."""
    rows = [_flat(record) for record in records]
    every = dict.fromkeys(name for row in rows for name in row)
    outer = {name.partition(".")[0] for name in every if "." in name}  # None where another record has fields
    names = [name for name in every if name not in outer]
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    with whole_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_runs_table(path: Path) -> list[Record]:
    """Return the records of a table, in its order; a field that a record lacks is None. Raises DoorError."""
    try:
        rows = pq.read_table(path).to_pylist()
    except FileNotFoundError:
        raise DoorError(f"{path} is missing: training/run.py STUDY.yaml --runs_file {path} writes it") from None
    except pa.ArrowInvalid as error:
        raise DoorError(f"{path} is no table of runs ({str(error).splitlines()[0]})") from None
    return [_nested(row) for row in rows]


def replace_rows(path: Path, records: Sequence[Record], same: Iterable[str]) -> None:
    """Put records in the place of those rows that are like any of them in the fields `same`.

    The row of a run that has ended gives way to a record of the same run, but not to one that says that it has not been
    run: it was trained elsewhere.
    """
    names = tuple(same)

    def group(row: Record) -> tuple[Any, ...]:
        return tuple(row[name] for name in names)

    ours = set(map(group, records))
    before = read_runs_table(path) if path.is_file() else []
    ended = {(group(row), identity(row)): row for row in before if row["status"] != NOT_RUN}
    newest = [
        ended.get((group(record), identity(record)), record) if record["status"] == NOT_RUN else record
        for record in records
    ]
    write_runs(path, [*(row for row in before if group(row) not in ours), *newest])


def finished_records(path: Path) -> dict[str, Record]:
    """Return the records of a table's finished runs as their folders held them, by identity. Raises DoorError."""
    return {
        identity(row): {k: v for k, v in row.items() if k not in PLACE and (v is not None or k in MAY_BE_NONE)}
        for row in read_runs_table(path)
        if row["status"] == FINISHED
    }


def identity(row: Record) -> str:
    """Return what tells a run from any other: its recipe and corpus."""
    return json.dumps([row["recipe"], row["corpus"]], sort_keys=True)


def _flat(record: Record) -> Record:
    row = {}
    for name, value in record.items():
        if name == CONFIG:
            row[name] = json.dumps(value, sort_keys=True)
        elif isinstance(value, dict):
            row |= {f"{name}.{key}": item for key, item in value.items()}
        else:
            row[name] = value
    return row


def _nested(row: Record) -> Record:
    record: Record = {}
    for name, value in row.items():
        outer, dot, inner = name.partition(".")
        if dot:
            record.setdefault(outer, {})[inner] = value
        else:
            record[name] = json.loads(value) if name == CONFIG and value is not None else value
    for name, value in record.items():
        if isinstance(value, dict) and name != CONFIG and all(item is None for item in value.values()):
            record[name] = None
    return record
