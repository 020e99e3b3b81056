"""What others say of a tune: abc2midi and abcm2ps where they are installed, beside our own verdict.

Neither is the truth. abc2midi sums over repeats and knows no pickup; abcm2ps says nothing of the length of bars. Where
they and we disagree, one of us is to be looked at.
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

from generation.rendering import PROGRAM, RenderingError, abc2midi, confined, ending, safe
from preprocessing.notation import Verdict, judge

BAR_WARNING = "time units while the time signature"
ERROR = re.compile(r"\b[Ee]rror\b.*")

# Tier of our verdict: the judges that are asked the same.
QUESTIONS = {"parses": ("abc2midi", "abcm2ps"), "bars_add_up": ("abc2midi",)}


def missing() -> list[str]:
    """Return a line for each judge that is not installed."""
    lines = []
    if _abc2midi() is None:
        lines.append("abc2midi was not asked: it is missing (pip install symusic, or apt install abcmidi)")
    if shutil.which("abcm2ps") is None:
        lines.append("abcm2ps was not asked: it is missing (apt install abcm2ps)")
    return lines


def opinion(abc: str) -> dict[str, Any]:
    """Return what the judges say of a tune, None for one that is not installed.

    abc2midi: number of errors, number of bars that it finds too long or too short, and its first error, else the first
    such bar. abcm2ps: whether it draws the tune without an error (exit code 0), and its first error. R: is left out:
    abc2midi takes a hornpipe in C| for an error. Raises RenderingError (a ValueError) if the tune is too long to be
    rendered.
    """
    given = {"tune.abc": re.sub(r"^R:.*\n", "", safe(abc), flags=re.MULTILINE).encode()}
    found: dict[str, Any] = {"abc2midi": None, "abcm2ps": None}
    player = _abc2midi()
    if player:
        code, said, _ = confined(PROGRAM, [player, "tune.abc", "-c", "-NFER"], given, "")
        errors = [line for line in said.splitlines() if ERROR.search(line)]
        if code:  # it exits 0, unless it dies
            errors.append(f"abc2midi {ending(code)}")
        bars = [line for line in said.splitlines() if BAR_WARNING in line]
        first = (errors + bars)[0] if errors or bars else ""
        found["abc2midi"] = {"errors": len(errors), "bar_warnings": len(bars), "first": first}
    drawer = shutil.which("abcm2ps")
    if drawer:
        code, said, _ = confined(PROGRAM, [drawer, "-S", "-q", "-g", "-O", "score", "tune.abc"], given, "")
        error = ERROR.search(said)
        first = error[0] if error else f"abcm2ps {ending(code)}" if code else ""
        found["abcm2ps"] = {"ok": code == 0, "first": first}
    return found


def _abc2midi() -> str | None:
    try:
        return abc2midi()
    except RenderingError:
        return None


def opinions(tunes: Sequence[str], workers: int = 2) -> list[dict[str, Any]]:
    """Return the opinion on each tune; `workers` are asked at a time."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(opinion, tunes))


def agreement(tunes: Sequence[str], opinions: Sequence[dict[str, Any]], listed: int = 20) -> list[dict[str, Any]]:
    """Return one row for each question and judge that was asked: our verdict against its opinion.

    A row counts the tunes that pass with `both`, with us alone (`ours`), with the judge alone (`theirs`) and with
    `neither`, and lists the first `listed` disagreements: index of the tune, what we say, what the judge says.
    """
    verdicts = [judge(tune) for tune in tunes]
    rows = []
    for tier, judges in QUESTIONS.items():
        for name in judges:
            if not opinions or opinions[0][name] is None:
                continue
            counts = {"both": 0, "ours": 0, "theirs": 0, "neither": 0}
            disagreements: list[dict[str, Any]] = []
            for index, (verdict, said) in enumerate(zip(verdicts, opinions, strict=True)):
                ours, theirs = getattr(verdict, tier), _passes(said[name], tier)
                counts[("neither", "theirs", "ours", "both")[2 * ours + theirs]] += 1
                if ours != theirs and len(disagreements) < listed:
                    disagreements.append({"index": index, "we": _reason(verdict, tier), "judge": said[name]["first"]})
            rows.append({"tier": tier, "judge": name, **counts, "disagreements": disagreements})
    return rows


def _passes(said: dict[str, Any], tier: str) -> bool:
    if "ok" in said:
        return bool(said["ok"])
    return not said["errors"] and (tier == "parses" or not said["bar_warnings"])


def _reason(verdict: Verdict, tier: str) -> str:
    if verdict.errors:
        return verdict.errors[0]
    if verdict.bad_bars and tier == "bars_add_up":
        bad = verdict.bad_bars[0]
        return f"bar {bad.number} is {bad.found} of a whole note, not {bad.expected}"
    return ""


def frechet_music_distance(reference: Sequence[str], generated: Sequence[str]) -> float | str:
    """Return the Fréchet music distance of two sets of tunes (Retkowski et al. 2024, arXiv 2412.07948; CLaMP 2).

    A reason instead where its package or its encoder is not on this machine: nothing is downloaded unasked.
    """
    name = "frechet_music_distance"  # not an import statement: the file has to load where there is no such package
    if importlib.util.find_spec(name) is None:
        return "no Fréchet music distance: its package is missing (pip install frechet-music-distance)"
    weights = importlib.import_module(f"{name}.models.clamp2.config").CLAMP2_WEIGHTS_PATH
    if not weights.is_file():
        return "no Fréchet music distance: its encoder is missing (`fmd score FOLDER FOLDER` downloads it)"
    metric = importlib.import_module(name).FrechetMusicDistance(verbose=False)
    with tempfile.TemporaryDirectory() as folder:  # the package keeps features by the folder's name: a new one
        for kind, tunes in (("reference", reference), ("generated", generated)):
            (Path(folder) / kind).mkdir()
            for i, tune in enumerate(tunes):
                (Path(folder) / kind / f"{i}.abc").write_text(tune, encoding="utf-8")
        return float(metric.score(Path(folder) / "reference", Path(folder) / "generated"))
