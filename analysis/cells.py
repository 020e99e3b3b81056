"""Cells of a table of runs: numbers as people and experiment trackers write them, labels, and missing values."""

import math
import re
import reprlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

MISSING = ("", "nan", "none", "null", "n/a", "na", "#n/a", "nat", "-", "–")  # in any case
SMALLEST, LARGEST = 1e-40, 1e40  # beyond, logarithms and figures break
SPACES = dict.fromkeys(map(ord, "\u00a0\u2007\u2009\u202f"), " ") | {ord("’"): "'", ord("−"): "-"}
SUFFIXES = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
WORDS = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
FLOPS = {"m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15, "e": 1e18, "z": 1e21, "y": 1e24}
WITH_SUFFIX = re.compile(rf"(.*[\d.,])\s*({'|'.join([*SUFFIXES, *WORDS])})", re.IGNORECASE)
UNIT = re.compile(r"[(\[]\s*(?:in\s+|[x×]\s*)?([^()\[\]]+?)\s*[)\]]$")  # at the end of a column's name


def _pattern(mark: str, other: str) -> re.Pattern[str]:
    """Return the pattern of a number with this decimal mark, whose thousands may be separated by one other sign."""
    thousands = rf"\d{{1,3}}(?:(?P<group>[{other} '_])\d{{3}})(?:(?P=group)\d{{3}})*(?:{mark}\d+)?"
    return re.compile(rf"[+-]?(?:{thousands}|(?:\d+{mark}?\d*|{mark}\d+)(?:[eE][+-]?\d+)?)", re.ASCII)


PATTERNS = {".": _pattern(r"\.", ","), ",": _pattern(",", r"\.")}


def show(cell: Any) -> str:
    """Return a cell for a message: on one line, cut short."""
    text = repr(cell) if isinstance(cell, str) and len(cell) <= 60 else reprlib.repr(cell)
    return " ".join(text.splitlines())


def is_missing(cell: Any) -> bool:
    """Return whether a cell is empty, NaN, or one of the words for a missing value."""
    if isinstance(cell, str):
        return cell.strip().lower() in MISSING
    return cell is None or bool(cell != cell)


def _split_suffix(text: str) -> tuple[str, float]:
    """Return a number without K, M, B, G, T or their words, and the factor that these are."""
    found = WITH_SUFFIX.fullmatch(text)
    return (found[1].rstrip(), (SUFFIXES | WORDS)[found[2].lower()]) if found else (text, 1.0)


def decimal_mark(cells: Iterable[Any]) -> str | None:
    """Return the decimal mark of a table, "." or ",", from the texts of its number columns.

    The first number with one reading only, such as `3.25` or `3,25`, decides. None: there are numbers such as `1,200`,
    which is 1200 or 1.2, and nothing decides.
    """
    unclear = False
    for cell in cells:
        if isinstance(cell, str) and ("," in cell or "." in cell):
            text = _split_suffix(cell.translate(SPACES).strip())[0]
            marks = [mark for mark, pattern in PATTERNS.items() if pattern.fullmatch(text)]
            if len(marks) == 1:
                return marks[0]
            unclear = unclear or (bool(marks) and "," in text)
    return None if unclear else "."


def parse(cell: Any, mark: str | None = ".", suffixes: bool = True) -> float | None:
    """Return a cell as a number, or None if it is none. With `suffixes`, 1.5B and 70M are numbers."""
    if isinstance(cell, bool):
        return None
    if not isinstance(cell, str):
        try:
            return float(cell)
        except (TypeError, ValueError):
            return None
    text, factor = cell.translate(SPACES).strip(), 1.0
    if text.lower().lstrip("+-") in ("inf", "infinity", "nan"):
        return float(text)
    if mark is None:  # the decimal mark is not known
        point, comma = parse(cell, ".", suffixes), parse(cell, ",", suffixes)
        return point if comma is None or comma == point else None
    if suffixes:
        text, factor = _split_suffix(text)
    found = PATTERNS[mark].fullmatch(text)
    if found is None:
        return None
    return float(text.replace(found["group"] or " ", "").replace(",", ".")) * factor


def numbers(cells: list[Any], mark: str | None, suffixes: bool, unit: float) -> NDArray[np.float64]:
    """Return cells as numbers, times `unit`, up to the first that is not a number of a run."""
    try:
        plain = mark == "." and bool not in set(map(type, cells))
        values: list[float] = list(map(float, cells)) if plain else []  # ten times as fast
    except (TypeError, ValueError):
        values = []
    if not values:
        for cell in cells:
            twice = unit != 1 and isinstance(cell, str) and _split_suffix(cell.strip())[1] != 1
            value = None if twice else parse(cell, mark, suffixes)
            if value is None:
                break
            values.append(value)
    found = np.array(values, dtype=np.float64) * unit
    bad = np.flatnonzero(~((found >= SMALLEST) & (found <= LARGEST)))
    return found[: bad[0]] if len(bad) else found


def fault(cell: Any, column: str, mark: str | None, suffixes: bool) -> str:
    """Return what is wrong with a cell at which `numbers` stopped, and the fix."""
    shown, value = show(cell), parse(cell, mark, suffixes)
    leave_out = f"correct it, or leave such runs out with --where '{column}{'<inf' if value == math.inf else '>0'}'"
    if isinstance(cell, list):
        return f"{shown} is a list: name its elements, {column}[] (a row each) or {column}[-1] (the last)"
    if isinstance(cell, dict):
        return f"it holds the fields {', '.join(map(str, list(cell)[:20]))}: name one, as {column}.FIELD"
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return f"the cell is empty: {leave_out}"
    if value is None and isinstance(cell, str) and ("," in cell or mark == ","):
        return f"{shown} has a comma or a point, for thousands or for decimals: write 1200 or 1.2 in the whole table"
    if value is None:
        return f"{shown} is not a number: {leave_out}"
    if not math.isfinite(value) or value <= 0:
        return f"{shown} is not a finite number above 0: {leave_out}"
    if SMALLEST <= value <= LARGEST:
        return f"{shown}, in the unit of the column's name, is not a number of a run: write the unit once"
    return f"{shown} is not between {SMALLEST:g} and {LARGEST:g}: {leave_out}"


def unit_of(column: str) -> float:
    """Return the unit at the end of a column's name, such as `params (M)` or `tokens [billions]`, or 1."""
    found = UNIT.search(column.strip())
    if found is None:
        return 1.0
    unit = found[1].lower()
    if power := re.fullmatch(r"1e(\d{1,2})|10(?:\^|\*\*)(\d{1,2})", unit):
        return 10.0 ** int(power[1] or power[2])
    if flops := re.fullmatch(r"([mgtpezy])flops?|pf-?days?", unit):
        return FLOPS[flops[1]] if flops[1] else 1e15 * 86400
    word = re.sub(r"\s+(parameters|params|tokens|flops?)$", "", unit)
    return SUFFIXES.get(word) or WORDS.get(word.rstrip("s")) or 1.0
