"""What stands in a cell of a table of runs: a number as people and trackers write it, a label, or nothing."""

import math
import re
import reprlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

MISSING = ("", "nan", "none", "null", "n/a", "na", "#n/a", "nat", "-", "–")  # in any case
SMALLEST, LARGEST = 1e-40, 1e40  # of anything that a run has; beyond, logarithms and figures break
MAX_SHOWN = 60  # characters of a cell in a message
SPACES = dict.fromkeys(map(ord, "\u00a0\u2007\u2009\u202f"), " ") | {ord("’"): "'", ord("−"): "-"}
SUFFIXES = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
WORDS = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
FLOPS = {"m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15, "e": 1e18, "z": 1e21, "y": 1e24}
WITH_SUFFIX = re.compile(rf"(.*[\d.,])\s*({'|'.join([*SUFFIXES, *WORDS])})", re.IGNORECASE)
UNIT = re.compile(r"[(\[]\s*(?:in\s+|[x×]\s*)?([^()\[\]]+?)\s*[)\]]$")  # at the end of a column's name
TEXT = str.maketrans({"\n": " ", "\r": " "})


def _pattern(mark: str, other: str) -> re.Pattern[str]:
    """Return what a number with this decimal mark looks like; its thousands may stand apart, all by one sign."""
    power = r"(?:[eE][+-]?\d+)?"
    thousands = rf"\d{{1,3}}(?:(?P<group>[{other} '_])\d{{3}})(?:(?P=group)\d{{3}})*(?:{mark}\d+)?"
    return re.compile(rf"[+-]?(?:{thousands}|(?:\d+{mark}?\d*|{mark}\d+){power})", re.ASCII)


PATTERNS = {".": _pattern(r"\.", ","), ",": _pattern(",", r"\.")}


def show(cell: Any) -> str:
    """Return a cell as a message shows it: on one line, cut short."""
    text = repr(cell) if isinstance(cell, str) and len(cell) <= MAX_SHOWN else reprlib.repr(cell)
    return text.translate(TEXT)


def is_missing(cell: Any) -> bool:
    """Return whether nothing stands in a cell: nothing at all, NaN, or one of the words for it."""
    if isinstance(cell, str):
        return cell.strip().lower() in MISSING
    return cell is None or bool(cell != cell)


def _split_suffix(text: str) -> tuple[str, float]:
    """Return a number without K, M, B, G, T or their words, and what that stands for."""
    found = WITH_SUFFIX.fullmatch(text)
    return (found[1].rstrip(), (SUFFIXES | WORDS)[found[2].lower()]) if found else (text, 1.0)


def decimal_mark(cells: Iterable[Any]) -> str | None:
    """Return the decimal mark of a whole table, "." or ",", from the texts of its columns of numbers.

    `1,200` alone is 1200 or 1.2: the first number of the table that can be read in one way only, such as `3.25` or
    `3,25`, decides (one that contradicts it is not a number then). None: there are such texts and nothing decides.
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


def parse(cell: Any, mark: str = ".", counts: bool = True) -> float | None:
    """Return a cell as a number, or None if it is none. `counts`: 1.5B and 70M are numbers, too."""
    if isinstance(cell, bool):
        return None
    if not isinstance(cell, str):
        try:
            return float(cell)
        except (TypeError, ValueError):
            return None
        except OverflowError:  # an integer of more than 308 digits
            return math.inf
    text, factor = cell, 1.0
    found = PATTERNS[mark].fullmatch(text)
    if found is None:
        text = cell.translate(SPACES).strip()
        if text.lower().lstrip("+-") in ("inf", "infinity", "nan"):
            return float(text)
        text, factor = _split_suffix(text) if counts else (text, 1.0)
        found = PATTERNS[mark].fullmatch(text)
    if found is None:
        return None
    if found["group"]:
        text = text.replace(found["group"], "")
    return float(text.replace(",", ".")) * factor


def numbers(cells: list[Any], mark: str, counts: bool, factor: float) -> FloatArray:
    """Return cells as numbers, times `factor`, up to the first that is none, or none that a run can have."""
    values: list[float] = []
    try:  # what Python takes for numbers are numbers here, too: ten times as fast
        if mark == "." and bool not in set(map(type, cells)):
            values = list(map(float, cells))
        elif all("." not in cell for cell in cells):
            values = [float(cell.replace(",", ".")) for cell in cells]
    except (TypeError, ValueError, OverflowError, AttributeError):
        pass
    if not values:
        values = list(_one_by_one(cells, mark, counts, factor))
    found = np.array(values, dtype=np.float64) * factor
    bad = np.flatnonzero(~((found >= SMALLEST) & (found <= LARGEST)))
    return found[: bad[0]] if len(bad) else found


def _one_by_one(cells: list[Any], mark: str, counts: bool, factor: float) -> Iterator[float]:
    known: dict[str, float | None] = {}
    for cell in cells:
        if not isinstance(cell, str):
            value = parse(cell)
        elif cell in known:
            value = known[cell]
        else:
            twice = factor != 1 and _split_suffix(cell.strip())[1] != 1
            value = known[cell] = None if twice else parse(cell, mark, counts)
        if value is None:
            return
        yield value


def fault(cell: Any, column: str, mark: str | None, counts: bool) -> str:
    """Return what is wrong with a cell at which `numbers` stopped, and how to fix it."""
    shown, value = show(cell), parse(cell, mark, counts) if mark else None
    leave_out = f"or leave such runs out with --where '{column}>0'"
    if isinstance(cell, list):
        return f"{shown} is a list: name its elements, {column}[] (a row each) or {column}[-1] (the last)"
    if isinstance(cell, dict):
        return f"it holds the fields {', '.join(map(str, list(cell)[:20]))}: name one, as {column}.FIELD"
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return f"the cell is empty: fill it in, {leave_out}"
    if isinstance(cell, str) and cell.strip().endswith("%"):
        return f"{shown} is a share in percent: write a number"
    if value is None and isinstance(cell, str) and mark == "," and parse(cell, ".", counts) is not None:
        return f"{shown} has a decimal point, other numbers of the table have a decimal comma: write all alike"
    if value is None and isinstance(cell, str) and "," in cell:
        return f"{shown} has a comma, for thousands or for decimals: write 1200 or 1.2"
    if value is None:
        return f"{shown} is not a number: write it as 1200000 or 1.2e6, {leave_out}"
    if not math.isfinite(value) or value <= 0:
        leave_out = leave_out.replace(">0", "<inf") if value == math.inf else leave_out
        return f"{shown} is not a finite number above 0: correct it, {leave_out}"
    if SMALLEST <= value <= LARGEST:
        return f"{shown} and the column's name together are no number that a run can have: write its unit once"
    return f"{shown} is no number that a run can have ({SMALLEST:g} to {LARGEST:g}): correct it"


def unit_of(column: str) -> float:
    """Return what the numbers of a column are counted in if its name ends so: `params (M)`, `tokens [billions]`."""
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
