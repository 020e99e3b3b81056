"""StrictBars writes only tunes whose bars add up, and leaves real music as it is; HeaderFields forces header fields."""

import random

import pytest
import torch
from transformers import LogitsProcessorList

from generation.abc_pipeline import cut_at_bar_line
from generation.bar_automaton import END, Automaton
from generation.logits_processors import HeaderFields, StrictBars
from preprocessing.notation import judge
from preprocessing.tokens import build_tokenizer, build_vocabulary

ALPHABET = "\n !\"#'(),-./0123456789:<=>ABCDEFGHIKLMQRSTUVX[]^_abcdefghijklmnopqrstuvwxyz{|}~"
TOKENIZER = build_tokenizer(build_vocabulary([ALPHABET]), context=256)
HEADER = "X:1\nM:6/8\nL:1/8\nK:G\n"
AUTOMATON = Automaton(ALPHABET)


def state_after(text, automaton=AUTOMATON):
    state = automaton.start
    for character in text:
        state = automaton.advance(state, character)
    return state


def allowed(text, automaton=AUTOMATON):
    return automaton.allowed(state_after(text, automaton))


def walk(seed, text="", longest=500, automaton=AUTOMATON):
    """Return a text continued by random allowed characters and, if it was not ended, cut at its last bar line."""
    rng, state = random.Random(seed), state_after(text, automaton)
    while len(text) < longest:
        character = rng.choice(sorted(automaton.allowed(state)))
        if character == END:
            return text
        text += character
        state = automaton.advance(state, character)
    return cut_at_bar_line(text)


def writable_part(text):
    """Return the part of a text that may be written, with `$` if the tune may end there."""
    state = AUTOMATON.start
    for i, character in enumerate([*text, END]):
        if character not in AUTOMATON.allowed(state):
            return text[:i]
        state = AUTOMATON.advance(state, character) if character else state
    return text + "$"


def scores(processor, *texts):
    ids = TOKENIZER(list(texts), return_tensors="pt", padding=True)["input_ids"]
    return processor(ids, torch.zeros(len(texts), len(TOKENIZER)))


def characters(row):
    return {TOKENIZER.convert_ids_to_tokens(i) for i in torch.isfinite(row).nonzero()[:, 0].tolist()}


@pytest.mark.parametrize("seed", range(20))
def test_random_walks_write_bars_that_add_up(seed):
    text = walk(seed)
    verdict = judge(text)
    assert verdict.bars_add_up, (text, verdict.errors, verdict.bad_bars)


@pytest.mark.parametrize("metre", ["2/4", "6/8", "5/16", "3/2", "7/8", "12/8", "C|", "2+3/8", "7/12", "none", ""])
@pytest.mark.parametrize("unit", ["1/1", "1/8", "1/24"])
def test_bars_of_every_metre_and_unit_can_be_filled(metre, unit):
    assert judge(walk(0, f"X:1\nM:{metre}\nL:{unit}\nK:D exp ^f\n", 300)).bars_add_up


@pytest.mark.parametrize("seed", range(5))
def test_a_small_alphabet_is_enough(seed):
    automaton = Automaton("\n:1248/XMLKCDEFG| ")
    text = walk(seed, longest=300, automaton=automaton)
    assert set(text) <= automaton.characters
    assert judge(text).bars_add_up


@pytest.mark.parametrize(
    "body",
    [
        "GAB c2d|e>dc B<AG|(3gfe (3dcB A/B/c/d/|[G3B3d3] z3|]",
        "D|GAB {/c}c2d|g3 f2:|\n|:e|d2c B2A|1 G3 G2:|2 G3 g3|]",  # a pickup, and endings short by it
        "GAB cde|f3 f2:|\n|:e|d2c B2A|G3 G2|]",  # two halves
        "GAB cde\nfed cBA\nG6",  # lines close bars, as the Essen songs do
        "D|GAB\ncde|f3-f2:|:g|f6|]",
        '"Am7"G3 !trill!~uc3|\nK:Dmix\nM:9/8\nL:1/16\nA18|]',
        "GAB cde|1 f3 f3:|2 g6|]",
    ],
)
def test_real_music_may_be_written(body):
    text = HEADER + body
    assert judge(text).bars_add_up
    assert writable_part(text) == text + "$"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("GAB c2d", "e"),
        ("GAB c2d", "("),
        ("GAB c2d|e2|", " "),  # the bar line has to become that of an edge
        ("GAB c2d|ef", END),
        ("GAB cd", "4"),
        ("GAB c2d|efg ab2", ">"),  # the other note does not fit
        ("GAB c>", "|"),
        ("GAB (3cd", "|"),
        ("GAB [c", "z"),
        ("GAB [ce", "|"),
        ("GAB cd", "&"),
        ("GAB cde|f3 f2|: g", "2"),  # the bar completes the one before
        ("GAB c2d|\n", "\n"),
        ("GAB c2d|\nK:", "\n"),
        ("GAB c2d|\nT", ":"),
        ("", END),
        ("GAB uvT", "~"),  # judge accepts more marks
        ("GAB c2d|| | ", "|"),
        ("GAB c2d", ")"),
        ("GAB c-", "-"),
    ],
)
def test_faults_are_not_written(text, wrong):
    assert writable_part(HEADER + text).rstrip("$") == HEADER + text
    assert wrong not in allowed(HEADER + text)


@pytest.mark.parametrize(
    "wrong",
    [
        *("GAB c9|", "GAB [c9e", "GAB (3c|", "GAB >>", "c/3", '"Am', "[K:D", "%a", "w:la", "G2|B2|", "!", "T4"),
        "Zc0\ufffd",
    ],
)
def test_a_body_with_faults_is_continued_without_new_ones(wrong):
    verdicts = [judge(walk(seed, HEADER + wrong, 400)) for seed in range(3)]
    assert max(verdict.bars for verdict in verdicts) > 2
    assert all(bad.number <= 2 for verdict in verdicts for bad in verdict.bad_bars)


@pytest.mark.parametrize(
    "body", ["GAB cde[|]1f", "GAB cde::2f", "GAB (12:6:12cccccccccccc|f", "GAB (11:3:11ccccccccccc|f", "GAB kc2Jd|f"]
)
def test_words_that_are_never_written_are_read_as_by_judge(body):
    state = state_after(HEADER + body)
    assert (state.bar.filled, state.bar.is_first) == (0, False)
    assert not set("kJhn") & AUTOMATON.allowed(state)


@pytest.mark.parametrize("header", ["M:6/8\n", "X:1\nK:", "X:1\nM:6/9", "X:1\nM:6/8\nL:1/8\nK:H", "X:1\nA:b\nR: jig"])
def test_any_beginning_of_a_header_is_continued(header):
    text = walk(1, header, 300)
    assert text.startswith(header)
    assert len(text.partition("\nK:")[2]) > 20


def test_a_header_has_its_fields_in_order_and_is_complete_before_music():
    automaton = Automaton(ALPHABET, fields="XRMLK")
    following = {"": "X", "X:1\n": "RM", "X:1\nR:slip jig\n": "M", "X:1\nM:C|\n": "L", "X:1\nM:9/8\nL:1/8\n": "K"}
    assert {text: "".join(sorted(allowed(text, automaton))[::-1]) for text in following} == following


def test_each_row_gets_its_allowed_characters():
    some = scores(StrictBars(TOKENIZER), HEADER + "GAB c2d", HEADER, "")  # padded on the left
    assert characters(some[0]) == allowed(HEADER + "GAB c2d") - {END} | {TOKENIZER.eos_token}
    assert characters(some[1]) == allowed(HEADER)
    assert characters(some[2]) == {"X"}


def generate(processors, rows, steps, seed=0, prompt=""):
    """Sample from a model of uniform scores, as generate() does."""
    generator = torch.Generator().manual_seed(seed)
    ids = TOKENIZER([prompt] * rows, return_tensors="pt")["input_ids"]
    for _ in range(steps):
        probabilities = processors(ids, torch.zeros(rows, len(TOKENIZER))).softmax(dim=1)
        ids = torch.cat([ids, torch.multinomial(probabilities, 1, generator=generator)], dim=1)
    return ids


def test_sampled_rows_add_up_after_a_boundary_too():
    strict = StrictBars(TOKENIZER)
    for seed in range(2):
        for row in generate(strict, rows=4, steps=150, seed=seed).tolist():
            tunes = TOKENIZER.decode(row).split(TOKENIZER.eos_token)[1:]  # after its end a row begins again
            assert all(judge(tune).bars_add_up for tune in tunes[:-1])
            assert "|" not in tunes[-1] or judge(cut_at_bar_line(tunes[-1])).bars_add_up


def test_reordered_rows_are_read_again():
    strict = StrictBars(TOKENIZER)
    texts = [HEADER + "GAB c2d|e", HEADER + "GAB (3cd"]
    before = scores(strict, *texts)
    assert torch.equal(scores(strict, *[text + "f" for text in texts[::-1]])[0], scores(strict, texts[1] + "f")[0])
    assert torch.equal(scores(strict, *texts), before)


def test_a_row_always_has_an_allowed_character():
    row = torch.full((1, len(TOKENIZER)), -torch.inf)
    row[0, TOKENIZER.convert_tokens_to_ids("&")] = 0.0
    chosen = StrictBars(TOKENIZER)(TOKENIZER(HEADER, return_tensors="pt")["input_ids"], row)
    assert characters(chosen[0]) == allowed(HEADER)


def test_given_fields_are_forced_and_the_model_writes_the_others():
    given = {"M": "6/8", "K": "D exp ^f"}  # a key that StrictBars would not write
    processors = LogitsProcessorList([StrictBars(TOKENIZER, "XRMLK"), HeaderFields(given, TOKENIZER)])
    texts = TOKENIZER.batch_decode(generate(processors, rows=20, steps=200), skip_special_tokens=True)
    assert all(text.startswith(("X:1\nR:", "X:1\nM:6/8\nL:1/")) and "\nM:6/8\nL:1/" in text for text in texts)
    assert all("\nK:D exp ^f\n" in text for text in texts)
    assert {text[4] for text in texts} == {"R", "M"}
    assert len({text.partition("\nL:")[2].partition("\n")[0] for text in texts}) > 2
    assert any(judge(cut_at_bar_line(text)).bars for text in texts)


def test_fields_of_the_prompt_are_kept():
    forced = HeaderFields({"R": "reel", "K": "A"}, TOKENIZER)
    text = TOKENIZER.decode(generate(forced, rows=1, steps=30, prompt="X:1\nM:C\nL:1/8\nK:").tolist()[0])
    assert "R:" not in text
    assert "K:A\n" in text
    assert characters(scores(forced, "X:1\nR:re")[0]) == {"e"}
    assert len(characters(scores(forced, "X:1\nR:jig")[0])) == len(TOKENIZER)
    assert characters(scores(forced, "X:1\nR:reel\n")[0]) == set("MLQK")


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"Z": "a"}, "no header field"), ({"K": "D\nX:2"}, "no header field"), ({"R": "zwölf"}, "'ö'")],
)
def test_fields_that_cannot_be_written_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        HeaderFields(fields, TOKENIZER)
