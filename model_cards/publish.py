"""Copy to a folder what this repository keeps of a study: measurements, samples, cards and one small model.

The analysis of the study is made from there: make report.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import cli
from cli import UserError
from files import atomic_folder, make_folder, write_text
from model_cards.card import CARD, best_card, small_model_card
from model_cards.paths import clean_folder, is_machine_path
from model_cards.releases import CONFIGURATION_FILES, MAIN, TOKENIZER_FILES, Release, add_code, releases
from model_cards.results import PUBLISHED_STATS, QUALITY, SAMPLES, SMALL_MODEL, STATS, Results
from modeling.loading import WEIGHTS, load_model
from training.record import BASELINE, BEST, read_record, write_record

MAX_BYTES = 3_000_000  # of the weights of the small model


@dataclass
class PublishArguments:
    """From where to where."""

    output_dir: str = field(default="data/cpu", metadata={"help": "folder with the results of the study"})
    publish_dir: str = field(default="results", metadata={"help": "folder that gets what is published"})


def run(arguments: PublishArguments) -> None:
    folder = Path(arguments.publish_dir)
    make_folder(folder)
    publish(Results.open(Path(arguments.output_dir)), folder)


def publish(results: Results, folder: Path) -> None:
    """Write what is published of a study to `folder`; pages and sound are left out."""
    root, tunes = results.root, "generation_analysis/tunes"
    make_folder((folder / QUALITY).parent)
    shutil.copyfile(root / STATS, folder / PUBLISHED_STATS)
    shutil.copyfile(root / BASELINE, folder / BASELINE)
    shutil.copyfile(root / QUALITY, folder / QUALITY)
    if (root / tunes / "samples.json").is_file():  # those chosen to be shown
        with atomic_folder(folder / tunes, mark="samples.json") as temporary:
            shutil.copytree(root / tunes, temporary, dirs_exist_ok=True)
    with atomic_folder(folder / BEST, mark=CARD) as temporary:
        leave_out = shutil.ignore_patterns("*.wav", "*.html")
        shutil.copytree(root / SAMPLES, temporary / "samples", ignore=leave_out)
        write_text(temporary / CARD, best_card(results))
    with atomic_folder(folder / SMALL_MODEL, mark=CARD) as temporary:
        write_small_model(results, temporary, before=folder / SMALL_MODEL)
    if is_machine_path(str(root)):
        clean_folder(folder, root)


def write_small_model(results: Results, folder: Path, before: Path) -> None:
    """Write a model of at most MAX_BYTES in half precision, with the code that it needs where this is not installed.

    It is the first seed of the size and architecture with most valid tunes, all temperatures together: a lower loss
    alone does not make bars add up. If its weights are missing here, those of the same run in `before` are kept. Raises
    UserError if there are none.
    """

    def valid(release: Release) -> float:
        key = release.architecture, release.revision
        cells = [cell for cell in results.quality["cells"] if (cell["architecture"], cell["size"]) == key]
        shares = [cell["shares"]["valid"] for cell in cells]
        return float(sum(share["count"] for share in shares) / max(1, sum(share["total"] for share in shares)))

    small = [release for release in releases(results.root) if 2 * release.record.n_params <= MAX_BYTES]
    chosen = max((release for release in small if release.revision != MAIN), key=valid)
    record, source = chosen.record, chosen.folder
    if (source / WEIGHTS).is_file():
        load_model(source).half().save_pretrained(folder)
    elif read_record(before) == record:
        for name in (WEIGHTS, *CONFIGURATION_FILES):
            shutil.copyfile(before / name, folder / name)
    else:
        raise UserError(f"{source / WEIGHTS} is missing, and {before} holds another model: train {source} again")
    for name in TOKENIZER_FILES:
        shutil.copyfile(source / name, folder / name)
    add_code(folder, record.config.architecture)
    write_record(folder, record)
    write_text(folder / CARD, small_model_card(results, folder))


def main() -> None:
    cli.main(run, PublishArguments, about=__doc__)


if __name__ == "__main__":
    main()
