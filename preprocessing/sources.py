"""Where raw music comes from: files, folders, archives, tables, scores and data sets on the Hub, read as a stream.

Memory is bounded whatever the input: a Block holds about one MB. What cannot be read costs itself alone and is counted.
"""

import codecs
import csv
import gzip
import hashlib
import importlib.util
import lzma
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

import pyarrow

from cli import UserError
from preprocessing.conversion import MAX_SCORE, SCORE_KINDS, Conversion, Score, convert_scores
from preprocessing.tables import (
    ROW_LIMIT,
    NoTextColumnError,
    Row,
    is_session,
    row_tune,
    session_tune,
    table_rows,
    text_column,
    with_present_names,
)

BUNDLED = "bundled"
HUB = "hub:"
BLOCK = 1 << 20  # bytes; a tune longer than this is left out
CHUNK = 1 << 18
BOMB_RATIO, BOMB_SIZE = 100, 50 << 20
MOST_NAMED = 1000  # of what was dropped for one reason; all are counted

KINDS = {
    **dict.fromkeys((".abc", ".txt"), "text"),
    **dict.fromkeys((".zip", ".tar", ".tar.gz", ".tgz"), "archive"),
    **dict.fromkeys((".parquet", ".json", ".jsonl", ".csv", ".json.gz", ".jsonl.gz", ".csv.gz"), "table"),
    **dict.fromkeys(SCORE_KINDS, "score"),
}
SESSION = "thesession"
NON_COMMERCIAL = "non-commercial use"
LICENCES = {
    "essenFolksong": NON_COMMERCIAL,
    "josquin": "GNU General Public License",
    "oneills1850": "old printed tunes, transcribed by volunteers",
    "ryansMammoth": "old printed tunes, transcribed by volunteers",
    "airdsAirs": "old printed tunes, transcribed by volunteers",
    SESSION: "Open Database License; some dumps also forbid the training of large language models: read its LICENSE.md",
}

DAMAGE = (zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, NotImplementedError, OSError)
FIRST_TUNE = re.compile(rb"(?:^|[\r\n])X:")
BLANK_LINE = re.compile(rb"\r\n\r\n|\n\n|\r\r")
FILE_FIELDS = ("L", "M", "R", "U")
CONTROLS = re.compile("[\x80-\x84\x86-\x9f]")  # \x85 is also a line end
DOS_LETTERS = {code: bytes([code]).decode("cp850") for code in (*range(0x80, 0xA0), 0xE1)}  # 0xE1 is ß
CHARSET = re.compile(rb"(?:^|[\r\n])(?:%%|I:)abc-charset[ \t]+([\w.:-]+)")


@dataclass(frozen=True)
class Block:
    """Whole tunes of raw ABC. `file` is the path below the source, inside an archive `tunes.zip/folder/a.abc`.

    `source` is the collection. `content` is undecoded (bytes) where it comes from a file, text where it comes from a
    table or a score. `charset` is what the file declares, `defaults` the fields of its header by letter, of U: all that
    it has, as lines. `group` names tunes that the source calls settings of one. `line` is the number of its first line
    in its file.
    """

    source: str
    file: str
    content: bytes | str
    charset: str | None = None
    group: str | None = None
    defaults: dict[str, str] = field(default_factory=dict)
    line: int = 1


class Names(dict[str, list[dict[str, str]]]):
    """What was left out, by reason: the `file` (or member, or row) and the `tune` in it, "" if it is all of the file.

    The first MOST_NAMED of each reason are named.
    """

    def add(self, reason: str, file: str, tune: str = "") -> None:
        """Name one; a file once where it is the one before again."""
        known, name = self.setdefault(reason, []), {"file": file, "tune": tune}
        if len(known) < MOST_NAMED and (tune or known[-1:] != [name]):
            known.append(name)

    def include(self, other: "Names") -> None:
        """Add what another names."""
        for reason, names in other.items():
            known = self.setdefault(reason, [])
            known += names[: MOST_NAMED - len(known)]


@dataclass
class Reading:
    """What was read and what was left out; filled while reading.

    `files` are files, members of archives, and splits of data sets; `bytes` those of their content, unpacked. `drops`
    counts files, members and rows by reason, `dropped` names them; `skipped_bytes` are those of text files by reason:
    with the blocks they sum up to the files' (UTF-16 apart). `converted` holds `tried`, `converted` and failures by
    reason for each kind of score, `licences` what is known of each source's.
    """

    files: int = 0
    bytes: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    dropped: Names = field(default_factory=Names)
    skipped_bytes: Counter[str] = field(default_factory=Counter)
    converted: dict[str, Counter[str]] = field(default_factory=dict)
    licences: dict[str, str] = field(default_factory=dict)

    def drop(self, reason: str, file: str) -> None:
        """Count a file, member or row as left out, and name it."""
        self.drops[reason] += 1
        self.dropped.add(reason, file)

    def skip(self, reason: str, file: str, size: int) -> None:
        """Count bytes of a text file as left out, and name the file."""
        if size:
            self.skipped_bytes[reason] += size
            self.dropped.add(reason, file)


def bundled_folder() -> Path:
    """Return the folder of music21's corpus, found without importing music21 (its import takes seconds)."""
    package = importlib.util.find_spec("music21")
    if package is None or not package.submodule_search_locations:
        raise UserError("the package music21 is not installed: pip install music21, or name a --source of your own")
    return Path(package.submodule_search_locations[0]) / "corpus"


def fingerprint(source: str) -> dict[str, str]:
    """Return name → SHA-256 of each input file of a source, or `hub:OWNER/NAME:CONFIG` → the commit's sha.

    Raises UserError for a path that is missing, empty or of no known kind, and for a data set that cannot be had.
    """
    if source.startswith(HUB):
        return _hub_fingerprint(source)
    root, files = _input_files(source)
    hashes = {}
    for path in files:
        try:
            hashes[_name(path, root)] = file_sha256(path)
        except PermissionError:
            if path == root:
                raise
            hashes[_name(path, root)] = "no permission to read"
    return hashes


def name_sources(sources: Sequence[str]) -> list[str]:
    """Return a name for each source that says nothing of the machine: a path's last part, numbered if it comes twice.

    With the fingerprints, these names decide what is read.
    """
    names: list[str] = []
    known: Counter[str] = Counter()
    for source in sources:
        path = Path(source)
        local = source != BUNDLED and not source.startswith(HUB)
        name = (path.resolve() if path.is_dir() else path).name if local else source
        known[name] += 1
        names.append(name if known[name] == 1 else f"{name} ({known[name]})")
    return names


def file_sha256(path: Path) -> str:
    """Return the hash of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_source(
    source: str, inputs: dict[str, str], reading: Reading, text_column: str | None, workers: int
) -> Iterator[Block]:
    """Yield the tunes of a source in the order of its files' names (a .tar: of its members) and fill `reading`.

    `inputs` is the source's fingerprint; a data set is read at that commit. `text_column` names the column of tables
    that holds the ABC; without it, it is the first of TEXT_COLUMNS. Scores are converted `workers` at a time.

    Raises UserError as `fingerprint` does, for a table without such a column, and for MusicXML or kern without music21.
    """
    if source.startswith(HUB):
        yield from _read_hub(source, inputs, reading, text_column)
        return
    root, files = _input_files(source)
    if root.is_dir() and source != BUNDLED:
        known = set(files)
        for path in _walk(root):
            if path.is_dir() and not path.is_symlink():
                reading.drop("no permission to read", _name(path, root))
            elif path.is_symlink() or not path.is_file():
                reading.drop("link or device", _name(path, root))
            elif path not in known:
                reading.drop(_unknown(path.name), _name(path, root))
    reader = _Reader(root, reading, text_column)
    items = (item for path in files for item in reader.file(path))
    for item in convert_scores(items, workers):
        yield from reader.converted(item) if isinstance(item, Conversion) else [item]


def decode(block: Block) -> str:
    """Return a block as text: strict UTF-8, else the declared charset, else cp1252. A BOM stays as \\ufeff.

    Control characters from \\x80 on, which no text has, are letters of DOS (code page 850) that were read as Latin-1.
    """
    text = block.content if isinstance(block.content, str) else _decode(block.content, block.charset)
    return text.translate(DOS_LETTERS) if CONTROLS.search(text) else text


def _decode(content: bytes, charset: str | None = None) -> str:
    for encoding in ("utf-8", charset or "utf-8"):
        try:
            return content.decode(encoding)
        except (UnicodeError, LookupError):
            continue
    return content.decode("cp1252", errors="replace")


def _suffix(name: str) -> str:
    """Return the ending that tells a file's kind, `.tar.gz` rather than `.gz`, or "" if the kind is not known."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    return next((ending for ending in ("".join(suffixes[-2:]), "".join(suffixes[-1:])) if ending in KINDS), "")


def _unknown(name: str) -> str:
    """Return the reason under which a file of no known kind is counted; only what looks like an ending is named."""
    ending = re.search(r"\.[a-z0-9]{1,8}$", name.lower())
    return f"not a known kind ({ending[0] if ending else 'no ending'})"


def _walk(root: Path) -> Iterator[Path]:
    closed: list[OSError] = []
    for folder, names, files in os.walk(root, onerror=closed.append):
        names.sort()
        yield from (Path(folder) / name for name in sorted(files))
    yield from (Path(error.filename) for error in closed)  # folders that may not be looked into


def _input_files(source: str) -> tuple[Path, list[Path]]:
    """Return the file or folder that a source names, and the files of known kinds in it, sorted by name."""
    root = bundled_folder() if source == BUNDLED else Path(source)
    if root.is_file():
        if not _suffix(root.name):
            raise UserError(f"--source {source}: not a known kind of file; known are {', '.join(KINDS)}")
        return root, [root]
    if not root.is_dir():
        raise UserError(f"--source {source}: no such file or folder (bundled, a path, or {HUB}OWNER/NAME)")
    suffixes = {".abc"} if source == BUNDLED else set(KINDS)
    files = sorted(
        path for path in _walk(root) if _suffix(path.name) in suffixes and path.is_file() and not path.is_symlink()
    )
    if not files:
        raise UserError(f"--source {source}: no file of a known kind in it; known are {', '.join(sorted(suffixes))}")
    return root, files


def _name(path: Path, root: Path) -> str:
    name = path.name if path == root else path.relative_to(root).as_posix()
    return os.fsencode(name).decode(errors="replace")  # a name that is no text could not be written down


class _Reader:
    """Reads the files of one path; an item is a Block or a Score still to be converted."""

    def __init__(self, root: Path, reading: Reading, text_column: str | None) -> None:
        self.root = root
        self.reading = reading
        self.text_column = text_column

    def file(self, path: Path) -> Iterator[Block | Score]:
        name = _name(path, self.root)
        if KINDS[_suffix(name)] == "archive":
            members = self.zip if _suffix(name) == ".zip" else self.tar
            with self.damage_counted("damaged archive", name):
                yield from members(path, name)
        else:
            try:
                stream = path.open("rb")
            except PermissionError:
                self.reading.drop("no permission to read", name)
                return
            with stream:
                yield from self.member(name, stream)

    @contextmanager
    def damage_counted(self, reason: str, name: str) -> Iterator[None]:
        try:
            yield
        except (*DAMAGE, UnicodeError):
            self.reading.drop(reason, name)

    def zip(self, path: Path, name: str) -> Iterator[Block | Score]:
        with zipfile.ZipFile(path) as archive:
            for info in sorted(archive.infolist(), key=lambda info: info.filename):
                bomb = info.file_size > max(BOMB_SIZE, BOMB_RATIO * info.compress_size)
                member = f"{name}/{info.filename}"
                if info.filename.endswith("/") or not self.known(member, bomb):
                    continue
                if info.flag_bits & 1:
                    self.reading.drop("encrypted member", member)
                elif stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                    self.reading.drop("link or device", member)
                else:
                    with self.damage_counted("damaged member", member), archive.open(info) as stream:
                        yield from self.member(member, stream)

    def tar(self, path: Path, name: str) -> Iterator[Block | Score]:
        limit = max(BOMB_SIZE, BOMB_RATIO * path.stat().st_size)
        opened = path.open("rb") if _suffix(name) == ".tar" else gzip.GzipFile(path)
        with opened as stream, tarfile.open(fileobj=stream, mode="r|", errors="replace") as archive:
            for info in archive:
                archive.members.clear()  # type: ignore[attr-defined]  # a million headers fill the memory
                name_inside = f"{name}/{info.name}"
                if info.offset_data + info.size > limit:
                    self.reading.drop("unpacks too much", name_inside)
                    return  # the next member's header stands behind what would have to be unpacked
                if info.isdir():
                    continue
                if not info.isfile():
                    self.reading.drop("link or device", name_inside)
                elif self.known(name_inside, bomb=False):
                    member = archive.extractfile(info)
                    assert member is not None  # it is a regular file
                    parquet = _suffix(info.name) == ".parquet"
                    with member, _seekable(member) if parquet else member as content:
                        yield from self.member(name_inside, content)

    def known(self, name: str, bomb: bool) -> bool:
        """Tell whether a member is to be read; count it if not."""
        suffix = _suffix(name)
        reason = None
        if KINDS.get(suffix) == "archive":
            reason = "archive inside an archive"
        elif not suffix:
            reason = _unknown(name)
        elif bomb:
            reason = "unpacks too much"
        if reason:
            self.reading.drop(reason, name)
        return reason is None

    def member(self, name: str, stream: IO[bytes]) -> Iterator[Block | Score]:
        suffix = _suffix(name)
        self.reading.files += 1
        if KINDS[suffix] == "text":
            yield from self.text(name, stream)
        elif KINDS[suffix] == "table":
            yield from self.table(name, suffix, stream)
        else:
            data = stream.read(MAX_SCORE + 1)
            self.reading.bytes += len(data)
            yield Score(name, suffix, data)

    def collection(self, name: str) -> str:
        first = PurePosixPath(name).parts[0] if "/" in name or self.root.is_file() else self.root.resolve().name
        source = first[: len(first) - len(_suffix(first))]
        if source in LICENCES:
            self.reading.licences[source] = LICENCES[source]
        return source

    def text(self, name: str, stream: IO[bytes]) -> Iterator[Block]:
        source, charset, line = self.collection(name), None, 1
        defaults: dict[str, str] | None = None

        def skip(reason: str, piece: bytes) -> None:
            nonlocal line
            line += _line_ends(piece)
            self.reading.skip(reason, name, len(piece))

        for piece in _whole_tunes(_chunks(stream, self.reading), skip):
            if b"\0" in piece:
                skip("not text", piece)
                continue
            declared = CHARSET.search(piece) if b"abc-charset" in piece else None  # the search alone is slow
            charset = declared[1].decode("ascii", errors="replace").lower() if declared else charset
            if defaults is None:
                defaults = _file_header(piece, charset)
            yield Block(source, name, piece, charset, defaults=defaults, line=line)
            line += _line_ends(piece)

    def table(self, name: str, suffix: str, stream: IO[bytes]) -> Iterator[Block]:
        try:
            rows = table_rows(suffix, stream, _decode)
            yield from _row_blocks(rows, name, self.collection(name), self.reading, self.text_column)
        except NoTextColumnError as error:
            if self.root.is_file() and self.root.name == name:
                raise UserError(f"--source {self.root}: {error}; name it with --text_column") from None
            self.reading.drop("table without a text column", name)
        except (*DAMAGE, ValueError, csv.Error, RecursionError, pyarrow.ArrowException):
            self.reading.drop("damaged table", name)

    def converted(self, result: Conversion) -> Iterator[Block]:
        counts = self.reading.converted.setdefault(result.kind, Counter())
        counts["tried"] += 1
        counts[result.failure or "converted"] += 1
        counts += Counter({"percussion parts left out": result.percussion})
        if result.failure is not None:
            self.reading.dropped.add(f"{result.kind}: {result.failure}", result.name)
        else:
            yield Block(self.collection(result.name), result.name, result.abc)


@contextmanager
def _seekable(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    """Give a copy of a stream that can be read from its end, as parquet is."""
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy)
        yield copy


def _file_header(content: bytes, charset: str | None) -> dict[str, str]:
    """Return the fields before the first tune that hold for all of them, by letter (ABC 2.1, section 2.2.2)."""
    content = content.removeprefix(codecs.BOM_UTF8)
    first = FIRST_TUNE.search(content)
    before = _decode(content[: first.start()], charset) if first else ""
    found: dict[str, str] = {}
    for line in before.splitlines():
        letter, _, value = line.partition("%")[0].partition(":")
        if letter in FILE_FIELDS and value.strip():
            several = f"{found[letter]}\nU:" if letter == "U" and letter in found else ""
            found[letter] = several + value.strip()
    return found


def _chunks(stream: IO[bytes], reading: Reading) -> Iterator[bytes]:
    """Yield a stream piece by piece; UTF-16 (told by its BOM) becomes UTF-8."""
    piece = stream.read(CHUNK)
    wide = piece.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    decoder = codecs.getincrementaldecoder("utf-16")("replace") if wide else None
    while piece:
        reading.bytes += len(piece)
        yield decoder.decode(piece).encode() if decoder else piece
        piece = stream.read(CHUNK)
    if decoder:
        yield decoder.decode(b"", final=True).encode()


def _line_ends(piece: bytes) -> int:
    return max(piece.count(b"\n"), piece.count(b"\r"))


def _whole_tunes(chunks: Iterable[bytes], skip: Callable[[str, bytes], None]) -> Iterator[bytes]:
    """Yield pieces of about BLOCK bytes, each from a line `X:` (the first from the start) to before another one.

    Where no tune starts by `X:`, a piece ends behind a blank line. A tune longer than that is skipped; `skip` is
    given its bytes, and what was at hand when the chunks broke off.
    """
    buffer, skipping = b"", False
    try:
        for chunk in chunks:
            buffer += chunk
            if skipping:
                start = min((i + 1 for i in map(buffer.find, (b"\nX:", b"\rX:")) if i >= 0), default=0)
                rest = start or max(0, len(buffer) - 2)  # a start may stand across two chunks
                skip("tune longer than 1 MB", buffer[:rest])
                buffer, skipping = buffer[rest:], not start
            if len(buffer) >= BLOCK:
                start = max(map(buffer.rfind, (b"\nX:", b"\rX:"))) + 1
                start = start or max((blank.end() for blank in BLANK_LINE.finditer(buffer)), default=0)
                if start:
                    yield buffer[:start]
                    buffer = buffer[start:]
                else:
                    skipping = True
                    skip("tune longer than 1 MB", buffer[:-2])
                    buffer = buffer[-2:]
        if skipping:
            skip("tune longer than 1 MB", buffer)
        elif buffer:
            yield buffer
    except (*DAMAGE, UnicodeError):
        skip("damaged", buffer)
        raise


def _row_blocks(
    rows: Iterable[Row | str], name: str, source: str, reading: Reading, wanted: str | None
) -> Iterator[Block]:
    """Yield a Block for each row of a table that holds text. Raises NoTextColumnError if no column does."""
    column, session = "", False
    for number, row in enumerate(rows):
        place = f"{name}, row {number}"
        if isinstance(row, str):
            reading.drop(row, place)
            continue
        if not column:
            column = text_column(row, wanted)
            session = wanted is None and is_session(row)
            source = SESSION if session else source
            if session:
                reading.licences[SESSION] = LICENCES[SESSION]
        text = row.get(column)
        if not isinstance(text, str) or not text.strip():
            reading.drop("row without text", place)
            continue
        reading.bytes += len(text.encode(errors="replace"))
        if len(text) > ROW_LIMIT:
            reading.drop("row longer than 1 MB", place)
            continue
        group = None
        if session:
            row = with_present_names(row)
            group = f"{SESSION}:{row['tune_id']}" if row.get("tune_id") else None
        content = session_tune(row) if session else row_tune(text)
        yield Block(source, place, content, group=group)


def _hub_parts(source: str) -> tuple[str, str | None]:
    repository, _, config = source.removeprefix(HUB).partition(":")
    return repository, config or None


def _hub_fingerprint(source: str) -> dict[str, str]:
    repository, config = _hub_parts(source)
    with _hub_errors(source):
        from datasets import get_dataset_config_names
        from huggingface_hub import HfApi

        sha = HfApi().dataset_info(repository, timeout=30).sha
        configs = get_dataset_config_names(repository, revision=sha)
    config = config or ("default" if "default" in configs or len(configs) != 1 else configs[0])
    if config not in configs:
        raise UserError(f"--source {source}: name one of its configs, {HUB}{repository}:CONFIG ({', '.join(configs)})")
    return {f"{HUB}{repository}:{config}": str(sha)}


@contextmanager
def _hub_errors(source: str) -> Iterator[None]:
    """Turn what the Hub's client raises into one line."""
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
    from huggingface_hub import errors

    try:
        yield
    except errors.OfflineModeIsEnabled:
        raise UserError(f"--source {source}: HF_HUB_OFFLINE is set; unset it, or name files of your own") from None
    except errors.HFValidationError:
        raise UserError(f"--source {source}: not a name on the Hub; write {HUB}OWNER/NAME") from None
    except (errors.RepositoryNotFoundError, DatasetNotFoundError):
        raise UserError(f"--source {source}: the Hub has no such data set, or `hf auth login` comes first") from None
    except (errors.HTTPError, OSError, ValueError, DatasetGenerationError) as error:  # type: ignore[attr-defined]
        cause = " ".join(str(error).split())[:200]
        raise UserError(f"--source {source}: the Hub gives no data ({cause}); the same command tries again") from None


def _read_hub(source: str, inputs: dict[str, str], reading: Reading, text_column: str | None) -> Iterator[Block]:
    ((name, sha),) = inputs.items()
    repository, config = _hub_parts(name)
    with _hub_errors(source):
        from datasets import load_dataset
        from huggingface_hub import HfApi

        card = HfApi().dataset_info(repository, revision=sha, timeout=30).card_data
        licence = card.get("license") if card is not None else None
        reading.licences[repository] = str(licence or "not stated on its card")
        splits = load_dataset(repository, config, revision=sha, streaming=True)
    for split, rows in splits.items():
        reading.files += 1
        blocks = _row_blocks(rows, split, repository, reading, text_column)
        while True:
            with _hub_errors(source):
                try:
                    block = next(blocks, None)
                except NoTextColumnError as error:
                    raise UserError(f"--source {source}: {error}; name it with --text_column") from None
            if block is None:
                break
            yield block
