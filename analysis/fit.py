"""Fit a scaling law to any table of runs.

For example: python analysis/fit.py --table runs.csv --n params --d tokens --output_dir fitted

A row is a run. The output folder gets fits.json (full precision), figures, and a report (report.md, report.html).
docs/fitting.md describes the laws, the tables that are read, and the intervals.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import cli
from analysis.covariance import LARGE
from analysis.drawing import profile_likelihoods
from analysis.fitting import DELTA, RESAMPLES, fit, line_of
from analysis.laws import LAWS
from analysis.page import write_page
from analysis.table import FORMULAS, Table, check_needs, is_formula, read_table
from analysis.table_figures import draw_law, draw_residuals
from cli import UserError
from files import atomic_folder, check_output, render, write_json, write_text

FITS = "fits.json"
MIN_RESAMPLES, MAX_RESAMPLES = 100, 100_000
MAX_NUMBERS = 50_000_000  # in all resamples together: half a gigabyte
MAX_LISTED = 5000  # points in fits.json and in figures: a million would be 100 MB
MIN_DELTA = 1e-9  # of log loss; below, rounding is larger
TEMPLATE = Path(__file__).with_name("table_report.md.j2")


@dataclass
class FitArguments:
    """The table, the law, and which columns are its variables."""

    table: str = field(metadata={"help": ".csv, .tsv, .txt, .json, .jsonl, .ndjson or .parquet, one run a row"})
    output_dir: str = field(metadata={"help": "a folder for fits.json, figures and report"})
    law: str = field(default="chinchilla", metadata={"help": f"one of {', '.join(LAWS)}"})
    loss: str = field(
        default="loss",
        metadata={
            "help": "column of losses; in JSON and parquet names reach into fields and lists: eval.loss, "
            "eval.losses[] (a row for each element), losses[-1], metrics[key=loss].value"
        },
    )
    n: str | None = field(default=None, metadata={"help": "column of parameters N, or 6DC for N = C/(6D)"})
    d: str | None = field(default=None, metadata={"help": "column of tokens seen D, or 6NC for D = C/(6N)"})
    c: str | None = field(default=None, metadata={"help": "column of FLOPs C, or 6ND for C = 6ND"})
    u: str | None = field(default=None, metadata={"help": "column of unique tokens U"})
    keys: str | None = field(default=None, metadata={"help": "column of the number of keys used"})
    cluster: str | None = field(
        default=None, metadata={"help": "column of labels, such as seeds or trunks, that are resampled together"}
    )
    where: list[str] = field(
        default_factory=list,
        metadata={
            "action": "extend",  # several --where count together
            "help": "conditions that a row must meet, such as 'state=finished' 'loss<inf'; = != < <= > >=; 'loss!=' "
            "asks for a cell that is not empty",
        },
    )
    delta: float = field(default=DELTA, metadata={"help": "of the Huber loss on log loss; inf is least squares"})
    resamples: int = field(default=RESAMPLES, metadata={"help": "of the bootstrap"})


def columns_of(arguments: FitArguments) -> dict[str, str]:
    """Return the column of each variable that is given."""
    names = ("loss", "n", "d", "c", "u", "keys", "cluster")
    return {name: column for name in names if (column := getattr(arguments, name)) is not None}


def check_flags(arguments: FitArguments) -> None:
    """Raise UserError if the flags do not go together."""
    columns, law = columns_of(arguments), arguments.law
    if law not in LAWS:
        raise UserError(f"--law {law}: it is none of {', '.join(LAWS)}")
    if not arguments.delta >= MIN_DELTA:
        raise UserError(f"--delta {arguments.delta:g}: it must be {MIN_DELTA:g} or more, or inf")
    if not MIN_RESAMPLES <= arguments.resamples <= MAX_RESAMPLES:
        raise UserError(f"--resamples {arguments.resamples:.10g}: give {MIN_RESAMPLES} to {MAX_RESAMPLES:,}")
    needs = law_variables(law, columns)
    check_needs(law, needs, columns)
    computed = [other for name, column in columns.items() if is_formula(name, column) for other in FORMULAS[name][1]]
    if unused := [name for name in columns if name not in (*needs, *computed, "loss", "cluster")]:
        raise UserError(f"the law {law} does not use --{unused[0]}: leave it out")


def law_variables(law: str, columns: dict[str, str]) -> list[str]:
    """Return the variables that a law needs; one of one variable takes the computed one, or the only one."""
    if LAWS[law].needs != ("x",):
        return list(LAWS[law].needs)
    sizes: list[str] = [name for name in ("n", "d", "c") if name in columns]
    found = [name for name in sizes if is_formula(name, columns[name])] or sizes
    if len(found) != 1:
        raise UserError(f"the law {law} is of one variable: name one of --n, --d, --c, not {len(found)}")
    return found


def fit_table(arguments: FitArguments, table: Table) -> dict[str, Any]:
    """Return the fit to a table and its points, as in fits.json."""
    columns, loss = columns_of(arguments), table.columns["loss"]
    if arguments.resamples * min(table.rows, LARGE) > MAX_NUMBERS:
        most = MAX_NUMBERS // min(table.rows, LARGE)
        raise UserError(f"--resamples {arguments.resamples}: at most {most} for {table.rows} rows")
    if np.ptp(loss) == 0:
        raise UserError(f"{arguments.table}: all losses are equal: check --loss {arguments.loss}")
    variables: dict[str, Any] = {name: table.columns[name] for name in law_variables(arguments.law, columns)}
    try:
        fitted = fit(
            arguments.law,
            loss,
            **variables,
            clusters=table.clusters,
            delta=arguments.delta,
            resamples=arguments.resamples,
            progress=True,
        )
    except ValueError as error:
        raise UserError(f"{arguments.table}: {error}") from None
    listed = np.linspace(0, table.rows - 1, min(table.rows, MAX_LISTED)).astype(int)
    points = {**table.columns, "fitted": loss / np.exp(fitted.residuals)}
    return {
        "kind": "table",
        "table": Path(arguments.table).name,
        "columns": columns,
        "rows": table.summary(),
        "fit": {**fitted.as_dict(), "residuals": fitted.residuals[listed].tolist()},
        "line": line_of(fitted),
        "points": {name: values[listed].tolist() for name, values in points.items()},
    }


def write_report(data: dict[str, Any]) -> str:
    """Return the report of fits.json as Markdown."""

    def escape(text: str) -> str:
        return re.sub(r"([\\`*_{}\[\]<>()#+!|~$-])", r"\\\1", text)

    return render(TEMPLATE, escape=escape, **data)


def run(arguments: FitArguments) -> None:
    """Read the table, fit the law, write the folder."""
    output_dir = Path(arguments.output_dir)
    check_flags(arguments)
    check_output(output_dir, FITS)
    table = read_table(Path(arguments.table), columns_of(arguments), arguments.where)
    summary = table.summary()
    print(f"{summary['read']:,} rows, {summary['used']:,} used")
    for condition, count in summary["left_out"].items():
        print(f"left out by {condition}: {count:,}")
    print(*summary["notes"], sep="\n", end="\n" if summary["notes"] else "", flush=True)
    data = fit_table(arguments, table)
    with atomic_folder(output_dir, FITS) as folder:
        draw_law(folder / "law", data)
        draw_residuals(folder / "residuals", data)
        profile_likelihoods(folder / "profile_likelihoods", {arguments.law: data["fit"]})
        report = write_report(data)
        write_text(folder / "report.md", report)
        write_text(folder / "report.html", write_page(report, folder))
        write_json(folder / FITS, data)
    for name, row in data["fit"]["parameters"].items():
        verdict = "identified" if row["identified"] else f"not identified: {row['reason']}"
        print(f"{name} = {row['value']:.5g} ({verdict})")
    print(f"fits, figures and report: {output_dir} (open report.html)")


def main() -> None:
    """Run the command."""
    cli.main(run, FitArguments, about=__doc__)


if __name__ == "__main__":
    main()
