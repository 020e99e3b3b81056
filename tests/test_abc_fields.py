"""The fields of ABC: keys and signatures, metres, note lengths."""

import re
from fractions import Fraction

import pytest
from made_abc import tune

from preprocessing.abc_fields import (
    FIFTHS,
    bar_length,
    canonical_key,
    default_unit_length,
    key_signature,
    parse_length,
    read_unit_length,
    sounding_tonic,
    spell,
)
from preprocessing.abc_voice import MICROTONE, NO_KEY
from preprocessing.notation import judge, transcribe

C, F = 60, 65


@pytest.mark.parametrize("sharps", range(-7, 8))
def test_all_modes_of_a_collection_have_its_signature(sharps):
    expected = dict.fromkeys(FIFTHS[:sharps], 1) if sharps >= 0 else dict.fromkeys(FIFTHS[sharps:], -1)
    for above, mode in enumerate(("lyd", "", "mix", "dor", "m", "phr", "loc"), -1):
        letter, alteration = spell(sharps + above)
        assert key_signature(canonical_key(letter + ("#" * alteration or "b" * -alteration) + mode)) == expected


SPELLINGS = {
    "C": ("C", "Cmaj", "C major", "C m=d", "C octave=0"),
    "G": ("G Ionian", "G clef=alto middle=d", 'G clef=treble_8 name="a b"'),
    "Bb": ("  Bb  ",), "F#": ("F#",),
    "Am": ("Am", "A min", "A minor", "A MINOR", "Am clef=bass", "A natural minor", "A min -8va", "Am treble8"),
    "F#m": ("F#m", "F# Natural Minor", "F♯m"), "Em": ("E aeolian",), "Bbm": ("Bb natural minor", "B♭m", "B ♭ minor"),
    "Ddor": ("Ddor", "D Dorian", "D dorian bass", "D Dorian mode"), "Amix": ("AMix", "A mixolydian"),
    "Ephr": ("E Phrygian",), "Bblyd": ("Bb Lydian",), "Bloc": ("B locrian",), "HP": ("HP",), "Hp": ("Hp",),
    "Amix =c": ("Amix=c",), "D =c": ("D =c", "D ^f =c"), "D _b": ("D _B", "D ♭b"), "D exp ^f _b": ("D exp _b ^f",),
    "Dphr ^f": ("D Phrygian ^f",), "none ^f": ("^f",), "none ^f _b": ("none ^f _b",), "HP _b": ("HP _b",),
    "none": ("none", "None"), "D": ("D treble", "D m=c middle=B", "D ♯c"), "C transpose=-2": ("C transpose=-2",),
    "C transpose=12": ("C octave=1",), "C transpose=-10": ("C transpose=2 octave=-1",), "E": ("E natural",),
    "Am transpose=-12": ("Am clef=treble-8",), "Am transpose=24": ("Am treble+15",),
    "Ebdor": ("E♭dor",), "C#m": ("C♯min", "c sharp minor"), "G#m": ("G♯m",),
    "C#m =f": ("C♯m =f",), "Bbdor": ("B ♭dor",), "Eb": ("E♭", "E flat"), "D __e": ("D ♯f 𝄫e",), "Dm": ("D♮m",),
}  # fmt: skip


@pytest.mark.parametrize("canonical", SPELLINGS)
def test_a_key_has_one_canonical_spelling(canonical):
    for written in (canonical, *SPELLINGS[canonical]):
        assert canonical_key(written) == canonical, written
        assert judge(tune("C8|", key=written)).key == canonical


NO_KEYS = (
    "", "H", "am", "clef=bass", "treble", "7", "major", "%", "D Freygish", "E harmonic minor", "D Hijaz", "G dur", "Es",
    "A melodic minor", "Em blues", "D Ahava Raba", "A minor pentatonic", "Bn", "Em/G", "D phrygian dominant",
    "A mix (hexatonic)", "A мінор", "C 小调", "D フリギア", "F𝄪", "F##", "Ré", "ハ長調", "Аm",
)  # fmt: skip


def test_what_is_no_key_has_no_canonical_spelling():
    assert [key for key in NO_KEYS if canonical_key(key) is not None] == []


@pytest.mark.parametrize("written", ["D Freygish", "E harmonic minor", "Es", "A minor pentatonic", "F##", "A мінор"])
def test_a_word_that_is_no_mode_is_no_key_in_a_header_or_in_the_body(written):
    assert judge(tune("C8|", key=written)).key is None
    verdict = judge(tune(f"C8|[K:{written}]C8|"))
    assert (len(verdict.errors), verdict.unreadable) == (1, NO_KEY)


@pytest.mark.parametrize("words", ["C _2B ^3f", "Ddor _/e", "^/f", "C exp _3/4B", "D ^f _/b"])
def test_a_microtone_in_a_key_is_no_key_and_makes_a_tune_unreadable(words):
    assert canonical_key(words) is None
    for text in (tune("C8|", key=words), tune(f"C8|[K:{words}]C8|"), tune(f"C8|\nK:{words}\nC8|")):
        assert judge(text).unreadable == MICROTONE


SIGNATURES = {
    "D =c": {"F": 1}, "D exp ^f _b": {"F": 1, "B": -1}, "Dphr ^f": {"F": 1, "B": -1, "E": -1}, "HP": {"F": 1, "C": 1},
    "C ^^f __b": {"F": 2, "B": -2}, "none ^f": {"F": 1}, "HP _b": {"F": 1, "C": 1, "B": -1}, "none": {}, None: {},
    "G#": {"F": 2, "C": 1, "G": 1, "D": 1, "A": 1, "E": 1, "B": 1}, "D Mixolydian": {"F": 1}, "Hp": {"F": 1, "C": 1},
}  # fmt: skip


@pytest.mark.parametrize(("key", "signature"), SIGNATURES.items())
def test_explicit_accidentals_change_the_signature(key, signature):
    assert key_signature(key) == signature


def test_octave_and_transpose_of_a_key_or_a_voice_move_what_sounds():
    assert judge(tune("C[K:transpose=2]C", key="C octave=-1")).pitches == [48, 62]
    assert judge("X:1\nV:1\nV:2 octave=-1\nK:C\nV:1\nC\nV:2\nC\nV:3 transpose=3\nC").pitches == [60, 48, 63]


def test_the_verdict_names_key_and_metre_of_the_header_not_of_a_later_change():
    verdict = judge(tune("C6|\nM:2/4\nK:Bb\nC4|", metre="6/8", key="D dorian"))
    assert (verdict.key, verdict.metre) == ("Ddor", "6/8")


def test_a_clef_alone_is_no_error_and_leaves_the_signature():
    verdict = judge(tune("F4[K:clef=bass]F4|", key="G"))
    assert (verdict.errors, verdict.pitches) == ([], [F + 1, F + 1])


@pytest.mark.parametrize("field", ["M:soon", "L:short", "K:quiet", "L:0"])
def test_an_unreadable_field_is_an_error_that_quotes_it(field):
    [error] = judge(tune(f"C8|\n{field}\nC8|")).errors
    assert field in error


TONICS = {"C": 0, "Am": 9, "Ddor": 2, "F#m": 6, "Bb": 10, "Cb": 11, "C transpose=-2": 10, "D exp _b": 2}
TONICS |= dict.fromkeys([None, "none", "none ^f", "HP", "Hp"])


def test_the_tonic_of_a_key_is_a_pitch_class_or_none():
    assert {key: sounding_tonic(key) for key in TONICS} == TONICS


# Metres and lengths


LENGTHS = {
    "": 1, "2": 2, "12": 12, "0": 0, "/": "1/2", "//": "1/4", "///": "1/8", "/2": "1/2", "/4": "1/4", "3/2": "3/2",
    "3/": "3/2", "3/4": "3/4", "5//": "5/4",
}  # fmt: skip


@pytest.mark.parametrize(("text", "length"), LENGTHS.items())
def test_a_notes_length_is_an_exact_fraction(text, length):
    assert parse_length(text) == Fraction(length)


def test_a_length_divided_by_zero_is_refused_and_is_an_error_in_a_tune():
    with pytest.raises(ValueError, match="zero"):
        parse_length("/0")
    assert len(judge(tune("C/0 C8|")).errors) == 1


BARS = {
    "4/4": 1, "C": 1, "C|": 1, "2/2": 1, "6/8": "3/4", "5/8": "5/8", "2+3/8": "5/8", "(2+2+3)/8": "7/8",
    "2/4+3/8": "7/8", "3+2/8 + 1/4": "7/8",
}  # fmt: skip


def test_a_bar_is_as_long_as_its_metre_and_a_free_or_unreadable_metre_has_no_length():
    assert {metre: bar_length(metre) for metre in BARS} == {metre: Fraction(length) for metre, length in BARS.items()}
    for metre in ("none", "", None, "free", "3/0", "0/4", "4"):
        assert bar_length(metre) is None


TWO_METRES = {  # bars that add up, and one that does not
    "3/4 (4/4)": ("C6|C8|C6|]", "C7"),
    "6/8 (9/8)": ("C6|C9|C6|C6|]", "C8"),
    "2/4 (3/8)": ("C8|C6|C8|]", "C7"),
    "C (3/4)": ("C8|C6|C8|]", "C7"),
    "3/4 4/4": ("C6|C8|C6|]", "C5"),
    "3/4(4/4)": ("C6|C8|C6|]", "C9"),
    "4/4|3/4": ("C8|C6|C8|]", "C7"),
    "C|3/4": ("C8|C6|C8|]", "C7"),
    "2/4+3/8 (3/4)": ("C7|C6|C7|]", "C8"),
    "3/4, 4/4; 5/8": ("C6|C8|C5|C6|]", "C7"),
    "6/8 9/8 12/8": ("C6|C9|C12|C6|]", "C8"),
    "3/4 (4/4) (2/4)": ("C6|C8|C4|C6|]", "C7"),
}


@pytest.mark.parametrize("metre", TWO_METRES)
def test_of_several_metres_a_bar_may_have_any(metre):
    body, wrong = TWO_METRES[metre]
    unit = str(default_unit_length(metre))
    assert judge(tune(body, metre=metre, unit=unit)).bars_add_up
    [bad] = judge(tune(f"{body}{wrong}|{body}", metre=metre, unit=unit)).bad_bars
    assert bad.number == body.count("|") + 1
    assert judge(tune(f"C8|[M:{metre}][L:{unit}]{body}")).bars_add_up
    assert bar_length(metre) == bar_length(re.match(r"[^ (|,;]+", metre)[0])


def test_of_two_metres_a_full_bar_ends_with_its_line_and_two_halves_make_up_either():
    assert judge(tune("C6\nC8\nC6|", metre="3/4 (4/4)")).bars_add_up
    assert judge(tune("C6|:C8|C3:|C5|C6|]", metre="3/4 (4/4)")).bars_add_up
    bad = judge(tune("C6|:C8|C3:|C4|C6|]", metre="3/4 (4/4)")).bad_bars
    assert [(bar.number, bar.expected, bar.found) for bar in bad] == [
        (3, Fraction(3, 4), Fraction(3, 8)),
        (4, Fraction(3, 4), Fraction(1, 2)),
    ]
    [part] = transcribe(tune("C6|C8|C3|", metre="3/4 (4/4)")).parts
    assert [bar.length for bar in part.bars] == [1, 1, Fraction(1, 2)]


@pytest.mark.parametrize("metre", ["3/4 (free)", "2/4+x", "3/4 (0/4)", "3/4+2", "4/4|"])
def test_metres_of_which_one_cannot_be_read_are_an_error(metre):
    assert bar_length(metre) is None
    assert len(judge(tune("C8|", metre=metre)).errors) == 1


UNITS = {"2/4": 16, "3/8": 16, "5/8": 16, "3/4": 8, "6/8": 8, "C": 8, "none": 8, None: 8}


def test_without_an_l_field_the_unit_follows_the_metre():
    assert {metre: default_unit_length(metre) for metre in UNITS} == {m: Fraction(1, n) for m, n in UNITS.items()}


@pytest.mark.parametrize(("metre", "bar"), [("2/4", "C8|"), ("6/8", "C6|"), ("C|", "C8|"), ("3/8", "C6|")])
def test_a_tune_without_an_l_field_is_counted_in_the_default_unit(metre, bar):
    assert judge(f"X:1\nM:{metre}\nK:C\n{bar * 4}").bars_add_up
    assert not judge(f"X:1\nM:{metre}\nK:C\n{bar}CC|{bar}").bars_add_up


def test_a_change_of_metre_in_the_body_leaves_the_default_unit_as_the_header_set_it():
    assert judge("X:1\nM:4/4\nK:C\nC8|[M:2/4]C4|C4|C4|").bad_bars == []
    assert judge("X:1\nM:4/4\nK:C\nC8|\nM:2/4\nC4|C4|C4|").bad_bars == []


def test_an_l_field_is_read_exactly_or_not_at_all():
    read = {"1/8": "1/8", " 1 / 16 ": "1/16", "1": "1", "3/8": "3/8"}
    assert {value: read_unit_length(value) for value in read} == {k: Fraction(v) for k, v in read.items()}
    for value in ("", "0", "1/0", "0/8", "eighth", "1/8 of a note", "-1/8"):
        assert read_unit_length(value) is None
