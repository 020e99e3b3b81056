"""Files, archives and tables of made tunes, and what is read from them."""

import csv
import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pyarrow
import pyarrow.parquet

from preprocessing.blocks import Block, Reading
from preprocessing.sources import fingerprint, read_source


def read(source: Path | str, text_column: str | None = None, workers: int = 1) -> tuple[list[Block], Reading]:
    reading = Reading()
    blocks = list(read_source(str(source), fingerprint(str(source)), reading, text_column, workers))
    return blocks, reading


def tune(number: int, size: int = 50, end: str = "\n") -> bytes:
    body = ("CDEF GABc|" * (size // 10 + 1))[:size]
    return f"X:{number}{end}K:C{end}{body}{end}".encode()


def write_archive(path: Path, members: dict[str, bytes], *others: tarfile.TarInfo) -> Path:
    """Write a .zip, .tar or .tar.gz; `others` are members of a .tar without content."""
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in others:
            tar.addfile(info)
    return path


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
