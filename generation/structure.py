"""The structure of a tune: repeats, sections and their form, bars that come again, the key, and how it ends.

A measure is None where it does not apply, so that a share is one of the tunes that the measure is about.
Of several voices the first is measured.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import sqrt
from string import ascii_uppercase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from generation.quality import Z95, Share
from preprocessing.notation import Bar, Part, sounding_tonic, transcribe

ENDING = re.compile(r"\[?([1-9])[0-9,.-]*$")
PHRASE = 4  # bars: the sections of dances and songs are multiples of it

# How well each pitch class fits a key, from the tonic up: Krumhansl & Kessler 1982, major and minor.
PROFILES = np.array(
    [
        [6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88],
        [6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17],
    ]
)
STANDARD = (PROFILES - PROFILES.mean(axis=1, keepdims=True)) / PROFILES.std(axis=1, keepdims=True)
KEYS = np.stack([np.roll(STANDARD, tonic, axis=1) for tonic in range(12)])  # [tonic, mode, pitch class]

SHARES = ("repeats_close", "square", "tonic_ending", "key_kept")


@dataclass(frozen=True)
class Boundary:
    """What the bar lines between two bars say. `ending` is the number of the ending that begins, 0 if none does."""

    closes: bool
    opens: bool
    edge: bool  # a repeat or a double bar
    ending: int


@dataclass(frozen=True)
class Section:
    """The bars from one repeat or double bar to the next, how often they sound, and their length in whole bars.

    Of several endings the first counts. The length adds up parts of bars, so a pickup and the short bar that makes
    room for it are one bar; it is None where the metre is free.
    """

    bars: tuple[Bar, ...]
    times: int

    @property
    def length(self) -> Fraction | None:
        lengths = [bar.length for bar in self.bars if bar.length is not None]
        return sum(lengths, Fraction()) if len(lengths) == len(self.bars) else None


def boundary(lines: Sequence[str]) -> Boundary:
    """Return what bar lines say: `:|` closes a repeat, `|:` opens one, `::` both, `||` is an edge, `|1` an ending."""
    endings = [ENDING.search(line) for line in lines]
    signs = [line[: number.start()] if number else line for line, number in zip(lines, endings, strict=True)]
    return Boundary(
        closes=any(sign.startswith(":") for sign in signs),
        opens=any(sign.endswith(":") and sign != ":" for sign in signs),
        edge=any(sign not in ("", "|") for sign in signs),
        ending=max((int(number[1]) for number in endings if number), default=0),
    )


def repeats_close(part: Part) -> bool | None:
    """Return whether each `|:` is closed before the next and each `:|` has music to repeat; None without repeats.

    A `:|` may stand without its `|:`: it goes back to the repeat or the double bar before it, or to the tune's
    beginning (ABC 2.1, section 4.8).
    """
    bounds = [boundary(part.opening), *(boundary(bar.lines) for bar in part.bars)]
    if not any(bound.closes or bound.opens for bound in bounds):
        return None
    waiting = False  # a repeat is open
    for place, bound in enumerate(bounds):
        if (bound.closes and place == 0) or (bound.opens and waiting and not bound.closes):
            return False
        waiting = bound.opens or (waiting and not bound.closes)
    return not waiting


def sections(part: Part) -> list[Section]:
    """Return the sections of a voice in order. One is cut at a repeat or double bar, not at an ending."""
    found: list[Section] = []
    bars: list[Bar] = []
    times, ending = 1, 0
    for bar in part.bars:
        if ending < 2:
            bars.append(bar)
        bound = boundary(bar.lines)
        times = max(times, 2 * bound.closes, bound.ending)
        ending = bound.ending or ending
        if bound.edge and not bound.ending:
            found.append(Section(tuple(bars), times))
            bars, times, ending = [], 1, 0
    return [*found, Section(tuple(bars), times)] if bars else found


def form(found: Sequence[Section]) -> str | None:
    """Return the sections as they sound, a letter each, the same one for the same bars: AABB; None if it is just A."""
    letters: dict[Any, str] = {}
    heard = ""
    for section in found:
        content = tuple(bar.content for bar in section.bars)
        heard += letters.setdefault(content, ascii_uppercase[min(len(letters), 25)]) * section.times
    return heard if len(heard) > 1 else None


def square(found: Sequence[Section]) -> bool | None:
    """Return whether all sections are multiples of four bars long; None without sections or in free metre."""
    lengths = [section.length for section in found if section.length is not None]
    if form(found) is None or len(lengths) < len(found):
        return None
    return all(length % PHRASE == 0 for length in lengths)


def repeated_bars(part: Part) -> float | None:
    """Return the share of bars that are equal to an earlier one, of those with two notes or more; None without any."""
    contents = [bar.content for bar in part.bars if sum(len(sound.struck) for sound in bar.sounds) > 1]
    return 1 - len(set(contents)) / len(contents) if contents else None


def tonic_ending(part: Part) -> bool | None:
    """Return whether the lowest pitch of the last note or chord is the tonic of the key there; None without a tonic."""
    for bar in reversed(part.bars):
        for sound in reversed(bar.sounds):
            if sound.pitches:
                tonic = sounding_tonic(bar.key)
                return None if tonic is None else min(sound.pitches) % 12 == tonic
    return None


def key_kept(part: Part) -> bool | None:
    """Return whether the notes stand in the key that K: states; None without a tonic or notes.

    They do if, of all 24 keys, one on the stated tonic, major or minor, has the profile that correlates best with the
    durations of the pitch classes (Krumhansl & Schmuckler's key finding: Krumhansl 1990, chapter 4). The mode is left
    open, as songbooks write minor tunes under the signature of major. That the notes fit the signature would prove
    nothing: in ABC any letter does.
    """
    durations = np.zeros(12)  # of each pitch class above the tonic
    for bar in part.bars:
        tonic = sounding_tonic(bar.key)
        if tonic is not None:
            for sound in bar.sounds:
                for pitch in sound.pitches:
                    durations[(pitch - tonic) % 12] += float(sound.duration)
    if not durations.any():
        return None
    fits = (KEYS @ (durations - durations.mean())).max(axis=1)  # [tonic]
    return bool(fits[0] > fits[1:].max())


def structure(text: str) -> dict[str, Any]:
    """Return the measures of one tune under the names of its functions, and `sections`: their lengths in bars."""
    parts = transcribe(text).parts
    part = parts[0] if parts else Part()
    found = sections(part)
    return {
        "repeats_close": repeats_close(part),
        "sections": [None if section.length is None else float(section.length) for section in found],
        "form": form(found),
        "square": square(found),
        "repeated_bars": repeated_bars(part),
        "tonic_ending": tonic_ending(part),
        "key_kept": key_kept(part),
    }


def mean_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the normal 95 % interval of a mean of shares; all of 0 to 1 if fewer than two are given."""
    if len(values) < 2:
        return 0.0, 1.0
    half = Z95 * float(values.std(ddof=1)) / sqrt(len(values))
    return max(0.0, float(values.mean()) - half), min(1.0, float(values.mean()) + half)


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return each measure over the tunes to which it applies: shares, the mean of `repeated_bars`, and the forms.

    Shares have Wilson intervals, the mean a normal one; `has_form` is the share of tunes with a form.
    """
    table: dict[str, dict[str, Any]] = {}
    for name in SHARES:
        values = [row[name] for row in rows if row[name] is not None]
        table[name] = Share(sum(values), len(values)).as_dict()
    forms = Counter(row["form"] for row in rows if row["form"] is not None)
    table["has_form"] = Share(forms.total(), len(rows)).as_dict()
    table["forms"] = dict(forms.most_common())
    again = np.array([row["repeated_bars"] for row in rows if row["repeated_bars"] is not None])
    mean = float(again.mean()) if len(again) else None
    table["repeated_bars"] = {"mean": mean, "interval": mean_interval(again), "total": len(again)}
    return table
