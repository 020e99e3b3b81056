"""Put the findings and the result table of a published study into README.md, and write the cards of its models."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import cli
from analysis import report
from cli import UserError
from files import read_json, write_text
from model_cards.card import CARD, best_card
from model_cards.publish import MODEL, small_model_card
from model_cards.results import FITS, QUALITY, Results
from training.record import BEST

BLOCK = re.compile(r"(<!-- findings:.*?-->\n).*?(<!-- end of findings -->)", re.DOTALL)


@dataclass
class ReadmeArguments:
    """The published study, and the page."""

    results: str = field(default="results", metadata={"help": "folder that publish.py and analysis/run.py have filled"})
    readme: str = field(default="README.md", metadata={"help": "page with a line '<!-- findings: … -->' and its end"})


def run(arguments: ReadmeArguments) -> None:
    folder = Path(arguments.results)
    write_findings(folder, Path(arguments.readme))
    results = Results.open_published(folder)
    write_text(folder / BEST / CARD, best_card(results))
    write_text(folder / MODEL / CARD, small_model_card(results, folder / MODEL))


def write_findings(folder: Path, readme: Path) -> None:
    """Write the findings of the study in `folder` between the markers of a page. Raises UserError if it has none."""
    text = readme.read_text(encoding="utf-8")
    if not BLOCK.search(text):
        raise UserError(f"{readme}: the markers '<!-- findings: … -->' and '<!-- end of findings -->' are missing")
    fits, quality = read_json(folder / FITS, "fits"), read_json(folder / QUALITY, "cells")
    findings = report.findings(fits, quality).strip()
    write_text(readme, BLOCK.sub(lambda markers: f"{markers[1]}{findings}\n{markers[2]}", text))


def main() -> None:
    cli.main(run, ReadmeArguments, about=__doc__)


if __name__ == "__main__":
    main()
