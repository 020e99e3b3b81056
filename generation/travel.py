"""Pack a module with all that it needs of this project into one folder, to be loaded where the project is not.

evaluate.load and transformers' custom pipelines copy flat folders and follow relative imports. transformers finds the
imports of imports; evaluate copies only what the first module names, so that here it names them all.
"""

import re
from pathlib import Path

from files import read_json, write_json, write_text

ROOT = Path(__file__).parent.parent
# evaluate takes a comment behind an import for the address to download it from: none travels.
IMPORT = re.compile(r"^from (\w+)\.(\w+) import([^#\n]*?)[ ]*(?:#.*)?$", re.MULTILINE)


def pack(module: Path, folder: Path) -> None:
    """Write `module` and every module of a room that it imports, directly or through others, flat into `folder`.

    Raises ValueError if two of them have the same name.
    """
    packed: dict[Path, str] = {}
    waiting = [module]
    while waiting:
        path = waiting.pop()
        if path not in packed:
            text = path.read_text(encoding="utf-8")
            packed[path] = IMPORT.sub(_relative, text)
            waiting += [ROOT / room / f"{name}.py" for room, name, _ in IMPORT.findall(text) if _is_ours(room, name)]
    names = [path.stem for path in packed]
    if len(set(names)) < len(names):
        raise ValueError(f"{module}: two of the modules that it needs have the same name ({', '.join(sorted(names))})")
    indirect = [name for name in names[1:] if f"\nfrom .{name} import" not in packed[module]]
    packed[module] += "".join(f"from .{name} import __name__ as _{name}\n" for name in indirect)
    for path, text in packed.items():
        write_text(folder / path.name, text)


def add_pipeline(folder: Path) -> None:
    """Make a model's folder load as pipeline("abc-generation", trust_remote_code=True) where this project is not."""
    config = read_json(folder / "config.json", "model_type")
    task = {"impl": "abc_pipeline.AbcGenerationPipeline", "pt": ["AutoModelForCausalLM"], "type": "text"}
    write_json(folder / "config.json", {**config, "custom_pipelines": {"abc-generation": task}})
    pack(ROOT / "generation" / "abc_pipeline.py", folder)


def _is_ours(room: str, name: str) -> bool:
    return (ROOT / room / f"{name}.py").is_file()


def _relative(match: re.Match[str]) -> str:
    room, name, names = match.groups()
    return f"from .{name} import{names}" if _is_ours(room, name) else match[0]
