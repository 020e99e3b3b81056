"""The dataset card, README.md of a corpus folder: dataset_card.md.j2 with the numbers of stats.json."""

import shlex
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCardData

from files import render
from preprocessing.sources import NON_COMMERCIAL

UNKNOWN_LICENCE = "unknown: ask its authors"
MAX_ROWS = 12  # of a table, the rest is summed
SIZES = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M")]


def dataset_card(stats: dict[str, Any], manifest: dict[str, Any], location: str = "path/to/this/folder") -> str:
    """Return the card of a corpus as Markdown with the Hub's metadata in front; `location` is what loads it."""
    flags = [_flag(name, value) for name, value in manifest["arguments"].items() if value not in (None, False)]
    return render(
        Path(__file__).with_name("dataset_card.md.j2"),
        metadata=_metadata(stats),
        stats=stats,
        location=location,
        command=" ".join(["python preprocessing/run.py", *flags]),
        licences={name: stats["reading"]["licences"].get(name, UNKNOWN_LICENCE) for name in stats["sources"]},
        non_commercial=non_commercial(stats),
        characters_dropped=_top_rows(stats["characters_accounted"]["dropped"]),
        tunes_dropped=_top_rows(stats["drops"]),
    )


def non_commercial(stats: dict[str, Any]) -> list[str]:
    """Return the sources of a corpus that may be used for non-commercial purposes only, by its statistics."""
    licences = stats["reading"]["licences"]
    return [source for source in stats["sources"] if licences.get(source) == NON_COMMERCIAL]


def _metadata(stats: dict[str, Any]) -> str:
    rows = sum(stats["tunes"].values()) + stats["transposed"]["tunes"]
    files = [{"split": split, "path": f"data/{split}.parquet"} for split in stats["tunes"]]
    return DatasetCardData(
        license="other",
        task_categories=["text-generation"],
        tags=["music", "abc-notation", "symbolic-music"],
        size_categories=[next((name for bound, name in SIZES if rows < bound), "10M<n<100M")],
        pretty_name="ABC tunes split by melody",
        configs=[{"config_name": "default", "data_files": files}],
    ).to_yaml()


def _flag(name: str, value: Any) -> str:
    values = value if isinstance(value, list) else [value]
    return " ".join([f"--{name}", *(shlex.quote(str(v)) for v in values)])


def _top_rows(counts: dict[str, int]) -> dict[str, int]:
    """Return the MAX_ROWS largest counts, and the sum of the others."""
    shown = dict(list(counts.items())[:MAX_ROWS])
    if len(counts) > MAX_ROWS:
        shown[f"{len(counts) - MAX_ROWS} other reasons (stats.json)"] = sum(counts.values()) - sum(shown.values())
    return shown
