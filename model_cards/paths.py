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
    *("init_from", "folder", "model", "corpus", "vocabulary", "output_dir", "runs", "reuse_runs", "reuse_quality"),
}
BEFORE, AFTER = r"(?<![^\s\"'`(=:,<\[])", r"(?![\w.~-])"  # the characters around a path in a text


def is_machine_path(path: str) -> bool:
    """Return whether a path, of any system, is absolute or leaves the current folder."""
    windows = PureWindowsPath(path)
    return path.startswith(("/", "~")) or bool(windows.drive or windows.root) or ".." in windows.parts


def relative_name(path: str) -> str:
    """Return the last part of a machine path; any other text, such as an id of the Hub, is unchanged."""
    if not is_machine_path(path):
        return path
    parts = [part for part in re.split(r"[\\/]+|^[A-Za-z]:", path) if part not in ("", ".", "..", "~")]
    return parts[-1] if parts else "folder"


def distinct_names(paths: Sequence[str]) -> dict[str, str]:
    """Return a distinct `relative_name` for each path: repeated names are numbered, and relative paths keep theirs."""
    names: dict[str, str] = {}
    for path in sorted(dict.fromkeys(paths), key=is_machine_path):
        name, number = relative_name(path), 2
        while name in names.values():
            name, number = f"{relative_name(path)} ({number})", number + 1
        names[path] = name
    return names


def remove_machine_paths(value: Any, root: Path, field: str = "") -> Any:
    """Return a JSON value without the path of `root` in any text, and without other machine paths in FIELDS."""
    if isinstance(value, dict):
        return {_replace_root(name, root): remove_machine_paths(each, root, name) for name, each in value.items()}
    if isinstance(value, list):
        return [remove_machine_paths(each, root, field) for each in value]
    if not isinstance(value, str) or field == "abc":
        return value
    if field in FIELDS and root.parts and Path(value).is_relative_to(root):
        return (DATA / Path(value).relative_to(root)).as_posix()
    value = _replace_root(value, root)
    return relative_name(value) if field in FIELDS else value


def clean_folder(folder: Path, root: Path) -> None:
    """Remove machine paths from all texts of a folder that is to be shared; of an .abc file from its comments only."""
    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".md", ".json", ".jsonl", ".abc"):
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            before = json.loads(text)
            if (after := remove_machine_paths(before, root)) != before:
                write_json(path, after)
            continue
        lines = text.splitlines(keepends=True)
        if path.suffix == ".jsonl":
            lines = [json.dumps(remove_machine_paths(json.loads(line), root)) + "\n" for line in lines]
        else:
            lines = [_replace_root(line, root) if line[:1] == "%" or path.suffix == ".md" else line for line in lines]
        if "".join(lines) != text:
            write_text(path, "".join(lines))


def _replace_root(text: str, root: Path) -> str:
    """Return a text with `data` for the folder `root`, and `.` for the current one, where they are whole paths.

    A root that is a single word below the current folder stays: it reveals nothing, and may be a word of the text.
    """
    for pattern, name in _patterns(root, Path.cwd()):
        text = pattern.sub(name, text)
    return text


@lru_cache
def _patterns(root: Path, current: Path) -> list[tuple[re.Pattern[str], str]]:
    named = {str(path): DATA for path in (root, root.resolve()) if is_machine_path(str(path)) or len(path.parts) > 1}
    named[str(current)] = "."
    spelt = {spelling: name for path, name in named.items() for spelling in (path, path.replace("\\", "/"))}
    paths = sorted((path for path in spelt if len(path) > 1), key=len, reverse=True)  # neither . nor /
    return [(re.compile(f"{BEFORE}(?:file://)?{re.escape(path)}{AFTER}"), spelt[path]) for path in paths]
