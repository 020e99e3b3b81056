"""Sources: every byte is yielded or counted, whatever the file, archive, table or data set; no input is a crash."""

import csv
import gzip
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hub_server import hub_server

from cli import UserError
from preprocessing import text_files
from preprocessing.blocks import Block, Reading
from preprocessing.cleaning import clean_tune
from preprocessing.sources import BUNDLED, fingerprint, read_source
from preprocessing.text_files import BLOCK, decode

ROOT = Path(__file__).parent.parent
TUNE = b"X:1\nT:One\nK:C\nCDEF|\n"


def read(source: Path | str, text_column: str | None = None) -> tuple[list[Block], Reading]:
    reading = Reading()
    blocks = list(read_source(str(source), fingerprint(str(source)), reading, text_column, workers=1))
    return blocks, reading


def texts(blocks: list[Block]) -> list[str]:
    return [decode(block) for block in blocks]


def tune(number: int, size: int = 50, end: str = "\n") -> bytes:
    body = ("CDEF GABc|" * (size // 10 + 1))[:size]
    return f"X:{number}{end}K:C{end}{body}{end}".encode()


def zip_of(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tar_of(path: Path, members: dict[str, bytes], *others: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in others:
            archive.addfile(info)
    return path


def accounted(blocks: list[Block], reading: Reading) -> int:
    return sum(len(block.content) for block in blocks) + sum(reading.skipped_bytes.values())


# What a source is


def test_the_bundled_tunes_are_read_by_collection_with_their_licences():
    blocks, reading = read(BUNDLED)
    assert {block.source for block in blocks} >= {"essenFolksong", "ryansMammoth", "oneills1850"}
    assert reading.licences["essenFolksong"] == "non-commercial use"
    assert reading.files == len(fingerprint(BUNDLED))
    assert accounted(blocks, reading) == reading.bytes
    assert not reading.drops.total()


@pytest.mark.parametrize(
    ("name", "said"),
    [("missing", "no such file or folder"), ("empty", "no file of a known kind"), ("notes.pdf", "not a known kind")],
)
def test_a_source_that_holds_nothing_to_read_ends_with_one_line(tmp_path, name, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    with pytest.raises(UserError, match=said) as raised:
        fingerprint(str(tmp_path / name))
    assert "\n" not in str(raised.value)


def test_the_fingerprint_changes_with_a_file_and_with_no_other_kind(tmp_path):
    (tmp_path / "a.abc").write_bytes(TUNE)
    before = fingerprint(str(tmp_path))
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    assert fingerprint(str(tmp_path)) == before
    (tmp_path / "a.abc").write_bytes(TUNE + b"\n")
    assert fingerprint(str(tmp_path)).keys() == before.keys() == {"a.abc"}
    assert fingerprint(str(tmp_path)) != before


def test_a_folder_is_read_whole_in_the_order_of_names_and_the_rest_is_counted(tmp_path):
    for name in ("b/2.abc", "b/1.TXT", "a.abc", "c/d/e.abc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(TUNE)
    (tmp_path / "scan.pdf").write_bytes(b"%PDF")
    (tmp_path / "b" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b" / "link.abc").symlink_to(tmp_path / "a.abc")
    os.mkfifo(tmp_path / "b" / "pipe.abc")
    blocks, reading = read(tmp_path)
    assert [block.file for block in blocks] == ["a.abc", "b/1.TXT", "b/2.abc", "c/d/e.abc"]
    assert [block.source for block in blocks] == [tmp_path.name, "b", "b", "c"]
    assert reading.drops == {"link or device": 2, "not a known kind (.pdf)": 1}


# Text files


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_long_file_is_cut_before_tunes_and_loses_no_byte(tmp_path, end):
    content = f"%abc-2.1{end}L:1/8{end}".encode() + b"".join(tune(i, 700 + i % 91, end) for i in range(4000))
    (tmp_path / "long.abc").write_bytes(content)
    blocks, reading = read(tmp_path / "long.abc")
    assert b"".join(block.content for block in blocks) == content
    assert reading.bytes == len(content)
    assert len(blocks) > 2
    assert all(block.content.startswith(b"X:") for block in blocks[1:])
    assert max(len(block.content) for block in blocks) < 1.5 * BLOCK


@pytest.mark.parametrize("shift", range(3))
def test_a_tune_of_more_than_a_megabyte_is_skipped_up_to_the_next(tmp_path, shift):
    huge = tune(2, 5 * (1 << 18) - 9 + shift)  # the next X: stands across, before or after two chunks
    (tmp_path / "a.abc").write_bytes(tune(1) + huge + tune(3))
    blocks, reading = read(tmp_path / "a.abc")
    assert b"".join(block.content for block in blocks) == tune(1) + tune(3)
    assert reading.skipped_bytes == {"tune longer than 1 MB": len(huge)}


def test_a_line_of_a_hundred_megabytes_costs_no_memory(tmp_path):
    with (tmp_path / "a.abc").open("wb") as file:
        file.write(tune(1) + b"X:2\nK:C\n")
        for _ in range(100):
            file.write(b"C" * (1 << 20))
        file.write(b"\n" + tune(3))
    tracemalloc.start()
    blocks, reading = read(tmp_path / "a.abc")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert texts(blocks) == [tune(1).decode(), tune(3).decode()]
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
    assert texts(read(tmp_path / "a.abc")[0]) == [expected]


def test_what_is_no_text_is_counted_and_not_read_as_music(tmp_path):
    (tmp_path / "a.abc").write_bytes(b"\x00\x01X:1\nK:C\nCDEF")
    blocks, reading = read(tmp_path / "a.abc")
    assert not blocks
    assert reading.skipped_bytes == {"not text": reading.bytes}


# Archives


MEMBERS = {"b.abc": TUNE, "a/../../up.abc": TUNE, "/etc/absolute.txt": TUNE, "inner.zip": b"PK", "cover.jpg": b"\xff"}


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tgz"])
def test_an_archive_is_read_without_unpacking_and_its_names_do_no_harm(tmp_path, suffix):
    (tmp_path / "in").mkdir()
    path = (zip_of if suffix == ".zip" else tar_of)(tmp_path / "in" / f"tunes{suffix}", MEMBERS)
    blocks, reading = read(path)
    names = {f"tunes{suffix}/b.abc", f"tunes{suffix}/a/../../up.abc", f"tunes{suffix}//etc/absolute.txt"}
    assert {block.file for block in blocks} == names
    assert {block.source for block in blocks} == {"tunes"}
    assert reading.drops == {"archive inside an archive": 1, "not a known kind (.jpg)": 1}
    assert list(tmp_path.rglob("*.abc")) == []
    assert fingerprint(str(path)).keys() == {path.name}


def test_an_archive_is_read_among_the_files_of_a_folder_as_a_collection_of_its_own(tmp_path):
    zip_of(tmp_path / "b.ZIP", {"z.abc": TUNE, "y.abc": TUNE})
    (tmp_path / "a.abc").write_bytes(TUNE)
    blocks, _ = read(tmp_path)
    assert [block.file for block in blocks] == ["a.abc", "b.ZIP/y.abc", "b.ZIP/z.abc"]
    assert [block.source for block in blocks] == [tmp_path.name, "b", "b"]


def test_what_unpacks_too_much_is_left_out(tmp_path):
    bomb = b"C" * (51 << 20)
    path = zip_of(tmp_path / "bomb.zip", {"a.abc": TUNE, "bomb.abc": bomb})
    blocks, reading = read(path)
    assert [block.file for block in blocks] == ["bomb.zip/a.abc"]
    assert reading.drops == {"unpacks too much": 1}
    blocks, reading = read(tar_of(tmp_path / "bomb.tar.gz", {"a.abc": TUNE, "bomb.abc": bomb, "z.abc": TUNE}))
    assert [block.file for block in blocks] == ["bomb.tar.gz/a.abc"]
    assert reading.drops == {"unpacks too much": 1}
    assert reading.bytes == len(TUNE)


def test_encrypted_and_damaged_members_and_links_of_a_zip_cost_themselves(tmp_path):
    link = zipfile.ZipInfo("link.abc")
    link.external_attr = 0o120777 << 16
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("damaged.abc", "encrypted.abc", "good.abc"):
            archive.writestr(name, TUNE.replace(b"One", name.encode()))
        archive.writestr(link, "good.abc")
    content = bytearray(path.read_bytes())
    content[content.index(b"T:damaged") + 2] ^= 1
    entry = content.rindex(b"encrypted.abc") - 46  # of the central directory; its flags stand 8 bytes in
    content[entry + 8] |= 1
    path.write_bytes(content)
    blocks, reading = read(path)
    assert [block.file for block in blocks] == ["a.zip/good.abc"]
    assert reading.drops == {"damaged member": 1, "encrypted member": 1, "link or device": 1}


def test_links_and_devices_of_a_tar_are_skipped(tmp_path):
    others = []
    for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)):
        info = tarfile.TarInfo(f"{number}.abc")
        info.type, info.linkname = kind, "/etc/passwd"
        others.append(info)
    blocks, reading = read(tar_of(tmp_path / "a.tar", {"a.abc": TUNE}, *others))
    assert texts(blocks) == [TUNE.decode()]
    assert reading.drops == {"link or device": 4}


def test_a_truncated_archive_gives_what_it_still_holds(tmp_path):
    noise = random.Random(0).randbytes(300_000).hex().encode()
    path = tar_of(tmp_path / "a.tgz", {"a.abc": TUNE, "b.abc": TUNE + noise})
    path.write_bytes(path.read_bytes()[:-100_000])
    blocks, reading = read(path)
    assert [block.file for block in blocks] == ["a.tgz/a.abc"]
    assert reading.drops == {"damaged archive": 1}
    assert accounted(blocks, reading) == reading.bytes


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_an_archive_damaged_anywhere_never_stops_the_reading(tmp_path, suffix):
    draw = random.Random(1)
    whole = (zip_of if suffix == ".zip" else tar_of)(tmp_path / f"a{suffix}", {f"{i}.abc": tune(i) for i in range(9)})
    content = whole.read_bytes()
    found = Counter()
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(draw.choice((1, 4))):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        whole.write_bytes(damaged[: draw.choice((len(damaged), draw.randrange(len(damaged))))])
        blocks, _ = read(whole)
        found[len(blocks)] += 1
    assert found[9] < 150


# Tables


ROWS = [{"id": str(i), "abc": f"X:{i}\nK:C\nCD|\n"} for i in range(3)]


def write_table(path: Path, rows: list[dict]) -> Path:
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    text = io.StringIO(newline="")
    if kind == "csv":
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    else:
        text.write(json.dumps(rows) if kind == "json" else "".join(json.dumps(row) + "\n" for row in rows))
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "parquet", "csv.gz", "json.gz", "jsonl.gz"])
def test_each_row_of_a_table_is_a_block(tmp_path, kind):
    path = write_table(tmp_path / f"table.{kind}", ROWS)
    blocks, reading = read(path)
    assert texts(blocks) == [row["abc"] for row in ROWS]
    assert {block.file for block in blocks} == {f"table.{kind}, row {i}" for i in range(3)}
    assert {block.source for block in blocks} == {"table"}
    assert not reading.drops


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_a_table_is_read_inside_an_archive(tmp_path, suffix, kind):
    table = write_table(tmp_path / f"t.{kind}", ROWS)
    path = (zip_of if suffix == ".zip" else tar_of)(tmp_path / f"a{suffix}", {table.name: table.read_bytes()})
    assert texts(read(path)[0]) == [row["abc"] for row in ROWS]


def test_many_rows_stream_out_of_a_json_array(tmp_path):
    rows = [{"abc": f"X:{i}\nK:C\n{'CDEF|' * (i % 300)}"} for i in range(3000)]
    blocks, _ = read(write_table(tmp_path / "a.json", rows))
    assert texts(blocks) == [row["abc"] for row in rows]
    assert blocks[-1].file == "a.json, row 2999"


def test_the_text_column_is_found_or_named_or_the_columns_are_told(tmp_path):
    rows = [{"text": "X:1\nK:C\nC|", "abc notation": "X:2\nK:C\nD|", "melody": "X:3\nK:C\nE|"}]
    path = write_table(tmp_path / "a.jsonl", rows)
    assert texts(read(path)[0]) == [rows[0]["abc notation"]]
    assert texts(read(path, "melody")[0]) == [rows[0]["melody"]]
    with pytest.raises(UserError, match="no column tune among text, abc notation, melody"):
        read(path, "tune")


def test_a_table_without_text_costs_itself_in_a_folder_and_is_named_alone(tmp_path):
    (tmp_path / "a.abc").write_bytes(TUNE)
    path = write_table(tmp_path / "names.csv", [{"id": 1, "alias": "x"}])
    blocks, reading = read(tmp_path)
    assert texts(blocks) == [TUNE.decode()]
    assert reading.drops == {"table without a text column": 1}
    with pytest.raises(UserError, match="id, alias; name it with --text_column"):
        read(path)


def test_a_row_without_x_is_one_tune_and_a_row_without_text_is_counted(tmp_path):
    rows = [{"abc": "K:C\nCD|\n\nEF|"}, {"abc": None}, {"abc": 7}, {"abc": " "}, {"abc": "C" * (BLOCK + 1)}]
    blocks, reading = read(write_table(tmp_path / "a.jsonl", rows))
    assert texts(blocks) == ["X:1\nK:C\nCD|\nEF|"]
    assert reading.drops == {"row without text": 3, "row longer than 1 MB": 1}


@pytest.mark.parametrize(
    ("name", "content", "kept", "drops"),
    [
        (
            "a.jsonl",
            b'{"abc": "X:1"}\n{"abc"\n7\n{"abc": "X:2"}',
            2,
            {"row that is no JSON": 1, "row that is no object": 1},
        ),
        ("a.jsonl", b'{"abc": "X:1"}\n' + b"x" * (3 << 20) + b'\n{"abc": "X:2"}', 2, {"row longer than 1 MB": 1}),
        ("a.json", b'[{"abc": "X:1"}, {"abc": "X:', 1, {"damaged table": 1}),
        ("a.json", b"[" * 100_000, 0, {"damaged table": 1}),
        ("a.csv", b'abc\n"X:1"\n"X:2' + b"x" * (3 << 20), 1, {"row longer than 1 MB": 1}),
        ("a.parquet", b"PAR1 and no more", 0, {"damaged table": 1}),
        ("a.csv.gz", gzip.compress(b"abc\n" + b"X:1\n" * 9, mtime=0)[:-9], 0, {"damaged table": 1}),
    ],
)
def test_a_damaged_table_gives_what_it_still_holds(tmp_path, name, content, kept, drops):
    (tmp_path / name).write_bytes(content)
    blocks, reading = read(tmp_path / name)
    assert len(blocks) == kept
    assert reading.drops == drops


SETTINGS = [
    {
        "tune_id": "5399",
        "setting_id": setting,
        "name": "Banshee, The",
        "type": "polka",
        "meter": "2/4",
        "mode": "Gdorian",
        "abc": "|:GB dB|ef ge|!\r\n\r\ndB AG|AF ED:|",
        "date": "2006-01-05 20:22:07",
        "username": "someone",
        "composer": composer,
    }
    for setting, composer in (("5399", ""), ("17569", "A. Body"))
]


def test_the_sessions_dump_gets_its_headers_and_groups_alike_from_csv_and_json(tmp_path):
    blocks, reading = read(write_table(tmp_path / "tunes.csv", SETTINGS))
    again, _ = read(write_table(tmp_path / "tunes.json", SETTINGS))
    assert texts(blocks) == texts(again)
    assert decode(blocks[1]) == (
        "X:17569\nT:Banshee, The\nC:A. Body\nR:polka\nM:2/4\nL:1/8\nK:Gdorian\n|:GB dB|ef ge|!\ndB AG|AF ED:|"
    )
    assert {block.group for block in blocks + again} == {"thesession:5399"}
    assert {block.source for block in blocks} == {"thesession"}
    assert "Open Database License" in reading.licences["thesession"]


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


def run_python(code: str, *arguments: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_data_set_is_read_at_its_pinned_commit_and_errors_are_one_line(tmp_path):
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
    for error, said in zip(
        errors, ("no such data set", "(default)", "OWNER/NAME", "abc notation, control code"), strict=True
    ):
        assert said in error
        assert "\n" not in error


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "the Hub gives no data"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
    ],
)
def test_a_hub_that_cannot_be_reached_ends_with_one_line(tmp_path, environment, said):
    code = (
        "from files import UserError\nfrom preprocessing.sources import fingerprint\n"
        "try:\n    fingerprint('hub:a/b')\nexcept UserError as error:\n    print(error)"
    )
    printed = run_python(code, HF_HOME=str(tmp_path), **environment)
    assert said in printed
    assert printed.count("\n") == 1


def test_the_header_of_a_tune_book_goes_with_each_of_its_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "BLOCK", 100)
    tunes = "".join(f"X:{i}\nK:C\n{'CDEF|' * 10}\n\n" for i in range(9))
    (tmp_path / "book.abc").write_bytes(("\ufeffM:3/4 % waltzes\r\nL: 1/4\r\nR:\r\nZ:me\r\n\r\n" + tunes).encode())
    blocks, _ = read(tmp_path)
    assert len(blocks) > 1
    assert all(block.defaults == {"M": "3/4", "L": "1/4"} for block in blocks)


def test_all_u_fields_of_a_tune_book_go_with_its_blocks(tmp_path):
    (tmp_path / "book.abc").write_text("U:n=!tenuto!\nU: k = !turn! % so\n\nX:1\nK:C\nnCkD|\n")
    [block], _ = read(tmp_path)
    assert "!tenuto!C!turn!D|" in clean_tune(decode(block).partition("\n\n")[2], "K", block.defaults).text


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_the_fields_of_the_first_tune_are_no_header_of_its_book(tmp_path, start):
    (tmp_path / "book.abc").write_text(f"{start}X:1\nM:3/4\nK:C\nCDE|\n\nX:2\nK:C\nCDEF|\n")
    [block], _ = read(tmp_path)
    assert block.defaults == {}


def test_what_may_not_be_read_costs_itself_alone(tmp_path, monkeypatch):
    for name in ("a.abc", "b.abc", "c/d.abc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("X:1\nK:C\nCDEF|\n")

    def refuse(allowed):  # root may read everything, so permissions alone would test nothing
        def refusing(path, *arguments, **options):
            if Path(path).name in ("b.abc", "c"):
                raise PermissionError(13, "Permission denied", str(path))
            return allowed(path, *arguments, **options)

        return refusing

    monkeypatch.setattr(Path, "open", refuse(Path.open))
    monkeypatch.setattr(os, "scandir", refuse(os.scandir))
    blocks, reading = read(tmp_path)
    assert [block.file for block in blocks] == ["a.abc"]
    assert reading.drops == {"no permission to read": 2}
