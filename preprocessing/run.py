"""Build a corpus from raw music.

Tunes are read, cleaned, split by family into train, validation and test, and written to --output_dir.
"""

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cli
from cli import UserError, option
from files import check_output
from preprocessing.blocks import Reading
from preprocessing.header_fields import FIELD_ORDER
from preprocessing.sources import BUNDLED, fingerprint, name_sources, read_source
from preprocessing.transposition import SHIFTS
from preprocessing.tunes import Policy

MAX_SHOWN = 6  # reasons on the screen; stats.json has all


@dataclass
class PreprocessingArguments:
    """What decides the corpus."""

    source: list[str] = option(
        [BUNDLED],
        "one or several of: 'bundled' (the ABC that music21 carries); a file, folder or archive (.zip, .tar, .tar.gz) "
        "of .abc, .txt, .mid, .musicxml, .mxl or .krn; a .parquet, .json, .jsonl or .csv table; The Session's tunes.csv"
        " or tunes.json (its licence forbids training language models since 2025-10-08); 'hub:OWNER/NAME[:config]'",
    )
    output_dir: str = option("data/processed_music_data", "folder of the corpus")
    text_column: str | None = option(
        None, "column of a table that holds the ABC (else 'abc notation', 'abc' or 'text')"
    )
    keep_fields: str = option("XRMLK", f"header fields that a model sees, of {FIELD_ORDER}")
    transpose: str = option("0", "further keys for the training tunes: a number, easiest to read first, or 'all'")
    interleave_voices: bool = option(False, "write the voices of a tune bar by bar, not one after the other")
    vocabulary: str | None = option(
        None, "corpus or model (folder or Hub id) whose vocabulary is kept; other characters become <unk>"
    )
    context: int = option(256, "model_max_length of the tokenizer, in characters", least=2, most=1_000_000)
    num_proc: int = option(
        os.cpu_count() or 1, "worker processes; the output does not depend on it", least=1, most=1024
    )

    def __post_init__(self) -> None:
        self.policy = Policy(self.keep_fields, self.interleave_voices)
        if self.transpose not in ("all", *map(str, range(len(SHIFTS) + 1))):
            raise UserError(f"--transpose {self.transpose}: a number from 0 to {len(SHIFTS)}, or all")
        if self.transpose != "0" and not {"M", "L"} <= set(self.keep_fields):
            raise UserError(f"--keep_fields {self.keep_fields}: transposing needs M and L among them")
        if not all(self.source):
            raise UserError("--source: one of them is empty")

    @property
    def keys(self) -> int:
        """Number of further keys of the training tunes."""
        return len(SHIFTS) if self.transpose == "all" else int(self.transpose)


def build(arguments: PreprocessingArguments) -> dict[str, Any] | None:
    """Build the corpus and return its statistics; None if it is there already."""
    # Imports of seconds that workers do not need
    from preprocessing.building import CorpusOptions, build_corpus, describe_build
    from preprocessing.corpus import read_manifest, read_vocabulary

    folder = Path(arguments.output_dir)
    check_output(folder, mark="manifest.json")
    vocabulary = read_vocabulary(arguments.vocabulary) if arguments.vocabulary else None
    inputs = [fingerprint(source) for source in arguments.source]
    names = name_sources(arguments.source)  # the manifest is published: it holds no path of this machine
    decisive = {name: value for name, value in asdict(arguments).items() if name not in ("output_dir", "num_proc")}
    decisive["source"] = names
    if arguments.vocabulary and Path(arguments.vocabulary).is_dir():
        decisive["vocabulary"] = Path(arguments.vocabulary).resolve().name
    manifest = describe_build(dict(zip(names, inputs, strict=True)), decisive, vocabulary)
    if (folder / "manifest.json").is_file():
        before = read_manifest(folder)
        if all(before.get(name) == value for name, value in manifest.items()):
            return None
    reading = Reading()
    blocks = (
        block
        for source, hashes in zip(arguments.source, inputs, strict=True)
        for block in read_source(source, hashes, reading, arguments.text_column, arguments.num_proc)
    )
    options = CorpusOptions(arguments.policy, arguments.context, arguments.keys, vocabulary)
    context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    with ProcessPoolExecutor(arguments.num_proc, context, initializer=end_with_parent) as pool:
        try:
            return build_corpus(folder, blocks, reading, options, manifest, pool)
        except BrokenProcessPool:
            raise UserError("a worker process died, most likely out of memory: try a smaller --num_proc") from None


def end_with_parent() -> None:
    """Let a worker end when its parent process is gone, even if that was killed."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def run(arguments: PreprocessingArguments) -> None:
    from preprocessing.corpus import warn_of_unknown

    stats = build(arguments)
    if stats is None:
        print(f"{arguments.output_dir}: finished already, nothing to do")
        return
    print_summary(stats)
    warn_of_unknown(stats)
    print(f"{arguments.output_dir}: written; see its README.md")


def print_summary(stats: dict[str, Any]) -> None:
    """Print the size of a new corpus and what was left out."""
    similarity, transposed, reading = stats["similarity"], stats["transposed"], stats["reading"]
    sizes = [f"{split} {n:,} tunes ({stats['characters'][split]:,} characters)" for split, n in stats["tunes"].items()]
    print(", ".join(sizes))
    print(
        f"{stats['families']:,} families; a random split would have leaked "
        f"{similarity['random_split_leaked_test_tunes']:,} of {similarity['random_split_test_tunes']:,} test tunes"
    )
    print(f"{stats['vocabulary_size']} tokens in the vocabulary")
    if transposed["tunes"]:
        print(f"transposed: {transposed['tunes']:,} further training tunes ({_listed(transposed['failures'])})")
    for kind, counts in reading["converted"].items():
        print(f"{kind}: {counts['converted']:,} of {counts['tried']:,} files converted")
    print(f"dropped tunes: {_listed(stats['drops'])}")
    left_out = {**reading["drops"], **{f"bytes {reason}": n for reason, n in reading["skipped_bytes"].items()}}
    if left_out:
        print(f"left out before any tune was read: {_listed(left_out)}")
    account = stats["characters_accounted"]
    most = dict(list(account["dropped"].items())[:MAX_SHOWN])
    print(f"characters: {account['read']:,} read, {account['kept']:,} kept; most dropped: {_listed(most)}")


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items()) or "none"


def main() -> None:
    cli.main(run, PreprocessingArguments, about=__doc__)


if __name__ == "__main__":
    main()
