"""The character-level tokenizer, and a look-up table that encodes a whole corpus in one pass."""

from collections.abc import Iterable

import numpy as np
from tokenizers import Tokenizer, decoders, models, processors
from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, BOUNDARY = "<pad>", "<unk>", "<|endoftext|>"
SPECIAL_TOKENS = [PAD, UNKNOWN, BOUNDARY]


def build_vocabulary(texts: Iterable[str]) -> dict[str, int]:
    """Return the id of each special token and of each character of `texts`, in the order of code points."""
    characters = sorted(set().union(*map(set, texts)))
    return {token: i for i, token in enumerate([*SPECIAL_TOKENS, *characters])}


def build_tokenizer(vocabulary: dict[str, int], context: int) -> PreTrainedTokenizerFast:
    """Return a lossless tokenizer: one token a character, the boundary token in front of every text.

    As in GPT-2 one token separates documents: it begins a tune (bos) and ends it (eos).
    """
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=UNKNOWN))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOUNDARY} $A", pair=None, special_tokens=[(BOUNDARY, vocabulary[BOUNDARY])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=BOUNDARY,
        eos_token=BOUNDARY,
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=context,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,
    )


def encode_stream(texts: Iterable[str], vocabulary: dict[str, int]) -> np.ndarray:
    """Return all texts as one array of ids, the boundary before each and after the last: [tokens], uint8 or uint16."""
    kind = np.uint8 if len(vocabulary) <= 256 else np.uint16
    table = np.full(0x110000, vocabulary[UNKNOWN], dtype=kind)
    for token, i in vocabulary.items():
        if len(token) == 1:
            table[ord(token)] = i
    boundary = np.array([vocabulary[BOUNDARY]], dtype=kind)
    pieces = [boundary]
    for text in texts:
        pieces += [table[np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)], boundary]
    return np.concatenate(pieces)
