"""Files of runs (CSV, TSV, JSON, JSON lines, parquet) as columns of cells that are named by the user.

In JSON and parquet a name reaches into nested fields (`eval.loss`), into lists (`losses[]`: a row for each element;
`losses[-1]`: the last) and to the one element of a list with a given field (`metrics[key=loss].value`).
"""

import codecs
import csv
import difflib
import io
import json
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cli import UserError

Step = str | int | tuple[str, str] | None  # a field, an index, the element with this field, each element
ABSENT: Any = object()
TEXT, JSON, PARQUET = (".csv", ".tsv", ".txt"), (".json", ".jsonl", ".ndjson"), ".parquet"
MAX_DEPTH = 12  # of the names in a message
LISTED = 1000  # records whose names are in a message
STEP = re.compile(r"\[(?:(-?\d{1,9})|([^\[\]=]+)=([^\[\]]*))?\]")


def read_columns(path: Path, wanted: list[str]) -> dict[str, list[Any]]:
    """Return the cells of the columns `wanted`, [rows] each; their names may differ in case where that is unambiguous.

    Raises UserError if the file cannot be read or lacks a column.
    """
    suffix = path.suffix.lower()
    if suffix not in (*TEXT, *JSON, PARQUET):
        raise UserError(f"{path} is not a table: give a file that ends in {', '.join((*TEXT, *JSON, PARQUET))}")
    if not path.is_file():
        raise UserError(f"{path} is missing, or not a file: give the table of runs")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty: a header and rows are needed")
    try:
        if suffix in TEXT:
            return _read_text(path, wanted, "\t" if suffix == ".tsv" else ",;\t|")
        records = _parquet_records(path, wanted) if suffix == PARQUET else _json_records(path)
        return _columns_of(path, tqdm(records, f"reading {path.name}", unit=" rows", delay=1), wanted)
    except UnicodeError:
        raise UserError(f"{path} is not text in UTF-8 or UTF-16: save it in UTF-8") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deep to be read") from None


def _decode(path: Path) -> str:
    """Return a file's text, in UTF-16 if its byte order mark says so, else in UTF-8."""
    content = path.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if wide else "utf-8-sig")
    if "\0" in text[:1000]:  # UTF-16 without the mark
        raise UnicodeError
    return text


def _unknown(path: Path, column: str, names: list[str]) -> UserError:
    lowered = {name.lower(): name for name in names}
    longer = sorted((name for name in lowered if column.lower() in name), key=len)
    close = longer or difflib.get_close_matches(column.lower(), lowered, n=1)
    hint = f" (did you mean {lowered[close[0]]!r}?)" if close else ""
    return UserError(
        f"{path} has no column {column!r}{hint}: it has {textwrap.shorten(', '.join(names), 500, placeholder=' …')}"
    )


# Text


def _read_text(path: Path, wanted: list[str], separators: str) -> dict[str, list[Any]]:
    """Read rows of fields; blank lines are skipped, and Excel's first line `sep=;` names the separator."""
    text = _decode(path)
    if named := re.match(r"\s*sep=(.)\r?\n", text):
        text, separators = text[named.end() :], named[1]
    header = next(iter(text.lstrip()[:100_000].splitlines()), "")
    separator = max(separators, key=lambda each: len(next(csv.reader([header], delimiter=each), [])))
    reader = csv.reader(io.StringIO(text, newline=None), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        rows = [row for row in reader if "".join(row).strip()]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}: close the quotes, or split a long field") from None
    if not rows:
        raise UserError(f"{path} is empty: a header and rows are needed")
    names = [name.strip() for name in rows.pop(0)]
    for number, row in enumerate(rows, 1):
        if len(row) < len(names) or any(row[len(names) :]):
            raise UserError(
                f"{path}, row {number}: {len(row)} fields, but the header has {len(names)}: "
                f"quote fields that contain {separator!r}"
            )
    columns = {}
    for column in wanted:
        found = [i for i, name in enumerate(names) if name == column]
        found = found or [i for i, name in enumerate(names) if name.lower() == column.lower()]
        if len(found) > 1 and names.count(column) > 1:
            raise UserError(f"{path}: {len(found)} columns are named {column!r}: rename all but one")
        if len(found) != 1:
            raise _unknown(path, column, names)
        columns[column] = [row[found[0]] for row in rows]
    return columns


# Records


def _json_records(path: Path) -> list[Any]:
    """Return the objects of a list or of JSON lines; any other value is one record."""
    text, where = _decode(path), str(path)
    decoder = json.JSONDecoder(parse_int=float)  # an integer of 5,000 digits cannot be converted to int
    try:
        if path.suffix.lower() == ".json":
            try:
                value = decoder.decode(text)
                return value if isinstance(value, list) else [value]
            except json.JSONDecodeError as error:
                if not error.msg.startswith("Extra data"):
                    raise
        records = []
        for number, line in enumerate(text.split("\n"), 1):
            where = f"{path}, line {number}"
            if line.strip():
                records.append(decoder.decode(line))
        return records
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: {error.msg}: write a list of objects, or one object a line") from None


def _parquet_records(path: Path, wanted: list[str]) -> Iterator[Any]:
    """Give the rows of a parquet file as objects of the columns that the names begin with."""
    import pyarrow as pa  # the other formats need not wait for it
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            parts = [{name for name in names if column.lower().startswith(name.lower())} for column in wanted]
            needed = set.union(*parts) if all(parts) else set(names)  # all of them for the message if one is missing
            if twice := sorted(name for name in needed if names.count(name) > 1):
                raise UserError(f"{path}: {names.count(twice[0])} columns are named {twice[0]!r}: rename all but one")
            for batch in file.read(columns=[name for name in names if name in needed]).to_batches(max_chunksize=2**16):
                yield from batch.to_pylist(maps_as_pydicts="strict")
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UserError(f"{path} is not a readable parquet file: {' '.join(str(error).split())}") from None


def _columns_of(path: Path, records: Iterable[Any], wanted: list[str]) -> dict[str, list[Any]]:
    """Return cells of objects; a field that some of them lack is an empty cell."""
    paths = [_steps(column) for column in wanted]
    columns: list[list[Any]] = [[] for _ in wanted]
    examples = []
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise UserError(f"{path}, record {number}: not an object: write each run as one, its fields with names")
        if number <= LISTED:
            examples.append(record)
        try:
            for row in _rows([record] * len(paths), paths):
                for cells, cell in zip(columns, row, strict=True):
                    cells.append(cell)
        except ValueError as error:
            raise UserError(f"{path}, record {number}: {error}") from None
    for column, cells in zip(wanted, columns, strict=True):
        if all(cell is ABSENT for cell in cells):
            raise _unknown(path, column, list(dict.fromkeys(name for one in examples for name in _names(one))))
    return {
        column: [None if cell is ABSENT else cell for cell in cells]
        for column, cells in zip(wanted, columns, strict=True)
    }


def _steps(column: str) -> list[Step]:
    """Return the steps of a name such as `runs[].data.metrics[key=loss].value`."""
    steps: list[Step] = []
    end = 0
    for found in STEP.finditer(column):
        if name := column[end : found.start()].removeprefix("."):
            steps.append(name)
        steps.append(int(found[1]) if found[1] else (found[2], found[3]) if found[2] else None)
        end = found.end()
    if name := column[end:].removeprefix("."):
        steps.append(name)
    return steps


def _rows(values: list[Any], paths: list[list[Step]]) -> Iterator[list[Any]]:
    """Give a row for each element of the lists that the paths go through; what is outside of them is in each row."""
    reached = [_follow(value, steps) for value, steps in zip(values, paths, strict=True)]
    lists = [value for value, steps in reached if steps]
    if not lists:
        yield [value for value, _ in reached]
        return
    if any(not isinstance(value, list | dict) for value in lists):
        raise ValueError("a field that is named with [] is not a list: name it without []")
    keys = [list(value) if isinstance(value, dict) else list(range(len(value))) for value in lists]
    if any(other != keys[0] for other in keys) or not keys[0]:
        raise ValueError(f"the lists that are named with [] have {' and '.join(str(len(k)) for k in keys)} elements")
    for key in keys[0]:
        elements = [value[key] if steps else value for value, steps in reached]
        yield from _rows(elements, [steps[1:] for _, steps in reached])


def _follow(value: Any, steps: list[Step]) -> tuple[Any, list[Step]]:
    """Follow a path up to its first [], and return the value there and the steps that are left, from [] on."""
    for i, step in enumerate(steps):
        if value is None or value is ABSENT:
            break
        if step is None:
            return value, steps[i:]
        if isinstance(step, str):
            value = _field(value, step) if isinstance(value, dict) else ABSENT
        elif not isinstance(value, list):
            value = ABSENT
        elif isinstance(step, int):
            value = value[step] if -len(value) <= step < len(value) else None
        else:
            key, wanted = step
            found = [one for one in value if isinstance(one, dict) and str(one.get(key)) == wanted]
            if len(found) > 1:
                raise ValueError(f"{len(found)} elements have {key}={wanted}: one is needed")
            value = found[0] if found else None
    return value, []


def _field(record: dict[str, Any], name: str) -> Any:
    """Return a field; a dot in its name is part of it or leads into an inner object."""
    found = _entry(record, name)
    parts = name.split(".")
    for i in range(1, len(parts) if found is ABSENT else 0):
        inner = _entry(record, ".".join(parts[:i]))
        found = _field(inner, ".".join(parts[i:])) if isinstance(inner, dict) else ABSENT
        if found is not ABSENT:
            break
    return found


def _entry(record: dict[str, Any], name: str) -> Any:
    """Return the entry of this name, or of the only one that differs in case alone."""
    if name in record:
        return record[name]
    alike = [key for key in record if key.lower() == name.lower()]
    return record[alike[0]] if len(alike) == 1 else ABSENT


def _names(value: Any, prefix: str = "", depth: int = 0) -> Iterator[str]:
    """Give the names of all fields of an object, as the user names them."""
    if isinstance(value, dict) and value and depth < MAX_DEPTH:
        for name, inner in value.items():
            yield from _names(inner, f"{prefix}.{name}" if prefix else name, depth + 1)
    elif isinstance(value, list) and depth < MAX_DEPTH:
        for inner in value[:20] or [None]:
            yield from _names(inner, f"{prefix}[]", depth + 1)
    else:
        yield prefix
