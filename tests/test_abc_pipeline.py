"""The pipeline "abc-generation": header fields, prompts, settings, rendering, and saving it with its code."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from made_models import made_model
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, pipeline

from generation.abc_pipeline import TASK, finish_tune, split_header
from generation.packing import ROOT, pack
from generation.pipeline import RenderingPipeline
from generation.rendering import RenderingError
from preprocessing.notation import judge, split_tunes


def make(architecture):
    """Return the pipeline of an untrained model."""
    model, tokenizer = made_model(architecture)
    return RenderingPipeline(model=model, tokenizer=tokenizer)


@pytest.fixture(scope="module", params=["gpt", "lstm"])
def pipe(request):
    return make(request.param)


def fields_of(tune):
    return dict(split_header(tune["abc"])[0])


def texts(tunes):
    return [tune["abc"] for tune in tunes]


def test_given_fields_are_in_the_header_in_order(pipe):
    tunes = pipe(key="Am", metre="6/8", n=4, seed=0, title="Élan", number=7, bars="strict", max_characters=200)
    assert len(tunes) == 4
    for tune in tunes:
        fields = fields_of(tune)
        assert (fields["X"], fields["T"], fields["M"], fields["K"]) == ("7", "Élan", "6/8", "Am")
        assert [*fields] == sorted(fields, key="XTRMLQK".index)
        assert list(split_tunes(tune["abc"])) == [tune["abc"]]
        assert tune["settings"]["key"] == "Am"


@pytest.mark.parametrize(
    ("name", "given", "spelled"),
    [
        *(
            ("key", *pair)
            for pair in (("A mixolydian", "Amix"), ("A natural minor", "Am"), ("F♯m", "F#m"), ("E♭", "Eb"))
        ),
        *(("rhythm", *pair) for pair in (("Slip  Jig", "slip jig"), ("GÅNGLÅT", "gånglåt"), ("Bourr\\'ee", "bourrée"))),
    ],
)
def test_fields_are_spelled_as_in_a_corpus(pipe, name, given, spelled):
    [tune] = pipe(**{name: given}, metre="6/8", seed=0, bars="strict", max_characters=200)
    assert fields_of(tune)[name[0].upper()] == spelled


def test_the_seed_decides_the_tunes_and_the_global_generator_is_unchanged(pipe):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (texts(pipe(n=3, seed=seed, max_characters=60)) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert first == again
    assert first != other


def test_a_drawn_seed_is_reported(pipe):
    [tune] = pipe(max_characters=60)
    assert texts(pipe(max_characters=60, seed=tune["settings"]["seed"])) == [tune["abc"]]


def test_tunes_of_several_batches_are_numbered(pipe):
    tunes = pipe(n=5, tunes_per_batch=2, seed=3, max_characters=40)
    assert [tune["settings"]["row"] for tune in tunes] == [0, 1, 2, 3, 4]
    assert len(set(texts(tunes))) > 1


@pytest.mark.parametrize(
    "prompt", ["X:1\nM:6/8\nL:1/8\nK:G\nGAB c2d|", "X:1\nM:6/8\nL:1/8\nK:", "X:1\nM", "M:4/4\nL:1/8\nK:D\n"]
)
def test_any_beginning_of_a_tune_is_continued(pipe, prompt):
    [tune] = pipe(prompt, seed=0, max_characters=90)
    assert tune["abc"].startswith("X:1\n" + prompt.removeprefix("X:1\n"))


def test_a_list_of_prompts_gives_a_list_of_lists(pipe):
    found = pipe(["X:1\nM:4/4\nL:1/8\nK:C\n", "X:1\nM:4/4\nL:1/8\nK:G\n"], n=2, seed=0, max_characters=60)
    assert [[fields_of(tune)["K"] for tune in tunes] for tunes in found] == [["C", "C"], ["G", "G"]]


def test_fields_that_the_model_was_not_trained_on_are_only_added_to_the_result(pipe):
    [tune] = pipe("X:9\nT:Ours\nC:me\nM:4/4\nL:1/8\nK:C\nCDEF", seed=4, rhythm="jig", max_characters=70)
    [without] = pipe("X:1\nM:4/4\nL:1/8\nK:C\nCDEF", seed=4, max_characters=70)
    assert tune["abc"] == without["abc"].replace("X:1\n", "X:9\nT:Ours\nR:jig\nC:me\n")


@pytest.mark.parametrize(
    ("text", "ended", "finished"),
    [
        ("X:1\nM:4/4\nL:1/4\nK:C\nCDEF|GABc|G/2de", False, "X:3\nM:4/4\nL:1/4\nK:C\nCDEF|GABc|\n"),
        ("X:1\nM:4/4\nL:1/4\nK:C\nCDEF|GABc|G/2de", True, "X:3\nM:4/4\nL:1/4\nK:C\nCDEF|GABc|G/2de\n"),
        ("X:1\nK:C\nCDEF|]\n\nX:2\nK:G\nGABc|]", True, "X:3\nK:C\nCDEF|]\n"),
    ],
)
def test_one_tune_is_kept_and_cut_at_a_bar_line_if_it_did_not_end(text, ended, finished):
    assert finish_tune(text, ended, "3", []) == finished


def test_strict_bars_make_an_untrained_model_write_full_bars(pipe):
    tunes = pipe(bars="strict", n=12, seed=0, max_characters=200)
    assert sum(judge(tune["abc"]).bars_add_up for tune in tunes) >= 11
    assert {tune["settings"]["bars"] for tune in tunes} == {"strict"}


def test_a_format_that_cannot_be_rendered_is_none_with_a_message(pipe, monkeypatch):
    def absent(_):
        raise RenderingError("no scores: verovio is missing")

    monkeypatch.setattr("generation.rendering.to_svg", absent)
    monkeypatch.setattr("generation.rendering.to_midi", lambda abc: b"MThd" + abc[:1].encode())
    [tune] = pipe(seed=0, max_characters=60, render=["midi", "svg"])
    assert (tune["midi"], tune["svg"]) == (b"MThdX", None)
    assert tune["messages"] == ["no scores: verovio is missing"]


def test_a_temperature_may_be_a_whole_number(pipe):
    assert texts(pipe(seed=0, max_characters=60, temperature=2)) == texts(
        pipe(seed=0, max_characters=60, temperature=2.0)
    )


def test_tunes_stop_after_max_time(pipe):
    tunes = pipe(n=3, seed=0, max_time=1e-6)
    assert not all(tune["ended"] for tune in tunes)
    assert max(len(tune["abc"]) for tune in tunes) < 10


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        *(({"key": key}, f"key '{key}'") for key in ("H", "D Hijaz", "E harmonic minor", "C _2B")),
        ({"metre": "six"}, "metre 'six'"),
        ({"unit_length": "1/0"}, "unit_length '1/0'"),
        ({"title": "one\ntwo"}, "title"),
        ({"temperature": 0}, "temperature 0"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"top_p": 1.5}, "top_p 1.5"),
        ({"n": 0}, "n 0"),
        ({"max_time": 0}, "max_time 0"),
        ({"batch_size": 2}, "tunes_per_batch"),
        *(({"prompt": prompt}, f"prompt {prompt}") for prompt in ([], None, [1, 2])),
        ({"bars": "loose"}, "bars 'loose'"),
        ({"render": ["mp3"]}, "mp3"),
        ({"tempo": 3}, "tempo is no setting"),
        ({"prompt": "CDEF"}, "music without a key"),
        ({"prompt": "X:1\nK:C\n", "key": "D"}, "K: is in the prompt"),
        ({"prompt": "X:1\nK:C\né"}, "'é'"),
        ({"prompt": "CDEF" * 999}, "CDE… is music without a key"),
        ({"prompt": "X:1\nK:C\n" + "C" * 99, "max_characters": 50}, "longer than the 50 characters"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings, words):
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        make("gpt")(**settings)
    assert "\n" not in str(error.value)


ALONE = """
import json, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("analysis", "cli", "files", "generation", "modeling", "preprocessing", "training"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
from transformers import pipeline
for folder in sys.argv[1:]:
    tunes = pipeline("abc-generation", model=folder, trust_remote_code=True)
    again = f"{folder}/again"
    tunes.save_pretrained(again)
    for pipe in (tunes, pipeline("abc-generation", model=again, trust_remote_code=True)):
        print(json.dumps([t["abc"] for t in pipe(key="G", n=2, seed=1, bars="strict", max_characters=90)]))
    plain = pipeline("text-generation", model=folder, trust_remote_code=True)
    print(json.dumps(plain("X:1", max_new_tokens=5, do_sample=False)[0]["generated_text"]))
"""


def test_a_saved_folder_works_where_this_project_is_not_installed(tmp_path):
    expected, folders = [], []
    for architecture in ("gpt", "lstm"):
        pipe = make(architecture)
        folders.append(tmp_path / architecture)
        pipe.save_pretrained(folders[-1])
        expected.append(texts(pipe(key="G", n=2, seed=1, bars="strict", max_characters=90)))
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", ALONE, *map(str, folders)]
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith(("[", '"'))]
    assert lines[0::3] == expected
    assert lines[1::3] == expected
    assert all(line.startswith("X:1") for line in lines[2::3])


def test_the_published_model_has_the_current_code(tmp_path):
    pack(ROOT / "generation" / "abc_pipeline.py", tmp_path)
    packed = {path.name: path.read_text() for path in tmp_path.iterdir()}
    packed |= {path.name: path.read_text() for path in (ROOT / "modeling").glob("*_abc_lstm.py")}
    published = {path.name: path.read_text() for path in (ROOT / "results" / "model").glob("*.py")}
    assert published == packed


def test_the_task_is_registered_with_rendering_where_the_project_is_installed(pipe, tmp_path):
    pipe.model.save_pretrained(tmp_path)
    pipe.tokenizer.save_pretrained(tmp_path)
    assert isinstance(pipeline(TASK, model=str(tmp_path)), RenderingPipeline)
    pipe.save_pretrained(tmp_path / "saved")
    rendering = pipeline(TASK, model=str(tmp_path / "saved"), pipeline_class=RenderingPipeline)
    assert rendering(max_characters=30, render=["midi"])[0].keys() >= {"midi", "messages"}
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.header_fields == "XMLK"
    assert PreTrainedTokenizerFast.from_pretrained(tmp_path).eos_token_id == pipe.tokenizer.eos_token_id
