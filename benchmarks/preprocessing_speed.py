"""Seconds and MB/s of each stage of the bundled build, beside a plain `datasets.map` version of the same work.

python -m benchmarks.preprocessing_speed [--rounds 3] [--num_proc 2]
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

from preprocessing.cleaning import clean_tune, reason_to_drop
from preprocessing.families import melody_hash
from preprocessing.notation import judge, split_tunes
from preprocessing.run import PreprocessingArguments, build
from preprocessing.sources import BUNDLED, Block, Reading, decode, fingerprint, read_source
from preprocessing.transposition import SHIFTS
from preprocessing.tunes import Candidate, Policy, Tally, read_blocks, transpose_tunes

KEEP = "XRMLK"


def read() -> list[Block]:
    """The bundled tunes as blocks of bytes."""
    return list(read_source(BUNDLED, fingerprint(BUNDLED), Reading(), None, 1))


def row_of(row: dict[str, Any]) -> dict[str, Any]:
    """The plain version's work on one raw tune: the same cleaning and the same verdict."""
    clean = clean_tune(row["raw"], KEEP)
    verdict = judge(clean.whole)
    return {
        "text": clean.text,
        "reason": reason_to_drop(verdict, clean.ledger) or "",
        "family": melody_hash(verdict.pitches),
        "notes": len(verdict.pitches),
        "bars": verdict.bars,
    }


def plain(raws: list[str], num_proc: int) -> None:
    """Clean, judge, filter and tokenise with datasets.map and the tokenizer, one tune at a time."""
    from datasets import Dataset, disable_caching

    from preprocessing.tokens import build_tokenizer, build_vocabulary

    disable_caching()
    rows = Dataset.from_dict({"raw": raws}).map(row_of, num_proc=num_proc, remove_columns=["raw"])
    rows = rows.filter(lambda row: not row["reason"], num_proc=num_proc)
    tokenizer = build_tokenizer(build_vocabulary(rows["text"]), 256)
    rows = rows.map(lambda batch: {"input_ids": tokenizer(batch["text"])["input_ids"]}, batched=True, num_proc=num_proc)
    with tempfile.TemporaryDirectory() as folder:
        rows.to_parquet(Path(folder) / "rows.parquet")


def ours(num_proc: int, transpose: str = "0") -> None:
    """The whole build by the door: families, splits, token streams, figures and card included."""
    with tempfile.TemporaryDirectory() as folder:
        build(PreprocessingArguments(output_dir=f"{folder}/corpus", num_proc=num_proc, transpose=transpose))


def timed(work: Callable[[], object], rounds: int) -> float:
    """Median seconds of some rounds."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main() -> None:
    """Print the tables."""
    from preprocessing.corpus import split_by_family  # worker processes import this file too, and need none of these
    from preprocessing.tokens import build_vocabulary, encode_stream
    from training.measurements import cpu_name

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num_proc", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    blocks = read()
    texts = [decode(block).replace("\r\n", "\n") for block in blocks]
    raws = [raw for text in texts for raw in split_tunes(text)]
    cleaned = [clean_tune(raw, KEEP) for raw in raws]
    candidates: list[Candidate] = read_blocks(blocks, Policy(KEEP))[0]
    tunes = [candidate.tune for candidate in candidates]
    vocabulary = build_vocabulary(tune.text for tune in tunes)
    size = sum(len(raw) for raw in raws) / 1e6
    stages: dict[str, tuple[Callable[[], object], float]] = {
        "read and decode": (lambda: [decode(block) for block in read()], size),
        "split into tunes": (lambda: [list(split_tunes(text)) for text in texts], size),
        "clean": (lambda: [clean_tune(raw, KEEP) for raw in raws], size),
        "judge (notation)": (lambda: [judge(tune.whole) for tune in cleaned], sum(len(t.whole) for t in cleaned) / 1e6),
        "all of these, with shingles": (lambda: read_blocks(blocks, Policy(KEEP)), size),
        "families and splits": (lambda: split_by_family(candidates, Tally()), size),
        "transpose 1,000 tunes × 11, verified": (
            lambda: transpose_tunes(tunes[:1000], len(SHIFTS)),
            len(SHIFTS) * sum(len(tune.text) for tune in tunes[:1000]) / 1e6,
        ),
        "encode": (
            lambda: encode_stream((tune.text for tune in tunes), vocabulary),
            sum(len(tune.text) for tune in tunes) / 1e6,
        ),
    }
    print(f"{cpu_name()}, {os.cpu_count()} cores; Python {platform.python_version()}")
    print(", ".join(f"{name} {version(name)}" for name in ("datasets", "tokenizers", "datasketch", "numpy")))
    print(f"{len(raws):,} tunes, {size:.2f} M characters; medians of {options.rounds} rounds\n")
    print("| stage (one core) | seconds | MB/s |\n|---|---|---|")
    for name, (work, megabytes) in stages.items():
        seconds = timed(work, options.rounds)
        print(f"| {name} | {seconds:.2f} | {megabytes / seconds:.1f} |", flush=True)
    whole = {
        f"this build, {options.num_proc} processes, with families, streams, figures": partial(ours, options.num_proc),
        "the same with all keys": partial(ours, options.num_proc, "all"),
        f"datasets.map, {options.num_proc} processes, without families": partial(plain, raws, options.num_proc),
    }
    print("\n| whole | seconds |\n|---|---|")
    for name, work in whole.items():
        print(f"| {name} | {timed(work, options.rounds):.1f} |", flush=True)


if __name__ == "__main__":
    main()
