"""The report as one HTML file that needs nothing else: no network, no script, its figures within it."""

import base64
import re
from collections.abc import Container
from html import escape
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

from markdown_it import MarkdownIt
from markdown_it.token import Token

MIN_SECTIONS = 4  # shorter reports need no table of contents
SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", XLINK)  # HTML knows the attribute by this prefix alone

# The policy keeps a browser from loading anything from outside, whatever the text says.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ max-width: 50rem; margin: 0 auto; padding: 1rem; font: 1rem/1.55 system-ui, sans-serif;
  background: Canvas; color: CanvasText; overflow-wrap: break-word; }}
h1, h2, h3 {{ line-height: 1.25; margin: 1.6em 0 0.5em; }}
h1 {{ margin-top: 0.5em; }}
figure {{ margin: 1.5rem 0; }}
figure svg, figure img {{ display: block; max-width: 100%; height: auto; margin: 0 auto; background: white; }}
figcaption {{ font-size: 0.9rem; margin-top: 0.4rem; }}
.wide {{ overflow-x: auto; }}
@media (min-width: 60rem) {{
  .wide {{ width: fit-content; min-width: 100%; max-width: min(96vw, 84rem); position: relative; left: 50%;
    transform: translateX(-50%); }}
}}
table {{ border-collapse: collapse; width: max-content; font-size: 0.85rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.25rem 0.6rem; border-bottom: 1px solid #8888; max-width: 30rem; text-align: left; }}
pre {{ overflow-x: auto; }}
</style>
</head>
<body>
{body}</body>
</html>
"""


def write_page(markdown: str, figures: Path) -> str:
    """Return a report in Markdown as an HTML page; HTML in the report is shown as text.

    An image is name.svg of the folder `figures` if that is there, else name.png; image lines by themselves become
    figures with captions. Raises FileNotFoundError if there is neither, as for an image of the web.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    stream = parser.parse(markdown)
    tokens: list[Token] = []
    headings: dict[str, tuple[str, str]] = {}  # anchor: tag, text
    sections_start: int | None = None
    drawn = 0
    for i, token in enumerate(stream):
        if token.type == "heading_open":
            text = _text(stream[i + 1])
            anchor = _anchor(text, headings)
            headings[anchor] = (token.tag, text)
            token.attrSet("id", anchor)
            if token.tag == "h2" and sections_start is None:
                sections_start = len(tokens)
        elif token.type == "table_open":
            tokens.append(_html('<div class="wide" role="region" aria-label="table" tabindex="0">\n'))
        children = token.children or []
        images = [child for child in children if child.type == "image"]
        alone = bool(images) and all(child.type in ("image", "softbreak") for child in children)
        if alone:  # a paragraph cannot hold a figure
            stream[i - 1].tag = stream[i + 1].tag = "div"
        for image in images:
            drawn += 1
            caption = _text(image)
            picture = _picture(figures / unquote(str(image.attrs["src"])), caption, f"figure{drawn}")
            if alone:
                picture = f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"
            image.type, image.content = "html_inline", picture
        tokens.append(token)
        if token.type == "table_close":
            tokens.append(_html("</div>\n"))
    sections = [(anchor, text) for anchor, (tag, text) in headings.items() if tag == "h2"]
    if sections_start is not None and len(sections) >= MIN_SECTIONS:
        lines = "\n".join(f'<li><a href="#{anchor}">{escape(text)}</a></li>' for anchor, text in sections)
        tokens.insert(sections_start, _html(f'<nav aria-label="Contents">\n<ul>\n{lines}\n</ul>\n</nav>\n'))
    title = next((text for _, text in headings.values()), figures.name)
    return PAGE.format(title=escape(title), body=parser.renderer.render(tokens, parser.options, {}))


def _html(content: str) -> Token:
    return Token("html_block", "", 0, content=content)


def _text(token: Token) -> str:
    """Return the text of a heading or a caption without its marks."""
    return "".join(" " if child.type == "softbreak" else child.content for child in token.children or [])


def _anchor(text: str, taken: Container[str]) -> str:
    """Return a name for a heading that none has taken."""
    anchor = start = re.sub(r"\W+", "-", text.lower()).strip("-") or "section"
    number = 1
    while anchor in taken:
        number += 1
        anchor = f"{start}-{number}"
    return anchor


def _picture(path: Path, caption: str, prefix: str) -> str:
    """Return an image as HTML that holds all of it."""
    drawing = path.with_suffix(".svg")
    if drawing.is_file():
        return _inline_svg(drawing, caption, prefix)
    content = base64.b64encode(path.read_bytes()).decode()
    return f'<img src="data:image/png;base64,{content}" alt="{escape(caption)}">'


def _inline_svg(path: Path, caption: str, prefix: str) -> str:
    """Return a drawing as an element of a page; its names get a prefix, as those of two drawings may be the same."""
    root = ElementTree.parse(path).getroot()
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    for element in root.iter():
        for name, value in element.attrib.items():
            if name == "id":
                element.set(name, f"{prefix}-{value}")
            elif name in ("href", f"{{{XLINK}}}href") and value.startswith("#"):
                element.set(name, f"#{prefix}-{value[1:]}")
            else:
                element.set(name, value.replace("url(#", f"url(#{prefix}-"))
    root.set("role", "img")
    root.set("aria-label", caption)
    return ElementTree.tostring(root, encoding="unicode")
