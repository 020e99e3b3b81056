"""Bar-aware decoding writes only tunes whose bars add up, and leaves music what it is."""

import random

import pytest
import torch
from transformers import LogitsProcessorList

from generation.bars import END, Automaton, HeaderFields, StrictBars, whole_bars
from preprocessing.notation import judge
from preprocessing.tokens import build_tokenizer, build_vocabulary

ALPHABET = "\n !\"#'(),-./0123456789:<=>ABCDEFGHIKLMQRSTUVX[]^_abcdefghijklmnopqrstuvwxyz{|}~"
TOKENIZER = build_tokenizer(build_vocabulary([ALPHABET]), context=256)
HEADER = "X:1\nM:6/8\nL:1/8\nK:G\n"
AUTOMATON = Automaton(ALPHABET)


def walk(automaton, rng, text="", longest=500):
    """Return a text written by choosing among the allowed characters, and whether it ended."""
    state = automaton.start
    for character in text:
        state = automaton.advance(state, character)
    while len(text) < longest:
        character = rng.choice(sorted(automaton.allowed(state)))
        if character == END:
            return text, True
        text += character
        state = automaton.advance(state, character)
    return text, False


def accepted(text, automaton=AUTOMATON):
    """Return the part of a text that may be written, with `END` as `$`."""
    state = automaton.start
    for i, character in enumerate([*text, END]):
        if character not in automaton.allowed(state):
            return text[:i]
        if character:
            state = automaton.advance(state, character)
    return text + "$"


def allowed(text, automaton=AUTOMATON):
    state = automaton.start
    for character in text:
        state = automaton.advance(state, character)
    return automaton.allowed(state)


def scores(processor, *texts):
    ids = TOKENIZER(list(texts), return_tensors="pt", padding=True)["input_ids"]
    return processor(ids, torch.zeros(len(texts), len(TOKENIZER)))


def characters(row):
    return {TOKENIZER.convert_ids_to_tokens(i) for i in torch.isfinite(row).nonzero()[:, 0].tolist()}


@pytest.mark.parametrize("seed", range(40))
def test_a_random_walk_always_writes_bars_that_add_up(seed):
    text, ended = walk(AUTOMATON, random.Random(seed))
    verdict = judge(text if ended else whole_bars(text))
    assert verdict.bars_add_up, (text, verdict.errors, verdict.bad_bars)


@pytest.mark.parametrize("metre", ["2/4", "6/8", "5/16", "3/2", "7/8", "12/8", "C|", "2+3/8", "7/12", "none", ""])
@pytest.mark.parametrize("unit", ["1/1", "1/8", "1/24"])
def test_bars_of_every_metre_and_unit_can_be_filled(metre, unit):
    text, ended = walk(AUTOMATON, random.Random(0), f"X:1\nM:{metre}\nL:{unit}\nK:D exp ^f\n", 300)
    assert judge(text if ended else whole_bars(text)).bars_add_up


def test_a_small_alphabet_is_enough():
    automaton = Automaton("\n:1248/XMLKCDEFG| ")
    for seed in range(5):
        text, ended = walk(automaton, random.Random(seed), longest=300)
        assert set(text) <= automaton.characters
        assert judge(text if ended else whole_bars(text)).bars_add_up


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
def test_real_music_may_be_written_to_its_end(body):
    text = HEADER + body
    assert judge(text).bars_add_up
    assert accepted(text) == text + "$"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("GAB c2d", "e"),
        ("GAB c2d", "("),
        ("GAB c2d|e2|", " "),  # it has to become the line of an edge
        ("GAB c2d|ef", END),
        ("GAB cd", "4"),
        ("GAB c2d|efg ab2", ">"),  # the bar has no room for the other half
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
        ("GAB uvT", "~"),  # judge would not: nor does music hold what follows
        ("GAB c2d|| | ", "|"),
        ("GAB c2d", ")"),
        ("GAB c-", "-"),
    ],
)
def test_what_judge_would_flag_is_not_written(text, wrong):
    assert accepted(HEADER + text).rstrip("$") == HEADER + text
    assert wrong not in allowed(HEADER + text)


@pytest.mark.parametrize(
    "wrong",
    ["GAB c9|", "GAB [c9e", "GAB (3c|", "GAB >>", "c/3", '"Am', "[K:D", "%a", "w:la", "G2|B2|", "!", "Zc0\ufffd"],
)
def test_a_body_that_is_wrong_already_is_read_on(wrong):
    walks = [walk(AUTOMATON, random.Random(seed), HEADER + wrong, 400) for seed in range(3)]
    verdicts = [judge(text if ended else whole_bars(text)) for text, ended in walks]
    assert max(verdict.bars for verdict in verdicts) > 2
    assert all(bad.number <= 2 for verdict in verdicts for bad in verdict.bad_bars)


@pytest.mark.parametrize(
    "body", ["GAB cde[|]1f", "GAB cde::2f", "GAB (12:6:12cccccccccccc|f", "GAB (11:3:11ccccccccccc|f", "GAB kc2Jd|f"]
)
def test_what_is_not_written_is_read_as_judge_does(body):
    state = AUTOMATON.start
    for character in HEADER + body:
        state = AUTOMATON.advance(state, character)
    assert (state.place.total, state.place.first) == (0, False)
    assert not set("kJhn") & AUTOMATON.allowed(state)


@pytest.mark.parametrize("header", ["M:6/8\n", "X:1\nK:", "X:1\nM:6/9", "X:1\nM:6/8\nL:1/8\nK:H", "X:1\nA:b\nR: jig"])
def test_a_header_is_read_on_however_it_begins(header):
    text, _ = walk(AUTOMATON, random.Random(1), header, 300)
    assert text.startswith(header)
    assert "\nK:" in text
    assert len(text.partition("\nK:")[2]) > 20


def test_a_header_has_its_fields_in_order_and_is_complete_before_music():
    automaton = Automaton(ALPHABET, fields="XRMLK")
    following = {"": "X", "X:1\n": "RM", "X:1\nR:slip jig\n": "M", "X:1\nM:C|\n": "L", "X:1\nM:9/8\nL:1/8\n": "K"}
    assert {text: "".join(sorted(allowed(text, automaton))[::-1]) for text in following} == following


def test_a_row_gets_the_characters_that_may_follow_it():
    strict = StrictBars(TOKENIZER)
    some = scores(strict, HEADER + "GAB c2d", HEADER, "")  # padded on the left
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


def test_sampled_rows_add_up_whatever_came_before_them():
    strict = StrictBars(TOKENIZER)
    for seed in range(2):
        for row in generate(strict, rows=4, steps=150, seed=seed).tolist():
            tunes = TOKENIZER.decode(row).split(TOKENIZER.eos_token)[1:]  # after its end a row begins anew
            assert all(judge(tune).bars_add_up for tune in tunes[:-1])
            assert "|" not in tunes[-1] or judge(whole_bars(tunes[-1])).bars_add_up


def test_rows_that_change_places_are_read_anew():
    strict = StrictBars(TOKENIZER)
    texts = [HEADER + "GAB c2d|e", HEADER + "GAB (3cd"]
    before = scores(strict, *texts)
    assert torch.equal(scores(strict, *[text + "f" for text in texts[::-1]])[0], scores(strict, texts[1] + "f")[0])
    assert torch.equal(scores(strict, *texts), before)


def test_a_row_is_never_left_with_nothing():
    row = torch.full((1, len(TOKENIZER)), -torch.inf)
    row[0, TOKENIZER.convert_tokens_to_ids("&")] = 0.0
    chosen = StrictBars(TOKENIZER)(TOKENIZER(HEADER, return_tensors="pt")["input_ids"], row)
    assert characters(chosen[0]) == allowed(HEADER)


def test_given_fields_are_forced_and_the_others_left_to_the_model():
    given = {"M": "6/8", "K": "D exp ^f"}  # a key that StrictBars would not write
    processors = LogitsProcessorList([StrictBars(TOKENIZER, "XRMLK"), HeaderFields(given, TOKENIZER)])
    texts = TOKENIZER.batch_decode(generate(processors, rows=20, steps=200), skip_special_tokens=True)
    assert all(text.startswith(("X:1\nR:", "X:1\nM:6/8\nL:1/")) and "\nM:6/8\nL:1/" in text for text in texts)
    assert all("\nK:D exp ^f\n" in text for text in texts)
    assert {text[4] for text in texts} == {"R", "M"}
    assert len({text.partition("\nL:")[2].partition("\n")[0] for text in texts}) > 2
    assert any(judge(whole_bars(text)).bars for text in texts)


def test_a_prompt_goes_before_the_given_fields():
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
def test_fields_that_cannot_be_written_are_named_in_one_line(fields, message):
    with pytest.raises(ValueError, match=message) as caught:
        HeaderFields(fields, TOKENIZER)
    assert "\n" not in str(caught.value)
