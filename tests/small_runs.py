"""Small runs for tests: configurations, and training on whatever corpus a test has."""

from dataclasses import asdict, replace
from zlib import crc32

from modeling.ladder import LADDER, shape_of
from training import loop, models, study
from training.config import RunConfig
from training.grid import Recipe

VOCABULARY = 85  # of the bundled corpus; only what an LSTM's shape is matched with before a corpus is known


def made_config(architecture="gpt", size="15k", *, corpus="0123456789abcdef", context=64, **changes) -> RunConfig:
    """A configuration of a short run; a size that is no rung of the ladder has a shape that no model is built to."""
    rung = size if size in LADDER else "15k"
    values = {
        "n_keys": 1, "data_fraction": 1.0, "sequences": "windows", "stream_groups": 16, "batch_size": 4,
        "activation": "gelu", "slowest_wave": 100.0, "forget_bias": 1.0, "dropout": 0.0,
        "init_from": None, "init_sha256": None,
        "tokens": 12_000, "learning_rate": 5e-3, "schedule": "cosine", "warmup_tokens": 252, "cooldown_tokens": 0,
        "final_lr_fraction": 0.01, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.98, "adam_epsilon": 1e-8,
        "clip_norm": 1.0, "precision": "fp32", "seed": 0,
    }  # fmt: skip
    shape = asdict(shape_of(architecture, rung, VOCABULARY, context))
    if rung != size:  # a shape of its own
        shape["width"] = crc32(size.encode())
    fixed = {"architecture": architecture, "size": size, "corpus": corpus, "context": context}
    return RunConfig(**values | shape | fixed | changes)


def with_corpus(config, corpus):
    """The configuration on a corpus, with the shape that its size has there."""
    config = replace(config, corpus=corpus.digest(), n_keys=corpus.n_keys)
    if config.init_from is not None:
        return config
    shape = shape_of(config.architecture, config.size, len(corpus.vocabulary), config.context)
    return replace(config, **asdict(shape))


def train(plan, corpus, progress, execution):
    """training.loop.train, whatever corpus the plan was made for."""
    return loop.train(replace(plan, config=with_corpus(plan.config, corpus)), corpus, progress, execution)


def build_model(config, corpus):
    return models.build_model(with_corpus(config, corpus), corpus)


def make_job(plan, corpus, rule=None):
    return study.make_job(replace(plan, config=with_corpus(plan.config, corpus)), corpus, rule)


RECIPE = Recipe(batch_size=4, context=64, warmup_tokens=252, precision="fp32")  # as made_config has it


def with_config(record, **changes):
    """The record of the same run under a configuration with changes."""
    config = replace(record.config, **changes)
    return replace(record, config=config, config_hash=config.config_hash)
