"""What every door (a room's run.py) does alike: read its arguments, write whole files, fail in one line."""

import argparse
import dataclasses
import errno
import glob
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_type_hints

import yaml

T = TypeVar("T")
ARMS, ARM = "arms", "arm"
NO_VALUE = ("", "~", "null")  # in YAML
YAML_BYTES, YAML_DEPTH = 2**17, 64  # of a file of fields: more is a mistake, and would take long to refuse


class DoorError(Exception):
    """Something the user can mend. The text is one line that names the file or field, and the mend."""


def read_arguments(kind: type[T], about: str, default_file: str | None = None, argv: list[str] | None = None) -> T:
    """Fill the dataclass `kind` from an optional YAML file (first, without a flag), then from flags.

    `default_file` is read where there is no argument at all.

    Raises SystemExit with one line for an unknown flag, an unknown field, or a file that cannot be read.
    """
    arms = read_arms(kind, about, default_file, argv)
    if len(arms) > 1:
        fail("this command does one thing at a time: no arms in its file")
    return arms[0]


def read_arms(kind: type[T], about: str, default_file: str | None = None, argv: list[str] | None = None) -> list[T]:
    """Fill a `kind` for each of the file's `arms`: mappings whose fields come before the file's own; flags before both.

    A file without arms is one arm; of a file with several, --arm takes the one of that name. Otherwise as
    `read_arguments`.
    """
    from transformers import HfArgumentParser  # a second of imports that a library user need not pay

    parser = HfArgumentParser(
        kind,  # type: ignore[arg-type]
        description=about,
        usage="%(prog)s [FILE.yaml] [--field value ...], FILE.yaml holding any of the fields below",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.error = lambda message: parser.exit(2, f"error: {message:.300} (--help lists the fields)\n")  # type: ignore
    flags = sys.argv[1:] if argv is None else list(argv)
    file = None
    if flags and not flags[0].startswith("-"):
        file = flags.pop(0)
    elif not flags and default_file is not None:
        file = default_file
        print(f"no argument: the fields are those of {Path(file).name}", flush=True)
    arms = [{}] if file is None else _read_yaml(Path(file), kind)
    if len(arms) > 1:
        picker = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        picker.error = parser.error  # type: ignore[method-assign]
        picker.add_argument(f"--{ARM}")
        wanted, names = getattr(picker.parse_known_args(flags)[0], ARM), [arm.get(ARM) for arm in arms]
        if wanted is not None:
            arms = [arm for arm in arms if arm.get(ARM) == wanted] or fail(f"--{ARM} {wanted}: {file} has {names}")
    given = [_as_flags(arm) + flags for arm in arms]  # a later flag wins
    for value in (value for values in given for value in values):
        if "\0" in value or (not value.isascii() and value.encode(errors="replace").decode() != value):
            parser.error(f"{value!a}: no text in UTF-8")
    try:
        return [kind(**vars(parser.parse_args(values))) for values in given]
    except DoorError as error:
        parser.exit(2, f"error: {error}\n")


def _read_yaml(file: Path, kind: type) -> list[dict[str, Any]]:
    """Return the fields of a YAML file, for each of its arms."""
    try:
        shared = read_yaml(file) or {}
    except DoorError as error:
        fail(str(error))
    arms = shared.pop(ARMS, [{}]) if isinstance(shared, dict) else [{}]
    if not isinstance(arms, list) or not arms:
        fail(f"{file}: {ARMS} is not a list of one or more mappings")
    known, types = {field.name for field in dataclasses.fields(kind)}, get_type_hints(kind)
    for fields in [shared, *arms]:
        if not isinstance(fields, dict) or set(fields) - known:
            unknown = sorted(map(str, set(fields) - known)) if isinstance(fields, dict) else type(fields).__name__
            fail(f"{file}: {unknown} is not among the fields {sorted(known)}")
        for name, value in fields.items():
            values = value if isinstance(value, list) else [value]
            if any(isinstance(each, dict | list) for each in values):
                fail(f"{file}: {name} takes texts and numbers alone")
            if isinstance(value, list) and "list" not in str(types[name]):
                fail(f"{file}: {name} takes one value, not a list")
    return [shared | arm for arm in arms]


class _FieldsLoader(yaml.BaseLoader):
    """Reads YAML whose values are texts, lists and mappings; what else a text may be, its flag decides.

    Refuses a key that is given twice, as one would be lost silently; an alias, as a few stand for millions of values;
    and what is nested deeper than YAML_DEPTH, as PyYAML reads it by recursion.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or self.depth == YAML_DEPTH:
            what = f"*{event.anchor}: write out what it stands for" if self.depth < YAML_DEPTH else "nested too deep"
            raise yaml.YAMLError(f"line {event.start_mark.line + 1}: {what}")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: {key.value} is given twice")
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def read_yaml(file: Path) -> Any:
    """Read a YAML file of at most YAML_BYTES; every value is a text, a list or a mapping.

    Raises DoorError naming the file and the line.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(YAML_BYTES + 1)
        if len(content) > YAML_BYTES:
            raise DoorError(f"{file}: more than {YAML_BYTES // 1024} KiB are no file of fields")
        return yaml.load(content.decode("utf-8-sig"), _FieldsLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DoorError(f"{file}: not a readable YAML file ({' '.join(str(error).split())})") from None


def _as_flags(fields: dict[str, Any]) -> list[str]:
    """Return the fields as flags, so that they are checked as flags are; what has no value is left out."""
    flags = []
    for name, value in fields.items():
        if isinstance(value, list):
            flags += [f"--{name}", *map(str, value)] if value else []
        elif value not in NO_VALUE:
            flags.append(f"--{name}={value}")  # in one, as a value may begin with a dash
    return flags


def fail(line: str) -> NoReturn:
    """Print one line and leave with exit code 1."""
    print(f"error: {' '.join(line.splitlines())}", file=sys.stderr)  # a file's name may have line ends
    raise SystemExit(1)


def open_door(main: Callable[[], None]) -> None:
    """Run a door; what the user can mend, a full disk and Ctrl-C each end it with one line, not a traceback."""
    try:
        main()
    except DoorError as error:
        fail(str(error))
    except KeyboardInterrupt:
        print("\nstopped: run the same command again, what was finished is kept", file=sys.stderr)
        raise SystemExit(130) from None
    except OSError as error:
        fail(describe_os_error(error))


def describe_os_error(error: OSError) -> str:
    """One line for an error of the file system, naming the file and, for a full disk, the mend."""
    full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    mend = "; free some space and run the same command again, what was finished is kept" if full else ""
    return f"{error.filename or 'writing'}: {error.strerror or error}{mend}"


def follow(path: Path) -> Path:
    """Return the path of a file or folder to write, which may be there or not; where it is a link, what it leads to.

    Raises DoorError if it or a folder above it is a link to nothing, or if a folder above it is a file.
    """
    for place in (path, *path.parents):
        if place.is_symlink() and not place.exists():
            raise DoorError(
                f"{place} is a link to {place.readlink()}, which is not there: make that or remove the link"
            )
        if place != path and place.exists() and not place.is_dir():
            raise DoorError(f"{path}: {place} is a file, not a folder")
    return path.resolve() if path.is_symlink() else path


@contextmanager
def _naming(path: Path, temporary: Path) -> Iterator[None]:
    """Have an error of the file system name the file as the user knows it; one of a full disk names none."""
    try:
        yield
    except OSError as error:
        name = str(error.filename or temporary)
        if name.startswith(str(temporary)):
            error.filename = str(path) + name.removeprefix(str(temporary))
        raise


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it takes the name `path` at the end, or leaves nothing behind.

    A link is followed. Raises DoorError as `follow` does.
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
    """Make a folder where there is none. Raises DoorError if that is a file, or a link to nothing."""
    if follow(path).exists() and not path.is_dir():
        raise DoorError(f"{path} is a file: choose a folder for the output")
    path.mkdir(parents=True, exist_ok=True)


def check_output(path: Path, mark: str) -> None:
    """Raise DoorError if `path` is neither free nor a folder that holds the file `mark`, written by the same door.

    A link is followed; one that leads nowhere is refused.
    """
    if follow(path).exists() and not path.is_dir():
        raise DoorError(f"{path} is a file: choose a folder for the output")
    if path.exists() and not (path / mark).is_file() and any(path.iterdir()):
        raise DoorError(f"{path} holds other files (and no {mark}): choose a folder of its own for the output")


@contextmanager
def whole_folder(path: Path, mark: str) -> Iterator[Path]:
    """Give a temporary folder to fill; it takes the place of `path` at the end, or leaves nothing behind.

    Only an empty folder or one that holds the file `mark`, and so was written by the same door, is replaced. Raises
    DoorError for any other.
    """
    check_output(path, mark)
    path = path.resolve()  # follows a link; and "." has a name of its own
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
    """Put right what a process that was killed while it wrote the folder `path` has left beside it."""
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
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON (full precision, no NaN, so that any reader takes it) whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, *fields: str) -> Any:
    """Read JSON. Raises DoorError naming the file if it is missing, damaged or no object that has `fields`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DoorError(f"{path} is missing: run the stage that writes it (make study runs them all)") from None
    except (ValueError, RecursionError):  # no JSON or UTF-8, a number of thousands of digits, nested too deep
        raise DoorError(f"{path} is damaged: delete it and run the stage that writes it again") from None
    lacking = [field for field in fields if not isinstance(value, dict) or field not in value]
    if lacking:
        raise DoorError(
            f"{path} is damaged (no {lacking[0]!r} in it): delete it and run the stage that writes it again"
        )
    return value
