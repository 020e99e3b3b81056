import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from made_results import PUBLISHED, committed_records, made_results
from small_runs import with_config

from analysis.answers import headline
from cli import UserError
from files import read_json
from model_cards.publish import CORPUS_STATS, best_card, publish, write_findings
from model_cards.results import Results, share_lines, shown_tunes
from model_cards.screen import screen
from training.record import BEST, read_record, run_folder, write_record

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def published():
    """The committed study as Results."""
    started = [run for run in committed_records() if run.config.init_from is not None]
    files = CORPUS_STATS, "fits.json", "generation_analysis/quality.json", f"{BEST}/samples/samples.json"
    corpus, analysis, quality, samples = (read_json(PUBLISHED / file) for file in files)
    return Results(Path("data/cpu"), corpus, started[-1], started[:-1], analysis, quality, samples)


def test_the_readmes_findings_are_what_the_committed_results_say(published):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = readme[readme.index("<!-- findings") : readme.index("<!-- end of findings")]
    for sentence in headline(published.analysis):
        assert sentence in block
    figure = re.search(r"!\[.*\]\((.+\.png)\)", block)
    assert figure is not None
    assert (ROOT / figure[1]).is_file()


def test_the_committed_card_is_what_the_committed_records_give(published):
    assert (PUBLISHED / BEST / "README.md").read_text(encoding="utf-8") == best_card(published, figures="..")


def test_the_card_s_metadata_parses_and_its_numbers_are_the_records(published):
    metadata = yaml.safe_load(best_card(published).split("---")[1])
    assert metadata["license"] == "cc-by-nc-4.0"
    assert metadata["pipeline_tag"] == "text-generation"
    values = {row["name"]: row["value"] for row in metadata["model-index"][0]["results"][0]["metrics"]}
    assert values["test bits per character"] == published.best.test_loss / math.log(2)
    assert values["test perplexity per character"] == math.exp(published.best.test_loss)
    assert values["valid tunes at temperature 0.9"] == published.quality["best"][1]["shares"]["valid"]["share"]


def test_a_changed_record_changes_the_card(published):
    changed = replace(published.best, test_loss=9.0, test_bits_per_character=9.0 / math.log(2))
    card = best_card(replace(published, best=changed))
    assert f"perplexity {math.exp(9.0):.3f}" in card


def test_the_committed_study_s_losses_fall_with_every_step_in_size_and_beat_the_baseline(published):
    for architecture in ("gpt", "lstm"):
        losses = [row[architecture]["loss"] for row in published.analysis["sizes"]]
        assert losses == sorted(losses, reverse=True)
        assert losses[0] < published.analysis["baseline"]["validation_loss"]


def test_the_screen_shows_laws_model_three_tunes_and_every_place(published):
    text = screen(published)
    assert text.count("α = ") >= 4
    assert text.count("X:1") == 3
    for line in share_lines(published, published.best, "valid", "valid"):
        assert line in text
    for place in ("report.html", "fits.json", "best_model", "processed_music_data"):
        assert place in text


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
    assert [row["file"] for row in shown_tunes(tunes)] == ["3.abc", "4.abc", "2.abc"]


def test_the_small_model_stays_where_its_weights_are_not_here(small_corpus, tmp_path):
    root, folder = made_results(tmp_path / "study", small_corpus), tmp_path / "published"
    publish(Results.open(root), folder)
    weights = folder / "model" / "model.safetensors"
    before, record = weights.read_bytes(), read_record(folder / "model")
    chosen = run_folder(root, record.config) / "model.safetensors"
    chosen.unlink()
    publish(Results.open(root), folder)
    assert weights.read_bytes() == before
    assert (folder / "model" / "tokenizer.json").is_file()
    write_record(folder / "model", with_config(record, learning_rate=1.0))
    with pytest.raises(UserError, match=re.escape(f"{chosen} is missing, and {folder / 'model'} holds another model")):
        publish(Results.open(root), folder)
    assert weights.read_bytes() == before


def test_a_missing_study_is_one_line(tmp_path):
    with pytest.raises(UserError, match="holds no trained model"):
        Results.open(tmp_path)


def test_a_readme_without_a_place_for_the_findings_is_left_alone(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("# Something else\n")
    with pytest.raises(UserError, match="marks"):
        write_findings(PUBLISHED, readme)
    assert readme.read_text() == "# Something else\n"
