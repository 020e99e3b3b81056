"""The demo's page in a browser: two tunes to see, hear and keep, figures to point at, by mouse and by keyboard.

What it computes is another test's matter: here a stand-in writes the tunes, which knows no model.
"""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest

from cli import UserError
from model_cards import vendor

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="gradio is not installed")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

ROOT = Path(__file__).parent.parent
ROOMS = (
    *("generation/__init__.py", "generation/page.js", "generation/rendering.py"),
    *("preprocessing/__init__.py", "preprocessing/notation.py"),
    *(f"preprocessing/abc_{part}.py" for part in ("fields", "lexer", "reader", "transcript", "voice")),
)
HOSTILE = "<img src=x onerror=\"document.title='taken'\">"
STAND_IN = r'''
"""Writes what depends on what is asked for alone; seed 7 copies, seed 13 is hostile."""
import json
from dataclasses import dataclass
from hashlib import sha256

HOSTILE = {HOSTILE}

@dataclass(frozen=True)
class Tune:
    abc: str
    valid: bool
    verdict: str
    bits_per_character: float
    nearest: str
    copied: bool
    notes: list
    midi: bytes | None
    messages: list
    settings: dict

class Studio:
    def __init__(self, folder):
        self.study = json.loads((folder / "study.json").read_text())
        self.names = self.study["names"]
        self.figures = self.study["figures"]

    def write(self, name, key, metre, temperature, seed, strict=False):
        if name not in self.names:
            raise ValueError(f"model {name!r}: there are others")
        if not isinstance(key, str) or len(key) > 20:
            raise ValueError("key: give a text of at most 20 characters")
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
            raise ValueError("seed: give a whole number")
        if isinstance(temperature, bool) or not isinstance(temperature, (int, float)) or not 0.1 <= temperature <= 2:
            raise ValueError("temperature: give a number")
        if not isinstance(strict, bool):
            raise ValueError("strict: true or false")
        if key == "H":
            raise ValueError("key: H is no key of ABC")
        asked = (name, key, metre, float(temperature), seed, strict)
        letters = ["CDEFGABcdefg"[byte % 12] for byte in sha256(repr(asked).encode()).digest()]
        bars = ["".join(letters[at : at + 4]) + " " + "".join(letters[at + 4 : at + 8]) for at in range(0, 32, 8)]
        title = HOSTILE if seed == 13 else f"Number {seed}"
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
    line = {"at": [15_000, 60_000, 240_000]}
    quality = [
        {"architecture": architecture, "size": "15k", "n_params": 16_980, "value": 0.1, "interval": [0.05, 0.2],
         "tunes": 100, "temperature": 0.9}
        for architecture in ("gpt", "lstm")
    ]  # fmt: skip
    return {
        "namespace": "someone",
        "licence": "For <b>nobody</b>.",
        "models": [{"model": "someone/abc-gpt"}, {"model": "someone/abc-lstm"}, {"model": "someone/abc-gpt"}],
        "training": {"repository": "someone/abc-tunes"},
        "names": ["GPT 15k", "GPT 120k", "LSTM 15k", "LSTM 120k", "LSTM 500k, trained further"],
        "figures": {
            "points": points,
            "curves": {
                "gpt": {**line, "loss": [1.6, 1.5, 1.4], "low": [1.5, 1.4, 1.3], "high": [1.7, 1.6, 1.5]},
                "lstm": {**line, "loss": [1.4, 1.3, 1.2], "low": [1.3, 1.2, 1.1], "high": [1.5, 1.4, 1.3]},
            },
            "baseline": {"order": 3, "validation_loss": 1.81},
            "quality": {"points": quality, "curves": {}, "people": {"share": 0.88}},
        },
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    shutil.copytree(ROOT / "model_cards" / "space", folder, dirs_exist_ok=True)
    for name in ROOMS:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    (folder / "studio.py").write_text(STAND_IN.replace("{HOSTILE}", repr(HOSTILE)))
    (folder / "study.json").write_text(json.dumps(study()))
    vendor.vendor_abcjs(folder)
    return folder


@pytest.fixture(scope="module")
def stand_in(folder):
    spec = importlib.util.spec_from_file_location("stand_in", folder / "studio.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Studio(folder)


@pytest.fixture(scope="module")
def address(folder):
    """The demo, served as a Space serves it, by a process of its own; it may not fail."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"GRADIO_SERVER_PORT": str(port), "PYTHONUNBUFFERED": "1", "GRADIO_TEMP_DIR": str(folder / "kept")}
    with log.open("w") as said:
        server = subprocess.Popen(
            [sys.executable, "app.py"], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=said, text=True
        )
    with server:
        first = next((line for line in server.stdout if "http://" in line), "")
        assert first.split()[-1:] == [f"http://127.0.0.1:{port}"], log.read_text()
        yield f"http://127.0.0.1:{port}/"
        server.terminate()
    assert "Traceback" not in log.read_text()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as driver:
        options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=options)
        context = browser.new_context()  # one for all, so that Gradio's scripts are read once
        context.add_init_script(COUNT_TONES)
        yield context
        browser.close()


@pytest.fixture
def open_page(browser, address):
    """Open the page at a width; no page may err, warn, or ask anybody else for anything."""
    pages, complaints = [], []

    def opener(width=1280, colours="light"):
        page = browser.new_page()
        pages.append(page)
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=colours)
        page.set_default_timeout(5_000)
        page.on("console", lambda said: said.type in ("error", "warning") and complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("response", lambda answer: answer.status >= 400 and complaints.append(answer.url))
        page.on(
            "request",
            lambda request: request.url.startswith((address, "data:")) or complaints.append(request.url),
        )
        page.goto(address)
        page.get_by_role("button", name="Generate").wait_for()
        return page

    yield opener
    for page in pages:
        page.close()
    assert complaints == []


COUNT_TONES = """
window.tones = 0;
window.contexts = [];
const Context = window.AudioContext;
window.AudioContext = class extends Context { constructor() { super(); contexts.push(this); } };
const start = OscillatorNode.prototype.start;
OscillatorNode.prototype.start = function (...when) { tones += 1; return start.apply(this, when); };
"""


def generate(page, seed=1):
    page.get_by_label("Seed", exact=True).fill(str(seed))
    page.get_by_role("button", name="Generate").click()
    tunes = [page.locator("article").nth(place) for place in range(2)]
    for tune in tunes:
        tune.locator("summary").wait_for()
        sync_api.expect(tune).to_contain_text(re.compile(rf"seed{seed}(?!\d)"), use_inner_text=False)
        tune.locator(".score svg .abcjs-notehead").first.wait_for(state="attached")
    return tunes


def facts(part):
    return dict(zip(part.locator("dt").all_inner_texts(), part.locator("dd").all_inner_texts(), strict=True))


def choose(page, label, option):
    page.get_by_label(label).click()
    page.get_by_role("option", name=option, exact=True).click()


@in_browser
def test_two_tunes_are_drawn_and_judged_side_by_side(open_page, stand_in):
    page = open_page()
    left, right = generate(page)
    for tune, name in ((left, "GPT 120k"), (right, "LSTM 120k")):
        expected = stand_in.write(name, "", "", 0.9, 1)
        assert tune.get_by_role("heading").inner_text() == name
        assert tune.locator("pre").text_content() == expected.abc.strip()
        assert tune.locator(".score svg .abcjs-notehead").count() == 32
        assert facts(tune)["Bits per character"] == "1.23"
        assert facts(tune)["Nearest training tune"] == "9 notes in a row of Number 1"
    marks = [
        tune.locator("p").first.evaluate("p => getComputedStyle(p, '::before').content + p.textContent")
        for tune in (left, right)
    ]
    assert marks == ['"○ "not valid: Number 1', '"✓ "valid: Number 1']
    assert left.bounding_box()["y"] == right.bounding_box()["y"]
    assert left.bounding_box()["x"] < right.bounding_box()["x"]
    said = page.locator(".said").last.get_by_role("status")
    assert said.inner_text() == "GPT 120k: not valid: Number 1. LSTM 120k: valid: Number 1"
    assert page.locator("html").get_attribute("lang") == "en"


@in_browser
def test_another_size_writes_another_tune_and_a_copy_is_called_one(open_page, stand_in):
    page = open_page()
    generate(page)
    choose(page, "Second model", "LSTM 15k")
    left, right = generate(page, seed=7)
    assert right.get_by_role("heading").inner_text() == "LSTM 15k"
    assert right.locator("pre").text_content() == stand_in.write("LSTM 15k", "", "", 0.9, 7).abc.strip()
    assert left.locator("pre").text_content() != right.locator("pre").text_content()
    assert "Copied, not composed: 9 notes in a row of Number 7" in right.locator(".copied").inner_text()


@in_browser
def test_play_sounds_the_notes_until_stop(open_page):
    page = open_page()
    left, right = generate(page)
    play = left.get_by_role("group").get_by_role("button")
    slider = left.get_by_role("slider")
    play.click()
    page.wait_for_function("tones > 5 && contexts[0].state === 'running'")
    page.wait_for_function("document.querySelector('.player input').value > 0.3")
    assert play.inner_text() == "Stop"
    right.get_by_role("group").get_by_role("button").click()  # one tune sounds at a time
    assert play.inner_text() == "Play"
    right.get_by_role("group").get_by_role("button").click()
    tones, place = page.evaluate("tones"), slider.input_value()
    page.wait_for_timeout(300)
    assert (page.evaluate("tones"), slider.input_value()) == (tones, place)


@in_browser
def test_the_files_hold_the_tune_that_is_shown(open_page):
    page = open_page()
    tune = generate(page)[1]
    for suffix, begins in (("ABC", "X:1\nT:Number 1\n"), ("MIDI", "MThdX:1\n")):
        with page.expect_download() as download:
            tune.get_by_role("link", name=f"Download {suffix}").click()
        assert download.value.suggested_filename == f"lstm-120k-seed-1.{suffix.lower()[:3]}"
        content = Path(download.value.path()).read_text()
        assert content.startswith(begins)
        assert content.removeprefix("MThd").strip() == tune.locator("pre").text_content()


@in_browser
def test_the_keyboard_alone_is_enough(open_page, stand_in):
    page = open_page()

    def tab_to(name):
        for _ in range(12):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                "(({ariaLabel, labels, textContent: t}) => ariaLabel || labels?.[0]?.textContent || t)"
                "(document.activeElement)"
            )
            if focused.strip().startswith(name):
                return
        pytest.fail(f"{name} is not reached")

    def pick(text):
        page.keyboard.press("Control+A")
        page.keyboard.type(text)
        page.wait_for_timeout(200)  # Gradio's list takes its time, shorter than a finger's
        page.keyboard.press("Enter")
        page.wait_for_timeout(200)

    tab_to("Write")
    tab_to("First model")
    pick("GPT 15k")
    tab_to("Second model")
    tab_to("Key")
    pick("Ddor")  # none of those on offer
    tab_to("Metre")
    tab_to("range slider for Temperature")
    page.keyboard.press("ArrowRight")
    tab_to("Seed")
    page.keyboard.press("Control+A")
    page.keyboard.type("3")
    tab_to("New seed")
    tab_to("Every bar must add up")
    page.keyboard.press("Space")
    tab_to("Generate")
    page.keyboard.press("Enter")
    expected = [stand_in.write(name, "Ddor", "", 0.95, 3, True).abc.strip() for name in ("GPT 15k", "LSTM 120k")]
    sync_api.expect(page.locator("pre").nth(1)).to_have_text(expected[1], use_inner_text=False)
    assert page.locator("pre").all_text_contents() == expected
    tab_to("Play")
    page.keyboard.press("Enter")
    page.wait_for_function("tones > 0")
    page.keyboard.press("Enter")
    tab_to("Place in the tune")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    tab_to("Notation and settings")
    page.keyboard.press("Enter")
    tab_to("X:1")
    tab_to("Copy")
    tab_to("Download ABC")
    tab_to("Download MIDI")
    tab_to("Play")


@in_browser
@pytest.mark.parametrize("width", [380, 1280])
def test_the_page_fits_its_window(open_page, tmp_path, width):
    page = open_page(width, "dark" if width == 380 else "light")
    generate(page)
    for tab in ("Write", "Figures", "About"):
        page.get_by_role("tab", name=tab).click()
        page.get_by_role("tabpanel").filter(visible=True).wait_for()
        page.screenshot(path=tmp_path / f"{tab}_{width}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") == width
    background = page.evaluate("getComputedStyle(document.querySelector('.gradio-container')).backgroundColor")
    assert background == ("rgb(23, 22, 20)" if width == 380 else "rgb(253, 252, 248)")


@in_browser
def test_a_point_shows_its_run_when_it_is_pointed_at_or_focused(open_page):
    page = open_page()
    page.get_by_role("tab", name="Figures").click()
    losses = page.locator(".figure").first
    run = losses.locator(".run")
    points = losses.locator(".point")
    points.nth(7).hover()  # waits for the figure to be drawn
    assert points.count() == 8
    assert run.get_by_role("heading").inner_text() == "LSTM 120k, seed 1"
    assert facts(run) == {
        "Parameters": "121,920",
        "Training tokens": "2,000,000",
        "Compute": "2.50 × 10¹¹ FLOP",
        "Validation loss": "1.310 nats per character",
        "Bits per character": "2.123",
        "Learning rate": "0.00263",
        "Training time": "21 s",
    }
    points.nth(7).focus()
    page.keyboard.press("ArrowLeft")
    assert run.get_by_role("heading").inner_text() == "LSTM 120k, seed 0"
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("LSTM 120k, seed 0, Para")
    shapes = {points.nth(place).locator(".mark").get_attribute("d") for place in (0, 7)}
    assert len(shapes) == 2  # not colour alone
    assert losses.locator("svg text.level").all_text_contents() == ["3-gram counts: 1.81"]
    quality = page.locator(".figure").nth(1)
    quality.locator(".point").nth(1).hover()
    assert facts(quality.locator(".run"))["Valid"] == "10 % [5 %, 20 %]"
    assert losses.locator("tbody tr").count() == 8


@in_browser
def test_the_page_tells_where_the_models_are_and_what_may_be_done_with_them(open_page):
    page = open_page()
    page.get_by_role("tab", name="About").click()
    about = page.get_by_role("tabpanel").filter(visible=True)
    assert "For <b>nobody</b>." in about.inner_text()
    addresses = about.get_by_role("link").evaluate_all("links => links.map((link) => link.href)")
    assert addresses[-3:] == [
        "https://huggingface.co/someone/abc-gpt",
        "https://huggingface.co/someone/abc-lstm",
        "https://huggingface.co/datasets/someone/abc-tunes",
    ]


@in_browser
def test_what_a_tune_says_stays_text(open_page):
    page = open_page()
    tune = generate(page, seed=13)[0]
    assert page.locator("img").count() == 0
    assert page.title() == "Music scaling laws"
    assert f"not valid: {HOSTILE}" in tune.inner_text()
    assert f"T:{HOSTILE}" in tune.locator("pre").text_content()
    assert "%%text" in tune.locator("pre").text_content()
    assert tune.locator(".score svg text").all_text_contents() == [HOSTILE]  # the title: no directive is obeyed


@in_browser
def test_what_cannot_be_done_is_said_in_one_line_in_place(open_page):
    page = open_page()
    generate(page)
    page.get_by_label("Key").fill("H")
    page.get_by_label("Key").press("Enter")
    page.get_by_role("button", name="Generate").click()
    alert = page.locator(".said").last.get_by_role("alert")
    sync_api.expect(alert).to_have_text("key: H is no key of ABC")
    page.wait_for_load_state("networkidle")  # one wish at a time: a click before the answer is whole is none
    assert page.locator("pre").count() == 2  # the tunes before it are still there
    page.get_by_label("Key").fill("G")
    page.get_by_label("Key").press("Enter")
    page.get_by_role("button", name="Generate").click()
    sync_api.expect(alert).to_have_text("")


def ask(address, *wish):
    """Return what the API's one function answers at last: what is said, and two tunes."""
    call = urllib.request.Request(
        f"{address}gradio_api/call/write", json.dumps({"data": wish}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(call, timeout=30) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{address}gradio_api/call/write/{event}", timeout=30) as answer:
        *_, (kind, data) = re.findall(r"event: (\w+)\ndata: (.*)\n", answer.read().decode())
    return kind, json.loads(data)


def test_fifty_people_at_once_each_get_their_own_tunes(address, stand_in):
    wishes = [("GPT 15k", "LSTM 120k", "G", "6/8", 0.5 + seed / 1000, seed, False) for seed in range(100, 150)]
    with ThreadPoolExecutor(50) as people:
        answers = list(people.map(lambda wish: ask(address, *wish), wishes))
    for (first, second, *rest), (kind, (_, *tunes)) in zip(wishes, answers, strict=True):
        assert kind == "complete"
        assert [tune["abc"] for tune in tunes] == [stand_in.write(name, *rest).abc for name in (first, second)]


def test_a_wish_of_any_length_is_answered_in_a_line(address):
    kind, (said, *_) = ask(address, "GPT 15k", "LSTM 15k", "G" * 10_000, "", 0.9, 1, False)
    assert (kind, said["error"]) == ("complete", "key: give a text of at most 20 characters")
    kind, (said, *_) = ask(address, "GPT 9000B", "LSTM 15k", "", "", 0.9, 1, False)
    assert (kind, said["error"]) == ("complete", "model 'GPT 9000B': there are others")


GOOD = ["GPT 15k", "LSTM 15k", "G", "6/8", 0.9, 1, False]


def put(place, value):
    return [*GOOD[:place], value, *GOOD[place + 1 :]]


@pytest.mark.parametrize(
    ("place", "value", "name"),
    [
        (0, None, "model"),
        (0, 3, "model"),
        (1, "", "model"),
        (2, 5, "key"),
        (4, float("nan"), "temperature"),
        (4, float("inf"), "temperature"),
        (4, None, "temperature"),
        (4, "0.9", "temperature"),
        (4, 10**300, "temperature"),
        (4, True, "temperature"),
        (5, None, "seed"),
        (5, float("nan"), "seed"),
        (5, "1", "seed"),
        (5, 1.5, "seed"),
        (5, 10**4000, "seed"),
        (6, None, "strict"),
        (6, "yes", "strict"),
    ],
)
def test_a_value_that_cannot_be_used_is_a_message_that_names_it(address, place, value, name):
    kind, (said, *_) = ask(address, *put(place, value))
    assert kind == "complete"
    assert said["error"].startswith(name)


def send(address, path, body, **headers):
    """Return the status of a POST, and what is answered."""
    call = urllib.request.Request(address + path, body, {"Content-Type": "application/json", **headers}, method="POST")
    try:
        with urllib.request.urlopen(call, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


CALLS = (
    "call/write",
    "call/write/",
    "call/v2/write",
    "run/write",
    "run/predict",
    "api/write",
    "api/predict",
    "queue/join",
)


@pytest.fixture
def stranger():
    """A server on this machine, and the requests that it gets: there must be none."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"secret" * 1000)

        do_HEAD = do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/x", asked
        server.shutdown()
        thread.join()


def file_data(path):
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


@pytest.mark.parametrize("path", CALLS)
def test_no_value_of_a_call_makes_the_server_fetch_or_keep_a_file(address, stranger, folder, path):
    url, asked = stranger
    values = [
        file_data(url),
        file_data(url) | {"url": url, "orig_name": "x", "is_stream": False},
        {"path": "x", "url": url, "meta": {"_type": "gradio.FileData"}},
        [file_data(url)],
        [[{"deep": [file_data(url)]}]],
        {"value": file_data(url)},
        file_data(f"file://{folder}/app.py"),
        file_data(str(folder / "app.py")),
        file_data("/etc/passwd"),
        {"path": url},
        {"path": url, "meta": None},
        {"path": url, "meta": "x"},
        {"__type__": "update", "value": file_data(url)},
    ]
    for value in values:
        for place in (0, 2, 5):
            data = put(place, value)
            body = {"data": data, "session_hash": "s", "fn_index": 1, "event_data": value, "simple_format": True}
            status, said = send(address, f"gradio_api/{path}", json.dumps(body).encode())
            assert status in (404, 422), said
            assert "secret" not in said
    named = dict(
        zip(("first", "second", "key", "metre", "temperature", "seed", "strict"), put(2, values[0]), strict=True)
    )
    assert send(address, f"gradio_api/{path}", json.dumps(named).encode())[0] in (404, 422)
    assert asked == []
    assert not [path for path in (folder / "kept").rglob("*") if path.is_file()]


def test_what_stands_beside_the_values_of_a_call_reaches_nobody(address, stranger):
    url, asked = stranger
    beside = {"event_data": file_data(url), "batched": True, "simple_format": True, "oauth_token": "x", "event_id": "x"}
    status, said = send(address, "gradio_api/call/write", json.dumps({"data": GOOD, **beside}).encode())
    assert status == 200
    with urllib.request.urlopen(f"{address}gradio_api/call/write/{json.loads(said)['event_id']}", timeout=30) as answer:
        assert "event: complete" in answer.read().decode()
    for name, value in {"session_hash": file_data(url), "fn_index": "1", "trigger_id": [1], "session_hash ": 1}.items():
        body = {"data": GOOD, "session_hash": "s", "fn_index": 1} | {name.strip(): value}
        assert send(address, "gradio_api/queue/join", json.dumps(body).encode())[0] == 422
    assert send(address, "gradio_api/queue/join", json.dumps(body | {"session_hash": "s" * 1000}).encode())[0] == 422
    assert asked == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (json.dumps({"data": GOOD[:-1]}), 422),
        (json.dumps({"data": [*GOOD, 1]}), 422),
        (json.dumps({"data": []}), 422),
        (json.dumps({"data": dict(enumerate(GOOD))}), 422),
        (json.dumps({"data": "GPT"}), 422),
        (json.dumps({}), 422),
        (json.dumps([GOOD]), 422),
        ("[" * 10_000, 400),
        ('{"data":' * 1000, 400),
        ("{", 400),
        ("", 400),
        ("\x00", 400),
        ("1" * 5000, 400),
        (" " * 2**15 + json.dumps({"data": GOOD}), 413),
    ],
)
@pytest.mark.parametrize("path", ["call/write", "queue/join"])
def test_a_body_that_is_no_wish_is_refused_with_a_message(address, path, body, status):
    found, said = send(address, f"gradio_api/{path}", body.encode())
    assert found == status, said
    assert json.loads(said)["detail"]


@pytest.mark.parametrize("path", ["call/write", "cancel", "reset"])
def test_a_body_without_an_end_is_cut_off(address, path):
    place = urlsplit(address)
    for head, chunk in (
        ("Transfer-Encoding: chunked", b"4000\r\n" + b" " * 0x4000 + b"\r\n"),
        (f"Content-Length: {10**15}", b" " * 0x4000),
    ):
        with socket.create_connection((place.hostname, place.port), timeout=20) as line:
            line.sendall(f"POST /gradio_api/{path} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
            with contextlib.suppress(ConnectionError):
                for _ in range(50):
                    line.sendall(chunk)
            answer = b""
            with contextlib.suppress(ConnectionError):
                answer = line.recv(1000)
            assert not answer or answer.startswith(b"HTTP/1.1 413"), answer
            sent = 0
            with contextlib.suppress(ConnectionError):
                for _ in range(500):
                    sent += line.send(chunk)
            assert sent < 500 * len(chunk)


def test_nothing_but_the_pages_own_files_is_served(address, folder):
    def status(path, data=None):
        try:
            with urllib.request.urlopen(address + path, data, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    assert status(f"gradio_api/file={folder}/vendor/abcjs/abcjs-basic-min.js") == 200
    for path in ("/etc/passwd", f"{folder}/study.json", f"{folder}/app.py", f"{folder}/vendor/../app.py", "study.json"):
        assert status(f"gradio_api/file={path}") in (403, 404)
    for path in ("gradio_api/file=https://example.org/", "gradio_api/file=HTTP://example.org/", "proxy=http://e.org/"):
        assert status(path) == 404
    for path in (
        "upload",
        "gradio_api/upload",
        "gradio_api//upload",
        "gradio_api/upload/",
        "gradio_api/login",
        "login",
    ):
        assert status(path, b"--x--") in (404, 405)
    for path in ("component_server", "process_recording", "stream/1", "vibe-code", "run-history/connect", "reload"):
        assert status(f"gradio_api/{path}", b"{}") == 404
    assert status("gradio_api/deep_link?session_hash=s") == 404


def test_abcjs_comes_with_its_licence(folder):
    assert "Permission is hereby granted, free of charge" in (folder / "vendor/abcjs/LICENSE.md").read_text()


@pytest.mark.parametrize(
    ("script", "line"),
    [
        (None, "npm is missing, which fetches abcjs"),
        ("echo 'npm error 404 Not Found' >&2; exit 1", "npm pack abcjs@6.7.2 fails: npm error 404 Not Found"),
        ('echo other > "${5#*=}"/abcjs-6.7.2.tgz', "its sha512 is"),
    ],
)
def test_abcjs_that_cannot_be_had_or_is_another_is_refused_in_one_line(tmp_path, monkeypatch, script, line):
    monkeypatch.setattr(vendor, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin" if script else "/nowhere")
    if script:
        (tmp_path / "npm").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "npm").chmod(0o755)
    with pytest.raises(UserError, match=re.escape(line)) as raised:
        vendor.vendor_abcjs(tmp_path / "folder")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "folder").exists()
