"""Structure of a tune: repeats, sections and their form, repeated bars, key and ending.

A measure is None where it does not apply; shares are of the tunes to which a measure applies. Of several voices the
first is measured.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from string import ascii_uppercase
from typing import Any

import numpy as np

from analysis.intervals import mean_intervals
from generation.shares import share
from preprocessing.notation import Bar, Part, sounding_tonic, transcribe

ENDING = re.compile(r"\[?([1-9])[0-9,.-]*$")
PHRASE = 4  # bars: sections of dances and songs are multiples of it

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
    """The bar lines between two bars. `ending` is the number of the ending that begins, 0 if none does."""

    closes: bool  # :| or ::
    opens: bool  # |: or ::
    edge: bool  # a repeat or a double bar
    ending: int


@dataclass(frozen=True)
class Section:
    """The bars from one repeat or double bar to the next, how often they are played, and their length in whole bars.

    Of several endings the first counts. The length adds up parts of bars, so a pickup and the short bar that makes up
    for it are one bar; it is None in free metre.
    """

    bars: tuple[Bar, ...]
    times: int

    @property
    def length(self) -> Fraction | None:
        lengths = [bar.length for bar in self.bars if bar.length is not None]
        return sum(lengths, Fraction()) if len(lengths) == len(self.bars) else None


def boundary(lines: Sequence[str]) -> Boundary:
    """Read the bar lines between two bars: `:|` closes a repeat, `|:` opens one, `||` is an edge, `|1` an ending."""
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

    A `:|` without `|:` repeats from the repeat or double bar before it, or from the beginning (ABC 2.1, section 4.8).
    """
    bounds = [boundary(part.opening), *(boundary(bar.lines) for bar in part.bars)]
    if not any(bound.closes or bound.opens for bound in bounds):
        return None
    is_open = False
    for number, bound in enumerate(bounds):
        if (bound.closes and number == 0) or (bound.opens and is_open and not bound.closes):
            return False
        is_open = bound.opens or (is_open and not bound.closes)
    return not is_open


def sections(part: Part) -> list[Section]:
    """Return the sections of a voice in order: cut at repeats and double bars, not at endings."""
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
    """Return the sections as played, equal ones with the same letter, such as AABB; None for a single A."""
    letters: dict[Any, str] = {}
    played = ""
    for section in found:
        content = tuple(bar.content for bar in section.bars)
        played += letters.setdefault(content, ascii_uppercase[min(len(letters), 25)]) * section.times
    return played if len(played) > 1 else None


def square(found: Sequence[Section]) -> bool | None:
    """Return whether all sections are multiples of PHRASE bars; None without sections or in free metre."""
    lengths = [section.length for section in found if section.length is not None]
    if form(found) is None or len(lengths) < len(found):
        return None
    return all(length % PHRASE == 0 for length in lengths)


def repeated_bars(part: Part) -> float | None:
    """Return the share of bars equal to an earlier one, of the bars with two notes or more; None without any."""
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
    """Return whether the notes are in the key of the K: field; None without a tonic or notes.

    They are if, of all 24 keys, one on the stated tonic, major or minor, has the profile that correlates best with the
    durations of the pitch classes (Krumhansl & Schmuckler's key finding: Krumhansl 1990, chapter 4). The mode is left
    open, as songbooks write minor tunes under the signature of major. Fitting the signature would prove nothing: in
    ABC any letter does.
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
    """Return the measures of one tune under the names of their functions, and the lengths of its `sections` in bars."""
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


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return each measure over the tunes to which it applies: shares, the mean of `repeated_bars`, and the forms.

    `has_form` is the share of tunes with a form.
    """
    table: dict[str, dict[str, Any]] = {}
    for name in SHARES:
        values = [row[name] for row in rows if row[name] is not None]
        table[name] = share(sum(values), len(values))
    forms = Counter(row["form"] for row in rows if row["form"] is not None)
    table["has_form"] = share(forms.total(), len(rows))
    table["forms"] = dict(forms.most_common())
    repeated = np.array([row["repeated_bars"] for row in rows if row["repeated_bars"] is not None])
    mean, (low, high) = mean_intervals([repeated])[0] if len(repeated) else (None, (None, None))
    interval = (0.0, 1.0) if low is None or high is None else (max(0.0, low), min(1.0, high))
    table["repeated_bars"] = {"mean": mean, "interval": interval, "total": len(repeated)}
    return table
