"""Share a study on the Hugging Face Hub: its models, corpus, metrics and demo.

Log in first, with `hf auth login`. Each branch changes in one commit, so visitors see either the old files or the new.
The same command continues a push that was interrupted, and changes nothing that is already there.
"""

from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

import cli
from cli import UserError
from files import make_folder
from model_cards.hub import check_login, push
from model_cards.results import Results
from model_cards.staging import stage

HUB = "hub"  # the folder of what is pushed


@dataclass
class PushArguments:
    """The study, and where it is shared."""

    namespace: str = field(metadata={"help": "user or organisation on the Hub; required"})
    output_dir: str = field(default="data", metadata={"help": "folder with the results of the study"})
    private: bool = field(default=False, metadata={"help": "make new repositories private"})
    dry_run: bool = field(default=False, metadata={"help": "prepare all files and push nothing"})

    def __post_init__(self) -> None:
        try:
            validate_repo_id(f"{self.namespace}/x")
        except HFValidationError:
            raise UserError(f"--namespace {self.namespace}: not a name of a user or organisation of the Hub") from None


def run(arguments: PushArguments) -> None:
    root = Path(arguments.output_dir)
    make_folder(root / HUB)  # first: a folder that cannot be made must not cost minutes
    results, api = Results.open(root), HfApi()
    if not arguments.dry_run:
        check_login(api)
    branches = stage(results, arguments.namespace, root / HUB)
    if not arguments.dry_run:
        push(branches, arguments.private, api)
        return
    for branch in branches:
        sizes = [path.stat().st_size for path in branch.folder.rglob("*") if path.is_file()]
        print(f"would push {branch}: {len(sizes)} files, {sum(sizes) / 1e6:.1f} MB, in {branch.folder}")


def main() -> None:
    cli.main(run, PushArguments, about=__doc__)


if __name__ == "__main__":
    main()
