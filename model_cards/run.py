"""Records → the best model's card, and one screen that says what the study found: python model_cards/run.py

`--demo` opens a page where two models of the study write tunes side by side, and where its figures are.
`--namespace NAME` pushes models, corpus, metrics and demo to NAME on the Hub, each branch in one commit; the login
is that of `hf auth login`. Run again, it goes on where it was, and changes nothing that is there already.
"""

import os
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

import cli
from cli import UserError
from files import make_folder, write_text
from generation.packing import add_pipeline
from model_cards.demo import stage as stage_demo
from model_cards.hub import check_login, push
from model_cards.publish import best_card, publish, write_findings
from model_cards.results import Results
from model_cards.screen import screen
from model_cards.staging import Branch, stage
from training.record import BEST

HUB, DEMO_FOLDER = "hub", "demo"  # what is pushed, and what is served


@dataclass
class CardArguments:
    """Where the study is, and where it goes."""

    output_root: str = field(default="data", metadata={"help": "the folder that the study's results stand in"})
    publish: str | None = field(default=None, metadata={"help": "also copy what was measured to this folder"})
    findings: str | None = field(
        default=None, metadata={"help": "only put what the fits.json in this folder says into README.md"}
    )
    namespace: str | None = field(default=None, metadata={"help": "also push to this user or organisation of the Hub"})
    private: bool = field(default=False, metadata={"help": "make new repositories private"})
    demo: bool = field(default=False, metadata={"help": "serve the demo of the study on this machine, until Ctrl-C"})
    dry_run: bool = field(default=False, metadata={"help": "prepare all that would be pushed, and push nothing"})

    def __post_init__(self) -> None:
        if self.namespace is None:
            if self.private or self.dry_run:
                raise UserError("--private and --dry_run are about a push: give --namespace too")
            return
        if self.demo:
            raise UserError("--demo and --namespace: one after the other")
        try:
            validate_repo_id(f"{self.namespace}/x")
        except HFValidationError:
            raise UserError(f"--namespace {self.namespace}: no name of a user or organisation of the Hub") from None


def run(arguments: CardArguments) -> None:
    if arguments.findings is not None:
        write_findings(Path(arguments.findings), Path("README.md"))
        return
    root = Path(arguments.output_root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder: run make study first")
    if arguments.demo:
        serve_demo(root)
        return
    for place in (arguments.publish, arguments.namespace and root / HUB):  # now, not after minutes of work
        if place is not None:
            make_folder(Path(place))
    results = Results.open(root)
    add_pipeline(root / BEST)
    write_text(root / BEST / "README.md", best_card(results))
    if arguments.publish is not None:
        publish(results, Path(arguments.publish))
    if arguments.namespace is None:
        print(screen(results))
        return
    api = HfApi()
    if not arguments.dry_run:
        check_login(api)
    branches = stage(root, results, arguments.namespace, root / HUB)
    if arguments.dry_run:
        print("\n".join(summary(branch) for branch in branches))
    else:
        push(branches, arguments.private, api)


def serve_demo(root: Path) -> None:
    """Stage the demo of a study and run it in the place of this process. Raises UserError if gradio is missing."""
    if find_spec("gradio") is None:
        raise UserError("--demo: gradio is missing: pip install -c constraints.txt -e '.[demo]' (or make demo)")
    print("preparing the demo; its address comes next", flush=True)
    stage_demo(root, root / DEMO_FOLDER, None)
    os.chdir(root / DEMO_FOLDER)
    os.execv(sys.executable, [sys.executable, "app.py"])


def summary(branch: Branch) -> str:
    """Return what a branch holds, as a line."""
    files = [path for path in branch.folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    where = f"{branch.kind} {branch.repository}, branch {branch.revision}"
    return f"would push {where}: {len(files)} files, {size:.1f} MB, in {branch.folder}"


def main() -> None:
    cli.main(run, CardArguments, about=__doc__)


if __name__ == "__main__":
    main()
