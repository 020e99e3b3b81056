"""Model cards, written from the records: no number is typed in here."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from analysis.intervals import Z
from analysis.report import AXIS_WORDS, chosen_fit, exponent_sentence, find_comparison, law_line
from generation.abc_pipeline import TASK
from model_cards.releases import MAIN, Release
from model_cards.results import Results, model_lines, percent, share_lines, shown_tunes
from model_cards.screen import facts_of
from preprocessing.dataset_card import UNKNOWN_LICENCE, non_commercial
from training.config import RunConfig
from training.record import RunRecord

LAWS_COMPARED = ("power_irreducible", "power")  # of N: exponents with a floor and without one are not alike
LAW_FIGURE, QUALITY_FIGURE = "combined_scaling_laws.png", "quality_over_size.png"


@dataclass(frozen=True)
class Place:
    """Where a card stands: what a reader types to load the model and the data, and where the pictures are."""

    model: str  # a folder, or an id on the Hub
    revision: str = MAIN
    dataset: str | None = None  # an id on the Hub
    figures: str = "figures"
    scores: str = "samples"

    @property
    def arguments(self) -> str:
        return f'"{self.model}"' + ("" if self.revision == MAIN else f', revision="{self.revision}"')


def model_card(
    results: Results,
    record: RunRecord,
    tunes: Sequence[dict[str, Any]],
    place: Place,
    shelf: Sequence[Release] = (),
) -> str:
    """Return the card of a record's model; `tunes` are written by it, `shelf` its architecture's releases."""
    config = record.config
    name = f"abc-{config.architecture}-{config.size}"
    kind = "the best run of a scaling study, trained further" if config.init_from else "one size of a scaling study"
    sections = [
        f"---\n{_metadata(results, record, name, place).to_yaml()}\n---\n\n# {name}",
        f"A character-level language model of ABC notation, {kind}.",
        _listed([*model_lines(record), *share_lines(results, record, "valid", "valid")]),
        _sizes(results, shelf, place),
        _use(record, place),
        _law(results, record, place),
        _tunes(tunes, place),
        _quality(results, place),
        _memorisation(results, record),
        _limits(record),
        _training(results, record),
        _data(results, place),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _metadata(results: Results, record: RunRecord, name: str, place: Place) -> ModelCardData:
    """Return what the Hub reads of a card; intervals (95 %) stand in the metrics' arguments."""
    values: list[tuple[str, str, float, dict[str, Any]]] = []
    for split in ("test", "validation"):
        loss, error = getattr(record, f"{split}_loss"), getattr(record, f"{split}_loss_standard_error")
        if loss is not None:
            error = Z * error
            ends = loss - error, loss + error
            bits, perplexities = [end / log(2) for end in ends], [exp(end) for end in ends]
            values += [
                ("bits_per_character", f"{split} bits per character", loss / log(2), {"interval_95": bits}),
                ("perplexity", f"{split} perplexity per character", exp(loss), {"interval_95": perplexities}),
            ]
    for cell in results.cells(record):
        share = cell["shares"]["valid"]
        settings = {"temperature": cell["temperature"], "tunes": share["total"], "interval_95": [*share["interval"]]}
        label = f"valid tunes at temperature {cell['temperature']:.2g}"
        values.append(("abc_validity", label, share["share"], settings))
    evaluated = [
        EvalResult(
            task_type="text-generation",
            dataset_type=place.dataset or "abc-notation",
            dataset_name="ABC tunes, split by melody",
            metric_type=kind,
            metric_name=label,
            metric_value=value,
            metric_args=arguments,
        )
        for kind, label, value, arguments in values
    ]
    return ModelCardData(
        license=licence(results),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["music", "abc-notation", "symbolic-music", "scaling-laws", record.config.architecture],
        datasets=[place.dataset] if place.dataset else None,
        model_name=name,
        eval_results=evaluated,
    )


def _sizes(results: Results, shelf: Sequence[Release], place: Place) -> str:
    if not shelf:
        return ""
    rows = []
    for release in shelf:
        record = release.record
        error = Z * (record.test_loss_standard_error or 0.0) / log(2)
        valid = "; ".join(
            f"{percent(cell['shares']['valid'])} at {cell['temperature']:.2g}" for cell in results.cells(record)
        )
        further = ", trained further" if record.config.init_from else ""
        rows.append(
            f"| `{release.revision}`{' (this one)' if release.revision == place.revision else ''} "
            f"| {record.config.size}{further} | {record.n_params:,} "
            f"| {record.test_bits_per_character:.4f} ± {error:.4f} "
            f"| {record.validation_bits_per_character:.4f} | {valid} |"
        )
    return "\n".join(
        [
            "## Sizes",
            "",
            "Every size is a branch of this repository; of several seeds it is the first, so that none is chosen by "
            "its loss. `main` is the best model, of whatever seed; its folder `results` holds records, fits, figures "
            "and reports of the whole study.",
            "",
            "| revision | size | parameters | test bits per character (95 %) | validation | valid tunes |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )


def _use(record: RunRecord, place: Place) -> str:
    lstm = record.config.architecture == "lstm"
    trust = ", trust_remote_code=True" if lstm else ""
    why = (
        "The LSTM is not among the architectures of transformers: `configuration_abc_lstm.py` and "
        "`modeling_abc_lstm.py` here are its code, and the other Python files the pipeline's."
        if lstm
        else "The model is a GPT-2 and needs no code of its own; the pipeline's is the Python files here."
    )
    return f"""## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({place.arguments}{trust})
model = AutoModelForCausalLM.from_pretrained({place.arguments}{trust})
prompt = tokenizer("X:1\\nM:6/8\\nL:1/8\\nK:D\\n", return_tensors="pt")
tune = model.generate(**prompt, do_sample=True, max_new_tokens={record.config.context - 32})
print(tokenizer.decode(tune[0], skip_special_tokens=True))
```

A GPT takes {record.config.context} characters at most, prompt and tune together. Whole tunes with a verdict,
several times faster and of any length:

```python
from transformers import pipeline

tunes = pipeline("{TASK}", model={place.arguments}, trust_remote_code=True)
for tune in tunes(key="Dmix", metre="6/8", n=3, temperature=0.9, seed=1):
    print(tune["abc"], tune["verdict"]["valid"])
```

{why} None of them reads files, starts programs or uses the network."""


def _law(results: Results, record: RunRecord, place: Place) -> str:
    architecture = record.config.architecture
    fitted = chosen_fit(results.analysis, architecture)
    lines = [f"{law_line(architecture, fitted)}. (Losses in nats per character.)"]
    if record.config.init_from:
        lines.append("This model was trained further than the runs of that law, and does not lie on it.")
    else:
        parameters = {name: row["value"] for name, row in fitted["parameters"].items()}
        n = getattr(record, fitted["axis"])
        expected = parameters.get("E", 0.0) + parameters["A"] * n ** -parameters["alpha"]
        found = record.validation_loss
        lines.append(
            f"For this size's N = {n:,} ({AXIS_WORDS[fitted['axis']]}) it gives {expected:.4f}; "
            f"the run has {found:.4f} ({100 * (found / expected - 1):+.1f} %)."
        )
    lines += [exponent_sentence(law) for name in LAWS_COMPARED if (law := find_comparison(results.analysis, name))]
    figure = f"![Validation loss of GPT and LSTM against parameters]({place.figures}/{LAW_FIGURE})"
    return f"## The law it lies on\n\n{figure}\n\n{_listed(lines)}"


def _tunes(tunes: Sequence[dict[str, Any]], place: Place) -> str:
    if not tunes:
        return ""
    lines = [
        "## Tunes",
        "",
        "Of each temperature the first valid tune, or else the first, in the order of generation; "
        "none that is copied from training.",
    ]
    for tune in shown_tunes([*tunes]):
        stem = tune["file"].removesuffix(".abc")
        lines += ["", f"{facts_of(tune).capitalize()}:", ""]
        if "svg" in tune["formats"]:
            lines += [f"![Score of the tune below]({place.scores}/{stem}.svg)", ""]
        lines += ["```abc", tune["abc"].strip(), "```"]
    return "\n".join(lines)


def _quality(results: Results, place: Place) -> str:
    figure = f"![Quality of tunes against parameters]({place.figures}/{QUALITY_FIGURE})"
    return f"## Quality of the tunes\n\n{_listed(results.quality['headlines'])}\n\n{figure}"


def _memorisation(results: Results, record: RunRecord) -> str:
    lines = share_lines(results, record, "copied", "copied")
    return (
        "## Memorisation\n\nA tune counts as copied if it follows one training tune, in any key or rhythm, over 18 or "
        f"more notes that are a fifth of it, or nearly throughout.\n\n{_listed(lines)}"
    )


def _limits(record: RunRecord) -> str:
    context = record.config.context
    return f"""## Limits

- It knows the characters and header fields of its corpus alone, no lyrics and in general no titles.
- It was trained on windows of {context} characters. How many of its tunes are valid stands above; a valid tune need not
  be a good one.
- Validity is this project's own test (`abc_validity`); human tunes fail it too, at the rate given above.
- One corpus, one budget of training: the laws hold there."""


def _training(results: Results, record: RunRecord) -> str:
    config = record.config
    versions = ", ".join(f"{name} {version}" for name, version in (record.versions or {}).items())
    lines = [
        f"commit {record.git_commit}, seed {config.seed}, {config.precision}, batches of "
        f"{config.batch_size} × {config.context} characters",
        f"{record.seconds:.0f} s on {record.hardware}; {record.flops:.3g} FLOPs, "
        f"{record.tokens_per_second:.0f} tokens per second, {record.epochs:.2f} epochs"
        + (f" of the training tunes in {config.n_keys} keys each" if config.n_keys > 1 else ""),
        f"versions: {versions}",
    ]
    if not config.init_from:
        return f"## Training\n\n```sh\n{_command(config)}\n```\n\n{_listed(lines)}"
    rows = [
        f"| {run.config.learning_rate:.3g} | {run.config.dropout} | {run.config.weight_decay} "
        f"| {run.validation_bits_per_character:.4f} |"
        for run in results.search
    ]
    table = "\n".join(["| rate | dropout | weight decay | validation bpc |", "|---|---|---|---|", *rows])
    command = f"accelerate launch training/run.py --part best --best_tokens {config.tokens}"
    return (
        f"## Training\n\n```sh\n{command}\n```\n\n{_listed(lines)}\n\nThe short runs that chose its rate, dropout and "
        f"weight decay, of {results.search[0].tokens if results.search else 0:,} tokens each:\n\n{table}"
    )


def _command(config: RunConfig) -> str:
    """Return what trains a ladder's run again."""
    named = ("tokens", "data_fraction", "sequences", "schedule", "warmup_tokens", "batch_size", "context")
    flags = "".join(f" --{name} {getattr(config, name)}" for name in (*named, "weight_decay", "precision"))
    model = f"--{config.architecture}_sizes {config.size} --{config.architecture}_rate_rule {config.learning_rate}"
    return f"accelerate launch training/run.py {model} --seeds {config.seed}{flags}"


def _data(results: Results, place: Place) -> str:
    where = f" ([{place.dataset}](https://huggingface.co/datasets/{place.dataset}))" if place.dataset else ""
    licences = results.corpus["reading"]["licences"]
    rows = [
        f"| {source} | {tunes:,} | {licences.get(source, UNKNOWN_LICENCE)} |"
        for source, tunes in results.corpus["sources"].items()
    ]
    table = "\n".join(["| source | tunes | licence |", "|---|---|---|", *rows])
    return (
        f"## Data and licence\n\nTrained on ABC tunes{where} of these sources:\n\n{table}\n\n"
        f"(All splits; training has {results.corpus['tunes']['train']:,}.) "
        f"The strictest licence binds the whole. {licence_words(results.corpus)}"
    )


def licence_words(corpus: dict[str, Any]) -> str:
    """Return a sentence on what may be done with models of a corpus, by its statistics."""
    bound = non_commercial(corpus)
    if not bound:
        return "What may be done with models and tunes depends on the licences of the training tunes."
    return f"{' and '.join(bound)}: for non-commercial purposes only, and so the models and what they write."


def licence(results: Results) -> str:
    """Return the Hub's name of the licence that a model of the study's corpus can have."""
    return "cc-by-nc-4.0" if non_commercial(results.corpus) else "other"
