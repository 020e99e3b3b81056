"""What the repository keeps of a study, small and plain, and the findings at the top of the README."""

import json
import re
import shutil
from pathlib import Path

from analysis.answers import headline, study_words
from cli import UserError
from files import atomic_folder, make_folder, read_json, write_text
from generation.study import FINDINGS, QUALITY, QUALITY_FOLDER
from generation.travel import add_pipeline
from model_cards.card import LAW_FIGURE, Place, model_card
from model_cards.paths import forget_paths, of_machine
from model_cards.releases import MAIN, Release, releases
from model_cards.results import CORPUS, STATS, Results
from modeling.loading import WEIGHTS, load_model
from training.record import BASELINE, BEST, RunRecord, baseline_file, read_ladders, read_record, write_record

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"(<!-- findings:.*?-->\n).*?(<!-- end of findings -->)", re.DOTALL)
RECORDS, CORPUS_STATS = "runs.jsonl", "corpus.json"
CARD, MODEL = "README.md", "model"
CONFIGURATION_FILES = ("config.json", "generation_config.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
LSTM_FILES = ("configuration_abc_lstm.py", "modeling_abc_lstm.py")
MOST_BYTES = 3_000_000  # of the weights that the repository keeps


def publish(results: Results, folder: Path) -> None:
    """Write what was measured of a study to `folder`: what is made of it, `make report` makes.

    That is the quality of the tunes, the statistics of the corpus, the n-gram baseline, the best model's card and tunes
    but for pages and sound, and a model whose weights take MOST_BYTES at most in half precision.
    """
    root = results.root
    make_folder(folder)
    shutil.copyfile(root / QUALITY_FOLDER / QUALITY, folder / QUALITY)
    shutil.copyfile(root / CORPUS / STATS, folder / CORPUS_STATS)
    shutil.copyfile(baseline_file(root), folder / BASELINE)
    with atomic_folder(folder / BEST, mark=CARD) as temporary:
        leave_out = shutil.ignore_patterns("*.wav", "*.html")
        shutil.copytree(root / BEST / "samples", temporary / "samples", ignore=leave_out)
        write_text(temporary / CARD, best_card(results, figures=".."))
    with atomic_folder(folder / MODEL, mark=CARD) as temporary:
        write_small_model(results, temporary, before=folder / MODEL)
    if of_machine(str(root)):
        forget_paths(folder, root)


def write_small_model(results: Results, folder: Path, before: Path) -> None:
    """Write a model of MOST_BYTES or less in half precision, as it loads where the project is not installed.

    It is the first seed of that size and architecture whose tunes are most often valid, all temperatures taken
    together: a lower loss alone does not make bars add up. If its weights are not here, those that `before` holds of
    the same run stay. Raises UserError if it holds none.
    """
    cells = read_json(results.root / QUALITY_FOLDER / QUALITY, "cells")["cells"]

    def valid(release: Release) -> float:
        place = release.architecture, release.revision
        shares = [cell["shares"]["valid"] for cell in cells if (cell["architecture"], cell["size"]) == place]
        return float(sum(share["count"] for share in shares) / max(1, sum(share["total"] for share in shares)))

    small = [release for release in releases(results.root) if 2 * release.record.n_params <= MOST_BYTES]
    chosen = max((release for release in small if release.revision != MAIN), key=valid)
    record, source = chosen.record, chosen.folder
    if (source / WEIGHTS).is_file():
        load_model(source).half().save_pretrained(folder)
    elif read_record(before) == record:
        source = before
        for name in (WEIGHTS, *CONFIGURATION_FILES):
            shutil.copyfile(before / name, folder / name)
    else:
        raise UserError(f"{source / WEIGHTS} is missing, and {before} holds another model: train {source} again")
    for name in TOKENIZER_FILES:
        shutil.copyfile(source / name, folder / name)
    add_code(folder, record.config.architecture)
    write_record(folder, record)
    write_text(folder / CARD, model_card(results, record, [], Place(f"results/{MODEL}", figures="..")))


def add_code(folder: Path, architecture: str) -> None:
    """Put all the code beside a model that it needs where this project is not installed."""
    for name in LSTM_FILES if architecture == "lstm" else ():
        shutil.copyfile(ROOT / "modeling" / name, folder / name)
    add_pipeline(folder)


def copy_results(results: Results, folder: Path) -> None:
    """Copy fits, figures, reports and statistics of a study to `folder`, and its records as one JSON a line.

    Pages and figures in SVG are left out: figures as PNG and reports as Markdown say the same.
    """
    root = results.root
    for source in (root / "GPT_analysis", root / "comparison_analysis", root / QUALITY_FOLDER):
        for path in sorted(source.iterdir()):
            if path.is_file() and path.suffix not in (".svg", ".html") and path.name != FINDINGS:
                shutil.copyfile(path, folder / path.name)
    shutil.copyfile(root / CORPUS / STATS, folder / CORPUS_STATS)
    write_text(folder / RECORDS, "".join(json.dumps(record.to_dict()) + "\n" for record in records_of(results)))


def records_of(results: Results) -> list[RunRecord]:
    """Return the records of all runs of a study, the best model's last."""
    ladders = read_ladders(results.root).values()
    runs = [run for ladder in ladders for run in ladder.finished + ladder.others + ladder.unfinished]
    return [*runs, *results.search, results.best]


def best_card(results: Results, figures: str = "../comparison_analysis") -> str:
    """Return the best model's card as it stands in a folder beside `samples`."""
    place = Place((results.root / BEST).as_posix(), figures=figures)
    return model_card(results, results.best, results.samples["samples"], place)


def write_findings(folder: Path, readme: Path) -> None:
    """Put what the study in `folder` found, in five lines and a figure, into the README.

    Raises UserError if it has no place for them.
    """
    text = readme.read_text(encoding="utf-8")
    if not BLOCK.search(text):
        raise UserError(f"{readme}: the marks '<!-- findings: … -->' and '<!-- end of findings -->' are missing")
    data = read_json(folder / "fits.json", "fits")
    caption = f"Validation loss of GPT and LSTM against parameters: {study_words(data)}."
    figure = (
        f"![The losses of the runs, and the laws fitted to them with their bands]({(folder / LAW_FIGURE).as_posix()})"
    )
    lines = [figure, "", caption, "", *(f"- {line}" for line in headline(data)), ""]
    write_text(readme, BLOCK.sub(lambda marks: marks[1] + "\n".join(lines) + marks[2], text))
