"""The page of tunes: all text is escaped, existing files are shown, no other script runs, and the player plays."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from generation.page import FOLDER, Tune, write_page

VOID = {"meta", "img", "input"}
NASTY = "</pre></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;"
ABC = f"X:1\nT:{NASTY}\nK:C\nCDEF|\n"
NOTES = [(0.0, 0.5, 60), (0.50001, 1.0, 64)]


class Reader(HTMLParser):
    """The elements and texts of a page; fails where tags are not nested."""

    def __init__(self, page):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.append([tag, ""])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.texts[-1][0] == self.open[-1]:
            self.texts[-1][1] += data

    def all(self, *tags):
        return [attributes for tag, attributes in self.elements if tag in tags]

    def text(self, tag):
        return [text for name, text in self.texts if name == tag]


def tune(stem, **changes):
    fields = {"name": f"Tune {stem}", "abc": ABC, "verdict": "Valid.", "valid": True, "facts": {}}
    return Tune(stem, **fields | changes)


@pytest.fixture
def page(tmp_path):
    """Three tunes: one with every file, one without sound, one with hostile text only."""
    for name in ("001.abc", "001.mid", "001.svg", "001.wav", "002.abc", "002.mid"):
        (tmp_path / name).touch()
    hostile = tune("003", name=NASTY, verdict=NASTY, facts={NASTY: NASTY}, valid=False)
    write_page(
        tmp_path, [tune("001", notes=NOTES), tune("002", notes=NOTES), hostile], {"model": NASTY, "seed": "0"}, NASTY
    )
    return (tmp_path / "index.html").read_text(encoding="utf-8")


def test_all_text_is_escaped(page):
    reader = Reader(page)
    assert reader.text("title") == reader.text("h1") == [NASTY]
    assert reader.text("pre") == [ABC.strip()] * 3
    assert reader.text("dt") == ["model", "seed", NASTY]
    assert reader.text("dd") == [NASTY, "0", NASTY]
    assert NASTY in reader.text("p")
    assert len(reader.all("script")) == 1
    assert [image["src"] for image in reader.all("img")] == ["001.svg"]
    assert not [name for attributes in reader.all("img", "a", "button") for name in attributes if name.startswith("on")]


def test_only_the_pages_style_and_script_are_allowed(page):
    reader = Reader(page)
    (policy,) = [meta["content"] for meta in reader.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == rules["media-src"] == "'self' file:"
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    assert not re.search(r"https?:|//[a-z]|url\(|@import|\bfetch\b|style=", page.replace(NASTY, ""))


def test_existing_files_are_shown_and_linked(page):
    reader = Reader(page)
    links = [a["href"] for a in reader.all("a")]
    assert [link for link in links if not link.startswith("#")] == [
        "001.abc", "001.mid", "001.svg", "001.wav", "002.abc", "002.mid",
    ]  # fmt: skip
    anchors = {article["id"] for article in reader.all("article")}
    assert {link[1:] for link in links if link.startswith("#")} == anchors == {"001", "002", "003"}
    assert [sound["src"] for sound in reader.all("audio")] == ["001.wav"]
    (player,) = [div for div in reader.all("div") if div.get("class") == "player"]
    assert json.loads(player["data-notes"]) == [[0, 0.5, 60], [0.5, 1, 64]]
    assert ["open" in details for details in reader.all("details")] == [
        False,
        True,
        True,
    ]  # open where there is no score
    assert "3 tunes, 2 of them valid" in page


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_player_plays_each_note_once_at_its_time():
    script = (
        (FOLDER / "page.js").read_text(encoding="utf-8")
        + """
    const tones = [];
    const node = () => ({connect() {}});
    const fake = {
      createGain: () => ({...node(), gain: {
        setValueAtTime() {}, linearRampToValueAtTime() {}, exponentialRampToValueAtTime() {}}}),
      createOscillator: () => { const tone = {...node(), frequency: {}, start(at) { this.at = at; },
        stop(at) { this.end = at; }}; tones.push(tone); return tone; },
    };
    const notes = [[0, 1, 69], [1.9, 0.5, 81], [2, 1, 57], [5, 1, 60]];
    schedule(fake, node(), notes, 10, 0, 2);
    schedule(fake, node(), notes, 10, 2, 4);
    console.log(JSON.stringify([tones.map((t) => [t.frequency.value, t.at, t.end]), clock(0), clock(65.9)]));
    """
    )
    run = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True)
    tones, *clocks = json.loads(run.stdout)
    assert [tone[0] for tone in tones] == [440, 880, 220]
    assert [tone[1] for tone in tones] == pytest.approx([10, 11.9, 12])
    assert [tone[2] for tone in tones] == pytest.approx([11.05, 12.45, 13.05])
    assert clocks == ["0:00", "1:05"]
