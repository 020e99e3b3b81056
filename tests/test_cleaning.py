"""Cleaning: what a model sees of a tune, and where every other character went."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from preprocessing.cleaning import clean_tune, decode_text, reason_to_drop
from preprocessing.notation import judge


def clean(body: str, header: str = "M:4/4\nL:1/8\nK:C") -> str:
    """The cleaned body alone."""
    return clean_tune(f"X:1\n{header}\n{body}", "K").text.split("\n", 1)[1]


def test_header_fields_stand_in_the_standards_order_and_only_those_kept():
    raw = "X:12\nL:1/16\nR:Jig\nC:Anon\nM:6/8\nQ:1/4=120\nT:First\nT:Second\nK:A minor\nCDEF|"
    tune = clean_tune(raw, "XTRMLQK")
    assert tune.text == tune.whole == "X:1\nT:First\nR:jig\nM:6/8\nL:1/16\nQ:1/4=120\nK:Am\nCDEF|"
    assert clean_tune(raw, "KLM").text == "M:6/8\nL:1/16\nK:Am\nCDEF|"
    assert (tune.title, tune.header["K"], tune.header["M"], tune.header["R"]) == ("First", "Am", "6/8", "jig")


@pytest.mark.parametrize(
    ("header", "expected"),
    [("K:C", "M:none\nL:1/8"), ("M:2/4\nK:C", "M:2/4\nL:1/16"), ("L:1/4\nK:C", "M:none\nL:1/4")],
)
def test_metre_and_unit_are_always_written_out(header, expected):
    assert clean_tune(f"X:1\n{header}\nCDEF|", "XMLK").text == f"X:1\n{expected}\nK:C\nCDEF|"


CLEANED = {
    "comments": ("CDEF|% one\n% two\nGABc| % three", "CDEF|\nGABc|"),
    "instructions": ("%%MIDI program 1\nCDEF|", "CDEF|"),
    "lyrics": ("CDEF|\nw:la la la la\nW:Words\ns:symbols\nGABc|", "CDEF|\nGABc|"),
    "remarks and part names": ("P:A\nCDEF|\nN:so\n[P:B]GABc|[r:remark]c4|[I:x]", "CDEF|\nGABc|c4|"),
    "titles in the body": ("CDEF|\nT:Second part\nGABc|", "CDEF|\nGABc|"),
    "fingerings": ('"1"C"2"D"0"E"4"F|', "CDEF|"),
    "annotations": ('"^slow"C"_here"D"<("E">)"F"@1,2 x"G|', "CDEFG|"),
    "remarks in quotes": ('"Fine"CDEF|"Coda"GABc|"D.C."c4|"End"c4|', "CDEF|GABc|c4|c4|"),
    "back quotes": ("CD`EF``G|", "CDEFG|"),
    "spacers": ("CyDy2E|", "CDE|"),
    "blanks": ("  CD \t EF|  \n\n   GA  Bc |  ", "CD EF|\nGA Bc |"),
    "letters of other scripts": ("CDéEF|♪GABc|", "CDEF|GABc|"),
    "text blocks": ("CDEF|\n%%begintext\nwords | of text\n%%endtext\nGABc|", "CDEF|\nGABc|"),
    "line breaks written as !": ("CDEF|!GABc|!\n!trill!c4|!", "CDEF|GABc|\n!trill!c4|"),
    "a section's end that looks like a field": ("CDE\nG:|\nA::\nz:|", "CDE\nG:|\nA::\nz:|"),
    "a continued line": ("CDEF|\\\nGABc|", "CDEF|GABc|"),
    "a continued line with a comment": ("CDEF|\\ % so\n  GABc|", "CDEF|GABc|"),
    "a line continued over lyrics": ("CDEF|\\\nw:la\nGABc|", "CDEF|GABc|"),
    "inline spaces": ("[M: 3/4]CDE|[L:  1/4]C|", "[M:3/4]CDE|[L:1/4]C|"),
    "keys in the body": ("CDEF|\nK:  A minor\nGABc|[K:D Mixolydian]c4|", "CDEF|\nK:Am\nGABc|[K:Dmix]c4|"),
}


@pytest.mark.parametrize(("body", "expected"), CLEANED.values(), ids=CLEANED.keys())
def test_cleaning_of(body, expected):
    assert clean(body) == expected


@pytest.mark.parametrize(
    "symbol", ["Am", "G7", "F#m7b5", "Bb", "Cmaj7", "D/F#", "Esus4", "Bdim", "Caug", "Dm7", "G7/b"]
)
def test_chord_symbols_stay(symbol):
    assert clean(f'"{symbol}"C4|') == f'"{symbol}"C4|'


def test_what_changes_the_sound_in_the_body_stays():
    body = "CDEF|\nM:3/4\nCDE|\nL:1/4\nC3|\nV:2 clef=bass\n{ag}[CEG]3|(3CDE F>G-|G.A ~B !trill!c^d|1 x3:|2 z3|]"
    assert clean(body) == body


@pytest.mark.parametrize("field", ["M:3/4", "L:1/16", "K:G", "V:2"])
def test_a_field_behind_a_continued_line_keeps_its_own_line(field):
    lines = clean(f"CDEF|\\\n{field}\nGABc|").split("\n")
    assert field in lines
    assert [line for line in lines if line != field] == ["CDEF|", "GABc|"]


def test_cleaning_a_cleaned_tune_changes_nothing(bundled_corpus):
    texts = [text for split in ("train", "validation", "test") for text in bundled_corpus.tunes(split)["text"]]
    changed = [text for text in texts if clean_tune(text, "XRMLK").text != text]
    assert changed == []


def test_every_line_of_the_bundled_corpus_is_a_field_or_music(bundled_corpus):
    glued = re.compile(r"^(?![A-Za-z]:)[^\"\n]*(?<![\[A-Za-z])[KLMV]:", re.MULTILINE)
    texts = [text for split in ("train", "validation", "test") for text in bundled_corpus.tunes(split)["text"]]
    assert [match[0] for text in texts if (match := glued.search(text))] == []


@pytest.mark.parametrize(
    ("rhythm", "expected"),
    [
        ("Reel", "reel"),
        (" slip  jig ", "slip jig"),
        ("Xiaodiao]", "xiaodiao"),
        ("Ballade, Tod; Sage", None),
        ("", None),
    ],
)
def test_a_rhythm_is_a_word_or_two_and_a_sentence_is_none(rhythm, expected):
    tune = clean_tune(f"X:1\nR:{rhythm}\nK:C\nCDEF|", "RK")
    assert tune.header.get("R") == expected
    assert ("R:" in tune.text) == (expected is not None)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Caf\\'e", "Café"),
        ("&Eacute;tude &amp; co", "Étude & co"),
        ("Sk\\u00e5l", "Skål"),
        ('M\\"adchen, stra\\sse, \\aa, \\/O, \\vC, \\cc', "Mädchen, straße, å, Ø, Č, ç"),
        ("back\\ slash", "back\\ slash"),
        ("\\ud83c", ""),
    ],
)
def test_titles_are_decoded_from(written, read):
    assert decode_text(written) == read
    assert clean_tune(f"X:1\nT:{written}\nK:C\nCDEF|", "TK").title == read


def test_foreign_letters_in_title_and_rhythm_are_no_errors_and_in_other_fields_they_are_dropped():
    tune = clean_tune("X:1\nT:Öl\nR:Märsche, Lieder\nM:4/4é\nL:1/8\nK:C\nCDEF|", "XTRMLK")
    assert tune.text == "X:1\nT:Öl\nM:4/4\nL:1/8\nK:C\nCDEF|"
    assert tune.ledger.dropped["characters outside ABC"] == 1


def test_the_fields_of_a_files_header_hold_where_a_tune_has_none():
    defaults = {"M": "3/4", "L": "1/4", "R": "Waltz"}
    assert clean_tune("X:1\nK:C\nCDE|", "XRMLK", defaults).text == "X:1\nR:waltz\nM:3/4\nL:1/4\nK:C\nCDE|"
    assert clean_tune("X:1\nM:6/8\nK:C\nCDE|", "XMLK", defaults).text == "X:1\nM:6/8\nL:1/4\nK:C\nCDE|"


def test_voices_that_sound_elsewhere_than_written_keep_their_line_in_the_header():
    raw = "X:1\nV:1 name=Flute\nV:2 octave=-2 clef=bass\nV:3 transpose=-2\nK:C\nV:1\nc8|\nV:2\nc8|\nV:3\nc8|"
    tune = clean_tune(raw, "K")
    assert tune.text.startswith("V:2 transpose=-24\nV:3 transpose=-2\nK:C\n")
    assert judge(tune.text).pitches == judge(raw).pitches == [72, 48, 70]
    assert tune.ledger.balanced(len(raw), len(tune.text))
    assert clean_tune(tune.whole, "K").text == tune.text


@pytest.mark.parametrize(
    ("written", "key"),
    [("B♭", "Bb"), ("F sharp minor", "F#m"), ("E flat", "Eb"), ("c sharp minor", "C#m"), ("F♯ dorian", "F#dor")],
)
def test_sharps_and_flats_of_a_key_may_be_words_or_signs(written, key):
    assert clean_tune(f"X:1\nK:{written}\nCDEF|", "K").header["K"] == key


@pytest.mark.parametrize("key", ["H", "weird", "Ré"])
def test_a_tune_in_a_key_that_is_none_is_no_tune(key):
    tune = clean_tune(f"X:1\nK:{key}\nCDEFGABc|cBAGFEDC|", "K")
    assert reason_to_drop(judge(tune.whole), tune.ledger) == "no K: field that names a key"


@pytest.mark.parametrize(
    ("written", "clean_body"),
    [
        ("CDEF|<br>GABc|<BR/>", "CDEF|GABc|"),
        ("C&lt;D&nbsp;E&gt;F|", "C<D E>F|"),
        ("♯C ♭D ♮E|", "^C _D =E|"),
        ('"Am CDEF|GABc|"E"c4|', '"Am CDEF|GABc|"E"c4|'),
    ],
)
def test_music_survives_what_the_web_puts_into_it(written, clean_body):
    assert clean(written) == clean_body


# Every character is accounted for

FIELDS = st.sampled_from(
    ["X:1", "T:Öl", "T:", "R:jig", "R:a, b; c", "M:6/8", "L:1/8", "Q:1/4=100", "K:Gmaj", "K:", "Z:me"]
)
MUSIC = st.text(alphabet="ABCdefz|:[]()\"!%\\ \t`~^_=,'/2w{}yé<>-\n", max_size=60)


@given(
    st.lists(st.one_of(FIELDS, MUSIC, st.text(max_size=20)), max_size=12).map("\n".join),
    st.sampled_from(["XRMLK", "K", "XTRMLQK"]),
)
def test_the_characters_of_any_text_add_up(raw, keep_fields):
    tune = clean_tune(raw, keep_fields)
    assume(tune.text)  # a text without a line has no line end to count
    assert tune.ledger.balanced(len(raw), len(tune.text))
    assert min([*tune.ledger.dropped.values(), *tune.ledger.added.values()], default=1) > 0


def test_the_ledger_names_what_went_where():
    raw = "X: 7\nT:A tune\nZ:me\nK:Gmaj % sharp\n\nCDEF|\\\nGABc|\nw:la la\n"
    ledger = clean_tune(raw, "XMLK").ledger
    assert ledger.dropped == {
        "blanks": 1 + 1 + 1 + 1,  # after X:, before the comment, the empty line, the last line's end
        "X: respelled": len("X:7\n"),
        "field T:": len("T:A tune\n"),
        "field Z:": len("Z:me\n"),
        "comments and directives": len("% sharp"),
        "K: respelled": len("K:Gmaj\n"),
        "line continuation": 2,
        "lyrics": len("w:la la\n"),
    }
    assert ledger.added == {
        "X: respelled": len("X:1\n"),
        "K: respelled": len("K:G\n"),
        "M: written out": len("M:none\n"),
        "L: written out": len("L:1/8\n"),
    }
