"""Figures look like their references, small pictures that are kept beside the tests; a missing line is seen.

Text is drawn a little differently by every version of matplotlib, and a legend moves with it. So pictures are compared
small and blurred, tile by tile, each tile where it fits best within a few pixels; the worst tile counts, as a thin line
hardly moves the mean of a picture. For a new or changed figure: pytest --rewrite-references, then look at it.
"""

from pathlib import Path

import numpy as np
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
