"""MusicXML and kern scores become ABC: made readable for music21, read by it, and written by score_writing.py.

MusicXML: https://www.w3.org/2021/06/musicxml40/. kern: https://www.humdrum.org/rep/kern/.
"""

import io
import re
import unicodedata
import zipfile
from fractions import Fraction
from typing import Any
from xml.etree import ElementTree

from preprocessing.abc_writing import ConversionError
from preprocessing.score_writing import ScoreWriter

MAX_XML = 100 << 20  # bytes of a score out of its archive
NOTE_VALUES = [str(2**power) for power in range(8)]
NUMBER = re.compile(r"\d{1,3}(?:\.\d{1,3}|/[1-9]\d{0,2})?")
FRACTION_SIGN = re.compile("[\u00bc-\u00be\u2150-\u215e]")  # ¼ ½ ¾ and the like


def musicxml_to_abc(data: bytes, title: str) -> tuple[str, int]:
    """Return a MusicXML score as ABC at sounding pitch, and how many percussion parts are left out.

    Raises ConversionError, or whatever music21 raises.
    """
    from music21.musicxml.xmlToM21 import MusicXMLImporter

    importer = MusicXMLImporter()
    importer.xmlRootToScore(_read_xml(data), importer.stream)
    return _write_scores(importer.stream, title)


def kern_to_abc(data: bytes, title: str) -> tuple[str, int]:
    """Return a kern score as `musicxml_to_abc` does."""
    from music21 import converter

    return _write_scores(converter.parseData(_text(data), format="humdrum"), title)


def _write_scores(parsed: Any, title: str) -> tuple[str, int]:
    from music21 import stream

    scores = list(parsed.scores) if isinstance(parsed, stream.Opus) else [parsed]
    writers = [ScoreWriter(score, number, title) for number, score in enumerate(scores, 1)]
    return "\n".join(writer.tune() for writer in writers), sum(writer.percussion for writer in writers)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _read_xml(data: bytes) -> ElementTree.Element:
    """Return a score in the form that music21 reads correctly: by parts, with plain metres, without cue notes.

    The parser (expat) reads no external entity, and refuses entities that grow without bound. Raises ConversionError.
    """
    root = ElementTree.fromstring(_unpacked(data) if data.startswith(b"PK") else data)
    if root.tag == "score-timewise":
        root = _by_parts(root)
    if root.tag != "score-partwise":
        raise ConversionError("XML that is no score")
    for element in root.iter():
        element.text = (element.text or "").strip() or None
    for measure in root.iter("measure"):
        _complete_notes(measure)
    for transpose in root.iter("transpose"):
        if transpose.find("diatonic") is None:  # music21 requires it
            steps = round(float(transpose.findtext("chromatic", "0")) * 7 / 12)
            ElementTree.SubElement(transpose, "diatonic").text = str(steps)
    for time in root.iter("time"):
        _simplify_metre(time)
    return root


def _complete_notes(measure: ElementTree.Element) -> None:
    """Give each note a voice if one has it, replace cue notes. Raises ConversionError for repeats that are misread."""
    if measure.find(".//measure-repeat[@type='start']") is not None:
        raise ConversionError("bars written as repeat signs")
    if measure.find("barline[@location='middle']/repeat") is not None:
        raise ConversionError("repeats inside a bar")
    voiced = measure.find("note/voice") is not None
    for note in measure.findall("note"):
        if note.find("cue") is not None:
            _replace_by_rest(measure, note)
        elif voiced and note.find("voice") is None:
            ElementTree.SubElement(note, "voice").text = "1"


def _unpacked(archive_data: bytes) -> bytes:
    """Return the score in a .mxl archive. Raises ConversionError if there is none or it is larger than MAX_XML."""
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
    """Turn a time-wise score (measures that hold parts) into a part-wise one."""
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


def _replace_by_rest(measure: ElementTree.Element, note: ElementTree.Element) -> None:
    """Replace a cue note, which shows what another part plays and does not sound, by a rest."""
    if note.find("chord") is not None or note.find("grace") is not None:
        measure.remove(note)
        return
    for element in [*note]:
        if element.tag not in ("duration", "voice", "type", "dot", "time-modification", "staff"):
            note.remove(element)
    ElementTree.SubElement(note, "rest")


def _simplify_metre(time: ElementTree.Element) -> None:
    """Rewrite a metre that is a sum (2+2+3/8, 3/4+2/8) or has fractional beats (2½/4) as one fraction of integers."""
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
