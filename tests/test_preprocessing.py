"""What becomes of raw tunes: rows, drops, splits without leaks, further keys, statistics that add up."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest
from conftest import made_tunes
from made_sources import read

from preprocessing.blocks import Block
from preprocessing.building import collect_tunes
from preprocessing.corpus import SPLITS
from preprocessing.notation import judge
from preprocessing.run import PreprocessingArguments, build
from preprocessing.sources import BUNDLED, fingerprint
from preprocessing.text_files import decode
from preprocessing.tokens import BOUNDARY, PAD, UNKNOWN
from preprocessing.tunes import Policy, Tally, TuneRow, read_blocks, transpose_tunes

TUNE = "X:1\nT:One\nR:Reel\nM:4/4\nL:1/8\nK:C\nCDEFGABc|cBAGFEDC|"


def blocks(*texts: str) -> list[Block]:
    return [Block("made", f"{i}.abc", text.encode()) for i, text in enumerate(texts)]


def collect(*texts: str) -> tuple[list[TuneRow], Tally]:
    with ThreadPoolExecutor(1) as pool:
        candidates, tally = collect_tunes(blocks(*texts), Policy("XMLK"), pool)
    return [candidate.tune for candidate in candidates], tally


# Rows and drops


def test_drops_are_counted_by_reason():
    texts = [
        TUNE,
        TUNE.replace("T:One", "T:The same under another name").replace("X:1", "X:9"),
        "X:1\nT:No key\nCDEFGABc|",
        "X:1\nK:C\nz8|z8|",
        "X:1\nK:C\nCDEFGAB|",
        "X:1\nK:C\nCDEFGABc| § § § § |",
        TUNE.replace("cBAG", "cAAG"),
    ]
    tunes, tally = collect(*texts)
    assert [tune.title for tune in tunes] == ["One", "One"]
    assert tally.drops == {
        "exact duplicate": 1,
        "no K: field that names a key": 1,
        "no notes": 1,
        "fewer than 8 notes": 1,
        "not readable as ABC": 1,
    }
    together, tally_together = collect("\n\n".join(texts))
    assert [tune.text for tune in together] == [tune.text for tune in tunes]
    assert tally_together.drops == tally.drops


def test_unreadable_notation_drops_its_tune_and_old_notation_is_transposed_to_all_keys():
    old = (
        "+CEG+4 +^F=A+4|!D.C. al fine!c4 (11:8:11cdefgabc'bag|\nw:la la\\\n a bad cab\nplay it again\n[|]1C8:|[|]2E8|]"
    )
    texts = [
        TUNE.replace("CDEFGABc", old).replace("K:C", "K:A natural minor"),
        TUNE.replace("cBAG", "c_/BAG"),
        TUNE.replace("K:C", "K:C _2B"),
        TUNE.replace("K:C", "K:D Hijaz"),
        TUNE.replace("cBAG", "then back to cBAG"),
    ]
    [tune], tally = collect(*texts)
    reasons = {"microtones or other accidentals that cannot be read": 2, "no K: field that names a key": 1}
    assert tally.drops == {**reasons, "words among the notes": 1}
    verdict = judge(tune.text)
    assert (verdict.key, verdict.errors, len(verdict.pitches)) == ("Am", [], 27)
    made, failures = transpose_tunes([tune], 11)
    assert (len(made), failures.total()) == (11, 0)
    assert all("!D.C. al fine!" in one.text for one in made)


def test_characters_outside_tunes_are_counted():
    text = "\ufeffA collection.\r\n\r\n" + TUNE.replace("\n", "\r\n") + "\r\n\r\nThat was it.\r\n"
    _, tally = collect(text)
    assert tally.characters == len(text)
    assert tally.ledger.dropped["byte order marks"] == 1
    assert tally.ledger.dropped["line ends of two characters"] == text.count("\r")
    assert tally.ledger.dropped["outside any tune"] >= len("A collection.That was it.")
    assert tally.drops == {}


@pytest.mark.parametrize("ending", ["\r\n", "\r", "\n"])
def test_line_ends_of_every_system_give_the_same_tune(ending):
    [tune], _ = collect(TUNE.replace("\n", ending))
    assert tune.text == "X:1\nM:4/4\nL:1/8\nK:C\nCDEFGABc|cBAGFEDC|"


def test_row_describes_its_tune():
    [tune], _ = collect("X:1\nT:One\nR:Reel\nM:4/4\nL:1/8\nK:G\nCDEFGABc|z4 c4|dBAG|cBAGFED2|")
    about = {"title": "One", "key": "G", "metre": "4/4", "rhythm": "reel", "source": "made", "file": "0.abc"}
    counts = {"notes": 20, "bars": 4, "bad_bars": 1, "lowest": 60, "highest": 74}
    assert asdict(tune) == {"text": tune.text, **about, **counts, "family": "", "shift": 0}


def test_voices_are_interleaved_on_request():
    parts = "X:1\nT:Two\nM:4/4\nL:1/8\nK:C\nV:1\nCDEFGABc|cBAGFEDC|\nV:2\nC8|G,8|"
    [candidate], _ = read_blocks(blocks(parts), Policy("XMLK", interleave_voices=True))
    body = candidate.tune.text.split("K:C\n")[1]
    assert body == "[V:1]CDEFGABc|[V:2]C8|\n[V:1]cBAGFEDC|[V:2]G,8|"
    assert candidate.ledger.balanced(candidate.raw_characters, len(candidate.tune.text))
    [plain], _ = read_blocks(blocks(parts), Policy("XMLK"))
    assert plain.tune.text.split("K:C\n")[1] == parts.split("K:C\n")[1]


@pytest.mark.usefixtures("no_figures")
def test_statistics_name_every_file_and_tune_that_was_dropped(tmp_path):
    source = tmp_path / "tunes"
    source.mkdir()
    music = "GABc dedB|cBAG FADF|GABc dedc|dBAF G4|]"
    (source / "made.abc").write_text(made_tunes(150))
    (source / "bad.abc").write_text(
        f"X:3\nT:No key\n{music}\n\nX:4\nT:Caf\\'e\nK:G\nz8|\n\nX:5\nT:Twice\nM:4/4\nL:1/8\nK:G\n{music}\n\n"
        f"X:6\nT:Twice again\nM:4/4\nL:1/8\nK:G\n{music}\n"
    )
    (source / "about.txt").write_text("There are no tunes here.\n")
    (source / "photo.abc").write_bytes(b"\x89PNG\0\0")
    (source / "scan.pdf").write_bytes(b"%PDF")
    (source / "broken.musicxml").write_text("<score")
    (source / "t.jsonl").write_text('{"abc": ""}\n7\n')
    stats = build(PreprocessingArguments([str(source)], str(tmp_path / "corpus"), num_proc=1))
    similar = stats["dropped"].pop("similar to a held-out tune", [])
    named = {(one["file"], one["tune"], reason) for reason, names in stats["dropped"].items() for one in names}
    assert named == {
        ("bad.abc", "X:3 No key", "no K: field that names a key"),
        ("bad.abc", "X:4 Café", "no notes"),
        ("bad.abc", "X:6 Twice again", "exact duplicate"),
        ("about.txt", "", "text without a tune"),
        ("photo.abc", "", "not text"),
        ("scan.pdf", "", "not a known kind (.pdf)"),
        ("broken.musicxml", "", "musicxml: not readable"),
        ("t.jsonl, row 0", "", "row without text"),
        ("t.jsonl, row 1", "", "row that is no object"),
    }
    assert len(similar) == stats["drops"].get("similar to a held-out tune", 0)
    assert (stats["reading"]["drops"]["text without a tune"], stats["drops"]["no notes"]) == (1, 1)
    counts = {"tried": 1, "converted": 0, "not readable": 1, "success_rate": 0.0}
    assert stats["reading"]["converted"] == {"musicxml": counts}


# Splits


def test_bundled_splits_share_no_family_and_hold_a_twentieth_of_the_characters(bundled_corpus):
    families = {split: set(bundled_corpus.tunes(split)["family"]) for split in SPLITS}
    assert sum(map(len, families.values())) == len(set.union(*families.values())) == bundled_corpus.stats["families"]
    characters = bundled_corpus.stats["characters"]
    for split in ("validation", "test"):
        assert 0.05 <= characters[split] / sum(characters.values()) < 0.1


def a_fifth_higher(text: str) -> str:
    """The tunes of a made file a fifth higher: each note up by four letters, in the key a fifth up."""
    scale = "CDEFGABcdefgab"
    higher = {note: scale[position + 4] for position, note in enumerate(scale[:-4])} | {"f": "c'", "g": "d'"}
    keys = {"C": "G", "G": "D", "D": "A", "Am": "Em"}
    lines = []
    for line in text.split("\n"):
        if line.startswith("K:"):
            line = f"K:{keys[line[2:]]}"
        elif ":" not in line:
            line = re.sub("[A-Ga-g]", lambda match: higher[match[0]], line)
        lines.append(line)
    return "\n".join(lines)


def test_transposed_copy_is_in_the_split_of_its_original(small_source, tmp_path, build_from):
    original = (small_source / "made.abc").read_text()
    copies = [Block("a", "a", original.encode()), Block("b", "b", a_fifth_higher(original).encode())]
    corpus = build_from(tmp_path / "corpus", copies)
    where = {"a": {}, "b": {}}
    for split in SPLITS:
        for row in corpus.tunes(split):
            where[row["source"]][row["title"]] = split
    assert len(where["a"]) == 150
    assert where["a"] == where["b"]
    assert set(where["a"].values()) == set(SPLITS)


def test_adding_tunes_moves_none_to_another_split(small_source, tmp_path, build_from):
    text = (small_source / "made.abc").read_text()
    few = build_from(tmp_path / "few", blocks(text.split("X:101\n")[0]))
    many = build_from(tmp_path / "many", blocks("X:1\nT:New\nK:D\nDEFG|abcd|efga|", text))
    before, after = ({t: split for split in SPLITS for t in of.tunes(split)["text"]} for of in (few, many))
    assert (len(before), len(after)) == (100, 151)
    assert before.items() <= after.items()


def test_training_tune_like_a_held_out_one_is_dropped_and_counted(small_source, tmp_path, build_from):
    raw, _ = read(small_source)
    corpus = build_from(tmp_path / "before", raw)
    tests = corpus.tunes("test")["text"]
    variants = [text.replace("X:1\n", f"X:{i}\n").replace("|\n", "|C8|\n") for i, text in enumerate(tests)]
    after = build_from(tmp_path / "after", [*raw, *blocks("\n\n".join(variants))])
    assert set(tests) <= set(after.tunes("test")["text"])
    dropped = after.stats["drops"]["similar to a held-out tune"]
    added = sum(after.stats["tunes"].values()) - sum(corpus.stats["tunes"].values())
    assert dropped >= 1
    assert added + dropped == len(variants)
    assert len(after.tunes("train")) == len(corpus.tunes("train"))


# Further keys


def test_further_keys_are_in_the_training_split_alone(small_source, tmp_path, build_from):
    text = (small_source / "made.abc").read_text().replace("K:C", "K:none")
    plain = build_from(tmp_path / "plain", blocks(text))
    corpus = build_from(tmp_path / "keys", blocks(text), keys=3)
    for split in ("validation", "test"):
        assert list(corpus.tunes(split)) == list(plain.tunes(split))
    rows = list(corpus.tunes("train"))
    found = {row["title"]: row for row in rows if row["shift"] == 0}
    assert {row["text"] for row in found.values()} == set(plain.tunes("train")["text"])
    moved = [row for row in rows if row["shift"] != 0]
    keyless = [row for row in found.values() if row["key"] == "none"]
    assert keyless
    assert list(corpus.stats["transposed"]["failures"].values()) == [3 * len(keyless)]
    assert len(moved) == 3 * (len(found) - len(keyless)) == corpus.stats["transposed"]["tunes"]
    for row in moved:
        original = found[row["title"]]
        assert judge(row["text"]).pitches == [pitch + row["shift"] for pitch in judge(original["text"]).pitches]
        assert (row["family"], row["source"], row["bars"]) == (original["family"], original["source"], original["bars"])
        assert f"K:{row['key']}\n" in row["text"]
        assert row["lowest"] == original["lowest"] + row["shift"]
    assert corpus.part()[1] == len(plain.tokens("train")) - 1
    assert len(corpus.tokens("train")) - 1 == corpus.part()[1] + sum(len(row["text"]) + 1 for row in moved)


# The bundled corpus


def test_every_bundled_tune_and_character_is_kept_or_counted_as_dropped(bundled_corpus):
    texts = [decode(block) for block in read(BUNDLED)[0]]
    stats, account = bundled_corpus.stats, bundled_corpus.stats["characters_accounted"]
    found = sum(len(re.findall("^X:", text, re.MULTILINE)) for text in texts)
    assert found == sum(stats["tunes"].values()) + sum(stats["drops"].values())
    written = sum(len(text) for split in SPLITS for text in bundled_corpus.tunes(split)["text"])
    assert account["read"] == sum(map(len, texts)) == account["kept"] + sum(account["dropped"].values())
    assert account["written"] == written == account["kept"] + sum(account["added"].values())


def test_statistics_add_up(bundled_corpus):
    stats = bundled_corpus.stats
    tunes, characters = sum(stats["tunes"].values()), sum(stats["characters"].values())
    for split in SPLITS:
        assert stats["tunes"][split] == len(bundled_corpus.tunes(split))
        assert len(bundled_corpus.tokens(split)) == stats["characters"][split] + stats["tunes"][split] + 1
    for column in ("sources", "keys", "metres"):
        assert sum(stats[column].values()) == tunes
    assert sum(stats["character_counts"].values()) == characters
    assert stats["length"]["mean"] == pytest.approx(characters / tunes)
    assert set(bundled_corpus.vocabulary) == {PAD, UNKNOWN, BOUNDARY}.union(*bundled_corpus.tunes("train")["text"])
    assert stats["vocabulary_size"] == len(bundled_corpus.vocabulary)
    assert bundled_corpus.manifest()["inputs"] == {BUNDLED: fingerprint(BUNDLED)}


def test_card_is_made_of_the_statistics_alone(bundled_corpus):
    from preprocessing.dataset_card import dataset_card

    stats = json.loads(json.dumps(bundled_corpus.stats))
    stats["tunes"]["test"], stats["families"], stats["transposed"]["tunes"] = 7_654_321, 8_765_432, 6_543_210
    stats["sources"] = {"thesession": 5_432_109}
    stats["similarity"]["random_split_leaked_test_tunes"] = 4_321_098
    stats["reading"]["converted"] = {"midi": {"tried": 3_210_987, "converted": 2_109_876}}
    card = dataset_card(stats, bundled_corpus.manifest(), "someone/tunes")
    for number in ("7,654,321", "8,765,432", "6,543,210", "5,432,109", "4,321,098", "3,210,987", "2,109,876"):
        assert number in card
    assert 'load_dataset("someone/tunes")' in card
