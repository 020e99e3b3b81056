"""What the repository keeps of a study, small and plain, and the findings at the top of the README."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from analysis.report import findings
from door import DoorError, whole_folder, write_text
from generation.study import FINDINGS, QUALITY_FOLDER
from model_cards.card import LAW_FIGURE, Place, model_card
from model_cards.results import CORPUS, STATS, Results, model_lines, share_lines
from training.record import BEST, read_ladders

BLOCK = re.compile(r"(<!-- findings:.*?-->\n).*?(<!-- end of findings -->)", re.DOTALL)
RECORDS, CORPUS_STATS = "runs.jsonl", "corpus.json"


def publish(results: Results, folder: Path) -> None:
    """Copy a study's results to `folder`, with the best model's card and its tunes, but for pages and sound."""
    with whole_folder(folder, mark=RECORDS) as temporary:
        copy_results(results, temporary)
        leave_out = shutil.ignore_patterns("*.wav", "*.html")
        shutil.copytree(results.root / BEST / "samples", temporary / "samples", ignore=leave_out)
        write_text(temporary / "model_card.md", best_card(results, figures="."))


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
    write_text(folder / RECORDS, "".join(json.dumps(record) + "\n" for record in records_of(results)))


def records_of(results: Results) -> list[dict[str, Any]]:
    """Return the records of all runs of a study, the best model's last."""
    ladders = read_ladders(results.root).values()
    runs = [run for ladder in ladders for run in ladder.finished + ladder.others + ladder.unfinished]
    return [*runs, *results.search, results.best]


def best_card(results: Results, figures: str = "../comparison_analysis") -> str:
    """Return the best model's card as it stands in a folder beside `samples`."""
    place = Place((results.root / BEST).as_posix(), figures=figures)
    return model_card(results, results.best, results.samples["samples"], place)


def finding_lines(results: Results, folder: Path) -> str:
    """Return the README's findings: the figure first."""
    validity = share_lines(results, results.best, "valid", "valid")
    recipe = results.best["recipe"]
    model = f"{recipe['architecture'].upper()} {recipe['size']}, trained further"
    best = f"the best model ({model}), {model_lines(results.best)[1]}"
    lines = [*findings(results.analysis), best, f"valid tunes: {'; '.join(validity)}", *results.quality["headlines"]]
    first = f"![Validation loss of GPT and LSTM against parameters]({folder.as_posix()}/{LAW_FIGURE})"
    return "\n".join([first, "", *(f"- {line[0].upper()}{line[1:]}" for line in lines), ""])


def write_findings(results: Results, folder: Path, readme: Path) -> None:
    """Replace the findings in the README. Raises DoorError if it has no place for them."""
    text = readme.read_text(encoding="utf-8")
    if not BLOCK.search(text):
        raise DoorError(f"{readme}: the marks '<!-- findings: … -->' and '<!-- end of findings -->' are missing")
    write_text(readme, BLOCK.sub(lambda marks: marks[1] + finding_lines(results, folder) + marks[2], text))
