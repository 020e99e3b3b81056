"""Small runs for tests: configurations, and training on whatever corpus a test has."""

from dataclasses import asdict, replace
from zlib import crc32

from modeling.shapes import SIZES, shape_of
from training import models, single_run
from training.arguments import StudyArguments
from training.config import RunConfig
from training.execution import ExecutionConfig
from training.planning import PlannedRun, plan_run

VOCABULARY = 85  # of the bundled corpus; only an LSTM's shape depends on it


def made_config(architecture="gpt", size="15k", *, corpus="0123456789abcdef", context=64, **changes) -> RunConfig:
    """A configuration of a short run; an unknown size gets a shape that no model is built to."""
    shape = shape_of(architecture, size if size in SIZES else "15k", VOCABULARY, context)
    if size not in SIZES:
        shape = replace(shape, width=crc32(size.encode()))
    short = {"tokens": 12_000, "learning_rate": 5e-3, "warmup_tokens": 252, "n_keys": 1}
    fixed = {"architecture": architecture, "size": size, "corpus": corpus, "context": context}
    return RunConfig(**short | asdict(shape) | fixed | changes)


def with_corpus(config, corpus):
    """The configuration on a corpus, with the shape that its size has there."""
    config = replace(config, corpus=corpus.digest(), n_keys=corpus.n_keys)
    if config.init_from is not None:
        return config
    shape = shape_of(config.architecture, config.size, len(corpus.vocabulary), config.context)
    return replace(config, **asdict(shape))


def planned(config, folder, corpus, **relations) -> PlannedRun:
    """The planned run of a configuration, on a corpus that it was not made for."""
    return plan_run(with_corpus(config, corpus), folder, corpus, **relations)


def quiet(tokens, loss):
    pass


def train(config, folder, corpus, execution=None, progress=quiet, **relations):
    """Train one run and return its record."""
    run = planned(config, folder, corpus, **relations)
    return single_run.train(run, corpus, progress, execution or ExecutionConfig())


def build_model(config, corpus):
    return models.build_model(with_corpus(config, corpus), corpus)


def made_study(output_dir="data", **changes) -> StudyArguments:
    """The arguments of a small study, as made_config has its runs."""
    short = {"context": 64, "warmup_tokens": 252, "precision": "fp32", "output_dir": str(output_dir)}
    short |= {"gpt_sizes": ["15k", "30k"], "lstm_sizes": ["15k"], "tokens": [] if "flops" in changes else [50_000]}
    return StudyArguments(**short | changes)


def with_config(record, **changes):
    """The record of the same run under a configuration with changes."""
    config = replace(record.config, **changes)
    return replace(record, config=config, config_hash=config.config_hash)
