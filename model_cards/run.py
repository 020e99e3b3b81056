"""Records → the best model's card, and one screen that says what the study found: python model_cards/run.py"""

from dataclasses import dataclass, field
from pathlib import Path

from door import DoorError, open_door, read_arguments, write_text
from generation.travel import add_pipeline
from model_cards.card import Results, model_card, screen
from model_cards.publish import publish, write_findings
from training.record import BEST


@dataclass
class CardArguments:
    """Where the study is."""

    output_root: str = field(default="data", metadata={"help": "the folder that the study's results stand in"})
    publish: str = field(default="", metadata={"help": "also copy the results to this folder and update README.md"})


def main() -> None:
    arguments = read_arguments(CardArguments, __doc__ or "")
    root = Path(arguments.output_root)
    if not root.is_dir():
        raise DoorError(f"{root}: no such folder: run make study first")
    results = Results.open(root)
    add_pipeline(root / BEST)
    write_text(root / BEST / "README.md", model_card(results))
    if arguments.publish:
        publish(results, Path(arguments.publish))
        write_findings(results, Path(arguments.publish), Path("README.md"))
    print(screen(results))


if __name__ == "__main__":
    open_door(main)
