"""External validators: what abc2midi and abcm2ps say of a tune, beside our own verdict; the Fréchet music distance.

Neither program is the truth: abc2midi sums over repeats and knows no pickup; abcm2ps does not check the length of bars.
A disagreement means that one of us has to be looked at.
"""

import importlib
import importlib.util
import re
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from generation.rendering import PROGRAM, abc2midi, describe_exit, run_confined, sanitize
from preprocessing.notation import Verdict, judge

BAR_WARNING = "time units while the time signature"
ERROR = re.compile(r"\b[Ee]rror\b.*")
VALIDATORS = {"parses": ("abc2midi", "abcm2ps"), "bars_add_up": ("abc2midi",)}  # of each tier
FRECHET = "frechet_music_distance"
LISTED = 20


def missing() -> list[str]:
    """Return a message if abcm2ps is not installed; abc2midi always is."""
    return [] if shutil.which("abcm2ps") else ["abcm2ps is not installed (apt install abcm2ps)"]


def validate(abc: str) -> dict[str, Any]:
    """Return what the validators say of a tune; None for abcm2ps if it is not installed.

    abc2midi: number of errors, number of bars that it finds too long or too short, and its first message. abcm2ps:
    whether it draws the tune without an error, and its first message. R: is left out: abc2midi takes a hornpipe in C|
    for an error. Raises RenderingError (a ValueError) for a tune that is too long to be rendered.
    """
    files = {"tune.abc": re.sub(r"^R:.*\n", "", sanitize(abc), flags=re.MULTILINE).encode()}
    code, output, _ = run_confined(PROGRAM, [abc2midi(), "tune.abc", "-c", "-NFER"], files, "")
    errors = [line for line in output.splitlines() if ERROR.search(line)]
    if code:  # it exits 0, unless it dies
        errors.append(f"abc2midi {describe_exit(code)}")
    bars = [line for line in output.splitlines() if BAR_WARNING in line]
    first = next(iter(errors + bars), "")
    found: dict[str, Any] = {"abc2midi": {"errors": len(errors), "bar_warnings": len(bars), "first": first}}
    found["abcm2ps"] = None
    if drawer := shutil.which("abcm2ps"):
        code, output, _ = run_confined(PROGRAM, [drawer, "-S", "-q", "-g", "-O", "score", "tune.abc"], files, "")
        error = ERROR.search(output)
        first = error[0] if error else f"abcm2ps {describe_exit(code)}" if code else ""
        found["abcm2ps"] = {"ok": code == 0, "first": first}
    return found


def validate_all(tunes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the validators' results for each tune, from two threads."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(validate, tunes))


def agreement(tunes: Sequence[str], results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each tier and installed validator: our verdict against its result.

    A row counts the tunes that pass with `both`, with us alone (`ours`), with the validator alone (`theirs`) and with
    `neither`, and lists the first LISTED disagreements: index of the tune, our reason, the validator's.
    """
    verdicts = [judge(tune) for tune in tunes]
    rows = []
    for tier, name in ((tier, name) for tier, names in VALIDATORS.items() for name in names):
        if not results or results[0][name] is None:
            continue
        counts = {"both": 0, "ours": 0, "theirs": 0, "neither": 0}
        disagreements: list[dict[str, Any]] = []
        for index, (verdict, found) in enumerate(zip(verdicts, results, strict=True)):
            ours, theirs = getattr(verdict, tier), _passes(found[name], tier)
            counts[("neither", "theirs", "ours", "both")[2 * ours + theirs]] += 1
            if ours != theirs and len(disagreements) < LISTED:
                disagreements.append({"index": index, "we": _reason(verdict, tier), "judge": found[name]["first"]})
        rows.append({"tier": tier, "judge": name, **counts, "disagreements": disagreements})
    return rows


def _passes(found: dict[str, Any], tier: str) -> bool:
    if "ok" in found:
        return bool(found["ok"])
    return not found["errors"] and (tier == "parses" or not found["bar_warnings"])


def _reason(verdict: Verdict, tier: str) -> str:
    if verdict.errors:
        return verdict.errors[0]
    if verdict.bad_bars and tier == "bars_add_up":
        bad = verdict.bad_bars[0]
        return f"bar {bad.number} is {bad.found} of a whole note, not {bad.expected}"
    return ""


def frechet_music_distance(reference: Sequence[str], generated: Sequence[str]) -> float | str:
    """Return the Fréchet music distance of two sets of tunes (Retkowski et al. 2024, arXiv 2412.07948; CLaMP 2).

    Returns a reason instead if its package or its encoder is not installed: nothing is downloaded unasked.
    """
    if importlib.util.find_spec(FRECHET) is None:  # not an import statement: the package is optional
        return "no Fréchet music distance: its package is missing (pip install frechet-music-distance)"
    weights = importlib.import_module(f"{FRECHET}.models.clamp2.config").CLAMP2_WEIGHTS_PATH
    if not weights.is_file():
        return "no Fréchet music distance: its encoder is missing (`fmd score FOLDER FOLDER` downloads it)"
    metric = importlib.import_module(FRECHET).FrechetMusicDistance(verbose=False)
    with tempfile.TemporaryDirectory() as folder:  # the package caches features by the folder's name: a new one
        for kind, tunes in (("reference", reference), ("generated", generated)):
            (Path(folder) / kind).mkdir()
            for i, tune in enumerate(tunes):
                (Path(folder) / kind / f"{i}.abc").write_text(tune, encoding="utf-8")
        return float(metric.score(Path(folder) / "reference", Path(folder) / "generated"))
