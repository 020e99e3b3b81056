"""The demo's page in a browser, by mouse and by keyboard."""

import importlib.util
import re
import shutil
from pathlib import Path

import pytest
from demo_stand_in import HOSTILE, serve

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("gradio") is None, reason="chromium or gradio is not installed"
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("demo")) as demo:
        yield demo


COUNT_TONES = """
window.tones = 0;
window.contexts = [];
const Context = window.AudioContext;
window.AudioContext = class extends Context { constructor() { super(); contexts.push(this); } };
const start = OscillatorNode.prototype.start;
OscillatorNode.prototype.start = function (...when) { tones += 1; return start.apply(this, when); };
"""


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
def open_page(browser, demo):
    """Open the page at a width; no page may log an error or a warning, or request anything from another server."""
    pages, complaints = [], []

    def opener(width=1280, colours="light"):
        page = browser.new_page()
        pages.append(page)
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=colours)
        page.set_default_timeout(10_000)
        page.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("response", lambda answer: answer.status >= 400 and complaints.append(answer.url))
        page.on("request", lambda asked: asked.url.startswith((demo.address, "data:")) or complaints.append(asked.url))
        page.goto(demo.address)
        page.get_by_role("button", name="Generate").wait_for()
        return page

    yield opener
    for page in pages:
        page.close()
    assert complaints == []


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


def test_two_tunes_are_drawn_judged_played_and_downloaded_side_by_side(open_page, demo):
    page = open_page()
    page.get_by_label("Second model").click()
    page.get_by_role("option", name="LSTM 15k", exact=True).click()
    left, right = generate(page, seed=7)
    for tune, name in ((left, "GPT 120k"), (right, "LSTM 15k")):
        assert tune.get_by_role("heading").inner_text() == name
        assert tune.locator("pre").text_content() == demo.studio.write(name, "", "", 0.9, 7).abc.strip()
        assert tune.locator(".score svg .abcjs-notehead").count() == 32
        assert "9 notes in a row of Number 7" in tune.locator(".copied").inner_text()
        assert facts(tune)["Bits per character"] == "1.23"
    verdict = "p => getComputedStyle(p, '::before').content + p.textContent"
    marks = [tune.locator("p").first.evaluate(verdict) for tune in (left, right)]
    assert marks == ['"○ "not valid: Number 7', '"✓ "valid: Number 7']
    assert left.bounding_box()["y"] == right.bounding_box()["y"]
    assert left.bounding_box()["x"] < right.bounding_box()["x"]
    status = page.locator(".status").last.get_by_role("status")
    assert status.inner_text() == "GPT 120k: not valid: Number 7. LSTM 15k: valid: Number 7"
    for suffix, begins in (("ABC", "X:1\nT:Number 7\n"), ("MIDI", "MThdX:1\n")):
        with page.expect_download() as download:
            right.get_by_role("link", name=f"Download {suffix}").click()
        assert download.value.suggested_filename == f"lstm-15k-seed-7.{suffix.lower()[:3]}"
        content = Path(download.value.path()).read_text()
        assert content.startswith(begins)
        assert content.removeprefix("MThd").strip() == right.locator("pre").text_content()
    play, play_right = (tune.get_by_role("group").get_by_role("button") for tune in (left, right))
    play.click()
    page.wait_for_function("tones > 5 && contexts[0].state === 'running'")
    page.wait_for_function("document.querySelector('.player input').value > 0.3")
    assert play.inner_text() == "Stop"
    play_right.click()  # one tune sounds at a time
    assert play.inner_text() == "Play"
    play_right.click()
    tones = page.evaluate("tones")
    page.wait_for_timeout(300)
    assert page.evaluate("tones") == tones
    assert facts(generate(page)[0])["Nearest training tune"] == "9 notes in a row of Number 1"


def test_the_keyboard_alone_is_enough(open_page, demo):
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
    pick("Ddor")  # not in the list
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
    expected = [demo.studio.write(name, "Ddor", "", 0.95, 3, True).abc.strip() for name in ("GPT 15k", "LSTM 120k")]
    sync_api.expect(page.locator("pre").nth(1)).to_have_text(expected[1], use_inner_text=False)
    assert page.locator("pre").all_text_contents() == expected
    tab_to("Play")
    page.keyboard.press("Enter")
    page.wait_for_function("tones > 0")
    page.keyboard.press("Enter")
    tab_to("Position in the tune")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab_to("Notation and settings")
    page.keyboard.press("Enter")
    for name in ("X:1", "Copy", "Download ABC", "Download MIDI", "Play"):
        tab_to(name)


@pytest.mark.parametrize(("width", "colours"), [(380, "dark"), (1280, "light")])
def test_every_tab_fits_its_window(open_page, width, colours):
    page = open_page(width, colours)
    generate(page)
    for tab in ("Write", "Figures", "About"):
        page.get_by_role("tab", name=tab).click()
        page.get_by_role("tabpanel").filter(visible=True).wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == width
    about = page.get_by_role("tabpanel").filter(visible=True)
    assert "For <b>nobody</b>." in about.inner_text()
    addresses = about.get_by_role("link").evaluate_all("links => links.map((link) => link.href)")
    paths = ("someone/abc-gpt", "someone/abc-lstm", "datasets/someone/abc-tunes")
    assert addresses[-3:] == [f"https://huggingface.co/{path}" for path in paths]
    background = page.evaluate("getComputedStyle(document.querySelector('.gradio-container')).backgroundColor")
    assert background == ("rgb(23, 22, 20)" if colours == "dark" else "rgb(253, 252, 248)")


def test_a_point_shows_its_run_on_hover_and_on_focus(open_page):
    page = open_page()
    page.get_by_role("tab", name="Figures").click()
    losses = page.locator(".figure").first
    run, points = losses.locator(".run"), losses.locator(".point")
    points.nth(7).hover()  # waits for the figure to be drawn
    assert points.count() == losses.locator("tbody tr").count() == 8
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


def test_a_tune_is_shown_as_text_and_stays_after_an_impossible_request(open_page):
    page = open_page()
    tune = generate(page, seed=13)[0]
    assert page.locator("img").count() == 0
    assert page.title() == "Music scaling laws"
    assert f"not valid: {HOSTILE}" in tune.inner_text()
    assert f"T:{HOSTILE}" in tune.locator("pre").text_content()
    assert "%%text" in tune.locator("pre").text_content()
    assert tune.locator(".score svg text").all_text_contents() == [HOSTILE]  # the title: directives are ignored
    alert = page.locator(".status").last.get_by_role("alert")
    for key, message in (("H", "key: H is no key of ABC"), ("G", "")):
        page.get_by_label("Key").fill(key)
        page.get_by_label("Key").press("Enter")
        page.get_by_role("button", name="Generate").click()
        sync_api.expect(alert).to_have_text(message)
        page.wait_for_load_state("networkidle")  # a click before the whole answer is ignored
        sync_api.expect(page.locator("pre")).to_have_count(2)
