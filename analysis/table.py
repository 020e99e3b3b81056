"""Any table of runs as the columns that a law is fitted to."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import ge, gt, le, lt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.cells import decimal_mark, fault, is_missing, numbers, parse, show, unit_of
from analysis.table_rows import read_columns
from cli import UserError

CLUSTER = "cluster"
COUNTS = ("n", "d", "c", "u")  # may have units and suffixes such as M
MIN_ROWS = 4
FLOPS_PER_PARAMETER = 6  # and token: forward and backward (Kaplan et al. 2020)
# C = 6·N·D: variable → the name that computes it, the two others, the formula
FORMULAS = {
    "d": ("6NC", ("c", "n"), "D = C/(6N)"),
    "n": ("6DC", ("c", "d"), "N = C/(6D)"),
    "c": ("6ND", ("n", "d"), "C = 6ND"),
}
MEANINGS = {"n": "parameters", "d": "tokens", "c": "FLOPs", "u": "unique tokens", "keys": "keys used", "loss": "losses"}
ORDERS: dict[str, Callable[[Any, Any], bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge}
CONDITION = re.compile(r"\s*((?:\[[^\]]*\]|[^\[=!<>])+?)\s*(==|!=|<=|>=|=|<|>)\s*(.*?)\s*", re.DOTALL)
DATE = re.compile(r"\d{4}-\d\d(-\d\d.*)?", re.DOTALL)


@dataclass(frozen=True)
class Table:
    """The runs of one file, in its order.

    `columns` maps the variables loss, n, d, c, u, keys that were named to [rows]. `clusters` [rows] numbers the values
    of the cluster column in order of appearance. `left_out` counts the rows that do not meet a condition, each at the
    first one; all others are used. `notes` say how numbers were read.
    """

    columns: dict[str, NDArray[np.float64]]
    clusters: NDArray[np.int64] | None
    rows: int
    left_out: dict[str, int]
    notes: list[str]

    def summary(self) -> dict[str, Any]:
        """Return what was read and what was left out, for fits.json."""
        read = self.rows + sum(self.left_out.values())
        return {"read": read, "used": self.rows, "left_out": self.left_out, "notes": self.notes}


@dataclass(frozen=True)
class Condition:
    """A condition on rows: a column, one of = != < <= > >=, and a value."""

    text: str
    column: str
    sign: str
    value: str

    def test(self, mark: str | None) -> Callable[[Any], bool]:
        """Return the test of a cell. Raises UserError if the value has no order."""
        value = self.value
        number = None if is_missing(value) else parse(value, mark)
        if self.sign in ORDERS:
            order = ORDERS[self.sign]
            if number is None and DATE.fullmatch(value):
                return lambda cell: isinstance(cell, str) and order(cell.strip(), value)
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
    """Read `COLUMN=VALUE`, or another sign; an empty value is an empty cell. Raises UserError."""
    found = CONDITION.fullmatch(text)
    if found is None:
        raise UserError(f"--where {text!r}: write COLUMN=VALUE, or !=, <, <=, > or >= instead of =, in quotes")
    column, sign, value = found.groups()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    return Condition(text, column, "=" if sign == "==" else sign, value)


def is_formula(variable: str, column: str | None) -> bool:
    """Return whether a variable is computed from two others."""
    return variable in FORMULAS and column == FORMULAS[variable][0]


def check_needs(law: str, needs: Iterable[str], given: Iterable[str]) -> None:
    """Raise UserError with the flags to add if a law needs variables that are not given."""
    given = set(given)
    missing = [variable for variable in needs if variable not in given]
    if missing:
        flags = " and ".join(f"--{variable} ({MEANINGS[variable]})" for variable in missing)
        ways = [
            f"--{variable} {FORMULAS[variable][0]} computes {FORMULAS[variable][2]}"
            for variable in missing
            if variable in FORMULAS and given.issuperset(FORMULAS[variable][1])
        ]
        raise UserError(f"the law {law} needs {flags}, which is missing: {', or '.join(['name its column', *ways])}")


def read_table(path: Path, columns: dict[str, str], where: Sequence[str] = ()) -> Table:
    """Read the named columns; `columns` maps loss, n, d, c, u, keys and cluster to names in the file.

    Rows that do not meet all conditions of `where` (`state=finished`) are left out and counted. Raises UserError that
    names the first cell that is not a finite number above 0, or if there are fewer than four rows or all are alike.
    """
    _check_names(path, columns)
    conditions = [read_condition(text) for text in where]
    named = {variable: column for variable, column in columns.items() if not is_formula(variable, column)}
    cells = read_columns(path, list(dict.fromkeys([*named.values(), *(c.column for c in conditions)])))
    variables = {variable: column for variable, column in named.items() if variable != CLUSTER}
    ordered = [condition.column for condition in conditions if condition.sign in ORDERS]
    mark = decimal_mark(chain.from_iterable(cells[name] for name in [*variables.values(), *ordered]))
    used, left_out = _filter(path, cells, conditions, mark)
    if len(used) < MIN_ROWS:
        raise UserError(f"{path} has {len(used)} rows: a law needs {MIN_ROWS} or more")
    found: dict[str, NDArray[np.float64]] = {}
    notes = ["numbers have a decimal comma"] if mark == "," else []
    for variable, column in variables.items():
        unit = unit_of(column) if variable in COUNTS else 1.0
        chosen = [cells[column][row] for row in used]
        found[variable] = numbers(chosen, mark, variable in COUNTS, unit)
        if (good := len(found[variable])) < len(chosen):
            reason = fault(chosen[good], column, mark, variable in COUNTS)
            raise UserError(f"{path}, row {used[good] + 1}, column {column!r}: {reason}")
        if unit != 1:
            notes.append(f"--{variable}: the numbers of {column!r} are in units of {unit:g}")
    for variable, (_, others, formula) in FORMULAS.items():
        if is_formula(variable, columns.get(variable)):
            first, second = (found[other] for other in others)
            product = first * second * FLOPS_PER_PARAMETER
            found[variable] = product if variable == "c" else first / (FLOPS_PER_PARAMETER * second)
            notes.append(f"--{variable}: {formula}")
    clusters = _clusters(path, cells[columns[CLUSTER]], used, columns[CLUSTER]) if CLUSTER in columns else None
    # A table of one budget C still determines a law of N and D.
    for variable in ("n", "d", CLUSTER) if {"n", "d"} & columns.keys() else ("c", CLUSTER):
        values = clusters if variable == CLUSTER else found.get(variable)
        if values is not None and np.ptp(values) == 0:
            raise UserError(
                f"{path}, column {columns[variable]!r}: all {len(used)} rows are alike: add runs that differ"
            )
    return Table(found, clusters, len(used), left_out, notes)


def _check_names(path: Path, columns: dict[str, str]) -> None:
    if "loss" not in columns:
        raise UserError(f"{path}: name the column that holds the loss with --loss")
    if not {"n", "d", "c"} & columns.keys():
        raise UserError(f"{path}: name a column of sizes with --n, of tokens with --d or of FLOPs with --c")
    taken: dict[str, str] = {}
    for variable, column in columns.items():
        if variable != CLUSTER and taken.setdefault(column, variable) != variable:
            raise UserError(f"--{taken[column]} and --{variable} both name the column {column!r}: name one each")
        if is_formula(variable, column):
            for other in FORMULAS[variable][1]:
                if other not in columns or is_formula(other, columns[other]):
                    raise UserError(f"--{variable} {column} computes {FORMULAS[variable][2]}: name --{other}, too")


def _filter(
    path: Path, columns: dict[str, list[Any]], conditions: list[Condition], mark: str | None
) -> tuple[list[int], dict[str, int]]:
    """Return the rows that meet all conditions, and how many each of these leaves out."""
    used = list(range(len(next(iter(columns.values())))))
    left_out: dict[str, int] = {}
    for condition in conditions:
        cells, meets = columns[condition.column], condition.test(mark)
        kept = [row for row in used if meets(cells[row])]
        if used and not kept:
            common = Counter(show(cells[row]) for row in used).most_common(5)
            there = ", ".join(f"{cell} ({count})" for cell, count in common)
            raise UserError(f"{path}: no row meets --where '{condition.text}': the column holds {there}")
        left_out[condition.text] = left_out.get(condition.text, 0) + len(used) - len(kept)
        used = kept
    return used, left_out


def _clusters(path: Path, cells: list[Any], used: list[int], column: str) -> NDArray[np.int64]:
    codes: dict[str, int] = {}
    for row in used:
        if is_missing(cells[row]) or isinstance(cells[row], list | dict):
            raise UserError(
                f"{path}, row {row + 1}, column {column!r}: {show(cells[row])} is not a label: "
                f"correct it, or leave out --cluster"
            )
        codes.setdefault(str(cells[row]).strip(), len(codes))
    return np.array([codes[str(cells[row]).strip()] for row in used], dtype=np.int64)
