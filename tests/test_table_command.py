"""The command that fits a law to anyone's table, as a user meets it."""

import os
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from analysis import run
from files import read_json


@pytest.fixture(autouse=True)
def _rough_intervals(monkeypatch):
    """Intervals of 100 resamples and profiles of 6 points a side: rough, and made in a fraction of the time."""
    monkeypatch.setattr("analysis.fitting.RESAMPLES", 100)
    monkeypatch.setattr("analysis.fitting.PROFILE_POINTS", 6)


def go_in(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["run.py", *map(str, flags)])
    run.main()


def refusal(monkeypatch, capsys, *flags):
    with pytest.raises(SystemExit) as caught:
        go_in(monkeypatch, *flags)
    assert caught.value.code == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: ")
    return line


@pytest.fixture
def table(tmp_path):
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e5, 1e8, 6), np.geomspace(1e7, 1e9, 4)))
    loss = (1.5 + 80 * n**-0.35 + 900 * d**-0.4) * np.exp(np.random.default_rng(0).normal(0, 0.002, len(n)))
    path = tmp_path / "runs.csv"
    rows = [f"{a:.0f},{b:.0f},{6 * a * b:.6e},{c},{i % 3}" for i, (a, b, c) in enumerate(zip(n, d, loss, strict=True))]
    path.write_text("\n".join(["params,tokens,flops,loss,seed", *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--n", "params", "--c", "flops"], "--d 6NC computes D"),
        (["--d", "tokens", "--c", "flops"], "--n 6DC computes N"),
        (["--n", "params", "--d", "6NC"], "name --c"),
        (["--n", "params", "--d", "tokens", "--where", "seed=7"], "no row is left by --where 'seed=7'"),
        (["--n", "params", "--d", "tokens", "--where", "state=a"], "it has params, tokens, flops, loss, seed"),
        (["--n", "params", "--d", "tokens", "--resamples", str(10**21)], "--resamples"),
        (["--n", "params", "--d", "tokens", "--resamples", "100001"], "--resamples"),
        (["--n", "params", "--d", "tokens", "--delta", "nan"], "--delta"),
        (["--n", "params", "--d", "tokens", "--delta", "1e-300"], "--delta"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_meant_is_one_line(table, tmp_path, monkeypatch, capsys, flags, words):
    assert words in refusal(monkeypatch, capsys, "--table", table, "--out", tmp_path / "out", *flags)


@pytest.mark.parametrize("flags", [["--where", "a=b"], ["--n", "params"], ["--out", "x"]], ids=" ".join)
def test_flags_of_a_table_need_a_table(monkeypatch, capsys, flags):
    assert "--table" in refusal(monkeypatch, capsys, *flags)


def test_resamples_that_would_not_fit_into_memory_are_refused(tmp_path, monkeypatch, capsys):
    path = tmp_path / "runs.csv"
    path.write_text("n,loss\n" + "".join(f"{i},{2 + 1 / i}\n" for i in range(1, 3001)))
    flags = ["--table", path, "--n", "n", "--law", "power", "--out", tmp_path / "out", "--resamples", "100000"]
    assert "25000 are the most" in refusal(monkeypatch, capsys, *flags)


def test_conditions_and_a_computed_column_are_reported(table, tmp_path, monkeypatch, capsys):
    flags = ["--n", "params", "--c", "flops", "--d", "6NC", "--out", tmp_path / "out"]
    go_in(monkeypatch, "--table", table, *flags, "--where", "seed!=1", "--where", "params<5e7")
    data = read_json(tmp_path / "out" / "fits.json")
    assert data["rows"]["left_out"] == {"seed!=1": 8, "params<5e7": 4}
    assert (data["rows"]["read"], data["rows"]["used"], data["fit"]["points"]) == (24, 12, 12)
    assert "24 rows, 12 used; left out 8" in capsys.readouterr().out
    assert data["fit"]["domain"]["d"] == pytest.approx([1e7, 1e9], rel=1e-4)
    go_in(monkeypatch, "--table", table, "--n", "params", "--d", "tokens", "--c", "6ND", "--law", "power", *flags[-2:])
    assert read_json(tmp_path / "out" / "fits.json")["fit"]["variables"] == ["c"]


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
def test_absurd_values_are_fitted_or_refused_in_one_line(tmp_path, monkeypatch, capsys, law, column, factor):
    fields = [
        {"params": f"{i}e6", "tokens": f"{1 + i % 3}e8", "loss": f"{3 + 1 / i + i % 2 / 50}"} for i in range(1, 13)
    ]
    fields[4][column] = f"7{factor}"
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(["params,tokens,loss", *(",".join(row.values()) for row in fields)]) + "\n")
    sizes = ["--n", "params"] if law == "power" else ["--n", "params", "--d", "tokens"]
    flags = ["--table", path, *sizes, "--law", law, "--out", tmp_path / "out", "--resamples", "100"]
    if factor == "e300":
        assert f"line 6 (row 5), column '{column}'" in refusal(monkeypatch, capsys, *flags)
    else:
        go_in(monkeypatch, *flags)
        assert read_json(tmp_path / "out" / "fits.json")["fit"]["points"] == 12


@pytest.mark.long
def test_a_table_of_a_million_rows_is_fitted_whole_and_listed_in_part(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    n, d = np.exp(generator.uniform(np.log([1e6, 1e8]), np.log([1e10, 1e12]), (1_000_000, 2)).T)
    loss = (1.8 + 480 * n**-0.35 + 2100 * d**-0.37) * np.exp(generator.normal(0, 0.01, len(n)))
    parquet.write_table(pa.table({"params": n, "tokens": d, "loss": loss}), tmp_path / "runs.parquet")
    begin = time.process_time()
    flags = ["--n", "params", "--d", "tokens", "--out", tmp_path / "out"]
    go_in(monkeypatch, "--table", tmp_path / "runs.parquet", *flags)
    assert time.process_time() - begin < 30  # 8 s alone on a core of 2024
    data = read_json(tmp_path / "out" / "fits.json")
    assert data["fit"]["points"] == data["rows"]["used"] == 1_000_000
    assert len(data["fit"]["residuals"]) == len(data["points"]["loss"]) <= 5000
    assert data["fit"]["parameters"]["alpha"]["value"] == pytest.approx(0.35, abs=3e-4)
    assert data["fit"]["identified"]


@pytest.mark.long
def test_the_order_of_sets_reaches_no_file(table, tmp_path):
    def files(seed):
        out = tmp_path / seed
        flags = [
            "--table",
            table,
            "--n",
            "PARAMS",
            "--d",
            "tokens",
            "--cluster",
            "seed",
            "--where",
            "seed<9",
            "--out",
            out,
        ]
        flags += ["--resamples", "100"]
        code = "import analysis.run; analysis.run.main()"
        environment = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", code, *map(str, flags)], check=True, capture_output=True, env=environment)
        return {path.name: path.read_bytes() for path in out.iterdir()}

    assert files("1") == files("2")
