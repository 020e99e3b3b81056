"""The last step of a study: the best model's card, and a summary of laws, best model, tunes and files."""

from dataclasses import dataclass, field
from pathlib import Path

import cli
from analysis.fits_json import NAMES, difference_verdict, find_fit
from cli import UserError
from files import render, write_text
from generation.packing import add_pipeline
from model_cards.card import CARD, best_card
from model_cards.results import FORMULAS, Results, compared_laws, select_tunes
from training.record import BEST

TEMPLATE = Path(__file__).parent / "summary.txt.j2"


@dataclass
class CardArguments:
    """The study."""

    output_dir: str = field(default="data", metadata={"help": "folder with the results of the study"})


def run(arguments: CardArguments) -> None:
    root = Path(arguments.output_dir)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder: run make study first")
    results = Results.open(root)
    add_pipeline(root / BEST)
    write_text(root / BEST / CARD, best_card(results))
    print(summary(results), end="")


def summary(results: Results) -> str:
    """Return the summary that ends a study."""
    best = results.best
    bits = {"test": best.test_bits_per_character, "validation": best.validation_bits_per_character}
    return render(
        TEMPLATE,
        root=results.root,
        fits=results.fits,
        find_fit=find_fit,
        difference_verdict=difference_verdict,
        comparisons=compared_laws(results.fits),
        best=best,
        losses={split: value for split, value in bits.items() if value is not None},
        valid=results.shares(best, "valid"),
        tunes=select_tunes(results.samples["samples"]),
        laws=FORMULAS,
        names=NAMES,
    )


def main() -> None:
    cli.main(run, CardArguments, about=__doc__)


if __name__ == "__main__":
    main()
