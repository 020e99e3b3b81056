"""The rooms keep to their table: who may import whom, what travels, and what the README says of the tree."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("preprocessing", "modeling", "training", "analysis", "generation", "model_cards")
MAY_IMPORT = {
    "preprocessing": set(),
    "modeling": set(),
    "training": {"preprocessing", "modeling"},
    "analysis": {"training"},
    "generation": {"preprocessing", "modeling", "training"},
    "model_cards": {"preprocessing", "modeling", "training", "analysis", "generation"},
}
TORCH_FREE = {"torch", "transformers", "accelerate", "datasets"}


def tracked(*patterns):
    output = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [Path(line) for line in output.splitlines() if (ROOT / line).exists()]


def imports(path):
    """Return the modules that a file imports, relative ones as modules of their own room."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(f"{path.parts[0]}.{node.module}" if node.level else node.module or "")
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_the_table_allows(room):
    for path in (p.relative_to(ROOT) for p in (ROOT / room).rglob("*.py")):
        rooms = {name.split(".")[0] for name in imports(path)} & set(ROOMS)
        assert rooms <= MAY_IMPORT[room] | {room}, path


def test_analysis_takes_the_records_alone_from_training_and_no_torch():
    records = {"training.config", "training.record", "training.runs_table"}
    read = [*(ROOT / "analysis").glob("*.py"), *(ROOT / f"{name.replace('.', '/')}.py" for name in records)]
    for path in (p.relative_to(ROOT) for p in read):
        names = imports(path)
        assert {name for name in names if name.startswith("training")} <= records, path
        assert not {name.split(".")[0] for name in names} & TORCH_FREE, path


def test_generation_takes_the_record_alone_from_training():
    for path in (p.relative_to(ROOT) for p in (ROOT / "generation").rglob("*.py")):
        assert {name for name in imports(path) if name.startswith("training")} <= {"training.record"}, path


def test_the_notation_is_pure_standard_library():
    import sys

    parts = {f"preprocessing.{path.stem}" for path in (ROOT / "preprocessing").glob("abc_*.py")}
    for part in (*parts, "preprocessing.notation"):
        names = imports(Path(f"{part.replace('.', '/')}.py"))
        assert {name.split(".")[0] for name in names - parts} <= sys.stdlib_module_names, part


def test_nobody_unpickles_patches_the_path_or_keeps_a_dumping_ground():
    for path in tracked("*.py"):
        if path.parts[0] == "tests":
            continue
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not re.search(r"pickle\.load|torch\.load\(|allow_pickle=True|sys\.path\.(insert|append)", text), path
        assert path.stem not in {"utils", "util", "common", "helpers", "misc"}, path


def test_the_readme_has_a_line_for_every_file_of_every_room():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in tracked("*.py", "studies/*", "results/*"):
        if path.parts[0] not in ("tests", "results") and path.name != "__init__.py":
            assert path.name in readme, f"{path} is not in the README's tree"


def test_the_readmes_commands_are_the_makefiles():
    readme, makefile = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "Makefile"))
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)\b", readme)) <= targets


def test_every_dependency_is_pinned():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    wanted = [line for line in [*project["dependencies"], *extras] if not line.startswith(project["name"])]
    names = {re.split(r"[<>=!~\[]", requirement)[0].lower().replace("_", "-") for requirement in wanted}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    assert names <= pinned
