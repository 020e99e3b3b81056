"""Cleaning: what a model sees of a tune, and where every other character went."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from music21.harmony import CHORD_TYPES, ChordSymbol

from preprocessing.cleaning import clean_tune, decode_text, reason_to_drop
from preprocessing.conversion import _chord_symbol
from preprocessing.notation import MICROTONE, WORDS_IN_MUSIC, judge
from preprocessing.transposition import transpose


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
    "lyrics continued by a backslash": ("CDEF|\nw:la la\\\n  a bad cab\\\nbed\nGABc|", "CDEF|\nGABc|"),
    "remarks continued by a backslash": ("CDEF|\nN:see \\ % so\n a bag\nW:a\\\nbag\nGABc|", "CDEF|\nGABc|"),
    "continued lyrics continued": ('CDEF|\nw:la\n+:la\\\nbed\ns:"C"\\\n"G" *\nGABc|', "CDEF|\nGABc|"),
    "a field behind continued lyrics": ("CDEF|\nw:la\\\nK:G\\\nGABc|", "CDEF|\nK:G\nGABc|"),
    "lines of prose": (
        "CDEF|\nrepeat the whole tune again\nGABc|\n(Play twice.)\n\nD.C. al fine\n</html>\nend",
        "CDEF|\nGABc|",
    ),
    "a line without a bar line that is no prose": ("CDEF\nkC uDvE RF\nTGABc|\nz4", "CDEF\nkC uDvE RF\nTGABc|\nz4"),
    "chords between plus signs": ("+CE+D+^F=A++c/e/++C,E'G+2|", "[CE]D[^F=A][c/e/][C,E'G]2|"),
    "decorations between plus signs": ("+f+C+trill+D+D.C.+E+D.S. al coda+F|", "!f!C!trill!D!D.C.!E!D.S. al coda!F|"),
    "instructions with blanks": ("CD!D.C. al fine!EF|!da capo!GABc|!c y A!|", "CD!D.C. al fine!EF|!da capo!GABc|c A|"),
    "line ends that mail has broken": ("CD=3DEF=20\nGA =\nBc|=20\n^C=D2=E|", "CD=EF\nGA Bc|\n^C=D2=E|"),
    "entities inside quotes": ('"^&quot;a bag&quot;"CDEF|"_b &amp; d"GABc|&quot;Am&quot;c4|', 'CDEF|GABc|"Am"c4|'),
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


CHORDS = {
    "B♭": "Bb", "B♭7/D": "Bb7/D", "C♯m7♭5": "C#m7b5", "F♯dim": "F#dim", "C/B♭": "C/Bb", "E♮": "E", "B&#9837;": "Bb",
    "E\\u266d": "Eb", "Cø7": "Cm7b5", "Cø": "Cm7b5", "F#ø9": "F#m9b5", "D°": "Ddim", "D°7/C": "Ddim7/C", "Bo7": "Bdim7",
    "CΔ7": "Cmaj7", "C∆": "Cmaj7", "CΔ9": "Cmaj9", "AmΔ7": "Ammaj7", "C−7": "C-7", "D7(b9)": "D7(b9)",
    "D7(♭9,♯11)": "D7(b9,#11)",
    "G7alt": "G7alt", "CMaj7": "CMaj7", "Cmi7": "Cmi7", "Em7-5": "Em7-5", "Ebmaj7#11": "Ebmaj7#11", "C6/9": "C69",
    "G(Em)": "G", "(G)": "G", "(B♭7)": "Bb7", "Am(maj7)": "Am(maj7)", "F+": "F+", "C7/Bb": "C7/Bb", "C5": "C5",
}  # fmt: skip


@pytest.mark.parametrize("written", CHORDS)
def test_chord_symbols_of_any_spelling_are_written_as_abc_writes_them_and_transposed(written):
    tune = clean_tune(f'X:1\nK:C\n"{written}"C4|', "K")
    assert tune.text == f'K:C\n"{CHORDS[written]}"C4|'
    assert tune.ledger.balanced(len(f'X:1\nK:C\n"{written}"C4|'), len(tune.text))
    moved = transpose(tune.text, 2)
    assert moved.startswith('K:D\n"')
    assert transpose(moved, -2) == tune.text


@pytest.mark.parametrize("kind", sorted(CHORD_TYPES))
@pytest.mark.parametrize("root", ["C", "F#", "B-"])
def test_every_chord_symbol_of_our_score_reader_survives(root, kind):
    symbol = _chord_symbol(ChordSymbol(root=root, kind=kind))
    cleaned = clean(f"{symbol}C4|")
    assert re.fullmatch(rf'"{root.replace("-", "b")}[!-~]*"C4\|', cleaned)
    assert cleaned.endswith('"C4|')


@pytest.mark.parametrize(
    "text", ["N.C.", "Am G", "hm", "Fine", "Coda", "D.S.", "Do", "Bad", "Add", "Dim.", "ø7", "Solo"]
)
def test_words_in_quotes_are_no_chord_symbols(text):
    assert clean(f'"{text}"C4|') == "C4|"


def test_letters_that_u_fields_define_are_written_out_and_the_usual_ones_stay():
    raw = 'X:1\nU:n = !tenuto!\nU: k=!nil!\nU:m = "^+"\nU:T=!trill! % so\nU:H=+turn+\nK:Am\nknC4mnC4|"Am"TnC8|H[K:Em]C|'
    tune = clean_tune(raw, "K")
    assert tune.text == 'K:Am\n!tenuto!C4!tenuto!C4|"Am"T!tenuto!C8|!turn![K:Em]C|'
    assert tune.ledger.balanced(len(raw), len(tune.text))
    assert judge(tune.text).errors == []


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


LONG = "CDEF GABc|" * 20  # one error more or less is no reason to drop it


@pytest.mark.parametrize(
    "body", ["_/e4 c4|", "c4 ^3f4|", "{_/e}c8|", "C𝄳D6|", "♯/C8|", "[K:C _/e]c8|", "[C^3/2E]8|", "C𝄲F6|"]
)
def test_a_tune_with_one_microtone_is_dropped_and_counted_as_such(body):
    tune = clean_tune(f"X:1\nM:4/4\nL:1/8\nK:C\n{LONG}{body}", "K")
    assert reason_to_drop(judge(tune.whole), tune.ledger) == MICROTONE


@pytest.mark.parametrize("key", ["C _2B _3e ^3f", "Ddor _/e", "C exp ^3/2f"])
def test_a_tune_with_microtones_in_its_key_is_dropped_and_counted_as_such(key):
    tune = clean_tune(f"X:1\nM:4/4\nL:1/8\nK:{key}\n{LONG}", "K")
    assert reason_to_drop(judge(tune.whole), tune.ledger) == MICROTONE


def test_a_tune_with_words_among_its_notes_is_dropped_and_counted_as_such_and_lines_of_words_are_left_out():
    for words, reason in (("C4 then back|", WORDS_IN_MUSIC), ("\nthen back to the start\n", None)):
        tune = clean_tune(f"X:1\nM:4/4\nL:1/8\nK:C\n{LONG}{words}", "K")
        assert reason_to_drop(judge(tune.whole), tune.ledger) == reason
        assert "back" not in tune.text or reason
        assert bool(tune.ledger.dropped[WORDS_IN_MUSIC]) == (reason is None)


@pytest.mark.parametrize("key", ["H", "weird", "Ré", "D Hijaz", "E harmonic minor", "Em blues", "D Freygish", "G dur"])
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
