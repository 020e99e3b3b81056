"""Sources: every byte is yielded or counted, whatever the file or archive; no input is a crash."""

import json
import os
import random
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hub_server import hub_server
from made_sources import read, tune, write_archive, write_table

from cli import UserError
from preprocessing import text_files
from preprocessing.cleaning import clean_tune
from preprocessing.sources import BUNDLED, fingerprint
from preprocessing.text_files import BLOCK, decode

ROOT = Path(__file__).parent.parent
TUNE = b"X:1\nT:One\nK:C\nCDEF|\n"


def files(blocks):
    return [block.file for block in blocks]


def accounted(blocks, reading):
    return sum(len(block.content) for block in blocks) + sum(reading.skipped_bytes.values())


def test_bundled_tunes_are_read_by_collection_with_licences():
    blocks, reading = read(BUNDLED)
    assert {block.source for block in blocks} >= {"essenFolksong", "ryansMammoth", "oneills1850"}
    assert reading.licences["essenFolksong"] == "non-commercial use"
    assert reading.files == len(fingerprint(BUNDLED))
    assert accounted(blocks, reading) == reading.bytes
    assert not reading.drops.total()


@pytest.mark.parametrize("name", ["missing", "empty", "notes.pdf"])
def test_source_without_readable_files_is_an_error(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    with pytest.raises(UserError, match=name):
        fingerprint(str(tmp_path / name))


def test_fingerprint_depends_on_files_of_known_kinds_only(tmp_path):
    (tmp_path / "a.abc").write_bytes(TUNE)
    before = fingerprint(str(tmp_path))
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    assert fingerprint(str(tmp_path)) == before
    (tmp_path / "a.abc").write_bytes(TUNE + b"\n")
    assert fingerprint(str(tmp_path)).keys() == before.keys() == {"a.abc"}
    assert fingerprint(str(tmp_path)) != before


def test_folder_is_read_in_order_of_names_and_other_files_are_counted(tmp_path):
    for name in ("b/2.abc", "b/1.TXT", "a.abc", "c/d/e.abc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(TUNE)
    write_archive(tmp_path / "z.ZIP", {"z.abc": TUNE, "y.abc": TUNE})
    (tmp_path / "scan.pdf").write_bytes(b"%PDF")
    (tmp_path / "b" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b" / "link.abc").symlink_to(tmp_path / "a.abc")
    os.mkfifo(tmp_path / "b" / "pipe.abc")
    blocks, reading = read(tmp_path)
    assert files(blocks) == ["a.abc", "b/1.TXT", "b/2.abc", "c/d/e.abc", "z.ZIP/y.abc", "z.ZIP/z.abc"]
    assert [block.source for block in blocks] == [tmp_path.name, "b", "b", "c", "z", "z"]
    assert reading.drops == {"link or device": 2, "not a known kind (.pdf)": 1}


def test_unreadable_files_and_folders_are_counted(tmp_path, monkeypatch):
    for name in ("a.abc", "b.abc", "c/d.abc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(TUNE)

    def refuse(allowed):  # root may read everything, so permissions alone would test nothing
        def refusing(path, *arguments, **options):
            if Path(path).name in ("b.abc", "c"):
                raise PermissionError(13, "Permission denied", str(path))
            return allowed(path, *arguments, **options)

        return refusing

    monkeypatch.setattr(Path, "open", refuse(Path.open))
    monkeypatch.setattr(os, "scandir", refuse(os.scandir))
    blocks, reading = read(tmp_path)
    assert files(blocks) == ["a.abc"]
    assert reading.drops == {"no permission to read": 2}


# Text files


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_long_file_is_cut_between_tunes_without_loss(tmp_path, end):
    content = f"%abc-2.1{end}L:1/8{end}".encode() + b"".join(tune(i, 700 + i % 91, end) for i in range(4000))
    (tmp_path / "long.abc").write_bytes(content)
    blocks, reading = read(tmp_path / "long.abc")
    assert b"".join(block.content for block in blocks) == content
    assert reading.bytes == len(content)
    assert len(blocks) > 2
    assert all(block.content.startswith(b"X:") for block in blocks[1:])
    assert max(len(block.content) for block in blocks) < 1.5 * BLOCK


@pytest.mark.parametrize("shift", range(3))
def test_tune_longer_than_a_megabyte_is_skipped_up_to_the_next(tmp_path, shift):
    huge = tune(2, 5 * (1 << 18) - 9 + shift)  # the next X: is across, before or after two chunks
    (tmp_path / "a.abc").write_bytes(tune(1) + huge + tune(3))
    blocks, reading = read(tmp_path / "a.abc")
    assert b"".join(block.content for block in blocks) == tune(1) + tune(3)
    assert reading.skipped_bytes == {"tune longer than 1 MB": len(huge)}


def test_line_of_a_hundred_megabytes_costs_no_memory(tmp_path):
    with (tmp_path / "a.abc").open("wb") as file:
        file.write(tune(1) + b"X:2\nK:C\n")
        for _ in range(100):
            file.write(b"C" * (1 << 20))
        file.write(b"\n" + tune(3))
    tracemalloc.start()
    blocks, reading = read(tmp_path / "a.abc")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [block.content for block in blocks] == [tune(1), tune(3)]
    assert accounted(blocks, reading) == reading.bytes == (tmp_path / "a.abc").stat().st_size
    assert peak < 10 << 20


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"T:\xe9\xe8", "T:éè"),
        ("T:é".encode(), "T:é"),
        (b"\xef\xbb\xbfT:a", "\ufeffT:a"),
        ("%%abc-charset iso-8859-2\nT:ł".encode("iso-8859-2"), "%%abc-charset iso-8859-2\nT:ł"),
        ("X:1\r\nI:abc-charset koi8-r\r\nT:ж".encode("koi8-r"), "X:1\r\nI:abc-charset koi8-r\r\nT:ж"),
        (b"%%abc-charset no-such\nT:\xe9", "%%abc-charset no-such\nT:é"),
        ("X:1\nT:ł".encode("utf-16"), "X:1\nT:ł"),
        ("T:Br\x84utigam, Gru\xe1".encode(), "T:Bräutigam, Gruß"),
        ("T:Gr\xe1, Fl\xfate".encode(), "T:Grá, Flúte"),
        (b"\xfe\xff" + "X:1\nT:ł".encode("utf-16-be"), "X:1\nT:ł"),
    ],
)
def test_text_is_decoded_as_utf_8_else_as_declared_else_as_cp1252(tmp_path, content, expected):
    (tmp_path / "a.abc").write_bytes(content)
    assert [decode(block) for block in read(tmp_path / "a.abc")[0]] == [expected]


def test_binary_content_is_counted_and_not_read_as_music(tmp_path):
    (tmp_path / "a.abc").write_bytes(b"\x00\x01X:1\nK:C\nCDEF")
    blocks, reading = read(tmp_path / "a.abc")
    assert not blocks
    assert reading.skipped_bytes == {"not text": reading.bytes}


def test_file_header_accompanies_each_block(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "BLOCK", 100)
    tunes = "".join(f"X:{i}\nK:C\n{'CDEF|' * 10}\n\n" for i in range(9))
    (tmp_path / "book.abc").write_bytes(("\ufeffM:3/4 % waltzes\r\nL: 1/4\r\nR:\r\nZ:me\r\n\r\n" + tunes).encode())
    blocks, _ = read(tmp_path)
    assert len(blocks) > 1
    assert all(block.defaults == {"M": "3/4", "L": "1/4"} for block in blocks)


def test_file_header_keeps_all_u_fields(tmp_path):
    (tmp_path / "book.abc").write_text("U:n=!tenuto!\nU: k = !turn! % so\n\nX:1\nK:C\nnCkD|\n")
    [block], _ = read(tmp_path)
    assert "!tenuto!C!turn!D|" in clean_tune(decode(block).partition("\n\n")[2], "K", block.defaults).text


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_fields_of_the_first_tune_are_no_file_header(tmp_path, start):
    (tmp_path / "book.abc").write_text(f"{start}X:1\nM:3/4\nK:C\nCDE|\n\nX:2\nK:C\nCDEF|\n")
    [block], _ = read(tmp_path)
    assert block.defaults == {}


# Archives


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tgz"])
def test_archive_is_read_without_unpacking_and_hostile_names_do_no_harm(tmp_path, suffix):
    members = {"b.abc": TUNE, "a/../../up.abc": TUNE, "/etc/abs.txt": TUNE, "in.zip": b"PK", "cover.jpg": b"\xff"}
    (tmp_path / "in").mkdir()
    path = write_archive(tmp_path / "in" / f"tunes{suffix}", members)
    blocks, reading = read(path)
    assert set(files(blocks)) == {f"{path.name}/{name}" for name in ("b.abc", "a/../../up.abc", "/etc/abs.txt")}
    assert {block.source for block in blocks} == {"tunes"}
    assert reading.drops == {"archive inside an archive": 1, "not a known kind (.jpg)": 1}
    assert list(tmp_path.rglob("*.abc")) == []
    assert fingerprint(str(path)).keys() == {path.name}


def test_archive_bombs_are_left_out(tmp_path):
    members = {"a.abc": TUNE, "bomb.abc": b"C" * (51 << 20), "z.abc": TUNE}
    for name, kept in {"bomb.zip": 2, "bomb.tar.gz": 1}.items():  # of a .tar.gz, what follows cannot be reached
        blocks, reading = read(write_archive(tmp_path / name, members))
        assert files(blocks) == [f"{name}/a.abc", f"{name}/z.abc"][:kept]
        assert reading.drops == {"unpacks too much": 1}
        assert reading.bytes == kept * len(TUNE)


def test_encrypted_and_damaged_members_and_links_of_a_zip_are_counted(tmp_path):
    link = zipfile.ZipInfo("link.abc")
    link.external_attr = 0o120777 << 16
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("damaged.abc", "encrypted.abc", "good.abc"):
            archive.writestr(name, TUNE.replace(b"One", name.encode()))
        archive.writestr(link, "good.abc")
    content = bytearray(path.read_bytes())
    content[content.index(b"T:damaged") + 2] ^= 1
    entry = content.rindex(b"encrypted.abc") - 46  # of the central directory; its flags are at byte 8
    content[entry + 8] |= 1
    path.write_bytes(content)
    blocks, reading = read(path)
    assert files(blocks) == ["a.zip/good.abc"]
    assert reading.drops == {"damaged member": 1, "encrypted member": 1, "link or device": 1}


def test_links_and_devices_of_a_tar_are_counted(tmp_path):
    others = []
    for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)):
        info = tarfile.TarInfo(f"{number}.abc")
        info.type, info.linkname = kind, "/etc/passwd"
        others.append(info)
    blocks, reading = read(write_archive(tmp_path / "a.tar", {"a.abc": TUNE}, *others))
    assert [block.content for block in blocks] == [TUNE]
    assert reading.drops == {"link or device": 4}


def test_truncated_archive_gives_what_it_still_holds(tmp_path):
    noise = random.Random(0).randbytes(300_000).hex().encode()
    path = write_archive(tmp_path / "a.tgz", {"a.abc": TUNE, "b.abc": TUNE + noise})
    path.write_bytes(path.read_bytes()[:-100_000])
    blocks, reading = read(path)
    assert files(blocks) == ["a.tgz/a.abc"]
    assert reading.drops == {"damaged archive": 1}
    assert accounted(blocks, reading) == reading.bytes


# The Hub

HUB_READING = """
import json, sys
from pathlib import Path
from cli import UserError
from preprocessing.blocks import Reading
from preprocessing.sources import fingerprint, read_source

repository = Path(sys.argv[1])
first = fingerprint("hub:band/tunes")
(repository / "train.jsonl").write_text(json.dumps({"abc notation": "X:9"}) + "\\n")
reading = Reading()
blocks = list(read_source("hub:band/tunes", first, reading, None, 1))
errors = []
for source in ("hub:band/none", "hub:band/tunes:large", "hub:a/b/c"):
    try:
        fingerprint(source)
    except UserError as error:
        errors.append(str(error))
try:
    list(read_source("hub:band/tunes", first, Reading(), "melody", 1))
except UserError as error:
    errors.append(str(error))
print(json.dumps([first, fingerprint("hub:band/tunes"), [vars(block) for block in blocks], reading.licences, errors]))
"""
UNREACHABLE = """
from cli import UserError
from preprocessing.sources import fingerprint
try:
    fingerprint("hub:a/b")
except UserError as error:
    print(error)
"""


def run_python(code: str, *arguments: str | Path, **environment: str) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, **environment}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_data_set_is_read_at_its_pinned_commit_and_errors_are_one_line(tmp_path):
    repository = tmp_path / "hub" / "band" / "tunes"
    repository.mkdir(parents=True)
    (repository / "README.md").write_text("---\nlicense: mit\n---\n")
    for split, numbers in {"train": (1, 2), "test": (3,)}.items():
        rows = [{"abc notation": f"X:{i}\nK:C\nCDEF|", "control code": "S:1"} for i in numbers]
        write_table(repository / f"{split}.jsonl", rows)
    with hub_server(tmp_path / "hub") as hub:
        printed = run_python(HUB_READING, repository, **hub.environment(tmp_path / "cache"))
    first, second, blocks, licences, errors = json.loads(printed)
    assert first.keys() == second.keys() == {"hub:band/tunes:default"}
    assert first != second
    assert sorted(block["content"] for block in blocks) == [f"X:{i}\nK:C\nCDEF|" for i in (1, 2, 3)]
    assert {block["file"] for block in blocks} >= {"train, row 0", "test, row 0"}
    assert {block["source"] for block in blocks} == {"band/tunes"}
    assert licences == {"band/tunes": "mit"}
    for error, named in zip(errors, ("band/none", "(default)", "a/b/c", "abc notation, control code"), strict=True):
        assert named in error
        assert "\n" not in error


@pytest.mark.parametrize("environment", [{"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}])
def test_unreachable_hub_ends_with_one_line(tmp_path, environment):
    printed = run_python(UNREACHABLE, HF_HOME=str(tmp_path), **environment)
    assert "hub:a/b" in printed
    assert printed.count("\n") == 1
