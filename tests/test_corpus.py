"""The corpus folder as its readers find it: what it records of itself, its parts, and that it is as it was built."""

import hashlib
import json
import shutil
from itertools import pairwise

import numpy as np
import pytest
from conftest import made_tunes

from cli import UserError
from preprocessing.corpus import SPLITS, Corpus, family_position, read_vocabulary
from preprocessing.run import PreprocessingArguments, build


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tunes_of(corpus, stream):
    cuts = np.flatnonzero(np.asarray(stream) == corpus.boundary)
    return {bytes(stream[a:b]) for a, b in pairwise(cuts)}


# What it records of itself


def test_every_split_the_vocabulary_and_the_number_of_keys_are_recorded(small_corpus, small_source, tmp_path):
    assert small_corpus.split_hashes == {s: sha256(small_corpus.folder / "tokens" / f"{s}.npy") for s in SPLITS}
    assert small_corpus.manifest()["corpus"]["vocabulary"] == sha256(small_corpus.folder / "vocab.json")
    assert small_corpus.n_keys == 1
    build(PreprocessingArguments([str(small_source)], str(tmp_path / "keys"), transpose="2", num_proc=1))
    in_keys = Corpus.open(tmp_path / "keys")
    assert in_keys.n_keys == 3
    assert in_keys.split_hashes["train"] != small_corpus.split_hashes["train"]


@pytest.mark.usefixtures("no_figures")
def test_nothing_that_is_written_names_a_family_position_this_machine(small_source, tmp_path, monkeypatch):
    for name in ("a/tunes", "b/tunes"):
        shutil.copytree(small_source, tmp_path / name)
    (tmp_path / "b" / "tunes" / "made.abc").write_text(made_tunes(20, seed=3))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    arguments = {
        "source": ["../a/tunes", str(tmp_path / "b" / "tunes"), "../a/tunes/made.abc"],
        "output_dir": str(tmp_path / "corpus"),
        "num_proc": 1,
    }
    build(PreprocessingArguments(**arguments))
    manifest = Corpus.open(tmp_path / "corpus").manifest()
    assert manifest["arguments"]["source"] == list(manifest["inputs"]) == ["tunes", "tunes (2)", "made.abc"]
    given = PreprocessingArguments(["../b/tunes", "."], str(tmp_path / "again"), vocabulary="../corpus", num_proc=1)
    shutil.copy(tmp_path / "a" / "tunes" / "made.abc", ".")
    build(given)
    for folder in ("corpus", "again"):
        texts = [f.read_text() for f in (tmp_path / folder).rglob("*") if f.suffix in (".json", ".md")]
        assert not [text for text in texts if str(tmp_path) in text or ".." in text]
    assert build(given) is None
    (tmp_path / "b" / "tunes" / "made.abc").write_text(made_tunes(21, seed=3))
    assert build(given) is not None


# Parts


def test_every_smaller_part_is_inside_every_larger_one_and_of_the_size_it_says(bundled_corpus):
    corpus = bundled_corpus
    whole, unique = corpus.part()
    assert np.array_equal(whole, corpus.tokens("train"))
    before, total = tunes_of(corpus, whole), unique
    for fraction in (0.9, 0.7, 0.5, 1 / 3, 0.3, 0.25, 0.2, 0.125, 0.1, 1 / 32):
        part, unique = corpus.part(fraction)
        assert part[0] == part[-1] == corpus.boundary
        assert unique == len(part) - 1 == pytest.approx(fraction * total, rel=0.15)
        smaller = tunes_of(corpus, part)
        assert smaller < before
        before = smaller
    rows = corpus.tunes("train")
    decode = {value: key for key, value in corpus.vocabulary.items()}
    inside = {"".join(decode[i] for i in tune[1:]) for tune in before}
    families = dict(zip(rows["text"], rows["family"], strict=True))
    chosen = {families[text] for text in inside}
    assert all(text in inside for text, family in families.items() if family in chosen)


def test_the_parts_of_one_in_2_4_8_families_are_those_of_the_published_runs():
    families = [f"{i:016x}" for i in range(3000)]
    for one_in in (2, 4, 8, 32):
        divisible = [f for f in families if int(hashlib.sha256(f.encode()).hexdigest(), 16) % one_in == 0]
        assert [f for f in families if family_position(f) < 1 / one_in] == divisible


def test_the_held_out_splits_have_parts_too(small_corpus):
    half, unique = small_corpus.part(0.5, "validation")
    assert tunes_of(small_corpus, half) < tunes_of(small_corpus, small_corpus.tokens("validation"))
    assert unique == len(half) - 1


@pytest.mark.parametrize("fraction", [0, -0.5, 1.01, float("nan"), float("inf")])
def test_a_fraction_that_is_none_is_refused(small_corpus, fraction):
    with pytest.raises(UserError, match="fraction"):
        small_corpus.part(fraction)


# A folder that is not as it was built


@pytest.fixture
def copy(small_corpus, tmp_path):
    return shutil.copytree(small_corpus.folder, tmp_path / "copy")


def swap_two_ids(folder):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["C"], vocabulary["D"] = vocabulary["D"], vocabulary["C"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


def other_stats(folder):
    stats = json.loads((folder / "stats.json").read_text())
    stats["characters"]["train"] += 1
    (folder / "stats.json").write_text(json.dumps(stats))


DEEP = "[" * 50_000
CHANGED = {
    "two ids swapped": ("tokenizer.json", swap_two_ids),
    "an empty tokenizer": ("tokenizer.json", write("tokenizer.json", "{}")),
    "a list for a vocabulary": ("vocab.json", write("vocab.json", "[]")),
    "a deep vocabulary": ("vocab.json", write("vocab.json", DEEP)),
    "other settings of the tokenizer": ("tokenizer_config.json", write("tokenizer_config.json", "{}")),
    "other counts": ("stats.json", other_stats),
    "no tokenizer": ("tokenizer.json", lambda folder: (folder / "tokenizer.json").unlink()),
    "an empty manifest": ("manifest.json", write("manifest.json", "{}")),
    "a list for a manifest": ("manifest.json", write("manifest.json", "[1]")),
    "a manifest of lists": ("manifest.json", write("manifest.json", '{"arguments": {}, "outputs": [], "corpus": {}}')),
    "a manifest that names nothing": (
        "tokenizer.json",
        write("manifest.json", '{"arguments": {}, "outputs": {}, "corpus": {}}'),
    ),
    "a manifest of an earlier version": ("manifest.json", write("manifest.json", '{"arguments": {}, "outputs": {}}')),
    "a deep manifest": ("manifest.json", write("manifest.json", DEEP)),
    "half a manifest": ("manifest.json", write("manifest.json", '{"arguments":')),
}


@pytest.mark.parametrize(("name", "change"), CHANGED.values(), ids=CHANGED.keys())
def test_a_corpus_that_is_not_as_it_was_built_is_refused_by_the_files_name(copy, name, change):
    Corpus.open(copy)
    change(copy)
    with pytest.raises(UserError, match=str(copy / name)) as raised:
        Corpus.open(copy)
    assert "\n" not in str(raised.value)


def test_rows_that_are_not_those_of_the_build_are_refused(copy):
    shutil.copyfile(copy / "data" / "test.parquet", copy / "data" / "train.parquet")
    with pytest.raises(UserError, match=r"train\.parquet"):
        Corpus.open(copy).tunes("train")
    with pytest.raises(UserError, match=r"train\.parquet"):
        Corpus.open(copy).part(0.5)


# A vocabulary from elsewhere


def test_the_vocabulary_of_a_folder_with_a_tokenizer_alone_is_that_of_its_corpus(small_corpus, tmp_path):
    shutil.copyfile(small_corpus.folder / "tokenizer.json", tmp_path / "tokenizer.json")
    assert read_vocabulary(str(tmp_path)) == small_corpus.vocabulary == read_vocabulary(str(small_corpus.folder))


@pytest.mark.parametrize(
    "text",
    ["{}", "[]", "x", DEEP, '{"model": 3}', '{"model": {"vocab": ["a"]}}', '{"model": {"vocab": {"a": "b", "c": 1}}}'],
)
def test_a_tokenizer_that_is_none_is_refused_by_name(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(UserError, match=str(tmp_path)) as raised:
        read_vocabulary(str(tmp_path))
    assert "\n" not in str(raised.value)


def test_a_vocabulary_with_an_id_twice_is_refused(small_corpus, tmp_path):
    tokenizer = json.loads((small_corpus.folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["C"] = tokenizer["model"]["vocab"]["D"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match="tokenizer"):
        read_vocabulary(str(tmp_path))


def test_a_corpus_with_two_ids_swapped_gives_no_vocabulary(copy):
    swap_two_ids(copy)
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        read_vocabulary(str(copy))
