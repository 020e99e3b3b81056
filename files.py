"""Files and folders that are written whole or not at all, JSON, and text from Jinja2 templates."""

import glob
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cli import UserError


def follow(path: Path) -> Path:
    """Return the path of a file or folder to write, with a link resolved; it need not exist.

    Raises UserError if it or a folder above it is a link to nothing, or if a folder above it is a file.
    """
    for place in (path, *path.parents):
        if place.is_symlink() and not place.exists():
            raise UserError(
                f"{place} is a link to {place.readlink()}, which is not there: make that or remove the link"
            )
        if place != path and place.exists() and not place.is_dir():
            raise UserError(f"{path}: {place} is a file, not a folder")
    return path.resolve() if path.is_symlink() else path


@contextmanager
def _naming(path: Path, temporary: Path) -> Iterator[None]:
    """Make an error of the file system name the final path instead of the temporary one."""
    try:
        yield
    except OSError as error:
        name = str(error.filename or temporary)
        if name.startswith(str(temporary)):
            error.filename = str(path) + name.removeprefix(str(temporary))
        raise


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it takes the name `path` at the end, or leaves nothing behind.

    A link is followed. Raises UserError as `follow` does.
    """
    path = follow(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        with _naming(path, temporary):
            yield temporary
            temporary.chmod(0o644)
            with temporary.open("r+b") as file:  # Windows flushes only what may be written
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder where there is none. Raises UserError if that is a file, or a link to nothing."""
    if follow(path).exists() and not path.is_dir():
        raise UserError(f"{path} is a file: choose a folder for the output")
    path.mkdir(parents=True, exist_ok=True)


def check_output(path: Path, mark: str) -> None:
    """Raise UserError if `path` is neither free nor a folder that holds the file `mark`, written by the same command.

    A link is followed; one that leads nowhere is refused.
    """
    if follow(path).exists() and not path.is_dir():
        raise UserError(f"{path} is a file: choose a folder for the output")
    if path.exists() and not (path / mark).is_file() and any(path.iterdir()):
        raise UserError(f"{path} holds other files (and no {mark}): choose another folder for the output")


@contextmanager
def atomic_folder(path: Path, mark: str) -> Iterator[Path]:
    """Give a temporary folder to fill; it takes the place of `path` at the end, or leaves nothing behind.

    Only an empty folder or one that holds the file `mark`, and so was written by the same command, is replaced. Raises
    UserError for any other.
    """
    check_output(path, mark)
    path = path.resolve()  # follows a link; and names "."
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_partial(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    temporary.mkdir()
    try:
        with _naming(path, temporary):
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    file.chmod(0o644)  # some libraries write for their owner alone
                    with file.open("r+b") as opened:
                        os.fsync(opened.fileno())
            before = temporary.with_name(f"{temporary.name}.before")
            if path.exists():
                path.rename(before)  # a folder with files in it cannot be replaced in one step
            temporary.rename(path)
            shutil.rmtree(before, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _clear_partial(path: Path) -> None:
    """Clean up after a process that was killed while it wrote the folder `path`."""
    import psutil  # here, as the demo, where nothing of this is done, need not have it

    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial*"):
        owner = re.fullmatch(r"\.(\d+)\.partial(\.before)?", left.name[len(path.name) + 1 :])
        if owner is None or (int(owner[1]) != os.getpid() and psutil.pid_exists(int(owner[1]))):
            continue
        if owner[2] and not path.exists():
            left.rename(path)
        else:
            shutil.rmtree(left, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON (full precision, no NaN, so that any reader takes it) whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, *fields: str) -> Any:
    """Read JSON. Raises UserError naming the file if it is missing, damaged or no object that has `fields`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the stage that writes it (make study runs them all)") from None
    except (ValueError, RecursionError):  # no JSON or UTF-8, a number of thousands of digits, nested too deep
        raise UserError(f"{path} is damaged: delete it and run the stage that writes it again") from None
    lacking = [field for field in fields if not isinstance(value, dict) or field not in value]
    if lacking:
        raise UserError(
            f"{path} is damaged (no {lacking[0]!r} in it): delete it and run the stage that writes it again"
        )
    return value


def render(template: Path, **values: Any) -> str:
    """Return the text of a Jinja2 template. Filters: count, number, signed, percent, interval. No value is optional."""
    import jinja2  # transformers brings it; not needed where nothing is rendered

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "count": format_count,
        "number": format_number,
        "signed": format_signed,
        "percent": format_percent,
        "interval": format_interval,
    }
    return environment.get_template(template.name).render(values)


def format_count(value: float | None) -> str:
    """Return a count with three significant digits at most: 15K, 1.2M, 3G."""
    for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if value is not None and 0.9995 * size <= value < 1e18:
            return f"{value / size:.3g}{unit}"
    return "–" if value is None else f"{value:.3g}"


def format_number(value: float | None) -> str:
    """Return a number with three decimals, or three significant digits if it is large or tiny; a dash for None."""
    if value is None:
        return "–"
    return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 10 else f"{value:.3g}"


def format_signed(value: float | None) -> str:
    """Return a difference with its sign and three decimals; a dash for None."""
    return "–" if value is None else f"{value:+.3f}"


def format_percent(value: float | None, digits: int = 0) -> str:
    """Return a share in percent; a dash for None."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def format_interval(pair: tuple[float | None, float | None] | None, form: str = "number") -> str:
    """Return an interval as "0.185 to 0.350", its edges in the form of a filter; a side without an edge is "open"."""
    if pair is None or pair == (None, None) or pair == [None, None]:
        return "–"
    forms: dict[str, Callable[[float], str]] = {
        "number": format_number,
        "count": format_count,
        "signed": format_signed,
        "percent": format_percent,
    }
    low, high = ("open" if edge is None else forms[form](edge) for edge in pair)
    return f"{low} to {high}"
