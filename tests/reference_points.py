"""The runs of Hoffmann et al. 2022 that tests fit; tests/data/README.md has their source."""

import csv
from pathlib import Path

import numpy as np

POINTS = Path(__file__).parent / "data" / "chinchilla_svg_extracted_data.csv"


def read_points():
    """All 245 points: n, d and loss."""
    with POINTS.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    n, c, loss = (np.array([float(row[name]) for row in rows]) for name in ("Model Size", "Training FLOP", "loss"))
    return {"n": n, "d": c / 6 / n, "loss": loss}


def read_kept_points():
    """The 240 points whose loss is below the fifth largest."""
    points = read_points()
    kept = points["loss"] < np.sort(points["loss"])[-5]
    return {name: values[kept] for name, values in points.items()}
