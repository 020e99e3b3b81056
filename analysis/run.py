"""Analyse a study: a table of its runs → fitted laws, comparison, compute-optimal split, figures and report.

The n-gram baseline, the learning-rate sweeps and generation_analysis/quality.json are read beside the table. Results:
GPT_analysis/ and comparison_analysis/ (fits.json, report.md, report.html, figures).
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

import cli
from analysis.figures import MUSIC_FIGURE, study_figures
from analysis.fits_json import Data
from analysis.page import write_page
from analysis.report import conclusions_of, quality_table, report
from analysis.runs import SWEEPS, read_study
from analysis.study import analyse
from cli import UserError
from files import make_folder, read_json, write_json, write_text
from training.record import BASELINE

GPT_FOLDER, COMPARISON_FOLDER, QUALITY_FOLDER = "GPT_analysis", "comparison_analysis", "generation_analysis"
FITS, GPT_FITS, COMPARISON = "fits.json", "scaling_law_fit.json", "comparison_data.json"
QUALITY, CONCLUSIONS = "quality.json", "conclusions.md.j2"
HASHES = "made_from.json"  # of what the fits and of what figures and report were made from
HERE = Path(__file__).parent
# Modules that a change of the fits does not come from; any other module of this folder is one of fitting.
RENDERING = ("run", "figures", "drawing", "report", "page", "published", "fits_json")
OF_TABLES = ("fit", "table", "table_rows", "table_figures", "cells")
STAMP = re.compile(r"\{# fits: ([0-9a-f]{64}) #\}")


@dataclass
class AnalysisArguments:
    """The runs of a study and the folder of its results."""

    runs: str = field(default="data/runs.parquet", metadata={"help": "table of runs, as training writes it"})
    study: str | None = field(
        default=None, metadata={"help": "study of the table; without it, the one that most finished runs belong to"}
    )
    output_dir: str = field(default="data", metadata={"help": "folder of the results"})


def run(arguments: AnalysisArguments) -> None:
    """Fit the laws unless they were fitted to the same runs by the same code, then write figures and report."""
    table, folder = Path(arguments.runs), Path(arguments.output_dir)
    both = folder / COMPARISON_FOLDER
    make_folder(both)
    quality = table.parent / QUALITY_FOLDER / QUALITY
    conclusions = folder / CONCLUSIONS
    inputs = [table, table.parent / BASELINE, *sorted(table.parent.glob(SWEEPS))]
    fitting = [path for path in sorted(HERE.glob("*.py")) if path.stem not in RENDERING + OF_TABLES]
    rendering = [HERE / f"{name}.py" for name in RENDERING] + [*sorted(HERE.glob("*.j2")), *sorted(HERE.glob("*.json"))]
    fits_hash = hash_of([*inputs, *fitting], str(arguments.study))
    before = read_json(both / HASHES) if (both / HASHES).is_file() else {}
    fitted = before.get("fits") == fits_hash and (both / FITS).is_file()
    data = read_json(both / FITS, "fits", "comparison") if fitted else fit(table, arguments.study, folder)
    scores = quality_table(read_json(quality, "cells", "human", "floors")) if quality.is_file() else None
    if not fitted or data.get("quality") != scores:
        data["quality"] = scores
        write_json(both / FITS, data)
        write_json(both / HASHES, {"fits": fits_hash})
    output_hash = hash_of([both / FITS, *rendering, both / f"{MUSIC_FIGURE}.png", conclusions])
    drawings = study_figures(data, folder / GPT_FOLDER, both)
    outputs = [path.with_name(f"{path.name}.{kind}") for path in drawings for kind in ("png", "svg")]
    outputs += [both / "report.md", both / "report.html"]
    if before == {"fits": fits_hash, "outputs": output_hash} and all(path.is_file() for path in outputs):
        print(f"{both}: finished already, nothing to do")
        return
    for path, draw in tqdm(drawings.items(), desc="figures"):
        draw(path)
    drawn = {path.name for path in drawings if path.parent == both}
    write_report(data, both, drawn, conclusions if conclusions.is_file() else None)
    write_json(both / HASHES, {"fits": fits_hash, "outputs": output_hash})
    print(f"laws, figures and report: {both} (open report.html)")


def hash_of(files: Sequence[Path], *texts: str) -> str:
    """Return the hash of the content of files and of texts; a missing file counts as empty."""
    content = hashlib.sha256("\n".join(texts).encode())
    for path in files:
        content.update(path.read_bytes() if path.is_file() else b"")
    return content.hexdigest()


def fit(table: Path, study: str | None, folder: Path) -> Data:
    """Analyse the runs; write the GPT's fits and the comparison with its fits of the paired runs to their own files.

    Returns what fits.json holds, without the quality of tunes.
    """
    data = analyse(read_study(table, study))
    for line in data["left_out"]:
        print(f"not fitted: {line}")
    make_folder(folder / GPT_FOLDER)
    if "gpt" in data["fits"]:
        write_json(folder / GPT_FOLDER / GPT_FITS, data["fits"]["gpt"])
    compared: dict[str, Any] | None = data["comparison"]
    if compared is not None:
        write_json(folder / COMPARISON_FOLDER / COMPARISON, compared)
        laws = [{name: value for name, value in law.items() if name != "fits"} for law in compared["laws"]]
        data["comparison"] = {**compared, "laws": laws}
    return data


def write_report(data: Data, folder: Path, drawn: set[str], conclusions: Path | None) -> None:
    """Write report.md and report.html. Raises UserError if the conclusions were written for other fits.

    The tables are written all the same, so that the conclusions can be checked against them.
    """
    fits_hash = hash_of([folder / FITS])
    stamp = STAMP.match(conclusions.read_text(encoding="utf-8")) if conclusions else None
    current = stamp is not None and stamp[1] == fits_hash
    drawn = drawn | ({MUSIC_FIGURE} if (folder / f"{MUSIC_FIGURE}.png").is_file() else set())
    text = report(data, drawn, conclusions_of(conclusions, data) if conclusions and current else None)
    write_text(folder / "report.md", text)
    write_text(folder / "report.html", write_page(text, folder))
    if conclusions and not current:
        raise UserError(
            f"{conclusions} was not written for these fits: check it against {folder / 'report.md'}, "
            f"then make its first line {{# fits: {fits_hash} #}}"
        )


def main() -> None:
    cli.main(run, AnalysisArguments, about=__doc__)


if __name__ == "__main__":
    main()
