"""The report as one page: nothing is loaded, nothing clashes, text stays text."""

import base64
import re
from collections import Counter
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure

from analysis.page import write_page

VOID = {"meta", "img", "br", "hr", "link", "input"}
LONG = """# Laws of <b> & others

First words.

## What was measured

| size | loss |
|---|---:|
| <b> | 1.5 |

## Laws

![A law of <i>](law.png)
![Bars](<the bars.png>)

## Laws

![The law again](law.png) and ![bars](<the bars.png>) among words.

## Over sizes

<script>alert(1)</script> <img src=x>
"""


class Reader(HTMLParser):
    """Reads a page, and fails where a tag does not close the one that is open."""

    def __init__(self, page):
        super().__init__()
        self.open, self.elements, self.texts = [], [], {}
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in self.open:
            self.texts[tag] = self.texts.get(tag, "") + data

    def all(self, *tags):
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture
def folder(tmp_path):
    canvas = Figure(figsize=(3, 2))
    axes = canvas.add_subplot()
    axes.plot([1, 2], [1, 2], label="a < b & c")
    axes.legend()
    for name in ("law.png", "law.svg", "the bars.png"):
        canvas.savefig(tmp_path / name)
    return tmp_path


@pytest.fixture
def page(folder):
    return Reader(write_page(LONG, folder))


def test_a_page_is_well_formed_and_has_its_title_language_and_width(page, folder):
    assert page.texts["title"] == "Laws of <b> & others"
    assert page.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert Reader(write_page("Words.", folder)).texts["title"] == folder.name


def test_nothing_is_loaded_from_anywhere(folder, page):
    text = write_page(LONG, folder)
    assert not page.all("script", "link", "iframe", "object", "image")
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert re.search(r'http-equiv="Content-Security-Policy" content="default-src \'none\'', text)
    with pytest.raises(FileNotFoundError):
        write_page("![x](https://example.org/x.png)", folder)


def test_drawings_are_inlined_and_other_figures_are_data(folder, page):
    assert [drawing["aria-label"] for drawing in page.all("svg")] == ["A law of <i>", "The law again"]
    images = page.all("img")
    assert [image["alt"] for image in images] == ["Bars", "bars"]
    assert base64.b64decode(images[0]["src"].partition(",")[2]) == (folder / "the bars.png").read_bytes()
    assert len(page.all("figure")) == 2  # images among words stay among them
    assert page.texts["figcaption"] == "A law of <i>Bars"


def test_the_same_drawing_twice_keeps_its_names_apart_and_its_references_whole(folder, page):
    text = write_page(LONG, folder)
    names = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert set(names.values()) == {1}
    used = [attributes["xlink:href"][1:] for attributes in page.all("use")] + re.findall(r"url\(#(.*?)\)", text)
    assert len(used) > 10
    assert set(used) <= set(names)
    assert {name.partition("-")[0] for name in used} == {"figure1", "figure3"}


def test_html_in_the_report_is_text(page):
    assert not page.all("b", "i", "script")
    assert "<script>alert(1)</script>" in page.texts["p"]
    assert "<b>" in page.texts["td"]


def test_headings_have_distinct_anchors_and_a_table_of_contents_leads_to_them(folder, page):
    anchors = [attributes["id"] for attributes in page.all("h1", "h2")]
    assert anchors == ["laws-of-b-others", "what-was-measured", "laws", "laws-2", "over-sizes"]
    assert [link["href"] for link in page.all("a")] == [f"#{anchor}" for anchor in anchors[1:]]
    tags = [tag for tag, _ in page.elements]
    assert tags.index("h1") < tags.index("nav") < tags.index("h2")
    assert not Reader(write_page("# A\n\n## B\n\n## C\n\n## D\n", folder)).all("nav")


def test_a_table_scrolls_within_the_page(page):
    tags = [tag for tag, _ in page.elements]
    before = page.elements[tags.index("table") - 1]
    assert before == ("div", {"class": "wide", "role": "region", "aria-label": "table", "tabindex": "0"})
    assert {"style": "text-align:right"} in page.all("td")
