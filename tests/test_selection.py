"""The selection shows what its rule says, tells what it passed over, and never shows a copy."""

import json
import re
import sys

import pytest
import torch
from conftest import made_tunes
from made_models import CONTEXT, made_model
from made_runs import made_run, record_of
from small_runs import made_config, with_config

import generation.run
from files import write_json
from generation.abc_pipeline import AbcGenerationPipeline
from generation.quality import TIERS
from generation.rendering import render
from generation.selection import RULE, SHOWN, account, as_markdown_text, own_loss, pick, slim
from generation.study import CELLS, FINDINGS, QUALITY_FOLDER
from training.record import read_record, run_folder, write_record

BROKEN = "X:1\nM:4/4\nL:1/8\nK:C\nCDEFGABc|CDE|cdefgabc|CDEFGABc|]\n"


def draw(number, kind):
    tiers = dict.fromkeys(TIERS, True) | ({} if kind == "valid" else {"bars_add_up": kind != "broken"})
    return {"seed": 0, "draw": number, "copied": kind == "copied", "verdict": tiers | {"valid": kind != "broken"}}


def draws(*kinds):
    return [draw(number, kind) for number, kind in enumerate(kinds, start=1)]


def test_the_first_valid_draws_are_shown_and_what_lies_between_them_is_counted():
    every = draws("broken", "copied", *["valid"] * SHOWN, "broken", "valid")
    shown = pick(every)
    assert [row["draw"] for row in shown] == list(range(3, SHOWN + 3))
    told = account(every, shown)
    assert told["looked_at"] == SHOWN + 2
    assert told["passed_over"] == {"copied": 1, "not_valid": {"bars_add_up": 1}}
    assert told["valid"]["count"] == SHOWN + 2  # the copy and the last one among them


def test_where_valid_draws_are_lacking_the_first_broken_ones_stand_behind_them_and_copies_never():
    every = draws(*["broken"] * SHOWN, "copied", "valid", "broken")
    shown = pick(every)
    assert [row["draw"] for row in shown] == [SHOWN + 2, *range(1, SHOWN)]
    told = account(every, shown)
    assert told["shown"] == {"valid": 1, "all": SHOWN}
    assert told["looked_at"] == len(every)
    assert told["passed_over"] == {"copied": 1, "not_valid": {"bars_add_up": 2}}
    assert pick(draws("copied")) == []


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


def test_a_slim_score_keeps_what_is_drawn_and_what_is_referred_to():
    svg = '<svg id="s">\n  <style>#s g {}</style>\n  <g id="E050"/>\n  <g id="n1">\n    <use href="#E050"/></g>\n</svg>'
    assert slim(svg.encode()).decode() == (
        '<svg id="s"><style>#s g {}</style><g id="E050"/><g><use href="#E050"/></g></svg>'
    )


def test_markdown_shows_titles_as_they_are():
    from markdown_it import MarkdownIt

    title = "*a* [b](c) <i> `d` _e_ | &amp; \\ #f ~g~"
    shown = MarkdownIt("commonmark").render(as_markdown_text(title))
    assert "<em>" not in shown
    assert re.sub("&lt;|&gt;|&amp;", lambda sign: {"&lt;": "<", "&gt;": ">", "&amp;": "&"}[sign[0]], shown) == (
        f"<p>{title}</p>\n"
    )


@pytest.fixture
def study(small_corpus, tmp_path):
    """Two sizes of both architectures, two seeds of the larger one, whose kept tunes are known."""
    copy = small_corpus.tunes("train")[0]["text"]
    fresh = [re.sub("T:.*\n", "", tune) + "\n" for tune in made_tunes(2, seed=8).rstrip().split("\n\n")]
    kept = {("30k", 0): [BROKEN, fresh[0], copy], ("30k", 1): [fresh[0]], ("15k", 0): [fresh[1]]}
    for architecture in ("gpt", "lstm"):
        for (size, seed), tunes in kept.items():
            folder = run_folder(tmp_path, made_config(architecture, size, seed=seed, tokens=1000))
            for part in (made := made_model(architecture, size, seed)):
                part.save_pretrained(folder)
            n = made[0].num_parameters()
            row = made_run(architecture, size, seed, n, 1.0, 1000, corpus=small_corpus.digest())
            write_record(folder, record_of(row | {"n_params_non_embedding": n // 2}))
            for temperature, rows in ((0.9, tunes), (1.0, [BROKEN])):
                name = f"{architecture}-{size}-seed_{seed}-t{temperature:g}-free.json"
                written = {"tunes": [{"abc": abc, "ended": True} for abc in rows]}
                write_json(tmp_path / QUALITY_FOLDER / CELLS / name, written)
    chosen = [
        {"architecture": architecture, "size": size, "chosen": temperature}
        for architecture in ("gpt", "lstm")
        for size, temperature in (("15k", 1.0), ("30k", 0.9))
    ]
    write_json(tmp_path / QUALITY_FOLDER / FINDINGS, {"bars": "free", "temperatures": chosen})
    return tmp_path, copy, fresh


def run_door(monkeypatch, corpus, root, out="shown"):
    arguments = [
        "--part",
        "selection",
        "--corpus",
        corpus,
        "--output_root",
        root,
        *(["--out", root / out] if out else []),
    ]
    monkeypatch.setattr(sys, "argv", ["run.py", *map(str, arguments)])
    generation.run.main()


def test_the_door_writes_the_tunes_of_the_largest_size_at_its_temperature_with_their_scores(
    study, small_corpus, monkeypatch, capsys
):
    root, copy, fresh = study
    monkeypatch.setattr("generation.selection.nearest", lambda *_: "9 notes of A | *B*")
    monkeypatch.setattr(
        "generation.selection.render", lambda abc, _: ({}, ["it fails"]) if abc == BROKEN else render(abc, ["mid"])
    )
    run_door(monkeypatch, small_corpus.folder, root)
    out = root / "shown"
    record = json.loads((out / "samples.json").read_text())
    for architecture in ("gpt", "lstm"):
        rows = [row for row in record["samples"] if row["architecture"] == architecture]
        assert [(row["size"], row["temperature"], row["tokens"]) for row in rows] == [("30k", 0.9, 1000)] * 3
        assert [(row["seed"], row["draw"], row["abc"]) for row in rows] == [
            (0, 2, fresh[0]),
            (1, 1, fresh[0]),
            (0, 1, BROKEN),
        ]
        assert rows[0]["nats_per_character"] != rows[1]["nats_per_character"]  # each by its own model
        assert record["accounts"][architecture]["passed_over"] == {"copied": 1, "not_valid": {}}
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    made = {row["file"].replace("abc", kind) for row in record["samples"] for kind in ("abc", *row["formats"])}
    assert files == made | {"samples.json", "index.md", "index.html"}
    page = (out / "index.md").read_text()
    assert page.startswith(f"# Selected tunes\n\n{RULE}\n")
    assert page.count("passed over there: 1 copied, 0 not valid.") == 2
    assert set(re.findall(r"\]\(([^)]*)\)", page)) == made
    assert "### LSTM 3 – not valid: of its 4 bars 1 do not add up" in page
    assert r"9 notes of A \| \*B\*" in page
    assert page.count("not rendered: it fails") == 2
    assert (out / "gpt/03.abc").read_text().startswith("% verdict: not valid")
    melody = copy.split("\n", 4)[-1]
    assert not any(melody in path.read_text() for path in out.rglob("*.abc"))
    before = {name: (out / name).stat().st_mtime_ns for name in files}
    capsys.readouterr()
    run_door(monkeypatch, small_corpus.folder, root)
    assert "finished already" in capsys.readouterr().out
    assert {name: (out / name).stat().st_mtime_ns for name in files} == before


def test_the_tunes_of_an_architecture_whose_weights_are_not_here_stay(study, small_corpus, monkeypatch, capsys):
    root, *_ = study
    out = root / "shown"
    run_door(monkeypatch, small_corpus.folder, root)
    before = json.loads((out / "samples.json").read_text())
    pages = [(out / page).read_text() for page in ("index.md", "index.html")]
    for cell in (root / QUALITY_FOLDER / CELLS).glob("lstm-*"):
        cell.unlink()
    for weights in (root / "LSTM_training").rglob("model.safetensors"):
        weights.unlink()
    run_door(monkeypatch, small_corpus.folder, root)
    after = json.loads((out / "samples.json").read_text())
    assert after["identity"] != before["identity"]
    assert after | {"identity": 0} == before | {"identity": 0}
    assert [(out / page).read_text() for page in ("index.md", "index.html")] == pages
    for name in root.rglob("record.json"):
        name.write_text(name.read_text().replace('"validation_loss": 1.0', '"validation_loss": 0.9'))
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run_door(monkeypatch, small_corpus.folder, root)
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "model.safetensors is missing, and" in line
    assert f"{out} shows no tunes of it" in line


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("another corpus", "not the corpus that"),
        ("not measured", "lacks gpt 30k"),
        ("no tunes", "gpt-30k-seed_1-t0.9-free.json is missing"),
        ("another folder", "holds other files"),
        ("no folder", "--out: name the folder"),
    ],
)
def test_what_cannot_be_selected_gets_one_line(damage, words, study, small_corpus, monkeypatch, capsys):
    root = study[0]
    findings = root / QUALITY_FOLDER / FINDINGS
    if damage == "another corpus":
        for path in root.rglob("record.json"):
            write_record(path.parent, with_config(read_record(path.parent), corpus="0" * 16))
    elif damage == "not measured":
        found = json.loads(findings.read_text())
        write_json(findings, found | {"temperatures": [row for row in found["temperatures"] if row["size"] == "15k"]})
    elif damage == "no tunes":
        (root / QUALITY_FOLDER / CELLS / "gpt-30k-seed_1-t0.9-free.json").unlink()
    elif damage == "another folder":
        (root / "shown").mkdir()
        (root / "shown" / "mine.txt").touch()
    with pytest.raises(SystemExit):
        run_door(monkeypatch, small_corpus.folder, root, out=None if damage == "no folder" else "shown")
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert words in line
    assert not (root / "shown" / "samples.json").exists()
