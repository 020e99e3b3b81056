"""Anyone's table of runs as the columns that a law is fitted to."""

import difflib
import math
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.cells import decimal_mark, fault, is_missing, numbers, parse, show, unit_of
from analysis.table_rows import Rows, UnknownColumnError, read_rows
from cli import UserError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

CLUSTER = "cluster"
MIN_ROWS = 4
FLOPS_PER_PARAMETER = 6  # and token: forward and backward (Kaplan et al. 2020)
# Of C = 6·N·D the third follows from two: variable → how it is named in place of a column, and what it is made of.
FORMULAS = {"d": ("6NC", ("c", "n")), "n": ("6DC", ("c", "d")), "c": ("6ND", ("n", "d"))}
SHOWN_FORMULAS = {"d": "D = C/(6N)", "n": "N = C/(6D)", "c": "C = 6ND"}
MEANINGS = {"n": "parameters", "d": "tokens", "c": "FLOPs", "u": "unique tokens", "keys": "keys used", "loss": "losses"}

Compare = Callable[[float, float], bool]
ORDERS: dict[str, Compare] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
CONDITION = re.compile(r"\s*((?:\[[^\]]*\]|[^\[=!<>])+?)\s*(==|!=|<=|>=|=|<|>)\s*(.*?)\s*", re.DOTALL)
DATE = re.compile(r"\d{4}-\d\d(-\d\d.*)?", re.DOTALL)


@dataclass(frozen=True)
class Table:
    """The runs of one file, in its order.

    `columns` maps the variables loss, n, d, c, u, keys, as far as they were named, to [rows]. `clusters` [rows] numbers
    the values of the cluster column from 0 in the order in which they appear. Of the file's `read` rows those that do
    not meet a condition are left out, and no others: `left_out` counts them, each at the first that it does not meet.
    `notes` say how numbers were read where that was not plain.
    """

    path: Path
    columns: dict[str, FloatArray]
    clusters: IntArray | None
    rows: int
    read: int
    left_out: dict[str, int]
    notes: list[str]

    def need(self, law: str, variables: Iterable[str]) -> dict[str, FloatArray]:
        """Return the columns [rows] that a law is fitted to; nothing is made up, C is not taken for 6·N·D unasked.

        Raises UserError naming the flags of the columns that were not given.
        """
        wanted = list(variables)
        check_needs(law, wanted, self.columns)
        return {variable: self.columns[variable] for variable in wanted}

    def summary(self) -> dict[str, Any]:
        """Return what was read and what was left out, for fits.json."""
        return {"read": self.read, "used": self.rows, "left_out": self.left_out, "notes": self.notes}


@dataclass(frozen=True)
class Condition:
    """What a row has to meet to be used: a column, one of = != < <= > >=, and a value."""

    text: str
    column: str
    sign: str
    value: str

    def of(self, mark: str) -> Callable[[Any], bool]:
        """Return whether a cell meets it. Raises UserError if its value has no order."""
        value = self.value
        number = None if is_missing(value) else parse(value, mark)
        if self.sign in ORDERS:
            order = ORDERS[self.sign]
            if number is None and DATE.fullmatch(value):
                return lambda cell: isinstance(cell, str) and bool(order(cell.strip(), value))  # type: ignore[arg-type]
            if number is None or math.isnan(number):
                raise UserError(f"--where '{self.text}': {value!r} is not a number: compare others with = or !=")
            return lambda cell: (found := parse(cell, mark)) is not None and order(found, number)

        def equals(cell: Any) -> bool:
            if is_missing(value) or is_missing(cell):
                return is_missing(value) and is_missing(cell)
            if isinstance(cell, bool):
                return str(cell).lower() == value.lower()
            return str(cell).strip() == value or (number is not None and parse(cell, mark) == number)

        return equals if self.sign == "=" else lambda cell: not equals(cell)


def read_condition(text: str) -> Condition:
    """Read `COLUMN=VALUE`, or another sign; nothing as the value is an empty cell. Raises UserError."""
    found = CONDITION.fullmatch(text)
    if found is None:
        raise UserError(f"--where {text!r}: write COLUMN=VALUE, or !=, <, <=, > or >= instead of =, in quotes")
    column, sign, value = found.groups()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    return Condition(text, column, "=" if sign == "==" else sign, value)


def is_formula(variable: str, column: str | None) -> bool:
    """Return whether a variable is not read but follows from two others."""
    return variable in FORMULAS and column == FORMULAS[variable][0]


def check_needs(law: str, needs: Iterable[str], given: Iterable[str]) -> None:
    """Raise UserError if a law needs what is not given; it says what to name, or what it can be made of."""
    given = set(given)
    missing = [variable for variable in needs if variable not in given]
    if not missing:
        return
    flags = " and ".join(f"--{variable} ({MEANINGS[variable]})" for variable in missing)
    ways = [
        f"--{variable} {FORMULAS[variable][0]} computes {SHOWN_FORMULAS[variable]}"
        for variable in missing
        if variable in FORMULAS and given.issuperset(FORMULAS[variable][1])
    ]
    raise UserError(f"the law {law} needs {flags}, which is missing: {', or '.join(['name its column', *ways])}")


def read_table(path: Path, columns: dict[str, str], where: Sequence[str] = ()) -> Table:
    """Read the named columns; `columns` maps loss, n, d, c, u, keys and cluster to names in the file.

    `where` are conditions (`state=finished`): rows that do not meet all of them are left out and counted. Names are
    those of `table_rows.read_rows`, in any case of their letters where that is clear. Raises UserError with one line,
    which names the first place where the file is not as it must be: every number finite and above 0, four rows, sizes
    that differ.
    """
    conditions = [read_condition(text) for text in where]
    _check_flags(path, columns)
    named = {variable: column for variable, column in columns.items() if not is_formula(variable, column)}
    flags = {**{c.column: "where" for c in reversed(conditions)}, **{c: v for v, c in reversed(named.items())}}
    rows = _read_named(path, flags)
    read = len(next(iter(rows.columns.values())))
    variables = {variable: column for variable, column in named.items() if variable != CLUSTER}
    ordered = [c.column for c in conditions if c.sign in ORDERS]
    mark = decimal_mark(chain.from_iterable(rows.columns[name] for name in [*variables.values(), *ordered]))
    if mark is None:
        raise UserError(_unclear(path, rows, [*variables.values(), *ordered]))
    used, left_out = _filter(path, rows, conditions, mark)
    if len(used) < MIN_ROWS:
        raise UserError(f"{path} has {len(used)} rows: a law needs {MIN_ROWS} or more")
    found = {variable: _numbers(path, rows, used, variable, column, mark) for variable, column in variables.items()}
    notes = ["numbers have a decimal comma"] if mark == "," else []
    for variable, column in variables.items():
        if variable in ("n", "d", "c", "u") and (factor := unit_of(column)) != 1:
            notes.append(f"--{variable}: the numbers of {column!r} are taken times {factor:g}")
    for variable in FORMULAS:
        if is_formula(variable, columns.get(variable)):
            first, second = (found[other] for other in FORMULAS[variable][1])
            product = first * second * FLOPS_PER_PARAMETER
            found[variable] = product if variable == "c" else first / (FLOPS_PER_PARAMETER * second)
            notes.append(f"--{variable}: {SHOWN_FORMULAS[variable]}")
    clusters = _clusters(path, rows, used, columns[CLUSTER]) if CLUSTER in columns else None
    for variable in _must_differ(columns):
        values = clusters if variable == CLUSTER else found[variable]
        if values is not None and np.ptp(values) == 0:
            held = rows.columns[columns[CLUSTER]][used[0]] if variable == CLUSTER else float(values[0])
            raise UserError(
                f"{path}, column {columns[variable]!r}: all {len(used)} rows hold {held!r}: "
                f"add runs that differ in it, or leave out --{variable}"
            )
    return Table(path, found, clusters, len(used), read, left_out, notes)


def _check_flags(path: Path, columns: dict[str, str]) -> None:
    if "loss" not in columns:
        raise UserError(f"{path}: name the column that holds the loss with --loss")
    if not {"n", "d", "c"} & columns.keys():
        raise UserError(f"{path}: name a column of sizes with --n, of tokens with --d or of FLOPs with --c")
    taken: dict[str, str] = {}
    for variable, column in columns.items():
        if variable != CLUSTER and taken.setdefault(column, variable) != variable:
            raise UserError(f"--{taken[column]} and --{variable} both name the column {column!r}: name one each")
        if is_formula(variable, column):
            lacks = [v for v in FORMULAS[variable][1] if v not in columns or is_formula(v, columns[v])]
            if lacks:
                raise UserError(f"--{variable} {column} computes {SHOWN_FORMULAS[variable]}: name --{lacks[0]}, too")


def _must_differ(columns: dict[str, str]) -> list[str]:
    """Return the variables that may not be constant; runs of one budget C do tell of N and D."""
    return [v for v in ("n", "d", CLUSTER) if v in columns] + ["c"] * (not {"n", "d"} & columns.keys())


def _read_named(path: Path, flags: dict[str, str]) -> Rows:
    """Read columns, each asked for by a flag; one whose name differs in case alone is meant. Raises UserError."""
    names = {column: column for column in flags}  # as asked for → as in the file
    while True:
        try:
            rows = read_rows(path, list(dict.fromkeys(names.values())))
        except UnknownColumnError as unknown:
            asked = next(column for column, name in names.items() if name == unknown.column)
            alike = [name for name in unknown.names if name.lower() == asked.lower()]
            if len(alike) != 1 or names[asked] == alike[0]:
                raise UserError(_unknown(path, flags[asked], asked, unknown.names)) from None
            names[asked] = alike[0]
            continue
        return Rows({column: rows.columns[name] for column, name in names.items()}, rows.lines)


def _unknown(path: Path, flag: str, column: str, names: list[str]) -> str:
    lowered = {name.lower(): name for name in names}
    longer = sorted((name for name in lowered if column.lower() in name), key=len)
    close = longer or difflib.get_close_matches(column.lower(), lowered, n=1)
    hint = f" (did you mean {lowered[close[0]]!r}?)" if close else ""
    there = textwrap.shorten(", ".join(names), 500, placeholder=" …")
    return f"{path} has no column {column!r} for --{flag}{hint}: it has {there}"


def _unclear(path: Path, rows: Rows, columns: list[str]) -> str:
    """Return where the first comma stands that may be for thousands or for decimals."""
    row, column = next(
        (row, column)
        for column in columns
        for row, cell in enumerate(rows.columns[column])
        if isinstance(cell, str) and "," in cell and None not in (parse(cell, "."), parse(cell, ","))
    )
    return f"{path}, {rows.where(row)}, column {column!r}: {fault(rows.columns[column][row], column, None, False)}"


def _filter(path: Path, rows: Rows, conditions: list[Condition], mark: str) -> tuple[list[int], dict[str, int]]:
    """Return the rows that meet all conditions, and how many each of these leaves out."""
    used = list(range(len(next(iter(rows.columns.values())))))
    left_out: dict[str, int] = {}
    for condition in conditions:
        cells, meets = rows.columns[condition.column], condition.of(mark)
        kept = [row for row in used if meets(cells[row])]
        if used and not kept:
            common = Counter(show(cells[row]) for row in used).most_common(5)
            there = ", ".join(f"{cell} ({count})" for cell, count in common)
            raise UserError(f"{path}: no row is left by --where '{condition.text}': the column holds {there}")
        left_out[condition.text] = left_out.get(condition.text, 0) + len(used) - len(kept)
        used = kept
    return used, left_out


def _numbers(path: Path, rows: Rows, used: list[int], variable: str, column: str, mark: str) -> FloatArray:
    cells = rows.columns[column]
    if len(used) < len(cells):
        cells = [cells[row] for row in used]
    counts = variable in ("n", "d", "c", "u")
    values = numbers(cells, mark, counts, unit_of(column) if counts else 1.0)
    if len(values) < len(cells):
        row, wrong = used[len(values)], cells[len(values)]
        raise UserError(f"{path}, {rows.where(row)}, column {column!r}: {fault(wrong, column, mark, counts)}")
    return values


def _clusters(path: Path, rows: Rows, used: list[int], column: str) -> IntArray:
    codes: dict[str, int] = {}
    cells = rows.columns[column]
    for row in used:
        cell = cells[row]
        if is_missing(cell):
            raise UserError(
                f"{path}, {rows.where(row)}, column {column!r}: the cell is empty: fill it in, or leave out --cluster"
            )
        if isinstance(cell, list | dict):
            raise UserError(f"{path}, {rows.where(row)}, column {column!r}: {fault(cell, column, '.', False)}")
    return np.array([codes.setdefault(str(cells[row]).strip(), len(codes)) for row in used], dtype=np.int64)
