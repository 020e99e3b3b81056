"""Model cards: the numbers of a study's records, put into model_card.md.j2."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from typing import Any

from analysis.fits_json import NAMES, difference_verdict, verdict
from analysis.intervals import Z
from cli import UserError
from files import render
from generation.abc_pipeline import TASK
from model_cards.releases import MAIN, Release
from model_cards.results import FORMULAS, SMALL_MODEL, Results, chosen_fits, compared_laws, select_tunes
from preprocessing.dataset_card import UNKNOWN_LICENCE, non_commercial
from training.config import RunConfig
from training.record import RunRecord, read_record

TEMPLATE = Path(__file__).parent / "model_card.md.j2"
CARD = "README.md"
LAW_FIGURE, QUALITY_FIGURE = "combined_scaling_laws.png", "quality_over_size.png"


@dataclass(frozen=True)
class Links:
    """What a card refers to: the names under which model and data are loaded, and the paths of its figures."""

    model: str  # a folder, or an id on the Hub
    revision: str = MAIN
    dataset: str | None = None  # an id on the Hub
    law_figure: str = f"../comparison_analysis/{LAW_FIGURE}"
    quality_figure: str = f"../generation_analysis/{QUALITY_FIGURE}"
    scores: str = "samples"

    @property
    def arguments(self) -> str:
        """The arguments of from_pretrained, as Python code."""
        return f'"{self.model}"' + ("" if self.revision == MAIN else f', revision="{self.revision}"')


def model_card(
    results: Results, record: RunRecord, tunes: Sequence[dict[str, Any]], links: Links, sizes: Sequence[Release] = ()
) -> str:
    """Return the card of a record's model; `tunes` are written by it, `sizes` lists its architecture's releases."""
    config = record.config
    fits = chosen_fits(results.fits)
    values = {parameter: row["value"] for parameter, row in fits[config.architecture]["parameters"].items()}
    return render(
        TEMPLATE,
        name=f"abc-{config.architecture}-{config.size}",
        record=record,
        config=config,
        links=links,
        losses=_losses(record),
        cells=results.cells(record),
        shares={tier: results.shares(record, tier) for tier in ("valid", "copied")},
        sizes=[(release, _losses(release.record)[0], results.shares(release.record, "valid")) for release in sizes],
        fits=fits,
        comparisons=compared_laws(results.fits),
        predicted=values.get("E", 0.0) + values["A"] * record.n_params ** -values["alpha"],
        tunes=select_tunes([*tunes]),
        search=results.search,
        command=_command(config),
        corpus=results.corpus,
        non_commercial=non_commercial(results.corpus),
        licence=licence_terms(results.corpus),
        unknown_licence=UNKNOWN_LICENCE,
        names=NAMES,
        laws=FORMULAS,
        verdict=verdict,
        difference_verdict=difference_verdict,
        task=TASK,
    )


def best_card(results: Results) -> str:
    """Return the card of the best model, for a folder that also holds its samples."""
    return model_card(results, results.best, results.samples["samples"], Links(results.best_folder))


def small_model_card(results: Results, folder: Path) -> str:
    """Return the card of the small published model whose record is in `folder`. Raises UserError if there is none."""
    record = read_record(folder)
    if record is None:
        raise UserError(f"{folder} holds no model: run model_cards/publish.py")
    return model_card(results, record, [], Links(f"results/{SMALL_MODEL}"))


def _losses(record: RunRecord) -> list[dict[str, Any]]:
    """Return bits per character and perplexity of each measured split, test first, with 95 % intervals over tunes."""
    rows = []
    for split in ("test", "validation"):
        loss, error = getattr(record, f"{split}_loss"), getattr(record, f"{split}_loss_standard_error")
        if loss is None:
            continue
        for kind, label, scale in (
            ("bits_per_character", "bits per character", lambda nats: nats / log(2)),
            ("perplexity", "perplexity per character", exp),
        ):
            interval = [scale(loss - Z * (error or 0.0)), scale(loss + Z * (error or 0.0))]
            rows.append({"type": kind, "name": f"{split} {label}", "value": scale(loss), "interval_95": interval})
    return rows


def _command(config: RunConfig) -> str:
    """Return the command that trains a run again."""
    if config.init_from:
        return (
            f"accelerate launch training/best.py --tokens {config.tokens}  # and the study's folder, corpus and search"
        )
    named = ("tokens", "data_fraction", "sequences", "schedule", "warmup_tokens", "batch_size", "context")
    flags = "".join(f" --{name} {getattr(config, name)}" for name in (*named, "weight_decay", "precision"))
    model = f"--{config.architecture}_sizes {config.size} --{config.architecture}_lr_rule {config.learning_rate}"
    return f"accelerate launch training/run.py {model} --seeds {config.seed}{flags}"


def licence_terms(corpus: dict[str, Any]) -> str:
    """Return what may be done with models of a corpus, from the licences in its statistics."""
    bound = " and ".join(non_commercial(corpus))
    if bound:
        return f"Non-commercial use only, for models and the tunes that they write: the licence of {bound} says so."
    return "The licences of the training tunes decide what may be done with the models and the tunes that they write."
