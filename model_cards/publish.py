"""What the repository keeps of a study, small and plain, and the findings at the top of the README."""

import json
import re
import shutil
from pathlib import Path

from analysis.report import findings
from door import DoorError, whole_folder, write_text
from generation.study import FINDINGS, QUALITY_FOLDER
from model_cards.card import Results, best_lines, validity_lines
from training.record import read_ladders

BLOCK = re.compile(r"(<!-- findings:.*?-->\n).*?(<!-- end of findings -->)", re.DOTALL)
RECORDS = "runs.jsonl"
FIGURE = "combined_scaling_laws.png"


def publish(results: Results, folder: Path) -> None:
    """Copy fits, figures, report, samples and card of a study to `folder`, and its records as one JSON a line.

    Pages, figures in SVG and sound are left out: figures as PNG, reports as Markdown and scores say the same.
    """
    root = results.root
    with whole_folder(folder, mark=RECORDS) as temporary:
        for source in (root / "GPT_analysis", root / "comparison_analysis", root / QUALITY_FOLDER):
            for path in sorted(source.iterdir()):
                if path.is_file() and path.suffix not in (".svg", ".html") and path.name != FINDINGS:
                    shutil.copyfile(path, temporary / path.name)
        leave_out = shutil.ignore_patterns("*.wav", "*.html")
        shutil.copytree(root / "best_model" / "samples", temporary / "samples", ignore=leave_out)
        shutil.copyfile(root / "best_model" / "README.md", temporary / "model_card.md")
        ladders = read_ladders(root).values()
        records = [
            *(run for ladder in ladders for run in ladder.finished + ladder.others + ladder.unfinished),
            *results.search,
            results.best,
        ]
        write_text(temporary / RECORDS, "".join(json.dumps(record) + "\n" for record in records))


def finding_lines(results: Results, folder: Path) -> str:
    """Return the README's findings: the figure first."""
    validity = validity_lines(results.quality)
    recipe = results.best["recipe"]
    model = f"{recipe['architecture'].upper()} {recipe['size']}, trained further"
    best = f"the best model ({model}), {best_lines(results.best)[1]}"
    lines = [*findings(results.analysis), best, f"valid tunes: {'; '.join(validity)}", *results.quality["headlines"]]
    first = f"![Validation loss of GPT and LSTM against parameters]({folder.as_posix()}/{FIGURE})"
    return "\n".join([first, "", *(f"- {line[0].upper()}{line[1:]}" for line in lines), ""])


def write_findings(results: Results, folder: Path, readme: Path) -> None:
    """Replace the findings in the README. Raises DoorError if it has no place for them."""
    text = readme.read_text(encoding="utf-8")
    if not BLOCK.search(text):
        raise DoorError(f"{readme}: the marks '<!-- findings: … -->' and '<!-- end of findings -->' are missing")
    write_text(readme, BLOCK.sub(lambda marks: marks[1] + finding_lines(results, folder) + marks[2], text))
