"""Copy a module with all that it imports of this project into a flat folder, to be loaded without this project.

transformers (custom pipelines) and evaluate (metrics) load flat folders of modules with relative imports. transformers
follows imports of imports; evaluate copies only what the first module imports, so that one imports all of them.
"""

import re
from pathlib import Path

from files import read_json, write_json, write_text

ROOT = Path(__file__).parent.parent
# Comments are removed, as evaluate takes one after an import for the address to download it from.
IMPORT = re.compile(r"^from ([\w.]+) import([^#\n]*?)[ ]*(?:#.*)?$", re.MULTILINE)


def pack(module: Path, folder: Path) -> None:
    """Write `module` and every module of this project that it imports, directly or not, flat into `folder`.

    Raises ValueError if two of them have the same name.
    """
    packed: dict[Path, str] = {}
    waiting = [module]
    while waiting:
        path = waiting.pop()
        if path not in packed:
            text = path.read_text(encoding="utf-8")
            packed[path] = IMPORT.sub(_make_relative, text)
            waiting += [source for name, _ in IMPORT.findall(text) if (source := _source(name)).is_file()]
    names = [path.stem for path in packed]
    if len(set(names)) < len(names):
        raise ValueError(f"{module}: two modules that it needs have the same name ({', '.join(sorted(names))})")
    indirect = [name for name in names[1:] if f"\nfrom .{name} import" not in packed[module]]
    packed[module] += "".join(f"from .{name} import __name__ as _{name}\n" for name in indirect)
    for path, text in packed.items():
        write_text(folder / path.name, text)


def add_pipeline(folder: Path) -> None:
    """Make a model's folder load as pipeline("abc-generation", trust_remote_code=True) without this project."""
    config = read_json(folder / "config.json", "model_type")
    task = {"impl": "abc_pipeline.AbcGenerationPipeline", "pt": ["AutoModelForCausalLM"], "type": "text"}
    write_json(folder / "config.json", {**config, "custom_pipelines": {"abc-generation": task}})
    pack(ROOT / "generation" / "abc_pipeline.py", folder)


def _source(name: str) -> Path:
    """Return the file of a module, if it is one of this project."""
    return ROOT / f"{name.replace('.', '/')}.py"


def _make_relative(match: re.Match[str]) -> str:
    name, imported = match.groups()
    return f"from .{name.rpartition('.')[2]} import{imported}" if _source(name).is_file() else match[0]
