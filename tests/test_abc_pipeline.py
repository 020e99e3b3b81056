import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from made_models import made_model
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, pipeline

from generation.abc_pipeline import TASK, finish, split_header
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


def fields_of(abc):
    return dict(split_header(abc)[0])


def test_given_fields_stand_in_the_header_of_one_tune_in_their_order(pipe):
    tunes = pipe(key="Am", metre="6/8", n=4, seed=0, title="Élan", number=7, bars="strict", max_characters=200)
    assert len(tunes) == 4
    for tune in tunes:
        fields = split_header(tune["abc"])[0]
        found = dict(fields)
        assert (found["X"], found["T"], found["M"], found["K"]) == ("7", "Élan", "6/8", "Am")
        letters = [letter for letter, _ in fields]
        assert letters == sorted(letters, key="XTRMLQK".index)
        assert list(split_tunes(tune["abc"])) == [tune["abc"]]
        assert tune["settings"]["key"] == "Am"


def test_a_given_key_is_spelled_as_in_a_corpus(pipe):
    for key, spelled in (("A mixolydian", "Amix"), ("A natural minor", "Am"), ("F♯m", "F#m"), ("E♭", "Eb")):
        [tune] = pipe(key=key, metre="6/8", seed=0, bars="strict", max_characters=200)
        assert fields_of(tune["abc"])["K"] == spelled


def test_the_seed_decides_the_tunes_and_the_callers_randomness_is_left_alone(pipe):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = ([t["abc"] for t in pipe(n=3, seed=s, max_characters=60)] for s in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert first == again
    assert first != other


def test_a_drawn_seed_is_told_and_gives_the_tune_again(pipe):
    [tune] = pipe(max_characters=60)
    [again] = pipe(max_characters=60, seed=tune["settings"]["seed"])
    assert again["abc"] == tune["abc"]


def test_tunes_in_several_batches_are_as_many_and_told_apart(pipe):
    tunes = pipe(n=5, at_once=2, seed=3, max_characters=40)
    assert [tune["settings"]["row"] for tune in tunes] == [0, 1, 2, 3, 4]
    assert len({tune["abc"] for tune in tunes}) > 1


def test_a_prompt_is_continued_from_any_point_of_a_tune(pipe):
    for prompt in ("X:1\nM:6/8\nL:1/8\nK:G\nGAB c2d|", "X:1\nM:6/8\nL:1/8\nK:", "X:1\nM", "M:4/4\nL:1/8\nK:D\n"):
        [tune] = pipe(prompt, seed=0, max_characters=90)
        assert tune["abc"].startswith("X:1\n" + prompt.removeprefix("X:1\n"))


def test_a_list_of_prompts_gives_a_list_of_lists(pipe):
    found = pipe(["X:1\nM:4/4\nL:1/8\nK:C\n", "X:1\nM:4/4\nL:1/8\nK:G\n"], n=2, seed=0, max_characters=60)
    assert [[fields_of(tune["abc"])["K"] for tune in tunes] for tunes in found] == [["C", "C"], ["G", "G"]]


def test_fields_that_a_model_has_never_seen_are_written_and_not_fed(pipe):
    with_them = pipe("X:9\nT:Ours\nC:me\nM:4/4\nL:1/8\nK:C\nCDEF", seed=4, rhythm="jig", max_characters=70)[0]["abc"]
    without = pipe("X:1\nM:4/4\nL:1/8\nK:C\nCDEF", seed=4, max_characters=70)[0]["abc"]
    assert with_them == without.replace("X:1\n", "X:9\nT:Ours\nR:jig\nC:me\n")


@pytest.mark.parametrize(
    ("given", "spelled"),
    [("Reel", "reel"), ("Slip  Jig", "slip jig"), ("GÅNGLÅT", "gånglåt"), ("Bourr\\'ee", "bourrée")],
)
def test_a_rhythm_is_spelled_as_the_corpus_spells_it(pipe, monkeypatch, given, spelled):
    [tune] = pipe(rhythm=given, seed=0, max_characters=60)
    assert fields_of(tune["abc"])["R"] == spelled
    monkeypatch.setattr(pipe.model.config, "header_fields", "XRMLK", raising=False)
    assert pipe.preprocess("", rhythm=given)["forced"] == {"R": spelled}


def test_a_tune_that_did_not_end_is_cut_at_its_last_bar_line():
    text = "X:1\nM:4/4\nL:1/4\nK:C\nCDEF|GABc|G/2de"
    assert finish(text, False, "3", []) == "X:3\nM:4/4\nL:1/4\nK:C\nCDEF|GABc|\n"
    assert finish(text, True, "3", []).endswith("|G/2de\n")


def test_only_the_first_of_two_tunes_is_kept():
    text = "X:1\nK:C\nCDEF|]\n\nX:2\nK:G\nGABc|]"
    assert finish(text, True, "1", []) == "X:1\nK:C\nCDEF|]\n"


def test_strict_bars_make_an_untrained_model_write_full_bars(pipe):
    tunes = pipe(bars="strict", n=12, seed=0, max_characters=200)
    assert sum(judge(tune["abc"]).bars_add_up for tune in tunes) >= 11
    assert {tune["settings"]["bars"] for tune in tunes} == {"strict"}


def test_plain_text_generation_still_works(pipe):
    plain = pipeline("text-generation", model=pipe.model, tokenizer=pipe.tokenizer)
    [made] = plain("X:1\nM:4/4\n", max_new_tokens=8, do_sample=False)
    assert made["generated_text"].startswith("X:1\nM:4/4\n")


def test_what_cannot_be_rendered_costs_its_format_and_one_line(pipe, monkeypatch):
    def absent(_):
        raise RenderingError("no scores: verovio is missing")

    monkeypatch.setattr("generation.rendering.to_svg", absent)
    monkeypatch.setattr("generation.rendering.to_midi", lambda abc: b"MThd" + abc[:1].encode())
    [tune] = pipe(seed=0, max_characters=60, render=["midi", "svg"])
    assert tune["midi"] == b"MThdX"
    assert tune["svg"] is None
    assert tune["messages"] == ["no scores: verovio is missing"]


def test_a_whole_number_is_a_temperature(pipe):
    [whole], [same] = (pipe(seed=0, max_characters=60, temperature=2.0 if exact else 2) for exact in (False, True))
    assert whole["abc"] == same["abc"]


def test_what_is_unfinished_in_time_is_cut_at_a_bar_line(pipe):
    tunes = pipe(n=3, seed=0, max_time=1e-6)
    assert not all(tune["ended"] for tune in tunes)
    assert max(len(tune["abc"]) for tune in tunes) < 10


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"key": "H"}, "key 'H'"),
        ({"key": "D Hijaz"}, "key 'D Hijaz'"),
        ({"key": "E harmonic minor"}, "key 'E harmonic minor'"),
        ({"key": "C _2B"}, "key 'C _2B'"),
        ({"metre": "six"}, "metre 'six'"),
        ({"unit_length": "1/0"}, "unit_length '1/0'"),
        ({"title": "one\ntwo"}, "title"),
        ({"temperature": 0}, "temperature 0"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"top_p": 1.5}, "top_p 1.5"),
        ({"n": 0}, "n 0"),
        ({"max_time": 0}, "max_time 0"),
        ({"batch_size": 2}, "at_once"),
        ({"prompt": []}, "prompt []"),
        ({"prompt": None}, "prompt None"),
        ({"prompt": [1, 2]}, "prompt [1, 2]"),
        ({"bars": "loose"}, "bars 'loose'"),
        ({"render": ["mp3"]}, "mp3"),
        ({"tempo": 3}, "tempo is no setting"),
        ({"prompt": "CDEF"}, "music without a key"),
        ({"prompt": "X:1\nK:C\n", "key": "D"}, "the prompt has K: already"),
        ({"prompt": "X:1\nK:C\né"}, "'é'"),
        ({"prompt": "CDEF" * 999}, "CDE… is music without a key"),
        ({"prompt": "X:1\nK:C\n" + "C" * 99, "max_characters": 50}, "longer than the 50 characters"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(pipe, settings, words):
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        pipe(**settings)
    assert "\n" not in str(error.value)


ALONE = """
import json, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("generation", "preprocessing", "modeling", "cli"):
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
        own = make(architecture)
        folders.append(tmp_path / architecture)
        own.save_pretrained(folders[-1])
        expected.append([tune["abc"] for tune in own(key="G", n=2, seed=1, bars="strict", max_characters=90)])
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", ALONE, *map(str, folders)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith(("[", '"'))]
    assert lines[0::3] == expected
    assert lines[1::3] == expected
    assert all(line.startswith("X:1") for line in lines[2::3])


def test_the_task_is_registered_here(pipe, tmp_path):
    pipe.model.save_pretrained(tmp_path)
    pipe.tokenizer.save_pretrained(tmp_path)
    assert isinstance(pipeline(TASK, model=str(tmp_path)), RenderingPipeline)
    pipe.save_pretrained(tmp_path / "saved")  # it names the code that travels
    rendering = pipeline(TASK, model=str(tmp_path / "saved"), pipeline_class=RenderingPipeline)
    assert rendering(max_characters=30, render=["midi"])[0].keys() >= {"midi", "messages"}
    assert Path(tmp_path, "config.json").is_file()
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.config.header_fields == "XMLK"
    assert PreTrainedTokenizerFast.from_pretrained(tmp_path).eos_token_id == pipe.tokenizer.eos_token_id
