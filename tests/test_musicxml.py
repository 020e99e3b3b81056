"""MusicXML becomes ABC: the pitches, bars, keys, metres and chord symbols of the score, or a reason why not."""

import io
import zipfile

import pytest
from made_scores import back, barline, key, measure, metre, musicxml, note, rest

from preprocessing import musicxml as module
from preprocessing.abc_writing import ConversionError
from preprocessing.musicxml import score_to_abc
from preprocessing.notation import canonical_key, judge

FOUR = "".join(note(step, 5, 6) for step in "CDEF")
COMMON = key(0) + metre((4, 4))
REPEAT = '<repeat direction="{}"/>'


def convert(*parts: str) -> str:
    return score_to_abc("musicxml", musicxml(*parts), "t")[0]


def body(*parts: str) -> str:
    return convert(*parts).partition("\nK:")[2].partition("\n")[2]


def of_key(abc: str) -> str:
    return abc.partition("\nK:")[2].partition("\n")[0]


def refused(*parts: str) -> str:
    with pytest.raises(ConversionError) as error:
        convert(*parts)
    return str(error.value)


# Metres


@pytest.mark.parametrize(
    ("pairs", "written", "length"),
    [
        ([("2+2+3", 8)], "7/8", 21),
        ([("3+2", 8)], "5/8", 15),
        ([("3+3+2", 8)], "8/8", 24),
        ([("3+2+2", "16")], "7/16", 42 / 4),
        ([(3, 4), (2, 8)], "8/8", 24),
        ([("3+2", 8), (3, 4)], "11/8", 33),
        ([("2½", 4)], "5/8", 15),
        ([("2.5", 4)], "5/8", 15),
        ([("2 1/2", 4)], "5/8", 15),
        ([("1/2+2", 4)], "5/8", 15),
        ([(12, 16)], "12/16", 18),
        ([(3, 2)], "3/2", 36),
    ],
)
def test_a_metre_of_several_parts_is_their_sum(pairs, written, length):
    divisions = int(length * 4)  # the notes have an eighth of a sixth's sixth: whole numbers
    notes = note("C", 5, divisions)
    part = measure(1, notes, key(0) + metre(*pairs)).replace("<divisions>6<", "<divisions>24<")
    abc = convert(part + measure(2, notes))
    assert f"\nM:{written}\n" in abc
    assert judge(abc).bars_add_up


@pytest.mark.parametrize(
    "pair", [("x", 4), ("", 4), ("3", "4."), ("3", 0), (0, 4), ("1/0", 4), ("9e9", 4), (3, 3), ("3", ""), (" 2+ ", 4)]
)
def test_a_metre_that_cannot_be_read_is_refused(pair):
    assert refused(measure(1, FOUR, key(0) + metre(pair))) == "a metre that cannot be read"


def test_a_free_metre_and_a_second_reading_of_a_metre():
    free = "<time><senza-misura/></time>"
    assert body(
        measure(1, FOUR, COMMON) + measure(2, FOUR + note("G", 5, 6), free) + measure(3, FOUR, metre((4, 4)))
    ) == ("c2 d2 e2 f2|[M:none]c2 d2 e2 f2 g2|[M:4/4]c2 d2 e2 f2|]\n")
    second = "<interchangeable><beats>6</beats><beat-type>8</beat-type></interchangeable></time>"
    abc = convert(measure(1, note("C", 5, 18), key(0) + metre((3, 4)).replace("</time>", second)))
    assert "\nM:3/4\n" in abc
    assert "\nM:none\n" in convert(measure(1, FOUR, key(0)))


@pytest.mark.parametrize(
    ("symbol", "pair", "written"), [("common", (4, 4), "4/4"), ("cut", (2, 2), "2/2"), ("single-number", (3, 4), "3/4")]
)
def test_a_metre_is_its_numbers_whatever_is_drawn(symbol, pair, written):
    fields = key(0) + metre(pair).replace("<time>", f'<time symbol="{symbol}">')
    assert f"\nM:{written}\n" in convert(measure(1, FOUR, fields))


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
def test_the_tonic_follows_from_signature_and_mode(fifths, mode, written):
    abc = convert(measure(1, FOUR, key(fifths, mode) + metre((4, 4))))
    assert of_key(abc) == written == canonical_key(written)
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
def test_a_signature_that_has_no_name_is_written_at_its_notes(odd):
    notes = note("F", 5, 6, alter=1) + note("B", 4, 6, alter=-1) + note("F", 5, 6) + note("C", 5, 6)
    abc = convert(measure(1, notes, odd + metre((4, 4))))
    assert of_key(abc) == "none"
    assert judge(abc).pitches == [78, 70, 77, 72]


def test_keys_change_with_and_without_naturals_before_them():
    cancel = "<key><cancel>3</cancel><fifths>-3</fifths><mode>minor</mode></key>"
    part = measure(1, FOUR, COMMON) + measure(2, FOUR, key(3)) + measure(3, FOUR, cancel)
    assert body(part) == "c2 d2 e2 f2|[K:A]=c2 d2 e2 =f2|[K:Cm]c2 d2 =e2 f2|]\n"
    inside = note("F", 5, 12, alter=1) + f"<attributes>{key(1)}</attributes>" + note("F", 5, 12)
    assert judge(convert(measure(1, inside, COMMON) + measure(2, note("F", 5, 24, alter=1)))).pitches == [78, 77, 78]


def test_an_instrument_that_sounds_elsewhere_is_written_where_it_sounds():
    clarinet = "<transpose><diatonic>-1</diatonic><chromatic>-2</chromatic></transpose>"
    chord = "<harmony><root><root-step>D</root-step></root><kind>minor</kind></harmony>"
    abc = convert(measure(1, chord + FOUR, key(2, "minor") + metre((4, 4)) + clarinet))
    assert of_key(abc) == "Am"
    assert judge(abc).pitches == [70, 72, 74, 75]
    assert '"Cm"' in abc
    bass = "<transpose><chromatic>0</chromatic><octave-change>-1</octave-change></transpose>"
    assert judge(convert(measure(1, FOUR, COMMON + bass))).pitches == [60, 62, 64, 65]
    for down, key_there in ((-2, "G"), (-9, "C"), (5, "D")):  # how many semitones; without the number of steps
        moved = convert(
            measure(1, FOUR, key(3) + metre((4, 4)) + f"<transpose><chromatic>{down}</chromatic></transpose>")
        )
        assert of_key(moved) == key_there
        assert judge(moved).pitches == [pitch + down for pitch in (72, 74, 76, 77)]


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
    ],
)  # fmt: skip
def test_chord_symbols_are_written_in_ascii_and_survive_cleaning(symbol, written):
    from preprocessing.cleaning import clean_tune

    abc = convert(measure(1, symbol + FOUR, COMMON))
    assert f'"{written}"c2' in abc
    assert f'"{written}"c2' in clean_tune(abc, "XTMLK").text


@pytest.mark.parametrize(
    "symbol",
    [
        harmony("none"),
        harmony("other"),
        harmony("Neapolitan"),
        harmony("major", more=degree(3, "subtract")),
        harmony("major", -2),
    ],
)
def test_a_chord_symbol_that_abc_cannot_say_is_left_out(symbol):
    assert body(measure(1, symbol + FOUR, COMMON)) == "c2 d2 e2 f2|]\n"


def test_chord_symbols_and_graces_at_the_end_of_a_bar_and_beside_voices_stay():
    grace = "<note><grace/><pitch><step>B</step><octave>4</octave></pitch></note>"
    assert body(measure(1, note("C", 5, 24) + harmony("dominant", root="G") + grace, COMMON) + measure(2, FOUR)) == (
        'c8"G7"{B}|c2 d2 e2 f2|]\n'
    )
    voices = harmony("major", root="C") + FOUR.replace("</note>", "<voice>1</voice></note>") + back(24)
    assert body(measure(1, voices + note("C", 4, 24, "<voice>2</voice>"), COMMON)) == '"C"c2 d2 e2 f2&C8|]\n'


# Bars


def halves(*lines: str, more: str = "") -> str:
    """A bar cut in two between full ones; `lines` end the first half and begin the second."""
    first, second = lines
    return (
        measure(1, FOUR, COMMON)
        + measure(2, note("C", 5, 12) + first)
        + measure(3, second + note("D", 5, 12), more=more)
        + measure(4, FOUR)
    )


@pytest.mark.parametrize("style", ["none", "dashed", "dotted", "short", "tick"])
def test_two_halves_around_a_line_that_ends_no_bar_are_one(style):
    joined = "c2 d2 e2 f2|c4 d4|c2 d2 e2 f2|]\n"
    assert body(halves(barline(style), "")) == joined
    assert body(halves("", barline(style, "left"))) == joined
    assert body(halves(barline(style), "", more=' implicit="yes"')) == joined


def test_a_bar_in_three_parts_and_one_that_ends_with_a_repeat_are_one():
    parts = measure(1, FOUR, COMMON) + "".join(
        measure(number, note(step, 5, length) + barline("none" if step != "E" else "regular"))
        for number, (step, length) in enumerate([("C", 6), ("D", 6), ("E", 12)], 2)
    )
    assert body(parts + measure(5, FOUR)) == "c2 d2 e2 f2|c2 d2 e4|c2 d2 e2 f2|]\n"
    ended = halves(barline("none"), "").replace(
        '</measure><measure number="4"',
        barline("light-heavy", "right", REPEAT.format("backward")) + '</measure><measure number="4"',
    )
    assert body(ended) == "c2 d2 e2 f2|c4 d4:|c2 d2 e2 f2|]\n"


def test_what_fills_more_than_a_bar_or_is_seen_to_end_one_stays_apart():
    assert body(measure(1, FOUR + barline("none"), COMMON) + measure(2, FOUR)) == "c2 d2 e2 f2|c2 d2 e2 f2|]\n"
    assert "c4|d4|" in body(halves(barline("regular"), ""))
    assert "c4||d4|" in body(halves(barline("light-light"), ""))


def test_the_voices_of_two_halves_are_joined_each_with_its_own():
    def half(upper: str, lower: str) -> str:
        low = back(12) + note(lower, 4, 12, "<voice>2</voice>") if lower else ""
        return note(upper, 5, 12, "<voice>1</voice>") + low

    cut = measure(1, half("C", "E") + barline("none"), COMMON)
    assert body(cut + measure(2, half("D", "F"))) == "c4 d4&E4 F4|]\n"
    assert body(cut + measure(2, half("D", ""))) == "c4 d4&E4 x4|]\n"


def test_repeats_endings_ties_chords_graces_overlays_and_a_bar_cut_in_two_are_written():
    tied = '<tie type="{0}"/><notations><tied type="{0}"/></notations>'
    start = '<barline location="left"><repeat direction="forward"/></barline>'
    end = '<barline location="right">{}<repeat direction="backward"/></barline>'
    ending = '<ending number="{}" type="{}"/>'
    chord = note("C", 4, 6) + note("E", 4, 6).replace("<note>", "<note><chord/>")
    grace = "<note><grace/><pitch><step>B</step><octave>4</octave></pitch></note>"
    overlay = "<backup><duration>12</duration></backup>" + note("C", 3, 12, "<voice>2</voice>")
    part = (
        measure(1, start + chord + note("A", 4, 6, tied.format("start")), key(0) + metre((2, 4)))
        + measure(2, note("A", 4, 6, tied.format("stop")) + grace + note("C", 5, 6))
        + f'<measure number="3">{note("F", 4, 6, alter=1)}</measure>'
        + f'<measure number="X1" implicit="yes">{note("F", 4, 6)}</measure>'
        + measure(4, f'<barline location="left">{ending.format(1, "start")}</barline>' + note("D", 4, 12))[:-10]
        + end.format(ending.format(1, "stop"))
        + "</measure>"
        + measure(5, note("E", 4, 12, "<voice>1</voice>") + overlay, metre((2, 4)))
    )
    assert body(part) == "|:[CE]2 A2-|A2 {B}c2|^F2 =F2|[1 D4:|\nE4&C,4|]\n"


def test_each_voice_states_its_metre_again_where_another_has_changed_it():
    part = measure(1, note("G", 4, 12), key(1) + metre((2, 4))) + measure(2, note("A", 4, 18), metre((3, 4)))
    assert body(part, part) == "V:1\nG4|[M:3/4]A6|]\nV:2\n[M:2/4]G4|[M:3/4]A6|]\n"
    assert judge(convert(part, part)).bars_add_up


def test_a_pickup_stays_short():
    for more in ('implicit="yes"', ""):
        part = measure(0, note("C", 5, 6), COMMON, f" {more}") + measure(1, FOUR) + measure(2, note("C", 5, 18))
        assert body(part) == "c2|c2 d2 e2 f2|c6|]\n"


def test_endings_of_several_numbers_are_written():
    def ending(number: str, content: str, right: str) -> str:
        def mark(kind: str) -> str:
            return f'<ending number="{number}" type="{kind}"/>'

        return barline("", "left", mark("start")) + content + barline("", "right", mark("stop") + right)

    part = measure(1, barline("", "left", REPEAT.format("forward")) + FOUR, COMMON)
    part += measure(2, ending("1, 2", FOUR, REPEAT.format("backward"))) + measure(3, ending("3", FOUR, ""))
    abc = convert(part)
    assert "|:c2 d2 e2 f2|[1,2 c2 d2 e2 f2:|[3 c2 d2 e2 f2|]" in abc
    assert judge(abc).bars_add_up


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
def test_what_abc_cannot_say_refuses_the_score_with_a_reason(inside, reason):
    assert refused(measure(1, FOUR + inside + FOUR, COMMON)) == reason


# Notes


def in_time_of(actual: int, normal: int, kind: str = "eighth") -> str:
    ratio = f"<actual-notes>{actual}</actual-notes><normal-notes>{normal}</normal-notes>"
    return f"<time-modification>{ratio}</time-modification><type>{kind}</type>"


QUINTUPLET = "".join(note(step, 5, 4, in_time_of(5, 4, "eighth")) for step in "CDEFG")


@pytest.mark.parametrize(
    ("notes", "divisions", "written"),
    [
        ("".join(note(step, 5, 2, in_time_of(3, 2)) for step in "CDE") + note("C", 5, 18), 6, "(3cde c6|]\n"),
        (note("C", 5, 4, in_time_of(3, 2, "quarter")) + note("D", 5, 2, in_time_of(3, 2)), 6, "(3:2:2c2d|]\n"),
        (QUINTUPLET + note("C", 5, 20), 10, "(5:4:5cdefg c4|]\n"),
    ],
)
def test_tuplets_are_written_as_such(notes, divisions, written):
    part = measure(1, notes, COMMON).replace("<divisions>6<", f"<divisions>{divisions}<")
    assert body(part) == written


def test_a_tuplet_that_abc_has_no_sign_for_keeps_its_lengths():
    notes = "".join(note(step, 5, 8, in_time_of(11, 8)) for step in "CDEFGABCDEF")
    abc = convert(measure(1, notes, COMMON).replace("<divisions>6<", "<divisions>22<"))
    assert judge(abc).bars_add_up
    assert len(judge(abc).pitches) == 11


def test_voices_without_a_number_belong_to_the_first_and_those_that_end_early_are_filled():
    low = note("E", 4, 6, "<voice>2</voice>")
    assert body(measure(1, FOUR + back(24) + low, COMMON)) == "c2 d2 e2 f2&E2x6|]\n"
    late = "<forward><duration>12</duration></forward>" + low
    assert body(measure(1, FOUR + back(24) + late, COMMON)) == "c2 d2 e2 f2&x4 E2x2|]\n"


def test_cue_notes_are_silent():
    cue = note("D", 5, 12).replace("<note>", "<note><cue/>")
    third = note("F", 5, 12).replace("<note>", "<note><cue/><chord/>")
    assert body(measure(1, note("C", 5, 12) + cue + third, COMMON)) == "c4 z4|]\n"


def test_bars_of_rest_are_written():
    silent = measure(2, rest(24).replace("<rest/>", '<rest measure="yes"/>')) + measure(3, "")
    assert body(measure(1, FOUR, COMMON) + silent + measure(4, FOUR)) == "c2 d2 e2 f2|z8|z8|c2 d2 e2 f2|]\n"


# Parts


def test_percussion_is_left_out_and_counted():
    drums = measure(1, "<note><unpitched/><duration>24</duration></note>", COMMON)
    by_clef = measure(1, FOUR, COMMON + "<clef><sign>percussion</sign></clef>")
    abc, percussion = score_to_abc("musicxml", musicxml(measure(1, FOUR, COMMON), drums, by_clef), "t")
    assert (judge(abc).pitches, percussion) == ([72, 74, 76, 77], 2)
    assert refused(drums) == refused(by_clef) == "no notes"


def test_clefs_change_no_pitch_and_a_tablature_is_a_part_only_if_no_other_says_the_same():
    clef = "<clef><sign>{}</sign><line>2</line>{}</clef>"
    for sign, more in (("G", "<clef-octave-change>-1</clef-octave-change>"), ("F", ""), ("TAB", "")):
        assert judge(convert(measure(1, FOUR, COMMON + clef.format(sign, more)))).pitches == [72, 74, 76, 77]
    tablature = measure(1, FOUR, COMMON + clef.format("TAB", ""))
    assert "V:" not in convert(measure(1, FOUR, COMMON), tablature)
    assert "V:2" in convert(measure(1, FOUR + "", COMMON).replace("C</step>", "G</step>"), tablature)


def test_two_staves_are_two_voices():
    low = back(24) + note("C", 3, 24, "<voice>5</voice><staff>2</staff>")
    high = note("C", 5, 24, "<voice>1</voice><staff>1</staff>")
    assert body(measure(1, high + low, COMMON + "<staves>2</staves>")) == "V:1\nc8|]\nV:2\nC,8|]\n"


def test_a_score_by_time_is_read_like_one_by_parts():
    parts = [measure(1, FOUR, COMMON) + measure(2, FOUR), measure(1, FOUR, COMMON) + measure(2, note("C", 4, 24))]
    head = musicxml(*parts).decode().partition("<part id")[0].replace("partwise", "timewise")
    bars = [[cut.partition(">")[2].removesuffix("</measure>") for cut in part.split("<measure")[1:]] for part in parts]
    timed = "".join(
        f'<measure number="{n}"><part id="P0">{a}</part><part id="P1">{b}</part></measure>'
        for n, (a, b) in enumerate(zip(*bars, strict=True))
    )
    abc, _ = score_to_abc("musicxml", f"{head}{timed}</score-timewise>".encode(), "t")
    assert abc == convert(*parts)


# Files


def archive(**members: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name.replace("__", "/"), data)
    return packed.getvalue()


def test_an_archive_gives_the_score_that_its_container_names(monkeypatch):
    score, other = musicxml(measure(1, FOUR, COMMON)), musicxml(measure(1, note("C", 4, 24), COMMON))
    container = b'<container><rootfiles><rootfile full-path="b.xml"/></rootfiles></container>'
    packed = archive(**{"a.xml": other, "b.xml": score, "META-INF__container.xml": container})
    assert score_to_abc("musicxml", packed, "t") == score_to_abc("musicxml", score, "t")
    assert score_to_abc("musicxml", archive(**{"b.xml": score}), "t") == score_to_abc("musicxml", score, "t")
    for broken in (archive(), archive(**{"a.txt": score}), archive(**{"META-INF__container.xml": container})):
        with pytest.raises(ConversionError, match="archive without a score"):
            score_to_abc("musicxml", broken, "t")
    monkeypatch.setattr(module, "MAX_XML", 1000)
    with pytest.raises(ConversionError, match="unpacks to more than"):
        score_to_abc("musicxml", archive(**{"a.xml": b" " * 1001}), "t")


def test_entities_are_neither_fetched_nor_multiplied(tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    score = musicxml(measure(1, FOUR, COMMON)).decode().replace("A  Title", "&x;")
    outer = f'<!DOCTYPE score-partwise [<!ENTITY x SYSTEM "{(tmp_path / "secret.txt").as_uri()}">]>'
    laughs = "".join(f'<!ENTITY x{i} "{f"&x{i - 1};" * 10}">' for i in range(1, 12))
    bomb = f'<!DOCTYPE score-partwise [<!ENTITY x0 "ha">{laughs}<!ENTITY x "&x11;">]>'
    for declared in (outer, bomb):
        with pytest.raises(Exception, match=r"entity|amplification"):
            score_to_abc("musicxml", (declared + score).encode(), "t")


def test_other_xml_is_no_score():
    with pytest.raises(ConversionError, match="no score"):
        score_to_abc("musicxml", b"<html>no score</html>", "t")


def test_kern_is_read():
    kern = b"!!!OTL: \xe9tude\n**kern\n*M3/4\n*k[f#]\n=1\n4g\n4a\n4f#\n=2\n2.g\n==\n*-\n"
    assert judge(score_to_abc("kern", kern, "t")[0]).pitches == [67, 69, 66, 67]
