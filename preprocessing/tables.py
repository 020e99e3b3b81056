"""Tables of tunes: the rows of parquet, JSON, JSON lines and CSV as a stream, and what their columns mean.

A row is a mapping of columns to values. What a row says of its tune beside the ABC itself (The Session's columns of
title, rhythm, metre and key) becomes the tune's header.
"""

import codecs
import csv
import gzip
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, cast

import pyarrow.parquet

from preprocessing.abc_lexer import FIELD, TUNE_START

ROW_LIMIT = 1 << 20  # characters; a longer row is left out
CHUNK = 1 << 18
ROWS = 500  # rows of a parquet file that are read at once

TEXT_COLUMNS = ("abc notation", "abc", "text")
OLDER_COLUMNS = {"tune": "tune_id", "setting": "setting_id"}  # The Session's dumps of 2015 to 2020
SESSION_COLUMNS = {"X": "setting_id", "T": "name", "C": "composer", "R": "type", "M": "meter", "K": "mode"}
NEEDED_COLUMNS = {"name", "type", "meter", "mode", "abc"}
FIRST_FIELDS, LAST_FIELDS = "XTCRML", "K"

ARRAY_START, SEPARATORS = re.compile(r"\s*\[?"), re.compile(r"[\s,]*")
BACKSLASHED = re.compile(r'\\(["\\])')

Row = dict[str, Any]
LONG = "row longer than 1 MB"


class NoTextColumnError(Exception):
    """A table without a column of ABC; the text names the columns that it has."""


def table_rows(suffix: str, stream: IO[bytes], decode: Callable[[bytes], str]) -> Iterator[Row | str]:
    """Yield the rows of a table; for one that cannot be read, the reason. Raises what its reader raises for damage."""
    if suffix == ".parquet":
        for batch in pyarrow.parquet.ParquetFile(stream).iter_batches(ROWS):
            yield from batch.to_pylist()
        return
    if suffix.endswith(".gz"):
        stream = cast(IO[bytes], gzip.GzipFile(fileobj=stream))
    values: Iterable[Any]
    if suffix.startswith(".json") and not suffix.startswith(".jsonl"):
        values = (value if isinstance(value, dict) else [] for value in _json_values(stream))
    else:
        lines = (decode(line).removeprefix("\ufeff") for line in _lines(stream))
        if suffix.startswith(".csv"):
            rows = _csv_rows(lines)
            header = next(rows, [])
            if isinstance(header, str):
                raise csv.Error(header)
            columns = [column.strip() for column in header]
            for row in rows:
                if isinstance(row, str) or len(row) == len(columns):
                    yield row if isinstance(row, str) else dict(zip(columns, row, strict=True))
                elif row:
                    yield "row with more or fewer cells than the table has columns"
            return
        values = _json_lines(lines)
    for value in values:
        yield value if isinstance(value, dict | str) else "row that is no object"


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of a stream, each with its end; one longer than ROW_LIMIT is empty."""
    while line := stream.readline(ROW_LIMIT):
        if len(line) < ROW_LIMIT or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(ROW_LIMIT)
        yield b""


def _csv_rows(lines: Iterator[str]) -> Iterator[list[str] | str]:
    r"""Yield the rows of a CSV file. A quote in a value is doubled, or written \" as in The Session's dumps of 2015.

    The first row that no file with doubled quotes can hold, and that has a \", says that the file is of the other kind.
    For a row whose quotes cannot be read, the reason is yielded, and the next line is read as a row.
    """
    csv.field_size_limit(ROW_LIMIT)  # a quote left open must not take in the whole file
    record: list[str] = []  # the lines of the row that is being read
    again: deque[str] = deque()  # lines that a quote left open has taken in
    backslashed = False

    def watched() -> Iterator[str]:
        while (line := again.popleft() if again else next(lines, None)) is not None:
            record.append(line)
            yield BACKSLASHED.sub(lambda match: '""' if match[1] == '"' else match[1], line) if backslashed else line

    rows = csv.reader(watched(), strict=True)
    while True:
        record.clear()
        try:
            row = next(rows, None)
        except csv.Error:
            other_kind = not backslashed and any('\\"' in line for line in record)
            again.extendleft(reversed(record if other_kind else record[1:]))
            backslashed |= other_kind
            rows = csv.reader(watched(), strict=True)
            if not other_kind:
                yield "row whose quotes cannot be read" if record[0] else LONG
            continue
        if row is None:
            return
        yield LONG if "" in record else row


def _json_lines(lines: Iterable[str]) -> Iterator[Any]:
    for line in lines:
        try:
            if not line:
                yield LONG
            elif line.strip():
                value = json.loads(line)
                yield [] if isinstance(value, str) else value  # neither is a row
        except (json.JSONDecodeError, RecursionError):
            yield "row that is no JSON"


def _json_values(stream: IO[bytes]) -> Iterator[Any]:
    """Yield the elements of a JSON array, or JSON values that follow one another, without holding them all."""
    text = codecs.iterdecode(iter(lambda: stream.read(CHUNK), b""), "utf-8-sig", errors="replace")
    scan = json.JSONDecoder().raw_decode
    buffer = next(text, "")
    place = ARRAY_START.match(buffer).end()  # type: ignore[union-attr]  # it matches nothing too
    while True:
        place = SEPARATORS.match(buffer, place).end()  # type: ignore[union-attr]
        try:
            value, place = scan(buffer, place)
        except json.JSONDecodeError:
            more = next(text, "")
            rest = buffer[place:]
            if not more and rest in ("", "]"):
                return
            if not more or len(rest) > 4 * ROW_LIMIT:
                raise
            buffer, place = rest + more, 0
            continue
        yield value


def text_column(row: Row, wanted: str | None) -> str:
    """Return the column that holds the ABC: `wanted`, or the first of TEXT_COLUMNS. Raises NoTextColumnError."""
    for column in TEXT_COLUMNS if wanted is None else (wanted,):
        if column in row:
            return column
    raise NoTextColumnError(f"no column {wanted or ' or '.join(TEXT_COLUMNS)} among {', '.join(map(str, row))}")


def with_present_names(row: Row) -> Row:
    """Return a row of any of The Session's dumps with the columns' present names."""
    return {OLDER_COLUMNS.get(name, name): value for name, value in row.items()} | row


def is_session(row: Row) -> bool:
    """True for a row of The Session's dumps, whose key, metre and rhythm stand in columns."""
    return row.keys() >= NEEDED_COLUMNS


def session_tune(row: Row) -> str:
    """Return a setting of The Session as a tune: its columns are its header, and L: is 1/8.

    Some settings have a header of their own in the column `abc`. The notes were written under its M:, L:, K: and R:, so
    these come before the columns'; its number and title do not. No blank line is left, as it would end the tune. An X:
    below music begins another tune under the same columns.
    """
    columns = {letter: _one_line(row.get(column)) for letter, column in SESSION_COLUMNS.items()} | {"L": "1/8"}
    tunes: list[list[str]] = [[]]
    music = False
    for line in filter(str.strip, row["abc"].splitlines()):
        plain = line.strip()
        if music and plain.startswith("X:"):
            tunes.append([])
            music = False
        music |= not (FIELD.match(plain) or plain.startswith("%"))
        tunes[-1].append(line)
    return "\n".join(_under_columns(lines, columns) for lines in tunes)


def _under_columns(lines: list[str], columns: dict[str, str]) -> str:
    """Return a tune of The Session with the header that its columns and its own fields make."""
    own: dict[str, str] = {}
    others: list[str] = []
    while lines and own.get("K") is None:
        match = FIELD.match(lines[0].strip())
        if match is None and not lines[0].lstrip().startswith("%"):
            break
        line = lines.pop(0).strip()
        if match is None or match[1] not in FIRST_FIELDS + LAST_FIELDS:
            others.append(line)
        else:
            own.setdefault(match[1], match[2].partition("%")[0].strip())
    fields = columns | {letter: value for letter, value in own.items() if value and letter in "RMLK"}
    fields |= {letter: own[letter] for letter in "XTC" if not fields[letter] and own.get(letter)}
    header = [f"{letter}:{fields[letter]}" for letter in FIRST_FIELDS if fields[letter] or letter == "X"]
    return "\n".join([*header, *others, f"K:{fields['K']}", *lines])


def _one_line(value: Any) -> str:
    return " ".join(str(value).split()) if isinstance(value, str | int | float) else ""


def row_tune(text: str) -> str:
    """Return the text of a row: as it is if it has a tune's start, otherwise it is one tune, whatever blank lines."""
    if TUNE_START.search(text.replace("\r", "\n")):
        return text
    return "X:1\n" + "".join(line for line in text.splitlines(keepends=True) if line.strip())
