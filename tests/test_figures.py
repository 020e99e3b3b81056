"""A figure differs from one with a part missing, and not from one with its text drawn differently."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from pictures import MAX_BYTES, REFERENCES, TOLERANCE, WIDTH, distance, shrink
from PIL import Image

BLUE, RED = "#0072B2", "#D55E00"


def draw(path, change=None, colours=(BLUE, RED), **style):
    """Two laws over points with a legend, changed before it is written."""
    with mpl.rc_context({"figure.dpi": 150, "font.size": 9, "savefig.bbox": "tight", **style}):
        canvas = Figure(figsize=(5.2, 3.7), layout="constrained")
        axes = canvas.add_subplot(xscale="log", yscale="log", xlabel="parameters N", ylabel="validation loss")
        n = np.geomspace(2e4, 5e5, 6)
        for e, colour in zip((1.2, 1.0), colours, strict=True):
            axes.plot(n, e + 30 / n**0.45, "o", color=colour, ms=4, mfc="none")
            axes.plot(n, e + 30 / n**0.45, color=colour, lw=1.3, label=f"a law with E = {e:.3f}")
        axes.legend(fontsize=8)
        if change is not None:
            change(axes)
        canvas.savefig(path)
    return path


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return shrink(draw(tmp_path_factory.mktemp("reference") / "law.png"))


@pytest.mark.parametrize("style", [{}, {"text.hinting": "none"}, {"figure.dpi": 152}, {"font.size": 9.1}])
def test_a_figure_is_like_itself_with_text_drawn_differently(tmp_path, reference, style):
    assert distance(draw(tmp_path / "law.png", **style), reference) <= TOLERANCE


CHANGES = {
    "a line is missing": lambda axes: axes.lines[3].remove(),
    "the points of a law are missing": lambda axes: axes.lines[2].remove(),
    "the legend is missing": lambda axes: axes.get_legend().remove(),
    "a label is missing": lambda axes: axes.set_xlabel(" "),
    "an axis is linear": lambda axes: axes.set_xscale("linear"),
    "a line is elsewhere": lambda axes: axes.lines[3].set_ydata(1.03 * axes.lines[3].get_ydata()),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_figure_differs_from_its_reference(tmp_path, reference, change):
    assert distance(draw(tmp_path / "law.png", change), reference) > TOLERANCE


def test_other_colours_and_another_shape_are_seen(tmp_path, reference):
    assert distance(draw(tmp_path / "law.png", colours=(RED, BLUE)), reference) > TOLERANCE
    with Image.open(draw(tmp_path / "law.png")) as picture:
        picture.resize((picture.width, picture.height + 30)).save(tmp_path / "tall.png")
    assert distance(tmp_path / "tall.png", reference) == 1.0


def test_references_are_small():
    for path in REFERENCES.glob("*.png"):
        with Image.open(path) as picture:
            assert picture.width <= WIDTH
        assert path.stat().st_size <= MAX_BYTES
