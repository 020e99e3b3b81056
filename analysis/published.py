"""Published numbers (published.json, with sources) beside this study's; every verdict follows from the intervals."""

from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from analysis.fits_json import ABOVE, BELOW, INCLUDED, NOT_IDENTIFIED, Data, find_fit
from analysis.intervals import Interval
from files import format_count, read_json

PUBLISHED = Path(__file__).with_name("published.json")
BOTH = ["gpt", "lstm"]


def read_published() -> Data:
    """Return the published numbers: sources by key, numbers, and ladders of small studies."""
    found: Data = read_json(PUBLISHED, "sources", "numbers", "ladders")
    return found


def exponent_without_e(ladder: Data) -> float:
    """Return the exponent of the power law without E that a ladder's losses give, by least squares in logs."""
    return -float(np.polyfit(np.log(ladder["n_params"]), np.log(ladder["losses"]), 1)[0])


def published_rows() -> list[Data]:
    """Return every published number as a row with its source; of a ladder with E also the exponent without E."""
    published = read_published()
    rows = [
        {"interval": None, "level": "", "note": "", "architectures": BOTH}
        | number
        | {"source": published["sources"][number["source"]]}
        for number in published["numbers"]
    ]
    return rows + [row for ladder in published["ladders"] for row in _ladder_rows(ladder)]


def _ladder_rows(ladder: Data) -> list[Data]:
    owner, name = ladder["repository"].split("/")
    file = ladder["file"].replace(" ", "%20")
    source = {
        "name": owner,
        "address": f"https://github.com/{owner}/{name}/blob/{ladder['commit']}/{file}",
        "data": "ABC made of MIDI",
        "token": ladder["token"],
        "n_params": [min(ladder["n_params"]), max(ladder["n_params"])],
    }
    note = f"{len(ladder['losses'])} runs there, one a size"
    shared = {"source": source, "interval": None, "level": "", "note": note, "architectures": [ladder["architecture"]]}
    printed = {"power": "α of N^-α", "power_irreducible": "α of E + N^-α"}[ladder["law"]]
    rows = [{"what": printed, "value": ladder["alpha"], "where": "as printed", "law": ladder["law"]}]
    if ladder["law"] == "power_irreducible":
        fitted = exponent_without_e(ladder)
        rows.append({"what": "α of N^-α", "value": fitted, "where": "its losses, fitted here", "law": "power"})
    return [{**shared, **row, "ours_at": ["law", row["law"], "n_params", "alpha"]} for row in rows]


def compare_with_published(data: Data) -> list[Data]:
    """Return every published number of an architecture that is here, with `ours` by architecture and `differences`.

    Each of ours has a value, an interval and a verdict, or the reason why it is not identified.
    """
    rows = []
    for row in published_rows():
        names = [name for name in row["architectures"] if name in data["fits"]]
        if names:
            ours = {name: our_number(data, name, row["ours_at"]) for name in names}
            for number in ours.values():
                number["verdict"] = verdict_of(number, row)
            rows.append({**row, "ours": ours, "differences": _differences(row, data)})
    return rows


def our_number(data: Data, architecture: str, at: list[str]) -> Data:
    """Look a number up in fits.json; its interval is the hull of those over runs and over sizes."""
    kind, *rest = at
    row: Data | None = None
    reason: str | None = None
    if kind == "law":
        law, axis, parameter = rest
        fitted = find_fit(data, architecture, law, axis)
        if fitted is not None:
            row = fitted["parameters"][parameter]
            reason = row["reason"]
    elif kind == "compute_optimal":
        method, quantity = rest
        result = data["compute_optimal"][architecture]["ways"][method]
        inside = [best for best in result["optima"] if not best["extrapolated"]]
        found = inside[-1] if inside and quantity == "tokens_per_parameter" else result  # the largest budget
        row, reason = found.get(quantity), result["reason"]
    else:
        worth = (data["repetition"][architecture] or {}).get("epochs")
        if worth is not None:
            row = next(entry for entry in worth["rows"] if entry["epochs"] == int(rest[0]))
            reason = worth["reason"]
    if row is None or reason is not None:
        return {"reason": reason or "too few runs here", "value": None, "interval": (None, None)}
    lows, highs = zip(*(row[kind] for kind in ("bootstrap", "jackknife") if kind in row), strict=True)
    interval = (None if None in lows else min(lows), None if None in highs else max(highs))
    return {"reason": None, "value": row["value"], "interval": interval}


def verdict_of(ours: Data, published: Data) -> str:
    """Return where our interval is from the published value, and whether it overlaps the published interval."""
    if ours["reason"] is not None:
        return f"{NOT_IDENTIFIED}: {ours['reason']}"
    low, high = _closed(ours["interval"])
    if low <= published["value"] <= high:
        return INCLUDED if None not in ours["interval"] else f"{NOT_IDENTIFIED}: its interval is open"
    first, last = _closed(published["interval"] or (published["value"], published["value"]))
    overlap = ", intervals overlap" if low <= last and first <= high else ""
    return f"{ABOVE if low > published['value'] else BELOW}{overlap}"


def _closed(interval: Interval) -> tuple[float, float]:
    low, high = interval
    return -inf if low is None else low, inf if high is None else high


def _differences(row: Data, data: Data) -> list[str]:
    """Return why two numbers need not agree: what was modelled, the sizes, the budget, and the row's own note."""
    found = []
    source = row["source"]
    if source["data"] != "ABC" or source["token"] != "character":
        found.append(f"{source['token']} of {source['data']}")
    largest = max(size[name]["n_params"] for size in data["sizes"] for name in row["architectures"] if name in size)
    if source["n_params"][0] > largest:
        found.append(f"smallest N {format_count(source['n_params'][0] / largest)} × our largest")
    return [*found, *([row["note"]] if row["note"] else [])]


def verdict_counts(rows: list[Data], architecture: str) -> dict[str, Any]:
    """Return how many published numbers our intervals include, are above or below, or are not identified for."""
    verdicts = [row["ours"][architecture]["verdict"] for row in rows if architecture in row["ours"]]
    return {name: sum(v.startswith(name) for v in verdicts) for name in (INCLUDED, ABOVE, BELOW, NOT_IDENTIFIED)}
