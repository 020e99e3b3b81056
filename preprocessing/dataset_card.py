"""The dataset card, README.md of a corpus folder: written from its statistics, no number is typed in here."""

import shlex
from typing import Any

from huggingface_hub import DatasetCardData

from preprocessing.sources import NON_COMMERCIAL

UNKNOWN_LICENCE = "not known: ask whoever made it"
MOST = 12  # rows of a table, the rest is summed


def dataset_card(stats: dict[str, Any], manifest: dict[str, Any], place: str = "path/to/this/folder") -> str:
    """Return the card of a corpus as Markdown with the Hub's metadata in front; it is loaded from `place`."""
    total = sum(stats["tunes"].values()) + stats["transposed"]["tunes"]
    data = DatasetCardData(
        license="other",
        task_categories=["text-generation"],
        tags=["music", "abc-notation", "symbolic-music"],
        size_categories=[_size_category(total)],
        pretty_name="ABC tunes split by melody",
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": s, "path": f"data/{s}.parquet"} for s in stats["tunes"]],
            }
        ],
    )
    sections = [_about(stats, manifest, place), _splits(stats), _sources(stats), _dropped(stats), COLUMNS, FIGURES]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"


COLUMNS = """## Columns

| column | meaning |
|---|---|
| `text` | the tune in ABC notation, as a model sees it |
| `title`, `key`, `metre`, `rhythm` | of its header; `rhythm` is empty where the source has none |
| `notes`, `bars` | sounding notes and bars, counted as written (repeats once) |
| `bad_bars` | bars whose length is not the metre's |
| `lowest`, `highest` | range, as MIDI pitches |
| `source`, `file` | collection, and the file or rows it was found in |
| `family` | name shared by tunes of the same or nearly the same melody |
| `shift` | semitones it was transposed by; 0 as found |

`tokens/*.npy` holds each split as ids of `tokenizer.json`, one a character, `<|endoftext|>` between tunes; `stats.json`
counts everything, `manifest.json` holds the hashes of inputs and outputs."""

FIGURES = """## Figures

![lengths](figures/lengths.png)
![keys](figures/keys.png)
![metres](figures/metres.png)
![sources](figures/sources.png)
![dropped](figures/drops.png)
![token frequencies](figures/token_frequencies.png)"""


def _about(stats: dict[str, Any], manifest: dict[str, Any], place: str) -> str:
    arguments = manifest["arguments"]
    said = " ".join(_flag(name, value) for name, value in arguments.items() if value not in (None, False))
    return f"""# ABC tunes split by melody

{sum(stats["tunes"].values()):,} tunes of {stats["families"]:,} families in ABC notation, \
{sum(stats["characters"].values()):,} characters, for training language models of music. Built by:

```sh
python preprocessing/run.py {said}
```

```python
from datasets import load_dataset

tunes = load_dataset("{place}")
```"""


def _flag(name: str, value: Any) -> str:
    values = value if isinstance(value, list) else [value]
    return f"--{name} " + " ".join(shlex.quote(str(v)) for v in values)


def _splits(stats: dict[str, Any]) -> str:
    similarity, transposed = stats["similarity"], stats["transposed"]
    dropped = similarity["dropped_from_train"] + similarity["dropped_from_validation"]
    rows = "\n".join(
        f"| {split} | {tunes:,} | {stats['characters'][split]:,} |" for split, tunes in stats["tunes"].items()
    )
    more = (
        f"\nThe training split also holds {transposed['tunes']:,} transposed copies ({transposed['characters']:,} "
        "characters; `shift` says by how many semitones). Validation and test have none.\n"
        if transposed["tunes"]
        else ""
    )
    return f"""## Splits

| split | tunes | characters |
|---|---|---|
{rows}
{more}
Tunes found to be nearly the same melody, in any key or rhythm, are one family and stand in one split, which a hash of
the tune alone decides: adding a source moves none. Distant variants (say every fifth note ornamented) may be missed.
{dropped:,} tunes were left out because they are similar to a held-out tune. A random split of the same tunes would have
leaked {similarity["random_split_leaked_test_tunes"]:,} of its {similarity["random_split_test_tunes"]:,} \
test tunes into training."""


def non_commercial(stats: dict[str, Any]) -> list[str]:
    """Return the sources of a corpus that may be used for non-commercial purposes only, by its statistics."""
    licences = stats["reading"]["licences"]
    return [source for source in stats["sources"] if licences.get(source) == NON_COMMERCIAL]


def _sources(stats: dict[str, Any]) -> str:
    licences = stats["reading"]["licences"]
    rows = "\n".join(
        f"| {source} | {tunes:,} | {licences.get(source, UNKNOWN_LICENCE)} |"
        for source, tunes in stats["sources"].items()
    )
    conversions = "".join(
        f" Of {counts['tried']:,} {kind} files {counts['converted']:,} could be converted."
        for kind, counts in stats["reading"]["converted"].items()
    )
    named = " and ".join(non_commercial(stats))
    bound = f" {named}: for **non-commercial** purposes only, and so what is made of them." if named else ""
    return f"""## Sources and licences

| source | tunes | licence |
|---|---|---|
{rows}

The strictest of these binds the whole.{bound}{conversions}"""


def _dropped(stats: dict[str, Any]) -> str:
    account = stats["characters_accounted"]
    return f"""## What was left out

Of {account["read"]:,} characters read, {account["kept"]:,} were kept; {account["written"] - account["kept"]:,} were
written in their place where fields are respelled or written out. Fields are ABC's: N notes, T title, O origin,
R rhythm, Z transcriber, S source, B book. An empty bar is a bar line with only blanks before the next one.
`stats.json` names the files and tunes that were dropped. By reason:

| characters dropped | tunes kept that had them | reason |
|---|---|---|
{_table(account["dropped"], account["tunes_changed"])}

| tunes dropped | reason |
|---|---|
{_table(stats["drops"])}"""


def _table(counts: dict[str, int], *others: dict[str, int]) -> str:
    """Return the rows of a table: counts by reason, and further ones in columns of their own."""
    shown = list(counts.items())[:MOST]
    rest = sum(counts.values()) - sum(count for _, count in shown)
    more = {reason: "".join(f"{other.get(reason, 0):,} | " for other in others) for reason in counts}
    rows = [f"| {count:,} | {more[reason]}{reason} |" for reason, count in shown]
    if rest:
        rows.append(f"| {rest:,} | {'| ' * len(others)}{len(counts) - MOST} other reasons (stats.json) |")
    return "\n".join(rows)


def _size_category(rows: int) -> str:
    """Return the Hub's name for a number of rows."""
    bounds = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M")]
    return next((name for bound, name in bounds if rows < bound), "10M<n<100M")
