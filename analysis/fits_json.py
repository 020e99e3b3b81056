"""Reading fits.json: the names that readers see, lookups, and the fixed list of verdicts."""

from typing import Any

from analysis import laws

Data = dict[str, Any]

NAMES = {"gpt": "GPT", "lstm": "LSTM"}
LAWS = {name: law.label or name for name, law in laws.LAWS.items()}
AXES = {
    "n_params": "N",
    "n_params_non_embedding": "N, non-embedding",
    "tokens": "D",
    "flops": "C",
}
VARIABLES = {"n": "N", "d": "D", "c": "C", "u": "U", "keys": "keys"}
PARAMETERS = {"alpha": "α", "beta": "β"}
METHODS = {"envelope": "envelope", "isoflop": "IsoFLOP minima", "parametric": "Chinchilla's law"}
RESOURCES = {
    "n_params": "parameters",
    "n_params_non_embedding": "non-embedding parameters",
    "tokens": "tokens",
    "flops": "training FLOPs",
    "seconds": "training time (s)",
    "peak_memory_bytes": "memory (bytes)",
}
ABLATIONS = {
    "part": "fewer tunes",
    "keys": "transposed copies",
    "state": "stateful training and validation",
    "state reset": "stateful training only",
    "longer": "trained longer on the same tunes",
}

IDENTIFIED, NOT_IDENTIFIED = "identified", "not identified"
NO_DIFFERENCE = "no significant difference"
INCLUDED, ABOVE, BELOW = "included", "above", "below"


def verdict(row: Data) -> str:
    """Return whether a parameter or a law is identified, and if not, why."""
    return IDENTIFIED if row["identified"] else f"{NOT_IDENTIFIED}: {row['reason']}"


def difference_verdict(law: Data) -> str:
    """Return which architecture's loss falls faster under one law of the comparison."""
    if not law["identified"]:
        return f"{NOT_IDENTIFIED}: {law['reason']}"
    return NO_DIFFERENCE if law["steeper"] is None else f"{NAMES[law['steeper']]} steeper"


def lower_loss(match: Data) -> str:
    """Return which architecture has the lower loss at one size, from the interval of GPT − LSTM."""
    low, high = match["interval"]
    if high is not None and high < 0:
        return NAMES["gpt"]
    return NAMES["lstm"] if low is not None and low > 0 else NO_DIFFERENCE


def find_fit(data: Data, architecture: str, law: str, axis: str = "n_params") -> Data | None:
    """Return a fit of an architecture, or None if the study has no runs for it."""
    return next((fit for fit in data["fits"][architecture] if fit["law"] == law and fit["axis"] == axis), None)


def chosen_fit(data: Data, architecture: str) -> Data:
    """Return the law of N that describes the study: with E if that is identified for all architectures.

    Exponents with and without E differ, so all architectures are shown with the same law.
    """
    fits = [find_fit(data, name, "power_irreducible") for name in data["fits"]]
    known = all(fit is not None and fit["parameters"]["E"]["identified"] for fit in fits)
    chosen = find_fit(data, architecture, "power_irreducible" if known else "power")
    assert chosen is not None
    return chosen


def find_comparison(data: Data, law: str, axis: str = "n_params") -> Data | None:
    """Return the comparison under one law on one axis, or None if there is none."""
    laws = data["comparison"]["laws"] if data["comparison"] else []
    return next((entry for entry in laws if entry["law"] == law and entry["axis"] == axis), None)


def epochs_before(row: Data) -> float:
    """Return the epochs of the smaller budget that a difference is from."""
    return float(row["epochs"] * row["from_budget"] / row["budget"])


def rising(data: Data, name: str) -> list[Data]:
    """Return the differences by which more epochs on the same tunes significantly raise the loss."""
    return [row for row in data["ablations"][name] if row["against"] == "longer" and (row["interval"][0] or 0) > 0]
