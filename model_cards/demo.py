"""Serve the demo of a study on this machine until Ctrl-C: two of its models write tunes side by side."""

import os
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import cli
from cli import UserError
from model_cards.demo_folder import stage_demo

DEMO = "demo"  # the folder that is served


@dataclass
class DemoArguments:
    """The study."""

    output_dir: str = field(default="data", metadata={"help": "folder with the results of the study"})


def run(arguments: DemoArguments) -> None:
    root = Path(arguments.output_dir)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder: run make study first")
    if find_spec("gradio") is None:
        raise UserError("gradio is missing: pip install -c constraints.txt -e '.[demo]' (or make demo)")
    print("preparing the demo", flush=True)
    stage_demo(root, root / DEMO, None)
    os.chdir(root / DEMO)
    os.execv(sys.executable, [sys.executable, "app.py"])


def main() -> None:
    cli.main(run, DemoArguments, about=__doc__)


if __name__ == "__main__":
    main()
