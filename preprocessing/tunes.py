"""From raw blocks to rows: each tune cleaned, judged and described, each character accounted for.

Worker processes run this module, so that it imports nothing that takes long.
"""

import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from typing import TypeVar

from cli import UserError
from preprocessing.abc_lexer import FIELD, TUNE_START, split_tunes
from preprocessing.abc_reader import judge
from preprocessing.blocks import Block, DroppedNames
from preprocessing.cleaning import clean_tune, reason_to_drop
from preprocessing.families import Melody, melody_of
from preprocessing.header_fields import FIELD_ORDER, HEADER_FIELDS
from preprocessing.ledger import Ledger
from preprocessing.text_files import decode
from preprocessing.transposition import Transposable, TranspositionError, is_transposed, shifts
from preprocessing.voices import VoicesError, interleave_voices

Item = TypeVar("Item")
Result = TypeVar("Result")

LINES = re.compile(r"[^\n]*\n|[^\n]+")
NUMBER = re.compile(r"^X:[ \t]*(\S*)", re.MULTILINE)
PARAGRAPH = re.compile(r"(?:^.*\S.*(?:\n|\Z))+", re.MULTILINE)
NO_TUNE, OUTSIDE = "text without a tune", "outside any tune"
BATCH_CHARACTERS = 200_000  # of a worker's task


@dataclass(frozen=True)
class TuneRow:
    """One row of the corpus; the fields are the columns of the DatasetDict.

    `shift` is the transposition in semitones, 0 for a tune as it was found; `family` is set once all tunes are known.
    """

    text: str
    title: str
    key: str
    metre: str
    rhythm: str
    notes: int
    bars: int
    bad_bars: int
    lowest: int  # MIDI pitch
    highest: int
    source: str
    file: str
    family: str = ""
    shift: int = 0


@dataclass(frozen=True)
class Candidate:
    """A tune that may go into the corpus, with what decides its split and what it cost in characters.

    `name` is its number and title, to be found by in its file.
    """

    tune: TuneRow
    name: str
    melody: Melody
    raw_characters: int
    ledger: Ledger


@dataclass
class Tally:
    """What was read and what was dropped: whole tunes by reason, counted and named, and every character.

    `changed` counts the tunes that are kept by what was changed in them, `texts` what is no tune by reason: whole
    texts, and paragraphs of music outside any tune.
    """

    tunes: int = 0
    texts: Counter[str] = field(default_factory=Counter)
    drops: Counter[str] = field(default_factory=Counter)
    dropped: DroppedNames = field(default_factory=DroppedNames)
    changed: Counter[str] = field(default_factory=Counter)
    characters: int = 0
    ledger: Ledger = field(default_factory=Ledger)

    def drop_tune(self, reason: str, file: str, name: str, characters: int) -> None:
        """Count a tune as dropped, with all its characters, and name it."""
        self.drops[reason] += 1
        self.dropped.add(reason, file, name)
        self.ledger.drop(f"tunes: {reason}", characters)

    def drop(self, candidate: Candidate, reason: str) -> None:
        """Count a candidate as dropped."""
        self.drop_tune(reason, candidate.tune.file, candidate.name, candidate.raw_characters)

    def drop_text(self, reason: str, file: str, *name: str) -> None:
        """Count a text that is no tune."""
        self.texts[reason] += 1
        self.dropped.add(reason, file, *name)

    def keep(self, candidate: Candidate) -> None:
        """Count what was changed in a candidate that is kept."""
        self.ledger.add(candidate.ledger)
        self.changed.update(candidate.ledger.dropped.keys() | candidate.ledger.added.keys())

    def add(self, other: "Tally") -> None:
        """Add what another has counted."""
        self.tunes += other.tunes
        self.texts.update(other.texts)
        self.drops.update(other.drops)
        self.dropped.include(other.dropped)
        self.changed.update(other.changed)
        self.characters += other.characters
        self.ledger.add(other.ledger)


@dataclass(frozen=True)
class Policy:
    """What of a tune a model sees."""

    keep_fields: str  # letters of HEADER_FIELDS
    interleave_voices: bool = False

    def __post_init__(self) -> None:
        unknown = "".join(letter for letter in self.keep_fields if letter not in HEADER_FIELDS)
        if unknown or "K" not in self.keep_fields:
            problem = f"unknown {unknown!r}" if unknown else "K is missing"
            raise UserError(f"--keep_fields {self.keep_fields}: {problem}; give letters of {FIELD_ORDER}, K among them")


def read_blocks(blocks: list[Block], policy: Policy) -> tuple[list[Candidate], Tally]:
    """Return the tunes of some blocks that are music, and the count of everything else."""
    candidates: list[Candidate] = []
    tally = Tally()
    for block in blocks:
        text = _decoded(block, tally)
        outside: list[tuple[int, str]] = []  # where it begins, and the text
        end = 0
        for raw in find_tunes(text):
            start = text.index(raw, end)
            outside.append((end, text[end:start]))
            end = start + len(raw)
            candidates += _read_tune(raw, block, text, start, policy, tally)
        outside.append((end, text[end:]))
        tally.ledger.drop(OUTSIDE, sum(len(piece) for _, piece in outside))
        music = [start + p.start() for start, piece in outside for p in PARAGRAPH.finditer(piece) if _is_music(p[0])]
        for start in music:
            tally.drop_text(f"music {OUTSIDE}", block.file, _line_of(block, text, start))
        if not (len(outside) > 1 or music) and text.strip():
            tally.drop_text(NO_TUNE, block.file)
    return candidates, tally


def _decoded(block: Block, tally: Tally) -> str:
    """Return the text of a block with plain line ends, its characters counted."""
    text = decode(block)
    tally.characters += len(text)
    tally.ledger.drop("byte order marks", text.startswith("\ufeff"))
    tally.ledger.drop("line ends of two characters", text.count("\r\n"))
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _line_of(block: Block, text: str, start: int) -> str:
    return f"line {block.line + text.count(chr(10), 0, start)}"


def _is_music(paragraph: str) -> bool:
    """Return whether a paragraph without a header would be a tune if it had one."""
    music = "\n".join(line for line in paragraph.split("\n") if not FIELD.match(line))
    return reason_to_drop(judge(f"K:C\n{music}"), Ledger()) is None


def find_tunes(text: str) -> Iterator[str]:
    """Yield the tunes of a text: those that begin by X:, and those outside them that have a header and music.

    Among tunes with X: a header is K: and another field (K: alone may belong to the tune above). Where no tune has X:,
    any field will do: without K: the tune is dropped for that, and counted.
    """
    end, numbered = 0, TUNE_START.search(text) is not None
    for tune in split_tunes(text):
        start = text.index(tune, end)
        yield from _unnumbered_tunes(text[end:start], numbered)
        yield tune
        end = start + len(tune)
    yield from _unnumbered_tunes(text[end:], numbered)


def _unnumbered_tunes(text: str, among_numbered: bool) -> Iterator[str]:
    """Yield the tunes of a text without X:. Each ends at a blank line below its music."""
    piece: list[str] = []
    letters: set[str] = set()
    music = False
    for line in [*LINES.findall(text), ""]:
        field = FIELD.match(line)
        blank, remark = not line.strip(), line.startswith("%")
        in_header = "K" in letters and not music  # a blank line may follow it
        if piece and ((field or remark) and not piece[-1].strip() if in_header else blank):
            if music and letters and (not among_numbered or {"K"} < letters):
                yield "".join(piece)
            piece, letters, music = [], set(), False
        if piece or not blank:
            piece.append(line)
            letters |= {field[1]} if field else set()
            music |= not (field or remark or blank)


def _read_tune(raw: str, block: Block, text: str, start: int, policy: Policy, tally: Tally) -> list[Candidate]:
    """Return the candidate, or none after counting the tune as dropped. It begins at `start` of its block's text."""
    tally.tunes += 1
    clean = clean_tune(raw, policy.keep_fields, block.defaults)
    number = NUMBER.search(raw)
    name = f"{number[0].replace(' ', '') if number else ''} {clean.title}".strip()
    if isinstance(block.content, bytes) and not (number and clean.title):
        name = f"{name}, {_line_of(block, text, start)}".removeprefix(", ")
    verdict, cleaned = judge(clean.whole), clean.text
    reason = reason_to_drop(verdict, clean.ledger)
    if reason is None and policy.interleave_voices:
        try:
            cleaned = clean.ledger.change("voices written bar by bar", cleaned, interleave_voices(cleaned))
        except VoicesError as error:
            reason = str(error)
    if reason is not None:
        tally.drop_tune(reason, block.file, name, len(raw))
        return []
    assert clean.ledger.balanced(len(raw), len(cleaned)), f"characters of a tune in {block.file} do not add up"
    tune = TuneRow(
        text=cleaned,
        title=clean.title,
        key=clean.header["K"],
        metre=clean.header["M"],
        rhythm=clean.header.get("R", ""),
        notes=len(verdict.pitches),
        bars=verdict.bars,
        bad_bars=len(verdict.bad_bars),
        lowest=min(verdict.pitches),
        highest=max(verdict.pitches),
        source=block.source,
        file=block.file,
    )
    melody = melody_of(verdict.pitches, block.group, verdict.staff)
    return [Candidate(tune, name, melody, len(raw), clean.ledger)]


def transpose_tunes(tunes: list[TuneRow], keys: int) -> tuple[list[TuneRow], Counter[str]]:
    """Return each tune in up to `keys` further keys, and the failures by reason.

    A transposed tune counts only if reading it gives every pitch shifted and nothing else changed.
    """
    made: list[TuneRow] = []
    failures: Counter[str] = Counter()
    for tune in tunes:
        try:
            piece, moves = Transposable(tune.text), shifts(tune.key, keys)
        except TranspositionError as error:
            failures[str(error)] += keys
            continue
        before = judge(tune.text)
        for shift in moves:
            try:
                text = piece.transposed(shift)
            except TranspositionError as error:
                failures[str(error)] += 1
                continue
            after = judge(text)
            if is_transposed(before, after, shift) and after.key:
                lowest, highest = tune.lowest + shift, tune.highest + shift
                made.append(replace(tune, text=text, key=after.key, lowest=lowest, highest=highest, shift=shift))
            else:
                failures["does not read as transposed"] += 1
    return made, failures


def batches(items: Iterable[Item], size: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Yield lists of neighbouring items of about BATCH_CHARACTERS in all."""
    batch: list[Item] = []
    total = 0
    for item in items:
        batch.append(item)
        total += size(item)
        if total >= BATCH_CHARACTERS:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def in_order(
    pool: Executor, work: Callable[..., Result], batched: Iterable[list[Item]], *arguments: object, waiting: int = 16
) -> Iterator[Result]:
    """Yield the result of each batch in order, with at most `waiting` of them in memory (Executor.map takes all)."""
    futures: deque[Future[Result]] = deque()
    for batch in batched:
        futures.append(pool.submit(work, batch, *arguments))
        if len(futures) >= waiting:
            yield futures.popleft().result()
    while futures:
        yield futures.popleft().result()
