"""The architecture: who imports whom, what commands look like, and that the documentation names what exists."""

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("preprocessing", "modeling", "training", "analysis", "generation", "model_cards")
RECORD = {"training.config", "training.record", "training.runs_table"}
MAY_IMPORT = {  # packages, or single modules of one
    "preprocessing": set(),
    "modeling": set(),
    "training": {"preprocessing", "modeling"},
    "analysis": RECORD | {"modeling.shapes"},
    "generation": {"preprocessing", "modeling", "analysis.intervals"} | RECORD,
    "model_cards": set(PACKAGES),
}
HEAVY = {"torch", "transformers", "accelerate", "datasets"}
COMMANDS = (
    *("preprocessing/run.py", "training/run.py", "training/sweep.py", "training/best.py", "training/finetune.py"),
    *("training/export.py", "analysis/run.py", "analysis/fit.py", "generation/run.py", "generation/measure.py"),
    *("model_cards/run.py", "model_cards/push.py", "model_cards/demo.py", "model_cards/publish.py"),
    "model_cards/readme.py",
)
MAX_LINES, MAX_FIELDS, MAX_README = 500, 20, 150


def tracked(*patterns):
    output = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [Path(line) for line in output.splitlines() if (ROOT / line).exists()]


def source(*patterns):
    """Return the tracked Python files of the packages and the top level."""
    return [path for path in tracked(*patterns or ("*.py",)) if path.parts[0] in (*PACKAGES, "cli.py", "files.py")]


def parse(path):
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def module_of(path):
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imports(path, top_level=False):
    """Return the modules that a file imports, relative ones as modules of their own package."""
    tree = parse(path)
    found = set()
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = ".".join(filter(None, [path.parts[0] if node.level else None, node.module]))
            names = {f"{origin}.{alias.name}" for alias in node.names}
            modules = {name for name in names if (ROOT / f"{name.replace('.', '/')}.py").is_file()}
            found |= modules or {origin}
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_the_table_allows(package):
    for path in source(f"{package}/*.py"):
        for name in imports(path):
            other = name.split(".")[0]
            if other in PACKAGES and other != package:
                assert other in MAY_IMPORT[package] or name in MAY_IMPORT[package], f"{path} imports {name}"


def test_modules_import_each_other_in_one_direction():
    modules = {module_of(path): path for path in source()}
    graph = {name: imports(path, top_level=True) & modules.keys() - {name} for name, path in modules.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_analysis_loads_without_torch():
    names = {module_of(path) for path in source("analysis/*.py")}
    program = f"import sys, {', '.join(sorted(names))}; print(*sorted(set({sorted(HEAVY)}) & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_no_module_unpickles_patches_the_path_or_is_a_dumping_ground():
    for path in source():
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not re.search(r"pickle\.load|torch\.load\(|allow_pickle=True|sys\.path\.(insert|append)", text), path
        assert path.stem not in {"utils", "util", "common", "helpers", "misc"}, path


def test_no_file_is_too_long_to_read():
    long = {str(path): n for path in tracked("*.py") if (n := len((ROOT / path).read_bytes().splitlines())) > MAX_LINES}
    assert not {path: n for path, n in long.items() if not path.startswith("results/")}


@pytest.mark.parametrize("path", [Path(name) for name in COMMANDS], ids=str)
def test_a_command_has_help_a_main_and_small_dataclasses(path):
    tree = parse(path)
    assert ast.get_docstring(tree)
    assert "main" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name.endswith("Arguments"):
            assert sum(isinstance(field, ast.AnnAssign) for field in node.body) <= MAX_FIELDS, node.name


def test_every_script_is_a_command_of_the_table():
    scripts = [path.as_posix() for path in source() if "cli.main(" in (ROOT / path).read_text(encoding="utf-8")]
    assert sorted(scripts) == sorted(COMMANDS)


def test_the_readme_is_one_page():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MAX_README


def test_the_architecture_page_has_a_line_for_every_file():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    files = [path for path in tracked("*.py", "*.j2", "studies/*") if path.parts[0] not in ("tests", "results")]
    assert [str(path) for path in files if path.name != "__init__.py" and path.name not in page] == []


def anchors(text):
    """Return the anchors that GitHub gives to the headings of a Markdown page."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", tracked("*.md"), ids=str)
def test_links_lead_to_what_exists(page):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page.parent / name) if name else ROOT / page
        assert path.exists(), f"{page} links to {target}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path.read_text(encoding="utf-8")), f"{page} links to {target}"


def test_documented_commands_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in tracked("README.md", "docs/*.md", "CONTRIBUTING.md", "results/README.md"):
        if page.name == "log.md":
            continue
        code = "\n".join(re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL))
        assert set(re.findall(r"^make ([a-z-]+)", code, re.MULTILINE)) <= targets, page
        for script in re.findall(r"(?:python|launch(?: --\S+(?: \S+)?)*) ((?:\w+/)+\w+\.py)", code):
            assert script in COMMANDS or script.startswith(("benchmarks/", "tests/")), f"{page}: {script}"
            assert (ROOT / script).is_file(), f"{page}: {script}"


def test_every_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    wanted = [line for line in [*project["dependencies"], *extras] if not line.startswith(project["name"])]
    names = {re.split(r"[<>=!~\[]", requirement)[0].lower().replace("_", "-") for requirement in wanted}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    assert names <= pinned
