"""Scores of music21 become ABC: bars, repeats, endings, ties, tuplets, grace notes, chord symbols, overlays."""

from fractions import Fraction
from typing import Any

from preprocessing.abc_writing import (
    MODES,
    Accidentals,
    ConversionError,
    bar_lines,
    chord_text,
    key_name,
    key_signature,
    length_text,
)

WEAK_LINES = ("none", "dashed", "dotted", "short", "tick")  # may divide a bar; may also end one
QUALITIES = {  # ABC's chord qualities by music21's chord kind; other kinds are left out
    "major": "", "minor": "m", "augmented": "aug", "diminished": "dim", "power": "5",
    "dominant-seventh": "7", "major-seventh": "maj7", "minor-seventh": "m7", "minor-major-seventh": "m(maj7)",
    "augmented-seventh": "aug7", "half-diminished-seventh": "m7b5", "diminished-seventh": "dim7",
    "major-sixth": "6", "minor-sixth": "m6", "dominant-ninth": "9", "major-ninth": "maj9", "minor-ninth": "m9",
    "dominant-11th": "11", "major-11th": "maj11", "minor-11th": "m11",
    "dominant-13th": "13", "major-13th": "maj13", "minor-13th": "m13",
    "suspended-second": "sus2", "suspended-fourth": "sus4", "suspended-fourth-seventh": "7sus4",
}  # fmt: skip


class ScoreWriter:
    """Writes one score: a voice for each part, its bars, repeats, endings, ties, tuplets, grace notes, chord symbols.

    Follows the ABC standard 2.1, with L:1/8. Percussion parts are left out.
    """

    def __init__(self, score: Any, number: int, title: str) -> None:
        score = self.score = score.toSoundingPitch()  # kept: measures find their endings by weak references through it
        pitched = [part for part in score.parts or [score] if not _is_percussion(part)]
        self.percussion = len(score.parts or [score]) - len(pitched)
        notated = [part.pitches for part in pitched if not _is_tablature(part)]
        parts = [part for part in pitched if not _is_tablature(part) or part.pitches not in notated]
        voices = [[*part.getElementsByClass("Measure")] or [*part.makeMeasures()] for part in parts]
        self.voices = [measures for measures in voices if any(measure.recurse().notes for measure in measures)]
        self.number = number
        metadata = score.metadata
        names = [metadata.title, metadata.movementName] if metadata else []
        self.title = next((name for name in names if name and not name.startswith("score.")), title)  # not the file's
        self.composer = (metadata and metadata.composer) or ""
        self.key, self.metre = "C", "none"
        self.beat = Fraction(1)  # in quarters; beats are separated by blanks
        self.bar_length: Fraction | None = None  # in quarters; None for a free metre
        self.accidentals = Accidentals()

    def tune(self) -> str:
        """Return the tune. Raises ConversionError if no part has notes."""
        if not self.voices:
            raise ConversionError("no notes")
        self.fields(self.voices[0][0])
        header = {"X": self.number, "T": self.title, "C": self.composer, "M": self.metre, "L": "1/8", "K": self.key}
        lines = [f"{letter}:{' '.join(str(value).split())}" for letter, value in header.items() if value]
        key, metre = self.key, self.metre
        for number, measures in enumerate(self.voices, 1):
            # Programs differ in whether a change in one voice holds in the next, so state key and metre again.
            self.key, self.metre = key if self.key == key else "", metre if self.metre == metre else ""
            lines += [f"V:{number}"] if len(self.voices) > 1 else []
            lines += self.voice(measures)
        return "\n".join(lines) + "\n"

    def voice(self, measures: list[Any]) -> list[str]:
        bars: list[str] = []
        together: list[Any] = []  # measures that are one bar
        for measure in measures:
            if together and not self.continues(together, measure):
                bars.append(self.bar(together))
                together = []
            together.append(measure)
        return bar_lines([*bars, self.bar(together)])

    def continues(self, before: list[Any], measure: Any) -> bool:
        """Whether a measure continues a bar that the score has divided, for example at the end of a line."""
        lines = (before[-1].rightBarline, measure.leftBarline)
        weak = [line is not None and line.type in WEAK_LINES for line in lines]
        if any(line is not None and not inner for line, inner in zip(lines, weak, strict=True)):
            return False
        length = _exact(sum(part.highestTime for part in [*before, measure]))
        fits = self.bar_length is not None and length <= self.bar_length and measure.timeSignature is None
        return fits and (any(weak) or measure.paddingLeft > 0)

    def fields(self, measure: Any) -> str:
        """Adopt a measure's metre and key, and return them as inline fields if they change."""
        changes = ""
        metre, free = measure.timeSignature, bool(measure.getElementsByClass("SenzaMisuraTimeSignature"))
        if metre is not None or free:
            name = "none" if free else metre.ratioString
            self.bar_length = None if free else Fraction(4 * metre.numerator, metre.denominator)
            if self.bar_length is not None:
                compound = metre.denominator >= 8 and metre.numerator % 3 == 0
                simple = self.bar_length if metre.denominator >= 8 else Fraction(4, metre.denominator)
                self.beat = Fraction(12, metre.denominator) if compound else simple
            if name != self.metre:
                self.metre = name
                changes += f"[M:{name}]"
        signature = measure.keySignature
        if signature is not None:
            name = self.key_of(signature)
            if name != self.key:
                self.key = name
                changes += f"[K:{name}]"
        return changes

    def key_of(self, signature: Any) -> str:
        """Return a key's name and adopt its signature; a signature without a name becomes accidentals (K:none)."""
        if signature.isNonTraditional or abs(signature.sharps) > 7:
            self.accidentals.signature = {}
            return "none"
        self.accidentals.signature = key_signature(signature.sharps)
        mode = getattr(signature, "mode", None)
        return key_name(signature.sharps, mode if mode in MODES else "major")

    def bar(self, measures: list[Any]) -> str:
        """Return measures that form one bar, with its bar lines; the voices within a part are overlays (`&`)."""
        first, last = measures[0], measures[-1]
        changes = self.fields(first)
        self.accidentals.start_bar()
        count = max(1, *(len(measure.voices) for measure in measures))
        overlays = []
        for number in range(count):
            self.accidentals.start_overlay()
            overlays.append(" ".join(self.overlay(measure, number) for measure in measures).rstrip())
        endings = [bracket for bracket in first.getSpannerSites("RepeatBracket") if bracket.isFirst(first)]
        left, right = getattr(first.leftBarline, "direction", None), getattr(last.rightBarline, "direction", None)
        opening = ("|:" if left == "start" else "") + "".join(
            "[" + bracket.number.replace(" ", "") for bracket in endings
        )
        double = getattr(last.rightBarline, "type", None) in ("double", "final")
        closing = ":|" if right == "end" else "||" if double else "|"
        return f"{opening}{' ' if endings else ''}{changes}{'&'.join(overlays)}{closing}"

    def overlay(self, measure: Any, number: int) -> str:
        """Return one of the voices of a measure; the first takes the chord symbols."""
        voices = [*measure.voices] or [measure]
        elements = [*voices[number].notesAndRests] if number < len(voices) else []
        if number == 0 and measure.voices:
            elements = sorted([*measure.getElementsByClass("Harmony"), *elements], key=lambda element: element.offset)
        text, length = self.notes(elements)
        missing = _exact(measure.highestTime) - length
        return text + ("x" + length_text(2 * missing) if missing > 0 else "")

    def notes(self, elements: list[Any]) -> tuple[str, Fraction]:
        """Return the music of one voice of a measure and its length. Raises ConversionError if notes overlap."""
        text, before = "", ""
        position, tuplet_left = Fraction(0), 0
        for index, element in enumerate(elements):
            if "Harmony" in element.classes:
                before += chord_symbol(element)
                continue
            if element.duration.isGrace:
                before += "{" + self.sound(element) + "}"
                continue
            offset = _exact(element.offset)
            if offset < position:
                raise ConversionError("notes overlap in one voice")
            if offset > position:
                text += "x" + length_text(2 * (offset - position))
                position = offset
            if text and not tuplet_left and position % self.beat == 0:
                text += " "
            length = _exact(element.duration.quarterLength)
            tuplet = _tuplet(element)
            if tuplet is not None:
                if not tuplet_left:
                    tuplet_left = _notes_of_tuplet(elements[index:])
                    before = _tuplet_mark(tuplet, tuplet_left) + before
                tuplet_left -= 1
                written = length * Fraction(tuplet.numberNotesActual, tuplet.numberNotesNormal)
            else:
                written = length
            text += before + self.sound(element, length_text(2 * written))
            before = ""
            position += length
        return text + before, position

    def sound(self, element: Any, length: str = "") -> str:
        """Return a note, chord or rest; `length` is ABC."""
        if element.isRest:
            return "z" + length
        notes = [self.pitch(note.pitch) + "-" * _is_tied(note) for note in getattr(element, "notes", [element])]
        return chord_text(notes, length)

    def pitch(self, pitch: Any) -> str:
        if int(pitch.alter) != pitch.alter:
            raise ConversionError("quarter tones")
        return self.accidentals.pitch(pitch.step, int(pitch.alter), pitch.implicitOctave)


def _is_percussion(part: Any) -> bool:
    """Whether a part has unpitched notes or a percussion clef."""
    clefs = part.recurse().getElementsByClass("Clef")
    unpitched = any(
        "Unpitched" in element.classes or "PercussionChord" in element.classes for element in part.recurse().notes
    )
    return unpitched or (bool(clefs) and "PercussionClef" in clefs[0].classes)


def _is_tablature(part: Any) -> bool:
    return any("TabClef" in clef.classes for clef in part.recurse().getElementsByClass("Clef"))


def _exact(length: float | Fraction) -> Fraction:
    """Return one of music21's lengths as a fraction."""
    return Fraction(length).limit_denominator(10_000)


def _tuplet(element: Any) -> Any:
    """Return the element's tuplet if ABC can write it, else None: its length is written as a fraction."""
    tuplets = element.duration.tuplets
    return tuplets[0] if len(tuplets) == 1 and 2 <= tuplets[0].numberNotesActual <= 9 else None


def _notes_of_tuplet(elements: list[Any]) -> int:
    """Return how many notes belong to the tuplet that begins with the first of `elements`."""
    first = _tuplet(elements[0])
    ratio = (first.numberNotesActual, first.numberNotesNormal)
    total, count = Fraction(0), 0
    for element in elements:
        if "Harmony" in element.classes or element.duration.isGrace:
            continue
        tuplet = _tuplet(element)
        if tuplet is None or (tuplet.numberNotesActual, tuplet.numberNotesNormal) != ratio:
            break
        count += 1
        total += _exact(element.duration.quarterLength)
        if total % _exact(first.totalTupletLength()) == 0:
            break
    return count


def _tuplet_mark(tuplet: Any, count: int) -> str:
    notes, time = tuplet.numberNotesActual, tuplet.numberNotesNormal
    return "(3" if (notes, time, count) == (3, 2, 3) else f"({notes}:{time}:{count}"


def _is_tied(note: Any) -> bool:
    return note.tie is not None and note.tie.type in ("start", "continue")


def chord_symbol(symbol: Any) -> str:
    """Return a chord symbol as ABC, "" if ABC cannot write it."""
    quality = QUALITIES.get(getattr(symbol, "chordKind", ""))
    if "NoChord" in symbol.classes or quality is None:
        return ""
    root, bass = symbol.root().name, symbol.bass().name
    if len(root) > 2 or len(bass) > 2:  # double sharps and flats
        return ""
    for change in symbol.getChordStepModifications():
        if change.modType == "subtract":
            return ""
        semitones = int(change.interval.semitones) if change.interval is not None else 0
        sign = ("#" if semitones > 0 else "b") * abs(semitones)
        quality += ("add" if change.modType == "add" and not sign else "") + sign + str(change.degree)
    figure = root + quality + (f"/{bass}" if bass != root else "")
    return f'"{figure.replace("-", "b")}"'
