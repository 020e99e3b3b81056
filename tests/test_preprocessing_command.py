"""The command: the same bytes whatever happens, unfinished work resumed, errors of one line, nothing else replaced."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import made_once
from forks import FORKS, exit_code, has_ended

from files import atomic_folder
from preprocessing import run
from preprocessing.corpus import SPLITS, Corpus
from preprocessing.tunes import TuneRow

ROOT = Path(__file__).parent.parent
TUNE = "X:1\nT:One\nR:Reel\nM:4/4\nL:1/8\nK:C\nCDEFGABc|cBAGFEDC|"


def state(folder: Path) -> dict[str, tuple[str, int]]:
    """Hash and time of writing of every file of a folder."""
    return {
        path.relative_to(folder).as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def hashes(folder: Path) -> dict[str, str]:
    return {name: digest for name, (digest, _) in state(folder).items()}


def run_process(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONHASHSEED": "random"}
    command = [sys.executable, str(ROOT / "preprocessing" / "run.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    one = [] if "--num_proc" in arguments else ["--num_proc", "1"]
    monkeypatch.setattr(sys, "argv", ["run.py", *map(str, arguments), *one])
    run.main()


@pytest.fixture(scope="module")
def built(small_source, tmp_path_factory) -> Corpus:
    """The corpus of `small_source`, built by a process with two workers."""

    def make(root):
        flags = ("--source", small_source, "--output_dir", root / "corpus", "--num_proc", "2")
        ended = run_process(*flags, cwd=root)
        assert ended.returncode == 0, ended.stderr
        stats = Corpus.open(root / "corpus").stats
        assert all(f"{split} {stats['tunes'][split]} tunes" in ended.stdout for split in SPLITS)

    return Corpus.open(made_once(tmp_path_factory, "built_by_process", make) / "corpus")


def test_manifest_names_every_file_with_its_hash(built):
    found = hashes(built.folder)
    del found["manifest.json"]
    assert built.manifest()["outputs"] == found


def test_folder_loads_with_datasets_and_no_code_of_ours(built, tmp_path):
    script = """
import json, sys, datasets
rows = datasets.load_dataset(sys.argv[1])
ours = [name for name in sys.modules if name.split(".")[0] in ("preprocessing", "cli", "files")]
print(json.dumps([ours, {split: [len(of), of.column_names, of[0]["text"]] for split, of in rows.items()}]))
"""
    offline = {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-c", script, str(built.folder)]
    environment = {**os.environ, **offline}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    ours, found = json.loads(ended.stdout.splitlines()[-1])
    columns = list(TuneRow.__annotations__)
    assert ours == []
    assert found == {s: [built.stats["tunes"][s], columns, built.tunes(s)[0]["text"]] for s in SPLITS}


def test_output_does_not_depend_on_the_number_of_workers(built, small_source, tmp_path, monkeypatch):
    run_main(monkeypatch, "--source", small_source, "--output_dir", tmp_path / "again")
    assert hashes(tmp_path / "again") == hashes(built.folder)


def test_second_run_says_finished_and_writes_nothing(built, small_source, monkeypatch, capsys):
    before = state(built.folder.parent)
    run_main(monkeypatch, "--source", small_source, "--output_dir", built.folder)
    assert "finished" in capsys.readouterr().out
    assert state(built.folder.parent) == before


@pytest.mark.usefixtures("no_figures")
def test_changed_input_or_argument_is_built_again(small_source, tmp_path, monkeypatch, capsys):
    tunes = tmp_path / "tunes"
    tunes.mkdir()
    (tunes / "made.abc").write_bytes((small_source / "made.abc").read_bytes())
    arguments = ("--source", tunes, "--output_dir", tmp_path / "corpus")
    run_main(monkeypatch, *arguments)
    before = state(tmp_path / "corpus")
    with (tunes / "made.abc").open("a") as file:
        file.write(f"\n\n{TUNE}\n")
    run_main(monkeypatch, *arguments)
    assert "finished" not in capsys.readouterr().out
    assert sum(Corpus.open(tmp_path / "corpus").stats["tunes"].values()) == 151
    run_main(monkeypatch, *arguments, "--keep_fields", "K")
    assert all(text.startswith("K:") for text in Corpus.open(tmp_path / "corpus").tunes("test")["text"])
    assert state(tmp_path / "corpus").keys() == before.keys()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["corpus", "tunes"]


@pytest.mark.usefixtures("no_figures")
def test_given_vocabulary_keeps_its_ids_and_warns_of_unknown_characters(built, tmp_path, monkeypatch, capsys):
    text = "\n".join(text for split in SPLITS for text in built.tunes(split)["text"])
    (tmp_path / "strange.abc").write_text(text.replace("X:1", "\nX:1").replace("c|", "~c|"))
    source = ("--source", tmp_path / "strange.abc")
    run_main(monkeypatch, *source, "--output_dir", tmp_path / "new", "--vocabulary", built.folder)
    corpus = Corpus.open(tmp_path / "new")
    assert corpus.vocabulary == built.vocabulary
    assert corpus.stats["unknown_share"]["train"] > 0.001
    assert "warning" in capsys.readouterr().out
    run_main(monkeypatch, *source, "--output_dir", tmp_path / "own")
    assert "warning" not in capsys.readouterr().out


# Errors

BAD = {
    "an empty folder": (["--source", "empty"], "empty"),
    "a missing path": (["--source", "nowhere"], "nowhere"),
    "one binary file": (["--source", "photo.abc"], "photo.abc"),
    "a score cut short": (["--source", "cut.mid"], "1 midi:"),
    "a folder without tunes": (["--source", "words"], "words"),
    "too few tunes": (["--source", "one.abc"], "split is empty"),
    "fields without K": (["--source", "one.abc", "--keep_fields", "XM"], "--keep_fields"),
    "an unknown header field": (["--source", "one.abc", "--keep_fields", "K7"], "--keep_fields"),
    "a header field that the corpus has not": (["--source", "one.abc", "--keep_fields", "XCK"], "unknown 'C'"),
    "a context out of range": (["--context", "1" + "0" * 21], "--context"),
    "too many processes": (["--num_proc", "1" + "0" * 21], "--num_proc"),
    "too many keys": (["--transpose", "9" * 5000], "--transpose"),
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
    return folder


def assert_one_error(errors: str, named: str) -> None:
    lines = [line for line in errors.splitlines() if line and "reading tunes" not in line]  # less the progress bar
    assert len(lines) == 1, errors
    assert lines[0].startswith("error:")
    assert named in lines[0]


def test_bad_input_ends_a_process_with_one_line(bad_input, tmp_path):
    arguments, named = BAD["one binary file"]
    ended = run_process(*arguments, "--output_dir", tmp_path / "corpus", cwd=bad_input)
    assert ended.returncode > 0
    assert_one_error(ended.stderr, named)


@pytest.mark.parametrize(("arguments", "named"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_error_and_leaves_the_corpus(
    built, bad_input, tmp_path, monkeypatch, capsys, arguments, named
):
    monkeypatch.chdir(bad_input)
    before = state(built.folder.parent)
    for folder in (built.folder, tmp_path / "corpus"):
        with pytest.raises(SystemExit) as caught:
            run_main(monkeypatch, *arguments, "--output_dir", folder)
        assert caught.value.code > 0
        assert_one_error(capsys.readouterr().err, named)
    assert state(built.folder.parent) == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("record.json", "{}"),
        ("manifest.json", "{}"),
        ("manifest.json", "[]"),
        ("manifest.json", "[" * 50_000),
        ("manifest.json", '{"name": "a page", "outputs": 3}'),
    ],
)
def test_folder_that_holds_something_else_is_not_replaced(small_source, tmp_path, monkeypatch, capsys, name, text):
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / name).write_text(text)
    with pytest.raises(SystemExit):
        run_main(monkeypatch, "--source", small_source, "--output_dir", tmp_path / "page")
    assert_one_error(capsys.readouterr().err, str(tmp_path / "page"))
    assert (tmp_path / "page" / name).read_text() == text


# Interruptions


def test_failure_while_writing_leaves_the_corpus_before(built, small_source, monkeypatch):
    before = state(built.folder.parent)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(SystemExit):
        run_main(monkeypatch, "--source", small_source, "--output_dir", built.folder, "--keep_fields", "XTMLK")
    assert state(built.folder.parent) == before


def session_of(leader: int) -> list[int]:
    """The processes that one process and its children have left."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(pid) == leader and not has_ended(psutil.Process(pid)):
                found.append(pid)
    return found


def build_alone(*arguments: str | Path) -> None:
    """Run the command as the leader of a session."""
    os.setsid()
    FORKS.set_forkserver_preload([])  # the server that it starts needs none
    with pytest.MonkeyPatch.context() as patch:
        run_main(patch, *arguments)


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
    run_main(monkeypatch, *source, "--output_dir", killed)
    assert hashes(killed) == hashes(whole) == hashes(built.folder)
    assert [path.name for path in killed.parent.iterdir()] == ["corpus"]


def test_folder_whose_writer_was_killed_between_its_two_renames_is_restored(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()  # a process id that nobody has
    (tmp_path / f".corpus.{process.pid}.partial").mkdir()
    before = tmp_path / f".corpus.{process.pid}.partial.before"
    before.mkdir()
    (before / "manifest.json").write_text("{}")
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "corpus", mark="manifest.json"):
        raise KeyboardInterrupt
    found = [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))]
    assert found == ["corpus", "corpus/manifest.json"]
