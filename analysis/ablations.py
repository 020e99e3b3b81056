"""What fewer tunes, more keys and carried state change, each against the same runs without it."""

from collections import defaultdict
from typing import Any

import numpy as np

from analysis.intervals import Interval, mean_intervals
from analysis.runs import Run, Runs

PART, KEYS, STATE, STATE_RESET, LONGER = "part", "keys", "state", "state reset", "longer"
KINDS = (PART, KEYS, STATE, STATE_RESET, LONGER)
Place = tuple[float, int, bool]  # fraction of the data, keys, whether training is stateful


def arm_differences(runs: Runs) -> list[dict[str, Any]]:
    """Return what a part of the tunes, more keys and carried state change in the validation loss of one architecture.

    A row is one size, budget, fraction of the data, number of keys and way with state. `difference` is its mean over
    seeds, in nats per character, from the run of the same size, seed and budget on all of the tunes (`against` "part"),
    on the same part in its own keys ("keys"), or with windows that begin without state ("state"; in "state reset" the
    windows of the validation split begin without state for both, so that training alone differs). Under "longer" it is
    the difference from the next smaller budget, `from_budget`, on the same part. `interval` is Student's, 95 %, with
    one variance for all rows of a kind, as each has few seeds; its edges are None where no row has two.
    """
    by_place = {_place(run): run for run in runs}
    pairs: dict[tuple[Any, ...], list[tuple[Run, float, float]]] = defaultdict(list)
    for (size, seed, budget, arm), run in by_place.items():
        fraction, keys, carried = arm
        part_alone = fraction < 1 and keys == 1 and not carried
        shorter = max((b for s, n, b, a in by_place if (s, n, a) == (size, seed, arm) and b < budget), default=0)
        for against, changed, from_budget, base, score in (
            (PART, part_alone, budget, (1, 1, False), "validation_loss"),
            (KEYS, keys > 1 and not carried, budget, (fraction, 1, False), "validation_loss"),
            (STATE, carried, budget, (fraction, keys, False), "validation_loss"),
            (STATE_RESET, carried, budget, (fraction, keys, False), "validation_loss_reset"),
            (LONGER, part_alone, shorter, arm, "validation_loss"),
        ):
            other = by_place.get((size, seed, from_budget, base))
            if changed and other is not None:
                members = run, run[score], other["validation_loss"]
                pairs[against, run["n_params"], size, budget, fraction, keys, from_budget].append(members)
    differences = {place: np.array([loss - base for _, loss, base in members]) for place, members in pairs.items()}
    means: dict[tuple[Any, ...], tuple[float, Interval]] = {}
    for kind in KINDS:
        places = [place for place in differences if place[0] == kind]
        means |= dict(zip(places, mean_intervals([differences[place] for place in places]), strict=True))
    rows = []
    for place in sorted(differences, key=lambda place: (*place[:4], -place[4], *place[5:])):
        against, _, size, budget, fraction, keys, from_budget = place
        mean, interval = means[place]
        rows.append(
            {
                "against": against,
                "size": size,
                "budget": budget,
                "from_budget": from_budget,
                "data_fraction": fraction,
                "keys": keys,
                "epochs": pairs[place][0][0]["epochs"],
                "seeds": len(differences[place]),
                "loss": float(np.mean([loss for _, loss, _ in pairs[place]])),
                "difference": mean,
                "interval": list(interval),
            }
        )
    return rows


def _place(run: Run) -> tuple[str, int, int, Place]:
    return run["size"], run["seed"], run["budget"], (run["data_fraction"], run["n_keys"], run["stateful"])
