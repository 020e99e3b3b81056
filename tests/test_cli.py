"""Arguments, atomic files and one-line errors, which all commands share."""

import errno
import json
import os
import re
import time
from dataclasses import dataclass, field

import pytest

from cli import UserError, describe_os_error, read_arguments, report_errors
from files import atomic_folder, atomic_write, check_output, read_json, write_json, write_text

MARK = "mark.json"


@dataclass
class Arguments:
    """Some of every kind."""

    n: int = 1
    rate: float = 1.0
    title: str | None = None
    sizes: list[str] = field(default_factory=list)
    quick: bool = False


def from_yaml(tmp_path, text):
    (tmp_path / "study.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_arguments(Arguments, argv=[str(tmp_path / "study.yaml")])[0][0]


def refusal(capsys, run):
    with pytest.raises(SystemExit) as ending:
        run()
    assert ending.value.code != 0
    [line] = [line for line in capsys.readouterr().err.splitlines() if line]
    assert line.startswith("error: ")
    return line


# YAML


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("n: 1\nrate: 2\nn: 3\n", "line 3: n is given twice"),
        ('n: 1\n"n": 3\n', "n is given twice"),
        ("arms:\n- {n: 1, n: 2}\n", "n is given twice"),
        ("sizes: [&a 15k, *a]\n", r"\*a"),
        ("rate: &r 1\nn: *r\n", "line 2"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nsizes: [" + "*b, " * 9 + "]", "line 2"),
        ("sizes: " + "[" * 50_000, "nested too deep"),
        ("- " * 50_000, "nested too deep"),
        ("sizes: " + "{a: " * 30_000, "nested too deep"),
        ("sizes:\n- {a: b}", "sizes"),
        ("sizes: [" + "15k, " * 1_000_000 + "]", "KiB"),
        ("n: [1", "study.yaml"),
        (b"title: \xff", "study.yaml"),
        ("n: 1\n---\nn: 2\n", "single document"),
        ("just words", "str"),
        ("n: 1" + "0" * 5000, "--n"),
        ("rate: [1, 2]", "rate takes one value"),
        ("arms:\n- n: 1\n- n: {1: 2}", "n takes"),
        ("[1]: 2", "study.yaml"),
        ('title: "a\\0b"', "not text"),
    ],
)
def test_a_malformed_study_file_is_refused_quickly_and_by_name(tmp_path, capsys, text, words):
    start = time.perf_counter()
    line = refusal(capsys, lambda: from_yaml(tmp_path, text))
    assert time.perf_counter() - start < 2
    assert len(line) < 1000
    assert re.search(words, line), line[:300]
    assert "--" in words + line or "study.yaml" in line


@pytest.mark.parametrize("value", ["\udcff", "caf\udce9", "/d/\udcff\n/x"])
def test_a_flag_that_is_not_text_is_refused(value, capsys):
    assert "UTF-8" in refusal(capsys, lambda: read_arguments(Arguments, argv=["--title", value]))


def test_an_error_is_one_line_even_if_a_file_name_has_a_newline(tmp_path, capsys):
    def write():
        write_text(tmp_path / "a\nb", "")
        check_output(tmp_path / "a\nb", MARK)

    assert "a b is a file" in refusal(capsys, lambda: report_errors(write))


def test_a_value_in_a_file_is_read_as_its_flag_is(tmp_path):
    found = from_yaml(tmp_path, "n: 1_000\nrate: 1e-3\ntitle: -no\nsizes: [15k, 007, off]\nquick: yes\n")
    assert found == Arguments(1000, 0.001, "-no", ["15k", "007", "off"], True)
    assert from_yaml(tmp_path, "\ufefftitle: No\n").title == "No"
    for nothing in ("title:\n", "title: null\n", "title: ~\n", "sizes: []\n", "# nothing\n", ""):
        assert from_yaml(tmp_path, nothing) == Arguments()


@pytest.mark.parametrize("name", ["", "missing.yaml"])
def test_a_missing_study_file_is_named(tmp_path, capsys, name):
    line = refusal(capsys, lambda: read_arguments(Arguments, argv=[str(tmp_path / name)]))
    assert str(tmp_path) in line


# JSON


@pytest.mark.parametrize("text", ["[" * 50_000, '{"a":' * 50_000, "{", "\ufeff{}", "1" * 5000, "", b"\xff"])
def test_a_damaged_record_is_named(tmp_path, text):
    (tmp_path / "record.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=r"record\.json is damaged"):
        read_json(tmp_path / "record.json")


@pytest.mark.parametrize("value", [{}, [], None, 3, "outputs", ["outputs"], {"inputs": 1}])
def test_a_record_that_lacks_a_field_is_named_with_the_field(tmp_path, value):
    (tmp_path / "record.json").write_text(json.dumps(value))
    with pytest.raises(UserError, match=r"record\.json.*'outputs'"):
        read_json(tmp_path / "record.json", *(["inputs"] if isinstance(value, dict) and value else []), "outputs")


# Links


def filled(folder, text="new"):
    with atomic_folder(folder, MARK) as temporary:
        write_text(temporary / MARK, text)


@pytest.mark.parametrize("given", ["link", "link/", "chain", "deep/link", "absolute"])
def test_an_output_folder_that_is_a_link_is_followed_and_stays_one(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere" / "target").mkdir(parents=True)
    (tmp_path / "deep").mkdir()
    (tmp_path / "link").symlink_to("elsewhere/target")
    (tmp_path / "chain").symlink_to("link")
    (tmp_path / "deep" / "link").symlink_to("../elsewhere/target")
    (tmp_path / "absolute").symlink_to(tmp_path / "elsewhere" / "target")
    before = sorted(tmp_path.rglob("*"))
    for text in ("old", "new"):
        filled(type(tmp_path)(given), text)
        assert (tmp_path / "elsewhere" / "target" / MARK).read_text() == text
    assert (tmp_path / given).is_symlink()
    assert set(tmp_path.rglob("*")) - set(before) == {tmp_path / "elsewhere" / "target" / MARK}


@pytest.mark.parametrize("place", ["link", "link/below", "loop", "loop/below"])
def test_a_broken_link_is_refused_before_anything_is_written(tmp_path, place):
    (tmp_path / "link").symlink_to("unmounted/disk")
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.rglob("*"))
    for write in (
        lambda path: check_output(path, MARK),
        filled,
        lambda path: write_text(path, ""),
        lambda path: write_json(path / "x.json", {}),
    ):
        with pytest.raises(UserError, match="is a link to"):
            write(tmp_path / place)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_that_is_a_link_is_followed_and_stays_one(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "record.json").write_text("old")
    (tmp_path / "record.json").symlink_to("elsewhere/record.json")
    write_json(tmp_path / "record.json", {})
    assert (tmp_path / "record.json").is_symlink()
    assert read_json(tmp_path / "elsewhere" / "record.json") == {}
    assert len([*tmp_path.rglob("*")]) == 3


@pytest.mark.parametrize("place", ["file", "file/below", "link", "link/below"])
def test_a_file_in_place_of_a_folder_is_named(tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    for write in (lambda path: check_output(path, MARK), filled):
        with pytest.raises(UserError, match=place.partition("/")[0]):
            write(tmp_path / place)


def test_the_working_directory_can_be_the_output(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    filled(type(tmp_path)("."))
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["here", f"here/{MARK}"]


def test_a_corpus_is_built_through_a_link_and_refused_through_a_broken_one(small_source, tmp_path, monkeypatch, capsys):
    from preprocessing.run import main

    monkeypatch.setattr("preprocessing.figures.draw_figures", lambda *_: None)
    arguments = ["run.py", "--source", str(small_source), "--num_proc", "1", "--output_dir"]
    (tmp_path / "disk" / "corpus").mkdir(parents=True)
    (tmp_path / "corpus").symlink_to("disk/corpus")
    (tmp_path / "gone").symlink_to("unmounted/corpus")
    for _ in range(2):
        monkeypatch.setattr("sys.argv", [*arguments, str(tmp_path / "corpus")])
        main()
        assert (tmp_path / "corpus").is_symlink()
        assert (tmp_path / "disk" / "corpus" / "manifest.json").is_file()
        (tmp_path / "disk" / "corpus" / "manifest.json").write_text(
            '{"arguments": {}, "outputs": {}}'
        )  # of another build
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["corpus"]
    monkeypatch.setattr("sys.argv", [*arguments, str(tmp_path / "gone")])
    monkeypatch.setattr("preprocessing.run.fingerprint", None)
    capsys.readouterr()
    assert "gone is a link to" in refusal(capsys, lambda: main())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "disk", "gone"]


# Errors that name their file


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_names_the_file_that_was_being_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("pathlib.Path.write_text", lambda *_, **__: full_disk())

    def write_in_folder():
        with atomic_folder(tmp_path / "out", MARK) as temporary:
            write_text(temporary / "deep" / "page.md", "")

    def write_bytes_in_folder():
        with atomic_folder(tmp_path / "out", MARK):
            full_disk()

    for write, named in (
        (lambda: write_text(tmp_path / "page.md", ""), tmp_path / "page.md"),
        (write_in_folder, tmp_path / "out" / "deep" / "page.md"),
        (write_bytes_in_folder, tmp_path / "out"),
    ):
        line = refusal(capsys, lambda write=write: report_errors(write))
        assert line.startswith(f"error: {named}: ")
        assert "free some space" in line
    assert not [*tmp_path.iterdir()]


def test_an_unreadable_input_is_named_rather_than_the_output(tmp_path):
    with pytest.raises(FileNotFoundError) as raised, atomic_write(tmp_path / "copy") as temporary:
        temporary.write_bytes((tmp_path / "source").read_bytes())
    assert describe_os_error(raised.value).startswith(str(tmp_path / "source"))
