"""The corpus: a tokenizer that loses nothing, splits that do not leak, the same bytes twice, a door that says why."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import made_once
from forks import FORKS, exit_code, has_ended

from cli import UserError
from files import atomic_folder
from preprocessing import run
from preprocessing.blocks import Block, Reading
from preprocessing.building import collect_tunes
from preprocessing.corpus import SPLITS, Corpus
from preprocessing.notation import judge
from preprocessing.sources import BUNDLED, fingerprint, read_source
from preprocessing.text_files import decode
from preprocessing.tokens import BOUNDARY, PAD, UNKNOWN, build_tokenizer, build_vocabulary, encode_stream
from preprocessing.tunes import Policy, Tally, Tune, read_blocks, transpose_tunes

ROOT = Path(__file__).parent.parent


def blocks(*texts: str) -> list[Block]:
    return [Block("made", f"{i}.abc", text.encode()) for i, text in enumerate(texts)]


def collect(*texts: str, keep_fields: str = "XMLK") -> tuple[list[Tune], Tally]:
    return collect_blocks(blocks(*texts), keep_fields)


def collect_blocks(of: list[Block], keep_fields: str) -> tuple[list[Tune], Tally]:
    with ThreadPoolExecutor(1) as pool:
        candidates, tally = collect_tunes(of, Policy(keep_fields), pool)
    return [candidate.tune for candidate in candidates], tally


def read(folder: Path) -> list[Block]:
    return list(read_source(str(folder), fingerprint(str(folder)), Reading(), None, 1))


def state(folder: Path) -> dict[str, tuple[str, int]]:
    """Hash and time of writing of every file of a folder."""
    return {
        path.relative_to(folder).as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def hashes(folder: Path) -> dict[str, str]:
    return {name: digest for name, (digest, _) in state(folder).items()}


def go_through_the_door(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONHASHSEED": "random"}
    command = [sys.executable, str(ROOT / "preprocessing" / "run.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def go_in(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    """The door without a process of its own."""
    one = [] if "--num_proc" in arguments else ["--num_proc", "1"]
    monkeypatch.setattr(sys, "argv", ["run.py", *map(str, arguments), *one])
    run.main()


# The tokenizer


@pytest.mark.parametrize("split", SPLITS)
def test_the_tokenizer_loses_nothing_and_equals_the_stream_on_the_bundled_corpus(bundled_corpus, split):
    tokenizer = bundled_corpus.tokenizer()
    texts = list(bundled_corpus.tunes(split)["text"])
    ids = tokenizer(texts)["input_ids"]
    assert tokenizer.batch_decode(ids, skip_special_tokens=True) == texts
    assert all(len(row) == len(text) + 1 for row, text in zip(ids, texts, strict=True))
    flat = np.concatenate([*ids, [bundled_corpus.boundary]])
    assert np.array_equal(bundled_corpus.tokens(split), flat)


@pytest.fixture
def tokenizer(tmp_path):
    """A tokenizer of the characters of `X:1 <|endoftext|>`, as a reader of the folder finds it."""
    vocabulary = build_vocabulary(["X:1 <|endoftext|>"])
    build_tokenizer(vocabulary, 64).save_pretrained(tmp_path)
    return Corpus(tmp_path, vocabulary, {}).tokenizer()


@pytest.mark.parametrize("text", [f"X:1{BOUNDARY}X:1", BOUNDARY, f"{BOUNDARY}{BOUNDARY}", f"{PAD[0]}|endoftext"])
def test_the_boundary_written_in_a_text_stays_text(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("text", ["", " ", "  X", "X  ", "\n", "X\n\n:1\n", "X , X . 1 !"])
def test_blanks_and_line_ends_are_tokens_like_any_other(text):
    tokenizer = build_tokenizer(build_vocabulary(["X:1 \n,.!"]), 64)
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    assert len(tokenizer(text)["input_ids"]) == len(text) + 1


def test_a_character_outside_the_vocabulary_is_unknown_to_tokenizer_and_stream(tokenizer):
    text = "XéÜ1🎵x"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == [BOUNDARY, "X", UNKNOWN, UNKNOWN, "1", UNKNOWN, "x"]
    stream = encode_stream([text], tokenizer.get_vocab())
    assert stream.tolist() == [*ids, tokenizer.eos_token_id]


def test_a_stream_has_the_boundary_between_tunes_and_at_both_ends():
    vocabulary = build_vocabulary(["ab"])
    boundary, a, b = (vocabulary[token] for token in (BOUNDARY, "a", "b"))
    assert encode_stream(["ab", "", "b"], vocabulary).tolist() == [boundary, a, b, boundary, boundary, b, boundary]


def test_a_stream_of_many_characters_takes_two_bytes_a_token():
    text = "".join(chr(i) for i in range(0x4E00, 0x4E00 + 400))
    vocabulary = build_vocabulary([text])
    stream = encode_stream([text], vocabulary)
    assert stream.dtype.itemsize == 2
    assert stream[1:-1].tolist() == [vocabulary[character] for character in text]


def test_the_vocabulary_depends_on_the_characters_alone():
    assert build_vocabulary(["cab", "b"]) == build_vocabulary(["b", "abc"])
    assert list(build_vocabulary(["cab"])) == [PAD, UNKNOWN, BOUNDARY, "a", "b", "c"]


# Splits


def test_no_family_of_the_bundled_corpus_stands_in_two_splits(bundled_corpus):
    families = {split: set(bundled_corpus.tunes(split)["family"]) for split in SPLITS}
    assert sum(map(len, families.values())) == len(set.union(*families.values())) == bundled_corpus.stats["families"]


def test_validation_and_test_hold_at_least_a_twentieth_of_the_bundled_characters_each(bundled_corpus):
    characters = {split: sum(map(len, bundled_corpus.tunes(split)["text"])) for split in SPLITS}
    for split in ("validation", "test"):
        assert characters[split] >= 0.05 * sum(characters.values())
        assert characters[split] < 0.1 * sum(characters.values())


def a_fifth_higher(text: str) -> str:
    """The tunes of a made file a fifth higher: each note up by four letters, under the key a fifth up."""
    scale = "CDEFGABcdefgab"
    higher = {note: scale[place + 4] for place, note in enumerate(scale[:-4])} | {"f": "c'", "g": "d'"}
    keys = {"C": "G", "G": "D", "D": "A", "Am": "Em"}
    lines = []
    for line in text.split("\n"):
        if line.startswith("K:"):
            line = f"K:{keys[line[2:]]}"
        elif ":" not in line:
            line = re.sub("[A-Ga-g]", lambda match: higher[match[0]], line)
        lines.append(line)
    return "\n".join(lines)


def test_a_transposed_copy_stands_in_the_split_of_its_original(small_source, tmp_path, build_from):
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


def test_a_training_tune_like_a_held_out_one_is_dropped_and_counted(small_source, tmp_path, build_from):
    corpus = build_from(tmp_path / "before", read(small_source))
    tests = corpus.tunes("test")["text"]
    variants = [text.replace("X:1\n", f"X:{i}\n").replace("|\n", "|C8|\n") for i, text in enumerate(tests)]
    after = build_from(tmp_path / "after", [*read(small_source), *blocks("\n\n".join(variants))])
    assert set(tests) <= set(after.tunes("test")["text"])
    dropped = after.stats["drops"]["similar to a held-out tune"]
    added = sum(after.stats["tunes"].values()) - sum(corpus.stats["tunes"].values())
    assert dropped >= 1
    assert added + dropped == len(variants)
    assert len(after.tunes("train")) == len(corpus.tunes("train"))


# Further keys, and voices


def test_further_keys_stand_in_the_training_split_alone_with_their_tunes_family(small_source, tmp_path, build_from):
    plain = build_from(tmp_path / "plain", read(small_source))
    corpus = build_from(tmp_path / "keys", read(small_source), keys=3)
    for split in ("validation", "test"):
        assert list(corpus.tunes(split)) == list(plain.tunes(split))
    rows = list(corpus.tunes("train"))
    found = {row["title"]: row for row in rows if row["shift"] == 0}
    assert {row["text"] for row in found.values()} == set(plain.tunes("train")["text"])
    moved = [row for row in rows if row["shift"] != 0]
    assert len(moved) == 3 * len(found) == corpus.stats["transposed"]["tunes"]
    for row in moved:
        original = found[row["title"]]
        assert judge(row["text"]).pitches == [pitch + row["shift"] for pitch in judge(original["text"]).pitches]
        assert (row["family"], row["source"], row["bars"]) == (original["family"], original["source"], original["bars"])
        assert f"K:{row['key']}\n" in row["text"]
        assert row["lowest"] == original["lowest"] + row["shift"]
    assert corpus.part()[1] == len(plain.tokens("train")) - 1
    assert len(corpus.tokens("train")) - 1 == corpus.part()[1] + sum(len(row["text"]) + 1 for row in moved)


def test_what_cannot_be_transposed_is_counted_and_stays_as_it_is(small_source, tmp_path, build_from):
    text = (small_source / "made.abc").read_text().replace("K:C", "K:none")
    corpus = build_from(tmp_path / "keys", blocks(text), keys=2)
    rows = list(corpus.tunes("train"))
    keyless = [row for row in rows if row["key"] == "none"]
    assert keyless
    assert {row["shift"] for row in keyless} == {0}
    [failed] = corpus.stats["transposed"]["failures"].values()
    assert failed == 2 * len(keyless)


PARTS = "X:1\nT:Two\nM:4/4\nL:1/8\nK:C\nV:1\nCDEFGABc|cBAGFEDC|\nV:2\nC8|G,8|"


def test_voices_are_written_bar_by_bar_where_that_is_asked_for():
    [candidate], tally = read_blocks(blocks(PARTS), Policy("XMLK", interleave_voices=True))
    body = candidate.tune.text.split("K:C\n")[1]
    assert body == "[V:1]CDEFGABc|[V:2]C8|\n[V:1]cBAGFEDC|[V:2]G,8|"
    assert candidate.ledger.balanced(candidate.raw_characters, len(candidate.tune.text))
    [plain], _ = read_blocks(blocks(PARTS), Policy("XMLK"))
    assert plain.tune.text.split("K:C\n")[1] == PARTS.split("K:C\n")[1]
    assert tally.tunes == 1


# What is kept and what is dropped

TUNE = "X:1\nT:One\nR:Reel\nM:4/4\nL:1/8\nK:C\nCDEFGABc|cBAGFEDC|"


def test_drops_are_counted_by_reason_and_nothing_is_lost():
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


def test_a_tune_that_cannot_be_read_to_its_end_is_dropped_by_reason_and_the_rest_is_right_in_every_key():
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


def test_every_bundled_tune_is_kept_or_counted_as_dropped(bundled_corpus):
    texts = map(decode, read_source(BUNDLED, fingerprint(BUNDLED), Reading(), None, 1))
    found = sum(len(re.findall("^X:", text, re.MULTILINE)) for text in texts)
    stats = bundled_corpus.stats
    assert found == sum(stats["tunes"].values()) + sum(stats["drops"].values())


def test_every_bundled_character_is_kept_or_counted_as_dropped(bundled_corpus):
    account = bundled_corpus.stats["characters_accounted"]
    read = sum(len(decode(block)) for block in read_source(BUNDLED, fingerprint(BUNDLED), Reading(), None, 1))
    written = sum(len(text) for split in SPLITS for text in bundled_corpus.tunes(split)["text"])
    assert account["read"] == read == account["kept"] + sum(account["dropped"].values())
    assert account["written"] == written == account["kept"] + sum(account["added"].values())


def test_characters_outside_tunes_are_counted_too():
    text = "\ufeffA collection.\r\n\r\n" + TUNE.replace("\n", "\r\n") + "\r\n\r\nThat was it.\r\n"
    _, tally = read_blocks([Block("made", "a.abc", text.encode())], Policy("XMLK"))
    assert tally.characters == len(text)
    assert tally.ledger.dropped["byte order marks"] == 1
    assert tally.ledger.dropped["line ends of two characters"] == text.count("\r")
    assert tally.ledger.dropped["outside any tune"] >= len("A collection.That was it.")


def test_a_text_without_tunes_drops_no_tune():
    tunes, tally = collect(TUNE, "About this collection: it has no tunes here.\n")
    assert len(tunes) == 1
    assert tally.drops == {}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_titles_are_read_in_the_encodings_people_use(encoding):
    [tune], _ = collect_blocks([Block("made", "a.abc", TUNE.replace("One", "Öl für Zoë").encode(encoding))], "XTK")
    assert tune.title == "Öl für Zoë"


@pytest.mark.parametrize("ending", ["\r\n", "\r", "\n"])
def test_line_ends_of_every_system_give_the_same_tune(ending):
    [tune], _ = collect_blocks([Block("made", "a.abc", TUNE.replace("\n", ending).encode())], "XMLK")
    assert tune.text == "X:1\nM:4/4\nL:1/8\nK:C\nCDEFGABc|cBAGFEDC|"


def test_a_row_describes_its_tune():
    [tune], _ = collect("X:1\nT:One\nR:Reel\nM:4/4\nL:1/8\nK:G\nCDEFGABc|z4 c4|dBAG|cBAGFED2|")
    assert asdict(tune) == {
        "text": tune.text,
        "title": "One",
        "key": "G",
        "metre": "4/4",
        "rhythm": "reel",
        "notes": 20,
        "bars": 4,
        "bad_bars": 1,
        "lowest": 60,
        "highest": 74,
        "source": "made",
        "file": "0.abc",
        "family": "",
        "shift": 0,
    }


def test_a_row_says_where_its_tune_comes_from(tmp_path):
    (tmp_path / "reels").mkdir()
    (tmp_path / "reels" / "one.ABC").write_text(TUNE)
    (tmp_path / "two.txt").write_text(TUNE.replace("cBAG", "cAAG"))
    (tmp_path / "three.pdf").write_text(TUNE)
    tunes, _ = collect_blocks(read(tmp_path), "XMLK")
    rows = {(tune.source, tune.file, tune.title, tune.key, tune.metre, tune.rhythm) for tune in tunes}
    about = ("One", "C", "4/4", "reel")
    assert rows == {("reels", "reels/one.ABC", *about), (tmp_path.name, "two.txt", *about)}


@pytest.mark.usefixtures("no_figures")
def test_scores_that_cannot_be_converted_are_counted_with_their_rate(small_source, tmp_path, monkeypatch, capsys):
    tunes = shutil.copytree(small_source, tmp_path / "tunes")
    (tunes / "broken.musicxml").write_text("<score")
    go_in(monkeypatch, "--source", tunes, "--output_dir", tmp_path / "corpus")
    stats = Corpus.open(tmp_path / "corpus").stats
    counts = {"tried": 1, "converted": 0, "not readable": 1, "success_rate": 0.0}
    assert stats["reading"]["converted"] == {"musicxml": counts}
    assert "musicxml: 0 of 1 files converted" in capsys.readouterr().out


# The folder


def test_the_manifest_names_every_file_with_its_hash(bundled_corpus):
    found = hashes(bundled_corpus.folder)
    manifest = json.loads((bundled_corpus.folder / "manifest.json").read_text())
    del found["manifest.json"]
    assert manifest["outputs"] == found
    assert manifest["inputs"] == {BUNDLED: fingerprint(BUNDLED)}


def test_the_statistics_add_up(bundled_corpus):
    stats = bundled_corpus.stats
    tunes = sum(stats["tunes"].values())
    characters = sum(stats["characters"].values())
    for split in SPLITS:
        assert stats["tunes"][split] == len(bundled_corpus.tunes(split))
        assert len(bundled_corpus.tokens(split)) == stats["characters"][split] + stats["tunes"][split] + 1
    for column in ("sources", "keys", "metres"):
        assert sum(stats[column].values()) == tunes
    assert sum(stats["character_counts"].values()) == characters
    assert stats["length"]["mean"] == pytest.approx(characters / tunes)
    trained = set().union(*bundled_corpus.tunes("train")["text"])
    assert set(bundled_corpus.vocabulary) == {PAD, UNKNOWN, BOUNDARY, *trained}
    assert bundled_corpus.part()[1] == len(bundled_corpus.tokens("train")) - 1
    assert stats["vocabulary_size"] == len(bundled_corpus.vocabulary)


def test_the_folder_loads_with_datasets_and_no_code_of_ours(built, tmp_path):
    script = """
import json, sys, datasets
rows = datasets.load_dataset(sys.argv[1])
ours = [name for name in sys.modules if name.split(".")[0] in ("preprocessing", "cli", "files")]
print(json.dumps({"ours": ours, "splits": {k: [len(v), v.column_names, v[0]["text"]] for k, v in rows.items()}}))
"""
    offline = {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-c", script, str(built.folder)]
    ended = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **offline}, capture_output=True, text=True, check=True
    )
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["ours"] == []
    assert found["splits"] == {
        split: [built.stats["tunes"][split], list(Tune.__annotations__), built.tunes(split)[0]["text"]]
        for split in SPLITS
    }


def test_runs_on_the_same_corpus_agree_in_its_digest_and_on_another_do_not(built, small_source, tmp_path, build_from):
    [block] = read(small_source)
    fewer = Block("made", "made.abc", block.content.split(b"X:150\n")[0])
    same = build_from(tmp_path / "again", [block], "XRMLK")
    other = build_from(tmp_path / "fewer", [fewer], "XRMLK")
    assert same.digest() == built.digest()
    assert other.digest() != built.digest()


def test_a_folder_without_a_corpus_is_refused_with_the_command_that_builds_one(tmp_path):
    with pytest.raises(UserError, match=re.escape(f"preprocessing/run.py --output_dir {tmp_path}")):
        Corpus.open(tmp_path)


@pytest.mark.parametrize("keep", [0, 20, -50])
def test_a_damaged_stream_is_refused_by_name(built, tmp_path, keep):
    folder = shutil.copytree(built.folder, tmp_path / "corpus")
    path = folder / "tokens" / "test.npy"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=re.escape(str(path))) as caught:
        Corpus.open(folder).tokens("test")
    assert "\n" not in str(caught.value)


def test_a_stream_of_another_build_is_refused(built, small_source, tmp_path, build_from):
    other = build_from(tmp_path / "other", blocks((small_source / "made.abc").read_text().split("X:140")[0]))
    folder = shutil.copytree(built.folder, tmp_path / "corpus")
    shutil.copyfile(other.folder / "tokens" / "train.npy", folder / "tokens" / "train.npy")
    with pytest.raises(UserError, match="of another build"):
        Corpus.open(folder).tokens("train")


# A vocabulary is closed when the corpus is built


def test_characters_that_no_training_tune_has_are_unknown_and_counted(small_source, tmp_path, build_from):
    before = build_from(tmp_path / "before", read(small_source))
    rare = before.tunes("test")["text"][0].replace("|]", "~|]")
    text = (small_source / "made.abc").read_text()
    corpus = build_from(
        tmp_path / "after", blocks(text.replace(rare.split("\n")[-1].replace("~", ""), rare.split("\n")[-1]))
    )
    assert "~" not in corpus.vocabulary
    assert int((corpus.tokens("test") == corpus.vocabulary[UNKNOWN]).sum()) == 1
    assert corpus.stats["unknown_share"]["test"] == pytest.approx(1 / len(corpus.tokens("test")))
    assert corpus.stats["unknown_share"]["train"] == 0


@pytest.mark.usefixtures("no_figures")
def test_a_corpus_in_the_vocabulary_of_another_keeps_its_ids_and_warns(built, tmp_path, monkeypatch, capsys):
    tunes = tmp_path / "tunes"
    tunes.mkdir()
    text = "\n".join(f"{row['text']}" for split in SPLITS for row in built.tunes(split))
    (tunes / "strange.abc").write_text(text.replace("X:1", "\nX:1").replace("c|", "~c|"))
    go_in(monkeypatch, "--source", tunes, "--output_dir", tmp_path / "new", "--vocabulary", built.folder)
    corpus = Corpus.open(tmp_path / "new")
    assert corpus.vocabulary == built.vocabulary
    assert (corpus.tokens("train") == corpus.vocabulary[UNKNOWN]).sum() > 0
    assert "warning" in capsys.readouterr().out
    go_in(monkeypatch, "--source", tunes, "--output_dir", tmp_path / "own")
    assert "warning" not in capsys.readouterr().out


# The door


@pytest.fixture(scope="module")
def built(small_source, tmp_path_factory) -> Corpus:
    """The corpus of `small_source`, built by the door as a process with two workers."""

    def make(root):
        flags = ("--source", small_source, "--output_dir", root / "corpus", "--num_proc", "2")
        ended = go_through_the_door(*flags, cwd=root)
        assert ended.returncode == 0, ended.stderr
        stats = Corpus.open(root / "corpus").stats
        assert all(f"{split} {stats['tunes'][split]} tunes" in ended.stdout for split in SPLITS)

    return Corpus.open(made_once(tmp_path_factory, "door", make) / "corpus")


def test_the_same_input_gives_the_same_bytes_with_any_number_of_workers(built, small_source, tmp_path, monkeypatch):
    go_in(monkeypatch, "--source", small_source, "--output_dir", tmp_path / "again")
    assert hashes(tmp_path / "again") == hashes(built.folder)


def test_a_second_run_says_finished_and_writes_nothing(built, small_source, monkeypatch, capsys):
    before = state(built.folder.parent)
    go_in(monkeypatch, "--source", small_source, "--output_dir", built.folder)
    assert "finished" in capsys.readouterr().out
    assert state(built.folder.parent) == before


@pytest.mark.usefixtures("no_figures")
def test_a_changed_input_is_built_again(small_source, tmp_path, monkeypatch, capsys):
    tunes = tmp_path / "tunes"
    tunes.mkdir()
    (tunes / "made.abc").write_bytes((small_source / "made.abc").read_bytes())
    arguments = ("--source", tunes, "--output_dir", tmp_path / "corpus")
    go_in(monkeypatch, *arguments)
    before = state(tmp_path / "corpus")
    with (tunes / "made.abc").open("a") as file:
        file.write(f"\n\n{TUNE}\n")
    go_in(monkeypatch, *arguments)
    assert "finished" not in capsys.readouterr().out
    assert sum(Corpus.open(tmp_path / "corpus").stats["tunes"].values()) == 151
    go_in(monkeypatch, *arguments, "--keep_fields", "K")
    assert all(text.startswith("K:") for text in Corpus.open(tmp_path / "corpus").tunes("test")["text"])
    assert state(tmp_path / "corpus").keys() == before.keys()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["corpus", "tunes"]


BAD = {
    "an empty folder": (["--source", "empty"], "empty"),
    "a path that is not there": (["--source", "nowhere"], "nowhere"),
    "one binary file": (["--source", "photo.abc"], "photo.abc"),
    "a score cut short": (["--source", "cut.mid"], "1 midi:"),
    "a folder without tunes": (["--source", "words"], "words"),
    "too few tunes": (["--source", "one.abc"], "split is empty"),
    "fields without K": (["--source", "one.abc", "--keep_fields", "XM"], "--keep_fields"),
    "a field that is none": (["--source", "one.abc", "--keep_fields", "K7"], "--keep_fields"),
    "a YAML field that is none": (["unknown.yaml"], "keep_feelds"),
    "a YAML file that is none": (["broken.yaml"], "broken.yaml"),
    "a YAML file that is not there": (["nowhere.yaml"], "nowhere.yaml"),
    "a number where YAML should hold a word": (["number.yaml"], "keep_fields"),
    "a word where a number belongs": (["--context", "long"], "--context"),
    "an unknown flag": (["--contextt", "5"], "--contextt"),
    "a context beyond all bounds": (["--context", "1" + "0" * 21], "--context"),
    "more processes than any machine runs": (["--num_proc", "1" + "0" * 21], "--num_proc"),
    "more keys than there are": (["--transpose", "9" * 5000], "--transpose"),
}


@pytest.fixture(scope="module")
def bad_input(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty").mkdir()
    (folder / "words").mkdir()
    (folder / "words" / "README.txt").write_text("No tunes here.\n")
    (folder / "photo.abc").write_bytes(b"\x89PNG\r\n\0\0X:1\nK:C\nCDEFGABc|")
    (folder / "one.abc").write_text(TUNE)
    (folder / "cut.mid").write_bytes(b"MThd\0\0\0\6\0\1")
    (folder / "unknown.yaml").write_text("keep_feelds: XK\n")
    (folder / "broken.yaml").write_text("source: [\n")
    (folder / "number.yaml").write_text("keep_fields: 5\n")
    return folder


def assert_one_clear_line(errors: str, named: str) -> None:
    lines = [
        line for line in errors.splitlines() if line and "tunes/s]" not in line and "reading tunes" not in line
    ]  # less the progress bar
    assert "Traceback" not in errors
    assert len(lines) == 1, errors
    assert lines[0].startswith("error:")
    assert named in lines[0]


def test_bad_input_ends_a_process_with_one_line(bad_input, tmp_path):
    arguments, named = BAD["one binary file"]
    ended = go_through_the_door(*arguments, "--output_dir", tmp_path / "corpus", cwd=bad_input)
    assert ended.returncode > 0
    assert_one_clear_line(ended.stderr, named)


@pytest.mark.parametrize("how", ["an empty folder", "one binary file", "fields without K", "a YAML field that is none"])
def test_bad_input_leaves_the_corpus(built, bad_input, monkeypatch, how):
    monkeypatch.chdir(bad_input)
    before = state(built.folder.parent)
    with pytest.raises(SystemExit):
        go_in(monkeypatch, *BAD[how][0], "--output_dir", built.folder)
    assert state(built.folder.parent) == before


@pytest.mark.parametrize(("arguments", "named"), BAD.values(), ids=BAD.keys())
def test_the_one_line_names_what_is_wrong_for(bad_input, tmp_path, monkeypatch, capsys, arguments, named):
    monkeypatch.chdir(bad_input)
    with pytest.raises(SystemExit) as caught:
        go_in(monkeypatch, *arguments, "--output_dir", tmp_path / "corpus")
    assert caught.value.code > 0
    assert_one_clear_line(capsys.readouterr().err, named)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_else_is_not_replaced(small_source, tmp_path, monkeypatch):
    (tmp_path / "GPT_initial_training").mkdir()
    (tmp_path / "GPT_initial_training" / "record.json").write_text("{}")
    with pytest.raises(SystemExit):
        go_in(monkeypatch, "--source", small_source, "--output_dir", tmp_path)
    assert (tmp_path / "GPT_initial_training" / "record.json").read_text() == "{}"


@pytest.mark.parametrize("text", ["{}", "[]", "[" * 50_000, '{"name": "a page", "outputs": 3}'])
def test_a_folder_whose_manifest_is_of_something_else_is_not_replaced(
    small_source, tmp_path, monkeypatch, capsys, text
):
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "manifest.json").write_text(text)
    with pytest.raises(SystemExit):
        go_in(monkeypatch, "--source", small_source, "--output_dir", tmp_path / "page")
    assert_one_clear_line(capsys.readouterr().err, "manifest.json")
    assert (tmp_path / "page" / "manifest.json").read_text() == text


def test_a_failure_while_writing_leaves_the_corpus_before_and_no_litter(
    small_source, tmp_path, monkeypatch, build_from
):
    build_from(tmp_path / "corpus", read(small_source))
    before = state(tmp_path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space"):
        build_from(tmp_path / "corpus", read(small_source), "XTMLK")
    assert state(tmp_path) == before


def session_of(leader: int) -> list[int]:
    """The processes that one process and its children have left."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(pid) == leader and not has_ended(psutil.Process(pid)):
                found.append(pid)
    return found


def build_alone(*arguments: str | Path) -> None:
    """Go through the door as the leader of a session of its own."""
    os.setsid()
    FORKS.set_forkserver_preload([])  # the server that it starts needs none
    with pytest.MonkeyPatch.context() as patch:
        go_in(patch, *arguments)


def test_killed_at_any_moment_the_same_command_gives_the_same_bytes(built, small_source, tmp_path, monkeypatch):
    whole, source = tmp_path / "whole" / "corpus", ("--source", small_source)
    start = time.perf_counter()
    assert exit_code(60, build_alone, *source, "--output_dir", whole) == 0
    takes = time.perf_counter() - start
    killed = tmp_path / "killed" / "corpus"
    for share in (0.3, 0.6, 0.9):
        process = FORKS.Process(target=build_alone, args=(*source, "--output_dir", killed))
        process.start()
        process.join(share * takes)
        process.kill()
        process.join()
        deadline = time.monotonic() + 20
        while session_of(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert session_of(process.pid) == []
        if killed.exists():
            assert hashes(killed) == hashes(built.folder)
    go_in(monkeypatch, *source, "--output_dir", killed)
    assert hashes(killed) == hashes(whole) == hashes(built.folder)
    assert [path.name for path in killed.parent.iterdir()] == ["corpus"]


def test_a_folder_whose_writer_was_killed_between_its_two_renames_is_put_back(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()  # a process id that nobody has
    (tmp_path / f".corpus.{process.pid}.partial").mkdir()
    before = tmp_path / f".corpus.{process.pid}.partial.before"
    before.mkdir()
    (before / "manifest.json").write_text("{}")
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "corpus", mark="manifest.json"):
        raise KeyboardInterrupt
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == [
        "corpus",
        "corpus/manifest.json",
    ]
