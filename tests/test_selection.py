"""The selection follows its rule, accounts for what it passes over, and never shows a copy."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import made_tunes
from made_models import CONTEXT, made_model
from made_runs import made_run, record_of

from generation.abc_pipeline import AbcGenerationPipeline
from generation.quality import TIERS
from generation.rendering import render
from generation.selection import SHOWN, escape_markdown, largest_cells, own_loss, select, slim, write_selection
from generation.study import Cell, read_memory
from training.record import write_record

BROKEN = "X:1\nM:4/4\nL:1/8\nK:C\nCDEFGABc|CDE|cdefgabc|CDEFGABc|]\n"


def scored(*kinds):
    tiers = dict.fromkeys(TIERS, True)
    verdicts = {
        "valid": tiers | {"valid": True},
        "copied": tiers | {"valid": True},
        "broken": tiers | {"bars_add_up": False, "valid": False},
    }
    return [{"draw": i, "copied": kind == "copied", "verdict": verdicts[kind]} for i, kind in enumerate(kinds, start=1)]


@pytest.mark.parametrize(
    ("kinds", "shown", "looked_at", "passed_over"),
    [
        (["broken", "copied", *["valid"] * SHOWN, "broken", "valid"], range(3, SHOWN + 3), SHOWN + 2, (1, 1)),
        ([*["broken"] * SHOWN, "copied", "valid", "broken"], [SHOWN + 2, *range(1, SHOWN)], SHOWN + 3, (1, 2)),
        (["copied"], [], 1, (1, 0)),
    ],
)
def test_the_first_valid_tunes_are_shown_then_broken_ones_and_never_copies(kinds, shown, looked_at, passed_over):
    found = select(scored(*kinds))
    assert [tune["draw"] for tune in found.tunes] == list(shown)
    assert found.account["looked_at"] == looked_at
    over = found.account["passed_over"]
    assert (over["copied"], over["not_valid"].get("bars_add_up", 0)) == passed_over
    assert found.account["valid"]["count"] == len(kinds) - kinds.count("broken")


@pytest.mark.parametrize("architecture", ["gpt", "lstm"])
def test_the_loss_of_a_tune_is_that_of_its_model_over_windows_of_the_context(architecture):
    model, tokenizer = made_model(architecture)
    pipe = AbcGenerationPipeline(model=model, tokenizer=tokenizer)
    short, long = "X:1\nK:C\nCDEF|\n", made_tunes(1)
    ids = torch.tensor([[*tokenizer(short)["input_ids"], tokenizer.eos_token_id]])
    with torch.inference_mode():
        assert own_loss(pipe, short, True) == pytest.approx(float(model(ids, labels=ids).loss), rel=1e-5)
        assert own_loss(pipe, short, False) == pytest.approx(float(model(ids[:, :-1], labels=ids[:, :-1]).loss))
        ids = torch.tensor([tokenizer(long, verbose=False)["input_ids"]])
        assert CONTEXT < ids.shape[1] < 2 * CONTEXT
        pieces = [ids[:, :CONTEXT], ids[:, CONTEXT - 1 :]]
        total = sum(float(model(piece, labels=piece).loss) * (piece.shape[1] - 1) for piece in pieces)
    assert own_loss(pipe, long, False) == pytest.approx(total / (ids.shape[1] - 1), rel=1e-5)


def test_a_slim_score_keeps_drawings_and_the_ids_that_are_referred_to():
    svg = '<svg id="s">\n  <style>#s g {}</style>\n  <g id="E050"/>\n  <g id="n1">\n    <use href="#E050"/></g>\n</svg>'
    assert slim(svg.encode()).decode() == (
        '<svg id="s"><style>#s g {}</style><g id="E050"/><g><use href="#E050"/></g></svg>'
    )


def test_markdown_shows_titles_unchanged():
    from markdown_it import MarkdownIt

    title = "*a* [b](c) <i> `d` _e_ | &amp; \\ #f ~g~"
    shown = MarkdownIt("commonmark").render(escape_markdown(title))
    assert "<em>" not in shown
    assert re.sub("&lt;|&gt;|&amp;", lambda sign: {"&lt;": "<", "&gt;": ">", "&amp;": "&"}[sign[0]], shown) == (
        f"<p>{title}</p>\n"
    )


@pytest.fixture(scope="module")
def study(small_corpus, tmp_path_factory):
    """Two sizes of both architectures, two seeds of the larger one: their cells, and known tunes at temperature 0.9."""
    root = tmp_path_factory.mktemp("study")
    copy = small_corpus.tunes("train")[0]["text"]
    fresh = [re.sub("T:.*\n", "", tune) + "\n" for tune in made_tunes(2, seed=8).rstrip().split("\n\n")]
    texts = {("30k", 0): [BROKEN, fresh[0], copy], ("30k", 1): [fresh[0]], ("15k", 0): [fresh[1]]}
    cells, tunes = [], {}
    for architecture in ("gpt", "lstm"):
        for size, seed in texts:
            folder = root / f"{architecture}-{size}-{seed}"
            for part in (made := made_model(architecture, size, seed)):
                part.save_pretrained(folder)
            n = made[0].num_parameters()
            write_record(folder, record_of(made_run(architecture, size, seed, n, 1.0, 1000)))
            for temperature in (0.9, 1.0):
                cell = Cell(architecture, size, seed, n, n // 2, 1.0, temperature, "free", False, folder)
                cells.append(cell)
                tunes[cell.name] = [{"abc": abc, "ended": True} for abc in texts[size, seed]]
    memory, training = read_memory(small_corpus)
    chosen = [{"architecture": a, "size": "30k", "chosen": 0.9} for a in ("gpt", "lstm")]
    reference = SimpleNamespace(memory=memory, training=training)
    return SimpleNamespace(tunes=tunes, reference=reference, largest=largest_cells(cells, chosen), copy=copy)


def write(study, folder, earlier=None, tunes=None, cells=None):
    return write_selection(
        cells or study.largest, tunes or study.tunes, lambda: study.reference, folder, earlier or folder
    )


def test_the_largest_size_is_shown_at_its_temperature_with_scores_and_pages(study, tmp_path, monkeypatch):
    out = tmp_path / "tunes"
    monkeypatch.setattr("generation.selection.describe_copy", lambda *_: "9 notes of A | *B*")
    monkeypatch.setattr(
        "generation.page.render", lambda abc, _: ({}, ["it fails"]) if abc == BROKEN else render(abc, ["mid"])
    )
    write(study, out)
    record = json.loads((out / "samples.json").read_text())
    fresh = study.tunes["gpt-30k-seed_1-t0.9-free"][0]["abc"]
    for architecture in ("gpt", "lstm"):
        rows = [row for row in record["samples"] if row["architecture"] == architecture]
        assert [(row["size"], row["temperature"], row["tokens"]) for row in rows] == [("30k", 0.9, 1000)] * 3
        expected = [(0, 2, fresh), (1, 1, fresh), (0, 1, BROKEN)]
        assert [(row["seed"], row["draw"], row["abc"]) for row in rows] == expected
        assert rows[0]["nats_per_character"] != rows[1]["nats_per_character"]  # each by its own model
        assert record["accounts"][architecture]["passed_over"] == {"copied": 1, "not_valid": {}}
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    made = {row["file"].replace("abc", kind) for row in record["samples"] for kind in ("abc", *row["formats"])}
    assert files == made | {"samples.json", "index.md", "index.html"}
    page = (out / "index.md").read_text()
    assert record["rule"] in page
    assert set(re.findall(r"\]\(([^)]*)\)", page)) == made
    assert r"9 notes of A \| \*B\*" in page
    assert page.count("it fails") == 2
    assert (out / "gpt/03.abc").read_text().startswith("% verdict: not valid")
    melody = study.copy.split("\n", 4)[-1]
    assert not any(melody in path.read_text() for path in out.rglob("*.abc"))
    before = {name: (out / name).stat().st_mtime_ns for name in files}
    assert "finished already" in write(study, out)[0]
    assert {name: (out / name).stat().st_mtime_ns for name in files} == before


def test_an_architecture_without_weights_keeps_its_earlier_tunes_or_is_left_out(study, tmp_path):
    write(study, tmp_path / "first")
    tunes = {name: rows for name, rows in study.tunes.items() if name.startswith("gpt")}
    write(study, tmp_path / "kept", tmp_path / "first", tunes)
    before, after = (json.loads((tmp_path / name / "samples.json").read_text()) for name in ("first", "kept"))
    assert after | {"identity": ""} == before | {"identity": ""}
    for page in ("index.md", "index.html", "lstm/01.abc"):
        assert (tmp_path / "kept" / page).read_text() == (tmp_path / "first" / page).read_text()
    retrained = study.largest | {"lstm": [replace(cell, validation_loss=0.9) for cell in study.largest["lstm"]]}
    messages = write(study, tmp_path / "other", tmp_path / "first", tunes, retrained)
    assert any("no tunes of LSTM" in message for message in messages)
    shown = json.loads((tmp_path / "other" / "samples.json").read_text())["samples"]
    assert {row["architecture"] for row in shown} == {"gpt"}
