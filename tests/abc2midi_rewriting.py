"""A tune rewritten so that abc2midi and our reader must agree on its bars, and what abc2midi reports of many tunes.

The rules are in abc2midi_disagreements.csv; each takes one reason to disagree out of a tune, on top of those above it.
"""

import re
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import NamedTuple

from preprocessing.abc_fields import bar_length, canonical_key, describes_staff
from preprocessing.abc_lexer import WORDS, parse_word
from preprocessing.abc_reader import Reader
from preprocessing.abc_voice import Verdict, Voice

Event = tuple[int, int, int, int, int] | tuple[int, int, int, bytes]  # track, time, kind; pitch and velocity, or data

RULES = ("as it is", "line ends", "words without time", "repeats", "halves", "unequal broken rhythm")
BAR = r"line-char (\d+)-\d+ :.* Bar (-?\d+) has (\S+) time units while the time signature has (\d+)"
UNEQUAL = "Cannot apply broken rhythm"  # abc2midi's error where the two notes differ, which the standard leaves open


@dataclass(eq=False)
class _Voice(Voice):
    """A voice that writes its bar lines where the rules have them."""

    rewriter: "Rewriter" = None

    def end_line(self) -> None:
        if self.rewriter.level < 3 and self.total and self.total == self.expected:
            self.rewriter.out.append("|")
        super().end_line()
        self.rewriter.out.append("\n")

    def end_bar(self, edge: bool) -> None:
        rewriter = self.rewriter
        if rewriter.level >= 3 and (self.total or self.parts):
            missing = (self.expected or 0) - self.total
            is_half = missing > 0 and (edge or self.at_edge) and self.bar_number not in rewriter.flagged
            if rewriter.level >= 4 and is_half:
                rest = Fraction(missing) / self.unit
                rewriter.out.append(f" z{rest.numerator}/{rest.denominator}")
            rewriter.out.append(" || " if edge and rewriter.level == 3 else " | ")
        super().end_bar(edge)


class Rewriter(Reader):
    def __init__(self, level: int, flagged: set[int], keep_ties: bool) -> None:
        super().__init__(partial(_Voice, rewriter=self))
        self.level, self.flagged = level, flagged
        self.dropped = {"ignored", "unknown"} if keep_ties else {"ignored", "unknown", "tie"}
        self.out: list[str] = []
        self.in_line = self.in_plus_chord = False

    def field(self, letter: str, value: str) -> None:
        if self.level >= 2 and not self.in_line:
            if letter == "K" and canonical_key(value) is None and not describes_staff(value):
                value = "C"
            if letter == "M" and bar_length(value) is None:
                value = "none"
        first = "Z|" if self.level >= 4 and letter == "K" and not self.in_body else ""  # it never judges the first bar
        if not self.in_line and (self.level < 2 or letter in "XKLMV"):
            self.out.append(f"\n{letter}:{value}\n{first}")
        super().field(letter, value)

    def music(self, line: str) -> None:
        if self.in_plus_chord:  # its words are written already
            super().music(line)
            return
        self.in_line = True
        for word in WORDS(line):
            kind, value = parse_word(word)
            if (kind != "bar" or self.level < 3) and (kind not in self.dropped or self.level < 2 or word.isspace()):
                self.out.append(value if kind == "plus_chord" and self.level >= 2 else word)
            self.in_plus_chord = kind == "plus_chord"
            super().music(word)
        self.in_line = self.in_plus_chord = False


def rewritten(text: str, verdict: Verdict, level: int, keep_ties: bool = False) -> str:
    """Return the tune with the first `level` of RULES applied."""
    if level == 0:
        return text
    rewriter = Rewriter(level, {bad.number for bad in verdict.bad_bars}, keep_ties)
    rewriter.read(text)
    return "".join(rewriter.out)


class Complaint(NamedTuple):
    """What abc2midi reports of a bar: its number, and its length as a share of the metre's."""

    number: int
    share: Fraction


def numbered(tunes: Sequence[str]) -> tuple[str, list[int]]:
    """Return one file of the tunes, X: from 1 on, and for each line of it the index of its tune."""
    lines: list[str] = []
    owners: list[int] = []
    for index, text in enumerate(tunes):
        own = [line for line in text.split("\n") if line.strip() and not line.startswith("X:")]
        lines += [f"X:{index + 1}", *own, ""]
        owners += [index] * (len(own) + 2)
    return "\n".join(lines) + "\n", owners


def complaints(tunes: Sequence[str], folder: Path) -> tuple[dict[int, list[Complaint]], set[int]]:
    """Return what abc2midi says of bars, by index of the tune, and which tunes have UNEQUAL broken rhythm."""
    text, owners = numbered(tunes)
    (folder / "tunes.abc").write_text(text)
    command = ["abc2midi", "tunes.abc", "-c", "-NFER"]  # a fermata lengthens nothing
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    bars: dict[int, list[Complaint]] = defaultdict(list)
    for line, number, found, wanted in re.findall(BAR, run.stdout):
        complaint = Complaint(int(number), Fraction(found) / int(wanted))
        bars[owners[min(int(line), len(owners)) - 1]].append(complaint)
    return bars, {owners[int(line) - 1] for line in re.findall(rf"line-char (\d+)-\d+ : {UNEQUAL}", run.stdout)}


def sounding(tunes: Sequence[str], folder: Path) -> list[list[int]]:
    """Return the pitches that abc2midi plays of each tune, sorted, without grace notes and chord symbols."""
    (folder / "played.abc").write_text(numbered(tunes)[0])
    command = ["abc2midi", "played.abc", "-NGRA", "-NGUI", "-silent"]
    subprocess.run(command, cwd=folder, capture_output=True, check=False)
    files = [events((folder / f"played{i + 1}.mid").read_bytes()) for i in range(len(tunes))]
    return [sorted(e[3] for e in found if len(e) == 5 and e[2] >> 4 == 9 and e[4]) for found in files]


def events(data: bytes) -> list[Event]:
    """Return what a MIDI file plays: all but its texts and key signatures."""

    def number() -> int:
        nonlocal place
        value = 0
        while True:
            place += 1
            value = value << 7 | data[place - 1] & 0x7F
            if data[place - 1] < 0x80:
                return value

    found: list[Event] = []
    place = track = 14  # behind the header
    while place < len(data):
        end = place + 8 + int.from_bytes(data[place + 4 : place + 8])
        place, track, time, status = place + 8, track + 1, 0, 0
        while place < end:
            time += number()
            if data[place] >= 0x80:  # otherwise the last status holds on
                status, place = data[place], place + 1
            if status >> 4 in (8, 9):
                found.append((track, time, status, data[place], data[place + 1]))
                place += 2
                continue
            kind = status
            if status == 0xFF:
                kind, place = data[place], place + 1
                size = number()
            else:
                size = 1 if status >> 4 in (0xC, 0xD) else 2
            if not (status == 0xFF and (kind < 0x10 or kind == 0x59)):
                found.append((track, time, kind, data[place : place + size]))
            place += size
    return found
