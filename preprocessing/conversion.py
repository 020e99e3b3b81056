"""Scores become ABC: MIDI by midi2abc (Debian's abcmidi), MusicXML and kern read by music21 and written here.

Each conversion runs in a process of its own with a time limit: one that hangs or crashes costs its file alone.
"""

import multiprocessing
import os
import queue
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from door import DoorError

T = TypeVar("T")

SCORE_KINDS = {
    ".mid": "midi",
    ".midi": "midi",
    ".musicxml": "musicxml",
    ".xml": "musicxml",
    ".mxl": "musicxml",
    ".krn": "kern",
}
MAX_SCORE = 10 << 20  # bytes; what is larger is no score of a tune
MAX_MEMORY = 4 << 30  # bytes of a process that reads scores: a small .mxl can unpack to anything
TIME_LIMIT = 60.0  # seconds for one score

# Four bars a line; broken rhythms stay lengths, the pickup is what needs the fewest ties, and a rest of less than the
# shortest note is how its player let go of a key.
MIDI2ABC = ("midi2abc", "-noly", "-nb", "-ga", "-sr", "1", "-bpl", "4", "-bps", "4", "-f")
NOTE = re.compile(r"[A-Ga-g]")
MODES = {"major": "", "minor": "m"}
ACCIDENTALS = {2: "^^", 1: "^", 0: "=", -1: "_", -2: "__"}
BARS_PER_LINE = 4


@dataclass(frozen=True)
class Score:
    """A score file: `suffix` is a key of SCORE_KINDS; `data` longer than MAX_SCORE is not converted."""

    name: str
    suffix: str
    data: bytes


@dataclass(frozen=True)
class Conversion:
    """A score as one ABC tune (a file of several movements as several), or why there is none."""

    name: str
    kind: str
    abc: str = ""
    failure: str | None = None


class ConversionError(Exception):
    """A score that gives no tune; the text is the reason to count it under."""


def convert_scores(items: Iterable[T | Score], workers: int) -> Iterator[T | Conversion]:
    """Yield the items in order, each Score as its Conversion; `workers` run side by side, few wait.

    Raises DoorError for a MIDI file where midi2abc is not installed.
    """
    readers: queue.SimpleQueue[ScoreReader] = queue.SimpleQueue()
    for reader in (all_readers := [ScoreReader() for _ in range(workers)]):
        readers.put(reader)
    window: deque[T | Future[Conversion]] = deque()
    with ThreadPoolExecutor(workers) as threads:
        try:
            for item in items:
                window.append(threads.submit(_convert, item, readers) if isinstance(item, Score) else item)
                while window and (len(window) > 2 * workers or not isinstance(window[0], Future) or window[0].done()):
                    yield _result(window.popleft())
            while window:
                yield _result(window.popleft())
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            for reader in all_readers:
                reader.stop()


def _result(item: T | Future[Conversion]) -> T | Conversion:
    return item.result() if isinstance(item, Future) else item


def _convert(score: Score, readers: "queue.SimpleQueue[ScoreReader]") -> Conversion:
    kind = SCORE_KINDS[score.suffix]
    title = " ".join(PurePosixPath(score.name).stem.replace("_", " ").split())
    reader = readers.get()
    try:
        if len(score.data) > MAX_SCORE:
            raise ConversionError(f"larger than {MAX_SCORE >> 20} MB")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"score{score.suffix}"  # never the name it came with
            path.write_bytes(_without_words(score.data) if kind == "midi" else score.data)
            abc = _midi_to_abc(path, title) if kind == "midi" else reader.read(path, title)
        return Conversion(score.name, kind, abc)
    except ConversionError as error:
        return Conversion(score.name, kind, failure=str(error))
    finally:
        readers.put(reader)


def _without_words(data: bytes) -> bytes:
    """Return a MIDI file without its text events (lyrics, names, remarks), or as it is where it cannot be read.

    midi2abc writes words and notes into one line, so that taking out the words would take out notes.
    """
    kept = bytearray()
    place = 0
    try:
        while place + 8 <= len(data):
            end = place + 8 + int.from_bytes(data[place + 4 : place + 8])
            track = data[place : place + 4] == b"MTrk"
            chunk = _wordless(data[place + 8 : end]) if track else data[place + 8 : end]
            kept += data[place : place + 4] + len(chunk).to_bytes(4) + chunk
            place = end
    except IndexError:
        return data
    return bytes(kept + data[place:])


def _wordless(track: bytes) -> bytes:
    """Return the events of a track without its texts; the time before one passes to the next. Raises IndexError."""
    kept = bytearray()
    place = waited = status = 0
    while place < len(track):
        delta, start = _quantity(track, place)
        waited += delta
        if track[start] & 0x80:
            status = track[start]
            data = start + 1
        else:
            data = start  # the status of the event before holds
        text = status == 0xFF and 1 <= track[data] <= 0x0F
        if status in (0xF0, 0xF7, 0xFF):
            length, place = _quantity(track, data + (status == 0xFF))
            place += length
        else:
            place = data + (1 if status >> 4 in (0xC, 0xD) else 2)
        if not text:
            kept += _as_quantity(waited) + track[start:place]
            waited = 0
    return bytes(kept)


def _quantity(track: bytes, place: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, four bytes at most, and the place behind it. Raises IndexError."""
    value = 0
    for end in range(place, place + 4):
        value = value << 7 | track[end] & 0x7F
        if not track[end] & 0x80:
            return value, end + 1
    raise IndexError("a number of more than four bytes")


def _as_quantity(value: int) -> bytes:
    parts = [value & 0x7F]
    while value := value >> 7:
        parts.append(value & 0x7F | 0x80)
    return bytes(reversed(parts))


def _midi_to_abc(path: Path, title: str) -> str:
    """Return a MIDI file as ABC. Key and metre are the file's (the first metre, where it changes)."""
    if shutil.which(MIDI2ABC[0]) is None:
        raise DoorError("midi2abc is not installed, and there are MIDI files: apt install abcmidi")
    with subprocess.Popen(
        [*MIDI2ABC, path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # so that what it starts ends with it
    ) as process:
        assert process.stdout is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(TIME_LIMIT, stop)
        timer.start()
        output = process.stdout.read(MAX_SCORE + 1)
        endless = len(output) > MAX_SCORE
        if endless:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        timer.cancel()
    if endless:
        raise ConversionError("the converter printed without end")
    if late.is_set():
        raise ConversionError("took too long")
    if process.returncode < 0:
        raise ConversionError("the converter crashed")
    if process.returncode > 0:
        raise ConversionError("not readable")
    return _tidy(output.decode("utf-8", errors="replace"), title)


def _tidy(text: str, title: str) -> str:
    """Return midi2abc's output without remarks and drums, under the title. Raises ConversionError if it has no notes.

    Its voices are named V:1, V:2, …; the name of an only voice goes.
    """
    header, *voices = re.split(r"(?m)^(?=V:)", text)
    voices = [voice for voice in voices if "%%MIDI channel 10" not in voice]
    parts = [header, *(voice.partition("\n")[2] if len(voices) == 1 else voice for voice in voices)]
    parts = [re.sub(r"[ \t]*(?:%.*|\\$)", "", part, flags=re.MULTILINE) for part in parts]
    parts = [re.sub(r"(?m)^([A-Z]:) +", r"\1", part) for part in parts]
    parts[0] = re.sub(r"(?m)^T:.*", lambda _: f"T:{title}", parts[0])
    if not (text.startswith("X:") and "\nK:" in header and any(map(_has_notes, voices or [header]))):
        raise ConversionError("no notes")
    return "\n".join(map(_close, parts)) + "\n"


def _close(part: str) -> str:
    lines = [line.rstrip() for line in part.splitlines() if line.strip()]
    if lines and not re.match(r"[A-Za-z]:", lines[-1]):
        lines[-1] = lines[-1].rstrip("| ") + "|]"
    return "\n".join(lines)


def _has_notes(part: str) -> bool:
    return any(NOTE.search(line) for line in part.splitlines() if not re.match(r"[A-Za-z]:|%", line))


class ScoreReader:
    """A process that reads scores with music21; it is started when first needed, and anew after a hang or a crash."""

    def __init__(self) -> None:
        self.pool: ProcessPoolExecutor | None = None
        self.pid = 0

    def read(self, path: Path, title: str) -> str:
        """Return a score as ABC. Raises ConversionError."""
        pool = self.pool = self.pool or self.start()
        try:
            future = pool.submit(score_to_abc, path, title)
            error = future.exception(TIME_LIMIT)  # music21 raises anything on a broken file
            if isinstance(error, BrokenProcessPool):
                raise error
        except TimeoutError:
            self.stop()
            raise ConversionError("took too long") from None
        except BrokenProcessPool:
            self.stop()
            raise ConversionError("the converter crashed") from None
        if error is not None:
            raise error if isinstance(error, ConversionError) else ConversionError("not readable")
        return future.result()

    def start(self) -> ProcessPoolExecutor:
        """Start the process and wait until it is ready. Raises DoorError if it ends instead."""
        pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        try:
            self.pid = pool.submit(_get_ready).result()
        except BrokenProcessPool:
            raise DoorError("the process that reads scores does not start: does `import music21` work?") from None
        return pool

    def stop(self) -> None:
        """End the process, whatever it does."""
        if self.pool is not None:
            with suppress(ProcessLookupError):  # it may have crashed
                os.kill(self.pid, signal.SIGKILL)
            self.pool.shutdown()
            self.pool = None


def _get_ready() -> int:
    """Prepare a process for reading scores: silent, bounded in memory, ended by its parent alone. Return its id."""
    import music21  # noqa: F401

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    return os.getpid()


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
        self.signature: dict[str, int] = {}  # alteration in semitones by letter
        self.by_letter: dict[str, int] = {}  # the same, as the bar's accidentals leave it; with and without octaves,
        self.by_place: dict[str, int] = {}  # for programs differ in whether an accidental holds in the other octaves

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

    def voice(self, measures: list[Any]) -> Iterator[str]:
        bars = [self.bar(measures[0])]
        for before, measure in pairwise(measures):
            if _continues(before, measure):
                bars[-1] = f"{bars[-1].removesuffix('|')} {self.bar(measure, new=False)}"
            else:
                bars.append(self.bar(measure))
        bars[-1] = re.sub(r"(?<!:)\|+$", "|]", bars[-1])
        for first in range(0, len(bars), BARS_PER_LINE):
            line = "".join(bars[first : first + BARS_PER_LINE])
            yield line.replace(":||:", "::").replace("||:", "|:")

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
            self.signature = {pitch.step: int(pitch.alter) for pitch in signature.alteredPitches}
            key = signature if getattr(signature, "mode", None) in MODES else signature.asKey("major")
            name = key.tonic.name.replace("-", "b") + MODES[key.mode]
            if name != self.key:
                self.key = name
                changes += f"[K:{name}]"
        return changes

    def bar(self, measure: Any, new: bool = True) -> str:
        """Return a measure with its bar lines; the voices inside one part are overlays (`&`)."""
        changes = self.fields(measure)
        self.by_letter = {} if new else self.by_letter
        overlays = []
        for voice in [*measure.voices] or [measure]:
            self.by_place = {} if new else self.by_place
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
                text += "x" + _length(2 * (offset - place))
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
            text += before + self.sound(element, _length(2 * written))
            before = ""
            place += length
        return text

    def sound(self, element: Any, length: str = "") -> str:
        """Return a note, chord or rest of a length that is written already."""
        if element.isRest:
            return "z" + length
        notes = [self.pitch(note.pitch) + "-" * _is_tied(note) for note in getattr(element, "notes", [element])]
        if len(notes) > 1:
            return f"[{''.join(notes)}]{length}"
        tie = "-" * notes[0].endswith("-")
        return notes[0].removesuffix("-") + length + tie

    def pitch(self, pitch: Any) -> str:
        """Return a pitch, with its accidental wherever a reader might take it for another."""
        octave, alter = pitch.implicitOctave, int(pitch.alter)
        if alter != pitch.alter:
            raise ConversionError("quarter tones")
        place = f"{pitch.step}{octave}"
        default = self.signature.get(pitch.step, 0)
        letter = pitch.step + "," * (4 - octave) if octave < 5 else pitch.step.lower() + "'" * (octave - 5)
        if self.by_place.get(place, default) == alter == self.by_letter.get(pitch.step, default):
            return letter
        self.by_place[place] = self.by_letter[pitch.step] = alter
        return ACCIDENTALS[alter] + letter


def _continues(before: Any, measure: Any) -> bool:
    """Tell whether two measures are one bar that the score has cut in two, at the end of a line for example."""
    plain = before.rightBarline is None and measure.leftBarline is None
    return plain and measure.paddingLeft > 0 and not before.voices and not measure.voices


def _exact(length: float | Fraction) -> Fraction:
    """Return a length of music21 (thirds and the like are fractions already) as a fraction."""
    return Fraction(length).limit_denominator(10_000)


def _length(eighths: Fraction) -> str:
    if eighths == 1:
        return ""
    return str(eighths) if eighths.numerator > 1 or eighths.denominator == 1 else f"/{eighths.denominator}"


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
