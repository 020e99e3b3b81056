"""The corpus folder as its readers find it: identity, parts, and that it is unchanged since it was built."""

import hashlib
import json
import re
import shutil
from itertools import pairwise

import numpy as np
import pytest
from conftest import made_tunes

from cli import UserError
from preprocessing.blocks import Block
from preprocessing.corpus import SPLITS, Corpus, family_position, read_vocabulary
from preprocessing.run import PreprocessingArguments, build
from preprocessing.tokens import UNKNOWN


def tunes_of(corpus, stream):
    cuts = np.flatnonzero(np.asarray(stream) == corpus.boundary)
    return {bytes(stream[a:b]) for a, b in pairwise(cuts)}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Identity


def test_splits_vocabulary_and_keys_identify_a_corpus(tmp_path, build_from):
    text = made_tunes(150, seed=1)
    first, again = (build_from(tmp_path / name, [Block("made", "made.abc", text.encode())]) for name in "ab")
    in_keys = build_from(tmp_path / "keys", [Block("made", "made.abc", text.encode())], keys=2)
    assert first.split_hashes == {split: sha256(first.folder / "tokens" / f"{split}.npy") for split in SPLITS}
    assert first.manifest()["corpus"]["vocabulary"] == sha256(first.folder / "vocab.json")
    assert (first.n_keys, in_keys.n_keys) == (1, 3)
    assert first.digest() == again.digest() != in_keys.digest()


def test_characters_that_no_training_tune_has_are_unknown(tmp_path, build_from):
    text = made_tunes(150, seed=1)
    before = build_from(tmp_path / "before", [Block("made", "made.abc", text.encode())])
    last = before.tunes("test")["text"][0].split("\n")[-1]
    changed = text.replace(last, last.replace("|]", "~|]"))
    corpus = build_from(tmp_path / "after", [Block("made", "made.abc", changed.encode())])
    assert "~" not in corpus.vocabulary
    assert int((corpus.tokens("test") == corpus.vocabulary[UNKNOWN]).sum()) == 1
    assert corpus.stats["unknown_share"]["test"] == pytest.approx(1 / len(corpus.tokens("test")))
    assert corpus.stats["unknown_share"]["train"] == 0


@pytest.mark.usefixtures("no_figures")
def test_no_written_file_holds_a_path_of_this_machine(small_source, tmp_path, monkeypatch):
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


def test_smaller_fractions_are_subsets_of_larger_ones_and_hold_whole_families(bundled_corpus):
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


def test_fractions_1_2_1_4_are_the_families_whose_hash_is_divisible():
    families = [f"{i:016x}" for i in range(3000)]
    for one_in in (2, 4, 8, 32):
        divisible = [f for f in families if int(hashlib.sha256(f.encode()).hexdigest(), 16) % one_in == 0]
        assert [f for f in families if family_position(f) < 1 / one_in] == divisible


def test_held_out_splits_have_fractions_too(small_corpus):
    half, unique = small_corpus.part(0.5, "validation")
    assert tunes_of(small_corpus, half) < tunes_of(small_corpus, small_corpus.tokens("validation"))
    assert unique == len(half) - 1


@pytest.mark.parametrize("fraction", [0, -0.5, 1.01, float("nan"), float("inf")])
def test_invalid_fraction_is_an_error(small_corpus, fraction):
    with pytest.raises(UserError, match="fraction"):
        small_corpus.part(fraction)


# A changed folder


@pytest.fixture
def copy(small_corpus, tmp_path):
    return shutil.copytree(small_corpus.folder, tmp_path / "copy")


def swap_two_ids(folder):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["C"], vocabulary["D"] = vocabulary["D"], vocabulary["C"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


DEEP = "[" * 50_000
CHANGED = [
    ("tokenizer.json", "{}"),
    ("tokenizer.json", None),
    ("vocab.json", "[]"),
    ("vocab.json", DEEP),
    ("tokenizer_config.json", "{}"),
    ("stats.json", "{}"),
    ("manifest.json", "{}"),
    ("manifest.json", "[1]"),
    ("manifest.json", '{"arguments": {}, "outputs": [], "corpus": {}}'),
    ("manifest.json", '{"arguments": {}, "outputs": {}}'),  # of an earlier version
    ("manifest.json", DEEP),
    ("manifest.json", '{"arguments":'),
]


@pytest.mark.parametrize(("name", "text"), CHANGED)
def test_changed_corpus_is_an_error_that_names_the_file(copy, name, text):
    Corpus.open(copy)
    if text is None:
        (copy / name).unlink()
    else:
        (copy / name).write_text(text)
    with pytest.raises(UserError, match=re.escape(str(copy / name))) as raised:
        Corpus.open(copy)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("keep", [0, 20, -50])
def test_damaged_stream_is_an_error_that_names_it(copy, keep):
    path = copy / "tokens" / "test.npy"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=re.escape(str(path))):
        Corpus.open(copy).tokens("test")


def test_files_of_another_build_are_refused(copy):
    for name in ("data/{}.parquet", "tokens/{}.npy"):
        shutil.copyfile(copy / name.format("test"), copy / name.format("train"))
    corpus = Corpus.open(copy)
    for read in (corpus.tunes, corpus.tokens, lambda split: corpus.part(0.5, split)):
        with pytest.raises(UserError, match="train"):
            read("train")


def test_folder_without_a_corpus_is_an_error_with_the_command(tmp_path):
    with pytest.raises(UserError, match=re.escape(f"preprocessing/run.py --output_dir {tmp_path}")):
        Corpus.open(tmp_path)


# A given vocabulary


def test_vocabulary_is_read_from_a_tokenizer_alone(small_corpus, tmp_path):
    shutil.copyfile(small_corpus.folder / "tokenizer.json", tmp_path / "tokenizer.json")
    assert read_vocabulary(str(tmp_path)) == small_corpus.vocabulary == read_vocabulary(str(small_corpus.folder))


TWICE = '{"model": {"vocab": {"<pad>": 0, "<unk>": 1, "<|endoftext|>": 2, "C": 3, "D": 3}}}'


@pytest.mark.parametrize(
    "text",
    ["{}", "[]", "x", DEEP, '{"model": 3}', '{"model": {"vocab": ["a"]}}', '{"model": {"vocab": {"a": 0}}}', TWICE],
)
def test_tokenizer_of_another_kind_is_an_error(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(UserError, match=str(tmp_path)):
        read_vocabulary(str(tmp_path))


def test_changed_corpus_gives_no_vocabulary(copy):
    swap_two_ids(copy)
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        read_vocabulary(str(copy))
