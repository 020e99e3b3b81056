"""ABC → MIDI (abc2midi), score in SVG (verovio) and sound in WAV (fluidsynth), where these are installed.

No tune is trusted: the programs crash and hang on broken ones, and obey directives that read files. So each reads only
what `sanitize` leaves of a tune, in a separate process, in an empty folder, with limits on time, memory and output.
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
from typing import Any

import numpy as np
import psutil
import symusic

from preprocessing.notation import CONTINUES, FIELD

FORMATS = ("mid", "svg", "wav")
MAX_CHARACTERS = 20_000  # of a tune; the longest of the bundled corpus has 1,904
SECONDS = 20
MEMORY = 2**30  # bytes of address space: fluidsynth maps a soundfont of 150 MB
FILE_SIZE = 2**26  # bytes of what a program writes: 12 minutes of sound

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# Python ignores SIGXFSZ and its children inherit that: a program that may not write more would try forever.
LIMITS = f"""
import contextlib, os, resource, signal, sys
for limit, value in (("CPU", {SECONDS}), ("FSIZE", {FILE_SIZE}), ("CORE", 0), ("AS", {MEMORY})):
    with contextlib.suppress(ValueError):  # macOS takes no limit of address space
        resource.setrlimit(getattr(resource, f"RLIMIT_{{limit}}"), (value, value))
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
"""
NO_LIMITS = "import os, signal, sys\n"
PROGRAM = "os.execv(sys.argv[1], sys.argv[1:])"
if os.name != "posix":  # where execv returns before the program ends
    PROGRAM = "import subprocess; sys.exit(subprocess.call(sys.argv[1:]))"
WINDOWS = {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}  # without it Python fails
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
    "inputFrom": "abc",  # otherwise it guesses, and reads MEI and MusicXML too
    "expandNever": True,  # its expansion of repeats kills it
    "pageWidth": 1400, "pageHeight": 60000, "adjustPageHeight": True,
    "pageMarginLeft": 0, "pageMarginRight": 0, "pageMarginTop": 20, "pageMarginBottom": 20,
    "header": "none", "footer": "none", "svgViewBox": True, "xmlIdSeed": 1,
}  # fmt: skip

DROPPED_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
KEPT_FIELDS = "TCRMLQKPVwW"  # none that configures programs (I, m, U) or names files (F)
INLINE_FIELD = re.compile(r"\[([A-Za-z+]):[^\]\n]*\]?")
KEPT_INLINE = "MLQKPV"

DANCES = {"reel": 50, "hornpipe": 38, "strathspey": 32, "polka": 60, "waltz": 45, "march": 50}  # bars a minute

SOUNDFONTS = ("/usr/share/sounds/sf2", "/usr/share/sounds/sf3", "/usr/share/soundfonts")  # Debian; Fedora and Arch
SAMPLE_RATE = 22_050  # Hz


class RenderingError(ValueError):
    """A tune that cannot be rendered, or a program that is missing. The text is one line."""


def sanitize(abc: str) -> str:
    """Return a tune without directives, comments, macros, file names and all else that is no notation.

    Raises RenderingError if it has more than MAX_CHARACTERS.
    """
    if len(abc) > MAX_CHARACTERS:
        raise RenderingError(f"the tune has {len(abc):,} characters: more than {MAX_CHARACTERS:,} are not rendered")
    lines = ["X:1"]
    text = abc.encode("utf-8", "replace").decode().replace("\r", "\n")
    in_text = False  # a text field continues in this line
    for raw in DROPPED_CHARACTERS.sub("", text).split("\n"):
        line = raw.partition("%")[0].strip()
        field = FIELD.match(line)
        continues = in_text and not field
        in_text = line.endswith("\\") if continues else CONTINUES.match(line) is not None
        line = "" if continues else line.strip(" \t\\")
        if field and field[1] in KEPT_FIELDS:
            lines.append(line)
        elif line and not field:
            music = INLINE_FIELD.sub(lambda match: match[0] if match[1] in KEPT_INLINE else " ", line)
            lines.append(re.sub(r"^([A-Za-z+]):", r"\1 :", music.lstrip()))  # `d:|` is music to every program
    return "\n".join(lines) + "\n"


def run_confined(script: str, arguments: Sequence[str], files: dict[str, bytes], output: str) -> tuple[int, str, bytes]:
    """Run a Python script or, for PROGRAM, a program under LIMITS, in a folder that holds `files`.

    Returns its exit code (below 0: the signal that ended it), what it printed and the file `output` (empty if it wrote
    none). It is killed after SECONDS. On a system without limits (Windows) there is a warning.
    """
    limits = LIMITS
    if resource is None:
        limits = NO_LIMITS
        warnings.warn("this system does not limit programs: they run with a time limit alone", stacklevel=2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        with (folder / "printed").open("wb") as printed:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", limits + script, *arguments],
                cwd=folder,
                env={"PATH": os.defpath, "HOME": name, "LC_ALL": "C.UTF-8", **WINDOWS},
                stdin=subprocess.DEVNULL,
                stdout=printed,
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
        text = (folder / "printed").read_text(encoding="utf-8", errors="replace")
        return code, text, (folder / output).read_bytes() if (folder / output).is_file() else b""


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End a process with all that it started."""
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
        return
    for started in [*psutil.Process(process.pid).children(recursive=True), process]:
        started.kill()


def describe_exit(code: int) -> str:
    """Return how a program failed."""
    if code >= 0:
        return f"fails (exit code {code})"
    if -code in (signal.SIGKILL, signal.SIGXCPU):
        return f"takes longer than {SECONDS} s"
    if -code == signal.SIGXFSZ:
        return f"writes more than {FILE_SIZE // 2**20} MiB"
    return f"crashes ({signal.Signals(-code).name})"


def abc2midi() -> str:
    """Return the path of abc2midi: the system's, otherwise the one in the package symusic."""
    return shutil.which("abc2midi") or str(Path(symusic.__file__).parent / "bin" / "abc2midi")


def _verovio_folder() -> str:
    spec = importlib.util.find_spec("verovio")  # not imported here: it crashes on some tunes
    if spec is None or spec.origin is None:
        raise RenderingError("no scores: verovio is missing (pip install verovio)")
    return str(Path(spec.origin).parents[1])


def _fluidsynth() -> tuple[str, str]:
    """Return the paths of fluidsynth and of a soundfont."""
    program = shutil.which("fluidsynth")
    fonts = [font for folder in SOUNDFONTS for font in sorted(Path(folder).glob("*.sf[23]"))]
    if program is None or not fonts:
        name = "a soundfont" if program else "fluidsynth"
        raise RenderingError(f"no sound: {name} is missing (apt install fluidsynth timgm6mb-soundfont)")
    return program, str(next((font for font in fonts if font.stem == "default-GM"), fonts[0]))


def missing_programs() -> dict[str, str]:
    """Return by format (`svg`, `wav`) which program is missing here, and how to install it."""
    lines = {}
    programs: dict[str, Callable[[], object]] = {"svg": _verovio_folder, "wav": _fluidsynth}
    for kind, find in programs.items():
        try:
            find()
        except RenderingError as error:
            lines[kind] = str(error)
    return lines


def to_midi(abc: str) -> bytes:
    """Return a tune as abc2midi plays it, at a tempo for its rhythm and metre if it names none.

    Raises RenderingError if abc2midi fails, or if no note sounds.
    """
    text = sanitize(abc)
    if not re.search(r"^Q:", text, re.MULTILINE):
        text = re.sub(r"^K:", f"Q:{_tempo(text)}\nK:", text, count=1, flags=re.MULTILINE)
    command = [abc2midi(), "tune.abc", "-o", "tune.mid"]
    code, printed, midi = run_confined(PROGRAM, command, {"tune.abc": text.encode()}, "tune.mid")
    if code:
        raise RenderingError(f"abc2midi {describe_exit(code)}")
    if not midi or not read_notes(midi):
        error = re.search(r"Error in .*", printed)
        raise RenderingError(f"abc2midi plays no note{f' ({error[0].strip()})' if error else ''}")
    return midi


def _tempo(text: str) -> str:
    """Return the value of a Q: field for the dance that R: names, otherwise for the metre."""
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


def read_notes(midi: bytes) -> list[tuple[float, float, int]]:
    """Return the notes of a MIDI file in order: start and length in seconds, pitch; without the drums.

    Raises RenderingError if the file is damaged.
    """
    try:
        score: Any = symusic.Score.from_midi(midi, "second")
    except RuntimeError:
        raise RenderingError("not a readable MIDI file") from None
    tracks = [track.notes for track in score.tracks if not track.is_drum]
    return sorted((note.time, note.duration, note.pitch) for notes in tracks for note in notes)


def to_svg(abc: str) -> str:
    """Return the score of a tune on one page, as verovio draws it with its music font, black on white.

    Raises RenderingError if verovio is missing or fails, or if it draws no note.
    """
    text = sanitize(abc) + "|\n"  # verovio leaves out a last bar that no sign ends
    arguments = [_verovio_folder(), json.dumps(VEROVIO_OPTIONS)]
    code, _, score = run_confined(VEROVIO, arguments, {"tune.abc": text.encode()}, "score.svg")
    if code:
        raise RenderingError(f"verovio {describe_exit(code)}")
    if b'class="note"' not in score:
        raise RenderingError("verovio draws no note")
    return score.decode("utf-8").replace("<svg ", '<svg style="background:white" ', 1)  # on dark pages too


def to_wav(midi: bytes) -> bytes:
    """Return the sound of a MIDI file by fluidsynth: mono, 16 bits, SAMPLE_RATE.

    Raises RenderingError if fluidsynth or a soundfont is missing, if it fails or if there is no note to play.
    """
    if not read_notes(midi):
        raise RenderingError("a MIDI file without a note")
    program, font = _fluidsynth()
    command = [program, "-ni", "-q", "-g", "1", "-r", str(SAMPLE_RATE), "-F", "tune.wav", font, "tune.mid"]
    code, _, sound = run_confined(PROGRAM, command, {"tune.mid": midi}, "tune.wav")
    if code or not sound:
        raise RenderingError(f"fluidsynth {describe_exit(code)}")
    with wave.open(io.BytesIO(sound)) as stereo:
        samples = np.frombuffer(stereo.readframes(stereo.getnframes()), dtype="<i2").reshape(-1, 2)
    file = io.BytesIO()
    with wave.open(file, "wb") as mono:
        mono.setparams((1, 2, SAMPLE_RATE, len(samples), "NONE", ""))
        mono.writeframes(samples.mean(axis=1).astype("<i2").tobytes())
    return file.getvalue()


def render(abc: str, formats: Sequence[str] = FORMATS) -> tuple[dict[str, bytes], list[str]]:
    """Return a tune's files by format, and an error for each that failed.

    Formats whose program is missing here (see `missing_programs`) are in neither.
    """
    possible = set(formats) - missing_programs().keys()
    files: dict[str, bytes] = {}
    errors = []

    def make(kind: str, maker: Callable[[], bytes]) -> None:
        try:
            files[kind] = maker()
        except RenderingError as error:
            errors.append(str(error))

    if possible & {"mid", "wav"}:
        make("mid", lambda: to_midi(abc))
    if "svg" in possible:
        make("svg", lambda: to_svg(abc).encode())
    if "wav" in possible and "mid" in files:
        make("wav", lambda: to_wav(files["mid"]))
    return {kind: content for kind, content in files.items() if kind in formats}, errors
