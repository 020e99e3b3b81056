"""Files of runs (CSV, TSV, JSON, JSON lines, parquet) as rows of the cells that are asked for by name."""

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cli import UserError

Step = str | int | tuple[str, str] | None  # a field, a place in a list, the element whose field is so; None: each
ABSENT: Any = object()
SEPARATORS = ",;\t|"
MAX_DEPTH = 12  # of the names that a message lists
HEADER = 100_000  # characters at most
LISTED = 1000  # records that the names are looked up in
STEP = re.compile(r"\[(?:(-?\d{1,9})|([^\[\]=]+)=([^\[\]]*))?\]")


class UnknownColumnError(Exception):
    """A column that no row has. `names` are those there are."""

    def __init__(self, column: str, names: list[str]) -> None:
        self.column, self.names = column, names


@dataclass
class Rows:
    """Cells of the columns asked for, [rows] each, and where each row stands in its file."""

    columns: dict[str, list[Any]]
    lines: list[int] = field(default_factory=list)  # [rows]; empty where a file has no lines

    def where(self, row: int) -> str:
        """Return where a row stands, counted from 0 here and from 1 in what is returned."""
        return f"line {self.lines[row]} (row {row + 1})" if self.lines else f"row {row + 1}"


def read_rows(path: Path, wanted: list[str]) -> Rows:
    """Read the columns `wanted` of a file.

    In JSON and parquet a name reaches into nested fields (`eval.loss`), into lists (`losses[]`: a row an element;
    `losses[-1]`: the last) and to the one element of a list whose field is so (`metrics[key=loss].value`). Several
    names with [] go through their lists together. Raises UserError, in one line, and UnknownColumnError.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path} is not a table: give a file that ends in {', '.join(READERS)}")
    if not path.is_file():
        raise UserError(f"{path} is not there, or not a file: give the table of runs")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty: a header and rows are needed")
    try:
        return reader(path, wanted)
    except UnicodeError:
        raise UserError(f"{path} is not text in UTF-8 or UTF-16: save it in UTF-8") from None


def _decode(path: Path) -> str:
    """Return a file's text: in UTF-16 where its first two bytes say so, else in UTF-8."""
    content = path.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if wide else "utf-8-sig")


def _progress(rows: Iterable[Any], path: Path) -> Iterator[Any]:
    return iter(tqdm(rows, desc=f"reading {path.name}", unit=" rows", delay=1, mininterval=0.5))


# Text


def _separator(header: str, allowed: str) -> str:
    """Return the separator that cuts the header into the most fields; of equals the first."""

    def fields(separator: str) -> int:
        try:
            return len(next(csv.reader([header], delimiter=separator, skipinitialspace=True)))
        except csv.Error:
            return 0

    return max(allowed, key=fields)


def _read_text(path: Path, wanted: list[str], allowed: str = SEPARATORS) -> Rows:
    """Read lines of fields. Blank lines are no rows; Excel's first line `sep=;` names the separator.

    The standard library's reader, as pyarrow's does not tell at which line of the file a row stands.
    """
    text = _decode(path)
    if "\0" in text[:HEADER]:  # UTF-16 without its mark
        raise UnicodeError
    said = re.match(r"\s*sep=(.)\r?\n", text)
    if said:  # the line stays, as an empty one, so that lines are counted as in the file
        text, allowed = "\n" + text[said.end() :], said[1]
    separator = _separator(next(iter(text[:HEADER].lstrip().splitlines()), ""), allowed)
    reader = csv.reader(io.StringIO(text, newline=None), delimiter=separator, skipinitialspace=True, strict=True)
    names: list[str] = []
    columns: list[list[str]] = [[] for _ in wanted]  # flat, as the collector of garbage looks into no string
    lines: list[int] = []
    targets: list[tuple[list[str], int]] = []
    line = 1
    try:
        for fields in _progress(reader, path):
            begins, line = line, reader.line_num + 1
            if not "".join(fields).strip():
                continue
            if not names:
                names = [name.strip() for name in fields]
                targets = [(cells, _place(path, names, name)) for cells, name in zip(columns, wanted, strict=True)]
                continue
            if len(fields) != len(names) and not (len(fields) > len(names) and not any(fields[len(names) :])):
                raise UserError(
                    f"{path}, line {begins} (row {len(lines) + 1}): {len(fields)} fields, but the header has "
                    f"{len(names)}: quote what holds a {separator!r}"
                )
            for cells, place in targets:
                cells.append(fields[place])
            lines.append(begins)
    except csv.Error as error:
        fix = "split what it holds" if "limit" in str(error) else "close the quotes"
        raise UserError(f"{path}, line {line}: {error}: {fix}") from None
    if not names:
        raise UserError(f"{path} is empty: a header and rows are needed")
    return Rows(dict(zip(wanted, columns, strict=True)), lines)


def _place(path: Path, names: list[str], column: str) -> int:
    if names.count(column) > 1:
        raise UserError(f"{path}: {names.count(column)} columns are named {column!r}: rename all but one")
    if column not in names:
        raise UnknownColumnError(column, names)
    return names.index(column)


# Records


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


@cache
def _splits(name: str) -> list[tuple[str, str]]:
    """Return a name cut at each of its dots."""
    parts = name.split(".")
    return [(".".join(parts[:i]), ".".join(parts[i:])) for i in range(1, len(parts))]


def _field(value: dict[str, Any], name: str) -> Any:
    """Return a field of an object; a dot in its name stands for itself or leads into an inner object."""
    found = value.get(name, ABSENT)
    for head, rest in _splits(name):
        inner = value.get(head)
        if isinstance(inner, dict) and (deeper := _field(inner, rest)) is not ABSENT:
            if found is not ABSENT:
                raise ValueError(f"the field {name!r} stands there twice: rename one")
            found = deeper
    return found


def _follow(value: Any, steps: list[Step]) -> tuple[Any, list[Step]]:
    """Follow a name as far as its first [], and return what is there and the steps that are left, [] the first."""
    for i, step in enumerate(steps):
        if step is None or value is None or value is ABSENT:
            return value, steps[i:] if value is not None and value is not ABSENT else []
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


def _spread(values: list[Any], names: list[list[Step]]) -> Iterator[list[Any]]:
    """Give a row for each element of the lists that the names go through; what is outside of them stands in each."""
    values, left = zip(*map(_follow, values, names), strict=True)  # type: ignore[assignment]
    lists = [(value, steps) for value, steps in zip(values, left, strict=True) if steps]
    if not lists:
        yield list(values)
        return
    if any(not isinstance(value, list | dict) for value, _ in lists):
        raise ValueError("what is named with [] is no list there: name it without []")
    keys = [list(value) if isinstance(value, dict) else list(range(len(value))) for value, _ in lists]
    if any(other != keys[0] for other in keys):
        raise ValueError(f"the lists that are named with [] have {' and '.join(str(len(k)) for k in keys)} elements")
    for key in keys[0]:
        elements = [value[key] if steps else value for value, steps in zip(values, left, strict=True)]
        yield from _spread(elements, [steps[1:] for steps in left])


def _of_records(path: Path, records: Iterable[tuple[int, Any]], wanted: list[str], lines: bool) -> Rows:
    """Return the cells of objects, each with its line; a field that some of them lack is an empty cell."""
    names = [_steps(column) for column in wanted]
    columns: dict[str, list[Any]] = {column: [] for column in wanted}
    targets = list(zip(columns.values(), names, strict=True))
    through_lists = any(None in steps for steps in names)
    places: list[int] = []
    examples: list[dict[str, Any]] = []
    try:
        for line, record in _progress(records, path):
            if not isinstance(record, dict):
                raise ValueError("not an object: write a run as one, its fields with names")
            if len(examples) < LISTED:
                examples.append(record)
            if not through_lists:
                for cells, steps in targets:
                    one = len(steps) == 1 and isinstance(steps[0], str)
                    cells.append(_field(record, steps[0]) if one else _follow(record, steps)[0])  # type: ignore[arg-type]
                places.append(line)
                continue
            found = list(_spread([record] * len(names), names))
            if not found:
                raise ValueError("the list that is named with [] is empty: take the run out of the file")
            for cells, those in zip(columns.values(), zip(*found, strict=True), strict=True):
                cells.extend(those)
            places.extend([line] * len(found))
    except ValueError as error:
        raise UserError(f"{path}, {'line' if lines else 'element'} {line}: {error}") from None
    for column, cells in columns.items():
        if all(cell is ABSENT for cell in cells):
            raise UnknownColumnError(column, list(dict.fromkeys(name for one in examples for name in _names(one))))
        columns[column] = [None if cell is ABSENT else cell for cell in cells]
    return Rows(columns, places if lines else [])


def _names(value: Any, prefix: str = "", depth: int = 0) -> Iterator[str]:
    """Give the names of all fields of an object, as `read_rows` takes them."""
    if isinstance(value, dict) and value and depth < MAX_DEPTH:
        for name, inner in value.items():
            yield from _names(inner, f"{prefix}.{name}" if prefix else name, depth + 1)
    elif isinstance(value, list) and depth < MAX_DEPTH:
        for inner in value[:20] or [None]:
            yield from _names(inner, f"{prefix}[]", depth + 1)
    else:
        yield prefix


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the field {next(n for n in names if names.count(n) > 1)!r} stands there twice")
    return fields


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=float)


def _parse_json(text: str, where: str, fix: str) -> Any:
    """Parse JSON; integers are read as floats, as one of 5,000 digits cannot be converted to an integer."""
    try:
        return DECODER.decode(text)
    except RecursionError:
        raise UserError(f"{where}: nested too deep to be read: {fix}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: {error.msg}: {fix}") from None
    except ValueError as error:
        raise UserError(f"{where}: {error}: {fix}") from None


def _read_jsonl(path: Path, wanted: list[str]) -> Rows:
    """Read one object a line."""
    content = io.StringIO(_decode(path))

    def records() -> Iterator[tuple[int, Any]]:
        for line, text in enumerate(content, 1):
            if text.strip():
                yield line, _parse_json(text, f"{path}, line {line}", "write one JSON object a line")

    return _of_records(path, records(), wanted, lines=True)


def _read_json(path: Path, wanted: list[str]) -> Rows:
    """Read a list of objects, or one object whose lists are named with []; JSON lines under this name, too."""
    text = _decode(path)
    first, _, rest = text.strip().partition("\n")
    if rest.lstrip().startswith("{") and first.rstrip().endswith("}"):
        return _read_jsonl(path, wanted)
    value = _parse_json(text, str(path), "write a list of objects, or JSON lines")
    return _of_records(path, enumerate(value if isinstance(value, list) else [value], 1), wanted, lines=False)


def _read_parquet(path: Path, wanted: list[str]) -> Rows:
    """Read the columns of a parquet file that the names begin with."""
    import pyarrow as pa  # a tenth of a second that the other formats need not pay
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            there = file.schema_arrow.names
            heads = [str((_steps(column) or [""])[0]) for column in wanted]
            parts = {head: [n for n in there if head == n or head.startswith(f"{n}.")] for head in heads}
            for name in sorted(name for names in parts.values() for name in names):
                _place(path, there, name)
            lacks = [column for column, head in zip(wanted, heads, strict=True) if not parts[head]]
            needed = list(dict.fromkeys(name for names in parts.values() for name in names))
            table = file.read() if lacks else file.read(columns=needed)
        if lacks:
            examples = table.slice(0, LISTED).to_pylist()
            raise UnknownColumnError(lacks[0], list(dict.fromkeys(name for one in examples for name in _names(one))))
        if all(column in there and not pa.types.is_nested(table.schema.field(column).type) for column in wanted):
            return Rows({column: table.column(column).to_pylist() for column in wanted})
        records = (
            record
            for batch in table.to_batches(max_chunksize=2**16)
            for record in batch.to_pylist(maps_as_pydicts="strict")
        )
        return _of_records(path, enumerate(records, 1), wanted, lines=False)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UserError(f"{path} is not a readable parquet file: {' '.join(str(error).split())}") from None


READERS: dict[str, Callable[[Path, list[str]], Rows]] = {
    ".csv": _read_text,
    ".tsv": lambda path, wanted: _read_text(path, wanted, "\t"),
    ".txt": _read_text,
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".parquet": _read_parquet,
}
