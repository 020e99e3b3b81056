"""Records → table of runs: python training/export.py STUDY.yaml [--runs results/runs.parquet]

Writes one row for each run of a study file, finished or only planned, to a table (default: runs.parquet in the output
folder of the file's first arm). Rows of the same study and arms are replaced, other rows of the table are kept, and so
are runs that ended on another machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cli
from cli import UserError, option
from preprocessing.corpus import Corpus
from training.arguments import StudyArguments, StudyExecutionArguments
from training.config import TRUNK
from training.ngram import write_baseline
from training.planning import PlannedRun, plan_study
from training.processes import launched
from training.record import BASELINE, NOT_RUN, read_record, run_folder
from training.runs_table import Row, read_runs_table, replace_arms
from training.single_run import own_record

RUNS = "runs.parquet"


@dataclass
class ExportArguments:
    """Where the table is written."""

    runs: str | None = option(None, "the table; default: runs.parquet in the output folder of the first arm")


@dataclass(frozen=True)
class Arm:
    """An arm of a study: its arguments, its corpus and its runs."""

    arguments: StudyArguments
    corpus: Corpus
    runs: list[PlannedRun]


def plan_arms(studies: Sequence[StudyArguments]) -> list[Arm]:
    """Return the arms of a study file. Raises UserError if two of them have the same name."""
    if len({(study.study, study.arm) for study in studies}) < len(studies):
        raise UserError("two arms of the study have the same name: their rows in the table would replace each other")
    corpora = {study.corpus: Corpus.open(study.corpus) for study in studies}
    return [Arm(study, corpora[study.corpus], plan_study(study, corpora[study.corpus])) for study in studies]


def export(arms: Sequence[Arm], path: Path) -> None:
    """Write the runs of a study's arms to a table, and the n-gram baseline of the first arm's corpus beside it."""
    before = read_runs_table(path) if path.is_file() else []
    rows = []
    for arm in arms:
        study, name = arm.arguments.study, arm.arguments.arm
        runs = [run for run in arm.runs if run.config.schedule != TRUNK]  # branches have its part of the curves
        records = [own_record(run) or run.record(arm.corpus) for run in runs]
        planned = {record.config_hash for record in records}
        for row in before:  # trained earlier with other arguments, in the same folder
            folder = run_folder(Path(arm.arguments.output_dir), row.record.config)
            if (row.study, row.arm) == (study, name) and row.record.config_hash not in planned:
                records += [row.record] if read_record(folder) == row.record else []
        rows += [Row(study, name, record) for record in records]
        ended = sum(record.status != NOT_RUN for record in records)
        print(f"{path}: study {study}, {name}: {ended} of {len(records)} runs have ended")
    replace_arms(path, rows)
    write_baseline(arms[0].corpus, path.with_name(BASELINE))


def run(given: list[tuple[StudyArguments, StudyExecutionArguments, ExportArguments]]) -> None:
    """Write the table."""
    with launched():
        arms = plan_arms([study for study, _, _ in given])
        export(arms, Path(given[0][2].runs or Path(given[0][0].output_dir) / RUNS))


def main() -> None:
    """Run the command."""
    cli.main(run, StudyArguments, StudyExecutionArguments, ExportArguments, about=__doc__, arms=True)


if __name__ == "__main__":
    main()
