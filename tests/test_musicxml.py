"""MusicXML becomes ABC: the pitches, bars, keys, metres and chord symbols of the score, or why it is refused."""

import gc
import io
import zipfile

import pytest
from made_scores import back, barline, key, measure, metre, musicxml, note, rest

from preprocessing import musicxml as module
from preprocessing.abc_writing import ConversionError
from preprocessing.cleaning import clean_tune
from preprocessing.musicxml import kern_to_abc, musicxml_to_abc
from preprocessing.notation import canonical_key, judge
from preprocessing.score_writing import ScoreWriter

FOUR = "".join(note(step, 5, 6) for step in "CDEF")
FOUR_ABC = "c2 d2 e2 f2"
COMMON = key(0) + metre((4, 4))
REPEAT = '<repeat direction="{}"/>'
GRACE = "<note><grace/><pitch><step>B</step><octave>4</octave></pitch></note>"


def convert(*parts: str) -> str:
    return musicxml_to_abc(musicxml(*parts), "t")[0]


def body(*parts: str) -> str:
    return convert(*parts).partition("\nK:")[2].partition("\n")[2]


def key_of(abc: str) -> str:
    return abc.partition("\nK:")[2].partition("\n")[0]


# Metres


@pytest.mark.parametrize(
    ("pairs", "written", "length"),
    [
        ([("2+2+3", 8)], "7/8", 21), ([("3+2", 8)], "5/8", 15), ([("3+3+2", 8)], "8/8", 24),
        ([("3+2+2", "16")], "7/16", 42 / 4), ([(3, 4), (2, 8)], "8/8", 24), ([("3+2", 8), (3, 4)], "11/8", 33),
        ([("2½", 4)], "5/8", 15), ([("2.5", 4)], "5/8", 15), ([("2 1/2", 4)], "5/8", 15), ([("1/2+2", 4)], "5/8", 15),
        ([(12, 16)], "12/16", 18), ([(3, 2)], "3/2", 36),
    ],
)  # fmt: skip
def test_metre_of_several_parts_is_their_sum(pairs, written, length):
    notes = note("C", 5, int(length * 4))
    part = measure(1, notes, key(0) + metre(*pairs)).replace("<divisions>6<", "<divisions>24<")
    abc = convert(part + measure(2, notes))
    assert f"\nM:{written}\n" in abc
    assert judge(abc).bars_add_up


@pytest.mark.parametrize(
    "pair", [("x", 4), ("", 4), ("3", "4."), ("3", 0), (0, 4), ("1/0", 4), ("9e9", 4), (3, 3), ("3", ""), (" 2+ ", 4)]
)
def test_invalid_metre_is_refused(pair):
    with pytest.raises(ConversionError, match="a metre that cannot be read"):
        convert(measure(1, FOUR, key(0) + metre(pair)))


SECOND = "<interchangeable><beats>6</beats><beat-type>8</beat-type></interchangeable></time>"


@pytest.mark.parametrize(
    ("fields", "written"),
    [
        (metre((4, 4)).replace("<time>", '<time symbol="common">'), "4/4"),
        (metre((2, 2)).replace("<time>", '<time symbol="cut">'), "2/2"),
        (metre((3, 4)).replace("</time>", SECOND), "3/4"),
        ("<time><senza-misura/></time>", "none"),
        ("", "none"),
    ],
)
def test_metre_is_its_numbers(fields, written):
    assert f"\nM:{written}\n" in convert(measure(1, FOUR, key(0) + fields))


# Keys


@pytest.mark.parametrize(
    ("fifths", "mode", "written"),
    [
        (0, "dorian", "Ddor"), (0, "mixolydian", "Gmix"), (0, "aeolian", "Am"), (0, "phrygian", "Ephr"),
        (0, "lydian", "Flyd"), (0, "locrian", "Bloc"), (0, "ionian", "C"), (0, "minor", "Am"), (0, "Dorian", "Ddor"),
        (2, "dorian", "Edor"), (-3, "mixolydian", "Bbmix"), (7, "minor", "A#m"), (-7, "lydian", "Fblyd"),
        (0, " dorian ", "Ddor"), (4, "", "E"), (-1, "none", "F"), (1, "hijaz", "G"),
    ],
)  # fmt: skip
def test_tonic_follows_from_signature_and_mode(fifths, mode, written):
    abc = convert(measure(1, FOUR, key(fifths, mode) + metre((4, 4))))
    assert key_of(abc) == written == canonical_key(written)
    assert judge(abc).pitches == [72, 74, 76, 77]


@pytest.mark.parametrize(
    "odd",
    [
        key(8),
        key(-8),
        "<key><key-step>F</key-step><key-alter>1</key-alter><key-step>B</key-step><key-alter>-1</key-alter></key>",
        "<key><key-step>F</key-step><key-alter>0.5</key-alter></key>",
    ],
)
def test_signature_without_a_name_becomes_accidentals(odd):
    notes = note("F", 5, 6, alter=1) + note("B", 4, 6, alter=-1) + note("F", 5, 6) + note("C", 5, 6)
    abc = convert(measure(1, notes, odd + metre((4, 4))))
    assert key_of(abc) == "none"
    assert judge(abc).pitches == [78, 70, 77, 72]


@pytest.mark.parametrize(
    ("transpose", "fifths", "mode", "written", "shift"),
    [
        ("<diatonic>-1</diatonic><chromatic>-2</chromatic>", 2, "minor", "Am", -2),
        ("<chromatic>0</chromatic><octave-change>-1</octave-change>", 0, "", "C", -12),
        ("<chromatic>-2</chromatic>", 3, "", "G", -2),
        ("<chromatic>-9</chromatic>", 3, "", "C", -9),
        ("<chromatic>5</chromatic>", 3, "", "D", 5),
    ],
)
def test_transposing_instrument_is_written_at_sounding_pitch(transpose, fifths, mode, written, shift):
    chord = "<harmony><root><root-step>D</root-step></root><kind>minor</kind></harmony>"
    fields = key(fifths, mode) + metre((4, 4)) + f"<transpose>{transpose}</transpose>"
    abc = convert(measure(1, chord + FOUR, fields))
    assert key_of(abc) == written
    assert judge(abc).pitches == [pitch + shift for pitch in (72, 74, 76, 77)]
    assert shift != -2 or '"Cm"' in abc


# Chord symbols


def harmony(kind: str, alter: int = 0, more: str = "", root: str = "B") -> str:
    whole = f"<root><root-step>{root}</root-step><root-alter>{alter}</root-alter></root>"
    return f"<harmony>{whole}<kind>{kind}</kind>{more}</harmony>"


def degree(value: int, kind: str, alter: int = 0) -> str:
    parts = {"degree-value": value, "degree-alter": alter, "degree-type": kind}
    return f"<degree>{''.join(f'<{name}>{part}</{name}>' for name, part in parts.items())}</degree>"


@pytest.mark.parametrize(
    ("symbol", "written"),
    [
        (harmony("major", -1), "Bb"), (harmony("dominant", -1), "Bb7"), (harmony("diminished", 1, root="F"), "F#dim"),
        (harmony("half-diminished", root="C"), "Cm7b5"), (harmony("diminished-seventh", root="D"), "Ddim7"),
        (harmony("augmented"), "Baug"), (harmony("minor-seventh"), "Bm7"), (harmony("major-minor"), "Bm(maj7)"),
        (harmony("suspended-fourth", -1), "Bbsus4"), (harmony("suspended-second"), "Bsus2"), (harmony("power"), "B5"),
        (harmony("major-sixth"), "B6"), (harmony("dominant-ninth"), "B9"), (harmony("dominant-13th"), "B13"),
        (harmony("major", more=degree(9, "add")), "Badd9"), (harmony("dominant", more=degree(9, "add", -1)), "B7b9"),
        (harmony("dominant", more=degree(5, "alter", 1)), "B7#5"),
        (harmony("minor", more="<bass><bass-step>F</bass-step><bass-alter>1</bass-alter></bass>"), "Bm/F#"),
        *((harmony(kind), None) for kind in ("none", "other", "Neapolitan")),  # ABC cannot write these
        (harmony("major", more=degree(3, "subtract")), None), (harmony("major", -2), None),
    ],
)  # fmt: skip
def test_chord_symbols_are_ascii_and_survive_cleaning(symbol, written):
    abc = convert(measure(1, symbol + FOUR, COMMON))
    shown = f'"{written}"c2 d2' if written else "\nc2 d2"
    assert shown in abc
    assert shown in clean_tune(abc, "XTMLK").text


# Bars and notes


def divided(first: str, second: str, more: str = "") -> str:
    """A bar divided in two between full ones; `first` ends the first half, `second` begins the second."""
    return (
        measure(1, FOUR, COMMON)
        + measure(2, note("C", 5, 12) + first)
        + measure(3, second + note("D", 5, 12), more=more)
        + measure(4, FOUR)
    )


def half(upper: str, lower: str) -> str:
    low = back(12) + note(lower, 4, 12, "<voice>2</voice>") if lower else ""
    return note(upper, 5, 12, "<voice>1</voice>") + low


def ending(number: str, content: str, right: str) -> str:
    start, stop = (f'<ending number="{number}" type="{kind}"/>' for kind in ("start", "stop"))
    return barline("", "left", start) + content + barline("", "right", stop + right)


def in_time_of(actual: int, normal: int, kind: str = "eighth") -> str:
    ratio = f"<actual-notes>{actual}</actual-notes><normal-notes>{normal}</normal-notes>"
    return f"<time-modification>{ratio}</time-modification><type>{kind}</type>"


TIED = '<tie type="{0}"/><notations><tied type="{0}"/></notations>'
CUE = note("D", 5, 12).replace("<note>", "<note><cue/>") + note("F", 5, 12).replace("<note>", "<note><cue/><chord/>")
CANCEL = "<key><cancel>3</cancel><fifths>-3</fifths><mode>minor</mode></key>"
LOW = note("E", 4, 6, "<voice>2</voice>")
CHORD = note("C", 4, 6) + note("E", 4, 6).replace("<note>", "<note><chord/>")
REPEATED = (
    measure(1, barline("", "left", REPEAT.format("forward")) + FOUR, COMMON)
    + measure(2, ending("1, 2", FOUR, REPEAT.format("backward")))
    + measure(3, ending("3", FOUR, ""))
)
ENDED = divided(barline("none"), "").replace(
    '</measure><measure number="4"',
    barline("light-heavy", "right", REPEAT.format("backward")) + '</measure><measure number="4"',
)
THIRDS = measure(1, FOUR, COMMON) + "".join(
    measure(number, note(step, 5, length) + barline("none" if step != "E" else "regular"))
    for number, (step, length) in enumerate([("C", 6), ("D", 6), ("E", 12)], 2)
)
TRIPLET = "".join(note(step, 5, 2, in_time_of(3, 2)) for step in "CDE")
UNEVEN = note("C", 5, 4, in_time_of(3, 2, "quarter")) + note("D", 5, 2, in_time_of(3, 2))
QUINTUPLET = "".join(note(step, 5, 4, in_time_of(5, 4)) for step in "CDEFG")
FREE = "<time><senza-misura/></time>"
SILENT = measure(2, rest(24).replace("<rest/>", '<rest measure="yes"/>')) + measure(3, "")
JOINED = f"{FOUR_ABC}|c4 d4|{FOUR_ABC}|]\n"
BODIES = {
    "free metre": (
        measure(1, FOUR, COMMON) + measure(2, FOUR + note("G", 5, 6), FREE) + measure(3, FOUR, metre((4, 4))),
        f"{FOUR_ABC}|[M:none]{FOUR_ABC} g2|[M:4/4]{FOUR_ABC}|]\n",
    ),
    "changes of key": (
        measure(1, FOUR, COMMON) + measure(2, FOUR, key(3)) + measure(3, FOUR, CANCEL),
        f"{FOUR_ABC}|[K:A]=c2 d2 e2 =f2|[K:Cm]c2 d2 =e2 f2|]\n",
    ),
    **{
        f"bar divided by a {style} line": (divided(barline(style), ""), JOINED)
        for style in ("none", "dashed", "dotted", "short", "tick")
    },
    "line at the left": (divided("", barline("none", "left")), JOINED),
    "second half implicit": (divided(barline("none"), "", ' implicit="yes"'), JOINED),
    "regular line": (divided(barline("regular"), ""), f"{FOUR_ABC}|c4|d4|{FOUR_ABC}|]\n"),
    "double line": (divided(barline("light-light"), ""), f"{FOUR_ABC}|c4||d4|{FOUR_ABC}|]\n"),
    "bar in three parts": (THIRDS + measure(5, FOUR), f"{FOUR_ABC}|c2 d2 e4|{FOUR_ABC}|]\n"),
    "divided bar before a repeat": (ENDED, f"{FOUR_ABC}|c4 d4:|{FOUR_ABC}|]\n"),
    "two full bars": (measure(1, FOUR + barline("none"), COMMON) + measure(2, FOUR), f"{FOUR_ABC}|{FOUR_ABC}|]\n"),
    "voices of a divided bar": (
        measure(1, half("C", "E") + barline("none"), COMMON) + measure(2, half("D", "F")),
        "c4 d4&E4 F4|]\n",
    ),
    "one voice of a divided bar ends": (
        measure(1, half("C", "E") + barline("none"), COMMON) + measure(2, half("D", "")),
        "c4 d4&E4 x4|]\n",
    ),
    "repeats and endings": (REPEATED, f"|:{FOUR_ABC}|[1,2 {FOUR_ABC}:|[3 {FOUR_ABC}|]\n"),
    "implicit pickup": (
        measure(0, note("C", 5, 6), COMMON, ' implicit="yes"') + measure(1, FOUR) + measure(2, note("C", 5, 18)),
        f"c2|{FOUR_ABC}|c6|]\n",
    ),
    "pickup": (measure(0, note("C", 5, 6), COMMON) + measure(1, FOUR), f"c2|{FOUR_ABC}|]\n"),
    "chord, tie and grace note": (
        measure(1, CHORD + note("A", 4, 18, TIED.format("start")), COMMON)
        + measure(2, note("A", 4, 6, TIED.format("stop")) + GRACE + note("C", 5, 18)),
        "[CE]2 A6-|A2 {B}c6|]\n",
    ),
    "accidentals within a bar": (
        measure(1, note("F", 5, 12, alter=1) + note("F", 5, 12), COMMON) + measure(2, note("F", 5, 24, alter=1)),
        "^f4 =f4|^f8|]\n",
    ),
    "chord symbol and grace note at the end": (
        measure(1, note("C", 5, 24) + harmony("dominant", root="G") + GRACE, COMMON) + measure(2, FOUR),
        f'c8"G7"{{B}}|{FOUR_ABC}|]\n',
    ),
    "chord symbol beside voices": (
        measure(1, harmony("major", root="C") + half("C", "") + note("D", 5, 12, "<voice>1</voice>")
                + back(24) + note("C", 4, 24, "<voice>2</voice>"), COMMON),
        '"C"c4 d4&C8|]\n',
    ),
    "voice that ends early": (measure(1, FOUR + back(24) + LOW, COMMON), f"{FOUR_ABC}&E2x6|]\n"),
    "voice that begins late": (
        measure(1, FOUR + back(24) + f"<forward><duration>12</duration></forward>{LOW}", COMMON),
        f"{FOUR_ABC}&x4 E2x2|]\n",
    ),
    "triplet": (measure(1, TRIPLET + note("C", 5, 18), COMMON), "(3cde c6|]\n"),
    "triplet of two notes": (measure(1, UNEVEN + note("D", 5, 18), COMMON), "(3:2:2c2d d6|]\n"),
    "quintuplet": (
        measure(1, QUINTUPLET + note("C", 5, 20), COMMON).replace("<divisions>6<", "<divisions>10<"),
        "(5:4:5cdefg c4|]\n",
    ),
    "cue notes": (measure(1, note("C", 5, 12) + CUE, COMMON), "c4 z4|]\n"),
    "bars of rest": (measure(1, FOUR, COMMON) + SILENT + measure(4, FOUR), f"{FOUR_ABC}|z8|z8|{FOUR_ABC}|]\n"),
    "two staves": (
        measure(1, note("C", 5, 24, "<voice>1</voice><staff>1</staff>") + back(24)
                + note("C", 3, 24, "<voice>5</voice><staff>2</staff>"), COMMON + "<staves>2</staves>"),
        "V:1\nc8|]\nV:2\nC,8|]\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("part", "written"), BODIES.values(), ids=BODIES.keys())
def test_music_is_written(part, written):
    assert body(part) == written


def test_endings_are_kept_whenever_garbage_is_collected(monkeypatch):
    bar = ScoreWriter.bar
    monkeypatch.setattr(ScoreWriter, "bar", lambda self, measures: (gc.collect(), bar(self, measures))[1])
    part, written = BODIES["repeats and endings"]
    assert body(part) == written


def test_each_voice_states_its_metre_again_if_it_changes():
    part = measure(1, note("G", 4, 12), key(1) + metre((2, 4))) + measure(2, note("A", 4, 18), metre((3, 4)))
    assert body(part, part) == "V:1\nG4|[M:3/4]A6|]\nV:2\n[M:2/4]G4|[M:3/4]A6|]\n"


def test_tuplet_that_abc_cannot_write_keeps_its_lengths():
    notes = "".join(note(step, 5, 8, in_time_of(11, 8)) for step in "CDEFGABCDEF")
    verdict = judge(convert(measure(1, notes, COMMON).replace("<divisions>6<", "<divisions>22<")))
    assert (verdict.bars_add_up, len(verdict.pitches)) == (True, 11)


@pytest.mark.parametrize(
    ("inside", "reason"),
    [
        (
            "<attributes><measure-style><measure-repeat type='start'>1</measure-repeat></measure-style></attributes>",
            "bars written as repeat signs",
        ),
        (barline("heavy-light", "middle", REPEAT.format("forward")), "repeats inside a bar"),
        (note("C", 5, 6, alter=0.5), "quarter tones"),
        (note("C", 5, 6, alter=3), "accidentals that ABC cannot write"),
    ],
)
def test_score_that_abc_cannot_write_is_refused_with_a_reason(inside, reason):
    with pytest.raises(ConversionError, match=reason):
        convert(measure(1, FOUR + inside + FOUR, COMMON))


# Parts


def test_percussion_is_left_out_and_counted():
    drums = measure(1, "<note><unpitched/><duration>24</duration></note>", COMMON)
    by_clef = measure(1, FOUR, COMMON + "<clef><sign>percussion</sign></clef>")
    abc, percussion = musicxml_to_abc(musicxml(measure(1, FOUR, COMMON), drums, by_clef), "t")
    assert (judge(abc).pitches, percussion) == ([72, 74, 76, 77], 2)
    for part in (drums, by_clef):
        with pytest.raises(ConversionError, match="no notes"):
            convert(part)


def test_clefs_change_no_pitch_and_a_tablature_of_another_part_is_left_out():
    clef = "<clef><sign>{}</sign><line>2</line>{}</clef>"
    for sign, more in (("G", "<clef-octave-change>-1</clef-octave-change>"), ("F", ""), ("TAB", "")):
        assert judge(convert(measure(1, FOUR, COMMON + clef.format(sign, more)))).pitches == [72, 74, 76, 77]
    tablature = measure(1, FOUR, COMMON + clef.format("TAB", ""))
    assert "V:" not in convert(measure(1, FOUR, COMMON), tablature)
    assert "V:2" in convert(measure(1, FOUR, COMMON).replace("C</step>", "G</step>"), tablature)


def test_timewise_score_is_read_like_a_partwise_one():
    parts = [measure(1, FOUR, COMMON) + measure(2, FOUR), measure(1, FOUR, COMMON) + measure(2, note("C", 4, 24))]
    head = musicxml(*parts).decode().partition("<part id")[0].replace("partwise", "timewise")
    bars = [[cut.partition(">")[2].removesuffix("</measure>") for cut in part.split("<measure")[1:]] for part in parts]
    timed = "".join(
        f'<measure number="{n}"><part id="P0">{a}</part><part id="P1">{b}</part></measure>'
        for n, (a, b) in enumerate(zip(*bars, strict=True))
    )
    assert musicxml_to_abc(f"{head}{timed}</score-timewise>".encode(), "t")[0] == convert(*parts)


# Files


def archive(**members: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name.replace("__", "/"), data)
    return packed.getvalue()


def test_archive_gives_the_score_that_its_container_names(monkeypatch):
    score, other = musicxml(measure(1, FOUR, COMMON)), musicxml(measure(1, note("C", 4, 24), COMMON))
    container = b'<container><rootfiles><rootfile full-path="b.xml"/></rootfiles></container>'
    packed = archive(**{"a.xml": other, "b.xml": score, "META-INF__container.xml": container})
    for data in (packed, archive(**{"b.xml": score})):
        assert musicxml_to_abc(data, "t") == musicxml_to_abc(score, "t")
    for broken in (archive(), archive(**{"a.txt": score}), archive(**{"META-INF__container.xml": container})):
        with pytest.raises(ConversionError, match="archive without a score"):
            musicxml_to_abc(broken, "t")
    monkeypatch.setattr(module, "MAX_XML", 1000)
    with pytest.raises(ConversionError, match="unpacks to more than"):
        musicxml_to_abc(archive(**{"a.xml": b" " * 1001}), "t")


def test_entities_are_neither_fetched_nor_multiplied(tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    score = musicxml(measure(1, FOUR, COMMON)).decode().replace("A  Title", "&x;")
    outer = f'<!DOCTYPE score-partwise [<!ENTITY x SYSTEM "{(tmp_path / "secret.txt").as_uri()}">]>'
    laughs = "".join(f'<!ENTITY x{i} "{f"&x{i - 1};" * 10}">' for i in range(1, 12))
    bomb = f'<!DOCTYPE score-partwise [<!ENTITY x0 "ha">{laughs}<!ENTITY x "&x11;">]>'
    for declared in (outer, bomb):
        with pytest.raises(Exception, match=r"entity|amplification"):
            musicxml_to_abc((declared + score).encode(), "t")


def test_other_xml_is_no_score():
    with pytest.raises(ConversionError, match="no score"):
        musicxml_to_abc(b"<html>no score</html>", "t")


def test_kern_is_read():
    kern = b"!!!OTL: \xe9tude\n**kern\n*M3/4\n*k[f#]\n=1\n4g\n4a\n4f#\n=2\n2.g\n==\n*-\n"
    assert judge(kern_to_abc(kern, "t")[0]).pitches == [67, 69, 66, 67]
