"""The tokenizer loses nothing, and agrees with the token streams."""

import numpy as np
import pytest

from preprocessing.corpus import SPLITS, Corpus
from preprocessing.tokens import BOUNDARY, PAD, UNKNOWN, build_tokenizer, build_vocabulary, encode_stream


@pytest.fixture
def tokenizer(tmp_path):
    """A tokenizer of some characters, as read from a folder."""
    vocabulary = build_vocabulary(["X:1 \n,.!<|endoftext|>"])
    build_tokenizer(vocabulary, 64).save_pretrained(tmp_path)
    return Corpus(tmp_path, vocabulary, {}).tokenizer()


@pytest.mark.parametrize("split", SPLITS)
def test_tokenizer_loses_nothing_and_equals_the_stream_on_the_bundled_corpus(bundled_corpus, split):
    tokenizer = bundled_corpus.tokenizer()
    texts = list(bundled_corpus.tunes(split)["text"])
    ids = tokenizer(texts)["input_ids"]
    assert tokenizer.batch_decode(ids, skip_special_tokens=True) == texts
    assert all(len(row) == len(text) + 1 for row, text in zip(ids, texts, strict=True))
    assert np.array_equal(bundled_corpus.tokens(split), np.concatenate([*ids, [bundled_corpus.boundary]]))


@pytest.mark.parametrize(
    "text",
    ["", " ", "  X", "X  ", "\n", "X\n\n:1\n", "X , X . 1 !", f"X:1{BOUNDARY}X:1", BOUNDARY, f"{PAD[0]}|endoftext"],
)
def test_blanks_line_ends_and_a_written_boundary_are_text(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert (ids[0], ids.count(tokenizer.bos_token_id), len(ids)) == (tokenizer.bos_token_id, 1, len(text) + 1)


def test_character_outside_the_vocabulary_is_unknown_to_tokenizer_and_stream(tokenizer):
    text = "XéÜ1🎵a"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == [BOUNDARY, "X", UNKNOWN, UNKNOWN, "1", UNKNOWN, UNKNOWN]
    assert encode_stream([text], tokenizer.get_vocab()).tolist() == [*ids, tokenizer.eos_token_id]


def test_stream_has_the_boundary_between_tunes_and_at_both_ends():
    vocabulary = build_vocabulary(["ab"])
    boundary, a, b = (vocabulary[token] for token in (BOUNDARY, "a", "b"))
    assert encode_stream(["ab", "", "b"], vocabulary).tolist() == [boundary, a, b, boundary, boundary, b, boundary]


def test_stream_of_more_than_256_tokens_has_two_bytes_per_token():
    text = "".join(chr(i) for i in range(0x4E00, 0x4E00 + 400))
    vocabulary = build_vocabulary([text])
    stream = encode_stream([text], vocabulary)
    assert stream.dtype.itemsize == 2
    assert stream[1:-1].tolist() == [vocabulary[character] for character in text]


def test_vocabulary_depends_on_the_characters_alone():
    assert build_vocabulary(["cab", "b"]) == build_vocabulary(["b", "abc"])
    assert list(build_vocabulary(["cab"])) == [PAD, UNKNOWN, BOUNDARY, "a", "b", "c"]
