"""The command that fits a law to any table, as a user meets it."""

import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from analysis import fit as command
from files import read_json

ND = ["--n", "params", "--d", "tokens"]


@pytest.fixture(autouse=True)
def _rough_profiles(monkeypatch):
    monkeypatch.setattr("analysis.profiles.POINTS", 6)


@pytest.fixture
def fit(tmp_path, monkeypatch):
    """fit(table, *flags): run the command with 100 resamples; the output folder."""

    def run(table, *flags):
        flags = ["--table", table, "--output_dir", tmp_path / "out", "--resamples", "100", *flags]
        monkeypatch.setattr(sys, "argv", ["fit.py", *map(str, flags)])
        command.main()
        return tmp_path / "out"

    return run


@pytest.fixture
def refusal(fit, capsys):
    """refusal(table, *flags): the line with which the command ends."""

    def run(table, *flags):
        with pytest.raises(SystemExit) as caught:
            fit(table, *flags)
        assert caught.value.code == 1
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert line.startswith("error: ")
        return line

    return run


@pytest.fixture
def table(tmp_path):
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e5, 1e8, 6), np.geomspace(1e7, 1e9, 4)))
    loss = (1.5 + 80 * n**-0.35 + 900 * d**-0.4) * np.exp(np.random.default_rng(0).normal(0, 0.002, len(n)))
    path = tmp_path / "runs.csv"
    columns = zip(n, d, loss.tolist(), strict=True)
    rows = [f"{a:.0f},{b:.0f},{6 * a * b:.6e},{c!r},{i % 3}" for i, (a, b, c) in enumerate(columns)]
    path.write_text("\n".join(["params,tokens,flops,loss,seed", *rows]) + "\n")
    return path


def test_a_table_is_fitted_with_figures_and_a_report_of_its_numbers(fit, table, capsys):
    out = fit(table, *ND, "--delta", "0.01", "--where", "seed!=1", "--where", "params<5e7")
    data = read_json(out / "fits.json")
    alpha = data["fit"]["parameters"]["alpha"]
    assert alpha["value"] == pytest.approx(0.35, abs=0.05)
    assert data["rows"] == {"read": 24, "used": 12, "left_out": {"seed!=1": 8, "params<5e7": 4}, "notes": []}
    assert "alpha = " in capsys.readouterr().out
    names = ("law", "residuals", "profile_likelihoods")
    assert {path.name for path in out.iterdir()} == {
        "fits.json", "report.md", "report.html", *(f"{name}.{kind}" for name in names for kind in ("png", "svg"))
    }  # fmt: skip
    assert (out / "report.html").read_text().count("<figure") == 3
    text = (out / "report.md").read_text()
    assert text == command.write_report(data)
    alpha |= {"value": 0.1234, "identified": False, "reason": "its profile is flat above"}
    data["rows"]["left_out"]["seed!=1"] = 77
    changed = command.write_report(data)
    assert set(re.findall(r"0\.123|77|flat above", changed)) == {"0.123", "77", "flat above"}


def test_a_computed_column_is_fitted_by_a_law_of_one_variable(fit, table):
    out = fit(table, *ND, "--c", "6ND", "--law", "power")
    assert read_json(out / "fits.json")["fit"]["variables"] == ["c"]
    out = fit(table, "--n", "params", "--c", "flops", "--d", "6NC", "--cluster", "seed")
    data = read_json(out / "fits.json")["fit"]
    assert data["domain"]["d"] == pytest.approx([1e7, 1e9], rel=1e-4)
    assert data["clusters"] == 3
    assert not data["identified"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--n", "params"], "--d"),
        (["--n", "params", "--c", "flops"], "--d 6NC computes D"),
        (["--d", "tokens", "--c", "flops"], "--n 6DC computes N"),
        (["--n", "params", "--d", "6NC"], "name --c"),
        (["--n", "params", "--d", "nothing"], "no column 'nothing'"),
        ([*ND, "--law", "magic"], "--law magic"),
        ([*ND, "--law", "power"], "one variable"),
        ([*ND, "--law", "sms"], "--u"),
        ([*ND, "--c", "flops"], "does not use --c"),
        ([*ND, "--where", "seed=7"], "no row meets --where 'seed=7'"),
        ([*ND, "--where", "state=a"], "it has params, tokens, flops, loss, seed"),
        ([*ND, "--resamples", "3"], "--resamples"),
        ([*ND, "--resamples", str(10**21)], "--resamples"),
        ([*ND, "--delta", "0"], "--delta"),
        ([*ND, "--delta", "nan"], "--delta"),
        ([*ND, "--delta", "1e-300"], "--delta"),
        ([*ND, "--output_dir", "."], "choose another folder"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line(refusal, table, flags, words):
    assert words in refusal(table, *flags)


def test_resamples_that_do_not_fit_into_memory_are_refused(refusal, tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("n,loss\n" + "".join(f"{i},{2 + 1 / i}\n" for i in range(1, 3001)))
    assert "at most 25000" in refusal(path, "--n", "n", "--law", "power", "--resamples", "100000")


def test_a_constant_loss_is_refused(refusal, table):
    table.write_text(re.sub(r",[\d.]+(,\d)$", r",2.0\1", table.read_text(), flags=re.MULTILINE))
    assert "all losses are equal" in refusal(table, *ND)


def test_odd_names_break_neither_figures_nor_report(fit, table):
    odd = table.with_name("a|b *c* <b>.csv")
    odd.write_text(table.read_text().replace("params", "t$o_{$k 音"))
    out = fit(odd, "--n", "t$o_{$k 音", "--law", "power")
    assert "fitted to a|b *c* &lt;b&gt;.csv</h1>" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("law", "column", "factor"),
    [
        ("power", "params", "e-30"),
        ("power", "params", "e25"),
        ("chinchilla", "tokens", "e-30"),
        ("chinchilla", "loss", "e25"),
        ("chinchilla", "loss", "e300"),
        ("chinchilla", "tokens", "e300"),
    ],
)
def test_absurd_values_are_fitted_or_refused_by_their_cell(fit, refusal, tmp_path, law, column, factor):
    fields = [
        {"params": f"{i}e6", "tokens": f"{1 + i % 3}e8", "loss": f"{3 + 1 / i + i % 2 / 50}"} for i in range(1, 13)
    ]
    fields[4][column] = f"7{factor}"
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(["params,tokens,loss", *(",".join(row.values()) for row in fields)]) + "\n")
    flags = [*(ND[:2] if law == "power" else ND), "--law", law]
    if factor == "e300":
        assert f"row 5, column '{column}'" in refusal(path, *flags)
    else:
        assert read_json(fit(path, *flags) / "fits.json")["fit"]["points"] == 12


def test_the_figure_of_a_law_looks_as_it_did(fit, table, assert_looks_like):
    out = fit(table, "--n", "params", "--law", "power_irreducible", "--delta", "0.01", "--resamples", "1000")
    assert_looks_like(out / "law.png", "table_law")


def test_the_example_of_the_documentation_runs_as_printed(tmp_path):
    text = (Path(__file__).parent.parent / "docs" / "fitting.md").read_text(encoding="utf-8")
    code = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "analysis.fitting" in block)
    process = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.search(r"value=0\.3(49999|500000)", process.stdout)


@pytest.mark.long
def test_a_table_of_a_million_rows_is_fitted_whole_and_listed_in_part(fit, tmp_path):
    generator = np.random.default_rng(0)
    n, d = np.exp(generator.uniform(np.log([1e6, 1e8]), np.log([1e10, 1e12]), (1_000_000, 2)).T)
    loss = (1.8 + 480 * n**-0.35 + 2100 * d**-0.37) * np.exp(generator.normal(0, 0.01, len(n)))
    parquet.write_table(pa.table({"params": n, "tokens": d, "loss": loss}), tmp_path / "runs.parquet")
    begin = time.process_time()
    data = read_json(fit(tmp_path / "runs.parquet", *ND) / "fits.json")
    assert time.process_time() - begin < 45
    assert data["fit"]["points"] == data["rows"]["used"] == 1_000_000
    assert len(data["fit"]["residuals"]) == len(data["points"]["loss"]) <= 5000
    assert data["fit"]["parameters"]["alpha"]["value"] == pytest.approx(0.35, abs=3e-4)
    assert data["fit"]["identified"]
