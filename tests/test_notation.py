"""The reading of ABC: bars, pitches, errors, splitting into tunes, transcripts."""

from fractions import Fraction

import pytest
from made_abc import tune

from generation.quality import score_tune
from preprocessing.abc_voice import LONG_OVERLAY, MICROTONE, OPEN_CHORD, PLUS_SIGNS, WORDS_IN_MUSIC
from preprocessing.notation import (
    bar_length,
    judge,
    split_tunes,
    transcribe,
)

C, D, E, F, G, A, B, HIGH_C = 60, 62, 64, 65, 67, 69, 71, 72  # middle C and the notes above it


def bad_bars(body: str, **header: str) -> list[tuple[int, str, str]]:
    verdict = judge(tune(body, **header))
    assert verdict.errors == []
    return [(bad.number, str(bad.expected), str(bad.found)) for bad in verdict.bad_bars]


def pitches(body: str, **header: str) -> list[int]:
    verdict = judge(tune(body, **header))
    assert verdict.errors == []
    return verdict.pitches


# Bars

ADDING_UP = {
    "full bars": "CDEFGABc|C8|c8|]",
    "a pickup": "C2|C8|C8|C8|]",
    "a short last bar": "C8|C8|C6|]",
    "a repeat split over a bar line": "C2|C8|C8|C6:|C2|C8|C6|]",
    "a repeat inside a bar": "|:C8|C4:|:C4|C8|]",
    "a double bar inside a bar": "C8|C4||C4|C8|]",
    "a pickup of a section": "C8|C8|:C2|C8|C6:|C8|]",
    "first and second endings": "C2|:C8|1 C8|C6:|2 C8|C6|]",
    "endings in brackets": "C2|:C8|[1 C6:|[2 C6|]",
    "endings after the bar": "|:C2|C8|[1 C6:|[2 C8|]",
    "endings for several times": "|:C8|1,3 C8:|2,4-5 C8|]",
    "endings of ranges": "|:C8|[1-3 C8:|[4 C8|]",
    "an ending inside a bar": "|:C8|C4|1 C4:|2 C4|C8|]",
    "an invisible bar": "C8|C8[|]C8|C8|]",
    "endings after invisible bars": "|:C8|C8[|]1 C8:|[|]2 C8|]",
    "endings after thick bars": "|:C8|C8[|1 C8:|]2 C8|]",
    "endings after double repeats": "|:C8|C8::1 C8::2 C8|]",
    "endings in brackets after invisible bars": "|:C8|C8[|][1,3 C8:|[|][2 C8|]",
    "bars of any shape": "[|:::C8:::|C8|[|C8.|C8:||:C8|::C8::|C8:[|]|]C8:]",
    "a repeat at the end of all": "C8|C8|C8|:|",
    "both repeats in one": "C8::C8::C8|]",
    "a start of a repeat at the line's start": "|:C8|C8:|\n|:C8|C8:|",
    "an inline metre": "C8|[M:3/4]C6|C6|[M:C]C8|C8|",
    "a metre line": "C8|\nM:3/4\nC6|C6|C6|",
    "an inline unit": "C8|[L:1/4]C4|C4|[L:1/16]C16|C16|",
    "a unit line": "C8|\nL:1/4\nC4|C4|C4|",
    "an inline key": "C8|[K:Eb]C8|C8|",
    "a triplet": "C8|(3CDEF2C4|C8|",
    "tuplets of other numbers": "C8|(2CDC5|(4CDEFC5|(6CDEFGAC6|C8|",
    "a tuplet with its time": "C8|(5:4:5CDEFGC4|C8|",
    "a tuplet of more than nine": "C8|(11:8:11CDEFGABcdef|C8|",
    "a tuplet of more than nine, few notes": "C8|(12:8:4C3D3E3F3|C8|",
    "a tuplet of more than nine, as many notes": "C8|(10:4cdefgabcdeC4|C8|",
    "a tuplet of more than nine in the usual time": "C8|(13::13cdefgabcdefgaC6|C8|",
    "one note in the time of two": "C8|(1:2:2CCC4|C8|",
    "a tuplet with its count": "C8|(3:2:2C4D2C4|C8|",
    "a tuplet with defaults left open": "C8|(3::2C4D2C4|C8|",
    "a tuplet of a chord and a rest": "C8|(3[CE]zGC6|C8|",
    "a tuplet of a chord and a grace note": "C8|(3[CE]{/g}GCC6|C8|",
    "a tuplet within a slur": "C8|((3CDE)C6|C8|",
    "broken rhythm": "C8|C>DE>>FG>>>AB>c|C<DE<<FG<<<AB<c|C8|",
    "broken rhythm with blanks and chords": "C8|C > D[CE]>[DF]C4|C8|",
    "broken rhythm of a rest": "C8|C>zz>CC4|C8|",
    "broken rhythm over a grace note": "C8|C>{g}DC> {fg} DC4|C8|",
    "broken rhythm on both sides": "C8|C<D>EF>G>AC2|C8|",
    "grace notes": "C8|{ab}C4{/g}C4|C8|",
    "chords": "C8|[CEG]4[C4E4]|[CE]8|C8|",
    "chords with two lengths": "C8|[C2E2]2C4|C8|",
    "an overlay": "C8|C8&E4G4|C8|",
    "rests": "C8|z4x4|z8|C8|",
    "rests of whole bars": "C8|Z|C8|Z4|X2|C8|",
    "a tie": "C8-|C8|C4-C4|",
    "decorations and text": '"Am"C2!trill!C2.C2~C2|"^slow"uC4vC4|+fermata+C4TC4|C8|',
    "spacers and back quotes": "C8|C2`C2yC4|C8|",
    "comments": "C8|C4C4| % C4 C4 C4\n% C8 C8\nC8|C8|",
    "lyrics and remarks": "C8|C8|\nw:la la la la\nN:C8 C8\nC8|C8|",
    "a line continued": "C8|C4\\\nC4|C8|",
    "a slur": "C8|(C4(C2)C2)|C8|",
    "a chord over a line's end": "C8|[CE\nG]8|C8|",
    "a line break and its decoration": "C8|!C4 C4|!trill!C8|C4!C4|",
    "line breaks around notes alone": "C8|!c2 d2 e2 f2!|C8|",
    "instructions with blanks": "C8|C4!D.C. al fine!C4|!da capo!C8|!To Coda!C8|C8!D. S.!|!a tempo!C8|+D.S. al Coda+C8|",
    "chords between plus signs": "C8|+CEG+4+^F=A+4|C8|",
    "chords between plus signs with lengths and ties": "C8|+C2E2+-+C,E'+/+C3/2G+C4|+CE++CE+z6|",
    "decorations between plus signs": "C8|+f+C4+ff+C4|+D.C.+C8|",
    "lyrics continued by a backslash": "C8|C8|\nw:la la\\\n  a bad cab-bage\\\n bed\nC8|",
    "text continued by a backslash": 'C8|\nN:see \\ % so\nbag a\nW:a\\\nbag\ns:"C"\\\n"G"\nC8|\nw:a\n+:b\\\nb\nC8|',
    "a chord's tie before broken rhythm": 'C8|( "^I" !f! [CEG]- > [CEG] [F=AC]3/2"^V"[GBD]/ H[CEG]2 )C2|C8|',
    "decorations of chords, spacers and bars": "C8|[!1!C!3!E!5!G]4 !coda! y !p! !trill! C4 !fermata!|C8|",
    "reserved signs": '@a !pp! #b c2* [K:C#] d?e;f "@a $2 b" y |**C8|',
    "letters for decorations": "kC4RC4|kC J D I ^F2 Q F4|uvTC8|(TGFK).FF5|",
    "lyrics and music continued over comments": "C8|C8|\nw:la\\\n% so\n%%MIDI program 1\na bag\nC4\\\n% so\nC4|C8|",
    "chords between plus signs with decorations": "C8|+TGB+8|+uGB+4+.~v(GB)+4|+LG2B2+2+GBdgbdgbd+4|",
    "names between plus signs": "C8|+crescendo(+C4+mp+C4+>)+|+D.C.alfine+C4+5+C4|",
    "instructions with blanks of one word": "C8|C4!cresc. a b!C4|!dim. e!C8|!sempre f!C8|!end a b!C8|!c4 d4!|",
    "directives and text": "C8|\n%%MIDI program 1\n%%begintext center\nC9|\n%%endtext\nC8|",
    "parts, symbols and continued words": "C8|\nP:B\nC8|\nw:la\n+:la la\ns:!f!\nU:T=!trill!\nTC8|",
    "endings with a text": '|:C8|["last" CDEF [CE]4:|["2." "G"C8|["Am"CE]8|]',
    "an ending behind a continued line": "|:C8|\\\n1 C8:|2 C8|]",
    "a repeat like a field": "C8|C7\nc:|\nx7\nz::c8|",
}


@pytest.mark.parametrize("body", ADDING_UP.values(), ids=ADDING_UP.keys())
def test_bars_add_up_with(body):
    assert bad_bars(body) == []
    assert judge(tune(body)).bars_add_up


NOT_ADDING_UP = {
    "a bar too long": ("C8|C9|C8|", [(2, "1", "9/8")]),
    "a bar too short": ("C8|C7|C8|", [(2, "1", "7/8")]),
    "the first bar too long": ("C9|C8|", [(1, "1", "9/8")]),
    "the last bar too long": ("C8|C8|C9|]", [(3, "1", "9/8")]),
    "a repeated bar too long": ("C8|:C9:|C8|", [(2, "1", "9/8")]),
    "a metre changed inline and not kept": ("C8|[M:3/4]C6|C8|C6|", [(3, "3/4", "1")]),
    "a unit changed inline and not kept": ("C8|[L:1/16]C8|C16|", [(2, "1", "1/2")]),
    "a second bar after an edge": ("C8|:C4|C3|C8:|", [(2, "1", "1/2"), (3, "1", "3/8")]),
    "halves of a bar that do not add up": ("C8|C5:|C2|C8|]", [(2, "1", "5/8"), (3, "1", "1/4")]),
    "a short bar at an edge that none completes": ("C8|C6:|C8|C8|]", [(2, "1", "3/4")]),
    "an ending too short": ("C8|C8|1 C5:|2 C8|]", [(3, "1", "5/8")]),
    "a triplet of too many": ("C8|(3CDEF3C4|C8|", [(2, "1", "9/8")]),
    "a tuplet with its count too small": ("C8|(3:2:2CDEF2C4|C8|", [(2, "1", "25/24")]),
    "a chord counted once": ("C8|[CE]4|C8|", [(2, "1", "1/2")]),
    "a chord as long as its first note": ("C8|[C2E8]4|[C8E]2|C8|", [(3, "1", "2")]),
    "grace notes that count nothing": ("C8|{abc}C7|C8|", [(2, "1", "7/8")]),
    "an overlay too short": ("C8|C8&E4|C8|", [(2, "1", "1/2")]),
    "an overlay whose first part is too short": ("C8|C4&E8|C8|", [(2, "1", "1/2")]),
    "an overlay of two bad parts": ("C8|C7&E9|C8|", [(2, "1", "7/8"), (2, "1", "9/8")]),
    "rests too long": ("C8|z9|C8|", [(2, "1", "9/8")]),
    "two bad bars": ("C8|C7|C8|C10|C8|", [(2, "1", "7/8"), (4, "1", "5/4")]),
    "fractions that only just miss": ("C8|C7C63/64|C8|", [(2, "1", "511/512")]),
    "lyrics that do not count": ("C8|C7|\nw:C\nC8|", [(2, "1", "7/8")]),
}


@pytest.mark.parametrize(("body", "expected"), NOT_ADDING_UP.values(), ids=NOT_ADDING_UP.keys())
def test_a_bad_bar_is_reported_with_number_wanted_and_found_for(body, expected):
    assert bad_bars(body) == expected
    assert not judge(tune(body)).bars_add_up


def test_a_free_metre_has_no_bad_bars():
    assert bad_bars("C|C17|C3/2|", metre="none") == []


@pytest.mark.parametrize(("metre", "time"), [("6/8", 3), ("9/8", 3), ("12/8", 3), ("4/4", 2), ("3/4", 2)])
def test_five_notes_take_the_time_of_three_in_compound_metres_and_of_two_in_others(metre, time):
    full = int(bar_length(metre) * 8)
    assert bad_bars(f"C{full}|(5CDEFGC{full - time}|C{full}|", metre=metre) == []


def test_a_line_end_closes_a_full_bar_and_no_other():
    assert bad_bars("C8\nC4\nC4|C8\nC8|") == []
    assert judge(tune("C8\nC4\nC4|C8\n|C8|")).bars == 4
    assert bad_bars("C8|C4\n|C8|") == [(2, "1", "1/2")]


def test_a_bar_with_rests_only_is_a_bar_and_empty_ones_are_none():
    verdict = judge(tune("|C8|z8||C8|Z|X|\n|C8|]"))
    assert (verdict.bars, verdict.rests) == (6, 3)


def test_a_rest_of_several_bars_counts_as_so_many():
    assert judge(tune("C8|Z3|C8|")).bars == 5
    assert bad_bars("C8|Z3|C7|C8|") == [(5, "1", "7/8")]


def test_each_voice_counts_its_own_bars_and_continues_where_it_was_left():
    assert bad_bars("V:1\nC8|C8|\nV:2\nE4|E8|E8|\nV:1\nC8|C8|") == []
    assert bad_bars("[V:1]C8|C8|C8|\n[V:2]E8|E7|E8|") == [(2, "1", "7/8")]
    assert bad_bars("V:1\nC4\nV:2\nE8|\nV:1\nC4|C8|") == []


def test_lengths_without_a_common_measure_stay_exact():
    exact = 1 + (Fraction(1, 7) + Fraction(2, 11) + Fraction(3, 997) * Fraction(2, 3)) / 8
    assert bad_bars("C/7D2/11(3:2:1E3/997F8|") == [(1, "1", str(exact))]


# Pitches

PITCHES = {
    "octaves": ("C,,C,CcC'c''", [36, 48, 60, 72, 72, 96]),
    "the scale": ("CDEFGABc", [C, D, E, F, G, A, B, HIGH_C]),
    "accidentals": ("^C_D=E^^F__G", [61, 61, 64, 67, 65]),
    "an accidental until the bar's end": ("^FF2FF|F", [66, 66, 66, 66, 65]),
    "an accidental until a repeat": ("^FF:|F", [66, 66, 65]),
    "an accidental in every octave": ("^Fff'F,|f", [66, 78, 90, 54, 77]),
    "an accidental of a high note in every octave": ("^f'f=FF'", [90, 78, 65, 77]),
    "the notes of a chord between plus signs": ("+CE^G+4G4|", [60, 64, 68, 68]),
    "a unison": ("[DD]4D4|", [D, D, D]),
    "an octave mark of both kinds": ("C,',C'", [48, 72]),
    "an accidental in its overlay only": ("^F8&F8|F8", [66, 65, 65]),
    "an accidental of a grace note left out": ("{^f}fF", [77, 65]),
    "an accidental taken back": ("^F=FF", [66, 65, 65]),
    "an accidental until a line that ends a full bar": ("^F4F4\nF8|", [66, 66, 65]),
    "an accidental over a line that ends no bar": ("^F4\nF4|F8|", [66, 66, 65]),
    "chords from first to last": ("[CEG][ceg]", [60, 64, 67, 72, 76, 79]),
    "grace notes left out": ("{g}C{fg}D", [C, D]),
    "a tie as one note": ("C8-|C8|C8", [C, C]),
    "a chain of ties": ("C4-C4-|C8|", [C]),
    "a tie to another note": ("C4-D4|", [C, D]),
    "a tie ended by a rest": ("C4-z4|C8|", [C, C]),
    "no tie without a hyphen": ("C4C4|", [C, C]),
    "an accidental of one voice": ("[V:1]^F4[V:2]F4[V:1]F4|[V:2]F4|", [66, 65, 66, 65]),
    "a tie that carries an accidental over the bar": ("^F8-|F8|F8|", [66, 65]),
    "a tie that carries it to the tied note alone": ("^F8-|F4F4|_B8-|_B8|=B8|", [66, 65, 70, 71]),
    "a chord of which one note is tied": ("[C-EG]8|[CEG]8|", [C, E, G, E, G]),
    "tied chords": ("[CEG]8-|[CEG]8|[C-E-G-]8|[CEG]8|", [C, E, G, C, E, G]),
}


@pytest.mark.parametrize(("body", "expected"), PITCHES.values(), ids=PITCHES.keys())
def test_pitches_follow(body, expected):
    assert pitches(body) == expected


def test_the_key_alters_every_octave_and_an_inline_key_from_there_on():
    assert pitches("F,Ff=f|[K:F]BF|", key="D") == [54, 66, 78, 77, 70, 65]
    assert pitches("FB|\nK:Bb\nBE|", key="Em") == [66, 71, 70, 63]


# Errors


NOT_ABC = (
    "C8|C4 § C4|", "C8|[CE8|\nC8|", "C8|C8]|", "C8|[CzE]8|", "C8|[C>E]8|", "C8|C>>>>D8|", "C8|C99999|", "C3/2/|",
    "z8|z8|", "(1C8|", "(10CDEFGABcde|", "+CzE+8|", 'C4 + C4|"A+"C8|',
)  # fmt: skip


@pytest.mark.parametrize("body", NOT_ABC)
def test_what_is_not_abc_is_an_error_and_the_tune_does_not_parse(body):
    verdict = judge(tune(body))
    assert verdict.errors
    assert not verdict.parses
    assert not verdict.bars_add_up


def test_an_error_names_its_bar():
    assert judge(tune("C8|C8|C4 § C4|")).errors[0].startswith("bar 3:")


def test_a_tune_without_a_key_has_no_notes_and_an_error():
    verdict = judge("X:1\nT:Words only\nCDEF|GABc|\n")
    assert (verdict.key, verdict.pitches) == (None, [])
    assert verdict.errors


MICROTONES = ["_/e", "^3f", "^/4c", "_3/4B", "^3/2F", "__/E", "^^^f", "=^f", "^^_C"]


@pytest.mark.parametrize("note", MICROTONES)
def test_a_microtone_makes_a_tune_unreadable_and_is_no_natural(note):
    for body in (f"C7{note}|", f"C7[C{note}]|", f"C7+C{note}+|", f"(3{note}CCC6|", f"C4-C3-{note}|"):
        verdict = judge(tune(body))
        assert not verdict.parses
        assert set(verdict.pitches) <= {C}
        assert verdict.unreadable == MICROTONE
        assert verdict.bad_bars == [] or "+" in body
    assert judge(tune(f"C4{{a{note}}}C4|")).unreadable == MICROTONE


PROSE = [
    "repeat the whole tune again", "Play it twice.", "(second time slower)", "D.C. al fine", "Fine",
    "And now the dance", "Tom's version, from a fiddler in Cork", "siehe oben", "</html>", "end", "to Coda",
    "zweimal", "répété deux fois", "D.C.", "D.S.", "D. C.", "d.c.", "(D.C.)", "D.C.|]", "D.S. |]", "D.C", "D.S ||",
]  # fmt: skip


@pytest.mark.parametrize("words", PROSE)
def test_prose_in_the_body_makes_a_tune_unreadable_and_is_not_valid(words):
    for body in (f"C8|\n{words}\nC8|", f"C8|C8| {words}\nC8|"):
        assert judge(tune(body)).unreadable == WORDS_IN_MUSIC
        assert not score_tune(tune(body), ended=True)["no_errors"]


UNREADABLE = {
    PLUS_SIGNS: [f"C8|C4{signs}4|C8|" for signs in ('+"G"GB+', "+{c}GB+", "+[GB]+", "+G B+", "+GB3dx+" + "+kG+")]
    + ["C8|+" + 17 * "G" + "+8|"],
    OPEN_CHORD: ['C8|["Am"GBdB GABc|', "[CE c6|c8|", "[CE [CE]c|", "c8|[CEG", "c8|[CE|]"],
    LONG_OVERLAY: ["C8|C8|\n&&E8|E8|"],
    None: ["C8&\\\nE8|C8|", "C8|D.C.D.E .D.C.D.C|.F.A .F.\nA4|D.C E2 F4|D.C.(3DCDD2|.d.c.d.c|"],
}


@pytest.mark.parametrize("reason", UNREADABLE)
def test_a_tune_that_can_be_read_in_part_alone_is_unreadable(reason):
    assert [judge(tune(body)).unreadable for body in UNREADABLE[reason]] == [reason] * len(UNREADABLE[reason])


def test_letters_that_u_fields_define_are_no_prose():
    body = "knC4mC4|C8 n|"
    assert judge(tune(body)).unreadable == WORDS_IN_MUSIC
    assert judge("U:k = !tenuto!\n" + tune("U:n=!nil!\n" + body)).errors == []


# Splitting


SPLITS = {
    "at blank lines and numbers": (
        "X:1\nK:C\nCDEF|\n\nX:2\nK:D\nDEFG|\nX:3\nK:E\nEFGA|\n\n",
        ["X:1\nK:C\nCDEF|\n", "X:2\nK:D\nDEFG|\n", "X:3\nK:E\nEFGA|\n"],
    ),
    "a number that repeats": ("X:1\nK:C\nC|\n\nX:1\nK:C\nD|", ["X:1\nK:C\nC|\n", "X:1\nK:C\nD|"]),
    "text around tunes": (
        "%abc-2.1\nM:3/4\nL:1/4\n\nX:1\nK:C\nCDEF|\n\nCollected in the hills.\nA cab, a bag.\n\nX:2\nK:D\nD|\n",
        ["X:1\nK:C\nCDEF|\n", "X:2\nK:D\nD|\n"],
    ),
    **{
        f"text behind {words}": (
            f"X:1\nK:C\nCDEF|\n{words}\n \t\nA cab, a bag.\n\nX:2\nK:D\nD|",
            [f"X:1\nK:C\nCDEF|\n{words}\n", "X:2\nK:D\nD|"],
        )
        for words in ("w:la la la la", "W:All the words of it", "N:a remark")
    },
    "blank lines in and below a header": ("X:1\n\nT:A\nK:C\n\n%\nCDEF|\n\n", ["X:1\n\nT:A\nK:C\n\n%\nCDEF|\n"]),
    "nothing": ("", []),
    "no number": ("Some words\nK:C\nCDEF|\n", []),
}


@pytest.mark.parametrize(("text", "tunes"), SPLITS.values(), ids=SPLITS.keys())
def test_tunes_end_at_a_blank_line_below_music_or_at_the_next_number(text, tunes):
    assert list(split_tunes(text)) == tunes


# Transcripts


def sounded(body: str, **header: str) -> list[tuple[int, str]]:
    """Return pitch and length of each note as it sounds, in the order in which they begin."""
    parts = transcribe(tune(body, **header)).parts
    sounds = [sound for part in parts for bar in part.bars for sound in bar.sounds]
    return [(note.pitch, str(note.duration)) for sound in sounds for note in sound.struck]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("CD2z|", [(C, "1/8"), (D, "1/4")]),
        ("C4-C4|", [(C, "1")]),
        ("C8-|C8-|C4D4|", [(C, "5/2"), (D, "1/2")]),
        ("^F8-|F4F4|", [(F + 1, "3/2"), (F, "1/2")]),
        ("C4-D4|", [(C, "1/2"), (D, "1/2")]),
        ("(3CDE|", [(C, "1/12"), (D, "1/12"), (E, "1/12")]),
        ("C>D|", [(C, "3/16"), (D, "1/16")]),
        ("C<D>E|", [(C, "1/16"), (D, "1/4"), (E, "1/16")]),
        ("C4-C>D|", [(C, "11/16"), (D, "1/16")]),
        ("(3C>DE|", [(C, "1/8"), (D, "1/24"), (E, "1/12")]),
        ("[CE]2G|", [(C, "1/4"), (E, "1/4"), (G, "1/8")]),
        ("[C-E]2[CG]|", [(C, "3/8"), (E, "1/4"), (G, "1/8")]),
        ("{g}C2|", [(C, "1/4")]),
        ("Z2|C|", [(C, "1/8")]),
        ("[L:1/4]C[L:1/16]D|", [(C, "1/4"), (D, "1/16")]),
    ],
)
def test_a_note_sounds_as_long_as_it_is_written_ties_and_rhythms_included(body, expected):
    assert sounded(body) == expected


def test_bars_know_their_share_of_the_metre_their_key_and_their_lines():
    [part] = transcribe(tune("|:C2|C8[1D6:|2D8||[K:Am]z4C4|]")).parts
    assert part.opening == ["|:"]
    assert [bar.lines for bar in part.bars] == [["|"], ["[1"], [":|2"], ["||"], ["|]"]]
    assert [str(bar.length) for bar in part.bars] == ["1/4", "1", "3/4", "1", "1"]
    assert [bar.key for bar in part.bars] == ["C", "C", "C", "C", "Am"]
    assert [[len(sound.struck) for sound in bar.sounds] for bar in part.bars] == [[1], [1], [1], [1], [0, 1]]


def test_bars_are_alike_if_their_pitches_lengths_and_rests_are_whatever_stands_around_them():
    [part] = transcribe(tune('D2z6|"G"~D2 z6|{c}D2z2z4|^C8|^C8|_D8|D4z4|')).parts
    contents = [bar.content for bar in part.bars]
    assert contents[0] == contents[1]
    assert contents[3] == contents[4] == contents[5]
    assert len(set(contents)) == 4


def test_a_bar_that_ends_with_its_line_has_no_bar_line():
    [part] = transcribe(tune("C8\nD8|")).parts
    assert [bar.lines for bar in part.bars] == [[], ["|"]]


def test_voices_are_parts_of_their_own():
    transcript = transcribe(tune("V:1\nC8|D8-|\nV:2\nE4F4|G8|\nV:1\nD8|"))
    assert [[len(bar.sounds) for bar in part.bars] for part in transcript.parts] == [[1, 1, 1], [2, 1]]
    assert sounded("V:1\nC8|D8-|\nV:2\nE4F4|G8|\nV:1\nD8|")[1] == (D, "2")
