"""Tables of tunes (parquet, JSON, JSON lines, CSV): their rows as a stream, and the header that the columns make."""

import codecs
import csv
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import IO, Any

import pyarrow
import pyarrow.parquet

from preprocessing.abc_lexer import FIELD, TUNE_START
from preprocessing.blocks import DAMAGE, Block, Reading
from preprocessing.text_files import decode_bytes

ROW_LIMIT = 1 << 20  # characters; a longer row is left out
CHUNK = 1 << 18
ROWS = 500  # rows of a parquet file in memory
DAMAGED_TABLE = (*DAMAGE, ValueError, csv.Error, RecursionError, pyarrow.ArrowException)

TEXT_COLUMNS = ("abc notation", "abc", "text")
SESSION = "thesession"
OLDER_COLUMNS = {"tune": "tune_id", "setting": "setting_id"}  # The Session's dumps of 2015 to 2020
SESSION_COLUMNS = {"X": "setting_id", "T": "name", "C": "composer", "R": "type", "M": "meter", "K": "mode"}
REQUIRED_COLUMNS = {"name", "type", "meter", "mode", "abc"}
FIRST_FIELDS, LAST_FIELDS = "XTCRML", "K"

ARRAY_START, SEPARATORS = re.compile(r"\s*\[?"), re.compile(r"[\s,]*")
BACKSLASHED = re.compile(r'\\(["\\])')
TOO_LONG = "row longer than 1 MB"
NO_OBJECT = "row that is no object"

Row = dict[str, Any]


class NoTextColumnError(Exception):
    """A table without a column of ABC; the text names the columns that it has."""


def row_blocks(
    rows: Iterable[Row | str], name: str, source: str, reading: Reading, column: str | None
) -> Iterator[Block]:
    """Yield a Block for each row that holds text; the others are counted in `reading`.

    `column` holds the ABC, by default the first of TEXT_COLUMNS. Raises NoTextColumnError if the first row has none.
    """
    found, session = "", False
    for number, row in enumerate(rows):
        file = f"{name}, row {number}"
        if isinstance(row, str):
            reading.drop(row, file)
            continue
        if not found:
            found = _text_column(row, column)
            session = column is None and row.keys() >= REQUIRED_COLUMNS
        text = row.get(found)
        if not isinstance(text, str) or not text.strip():
            reading.drop("row without text", file)
            continue
        reading.bytes += len(text.encode(errors="replace"))
        if len(text) > ROW_LIMIT:
            reading.drop(TOO_LONG, file)
        elif session:
            row = {OLDER_COLUMNS.get(name, name): value for name, value in row.items()} | row
            group = f"{SESSION}:{row['tune_id']}" if row.get("tune_id") else None
            yield Block(SESSION, file, _session_tune(row), group=group)
        else:
            yield Block(source, file, _row_tune(text))


def _text_column(row: Row, wanted: str | None) -> str:
    for column in TEXT_COLUMNS if wanted is None else (wanted,):
        if column in row:
            return column
    raise NoTextColumnError(f"no column {wanted or ' or '.join(TEXT_COLUMNS)} among {', '.join(map(str, row))}")


# The readers of rows yield a row that cannot be read as the reason, and raise one of DAMAGED_TABLE.


def parquet_rows(stream: IO[bytes]) -> Iterator[Row | str]:
    """Yield the rows of a parquet file."""
    for batch in pyarrow.parquet.ParquetFile(stream).iter_batches(ROWS):
        yield from batch.to_pylist()


def json_rows(stream: IO[bytes]) -> Iterator[Row | str]:
    """Yield the objects of a JSON array, or those that follow one another."""
    for value in _json_values(stream):
        yield value if isinstance(value, dict) else NO_OBJECT


def json_line_rows(stream: IO[bytes]) -> Iterator[Row | str]:
    """Yield the objects of a file of JSON lines."""
    yield from (_json_row(line) for line in _lines(stream) if not line or line.strip())


def csv_rows(stream: IO[bytes]) -> Iterator[Row | str]:
    """Yield the rows of a CSV file by the columns of its first."""
    rows = _csv_cells(_lines(stream))
    header = next(rows, [])
    if isinstance(header, str):
        raise csv.Error(header)
    columns = [column.strip() for column in header]
    for row in rows:
        if isinstance(row, str):
            yield row
        elif len(row) == len(columns):
            yield dict(zip(columns, row, strict=True))
        elif row:
            yield "row with more or fewer cells than the table has columns"


def _lines(stream: IO[bytes]) -> Iterator[str]:
    """Yield the lines of a stream, each with its end; one longer than ROW_LIMIT is empty."""
    while line := stream.readline(ROW_LIMIT):
        if len(line) < ROW_LIMIT or line.endswith(b"\n"):
            yield decode_bytes(line).removeprefix("\ufeff")
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(ROW_LIMIT)
        yield ""


def _csv_cells(lines: Iterator[str]) -> Iterator[list[str] | str]:
    r"""Yield the rows of a CSV file, one that cannot be read as the reason; reading continues with the next line.

    A quote in a value is doubled, or written \" as in The Session's dumps of 2015: the first row that has a \" and
    cannot be read with doubled quotes decides that the file is of that kind.
    """
    csv.field_size_limit(ROW_LIMIT)  # an unclosed quote must not take in the whole file
    record: list[str] = []  # the lines of the row that is being read
    again: deque[str] = deque()  # lines to be read once more
    backslashed = False

    def source_lines() -> Iterator[str]:
        while (line := again.popleft() if again else next(lines, None)) is not None:
            record.append(line)
            yield BACKSLASHED.sub(lambda match: '""' if match[1] == '"' else match[1], line) if backslashed else line

    rows = csv.reader(source_lines(), strict=True)
    while True:
        record.clear()
        try:
            row = next(rows, None)
        except csv.Error:
            other_kind = not backslashed and any('\\"' in line for line in record)
            again.extendleft(reversed(record if other_kind else record[1:]))
            backslashed |= other_kind
            rows = csv.reader(source_lines(), strict=True)
            if not other_kind:
                yield "row whose quotes cannot be read" if record[0] else TOO_LONG
            continue
        if row is None:
            return
        yield TOO_LONG if "" in record else row


def _json_row(line: str) -> Row | str:
    if not line:
        return TOO_LONG
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        return "row that is no JSON"
    return value if isinstance(value, dict) else NO_OBJECT


def _json_values(stream: IO[bytes]) -> Iterator[Any]:
    """Yield the elements of a JSON array, or JSON values that follow one another, without holding them all."""
    text = codecs.iterdecode(iter(lambda: stream.read(CHUNK), b""), "utf-8-sig", errors="replace")
    scan = json.JSONDecoder().raw_decode
    buffer = next(text, "")
    position = ARRAY_START.match(buffer).end()  # type: ignore[union-attr]  # it matches the empty string too
    while True:
        position = SEPARATORS.match(buffer, position).end()  # type: ignore[union-attr]
        try:
            value, position = scan(buffer, position)
        except json.JSONDecodeError:
            more = next(text, "")
            rest = buffer[position:]
            if not more and rest in ("", "]"):
                return
            if not more or len(rest) > 4 * ROW_LIMIT:
                raise
            buffer, position = rest + more, 0
            continue
        yield value


def _session_tune(row: Row) -> str:
    """Return a setting of The Session as a tune: its columns become its header, L: is 1/8.

    Some settings have a header in the column `abc`. Its M:, L:, K: and R: override the columns, as the notes were
    written under them; its number and title do not. Blank lines, which would end the tune, are removed. An X: below
    music begins another tune with the same columns.
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
    return "\n".join(_merge_header(lines, columns) for lines in tunes)


def _merge_header(lines: list[str], columns: dict[str, str]) -> str:
    """Return the lines of a tune with one header, made from The Session's columns and the fields in the lines."""
    fields: dict[str, str] = {}
    others: list[str] = []
    while lines and fields.get("K") is None:
        match = FIELD.match(lines[0].strip())
        if match is None and not lines[0].lstrip().startswith("%"):
            break
        line = lines.pop(0).strip()
        if match is None or match[1] not in FIRST_FIELDS + LAST_FIELDS:
            others.append(line)
        else:
            fields.setdefault(match[1], match[2].partition("%")[0].strip())
    merged = columns | {letter: value for letter, value in fields.items() if value and letter in "RMLK"}
    merged |= {letter: fields[letter] for letter in "XTC" if not merged[letter] and fields.get(letter)}
    header = [f"{letter}:{merged[letter]}" for letter in FIRST_FIELDS if merged[letter] or letter == "X"]
    return "\n".join([*header, *others, f"K:{merged['K']}", *lines])


def _one_line(value: Any) -> str:
    return " ".join(str(value).split()) if isinstance(value, str | int | float) else ""


def _row_tune(text: str) -> str:
    """Return the text of a row, as one tune without blank lines if no tune starts in it."""
    if TUNE_START.search(text.replace("\r", "\n")):
        return text
    return "X:1\n" + "".join(line for line in text.splitlines(keepends=True) if line.strip())
