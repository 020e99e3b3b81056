"""ABC → MIDI, score (SVG) and sound (WAV), by programs where they are installed.

ABC from a model, or from anybody, is not to be trusted: the programs that read it crash and hang on broken tunes, and
obey directives that read files. So they see only what `safe` leaves of a tune, each in a process of its own, in an
empty folder, with limits on time, memory and what it writes.
"""

import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
import wave
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil

from preprocessing.notation import CONTINUES, FIELD

MAX_CHARACTERS = 20_000  # of a tune; the longest of the bundled corpus has 1,904
SECONDS = 20
MEMORY = 2**30  # bytes of address space: fluidsynth maps a soundfont of 150 MB
FILE_SIZE = 2**26  # bytes of what a program writes: 12 minutes of sound

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# Python ignores SIGXFSZ, and what it starts would: a program that may not write on would try for ever.
LIMITS = f"""
import contextlib, os, resource, signal, sys
for limit, value in (("CPU", {SECONDS}), ("FSIZE", {FILE_SIZE}), ("CORE", 0), ("AS", {MEMORY})):
    with contextlib.suppress(ValueError):  # macOS takes no limit of address space
        resource.setrlimit(getattr(resource, f"RLIMIT_{{limit}}"), (value, value))
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
"""
NO_LIMITS = "import os, signal, sys\n"
PROGRAM = "os.execv(sys.argv[1], sys.argv[1:])"
if os.name != "posix":  # there execv returns to its caller before the program ends
    PROGRAM = "import subprocess; sys.exit(subprocess.call(sys.argv[1:]))"
WINDOWS = {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}  # Python does not start without
VEROVIO = """
import json, site
site.addsitedir(sys.argv[1])
import verovio
verovio.enableLog(verovio.LOG_OFF)
toolkit = verovio.toolkit()
toolkit.setOptions(json.loads(sys.argv[2]))
if not toolkit.loadData(open("tune.abc", encoding="utf-8").read()):
    sys.exit(1)
open("score.svg", "w", encoding="utf-8").write(toolkit.renderToSVG(1))
"""
VEROVIO_OPTIONS = {
    "inputFrom": "abc",  # else it guesses, and reads MEI and MusicXML too
    "expandNever": True,  # its expansion of repeats kills it
    "pageWidth": 1400, "pageHeight": 60000, "adjustPageHeight": True,
    "pageMarginLeft": 0, "pageMarginRight": 0, "pageMarginTop": 20, "pageMarginBottom": 20,
    "header": "none", "footer": "none", "svgViewBox": True, "xmlIdSeed": 1,
}  # fmt: skip

DROPPED_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
KEPT_FIELDS = "TCRMLQKPVwW"  # not those that set programs up (I m U), name files (F) or only inform
INLINE_FIELD = re.compile(r"\[([A-Za-z+]):[^\]\n]*\]?")
KEPT_INLINE = "MLQKPV"

DANCES = {"reel": 50, "hornpipe": 38, "strathspey": 32, "polka": 60, "waltz": 45, "march": 50}  # bars a minute

SOUNDFONTS = ("/usr/share/sounds/sf2", "/usr/share/sounds/sf3", "/usr/share/soundfonts")  # Debian; Fedora and Arch
SAMPLE_RATE = 22_050  # Hz
DRUMS = 9  # the channel of General MIDI


class RenderingError(ValueError):
    """A tune that cannot be rendered, or a program that is missing. The text is one line."""


def safe(abc: str) -> str:
    """Return what notation needs of a tune, as one tune: no directive, comment, macro or file name is left.

    Raises RenderingError if it has more than MAX_CHARACTERS.
    """
    if len(abc) > MAX_CHARACTERS:
        raise RenderingError(f"the tune has {len(abc):,} characters: more than {MAX_CHARACTERS:,} are not rendered")
    lines = ["X:1"]
    text = abc.encode("utf-8", "replace").decode().replace("\r", "\n")
    in_text = False  # a field of text goes on in this line
    for written in DROPPED_CHARACTERS.sub("", text).split("\n"):
        line = written.partition("%")[0].strip()
        field = FIELD.match(line)
        goes_on = in_text and not field
        in_text = line.endswith("\\") if goes_on else CONTINUES.match(line) is not None
        line = "" if goes_on else line.strip(" \t\\")
        if field and field[1] in KEPT_FIELDS:
            lines.append(line)
        elif line and not field:
            music = INLINE_FIELD.sub(lambda match: match[0] if match[1] in KEPT_INLINE else " ", line)
            lines.append(re.sub(r"^([A-Za-z+]):", r"\1 :", music.lstrip()))  # `d:|` is music to every program
    return "\n".join(lines) + "\n"


def confined(script: str, arguments: Sequence[str], given: dict[str, bytes], made: str) -> tuple[int, str, bytes]:
    """Run a Python script or, for PROGRAM, a program under LIMITS, in a folder that holds the files `given`.

    Returns its exit code (below 0: the signal that ended it), what it printed and the file `made` (empty if there is
    none). What is at work after SECONDS is killed. Where the system sets no limits (Windows), there is a warning.
    """
    limits = LIMITS
    if resource is None:
        limits = NO_LIMITS
        warnings.warn("this system does not limit programs: they run with a time limit alone", stacklevel=2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in given.items():
            (folder / file).write_bytes(content)
        with (folder / "said").open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", limits + script, *arguments],
                cwd=folder,
                env={"PATH": os.defpath, "HOME": name, "LC_ALL": "C.UTF-8", **WINDOWS},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that it is killed with all that it started
            )
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                pass
            finally:
                if process.poll() is None:
                    _kill(process)
            code = process.wait()
        text = (folder / "said").read_text(encoding="utf-8", errors="replace")
        return code, text, (folder / made).read_bytes() if (folder / made).is_file() else b""


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End a process with all that it started."""
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
        return
    for started in [*psutil.Process(process.pid).children(recursive=True), process]:
        started.kill()


def ending(code: int) -> str:
    """Return how a program ended, as the rest of a sentence."""
    if code >= 0:
        return f"fails (exit code {code})"
    if -code in (signal.SIGKILL, signal.SIGXCPU):
        return f"takes longer than {SECONDS} s"
    if -code == signal.SIGXFSZ:
        return f"writes more than {FILE_SIZE // 2**20} MiB"
    return f"crashes ({signal.Signals(-code).name})"


def abc2midi() -> str:
    """Return where abc2midi is: the system's, else the one that symusic carries. Raises RenderingError."""
    program = shutil.which("abc2midi")
    if program:
        return program
    package = _package("symusic")
    if package is None:
        raise RenderingError("no MIDI: abc2midi is missing (pip install symusic, or apt install abcmidi)")
    return str(package / "symusic" / "bin" / "abc2midi")


def _verovio() -> str:
    package = _package("verovio")
    if package is None:
        raise RenderingError("no scores: verovio is missing (pip install verovio)")
    return str(package)


def _fluidsynth() -> tuple[str, str]:
    """Return where fluidsynth and its soundfont are."""
    program = shutil.which("fluidsynth")
    fonts = [font for folder in SOUNDFONTS for font in sorted(Path(folder).glob("*.sf[23]"))]
    if program is None or not fonts:
        what = "a soundfont" if program else "fluidsynth"
        raise RenderingError(f"no sound: {what} is missing (apt install fluidsynth timgm6mb-soundfont)")
    return program, str(next((font for font in fonts if font.stem == "default-GM"), fonts[0]))


def _package(name: str) -> Path | None:
    """Return the folder that a package is imported from, without importing it."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parents[1] if spec and spec.origin else None


def missing() -> dict[str, str]:
    """Return a line for each of `mid`, `svg` and `wav` that cannot be made here, with the command that mends it."""
    lines = {}
    programs: dict[str, Callable[[], object]] = {"mid": abc2midi, "svg": _verovio, "wav": _fluidsynth}
    for kind, find in programs.items():
        try:
            find()
        except RenderingError as error:
            lines[kind] = str(error)
    return lines


def to_midi(abc: str) -> bytes:
    """Return a tune as abc2midi plays it, at a tempo that suits its rhythm and metre where it names none.

    Raises RenderingError if abc2midi is missing or fails, or if no note sounds.
    """
    text = safe(abc)
    if not re.search(r"^Q:", text, re.MULTILINE):
        text = re.sub(r"^K:", f"Q:{_tempo(text)}\nK:", text, count=1, flags=re.MULTILINE)
    arguments = [abc2midi(), "tune.abc", "-o", "tune.mid"]
    code, said, midi = confined(PROGRAM, arguments, {"tune.abc": text.encode()}, "tune.mid")
    if code:
        raise RenderingError(f"abc2midi {ending(code)}")
    if not midi or not notes(midi):
        error = re.search(r"Error in .*", said)
        raise RenderingError(f"abc2midi plays no note{f' ({error[0].strip()})' if error else ''}")
    return midi


def _tempo(text: str) -> str:
    """Return the value of a Q: field: that of the dance that R: names, else one for the metre."""
    fields = dict(re.findall(r"^([MR]):[ \t]*(.*)", text, re.MULTILINE))
    rhythm = fields.get("R", "").lower()
    metre = fields.get("M", "").replace("C|", "2/2").replace("C", "4/4")
    match = re.fullmatch(r"([1-9][0-9]?)/([1-9][0-9]?)", metre)
    if match is None:
        return "1/4=110"
    beats, unit = int(match[1]), match[2]
    if beats > 3 and beats % 3 == 0:
        return f"3/{unit}={112 if 'jig' in rhythm else 90}"
    for dance, bars in DANCES.items():
        if dance in rhythm:
            return f"{metre}={bars}"
    return f"1/{unit}={170 if unit in ('8', '16') else 110}"


def notes(midi: bytes) -> list[tuple[float, float, int]]:
    """Return the notes of a MIDI file (Standard MIDI Files 1.0): start and length in seconds, pitch; drums left out.

    Raises RenderingError if it is not whole.
    """
    tempos = {0: 500_000}  # microseconds a quarter, from a tick on
    played: list[tuple[int, int, int]] = []  # start and end in ticks, pitch
    try:
        if midi[:4] != b"MThd":
            raise IndexError
        division = int.from_bytes(midi[12:14])
        place = 14
        while place < len(midi):
            end = place + 8 + int.from_bytes(midi[place + 4 : place + 8])
            _read_track(midi[place + 8 : end], tempos, played)
            place = end
    except IndexError:
        raise RenderingError("not a whole MIDI file") from None
    if not played:
        return []
    changes = sorted(tempos)
    ticks = np.array([*changes, max(changes[-1], max(end for _, end, _ in played)) + 1])
    lengths = np.diff(ticks) * np.array([tempos[tick] for tick in changes]) / 1e6 / division
    times = np.concatenate([[0.0], np.cumsum(lengths)])
    starts, ends, pitches = np.array(sorted(played)).T
    start, stop = np.interp(starts, ticks, times), np.interp(ends, ticks, times)
    return list(zip(start.tolist(), (stop - start).tolist(), pitches.tolist(), strict=True))


def _read_track(track: bytes, tempos: dict[int, int], played: list[tuple[int, int, int]]) -> None:
    place = now = status = 0
    sounding: dict[tuple[int, int], int] = {}  # channel and pitch: since when
    while place < len(track):
        wait, place = _number(track, place)
        now += wait
        if track[place] & 0x80:
            status, place = track[place], place + 1
        if status >= 0xF0:
            kind = track[place]
            size, place = _number(track, place + (status == 0xFF))
            if status == 0xFF and kind == 0x51:
                tempos[now] = int.from_bytes(track[place : place + size])
            place += size
            continue
        key = status & 0x0F, track[place]
        if status & 0xE0 == 0x80 and key[0] != DRUMS:  # a note ends, or one of velocity 0 begins
            if key in sounding:
                played.append((sounding.pop(key), now, key[1]))
            if status & 0x10 and track[place + 1]:
                sounding[key] = now
        place += 1 if status & 0xE0 == 0xC0 else 2


def _number(data: bytes, place: int) -> tuple[int, int]:
    """Return a number of variable length and the place behind it."""
    value = data[place] & 0x7F
    while data[place] & 0x80:
        place += 1
        value = value << 7 | data[place] & 0x7F
    return value, place + 1


def to_svg(abc: str) -> str:
    """Return the score of a tune on one page, its music font within it, as verovio draws it but black on white.

    Raises RenderingError if verovio is missing or fails, or if it draws no note.
    """
    text = safe(abc) + "|\n"  # verovio leaves out a last bar that no sign ends
    arguments = [_verovio(), json.dumps(VEROVIO_OPTIONS)]
    code, _, score = confined(VEROVIO, arguments, {"tune.abc": text.encode()}, "score.svg")
    if code:
        raise RenderingError(f"verovio {ending(code)}")
    if b'class="note"' not in score:
        raise RenderingError("verovio draws no note")
    return score.decode("utf-8").replace("<svg ", '<svg style="background:white" ', 1)  # on dark pages too


def to_wav(midi: bytes) -> bytes:
    """Return what fluidsynth plays of a MIDI file: mono, 16 bits, SAMPLE_RATE.

    Raises RenderingError if fluidsynth or a soundfont is missing, if it fails or if there is no note to play.
    """
    if not notes(midi):
        raise RenderingError("a MIDI file without a note")
    program, font = _fluidsynth()
    arguments = [program, "-ni", "-q", "-g", "1", "-r", str(SAMPLE_RATE), "-F", "tune.wav", font, "tune.mid"]
    code, _, sound = confined(PROGRAM, arguments, {"tune.mid": midi}, "tune.wav")
    if code or not sound:
        raise RenderingError(f"fluidsynth {ending(code)}")
    with wave.open(io.BytesIO(sound)) as stereo:
        samples = np.frombuffer(stereo.readframes(stereo.getnframes()), dtype="<i2").reshape(-1, 2)
    file = io.BytesIO()
    with wave.open(file, "wb") as mono:
        mono.setparams((1, 2, SAMPLE_RATE, len(samples), "NONE", ""))
        mono.writeframes(samples.mean(axis=1).astype("<i2").tobytes())
    return file.getvalue()


def render(abc: str, kinds: Sequence[str] = ("mid", "svg", "wav")) -> tuple[dict[str, bytes], list[str]]:
    """Return the files of these kinds that can be made of a tune, by suffix, and a line for each that failed.

    What is `missing` on this machine is in neither.
    """
    absent = missing()
    files: dict[str, bytes] = {}
    failures = []
    for kind, make in (
        ("mid", lambda: to_midi(abc)),
        ("svg", lambda: to_svg(abc).encode()),
        ("wav", lambda: to_wav(files["mid"])),
    ):
        wanted = kind in kinds or (kind == "mid" and "wav" in kinds)
        if not wanted or kind in absent or (kind == "wav" and "mid" not in files):
            continue
        try:
            files[kind] = make()
        except RenderingError as error:
            failures.append(str(error))
    return {kind: content for kind, content in files.items() if kind in kinds}, failures
