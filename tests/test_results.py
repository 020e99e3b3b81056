"""What the repository publishes: it is whole, small, and what the table of runs gives."""

import hashlib
import json
import os
import subprocess
import sys

from made_results import PUBLISHED
from safetensors import safe_open

from analysis.report import conclusions_of
from files import read_json
from generation.selection import SHOWN
from training.record import FINISHED, NOT_RUN
from training.runs_table import read_runs_table

MOST_BYTES = 3_000_000
PLAY = """
import sys
from transformers import pipeline
tunes = pipeline("abc-generation", model=sys.argv[1], trust_remote_code=True)
print(tunes(key="D", metre="6/8", n=2, temperature=0.9, seed=1)[0]["abc"])
assert not {"generation", "modeling", "preprocessing", "cli"} & sys.modules.keys()
"""


def test_the_small_model_writes_tunes_where_the_project_is_not_installed(tmp_path):
    model = PUBLISHED / "model"
    assert (model / "model.safetensors").stat().st_size <= MOST_BYTES
    with safe_open(model / "model.safetensors", framework="pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F16"}  # noqa: SIM118
    environment = {**os.environ, "PYTHONPATH": "", "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", PLAY, str(model)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=True)
    assert "M:6/8\n" in done.stdout
    assert "K:D\n" in done.stdout


def test_twenty_tunes_of_each_architecture_are_published_with_scores_by_the_stated_rule():
    folder = PUBLISHED / "generation_analysis" / "tunes"
    shown = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    for architecture in ("gpt", "lstm"):
        mine = [tune for tune in shown["samples"] if tune["architecture"] == architecture]
        assert len(mine) == SHOWN
        assert [tune["verdict"]["valid"] for tune in mine] == sorted(
            (t["verdict"]["valid"] for t in mine), reverse=True
        )
        for tune in mine:
            assert not tune["copied"]
            assert tune["abc"] in (folder / tune["file"]).read_text(encoding="utf-8")
    assert shown["rule"] in (folder / "index.md").read_text(encoding="utf-8")


def test_the_table_holds_the_study_and_the_plan_of_the_larger_one():
    rows = read_runs_table(PUBLISHED / "runs.parquet")
    seen = {status: [row for row in rows if row.record.status == status] for status in (FINISHED, NOT_RUN)}
    for architecture, least in (("gpt", 7), ("lstm", 6)):
        mine = [r for r in seen[FINISHED] if r.record.config.architecture == architecture and r.study == "cpu"]
        sizes = {row.record.n_params for row in mine}
        assert len(sizes) >= least
        assert max(sizes) / min(sizes) >= 10**1.7
        for size in sizes:
            seeds = {r.record.config.seed for r in mine if r.record.n_params == size and r.arm != "best"}
            assert len(seeds) >= (2 if size > 10**6 else 3)
    assert {row.study for row in seen[NOT_RUN]} <= {"cpu", "gpu"}
    assert any(seen[NOT_RUN])


def test_the_conclusions_are_of_the_published_fits_and_the_report_is_short():
    folder = PUBLISHED / "comparison_analysis"
    digest = hashlib.sha256((folder / "fits.json").read_bytes()).hexdigest()
    template = PUBLISHED / "conclusions.md.j2"
    assert template.read_text(encoding="utf-8").startswith("{# fits: " + digest + " #}")
    text = (folder / "report.md").read_text(encoding="utf-8")
    fits = read_json(folder / "fits.json")
    assert conclusions_of(template, fits).strip() in text
    assert len(text.splitlines()) <= 250


def test_the_conclusions_show_the_changed_numbers():
    fits = read_json(PUBLISHED / "comparison_analysis" / "fits.json")
    fits["quality"]["sizes"][-1]["lstm"]["valid"] = 0.789
    fits["comparison"]["laws"][1]["crossovers"][0]["value"] = 7890.0
    text = conclusions_of(PUBLISHED / "conclusions.md.j2", fits)
    assert "79 %" in text
    assert "7.89K" in text
