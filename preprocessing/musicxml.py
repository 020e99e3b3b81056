"""MusicXML and kern become ABC: read by music21, written here.

MusicXML is what notation programs exchange (https://www.w3.org/2021/06/musicxml40/), kern the format of musicologists.
"""

import io
import re
import unicodedata
import zipfile
from fractions import Fraction
from typing import Any
from xml.etree import ElementTree

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

MAX_XML = 100 << 20  # bytes of a score out of its archive
NOTE_VALUES = [str(2**power) for power in range(8)]
NUMBER = re.compile(r"\d{1,3}(?:\.\d{1,3}|/[1-9]\d{0,2})?")
FRACTION_SIGN = re.compile("[\u00bc-\u00be\u2150-\u215e]")  # ¼ ½ ¾ and the like
WEAK_LINES = ("none", "dashed", "dotted", "short", "tick")  # they part a bar; what they part may be bars as well
QUALITIES = {  # of a chord symbol, by music21's name of its kind; others are left out
    "major": "", "minor": "m", "augmented": "aug", "diminished": "dim", "power": "5",
    "dominant-seventh": "7", "major-seventh": "maj7", "minor-seventh": "m7", "minor-major-seventh": "m(maj7)",
    "augmented-seventh": "aug7", "half-diminished-seventh": "m7b5", "diminished-seventh": "dim7",
    "major-sixth": "6", "minor-sixth": "m6", "dominant-ninth": "9", "major-ninth": "maj9", "minor-ninth": "m9",
    "dominant-11th": "11", "major-11th": "maj11", "minor-11th": "m11",
    "dominant-13th": "13", "major-13th": "maj13", "minor-13th": "m13",
    "suspended-second": "sus2", "suspended-fourth": "sus4", "suspended-fourth-seventh": "7sus4",
}  # fmt: skip


def score_to_abc(kind: str, data: bytes, title: str) -> tuple[str, int]:
    """Return a score ("musicxml" or "kern") as ABC at sounding pitch, and how many parts for percussion are left out.

    Raises ConversionError, or whatever music21 raises.
    """
    from music21 import converter, stream
    from music21.musicxml.xmlToM21 import MusicXMLImporter

    if kind == "kern":
        parsed = converter.parseData(_text(data), format="humdrum")
    else:
        importer = MusicXMLImporter()
        importer.xmlRootToScore(_read_xml(data), importer.stream)
        parsed = importer.stream
    scores = list(parsed.scores) if isinstance(parsed, stream.Opus) else [parsed]
    writers = [_Writer(score, number, title) for number, score in enumerate(scores, 1)]
    return "\n".join(writer.tune() for writer in writers), sum(writer.percussion for writer in writers)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _read_xml(data: bytes) -> ElementTree.Element:
    """Return a score as music21 reads it right: by parts, with plain metres, without cue notes. Raises ConversionError.

    The parser (expat) reads no external entity, and refuses entities that grow without bound.
    """
    root = ElementTree.fromstring(_unpacked(data) if data.startswith(b"PK") else data)
    if root.tag == "score-timewise":
        root = _by_parts(root)
    if root.tag != "score-partwise":
        raise ConversionError("XML that is no score")
    for element in root.iter():
        element.text = (element.text or "").strip() or None
    for measure in root.iter("measure"):
        if measure.find(".//measure-repeat[@type='start']") is not None:
            raise ConversionError("bars written as repeat signs")
        if measure.find("barline[@location='middle']/repeat") is not None:
            raise ConversionError("repeats inside a bar")
        voiced = measure.find("note/voice") is not None
        for note in measure.findall("note"):
            if note.find("cue") is not None:
                _silence(measure, note)
            elif voiced and note.find("voice") is None:
                ElementTree.SubElement(note, "voice").text = "1"
    for transpose in root.iter("transpose"):
        if transpose.find("diatonic") is None:  # music21 cannot do without
            steps = round(float(transpose.findtext("chromatic", "0")) * 7 / 12)
            ElementTree.SubElement(transpose, "diatonic").text = str(steps)
    for time in root.iter("time"):
        _write_plain(time)
    return root


def _unpacked(archive_data: bytes) -> bytes:
    """Return the score of a .mxl archive. Raises ConversionError if it has none, or too large a one."""
    with zipfile.ZipFile(io.BytesIO(archive_data)) as archive:
        names = [name for name in archive.namelist() if not name.startswith("META-INF/")]
        if "META-INF/container.xml" in archive.namelist():
            with archive.open("META-INF/container.xml") as file:
                container = ElementTree.fromstring(file.read(1 << 20))
            rootfile = next((element for element in container.iter() if element.tag.endswith("rootfile")), None)
            names = [rootfile.get("full-path", "")] if rootfile is not None else names
        name = next((name for name in names if name.lower().endswith((".xml", ".musicxml"))), None)
        if name is None or name not in archive.namelist():
            raise ConversionError("an archive without a score")
        with archive.open(name) as file:
            data = file.read(MAX_XML + 1)
    if len(data) > MAX_XML:
        raise ConversionError(f"unpacks to more than {MAX_XML >> 20} MB")
    return data


def _by_parts(timewise: ElementTree.Element) -> ElementTree.Element:
    """Return a score of measures that hold parts as one of parts that hold measures."""
    root = ElementTree.Element("score-partwise", timewise.attrib)
    parts: dict[str | None, ElementTree.Element] = {}
    for child in timewise:
        if child.tag != "measure":
            root.append(child)
            continue
        for part in child.findall("part"):
            name = part.get("id")
            if name not in parts:
                parts[name] = ElementTree.SubElement(root, "part", part.attrib)
            ElementTree.SubElement(parts[name], "measure", child.attrib).extend(part)
    return root


def _silence(measure: ElementTree.Element, note: ElementTree.Element) -> None:
    """Put a rest in the place of a cue note: it shows what another part plays, and does not sound."""
    if note.find("chord") is not None or note.find("grace") is not None:
        measure.remove(note)
        return
    for element in [*note]:
        if element.tag not in ("duration", "voice", "type", "dot", "time-modification", "staff"):
            note.remove(element)
    ElementTree.SubElement(note, "rest")


def _write_plain(time: ElementTree.Element) -> None:
    """Write a metre that is a sum (2+2+3/8, 3/4+2/8) or has parts of beats (2½/4) as one fraction of whole numbers."""
    if time.find("senza-misura") is not None:
        return
    beats = [(element.text or "").split("+") for element in time.findall("beats")]
    units = [(element.text or "").strip() for element in time.findall("beat-type")]
    if not (beats and len(beats) == len(units) and all(unit in NOTE_VALUES for unit in units)):
        raise ConversionError("a metre that cannot be read")
    terms = [(_number(text), int(unit)) for texts, unit in zip(beats, units, strict=True) for text in texts]
    length = sum((number / unit for number, unit in terms), Fraction(0))
    unit = max(unit for _, unit in terms)
    while (length * unit).denominator > 1 and unit < 128:
        unit *= 2
    if not length or (length * unit).denominator > 1:
        raise ConversionError("a metre that cannot be read")
    for element in [*time]:
        time.remove(element)
    ElementTree.SubElement(time, "beats").text = str(length * unit)
    ElementTree.SubElement(time, "beat-type").text = str(unit)


def _number(text: str) -> Fraction:
    """Return the value of `3`, `2.5`, `1/2`, `2½` or `2 1/2`. Raises ConversionError."""
    spelled = FRACTION_SIGN.sub(lambda match: " " + unicodedata.normalize("NFKC", match[0]), text)
    words = spelled.replace("\u2044", "/").split()
    if not words or not all(map(NUMBER.fullmatch, words)):
        raise ConversionError("a metre that cannot be read")
    return sum(map(Fraction, words), Fraction(0))


class _Writer:
    """Writes one score: a voice for each part, its bars, repeats, endings, ties, tuplets, grace notes, chord symbols.

    Follows the ABC standard 2.1; lengths are in eighth notes. Parts for drums are left out.
    """

    def __init__(self, score: Any, number: int, title: str) -> None:
        score = score.toSoundingPitch()
        pitched = [part for part in score.parts or [score] if not _is_percussion(part)]
        self.percussion = len(score.parts or [score]) - len(pitched)
        parts = [part for part in pitched if not _is_tablature(part) or not any(_same(part, o) for o in pitched)]
        voices = [[*part.getElementsByClass("Measure")] or [*part.makeMeasures()] for part in parts]
        self.voices = [measures for measures in voices if any(measure.recurse().notes for measure in measures)]
        self.number = number
        metadata = score.metadata
        names = [metadata.title, metadata.movementName] if metadata else []
        self.title = next((name for name in names if name and not name.startswith("score.")), title)  # not the file's
        self.composer = (metadata and metadata.composer) or ""
        self.key, self.metre = "C", "none"
        self.beat = Fraction(1)  # quarters; blanks stand between beats
        self.bar_length: Fraction | None = None  # quarters; None: a free metre
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
        bars: list[str] = []
        together: list[Any] = []  # measures that are one bar
        for measure in measures:
            if together and not self.continues(together, measure):
                bars.append(self.bar(together))
                together = []
            together.append(measure)
        return bar_lines([*bars, self.bar(together)])

    def continues(self, before: list[Any], measure: Any) -> bool:
        """Tell whether a measure goes on with a bar that the score has cut, at the end of a line for example."""
        lines = (before[-1].rightBarline, measure.leftBarline)
        weak = [line is not None and line.type in WEAK_LINES for line in lines]
        if any(line is not None and not inner for line, inner in zip(lines, weak, strict=True)):
            return False
        length = _exact(sum(part.highestTime for part in [*before, measure]))
        fits = self.bar_length is not None and length <= self.bar_length and measure.timeSignature is None
        return fits and (any(weak) or measure.paddingLeft > 0)

    def fields(self, measure: Any) -> str:
        """Take over a measure's metre and key, and return them as inline fields where they change."""
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
        """Return the name of a key and take over its signature; one that has no name is written note by note."""
        if signature.isNonTraditional or abs(signature.sharps) > 7:
            self.accidentals.signature = {}
            return "none"
        self.accidentals.signature = key_signature(signature.sharps)
        mode = getattr(signature, "mode", None)
        return key_name(signature.sharps, mode if mode in MODES else "major")

    def bar(self, measures: list[Any]) -> str:
        """Return measures that make one bar, with its bar lines; the voices inside one part are overlays (`&`)."""
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
        """Return one of the voices of a measure; chord symbols stand beside the voices, and go with the first."""
        voices = [*measure.voices] or [measure]
        elements = [*voices[number].notesAndRests] if number < len(voices) else []
        if number == 0 and measure.voices:
            elements = sorted([*measure.getElementsByClass("Harmony"), *elements], key=lambda element: element.offset)
        text, length = self.notes(elements)
        missing = _exact(measure.highestTime) - length
        return text + ("x" + length_text(2 * missing) if missing > 0 else "")

    def notes(self, elements: list[Any]) -> tuple[str, Fraction]:
        """Return what sounds in one voice of one bar, and how long. Raises ConversionError for notes that overlap."""
        text, before = "", ""
        place, tuplet_left = Fraction(0), 0
        for index, element in enumerate(elements):
            if "Harmony" in element.classes:
                before += chord_symbol(element)
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
        return text + before, place

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


def _is_percussion(part: Any) -> bool:
    """Tell whether a part has no pitches, whatever its notes look like."""
    clefs = part.recurse().getElementsByClass("Clef")
    unpitched = any(
        "Unpitched" in element.classes or "PercussionChord" in element.classes for element in part.recurse().notes
    )
    return unpitched or (bool(clefs) and "PercussionClef" in clefs[0].classes)


def _is_tablature(part: Any) -> bool:
    return any("TabClef" in clef.classes for clef in part.recurse().getElementsByClass("Clef"))


def _same(tablature: Any, part: Any) -> bool:
    """Tell whether a part for notes says what a tablature says."""
    return not _is_tablature(part) and tablature.pitches == part.pitches


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


def chord_symbol(symbol: Any) -> str:
    """Return a chord symbol as ABC writes it, or nothing for one that it has no sign for."""
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
