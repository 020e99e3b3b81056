"""Seconds and MB/s of each stage of the bundled build, and of the whole build beside a plain `datasets.map` version.

python benchmarks/preprocessing_speed.py [--rounds 3] [--num_proc 2]
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from preprocessing.blocks import Block, Reading
from preprocessing.cleaning import clean_tune, reason_to_drop
from preprocessing.families import melody_hash
from preprocessing.notation import judge, split_tunes
from preprocessing.run import PreprocessingArguments, build
from preprocessing.sources import BUNDLED, fingerprint, read_source
from preprocessing.text_files import decode
from preprocessing.transposition import SHIFTS
from preprocessing.tunes import Policy, Tally, read_blocks, transpose_tunes

KEEP = "XRMLK"


def read() -> list[Block]:
    """Return the bundled tunes as blocks of bytes."""
    return list(read_source(BUNDLED, fingerprint(BUNDLED), Reading(), None, 1))


def whole_build(num_proc: int, transpose: str) -> None:
    """Build the corpus with families, splits, token streams, figures and card."""
    with tempfile.TemporaryDirectory() as folder:
        build(PreprocessingArguments(output_dir=f"{folder}/corpus", num_proc=num_proc, transpose=transpose))


def row_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return what the plain version computes of a raw tune: the same cleaning and the same verdict."""
    clean = clean_tune(row["raw"], KEEP)
    verdict = judge(clean.whole)
    return {
        "text": clean.text,
        "reason": reason_to_drop(verdict, clean.ledger) or "",
        "family": melody_hash(verdict.pitches),
        "notes": len(verdict.pitches),
        "bars": verdict.bars,
    }


def plain_build(num_proc: int) -> None:
    """Clean, judge, filter and tokenise with datasets.map, one tune at a time; no families, splits or figures."""
    from datasets import Dataset, disable_caching

    from preprocessing.tokens import build_tokenizer, build_vocabulary

    disable_caching()
    texts = [decode(block).replace("\r\n", "\n") for block in read()]
    rows = Dataset.from_dict({"raw": [raw for text in texts for raw in split_tunes(text)]})
    rows = rows.map(row_of, num_proc=num_proc, remove_columns=["raw"])
    rows = rows.filter(lambda row: not row["reason"], num_proc=num_proc)
    tokenizer = build_tokenizer(build_vocabulary(rows["text"]), 256)
    rows = rows.map(lambda batch: {"input_ids": tokenizer(batch["text"])["input_ids"]}, batched=True, num_proc=num_proc)
    with tempfile.TemporaryDirectory() as folder:
        rows.to_parquet(Path(folder) / "rows.parquet")


def stages() -> dict[str, tuple[Callable[[], object], int]]:
    """Return each stage and the characters that it works on."""
    from preprocessing.building import split_by_family  # not needed in worker processes
    from preprocessing.tokens import build_vocabulary, encode_stream

    blocks = read()
    texts = [decode(block).replace("\r\n", "\n") for block in blocks]
    raws = [raw for text in texts for raw in split_tunes(text)]
    cleaned = [clean_tune(raw, KEEP) for raw in raws]
    candidates, _ = read_blocks(blocks, Policy(KEEP))
    tunes = [candidate.tune for candidate in candidates]
    vocabulary = build_vocabulary(tune.text for tune in tunes)
    size, written = sum(map(len, raws)), sum(len(tune.text) for tune in tunes)
    return {
        "read and decode": (lambda: [decode(block) for block in read()], size),
        "split into tunes": (lambda: [list(split_tunes(text)) for text in texts], size),
        "clean": (lambda: [clean_tune(raw, KEEP) for raw in raws], size),
        "judge (notation)": (lambda: [judge(tune.whole) for tune in cleaned], sum(len(tune.whole) for tune in cleaned)),
        "all of these, with shingles": (lambda: read_blocks(blocks, Policy(KEEP)), size),
        "families and splits": (lambda: split_by_family(candidates, Tally()), size),
        "transpose 1,000 tunes × 11, verified": (
            lambda: transpose_tunes(tunes[:1000], len(SHIFTS)),
            len(SHIFTS) * sum(len(tune.text) for tune in tunes[:1000]),
        ),
        "encode": (lambda: encode_stream((tune.text for tune in tunes), vocabulary), written),
    }


def median_seconds(work: Callable[[], object], rounds: int) -> float:
    """Return the median seconds of some rounds."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> None:
    """Print the tables."""
    from training.measurements import cpu_name

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num_proc", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    print(f"{cpu_name()}, {os.cpu_count()} cores; Python {platform.python_version()}")
    print(", ".join(f"{name} {version(name)}" for name in ("datasets", "tokenizers", "datasketch", "numpy")))
    print(f"medians of {options.rounds} rounds\n\n| stage (one core) | seconds | MB/s |\n|---|---|---|")
    for name, (work, characters) in stages().items():
        seconds = median_seconds(work, options.rounds)
        print(f"| {name} | {seconds:.2f} | {characters / seconds / 1e6:.1f} |", flush=True)
    print(f"\n| whole build, {options.num_proc} processes | seconds |\n|---|---|")
    builds = {
        "this project": partial(whole_build, options.num_proc, "0"),
        "the same with all keys": partial(whole_build, options.num_proc, "all"),
        "datasets.map, without families": partial(plain_build, options.num_proc),
    }
    for name, work in builds.items():
        seconds = median_seconds(work, options.rounds)
        print(f"| {name} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
