"""Made-up runs under known laws, as rows of analysis, as records and as a table of runs."""

from dataclasses import fields

import numpy as np
from small_runs import made_config

from analysis.runs import row_of
from files import write_json
from training.config import RunConfig
from training.record import BASELINE, FINISHED, RunRecord, run_folder, write_record
from training.runs_table import Row, write_runs

SIZES = np.geomspace(2e4, 2e7, 8)
SEEDS = (0, 1, 2)
UNIQUE = 2_000_000
POSITIONS = 255
CORPUS = "0123456789abcdef"


def flops_per_token(n):
    """More than 6N at small sizes, as attention is."""
    return 6 * n + 2000 * n**0.5


def made_run(architecture, size, seed, n_params, loss, tokens=1_000_000, data_fraction=1.0, keys=1, **changes):
    """The row of a run of `tokens` tokens on a fraction of the tunes, in `keys` keys."""
    unique = round(UNIQUE * data_fraction)
    curve = {"step": [10, 20, 40], "tokens": [tokens / 4, tokens / 2, tokens], "seconds": [5.0, 10.0, 20.0]}
    curve |= {"loss": [loss * 1.5, loss * 1.2, loss]}
    per_token = flops_per_token(n_params)
    seen = np.arange(1, POSITIONS + 1)
    config = made_config(architecture, size, seed=seed, tokens=tokens, data_fraction=data_fraction, n_keys=keys)
    record = RunRecord(
        status=FINISHED,
        config=config,
        config_hash=config.config_hash,
        n_params=int(n_params),
        n_params_non_embedding=int(n_params * 0.9) - 5000,
        steps=40,
        tokens=tokens,
        unique_tokens=unique,
        epochs=tokens / unique / keys,
        flops_per_token=per_token,
        flops=per_token * tokens,
        seconds=20.0 * n_params**0.5,
        tokens_per_second=tokens / (20.0 * n_params**0.5),
        peak_memory_bytes=int(5e7 + 16 * n_params),
        validation_loss=loss,
        validation_loss_standard_error=0.01,
        validation_bits_per_character=loss / np.log(2),
        validation_tokens=100_000,
        validation_loss_by_position=(loss * (1 + 0.5 / seen)).tolist(),
        train_curve={**curve, "learning_rate": [1e-3, 1e-3, 0.0]},
        validation_curve={**curve, "characters": 8160},
    )
    return row_of(record) | changes


def record_of(row):
    """The record whose row that is."""
    config = RunConfig(**{f.name: row["budget" if f.name == "tokens" else f.name] for f in fields(RunConfig)})
    named = {f.name: row[f.name] for f in fields(RunRecord) if f.name in row}
    return RunRecord(**named | {"config": config, "config_hash": config.config_hash})


def made_ladder(
    architecture, law, noise=0.002, sizes=SIZES, seeds=SEEDS, tokens=(1_000_000,), fractions=(1.0,), keys=1, **changes
):
    """Runs of one architecture under a law of (N, D, U, keys); the two architectures' noise and sizes differ a little.

    Budgets of one size, seed and part share most of their noise, as branches of a trunk do.
    """
    draw = np.random.default_rng([len(architecture), 7])
    runs = []
    for n in sizes:
        matched = n * (1.01 if architecture == "lstm" else 1)
        for seed in seeds:
            for fraction in fractions:
                shared = draw.normal(0, noise)
                for budget in tokens:
                    own = draw.normal(0, noise / 3) if len(tokens) > 1 else 0.0
                    loss = float(law(matched, budget, UNIQUE * fraction, keys) * np.exp(shared + own))
                    size = f"{n / 1e3:.0f}k"
                    runs.append(made_run(architecture, size, seed, matched, loss, budget, fraction, keys, **changes))
    return runs


def power_law(e, a, alpha):
    return lambda n, *_: e + a * n**-alpha


GPT_LAW, LSTM_LAW = power_law(1.0, 30, 0.35), power_law(1.2, 8, 0.2)


def repeated_law(e, a, alpha, b, beta, star, worth=0.3):
    """Chinchilla's law with repeated and transposed data."""

    def law(n, d, u, keys):
        unique = np.minimum(u * (1 + worth * (keys - 1)), d)
        effective = unique * (1 + star * -np.expm1(-(d / unique - 1) / star))
        return e + a * n**-alpha + b * effective**-beta

    return law


def made_ladders(gpt=GPT_LAW, lstm=LSTM_LAW, **changes):
    return {"gpt": made_ladder("gpt", gpt, **changes), "lstm": made_ladder("lstm", lstm, **changes)}


def write_study(root, ladders):
    """Write the records where training does."""
    for record in (record_of(row) for rows in ladders.values() for row in rows):
        write_record(run_folder(root, record.config), record)


def write_table(folder, ladders, more=(), baseline=1.6):
    """Write runs.parquet with the runs as study "cpu" and the rows `more`, and an n-gram baseline beside it."""
    rows = [Row("cpu", "ladders", record_of(run)) for runs in ladders.values() for run in runs]
    write_runs(folder / "runs.parquet", [*rows, *more])
    orders = [{"order": n, "validation_loss": baseline + 0.1 * (5 - n), "bits_per_character": 2.0} for n in (3, 4, 5)]
    best = {"order": 5, "validation_loss": baseline, "bits_per_character": baseline / np.log(2)}
    write_json(folder / BASELINE, {"corpus": CORPUS, "smoothing": "Witten-Bell", **best, "orders": orders})
    return folder / "runs.parquet"
