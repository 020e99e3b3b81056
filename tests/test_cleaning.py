"""Cleaning: what a model sees of a tune, and where every other character went."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from made_abc import transpose
from music21.harmony import CHORD_TYPES, ChordSymbol

from preprocessing.abc_voice import MICROTONE, NO_KEY, OPEN_CHORD, PLUS_SIGNS, WORDS_IN_MUSIC
from preprocessing.cleaning import clean_tune, reason_to_drop
from preprocessing.notation import judge
from preprocessing.score_writing import chord_symbol
from preprocessing.text_fields import decode_text, spell_rhythm


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
    "chords between plus signs with decorations": ("+TGB++uGB+|+vG+ +LG2B2+|", "[TGB][uGB]|[vG] [LG2B2]|"),
    "lyrics continued over a comment": ("CDEF|\nw:la\\\n% so\n%%MIDI program 1\na bag\nGABc|", "CDEF|\nGABc|"),
    "lines of instructions": ("CDEF|\nD.C.\nGABc|\nD.S\nc4|", "CDEF|\nGABc|\nc4|"),
    "endings with a text": ('CDEF|["last"GBdB [GB]c|["Am"CE]|', 'CDEF|GBdB [GB]c|["Am"CE]|'),
    "keys with signs": ("CDEF|\nK:B♭m\nGABc|[K:F♯m =f]c4|", "CDEF|\nK:Bbm\nGABc|[K:F#m =f]c4|"),
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


CHORDS = {
    symbol: symbol for symbol in ["Am", "G7", "F#m7b5", "Bb", "Cmaj7", "D/F#", "Esus4", "Bdim", "Caug", "Dm7", "G7/b"]
}
CHORDS |= {
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


def test_every_chord_symbol_of_our_score_reader_survives():
    for root, written in (("C", "C"), ("F#", "F#"), ("B-", "Bb")):
        for kind in CHORD_TYPES:
            if symbol := chord_symbol(ChordSymbol(root=root, kind=kind)):
                assert re.fullmatch(rf'"{written}[!-~]*"C4\|', clean(f"{symbol}C4|")), symbol


def test_words_in_quotes_are_no_chord_symbols():
    for text in ("N.C.", "Am G", "hm", "Fine", "Coda", "D.S.", "Do", "Bad", "Add", "Dim.", "ø7", "Solo"):
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


def test_the_bundled_corpus_is_clean_and_cleaning_it_again_changes_nothing(bundled_corpus):
    """No field is glued to music, no bar is empty, no code of mail is left."""
    leftover = re.compile(
        r"^(?![A-Za-z]:)[^\"\n]*(?<![\[A-Za-z])[KLMV]:|\|[ ]+:*\||=\d|=\n|\|\|\||\n[/>]", re.MULTILINE
    )
    texts = [text for split in ("train", "validation", "test") for text in bundled_corpus.tunes(split)["text"]]
    assert [match[0] for text in texts if (match := leftover.search(text))] == []
    assert [text for text in texts if clean_tune(text, "XRMLK").text != text] == []
    account = bundled_corpus.stats["characters_accounted"]
    assert account["dropped"]["empty bars"] > 5000
    assert account["tunes_changed"]["empty bars"] > 100


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
    defaults = {"M": "3/4", "L": "1/4", "R": "Waltz", "U": "n=!tenuto!\nU:k = !accent!"}
    assert clean_tune("X:1\nK:C\nCDE|", "XRMLK", defaults).text == "X:1\nR:waltz\nM:3/4\nL:1/4\nK:C\nCDE|"
    assert clean_tune("X:1\nM:6/8\nK:C\nCDE|", "XMLK", defaults).text == "X:1\nM:6/8\nL:1/4\nK:C\nCDE|"
    assert clean_tune("X:1\nU:k=!turn!\nK:C\nnCkD|", "K", defaults).text == "K:C\n!tenuto!C!turn!D|"


def test_voices_that_sound_elsewhere_than_written_keep_their_line_in_the_header():
    raw = "X:1\nV:1 name=Flute\nV:2 octave=-2 clef=bass\nV:3 transpose=-2\nK:C\nV:1\nc8|\nV:2\nc8|\nV:3\nc8|"
    tune = clean_tune(raw, "K")
    assert tune.text.startswith("V:2 transpose=-24\nV:3 transpose=-2\nK:C\n")
    assert judge(tune.text).pitches == judge(raw).pitches == [72, 48, 70]
    assert tune.ledger.balanced(len(raw), len(tune.text))
    assert clean_tune(tune.whole, "K").text == tune.text


def test_sharps_and_flats_of_a_key_may_be_words_or_signs():
    for written, key in (("F sharp minor", "F#m"), ("F♯ dorian", "F#dor"), ("B♭m clef=bass", "Bbm")):
        assert clean_tune(f"X:1\nK:{written}\nCDEF|", "K").header["K"] == key


LONG = "CDEF GABc|" * 20  # one error more or less is no reason to drop it


def reason(music: str, key: str = "C") -> str | None:
    """Why a tune is dropped."""
    tune = clean_tune(f"X:1\nM:4/4\nL:1/8\nK:{key}\n{music}", "K")
    return reason_to_drop(judge(tune.whole), tune.ledger)


MICROTONES = ("_/e4 c4|", "c4 ^3f4|", "{_/e}c8|", "C𝄳D6|", "♯/C8|", "[K:C _/e]c8|", "[C^3/2E]8|", "C𝄲F6|")
GONE_WRONG = ("GA=2ABc dedB|", "E=4DcA GABc|", "GABc =7C GABc|", "GABc=20|E=4DcA|")  # accidentals, no codes of mail
HALF_READ = dict.fromkeys((*MICROTONES, *GONE_WRONG), MICROTONE) | {
    '+"G"GB+': PLUS_SIGNS,
    "+G B+": PLUS_SIGNS,
    "[CEG c4|": OPEN_CHORD,
    "D.C.|]": WORDS_IN_MUSIC,
}


@pytest.mark.parametrize("body", HALF_READ)
def test_nothing_is_kept_half_read(body):
    assert reason(LONG + "\n" + body) == HALF_READ[body]


@pytest.mark.parametrize("key", ["C _2B _3e ^3f", "Ddor _/e", "C exp ^3/2f"])
def test_a_tune_with_microtones_in_its_key_is_dropped_and_counted_as_such(key):
    assert reason(LONG, key) == MICROTONE


def test_a_tune_with_words_among_its_notes_is_dropped_and_counted_as_such_and_lines_of_words_are_left_out():
    for words, reason in (("C4 then back|", WORDS_IN_MUSIC), ("\nthen back to the start\n", None)):
        tune = clean_tune(f"X:1\nM:4/4\nL:1/8\nK:C\n{LONG}{words}", "K")
        assert reason_to_drop(judge(tune.whole), tune.ledger) == reason
        assert "back" not in tune.text or reason
        assert bool(tune.ledger.dropped[WORDS_IN_MUSIC]) == (reason is None)


@pytest.mark.parametrize("key", ["H", "weird", "Ré", "D Hijaz", "E harmonic minor", "A мінор", "C 小调", "ハ長調"])
def test_a_tune_in_a_key_that_is_none_is_no_tune(key):
    for music in (LONG, f"[K:{key}]{LONG}", f"C8|\nK:{key}\n{LONG}"):
        assert reason(music, "C" if key in music else key) == NO_KEY


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


PIECES = st.sampled_from(
    [
        "=20", "=", "| | | |", "|y|", "||y|", "/2", ">", ":", "</html>", "<b>", '<a href="x">Back</a>', "+GB+", "*$;",
        "%%MIDI channel 10", "V:1 clef=perc", "V:2", '[V:1 nm="a ] b"]', "[K:perc]", "K:perc", "\u2028", "\x0b",
    ]
)  # fmt: skip


@given(
    st.lists(st.one_of(FIELDS, MUSIC, PIECES, st.text(max_size=20)), max_size=12).map("\n".join),
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


# Leftovers of conversions and of the web


LEFTOVERS = {
    "a run of empty bars": ("CDEF | | | | | |\nGABc |", "CDEF |\nGABc |", "empty bars"),
    "an empty bar at the start": ("| | C4|", "| C4|", "empty bars"),
    "an empty bar before an end": ("C4 | |]", "C4 |]", "empty bars"),
    "an empty bar before a repeat": ("C4 | :|\nD4| :: E4| |: F4:|", "C4 :|\nD4:: E4|: F4:|", "empty bars"),
    "an empty bar before an ending": ("C4| |1 D4:|2 E4|]", "C4|1 D4:|2 E4|]", "empty bars"),
    "bars of spacers alone": ("C4|y|y2 |  y |D4|", "C4|D4|", "empty bars"),
    "many bar lines in a row": ("C4|||||D4||||]", "C4||D4||]", "empty bars"),
    "lines of a bar line alone": ("C4|\n|\n|\nD4|", "C4|\nD4|", "empty bars"),
    **{
        f"a bar of {inside!r} alone": (f"C4|{inside}|D4|", "C4|D4|", "empty bars")
        for inside in ('"text"', '"a" "b"', "*", "$", "`", "[P:B]", "\\\n")
    },
    "a bar line alone behind an end": ("C4|]\n|\nD4|", "C4|]\nD4|", "empty bars"),
    "codes of signs where mail has broken a line": ("CDEF =\nGABc=7CD4|", "CDEF GABc|D4|", "quoted-printable"),
    "quoted-printable": ("CDEF |=20\nGABc =\nc4|=3DB4|", "CDEF |\nGABc c4|=B4|", "quoted-printable"),
    "a note broken off its length": (
        "CD f\n/e\n/d|[A2f\n2][F\n,2d]|c\n'4|",
        "CD f/e/d|[A2f2][F,2d]|c'4|",
        "lines broken",
    ),
    "a broken rhythm over two lines": ("CD2\n>E2F|", "CD2>E2F|", "lines broken"),
    "a repeat over two lines": ("CDEF:|\n: GABc||\n:c4:|", "CDEF:|: GABc||:c4:|", "lines broken"),
    "signs that the standard reserves": ("CD*EF|;GABc|@c4|?#$", "CDEF|GABc|c4|", "signs that say nothing"),
}


@pytest.mark.parametrize(("body", "expected", "reason"), LEFTOVERS.values(), ids=LEFTOVERS.keys())
def test_a_leftover_is_taken_out_and_counted(body, expected, reason):
    assert clean(body) == expected
    dropped = clean_tune(f"X:1\nM:4/4\nL:1/8\nK:C\n{body}", "K").ledger.dropped
    assert any(counted.startswith(reason) for counted in dropped)
    assert clean(expected) == expected


NO_LEFTOVERS = (
    "C4|z4|x4|Z2|D4|]", "GABc ^c[CEG]\n|\ncBAG c2DF|", "dedB[K:D]\n|\ncBAG|", 'C4|"Am"|D4|', "C4|\n| D4|\n|E4|]",
    "C4:| |:D4|| |:E4|[|]F4|", "C4|1 D4:|\n2 E4|]", '"C#"C=c|"F#m/C#"D4|[K:F#m]=B4|\nK:C#m\n_C4|',
    "C4|\nV:1 transpose=12\nD4|[V:2 octave=-1]E4|", "A<B>c<d|G<a>f <b>c|", "!fermata!C4!trill(!D4|",
)  # fmt: skip


@pytest.mark.parametrize("body", NO_LEFTOVERS)
def test_what_only_looks_like_a_leftover_stays(body):
    assert clean(body) == body


MARKUP = {
    "the end of a page": ("</pre>\n</body></html>", ""),
    "a link with words": ('<a href="x.html">Back to the index</a>', ""),
    "a tag with attributes around music": ('<font size="2">GABc|</font>', "GABc|"),
    "a tag behind music": ('C2D2 E4|"Am"(3ABc ~d>uB|]</PRE>', 'C2D2 E4|"Am"(3ABc ~d>uB|]'),
    "a comment": ("<!-- the end --><!-- and more", ""),
    "a rule and a picture": ('<hr>\n<img src="a.gif" alt="c">', ""),
    "a tag of one letter on its own line": ("<b>\nGABc|\n</b>", "GABc|"),
    "a doctype": ("<!DOCTYPE html>\n<?php echo ?>", ""),
    "words under a heading": ("<h2>Other tunes</h2>", ""),
    "words of the letters of notes under a heading": ("<h2>Bag</h2>", ""),
    "a row of links": ('<a href="a">Home</a> | <a href="b">Index</a>', ""),
    "a paragraph": ("<p>GABc dedB|", "GABc dedB|"),
    "two tags behind music": ("GABc dedB|<br></font>", "GABc dedB|"),
    "a cell": ("<td>GABc|</td>", "GABc|"),
    "a tag around a part of a line": ("<i>GABc</i> dedB|", "GABc dedB|"),
    "a pair that looks like notes": ("<b>GABc dedB|cBAG FADF</b>|", "GABc dedB|cBAG FADF|"),
    "a pair over two lines": ("<b>GABc|\ncBAG</b>|", "GABc|\ncBAG|"),
    "pairs within pairs": ("<strong><b>GABc</b></strong>|", "GABc|"),
    "a key and a voice on the line": ("[V:1]GABc [K:D]dedB|</pre>", "[V:1]GABc [K:D]dedB|"),
    "signs on the line": ("\u266fGABcy Jd$e`f a&lt;b|</pre>", "^GABc Jdef a<b|"),
    "a field": ("K:D</tt>\nGABc|", "K:D\nGABc|"),
    "a break between bar lines": ("GABc|<br>|dedB|", "GABc|dedB|"),
    "a bar line alone": ("GABc\n|]</pre>", "GABc\n|]"),
}


@pytest.mark.parametrize(("written", "left"), MARKUP.values(), ids=MARKUP.keys())
def test_markup_is_dropped_and_counted_and_the_music_stays(written, left):
    raw = f"X:1\nM:4/4\nL:1/8\nK:C\nCDEF GABc|cBAG FEDC|\n{written}"
    tune = clean_tune(raw, "XMLK")
    assert tune.text == "\n".join(filter(None, ["X:1\nM:4/4\nL:1/8\nK:C\nCDEF GABc|cBAG FEDC|", left]))
    assert tune.ledger.dropped["HTML"] > 0
    assert tune.ledger.balanced(len(raw), len(tune.text))
    assert reason_to_drop(judge(tune.whole), tune.ledger) is None


@pytest.mark.parametrize("written", ["GABc dedB|Back to <i>it</i>", "GABc dedB 3</pre>", "A<b>c <b>GABc</b>|"])
def test_a_tune_of_which_music_would_go_with_the_markup_is_dropped(written):
    raw = f"X:1\nM:4/4\nL:1/8\nK:C\n{LONG}\n{written}"
    tune = clean_tune(raw, "XMLK")
    assert tune.ledger.balanced(len(raw), len(tune.text))
    assert reason_to_drop(judge(tune.whole), tune.ledger) == "HTML among the notes"


@pytest.mark.parametrize("body", ["A<b>c dedB|", "A<bc dedB>c dedB|", "A<!trill!B>c d|", "A<TB>c|"])
def test_broken_rhythm_is_no_markup(body):
    assert clean(body) == body
    assert clean(body.replace("A<", "A\n<", 1)) == body


# Percussion, and the names of voices

MELODY, DRUMS = "V:1\nCDEF GABc|cBAG FEDC|", "|:D2^F2 D2^F2|C2c2 C2c2:|"
PERCUSSION = {
    "a clef in the body": f"K:C\n{MELODY}\nV:2 clef=perc\n{DRUMS}\nw:boom",
    "a clef in the header": f"V:1\nV:2 perc stafflines=1\nK:C\n{MELODY}\nV:2\n{DRUMS}",
    "a channel": f"K:C\n{MELODY}\nV:2\n%%MIDI channel 10\n{DRUMS}\n{DRUMS}",
    "a channel as an instruction": f"K:C\n{MELODY}\nV:2\nI:MIDI channel 10\n{DRUMS}",
    "an inline channel": f"K:C\n{MELODY}\n[V:2][I:MIDI channel 10]{DRUMS}",
    "a key in the body": f"K:C\n{MELODY}\nV:2\nK:perc\n{DRUMS}\nM:2/4\n{DRUMS}",
    "a key of the header": f"K:C clef=perc\nV:2\n{DRUMS}\n{MELODY.replace('V:1', 'V:1 clef=treble')}",
    "bar by bar": 'V:D clef="perc"\nK:C\n[V:1]CDEF GABc|[V:D]D4 D4|\n[V:1]cBAG FEDC|[V:D]D4 D4|',
    "a name of another clef": f'K:C\n{MELODY}\nV:2 name="Big Bass Drum" clef=perc\n{DRUMS}',
    "a name without quotes, and a tab": f"K:C\n{MELODY}\nV:2\tnm=Big Bass clef = perc\n{DRUMS}",
    "a bracket in a name": f'K:C\n{MELODY}\n[V:2 nm="bass ] drum" clef=perc]{DRUMS}',
    "a voice that changes its clef": f"K:C\nV:1\nCDEF GABc|\n[K:clef=perc]{DRUMS}\n[K:clef=treble]cBAG FEDC|",
}


@pytest.mark.parametrize("tune", PERCUSSION.values(), ids=PERCUSSION.keys())
def test_percussion_is_left_out_and_counted(tune):
    raw = f"X:1\nT:Percy's tune\nM:4/4\nL:1/8\n{tune}"
    cleaned = clean_tune(raw, "XMLK")
    assert judge(cleaned.whole).pitches == judge("K:C\nCDEF GABc|cBAG FEDC|").pitches
    assert cleaned.ledger.dropped["voices of percussion"] > 0
    assert cleaned.ledger.balanced(len(raw), len(cleaned.text))


@pytest.mark.parametrize("key", ["perc", "none clef=perc", "C clef=percussion"])
def test_a_tune_for_percussion_alone_is_dropped_for_that(key):
    tune = clean_tune(f"X:1\nT:Drums\nM:4/4\nL:1/8\nK:{key}\n{DRUMS}\n{DRUMS}", "XMLK")
    assert reason_to_drop(judge(tune.whole), tune.ledger) == "percussion alone"


NO_PERCUSSION = (
    "V:perc clef=bass", "V:1\n%%MIDI channel 1", "V:1 name=Percussion", 'V:1 name="Sir Percy"', "%%MIDI channel 101",
    'V:1 nm="El. perc" snm = "x perc"', 'V:1 "a perc" treble',
)  # fmt: skip


@pytest.mark.parametrize("voice", NO_PERCUSSION)
def test_what_only_sounds_like_percussion_stays(voice):
    tune = clean_tune(f"X:1\nT:Perc\nK:C\n{voice}\nCDEF|", "K")
    assert judge(tune.whole).pitches == [60, 62, 64, 65]
    assert "voices of percussion" not in tune.ledger.dropped


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ('1 treble nm="Violin" snm="Vl."', "1 treble"),
        ('2 name="B" clef=bass', "2 clef=bass"),
        ("2 name=Flute sname=Fl. clef=alto-8", "2 clef=alto-8"),
        ('T1 subname="A \\"quoted\\" one" octave=-1', "T1 octave=-1"),
        ('1 nm = "Vl [1]" middle=d', "1 middle=d"),
        ("1 nm= snm=", "1"),
        ('1 nm="50% more', "1"),
        ('B clef="bass" merge up staves=2', "B clef=bass"),
    ],
)
def test_the_names_of_voices_go_and_what_sounds_stays(written, left):
    assert clean(f"V:{written}\nCDEF|") == f"V:{left}\nCDEF|"
    if "%" not in written:
        assert clean(f"[V:{written}]CDEF|") == f"[V:{left}]CDEF|"


RHYTHMS = {
    "Gånglåt": "gånglåt", "Bourre\u0301e à  3 temps": "bourrée à 3 temps", "Bourr\\'ee": "bourrée", "Reel": "reel",
    "Sl&auml;ngpolska": "slängpolska", "Ръченица": "ръченица", "हिन्दी": "हिन्दी", "Kost ar c'hoat": "kost ar c'hoat",
    "Hanter-dro": "hanter-dro", "120": "", "3/4 waltz": "", "reel, Irish": "", "a sentence of five whole words": "",
    " slip  jig ": "slip jig", "Xiaodiao]": "xiaodiao", "Ballade, Tod; Sage": "", "": "",
}  # fmt: skip


@pytest.mark.parametrize("rhythm", RHYTHMS)
def test_a_rhythm_is_a_few_words_of_any_alphabet_and_a_sentence_is_none(rhythm):
    expected = RHYTHMS[rhythm]
    assert spell_rhythm(rhythm) == expected == spell_rhythm(expected)
    tune = clean_tune(f"X:1\nR:{rhythm}\nK:C\nCDEF|", "RK")
    assert tune.header.get("R", "") == expected
    assert ("R:" in tune.text) == bool(expected)


@pytest.mark.parametrize(
    ("metre", "expected"), [("FREI6/8", "none"), ("free", "none"), ("2/2]", "2/2"), ("C|", "C|"), ("[", "none")]
)
def test_a_free_metre_is_none(metre, expected):
    assert clean_tune(f"X:1\nM:{metre}\nK:C\nCDEF|", "MK").header["M"] == expected
