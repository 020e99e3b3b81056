"""The structure of short tunes: repeats, sections, form, repeated bars, key and ending."""

import json
from fractions import Fraction

import numpy as np
import pytest
from made_abc import tune

from generation.structure import form, key_kept, repeats_close, sections, square, structure, summary
from preprocessing.notation import transcribe

A4, B4, C4 = "C4E4|D4F4|E4G4|C8", "c4e4|d4f4|e4g4|c8", "G4E4|A4F4|E4G4|G8"  # four bars each


def part(body, **header):
    return transcribe(tune(body, **header)).parts[0]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("C8|D8|]", None),
        ("|:C8|D8:|", True),
        ("C8|D8:|", True),
        ("C8:|D8:|", True),
        ("|:C8:|:D8:|", True),
        ("|:C8::D8:|", True),
        ("|:C8:|\n|:D8:|", True),
        ("|:C8|1D8:|2E8|]", True),
        ("|:C8[1D8:|[2E8||F8:|", True),
        ("|:C8|D8|]", False),
        ("|:C8|:D8:|", False),
        ("C8::D8|]", False),
        (":|C8|D8|", False),
        ("C8|D8|:", False),
    ],
)
def test_repeats_close_if_each_is_closed_and_has_music(body, expected):
    assert repeats_close(part(body)) is expected


@pytest.mark.parametrize(
    ("body", "lengths", "heard"),
    [
        (f"{A4}|", [4], None),
        (f"|:{A4}:|:{B4}:|", [4, 4], "AABB"),
        (f"{A4}||{B4}||{A4}||{B4}|]", [4, 4, 4, 4], "ABAB"),
        (f"|:{A4}:|{B4}||{C4}:|", [4, 4, 4], "AABCC"),
        (f"|:{A4}:|\n[|]\n|:{A4}:|", [4, 4], "AAAA"),
        ("|:C8|D8|E8|1F8:|2G8|]", [4], "AA"),
        ("|:C8|D8|E8[1,3 F8:|[2 G8:|[4 A8||B8|]", [4, 1], "AAAAB"),
        ("G2|C8|D8|E8|C6:|G2|c8|d8|e8|c6:|", [4, 4], "AABB"),
        ("C8|D8||{c}C8|!trill!D8|]", [2, 2], "AA"),
        ("C8|D8||C8|D4D4|]", [2, 2], "AB"),
    ],
)
def test_sections_are_cut_at_repeats_and_double_bars_and_named_by_their_bars(body, lengths, heard):
    found = sections(part(body))
    assert [section.length for section in found] == lengths
    assert form(found) == heard


@pytest.mark.parametrize(
    ("body", "metre", "length"), [("|:C8|D8:|", "none", None), ("|:C8|D4:|", "4/4", Fraction(3, 2))]
)
def test_a_section_has_no_length_in_free_metre_and_a_fraction_with_part_of_a_bar(body, metre, length):
    assert [section.length for section in sections(part(body, metre=metre))] == [length]


@pytest.mark.parametrize(
    ("body", "metre", "expected"),
    [
        (f"|:{A4}:|{B4}|{B4}|]", "4/4", True),
        (f"|:{A4}:|{B4}|c8|]", "4/4", False),
        (f"{A4}|", "4/4", None),
        (f"|:{A4}:|", "none", None),
    ],
)
def test_a_tune_is_square_if_all_sections_are_multiples_of_four_bars(body, metre, expected):
    assert square(sections(part(body, metre=metre))) is expected


@pytest.mark.parametrize(
    ("body", "share"),
    [
        ("C4E4|D4F4|C4E4|D4F4|", 1 / 2),
        ("C4E4|C4E4|C4E4|C4E4|", 3 / 4),
        ("C4E4|C2C2E4|c4e4|C4z4|", 0),
        ("C4E4|C8|C8|C4E4|", 1 / 2),
        ("C8|C8|", None),
        ("", None),
    ],
)
def test_repeated_bars_are_equal_to_an_earlier_one_and_have_two_notes(body, share):
    assert structure(tune(body))["repeated_bars"] == share


@pytest.mark.parametrize(
    ("body", "key", "expected"),
    [
        ("C8|G8|", "C", False),
        ("C8|A,8|", "Am", True),
        ("C8|D8|", "Ddor", True),
        ("F8|G8|", "Gmix", True),
        ("A8|B8|", "Bb", True),
        ("A8|=B8|", "Bb", False),
        ("C8|G8-|G8 z4|z8|", "G", True),
        ("G8|[CEG]8|", "C", True),
        ("G8|[EGc]8|", "C", False),
        ("C8|[K:D]D8|", "C", True),
        ("D8|D8|", "C transpose=2", False),
        ("D8|C8|", "C transpose=2", True),
        ("C8|C8|", "none", None),
        ("A8|A8|", "HP", None),
        ("z8|z8|", "C", None),
    ],
)
def test_a_tune_ends_on_its_tonic_if_its_last_lowest_note_is_that_of_the_key(body, key, expected):
    assert structure(tune(body, key))["tonic_ending"] is expected


@pytest.mark.parametrize(
    ("body", "key", "expected"),
    [
        ("CDEF|GABc|c2G2|E2C2|", "C", True),
        ("CDEF|GABc|c2G2|E2C2|", "Am", False),
        ("A,B,CD|E^FGA|A2E2|C2A,2|", "Am", True),
        ("A,_B,CD|EFGA|A2E2|C2A,2|", "F", False),
        ("DEFG|ABcd|d2A2|F2D2|", "Ddor", True),
        ("CDEF|GABc|c2G2|E2C2|[K:D]DEFG|ABcd|d2A2|F2D2|", "C", True),
        ("CDEF|GABc|c2G2|E2C2|", "none", None),
        ("C^CD^D|E=F^FG|^GA^AB|", "C", False),
        ("z8|", "C", None),
    ],
)
def test_a_key_is_kept_if_the_profile_of_its_tonic_fits_the_notes_best(body, key, expected):
    assert key_kept(part(body, key=key, metre="2/4")) is expected


@pytest.mark.parametrize("shift", range(-6, 7))
def test_key_and_ending_do_not_change_with_transposition(shift):
    draw = np.random.default_rng(0)
    for _ in range(5):
        body = "|".join("".join(draw.choice(list("CDEFGABc"), 8)) for _ in range(4))
        here, there = structure(tune(body, "Am")), structure(tune(body, f"Am transpose={shift}"))
        assert here == there


@pytest.mark.parametrize("text", ["", "X:1\nK:C\n", "no tune", tune("[CEG"), tune("|:|:|:|]"), tune("&&&::[1")])
def test_a_text_without_music_has_no_structure(text):
    found = structure(text)
    assert found.pop("sections") == []
    assert set(found.values()) == {None}


def test_a_summary_is_of_the_tunes_to_which_each_measure_applies():
    texts = [tune(f"|:{A4}:|:{B4}:|"), tune(f"|:{A4}:|{B4}|]", "G"), tune("C8|", "none"), ""]
    table = summary([structure(text) for text in texts])
    counts = {name: (row["count"], row["total"]) for name, row in table.items() if "count" in row}
    assert counts == {
        "repeats_close": (2, 2),
        "square": (2, 2),
        "tonic_ending": (1, 2),
        "key_kept": (1, 2),
        "has_form": (2, 4),
    }
    assert table["forms"] == {"AABB": 1, "AAB": 1}
    assert table["repeated_bars"] == {"mean": 0.0, "interval": (0.0, 0.0), "total": 2}


def test_a_summary_of_nothing_is_json():
    table = summary([structure("")])
    assert json.dumps(table, allow_nan=False)
    assert table["repeated_bars"] == {"mean": None, "interval": (0.0, 1.0), "total": 0}
