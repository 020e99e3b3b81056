"""What fewer tunes, more keys and stateful training change in the loss, each against the same runs without it."""

from collections import defaultdict
from typing import Any

import numpy as np

from analysis.intervals import Interval, mean_intervals
from analysis.runs import Run, Runs

PART, KEYS, STATE, STATE_RESET, LONGER = "part", "keys", "state", "state reset", "longer"
KINDS = (PART, KEYS, STATE, STATE_RESET, LONGER)


def loss_differences(runs: Runs) -> list[dict[str, Any]]:
    """Return what each ablation changes in the validation loss of one architecture: a row a setting and comparison.

    `difference` is a mean over seeds, in nats per character, from the run of the same size, seed and budget: on all
    tunes (`against` "part"), in the tunes' own keys ("keys"), or with sequences that start without state ("state"; in
    "state reset" the sequences of the validation split start without state for both, so that training alone differs).
    For "longer" it is the difference from the next smaller budget, `from_budget`, on the same part of the tunes.
    `interval` is Student's, 95 %, with one variance for all rows of a kind; (None, None) without a second seed.
    """
    by_place = {_place(run): run for run in runs}
    pairs: dict[tuple[Any, ...], list[tuple[Run, float, float]]] = defaultdict(list)
    for (size, seed, budget, ablation), run in by_place.items():
        fraction, keys, stateful = ablation
        part_alone = fraction < 1 and keys == 1 and not stateful
        shorter = max((b for s, n, b, a in by_place if (s, n, a) == (size, seed, ablation) and b < budget), default=0)
        for against, applies, from_budget, base, score in (
            (PART, part_alone, budget, (1, 1, False), "validation_loss"),
            (KEYS, keys > 1 and not stateful, budget, (fraction, 1, False), "validation_loss"),
            (STATE, stateful, budget, (fraction, keys, False), "validation_loss"),
            (STATE_RESET, stateful, budget, (fraction, keys, False), "validation_loss_reset"),
            (LONGER, part_alone, shorter, ablation, "validation_loss"),
        ):
            other = by_place.get((size, seed, from_budget, base))
            if applies and other is not None:
                setting = against, run["n_params"], size, budget, fraction, keys, from_budget
                pairs[setting].append((run, run[score], other["validation_loss"]))
    differences = {setting: np.array([loss - base for _, loss, base in members]) for setting, members in pairs.items()}
    means: dict[tuple[Any, ...], tuple[float, Interval]] = {}
    for kind in KINDS:
        settings = [setting for setting in differences if setting[0] == kind]
        means |= dict(zip(settings, mean_intervals([differences[s] for s in settings]), strict=True))
    rows = []
    for setting in sorted(differences, key=lambda setting: (*setting[:4], -setting[4], *setting[5:])):
        against, _, size, budget, fraction, keys, from_budget = setting
        difference, interval = means[setting]
        rows.append(
            {
                "against": against,
                "size": size,
                "budget": budget,
                "from_budget": from_budget,
                "data_fraction": fraction,
                "keys": keys,
                "epochs": pairs[setting][0][0]["epochs"],
                "seeds": len(differences[setting]),
                "loss": float(np.mean([loss for _, loss, _ in pairs[setting]])),
                "difference": difference,
                "interval": list(interval),
            }
        )
    return rows


def _place(run: Run) -> tuple[str, int, int, tuple[float, int, bool]]:
    return run["size"], run["seed"], run["budget"], (run["data_fraction"], run["n_keys"], run["stateful"])
