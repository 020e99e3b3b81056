"""Corpus → trained runs: accelerate launch training/run.py [studies/quick.yaml]

Trains a study: every size with every budget, fraction of the data and seed. Without an argument this is
studies/quick.yaml; with flags it is what they name, for example --gpt_sizes 15k 30k 60k --lstm_sizes 15k 30k 60k (a law
needs three sizes of both architectures). The `arms` of a study file are trained one after another. Finished runs are
skipped, interrupted ones resume from their checkpoint. At the end all runs are written to runs.parquet, and the n-gram
baseline to ngram_baseline.json, in the output folder of the first arm.
"""

from pathlib import Path

from accelerate import PartialState

import cli
from cli import UserError
from training.arguments import StudyArguments, StudyExecutionArguments
from training.costs import print_costs
from training.export import RUNS, Arm, export, plan_arms
from training.planning import PlannedRun
from training.processes import decide_together, launched, say
from training.record import FINISHED, read_record, write_record
from training.runs_table import read_runs_table
from training.workers import report_failures, training_in

QUICK = Path(__file__).parent.parent / "studies" / "quick.yaml"


def restore(runs: list[PlannedRun], table: Path) -> None:
    """Write the records of runs that a table says have finished elsewhere, where there is no record yet."""
    rows = read_runs_table(table)
    known = {row.record.config_hash: row.record for row in rows if row.record.status == FINISHED}
    restored = 0
    for run in runs:
        record = known.get(run.config.config_hash)
        if record is not None and read_record(run.folder) is None:
            write_record(run.folder, record)
            restored += 1
    if restored:
        print(f"{restored} runs have ended elsewhere, their records are those of {table}")


def train_arm(arm: Arm, execution: StudyExecutionArguments, title: str) -> None:
    """Train the runs of an arm, or print what they will cost. Raises UserError if runs do not finish."""
    root = Path(arm.arguments.output_dir)
    if execution.dry_run:
        print_costs(arm.runs, arm.corpus, execution.num_parallel_runs, title)
        return
    with training_in(root, arm.corpus, execution) as train:
        if execution.reuse_runs is not None:
            table = Path(execution.reuse_runs)
            decide_together(lambda: restore(arm.runs, table))
        results = train(arm.runs, title, execution.num_parallel_runs)
        report_failures(results)
    say(f"{root}: all {len(results)} runs are finished")


def run(given: list[tuple[StudyArguments, StudyExecutionArguments]]) -> None:
    """Train the arms of a study. An arm that fails does not stop the others."""
    failures = []
    with launched():
        arms = plan_arms([study for study, _ in given])
        for number, (arm, (study, execution)) in enumerate(zip(arms, given, strict=True), 1):
            try:
                train_arm(arm, execution, f"{study.arm} ({number} of {len(arms)})" if len(arms) > 1 else study.arm)
            except UserError as error:
                failures.append(str(error))
        if not given[0][1].dry_run and PartialState().is_main_process:
            try:
                export(arms, Path(given[0][0].output_dir) / RUNS)
            except UserError as error:
                failures.append(str(error))
        if failures:
            raise UserError("; ".join(dict.fromkeys(failures)))


def main() -> None:
    cli.main(run, StudyArguments, StudyExecutionArguments, about=__doc__, default_file=str(QUICK), arms=True)


if __name__ == "__main__":
    main()
