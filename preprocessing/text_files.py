"""Text files of ABC: cut into blocks between tunes with bounded memory, and decoded."""

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import IO

from preprocessing.blocks import DAMAGE, Block, Reading

BLOCK = 1 << 20  # bytes; a longer tune is left out
CHUNK = 1 << 18
TOO_LONG = "tune longer than 1 MB"

FIRST_TUNE = re.compile(rb"(?:^|[\r\n])X:")
BLANK_LINE = re.compile(rb"\r\n\r\n|\n\n|\r\r")
CHARSET = re.compile(rb"(?:^|[\r\n])(?:%%|I:)abc-charset[ \t]+([\w.:-]+)")
FILE_FIELDS = ("L", "M", "R", "U")
CONTROLS = re.compile("[\x80-\x84\x86-\x9f]")  # \x85 is also a line end
DOS_LETTERS = {code: bytes([code]).decode("cp850") for code in (*range(0x80, 0xA0), 0xE1)}  # 0xE1 is ß


def text_blocks(name: str, source: str, stream: IO[bytes], reading: Reading) -> Iterator[Block]:
    """Yield the blocks of a text file, each of whole tunes; every byte is yielded or counted in `reading`.

    Raises what the stream raises, one of DAMAGE for a damaged archive.
    """
    charset: str | None = None
    defaults: dict[str, str] | None = None
    line = 1
    for piece, reason in _pieces(_chunks(stream, reading)):
        if reason is None and b"\0" in piece:
            reason = "not text"
        if reason is not None:
            reading.skip(reason, name, len(piece))
        else:
            declared = CHARSET.search(piece) if b"abc-charset" in piece else None  # the search alone is slow
            charset = declared[1].decode("ascii", errors="replace").lower() if declared else charset
            if defaults is None:
                defaults = _file_header(piece, charset)
            yield Block(source, name, piece, charset, defaults=defaults, line=line)
        line += max(piece.count(b"\n"), piece.count(b"\r"))


def decode(block: Block) -> str:
    r"""Return a block as text; a byte order mark stays as \ufeff.

    Control characters from \x80 on, which no text has, are letters of code page 850 that were read as Latin-1.
    """
    text = block.content if isinstance(block.content, str) else decode_bytes(block.content, block.charset)
    return text.translate(DOS_LETTERS) if CONTROLS.search(text) else text


def decode_bytes(content: bytes, charset: str | None = None) -> str:
    """Decode strict UTF-8, else the declared charset, else cp1252."""
    for encoding in ("utf-8", charset or "utf-8"):
        try:
            return content.decode(encoding)
        except (UnicodeError, LookupError):
            continue
    return content.decode("cp1252", errors="replace")


def _file_header(content: bytes, charset: str | None) -> dict[str, str]:
    """Return the fields before the first tune that hold for all tunes, by letter (ABC 2.1, section 2.2.2).

    The value of U: is all U: fields of the header, as lines.
    """
    content = content.removeprefix(codecs.BOM_UTF8)
    first = FIRST_TUNE.search(content)
    header = decode_bytes(content[: first.start()], charset) if first else ""
    found: dict[str, str] = {}
    for line in header.splitlines():
        letter, _, value = line.partition("%")[0].partition(":")
        if letter in FILE_FIELDS and value.strip():
            earlier = f"{found[letter]}\nU:" if letter == "U" and letter in found else ""
            found[letter] = earlier + value.strip()
    return found


def _chunks(stream: IO[bytes], reading: Reading) -> Iterator[bytes]:
    """Yield a stream chunk by chunk; UTF-16 (recognised by its byte order mark) becomes UTF-8."""
    chunk = stream.read(CHUNK)
    wide = chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    decoder = codecs.getincrementaldecoder("utf-16")("replace") if wide else None
    while chunk:
        reading.bytes += len(chunk)
        yield decoder.decode(chunk).encode() if decoder else chunk
        chunk = stream.read(CHUNK)
    if decoder:
        yield decoder.decode(b"", final=True).encode()


def _pieces(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, str | None]]:
    """Yield pieces of about BLOCK bytes, each of whole tunes, with the reason to skip the piece, if there is one.

    A piece ends before a line `X:`; where there is none, behind a blank line. A tune longer than BLOCK is skipped, and
    so is the unfinished piece where the chunks break off (the error is raised again).
    """
    buffer, skipping = b"", False
    try:
        for chunk in chunks:
            buffer += chunk
            if skipping:
                start = min((i + 1 for i in map(buffer.find, (b"\nX:", b"\rX:")) if i >= 0), default=0)
                end = start or max(0, len(buffer) - 2)  # a tune's start may lie across two chunks
                yield buffer[:end], TOO_LONG
                buffer, skipping = buffer[end:], not start
            if len(buffer) >= BLOCK:
                start = max(map(buffer.rfind, (b"\nX:", b"\rX:"))) + 1
                start = start or max((blank.end() for blank in BLANK_LINE.finditer(buffer)), default=0)
                skipping = not start
                end = start or len(buffer) - 2
                yield buffer[:end], TOO_LONG if skipping else None
                buffer = buffer[end:]
        if buffer:
            yield buffer, TOO_LONG if skipping else None
    except DAMAGE:
        yield buffer, "damaged"
        raise
