"""MusicXML and kern become ABC: read by music21, written here.

MusicXML is what notation programs exchange (https://www.w3.org/2021/06/musicxml40/), kern the format of musicologists.
"""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from preprocessing.abc_writing import MODES, Accidentals, ConversionError, bar_lines, chord_text, key_name, length_text


def score_to_abc(path: Path, title: str) -> str:
    """Return a MusicXML or kern file as ABC, at sounding pitch. Raises ConversionError, or whatever music21 raises."""
    from music21 import converter, stream

    parsed = converter.parse(path, forceSource=True)  # a cached pickle is never read
    scores = list(parsed.scores) if isinstance(parsed, stream.Opus) else [parsed]
    return "\n".join(_Writer(score, number, title).tune() for number, score in enumerate(scores, 1))


class _Writer:
    """Writes one score: a voice for each part, its bars, repeats, endings, ties, tuplets, grace notes, chord symbols.

    Follows the ABC standard 2.1; lengths are in eighth notes. Parts for drums are left out.
    """

    def __init__(self, score: Any, number: int, title: str) -> None:
        from music21 import note

        score = score.toSoundingPitch()
        parts = [part for part in score.parts or [score] if not part.recurse().getElementsByClass(note.Unpitched)]
        voices = [[*part.getElementsByClass("Measure")] or [*part.makeMeasures()] for part in parts]
        self.voices = [measures for measures in voices if any(measure.recurse().notes for measure in measures)]
        self.number = number
        metadata = score.metadata
        names = [metadata.title, metadata.movementName] if metadata else []
        self.title = next((name for name in names if name and not name.startswith("score.")), title)  # not the file's
        self.composer = (metadata and metadata.composer) or ""
        self.key, self.metre = "C", "none"
        self.beat = Fraction(1)
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
            # Programs differ in whether a change in one voice holds in the next: where there was one, say it again.
            self.key, self.metre = key if self.key == key else "", metre if self.metre == metre else ""
            lines += [f"V:{number}"] if len(self.voices) > 1 else []
            lines += self.voice(measures)
        return "\n".join(lines) + "\n"

    def voice(self, measures: list[Any]) -> list[str]:
        bars = [self.bar(measures[0])]
        for before, measure in pairwise(measures):
            if _continues(before, measure):
                bars[-1] = f"{bars[-1].removesuffix('|')} {self.bar(measure, new=False)}"
            else:
                bars.append(self.bar(measure))
        return bar_lines(bars)

    def fields(self, measure: Any) -> str:
        """Take over a measure's metre and key, and return them as inline fields where they change."""
        changes = ""
        if measure.timeSignature is not None:
            self.beat = Fraction(measure.timeSignature.beatDuration.quarterLength)
            if measure.timeSignature.ratioString != self.metre:
                self.metre = measure.timeSignature.ratioString
                changes += f"[M:{self.metre}]"
        signature = measure.keySignature
        if signature is not None:
            self.accidentals.signature = {pitch.step: int(pitch.alter) for pitch in signature.alteredPitches}
            key = signature if getattr(signature, "mode", None) in MODES else signature.asKey("major")
            name = key_name(key.sharps, key.mode)
            if name != self.key:
                self.key = name
                changes += f"[K:{name}]"
        return changes

    def bar(self, measure: Any, new: bool = True) -> str:
        """Return a measure with its bar lines; the voices inside one part are overlays (`&`)."""
        changes = self.fields(measure)
        if new:
            self.accidentals.start_bar()
        overlays = []
        for voice in [*measure.voices] or [measure]:
            if new:
                self.accidentals.start_overlay()
            overlays.append(self.notes([*voice.notesAndRests]))
        endings = [bracket for bracket in measure.getSpannerSites("RepeatBracket") if bracket.isFirst(measure)]
        left, right = (getattr(line, "direction", None) for line in (measure.leftBarline, measure.rightBarline))
        opening = ("|:" if left == "start" else "") + "".join(f"[{bracket.number}" for bracket in endings)
        double = getattr(measure.rightBarline, "type", None) in ("double", "final")
        closing = ":|" if right == "end" else "||" if double else "|"
        return f"{opening}{' ' if endings else ''}{changes}{'&'.join(overlays)}{closing}"

    def notes(self, elements: list[Any]) -> str:
        """Return what sounds in one voice of one bar. Raises ConversionError for notes that overlap."""
        text, before = "", ""
        place, tuplet_left = Fraction(0), 0
        for index, element in enumerate(elements):
            if "Harmony" in element.classes:
                before += "" if "NoChord" in element.classes else _chord_symbol(element)
                continue
            if element.duration.isGrace:
                before += "{" + self.sound(element) + "}"
                continue
            offset = _exact(element.offset)
            if offset < place:
                raise ConversionError("notes overlap in one voice")
            if offset > place:
                text += "x" + length_text(2 * (offset - place))
                place = offset
            if text and not tuplet_left and place % self.beat == 0:
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
            place += length
        return text

    def sound(self, element: Any, length: str = "") -> str:
        """Return a note, chord or rest of a length that is written already."""
        if element.isRest:
            return "z" + length
        notes = [self.pitch(note.pitch) + "-" * _is_tied(note) for note in getattr(element, "notes", [element])]
        return chord_text(notes, length)

    def pitch(self, pitch: Any) -> str:
        if int(pitch.alter) != pitch.alter:
            raise ConversionError("quarter tones")
        return self.accidentals.pitch(pitch.step, int(pitch.alter), pitch.implicitOctave)


def _continues(before: Any, measure: Any) -> bool:
    """Tell whether two measures are one bar that the score has cut in two, at the end of a line for example."""
    plain = before.rightBarline is None and measure.leftBarline is None
    return plain and measure.paddingLeft > 0 and not before.voices and not measure.voices


def _exact(length: float | Fraction) -> Fraction:
    """Return a length of music21 (thirds and the like are fractions already) as a fraction."""
    return Fraction(length).limit_denominator(10_000)


def _tuplet(element: Any) -> Any:
    """Return the element's tuplet if ABC has a sign for it; other lengths are written as fractions."""
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


def _chord_symbol(symbol: Any) -> str:
    figure = symbol.figure.replace("-", "b").replace('"', "")
    return f'"{figure}"'
