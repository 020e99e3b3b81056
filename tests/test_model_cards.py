"""Cards, summary and what is staged and published of a study: each number is the record's, each file the right one."""

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from made_results import PUBLISHED, committed_records, files_of, made_corpus, made_results
from small_runs import with_config

from analysis import report
from cli import UserError, read_arguments
from files import read_json, write_json
from model_cards import readme, run
from model_cards.card import Links, best_card, model_card
from model_cards.publish import publish
from model_cards.releases import MAIN, releases
from model_cards.results import FITS, QUALITY, Results, select_tunes
from model_cards.staging import stage, stage_dataset
from preprocessing.corpus import Corpus
from training.record import BEST, read_record, run_folder, write_record

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """The published study, with the layout of results/."""
    ignored = shutil.ignore_patterns("tunes", "*.svg", "*.png", "*.safetensors")
    folder = shutil.copytree(PUBLISHED, tmp_path_factory.mktemp("published") / "results", ignore=ignored)
    return Results.open_published(folder)


@pytest.fixture(scope="module")
def study(tmp_path_factory, build_from):
    corpus = made_corpus(tmp_path_factory.mktemp("made") / "corpus", build_from)
    return made_results(tmp_path_factory.mktemp("study") / "data", corpus)


@pytest.fixture(scope="module")
def staged(study):
    return stage(Results.open(study), "band", study / "hub")


def models(staged):
    return [branch for branch in staged if branch.kind == "model"]


# Cards


def test_a_card_has_valid_metadata_with_scores_and_intervals_of_the_record(staged):
    for branch in models(staged):
        card, record = ModelCard.load(branch.folder / "README.md"), read_json(branch.folder / "record.json")
        assert card.data.license == "other"  # nobody has named a licence of the made tunes
        assert card.data.datasets == ["band/abc-tunes"]
        assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "text-generation")
        values = {result.metric_name: result for result in card.data.eval_results}
        bits = values["test bits per character"]
        assert bits.metric_value == pytest.approx(record["test_bits_per_character"])
        low, high = bits.metric_args["interval_95"]
        assert low < bits.metric_value < high
        assert sum(result.metric_type == "abc_validity" for result in values.values()) == 3
        for picture in re.findall(r"!\[.*?\]\((.*?)\)", card.text):
            assert (branch.folder / picture).is_file(), picture


def test_the_metadata_of_the_published_model_are_its_record_and_its_quality(committed):
    metadata = yaml.safe_load(best_card(committed).split("---")[1])
    assert metadata["license"] == "cc-by-nc-4.0"
    values = {row["name"]: row["value"] for row in metadata["model-index"][0]["results"][0]["metrics"]}
    assert values["test bits per character"] == committed.best.test_loss / math.log(2)
    assert values["test perplexity per character"] == math.exp(committed.best.test_loss)
    assert values["valid tunes at temperature 0.9"] == committed.quality["best"][1]["shares"]["valid"]["share"]


def test_every_number_that_changes_in_the_records_changes_in_the_card(study, staged):
    results = Results.open(study)
    branch = models(staged)[0]
    record = read_record(branch.folder)
    links = Links(branch.repository, branch.revision, "band/abc-tunes")

    def card(record=record, **changes):
        return model_card(replace(results, **changes), record, [], links)

    before = card()
    for name in (
        *("n_params", "n_params_non_embedding", "tokens", "test_loss", "test_loss_standard_error", "validation_loss"),
        *("validation_loss_standard_error", "seconds", "flops", "tokens_per_second", "epochs"),
    ):
        assert card(replace(record, **{name: getattr(record, name) * 3 + 1})) != before, name
    unmeasured = {**results.quality, "cells": []}  # a seed chooses among its tunes
    before_unmeasured = card(quality=unmeasured)
    for name in ("seed", "learning_rate", "weight_decay", "batch_size", "context"):
        changed = with_config(record, **{name: getattr(record.config, name) * 3 + 1})
        assert card(changed, quality=unmeasured) != before_unmeasured, name
    fits = read_json(study / FITS)
    for fit in fits["fits"]["lstm"]:
        fit["parameters"]["alpha"]["bootstrap"] = [0.123, 0.877]
    assert "0.123 to 0.877" in card(fits=fits)
    corpus = {**results.corpus, "sources": {"somebody's tunes": 4321}}
    assert "| somebody's tunes | 4,321 |" in card(corpus=corpus)


def test_a_release_lists_all_sizes_of_its_architecture(staged):
    for branch in models(staged):
        card = (branch.folder / "README.md").read_text(encoding="utf-8")
        assert re.findall(r"^\| `(\w+)`( \(this one\))?", card, re.MULTILINE) == [
            (revision, " (this one)" if revision == branch.revision else "") for revision in ("15k", "30k", MAIN)
        ]


def test_the_command_of_a_card_plans_that_run_only(staged):
    from training.run import StudyArguments

    branch = models(staged)[0]
    text = (branch.folder / "README.md").read_text(encoding="utf-8")
    flags = re.search(r"```sh\naccelerate launch training/run\.py (.*)\n```", text)[1].split()
    config = read_record(branch.folder).config
    [(read, *_)] = read_arguments(StudyArguments, argv=flags)
    assert (read.gpt_sizes, read.lstm_sizes, read.seeds) == ([config.size], [], [config.seed])
    assert (read.tokens, read.data_fraction) == ([config.tokens], [config.data_fraction])
    assert getattr(read, f"{config.architecture}_lr_rule") == [config.learning_rate]
    for name in ("schedule", "sequences", "warmup_tokens", "batch_size", "context", "weight_decay", "precision"):
        assert getattr(read, name) == getattr(config, name)


def test_the_tunes_shown_are_the_first_valid_ones_of_each_temperature_and_never_copied():
    def tune(number, temperature, valid, copied=False):
        settings = {"temperature": temperature, "bars": "free"}
        return {"file": f"{number}.abc", "settings": settings, "verdict": {"valid": valid}, "copied": copied}

    tunes = [
        tune(0, 1.0, False),
        tune(1, 0.8, True, copied=True),
        tune(2, 1.0, True),
        tune(3, 0.8, True),
        tune(4, 0.9, False),
        tune(5, 0.7, True, copied=None),
    ]
    assert [row["file"] for row in select_tunes(tunes)] == ["3.abc", "4.abc", "2.abc"]


def test_the_last_step_of_a_study_writes_the_card_and_prints_the_summary(study, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["run.py", "--output_dir", str(study)])
    run.main()
    results, printed = Results.open(study), capsys.readouterr().out
    assert (study / BEST / "README.md").read_text(encoding="utf-8") == best_card(results)
    assert read_json(study / BEST / "config.json")["custom_pipelines"].keys() == {"abc-generation"}
    assert printed.count("α = ") >= 4
    assert printed.count("X:1") == 3
    assert f"{results.best.test_bits_per_character:.4f}" in printed
    for row in results.shares(results.best, "valid"):
        assert f"{100 * row['share']:.0f} % of {row['total']}" in printed


def test_a_missing_study_is_named(tmp_path):
    with pytest.raises(UserError, match=re.escape(str(tmp_path / BEST))):
        Results.open(tmp_path)


# The Hub's folders


def test_sizes_are_branches_and_main_is_the_best_model_or_the_lowest_loss(study, staged):
    shared = {(release.architecture, release.revision): release for release in releases(study)}
    assert set(shared) == {(a, r) for a in ("gpt", "lstm") for r in ("15k", "30k", MAIN)}
    assert shared["gpt", MAIN].folder == study / "best_model"
    lowest = min(shared["lstm", size].record.validation_loss for size in ("15k", "30k"))
    assert shared["lstm", MAIN].record.validation_loss == lowest
    assert {shared[key].record.config.seed for key in shared if key[1] != MAIN} == {0}
    names = [(branch.kind, branch.repository, branch.revision) for branch in staged]
    assert names.index(("model", "band/abc-gpt", "30k")) < names.index(("model", "band/abc-gpt", MAIN))


def test_main_holds_the_results_and_the_records_of_all_runs(staged):
    for branch in models(staged):
        table = branch.folder / "results" / "runs.jsonl"
        assert table.is_file() == (branch.revision == MAIN)
        if table.is_file():
            assert len(table.read_text().splitlines()) == 9  # two sizes, two seeds, two architectures, and the best
            assert (branch.folder / "results" / FITS).is_file()
            assert not [*branch.folder.rglob("*.html")]


def test_staging_again_gives_the_same_bytes_also_through_a_link(study, staged, tmp_path):
    before = {branch.folder.relative_to(study / "hub"): files_of(branch.folder) for branch in staged}
    (tmp_path / "disk").mkdir()
    (tmp_path / "hub").symlink_to("disk")
    shutil.copyfile(study / "hub" / "losses.json", tmp_path / "disk" / "losses.json")
    branches = stage(Results.open(study), "band", tmp_path / "hub")
    assert {branch.folder.relative_to(tmp_path / "hub"): files_of(branch.folder) for branch in branches} == before
    assert (tmp_path / "hub").is_symlink()
    assert not [path for path in tmp_path.rglob(".*") if path.suffix in (".partial", ".before")]


def test_only_the_files_of_a_corpus_are_staged_and_only_undamaged(study, tmp_path):
    folder = shutil.copytree(study / "processed_music_data", tmp_path / "corpus")
    (folder / ".env").write_text("SECRET=1")
    stage_dataset(Corpus.open(folder), "band/abc-tunes", tmp_path / "staged")
    assert not (tmp_path / "staged" / ".env").exists()
    assert (tmp_path / "staged" / "data" / "train.parquet").is_file()
    card = (tmp_path / "staged" / "README.md").read_text(encoding="utf-8")
    assert 'load_dataset("band/abc-tunes")' in card
    assert yaml.safe_load(card.split("---")[1])["license"] == "other"
    shutil.copyfile(folder / "data" / "test.parquet", folder / "data" / "train.parquet")
    with pytest.raises(UserError, match=r"train\.parquet"):
        stage_dataset(Corpus.open(folder), "band/abc-tunes", tmp_path / "again")


@pytest.fixture
def changed(study, tmp_path):
    """A copy of the study to change."""
    return shutil.copytree(study, tmp_path / "data", ignore=shutil.ignore_patterns("hub"))


def test_weights_that_are_not_the_record_s_are_refused(changed):
    release = releases(changed)[0]
    write_record(release.folder, replace(read_record(release.folder), validation_loss=1.0))
    with pytest.raises(UserError, match=r"1\.0000"):
        stage(Results.open(changed), "band", changed / "hub")


@pytest.mark.parametrize(
    ("script", "flags", "name"),
    [
        ("push", ["--namespace", "band", "--dry_run"], "hub"),
        ("demo", [], "demo"),
        ("publish", ["--publish_dir", "{root}/shared"], "shared"),
    ],
)
@pytest.mark.parametrize("kind", ["link", "file"])
def test_an_output_that_cannot_be_a_folder_is_refused_before_any_work(
    script, flags, name, kind, tmp_path, monkeypatch, capsys
):
    module = __import__(f"model_cards.{script}", fromlist=[script])
    monkeypatch.setattr(module, "Results", None, raising=False)
    monkeypatch.setattr("model_cards.demo_folder.describe_study", None)
    root = tmp_path / "data"
    root.mkdir()
    (root / name).symlink_to("unmounted/disk") if kind == "link" else (root / name).touch()
    given = [flag.format(root=root) for flag in flags]
    monkeypatch.setattr("sys.argv", [f"{script}.py", "--output_dir", str(root), *given])
    with pytest.raises(SystemExit):
        module.main()
    assert capsys.readouterr().err.startswith(f"error: {root / name} is a {kind}")
    assert [path.name for path in root.iterdir()] == [name]


# results/ and README.md


def test_what_is_published_has_the_layout_of_a_study(changed, tmp_path):
    folder, tunes = tmp_path / "published", changed / "generation_analysis" / "tunes"
    tunes.mkdir(exist_ok=True)
    write_json(tunes / "samples.json", {"samples": []})
    publish(Results.open(changed), folder)
    files = files_of(folder)
    assert {"corpus.json", "ngram_baseline.json", QUALITY, "generation_analysis/tunes/samples.json"} <= files.keys()
    assert {f"{BEST}/README.md", f"{BEST}/samples/samples.json", "model/README.md"} <= files.keys()
    assert not [name for name in files if name.endswith((".html", ".wav"))]
    assert f"{BEST}/model.safetensors" not in files
    for picture in re.findall(r"!\[.*?\]\(\.\./(\S+?)\)", files[f"{BEST}/README.md"].decode()):
        assert (changed / picture).is_file(), picture


def test_the_small_model_stays_where_its_weights_are_missing(changed, tmp_path):
    folder = tmp_path / "published"
    publish(Results.open(changed), folder)
    weights = folder / "model" / "model.safetensors"
    before, record = weights.read_bytes(), read_record(folder / "model")
    chosen = run_folder(changed, record.config) / "model.safetensors"
    chosen.unlink()
    publish(Results.open(changed), folder)
    assert weights.read_bytes() == before
    assert (folder / "model" / "tokenizer.json").is_file()
    write_record(folder / "model", with_config(record, learning_rate=1.0))
    with pytest.raises(UserError, match=re.escape(str(chosen))):
        publish(Results.open(changed), folder)
    assert weights.read_bytes() == before


def test_the_page_gets_findings_and_table_between_its_markers_and_the_models_their_cards(
    committed, tmp_path, monkeypatch
):
    def findings(fits, quality):
        return f"- {len(fits['fits'])}\n- {len(quality)}\n\n| table |\n|---|\n"

    monkeypatch.setattr(report, "findings", findings, raising=False)
    page = tmp_path / "README.md"
    marked = "# Title\n<!-- findings: -->\n{}<!-- end of findings -->\nmore\n<!-- table: -->\n{}<!-- end of table -->\n"
    page.write_text(marked.format("old\n", ""))
    monkeypatch.setattr("sys.argv", ["readme.py", "--results", str(committed.root), "--readme", str(page)])
    for _ in range(2):
        readme.main()
        found = page.read_text()
        figure = re.search(r"\]\((.*\.png)\)", found)[1]
        assert (tmp_path / figure).resolve() == committed.root / "comparison_analysis" / "combined_scaling_laws.png"
        caption = re.search(r"!\[.*\)", found)[0]
        bullets = f"\n{caption}\n\n- 2\n- {len(committed.quality)}\n\n"
        assert found == marked.format(bullets, "\n| table |\n|---|\n\n")
    assert (committed.root / BEST / "README.md").read_text(encoding="utf-8") == best_card(committed)
    assert "results/model" in (committed.root / "model" / "README.md").read_text(encoding="utf-8")
    page.write_text("# Something else\n")
    with pytest.raises(SystemExit):
        readme.main()
    assert page.read_text() == "# Something else\n"


def test_the_published_cards_are_what_the_published_records_give(committed):
    assert (PUBLISHED / BEST / "README.md").read_text(encoding="utf-8") == best_card(committed)


def test_losses_of_the_published_study_fall_with_every_step_in_size_and_beat_the_baseline(committed):
    for architecture in ("gpt", "lstm"):
        losses = [row[architecture]["loss"] for row in committed.fits["sizes"]]
        assert losses == sorted(losses, reverse=True)
        assert losses[0] < committed.fits["baseline"]["validation_loss"]
    assert committed.best.config_hash in {record.config_hash for record in committed_records()}
