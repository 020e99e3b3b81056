"""Raw ABC → data/processed_music_data/: python preprocessing/run.py [--source FOLDER]"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from door import DoorError, check_output, open_door, read_arguments, read_json
from preprocessing.cleaning import FIELD_ORDER
from preprocessing.corpus import build_corpus, collect_tunes, describe_build
from preprocessing.sources import BUNDLED, read_source


@dataclass
class PreprocessingArguments:
    """What decides the corpus."""

    source: str = field(
        default=BUNDLED, metadata={"help": "'bundled' (the ABC that music21 carries), or a file or folder of .abc/.txt"}
    )
    output_dir: str = field(default="data/processed_music_data", metadata={"help": "where the corpus goes"})
    keep_fields: str = field(default="XMLK", metadata={"help": f"header fields that a model sees, of {FIELD_ORDER}"})
    context: int = field(default=256, metadata={"help": "context length that the tokenizer states, in characters"})

    def __post_init__(self) -> None:
        if "K" not in self.keep_fields or set(self.keep_fields) - set(FIELD_ORDER):
            raise DoorError(f"--keep_fields {self.keep_fields}: letters of {FIELD_ORDER}, K among them")
        if self.context < 2:
            raise DoorError(f"--context {self.context}: must be at least 2")


def main() -> None:
    arguments = read_arguments(PreprocessingArguments, __doc__ or "")
    folder = Path(arguments.output_dir)
    decides = {name: value for name, value in asdict(arguments).items() if name != "output_dir"}
    check_output(folder, mark="manifest.json")
    files = list(read_source(arguments.source))
    manifest = describe_build({file.name: file.sha256 for file in files}, decides)
    if (folder / "manifest.json").is_file():
        before = read_json(folder / "manifest.json")
        if all(before.get(name) == value for name, value in manifest.items()):
            print(f"{folder}: finished already, nothing to do")
            return
    tunes, drops = collect_tunes(files, arguments.keep_fields)
    if not tunes:
        raise DoorError(f"--source {arguments.source}: no tune in it (dropped: {dict(drops)})")
    stats = build_corpus(folder, tunes, drops, manifest, arguments.context)
    counts = ", ".join(f"{split} {n:,} tunes" for split, n in stats["tunes"].items())
    print(f"{folder}: {counts}; {stats['vocabulary_size']} tokens in the vocabulary; dropped {dict(drops)}")


if __name__ == "__main__":
    open_door(main)
