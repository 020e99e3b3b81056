"""Figures look like their references, small pictures that are kept beside the tests; a missing line is seen.

Text is drawn a little differently by every version of matplotlib, and a legend moves with it. So pictures are compared
small and blurred, tile by tile, each tile where it fits best within a few pixels; the worst tile counts, as a thin line
hardly moves the mean of a picture. For a new or changed figure: pytest --rewrite-references, then look at it.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image, ImageFilter
from scipy.ndimage import uniform_filter

REFERENCES = Path(__file__).parent / "references"
WIDTH = 240  # pixels of a reference; a figure of two panels needs pictures of its panels
PALETTE = 256  # colours
MAX_BYTES = 15_000
TILE = 8  # pixels
REACH = 3  # pixels that a tile may be moved
MAX_STRETCH = 0.03  # of the ratio of width and height
# Measured with figures of one panel: matplotlib 3.10 against 3.11 up to 0.066, a law's line missing 0.089.
TOLERANCE = 0.07


def shrink(path):
    """Return the picture of a figure as it is kept, in few colours."""
    with Image.open(path) as picture:
        size = WIDTH, round(picture.height * WIDTH / picture.width)
        small = picture.convert("RGB").resize(size, Image.Resampling.BOX)
    return small.quantize(PALETTE, dither=Image.Dither.NONE)


def distance(figure, reference):
    """Return how far a figure's file is from a picture: the worst tile's root mean square, 1 from black to white."""
    with Image.open(figure) as picture:
        stretch = picture.width / picture.height * reference.height / reference.width
        small = picture.convert("RGB").resize(reference.size, Image.Resampling.BOX)
    if abs(stretch - 1) > MAX_STRETCH:
        return 1.0
    blur = ImageFilter.GaussianBlur(1)
    one, other = (np.asarray(p.filter(blur), float) / 255 for p in (small, reference.convert("RGB")))
    return max(_worst_tile(one, other), _worst_tile(other, one))


def _worst_tile(one, other):
    """Return the distance of the tile of `one` that is least like any place near it in `other`: [height, width, 3]."""
    height, width, _ = one.shape
    padded = np.pad(other, ((REACH, REACH), (REACH, REACH), (0, 0)), mode="edge")
    moves = range(2 * REACH + 1)
    errors = [
        uniform_filter(((one - padded[y : y + height, x : x + width]) ** 2).mean(axis=2), TILE)
        for y in moves
        for x in moves
    ]
    return float(np.sqrt(np.min(errors, axis=0).clip(0).max()))


@pytest.fixture
def assert_looks_like(request):
    """assert_looks_like(figure_path, name): the figure is like tests/references/<name>.png."""

    def check(figure, name):
        path = REFERENCES / f"{name}.png"
        if request.config.getoption("--rewrite-references"):
            REFERENCES.mkdir(exist_ok=True)
            shrink(figure).save(path, optimize=True)
        assert path.is_file(), f"{path} is missing: pytest --rewrite-references writes it"
        assert path.stat().st_size <= MAX_BYTES
        with Image.open(path) as reference:
            found = distance(figure, reference)
        assert found <= TOLERANCE, f"{figure} differs from {path} by {found:.3f}: look at both"

    return check


# The comparison itself

BLUE, RED = "#0072B2", "#D55E00"


def draw(path, change=None, colours=(BLUE, RED), **style):
    """Two laws over points with a legend, changed before it is written."""
    with mpl.rc_context({"figure.dpi": 150, "font.size": 9, "savefig.bbox": "tight", **style}):
        canvas = Figure(figsize=(5.2, 3.7), layout="constrained")
        axes = canvas.add_subplot(xscale="log", yscale="log", xlabel="parameters N", ylabel="validation loss")
        n = np.geomspace(2e4, 5e5, 6)
        for floor, colour in zip((1.2, 1.0), colours, strict=True):
            axes.plot(n, floor + 30 / n**0.45, "o", color=colour, ms=4, mfc="none")
            axes.plot(n, floor + 30 / n**0.45, color=colour, lw=1.3, label=f"a law with a floor of {floor:.3f}")
        axes.legend(fontsize=8)
        if change is not None:
            change(axes)
        canvas.savefig(path)
    return path


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return shrink(draw(tmp_path_factory.mktemp("reference") / "law.png"))


@pytest.mark.parametrize("style", [{}, {"text.hinting": "none"}, {"figure.dpi": 152}, {"font.size": 9.1}])
def test_a_figure_is_like_itself_with_text_drawn_otherwise(tmp_path, reference, style):
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
def test_a_changed_figure_is_told_from_its_reference(tmp_path, reference, change):
    assert distance(draw(tmp_path / "law.png", change), reference) > TOLERANCE


def test_swapped_colours_are_told(tmp_path, reference):
    assert distance(draw(tmp_path / "law.png", colours=(RED, BLUE)), reference) > TOLERANCE


def test_a_figure_of_another_shape_is_told(tmp_path, reference):
    with Image.open(draw(tmp_path / "law.png")) as picture:
        picture.resize((picture.width, picture.height + 30)).save(tmp_path / "tall.png")
    assert distance(tmp_path / "tall.png", reference) == 1.0


def test_references_are_small():
    for path in REFERENCES.glob("*.png"):
        with Image.open(path) as picture:
            assert picture.width <= WIDTH
        assert path.stat().st_size <= MAX_BYTES
