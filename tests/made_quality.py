"""Made contents of quality.json: scores of tunes that were never generated, drawn from known curves."""

import numpy as np
from scipy.special import expit, logit

from generation.quality_vs_size import DISTANCES
from generation.shares import share

SIZES = {"15k": 1.7e4, "30k": 2.9e4, "60k": 6.2e4, "120k": 1.2e5, "250k": 2.5e5, "500k": 4.9e5}
TEMPERATURES = (0.8, 1.0, 1.2)
HUMAN = {"parses": 0.995, "bars_add_up": 0.9, "tonic_ending": 0.8, "copied": 0.01}
HUMAN_TUNES = {"validation": 740, "test": 865}
TRAINING_DISTANCE = 0.03


def rising(n50, per_decade=2.0, ceiling=0.9, chance=0.0):
    """A share that passes halfway from chance to its ceiling at n50, at any loss."""
    return lambda n, _: chance + (ceiling - chance) * expit(per_decade * np.log10(n / n50))


def constant(value):
    """The same at every size and loss."""
    return lambda *_: value


def both(function):
    """The same truth for both architectures."""
    return {"gpt": function, "lstm": function}


def loss_of(architecture, n):
    """The LSTM reaches a lower loss at each size; both reach 1.2 to 1.4."""
    return (1.0 if architecture == "gpt" else 0.85) + 8 * n**-0.25


def number(mean, relative, draw):
    """A number with an interval of its noise."""
    value, reach = float(mean * np.exp(draw.normal(0, relative))), 1.96 * relative * mean
    return {"value": value, "interval": [value - reach, value + reach]}


def made_study(
    shares, distances=None, numbers=None, *, sizes=SIZES, seeds=(0, 1, 2), temperatures=(1.0,), seed=0, **how
):
    """A study with shares, distances and numbers {metric: {architecture: function of (n, loss)}}.

    `samples` tunes a cell; `spread`: standard deviation of logits over runs; `best`: the temperature at which distances
    are least.
    """
    samples, spread, best = how.get("samples", 200), how.get("spread", 0.0), how.get("best", 1.0)
    distances, numbers = distances or {}, numbers or {}
    draw = np.random.default_rng(seed)
    cells = []
    for architecture in dict.fromkeys(name for truth in shares.values() for name in truth):
        for size, run in ((size, run) for size in sizes for run in seeds):
            n = sizes[size]
            loss = loss_of(architecture, n) * np.exp(draw.normal(0, 0.003))
            off = draw.normal(0, 1, len(shares))
            for temperature in temperatures:
                found = {"shares": {}, "numbers": {}, "test_numbers": {}}
                for (name, truth), moved in zip(shares.items(), off, strict=True):
                    mean = np.clip(truth[architecture](n, loss), 0, 1)
                    p = mean if mean in (0, 1) else expit(logit(mean) + spread * moved)
                    found["shares"][name] = share(int(draw.binomial(samples, p)), samples)
                for name, truth in distances.items():
                    mean = truth[architecture](n, loss) * (1 + 2 * (temperature - best) ** 2)
                    for split in ("numbers", "test_numbers"):
                        found[split][name] = number(mean, 0.05, draw)
                for name, truth in numbers.items():
                    found["numbers"][name] = number(truth[architecture](n, loss), 0.03, draw)
                model = {"architecture": architecture, "size": size, "seed": run, "n_params": int(n)}
                model |= {"n_params_non_embedding": int(n * 0.9) - 5000, "validation_loss": loss}
                cells.append(model | {"temperature": temperature, "bars": "free", "samples": samples, **found})
    human = {
        split: {
            "shares": {name: share(round(HUMAN.get(name, 0.9) * total), total) for name in shares},
            "numbers": {name: {"value": 0.2, "interval": [0.18, 0.22]} for name in numbers},
        }
        for split, total in HUMAN_TUNES.items()
    }
    baselines = {
        name: {"value": TRAINING_DISTANCE, "interval": [0.02, 0.045]} for name in DISTANCES if name in distances
    }
    return {"cells": cells, "best": [], "human": human, "floors": baselines, "judges": None}
