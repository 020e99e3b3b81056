"""Shared by all commands: arguments from dataclasses, a YAML file before flags, one-line errors."""

import argparse
import dataclasses
import errno
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

import yaml

ARMS, ARM = "arms", "arm"
RANGE = "range"  # in the metadata of a field
NO_VALUE = ("", "~", "null")  # in YAML
YAML_BYTES, YAML_DEPTH = 2**17, 64  # limits of a file of fields, as a hostile one would take long to read


class UserError(Exception):
    """A mistake that the user can fix. The text is one line that names the file or field, and the fix."""


def option(
    default: Any,
    about: str,
    choices: Iterable[str] | None = None,
    least: float | None = None,
    most: float | None = None,
    **more: Any,
) -> Any:
    """Return a dataclass field for a flag: its default, its help text, and the values that it takes.

    `choices` and the range from `least` to `most` hold for each value of a list; `read_arguments` refuses others.
    `more` is for argparse, such as `aliases`.
    """
    metadata = {"help": about, **more}
    if choices is not None:
        metadata["choices"] = list(choices)
    if least is not None and most is not None:
        metadata[RANGE] = (least, most)
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def main(
    run: Callable[..., None], *kinds: type, about: str | None, default_file: str | None = None, arms: bool = False
) -> None:
    """Run a command with its arguments. A `UserError`, a full disk and Ctrl-C end it with one line, not a traceback.

    `run` is called with one dataclass of each of `kinds`, or, with `arms`, with a list of such tuples, one for each arm
    of a study file. `about` is the help text; `default_file` is read if there is no argument at all.

    Raises SystemExit with 1 for an error, 2 for a bad argument, 130 for Ctrl-C.
    """
    given = read_arguments(*kinds, about=about, default_file=default_file)
    if len(given) > 1 and not arms:
        fail("this command reads no study file of several arms")
    report_errors(lambda: run(given) if arms else run(*given[0]))


def report_errors(action: Callable[[], None]) -> None:
    """Call `action`; end an error that is the user's or the file system's, and Ctrl-C, with one line and SystemExit."""
    try:
        action()
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        print("\nstopped: run the same command again, what was finished is kept", file=sys.stderr)
        raise SystemExit(130) from None
    except OSError as error:
        fail(describe_os_error(error))


def read_arguments(
    *kinds: type, about: str | None = None, default_file: str | None = None, argv: list[str] | None = None
) -> list[tuple[Any, ...]]:
    """Fill dataclasses from an optional YAML file (first, without a flag), then from flags.

    A study file may have `arms`: an arm is a named part of it, a mapping whose fields override those of the file. Flags
    override both, and --arm takes the arm of that name. Returns one tuple of dataclasses for each arm; a file without
    arms is one arm.

    Raises SystemExit with one line for an unknown flag or field, a value out of range, or a file that cannot be read.
    """
    from transformers import HfArgumentParser  # a second of imports that a library user need not pay

    class Parser(HfArgumentParser):
        def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
            settings.pop(RANGE, None)  # metadata that argparse does not know
            return super().add_argument(*names, **settings)

    parser = Parser(
        kinds,  # type: ignore[arg-type]
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
    arms = [{}] if file is None else _read_yaml(Path(file), kinds)
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
            parser.error(f"{value!a}: not text in UTF-8")
    try:
        return [_fill(kinds, vars(parser.parse_args(values))) for values in given]
    except UserError as error:
        parser.exit(2, f"error: {error}\n")


def _fill(kinds: tuple[type, ...], values: dict[str, Any]) -> tuple[Any, ...]:
    for field in (field for kind in kinds for field in dataclasses.fields(kind)):
        check_range(field, values[field.name])
    return tuple(kind(**{field.name: values[field.name] for field in dataclasses.fields(kind)}) for kind in kinds)


def check_range(field: dataclasses.Field[Any], given: Any) -> None:
    """Raise UserError naming the flag of a value, or of one in a list, that is not in the range of its `option`."""
    if RANGE not in field.metadata:
        return
    least, most = field.metadata[RANGE]
    for value in given if isinstance(given, list) else [given]:
        if not least <= value <= most:  # NaN is in no range
            ends = [f"{end:,}" if isinstance(end, int) and end < 10**9 else f"{end:g}" for end in (least, most)]
            raise UserError(f"--{field.name} {value!s:.60}: must be from {ends[0]} to {ends[1]}")


def _read_yaml(file: Path, kinds: tuple[type, ...]) -> list[dict[str, Any]]:
    """Return the fields of a YAML file, for each of its arms."""
    try:
        shared = read_yaml(file) or {}
    except UserError as error:
        fail(str(error))
    arms = shared.pop(ARMS, [{}]) if isinstance(shared, dict) else [{}]
    if not isinstance(arms, list) or not arms:
        fail(f"{file}: {ARMS} is not a list of one or more mappings")
    known = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    types = {name: hint for kind in kinds for name, hint in get_type_hints(kind).items()}
    for fields in [shared, *arms]:
        if not isinstance(fields, dict) or set(fields) - known:
            unknown = sorted(map(str, set(fields) - known)) if isinstance(fields, dict) else type(fields).__name__
            fail(f"{file}: {unknown} is not among the fields {sorted(known)}")
        for name, value in fields.items():
            values = value if isinstance(value, list) else [value]
            if any(isinstance(each, dict | list) for each in values):
                fail(f"{file}: {name} takes text and numbers only")
            if isinstance(value, list) and "list" not in str(types[name]):
                fail(f"{file}: {name} takes one value, not a list")
    return [shared | arm for arm in arms]


class _FieldsLoader(yaml.BaseLoader):
    """Reads YAML whose values are text, lists and mappings; argparse converts the text.

    Refuses duplicate keys, of which one would be lost; aliases, as a few can expand to millions of values; and nesting
    deeper than YAML_DEPTH, as PyYAML recurses.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or self.depth == YAML_DEPTH:
            what = (
                f"*{event.anchor}: aliases are not supported, write the value"
                if self.depth < YAML_DEPTH
                else "nested too deep"
            )
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
    """Read a YAML file of at most YAML_BYTES; every value is text, a list or a mapping.

    Raises UserError naming the file and the line.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(YAML_BYTES + 1)
        if len(content) > YAML_BYTES:
            raise UserError(f"{file}: larger than {YAML_BYTES // 1024} KiB: too large for a study file")
        return yaml.load(content.decode("utf-8-sig"), _FieldsLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file}: not a readable YAML file ({' '.join(str(error).split())})") from None


def _as_flags(fields: dict[str, Any]) -> list[str]:
    """Return the fields as flags, which argparse checks; fields without a value are left out."""
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


def describe_os_error(error: OSError) -> str:
    """Return one line for an error of the file system: the file and, for a full disk, the fix."""
    full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    fix = "; free some space and run the same command again, what was finished is kept" if full else ""
    return f"{error.filename or 'writing'}: {error.strerror or error}{fix}"
