"""Anyone's table of runs (CSV, TSV, JSON lines, parquet) as the columns that a law is fitted to."""

import csv
import difflib
import io
import json
import math
import reprlib
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from door import DoorError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Rows = list[tuple[str, list[Any]]]  # where a row stands in its file, and its cells

CLUSTER = "cluster"
MIN_ROWS = 4


@dataclass(frozen=True)
class Table:
    """All runs of one file, in its order; none is ever left out.

    `columns` maps the variables loss, n, d, c, u, keys, as far as they were named, to [rows]. `clusters` [rows] numbers
    the values of the cluster column from 0 in the order in which they appear.
    """

    path: Path
    columns: dict[str, FloatArray]
    clusters: IntArray | None
    rows: int

    def need(self, law: str, variables: Iterable[str]) -> dict[str, FloatArray]:
        """Return the columns [rows] that a law is fitted to; nothing is made up, C is not taken for 6·N·D.

        Raises DoorError naming the flags of the columns that were not given.
        """
        wanted = list(variables)
        missing = [f"--{variable}" for variable in wanted if variable not in self.columns]
        if missing:
            raise DoorError(f"the law {law} needs {' and '.join(missing)}: name the columns of {self.path} with them")
        return {variable: self.columns[variable] for variable in wanted}


def read_table(path: Path, columns: dict[str, str]) -> Table:
    """Read the named columns; `columns` maps loss, n, d, c, u, keys and cluster to names in the file.

    Dotted names reach into nested fields of JSON lines and parquet. Raises DoorError with one line, which names the
    first place where the file is not as it must be: every number finite and above 0, four rows, sizes that differ.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DoorError(f"{path} is not a table: give a file that ends in {', '.join(READERS)}")
    if not path.is_file():
        raise DoorError(f"{path} is not there, or not a file: give the table of runs")
    _check_flags(path, columns)
    try:
        names, rows = reader(path)
    except UnicodeDecodeError:
        raise DoorError(f"{path} is not text in UTF-8: save it in that encoding") from None
    if not names:
        raise DoorError(f"{path} is empty: a header and {MIN_ROWS} rows are needed")
    places = {variable: _find(path, names, variable, column) for variable, column in columns.items()}
    if len(rows) < MIN_ROWS:
        raise DoorError(f"{path} has {len(rows)} rows: a law needs {MIN_ROWS} or more")
    cells = {
        variable: _read_column(path, columns[variable], [(where, row[place]) for where, row in rows], variable)
        for variable, place in places.items()
    }
    for variable in _must_differ(columns):
        first = cells[variable][0]
        if all(value == first for value in cells[variable]):
            raise DoorError(
                f"{path}, column {columns[variable]!r}: all {len(rows)} rows hold {first!r}: "
                f"add runs that differ in it, or leave out --{variable}"
            )
    codes: dict[str, int] = {}
    clusters = [codes.setdefault(value, len(codes)) for value in cells.pop(CLUSTER, [])]
    numbers = {variable: np.array(values, dtype=np.float64) for variable, values in cells.items()}
    return Table(path, numbers, np.array(clusters, dtype=np.int64) if clusters else None, len(rows))


def _check_flags(path: Path, columns: dict[str, str]) -> None:
    if "loss" not in columns:
        raise DoorError(f"{path}: name the column that holds the loss with --loss")
    if not {"n", "d", "c"} & columns.keys():
        raise DoorError(f"{path}: name a column of sizes with --n, of tokens with --d or of FLOPs with --c")
    taken: dict[str, str] = {}
    for variable, column in columns.items():
        if variable != CLUSTER and taken.setdefault(column, variable) != variable:
            raise DoorError(f"--{taken[column]} and --{variable} both name the column {column!r}: name one each")


def _must_differ(columns: dict[str, str]) -> list[str]:
    """Return the variables that may not be constant; runs of one budget C do tell of N and D."""
    return [v for v in ("n", "d", CLUSTER) if v in columns] + ["c"] * (not {"n", "d"} & columns.keys())


def _find(path: Path, names: list[str], variable: str, column: str) -> int:
    """Return the place of a column."""
    if names.count(column) > 1:
        raise DoorError(f"{path}: {names.count(column)} columns are named {column!r}: rename all but one")
    if column not in names:
        lowered = {name.lower(): name for name in names}
        longer = sorted((name for name in lowered if column.lower() in name), key=len)
        close = longer or difflib.get_close_matches(column.lower(), lowered, n=1)
        hint = f" (did you mean {lowered[close[0]]!r}?)" if close else ""
        there = textwrap.shorten(", ".join(names), 500, placeholder=" …")
        raise DoorError(f"{path} has no column {column!r} for --{variable}{hint}: it has {there}")
    return names.index(column)


def _read_column(path: Path, column: str, cells: list[tuple[str, Any]], variable: str) -> list[Any]:
    read = _label if variable == CLUSTER else _number
    values = []
    for where, cell in cells:
        try:
            values.append(read(cell))
        except ValueError as error:
            raise DoorError(f"{path}, {where}, column {column!r}: {error}") from None
    return values


def _label(cell: Any) -> str:
    """Return a cell of the cluster column as text; raises ValueError, which says what is wrong and how to mend it."""
    if cell is None or cell != cell or not str(cell).strip():
        raise ValueError("the cell is empty: fill it in, or leave out --cluster")
    return str(cell).strip()


def _number(cell: Any) -> float:
    """Return a cell as a number; raises ValueError, which says what is wrong and how to mend it."""
    if cell is None or not str(cell).strip():
        raise ValueError("the cell is empty: fill it in, or take the run out of the table")
    shown = reprlib.repr(cell)
    if isinstance(cell, str) and "," in cell:
        raise ValueError(f"{shown} has a comma, for thousands or for decimals: write 1200000 or 1.2")
    try:
        value = math.nan if isinstance(cell, bool) else float(cell)
    except (TypeError, ValueError):
        raise ValueError(f"{shown} is not a number: write it as 1200000 or 1.2e6") from None
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{shown} is not a finite number above 0: correct it, or take the run out of the table")
    return value


def _read_text(path: Path, separators: str) -> tuple[list[str], Rows]:
    """Read lines of fields; the separator is the first of `separators` that the header holds. Blank lines are no rows.

    The standard library's reader, as pyarrow's does not tell at which line of the file a row stands.
    """
    text = path.read_text(encoding="utf-8-sig")
    header = text.lstrip().partition("\n")[0]
    separator = next((s for s in separators if s in header), separators[0])
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True, strict=True)
    names: list[str] = []
    rows: Rows = []
    line = 1
    try:
        for fields in reader:
            where = f"line {line} (row {len(rows) + 1})"
            line = reader.line_num + 1
            if fields in ([], [""]):
                continue
            if not names:
                names = [name.strip() for name in fields]
            elif len(fields) != len(names):
                raise DoorError(
                    f"{path}, {where}: {len(fields)} fields, but the header has {len(names)}: "
                    f"quote what holds a {separator!r}"
                )
            else:
                rows.append((where, fields))
    except csv.Error as error:
        raise DoorError(f"{path}, line {line}: {error}: mend the quotes") from None
    return names, rows


def _read_jsonl(path: Path) -> tuple[list[str], Rows]:
    """Read one object a line, its nested fields under dotted names."""
    objects: list[tuple[str, dict[str, Any]]] = []
    with path.open(encoding="utf-8-sig") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                value = json.loads(text, object_pairs_hook=_flatten, parse_int=float)
            except json.JSONDecodeError as error:
                raise DoorError(f"{path}, line {line}: {error.msg}: write one JSON object a line") from None
            if not isinstance(value, dict):
                raise DoorError(f"{path}, line {line}: not an object: write one JSON object a line")
            objects.append((f"line {line} (row {len(objects) + 1})", value))
    names = list(dict.fromkeys(name for _, value in objects for name in value))
    return names, [(where, [value.get(name) for name in names]) for where, value in objects]


def _flatten(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the fields of a JSON object whose nested objects are flat already."""
    flat: dict[str, Any] = {}
    for name, value in pairs:
        fields = {f"{name}.{inner}": v for inner, v in value.items()} if isinstance(value, dict) else {name: value}
        for field in fields.keys() & flat.keys():
            raise json.JSONDecodeError(f"the field {field!r} stands there twice", "", 0)
        flat |= fields
    return flat


def _read_parquet(path: Path) -> tuple[list[str], Rows]:
    """Read a parquet file, its nested fields under dotted names."""
    import pyarrow as pa  # a tenth of a second that the other formats need not pay
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise DoorError(f"{path} is not a readable parquet file: {' '.join(str(error).split())}") from None
    while any(pa.types.is_struct(field.type) for field in table.schema):
        table = table.flatten()
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    return table.column_names, [(f"row {i}", list(row)) for i, row in enumerate(rows, 1)]


READERS: dict[str, Callable[[Path], tuple[list[str], Rows]]] = {
    ".csv": lambda path: _read_text(path, ",;\t"),
    ".tsv": lambda path: _read_text(path, "\t"),
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
