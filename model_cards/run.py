"""Records → the best model's card, and one screen that says what the study found: python model_cards/run.py"""

from dataclasses import dataclass, field
from pathlib import Path

from door import DoorError, open_door, read_arguments, write_text
from model_cards.card import Results, model_card, screen


@dataclass
class CardArguments:
    """Where the study is."""

    output_root: str = field(default="data", metadata={"help": "the folder that the study's results stand in"})


def main() -> None:
    root = Path(read_arguments(CardArguments, __doc__ or "").output_root)
    if not root.is_dir():
        raise DoorError(f"{root}: no such folder: run make study first")
    results = Results.open(root)
    write_text(root / "best_model" / "README.md", model_card(results))
    print(screen(results))


if __name__ == "__main__":
    open_door(main)
