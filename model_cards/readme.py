"""Put the findings and the result table of a published study into README.md, and write the cards of its models."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import cli
from analysis import report
from cli import UserError
from files import read_json, write_text
from model_cards.card import CARD, LAW_FIGURE, best_card, small_model_card
from model_cards.results import FITS, QUALITY, SMALL_MODEL, Results
from training.record import BEST

CAPTION = "Validation loss of GPT and LSTM against parameters: runs, fitted laws and their 95 % bands"


@dataclass
class ReadmeArguments:
    """The published study, and the page."""

    results: str = field(default="results", metadata={"help": "folder that publish.py and analysis/run.py have filled"})
    readme: str = field(
        default="README.md",
        metadata={"help": "page with the markers <!-- findings: --> and <!-- table: -->, and their ends"},
    )


def run(arguments: ReadmeArguments) -> None:
    folder = Path(arguments.results)
    write_findings(folder, Path(arguments.readme))
    results = Results.open_published(folder)
    write_text(folder / BEST / CARD, best_card(results))
    write_text(folder / SMALL_MODEL / CARD, small_model_card(results, folder / SMALL_MODEL))


def write_findings(folder: Path, readme: Path) -> None:
    """Write figure, findings and result table of the study in `folder` between the markers of a page.

    Raises UserError if markers are missing.
    """
    fits, quality = read_json(folder / FITS, "fits"), read_json(folder / QUALITY, "cells")
    found, _, table = report.findings(fits, quality).strip().partition("\n\n")
    figure = Path(os.path.relpath(folder / "comparison_analysis" / LAW_FIGURE, readme.parent)).as_posix()
    text = readme.read_text(encoding="utf-8")
    for name, content in (("findings", f"![{CAPTION}]({figure})\n\n{found}"), ("table", table)):
        marked = re.compile(rf"(<!-- {name}:.*?-->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        if not marked.search(text):
            raise UserError(f"{readme}: the markers '<!-- {name}: … -->' and '<!-- end of {name} -->' are missing")
        filled = f"\n{content}\n\n"  # a comment's paragraph ends with the empty line
        text = marked.sub(lambda markers, filled=filled: markers[1] + filled + markers[2], text)  # type: ignore[misc]
    write_text(readme, text)


def main() -> None:
    cli.main(run, ReadmeArguments, about=__doc__)


if __name__ == "__main__":
    main()
