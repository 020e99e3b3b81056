"""The demo's folder with a stand-in that writes the tunes and knows no model, and its server."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from model_cards import vendor
from model_cards.demo_folder import PLAYER, ROOT, SPACE, closure

HOSTILE = "<img src=x onerror=\"document.title='taken'\">"
STAND_IN = r'''
"""Writes tunes that depend only on the request; seed 7 copies, seed 13 is hostile."""
import json
from dataclasses import make_dataclass
from hashlib import sha256

FIELDS = "abc valid verdict bits_per_character nearest copied notes midi messages settings"
Tune = make_dataclass("Tune", FIELDS.split())

class Studio:
    def __init__(self, folder):
        self.study = json.loads((folder / "study.json").read_text())
        self.names = self.study["names"]
        self.figures = self.study["figures"]

    def write(self, name, key, metre, temperature, seed, strict=False):
        if name not in self.names or not isinstance(key, str) or key == "H":
            raise ValueError("key: H is no key of ABC")
        asked = (name, key, metre, float(temperature), seed, strict)
        letters = ["CDEFGABcdefg"[byte % 12] for byte in sha256(repr(asked).encode()).digest()]
        bars = ["".join(letters[at : at + 4]) + " " + "".join(letters[at + 4 : at + 8]) for at in range(0, 32, 8)]
        title = {HOSTILE} if seed == 13 else f"Number {seed}"
        header = f"X:1\nT:{title}\nM:{metre or '4/4'}\nL:1/8\nK:{key or 'C'}\n"
        abc = header + "%%text " + title + "\n" + "|".join(bars) + "|]\n"
        valid = name.startswith("LSTM")
        return Tune(
            abc, valid, f"{'valid' if valid else 'not valid'}: {title}", 1.2345, f"9 notes in a row of {title}",
            seed == 7, [[0.2 * place, 0.2, 60 + place % 12] for place in range(32)], b"MThd" + abc.encode(),
            [title] if seed == 13 else [], {"model": name, "key": key, "seed": seed},
        )
'''  # fmt: skip


def study():
    points = [
        {"architecture": architecture, "size": size, "seed": seed, "n_params": n_params, "tokens": 2_000_000,
         "flops": 2.5e11, "seconds": 21.4, "learning_rate": 0.00263, "validation_loss": loss + seed / 100,
         "validation_bits_per_character": 2.123}
        for architecture, loss in (("gpt", 1.5), ("lstm", 1.3))
        for size, n_params in (("15k", 16_980), ("120k", 121_920))
        for seed in (0, 1)
    ]  # fmt: skip
    curve = {"at": [15_000, 60_000, 240_000], "loss": [1.6, 1.5, 1.4], "low": [1.5, 1.4, 1.3], "high": [1.7, 1.6, 1.5]}
    share = {"size": "15k", "n_params": 16_980, "value": 0.1, "interval": [0.05, 0.2], "tunes": 100, "temperature": 0.9}
    shares = [{"architecture": architecture, **share} for architecture in ("gpt", "lstm")]
    return {
        "namespace": "someone",
        "licence": "For <b>nobody</b>.",
        "models": [{"model": "someone/abc-gpt"}, {"model": "someone/abc-lstm"}, {"model": "someone/abc-gpt"}],
        "training": {"repository": "someone/abc-tunes"},
        "names": ["GPT 15k", "GPT 120k", "LSTM 15k", "LSTM 120k", "LSTM 500k, trained further"],
        "figures": {
            "points": points,
            "curves": {"gpt": curve, "lstm": curve},
            "baseline": {"order": 3, "validation_loss": 1.81},
            "quality": {"points": shares, "curves": {}, "human": 0.88},
        },
    }


def make_folder(folder):
    """Fill the folder of a demo."""
    shutil.copytree(SPACE, folder, dirs_exist_ok=True)
    for path in (PLAYER, *closure([SPACE / "app.py"])):
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)
    (folder / "studio.py").write_text(STAND_IN.replace("{HOSTILE}", repr(HOSTILE)))
    (folder / "study.json").write_text(json.dumps(study()))
    vendor.vendor_abcjs(folder)


class Demo(NamedTuple):
    """A demo that is served: its folder, its address, and the stand-in that writes its tunes."""

    folder: Path
    address: str
    studio: object


@contextmanager
def serve(folder):
    """Serve a demo in another process, as a Space does; it may not fail."""
    make_folder(folder)
    spec = importlib.util.spec_from_file_location("stand_in", folder / "studio.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"GRADIO_SERVER_PORT": str(port), "PYTHONUNBUFFERED": "1", "GRADIO_TEMP_DIR": str(folder / "kept")}
    command = [sys.executable, "app.py"]
    with log.open("w") as errors:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    with server:
        first = next((line for line in server.stdout if "http://" in line), "")
        assert first.split()[-1:] == [f"http://127.0.0.1:{port}"], log.read_text()
        yield Demo(folder, f"http://127.0.0.1:{port}/", module.Studio(folder))
        server.terminate()
    assert "Traceback" not in log.read_text()
