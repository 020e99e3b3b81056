"""Modules that Windows lacks, such as `resource`, are not needed to import a package or to convert scores."""

import subprocess
import sys
from pathlib import Path

from made_scores import events, midi, sounds

ROOT = Path(__file__).parent.parent
WINDOWS = """
import builtins, importlib, sys

found = builtins.__import__

def without_posix(name, globals=None, locals=None, fromlist=(), level=0):
    own = (globals or {}).get("__name__", "").split(".")[0] in ("cli", "preprocessing", "generation", "analysis")
    if own and name in ("resource", "fcntl", "grp", "pwd", "termios"):
        raise ImportError(name)
    return found(name, globals, locals, fromlist, level)

builtins.__import__ = without_posix  # libraries built for this system need them
"""


def on_windows(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in a Python that lacks what Windows lacks."""
    (folder / "script.py").write_text(WINDOWS + script, encoding="utf-8")
    return subprocess.run([sys.executable, folder / "script.py"], cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_module_imports(tmp_path):
    folders = [ROOT / package for package in ("preprocessing", "generation", "analysis")]
    names = [f"{path.parent.name}.{path.stem}" for folder in folders for path in sorted(folder.glob("[a-z]*.py"))]
    done = on_windows(f"for name in {names}: importlib.import_module(name)", tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(names) > 30


def test_scores_are_converted_with_a_warning(tmp_path):
    (tmp_path / "a.mid").write_bytes(midi(events(*sounds([62, 64, 66, 67]))))
    script = """
from pathlib import Path
from preprocessing.conversion import Score, convert_scores
from preprocessing.midi import midi_to_abc
if __name__ == "__main__":
    score = Score("a.mid", "midi", midi_to_abc, Path(__file__).with_name("a.mid").read_bytes())
    print(next(convert_scores([score], 1)).abc)
"""
    done = on_windows(script, tmp_path)
    assert "D2 E2 F2 G2|]" in done.stdout
    assert "memory" in done.stderr
