"""The report as one page: nothing is loaded, nothing clashes, text stays text."""

import base64
import re
from collections import Counter
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure

from analysis.page import write_page

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Reader(HTMLParser):
    """Reads a page, and fails where a tag does not close the one that is open."""

    def __init__(self, page):
        super().__init__()
        self.open, self.elements, self.texts, self.shown = [], [], {}, []
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
        self.shown.append(data)
        for tag in self.open:
            self.texts[tag] = self.texts.get(tag, "") + data

    def all(self, *tags):
        return [attributes for tag, attributes in self.elements if tag in tags]


def draw(path):
    """Two panels with a clipped line and a legend, as matplotlib writes them."""
    canvas = Figure(figsize=(3, 2))
    axes = canvas.add_subplot()
    axes.plot([1, 2], [1, 2], label="a < b & c")
    axes.legend()
    canvas.savefig(path)


@pytest.fixture
def folder(tmp_path):
    draw(tmp_path / "law.png")
    draw(tmp_path / "law.svg")
    draw(tmp_path / "bars.png")
    return tmp_path


LONG = """# Laws of <b> & others

First words.

## What was measured

| size | loss |
|---|---:|
| <b> | 1.5 |

## Laws

![A law of <i>](law.png)
![Bars](bars.png)

## Laws

![The law again](law.png)

## Over sizes
"""


def test_a_page_is_well_formed_and_has_its_title_language_and_width(folder):
    page = Reader(write_page(LONG, folder))
    assert page.texts["title"] == "Laws of <b> & others"
    assert page.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert {"charset": "utf-8"} in page.all("meta")


def test_nothing_is_loaded_from_anywhere(folder):
    text = write_page(LONG, folder)
    page = Reader(text)
    assert not page.all("script", "link", "iframe", "object", "image")
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert re.search(r'http-equiv="Content-Security-Policy" content="default-src \'none\'', text)


def test_an_image_of_the_web_is_no_file_and_so_refused(folder):
    with pytest.raises(FileNotFoundError):
        write_page("![x](https://example.org/x.png)", folder)


def test_drawings_are_inlined_and_other_figures_are_data(folder):
    page = Reader(write_page(LONG, folder))
    assert [drawing["aria-label"] for drawing in page.all("svg")] == ["A law of <i>", "The law again"]
    [image] = page.all("img")
    assert image["alt"] == "Bars"
    assert base64.b64decode(image["src"].partition(",")[2]) == (folder / "bars.png").read_bytes()
    assert len(page.all("figure")) == 3
    assert page.texts["figcaption"] == "A law of <i>BarsThe law again"
    assert "p" not in page.texts or "Bars" not in page.texts["p"]


def test_the_same_drawing_twice_keeps_its_names_apart_and_its_references_whole(folder):
    text = write_page(LONG, folder)
    page = Reader(text)
    names = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert set(names.values()) == {1}
    used = [attributes["xlink:href"][1:] for attributes in page.all("use")] + re.findall(r"url\(#(.*?)\)", text)
    assert len(used) > 10
    assert set(used) <= set(names)
    assert {name.partition("-")[0] for name in used} == {"figure1", "figure3"}


def test_html_in_the_report_is_text(folder):
    page = Reader(write_page("# <b>\n\n<script>alert(1)</script> <img src=x>\n\n| a |\n|---|\n| <i> |\n", folder))
    assert not page.all("b", "i", "script", "img")
    assert "<script>alert(1)</script>" in page.texts["p"]
    assert "<i>" in page.texts["td"]
    assert "<b>" in page.texts["h1"]


def test_headings_have_anchors_of_their_own_and_a_table_of_contents_leads_to_them(folder):
    page = Reader(write_page(LONG, folder))
    anchors = [attributes["id"] for attributes in page.all("h1", "h2")]
    assert anchors == ["laws-of-b-others", "what-was-measured", "laws", "laws-2", "over-sizes"]
    assert [link["href"] for link in page.all("a")] == [f"#{anchor}" for anchor in anchors[1:]]
    tags = [tag for tag, _ in page.elements]
    assert tags.index("h1") < tags.index("nav") < tags.index("h2")


def test_a_short_report_has_no_table_of_contents(folder):
    assert not Reader(write_page("# A\n\n## B\n\n## C\n\n## D\n", folder)).all("nav")


def test_a_table_scrolls_within_the_page(folder):
    page = Reader(write_page(LONG, folder))
    tags = [tag for tag, _ in page.elements]
    assert page.elements[tags.index("table") - 1] == (
        "div",
        {"class": "wide", "role": "region", "aria-label": "table", "tabindex": "0"},
    )
    assert {"style": "text-align:right"} in page.all("td")


def test_an_image_among_words_stays_among_them(folder):
    page = Reader(write_page("See ![bars](bars.png) here.", folder))
    assert not page.all("figure")
    assert [image["alt"] for image in page.all("img")] == ["bars"]


def test_a_figure_with_a_space_in_its_name_is_found(folder):
    (folder / "bars.png").rename(folder / "the bars.png")
    assert len(Reader(write_page("![x](<the bars.png>)", folder)).all("img")) == 1


def test_a_report_without_a_heading_is_titled_by_its_folder(folder):
    assert Reader(write_page("Words.", folder)).texts["title"] == folder.name
