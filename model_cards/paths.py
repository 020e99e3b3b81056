"""Remove the paths of this machine from what is shared: they become `data/…` or lose their folders."""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PureWindowsPath
from typing import Any

from files import write_json, write_text

DATA = "data"  # name of a study's folder where it is shared
FIELDS = {  # fields of records and settings that hold paths
    *("init_from", "folder", "model", "out", "corpus", "output_root", "output_dir", "measured_in", "reuse_quality"),
    *("reuse_runs", "runs", "vocabulary"),
}
BEFORE, AFTER = r"(?<![^\s\"'`(=:,<\[])", r"(?![\w.~-])"  # the characters around a path in a text


def of_machine(path: str) -> bool:
    """Return whether a path, of any system, says more than a place below the current folder."""
    windows = PureWindowsPath(path)
    return path.startswith(("/", "~")) or bool(windows.drive or windows.root) or ".." in windows.parts


def bare(path: str) -> str:
    """Return a path of the machine without its folders, and any other text, such as an id of the Hub, unchanged."""
    if not of_machine(path):
        return path
    parts = [part for part in re.split(r"[\\/]+|^[A-Za-z]:", path) if part not in ("", ".", "..", "~")]
    return parts[-1] if parts else "folder"


def bare_names(paths: Sequence[str]) -> dict[str, str]:
    """Return the `bare` name of each path, numbered where it is taken; unchanged names come first."""
    names: dict[str, str] = {}
    for path in sorted(dict.fromkeys(paths), key=of_machine):
        name, number = bare(path), 2
        while name in names.values():
            name, number = f"{bare(path)} ({number})", number + 1
        names[path] = name
    return names


def forget(value: Any, root: Path, field: str = "") -> Any:
    """Return a JSON value without the path of `root` in any text, and without other machine paths in FIELDS."""
    if isinstance(value, dict):
        return {_forget_root(name, root): forget(each, root, name) for name, each in value.items()}
    if isinstance(value, list):
        return [forget(each, root, field) for each in value]
    if not isinstance(value, str) or field == "abc":
        return value
    if field in FIELDS and root.parts and Path(value).is_relative_to(root):
        return (DATA / Path(value).relative_to(root)).as_posix()
    value = _forget_root(value, root)
    return bare(value) if field in FIELDS else value


def forget_paths(folder: Path, root: Path) -> None:
    """Apply `forget` to all texts of a folder that is to be shared; of an .abc file to its comments only."""
    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".md", ".json", ".jsonl", ".abc"):
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            before = json.loads(text)
            if (after := forget(before, root)) != before:
                write_json(path, after)
            continue
        lines = text.splitlines(keepends=True)
        if path.suffix == ".jsonl":
            lines = [json.dumps(forget(json.loads(line), root)) + "\n" for line in lines]
        else:
            lines = [_forget_root(line, root) if line[:1] == "%" or path.suffix == ".md" else line for line in lines]
        if "".join(lines) != text:
            write_text(path, "".join(lines))


def _forget_root(text: str, root: Path) -> str:
    """Return a text with `data` for the folder `root`, and `.` for the current one, where they are whole paths.

    A root that is a single word below the current folder stays: it tells nothing, and may be a word of the text.
    """
    for pattern, name in _patterns(root, Path.cwd()):
        text = pattern.sub(name, text)
    return text


@lru_cache
def _patterns(root: Path, current: Path) -> list[tuple[re.Pattern[str], str]]:
    named = {str(path): DATA for path in (root, root.resolve()) if of_machine(str(path)) or len(path.parts) > 1}
    named[str(current)] = "."
    spelt = {spelling: name for path, name in named.items() for spelling in (path, path.replace("\\", "/"))}
    paths = sorted((path for path in spelt if len(path) > 1), key=len, reverse=True)  # neither . nor /
    return [(re.compile(f"{BEFORE}(?:file://)?{re.escape(path)}{AFTER}"), spelt[path]) for path in paths]
