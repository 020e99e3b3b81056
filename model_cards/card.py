"""The model card and the study's screen, written from the records: no number is typed in here."""

from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from analysis.report import exponent_sentence, law_lines
from door import DoorError, read_json
from generation.abc_pipeline import STRICT, TASK
from generation.study import QUALITY, QUALITY_FOLDER, REPORT
from training.record import BEST, read_record

LICENCE = "cc-by-nc-4.0"  # most of the tunes, the Essen songs, allow non-commercial use only
TUNES_ON_SCREEN = 3


@dataclass(frozen=True)
class Results:
    """What the other rooms recorded."""

    root: Path
    best: dict[str, Any]
    search: list[dict[str, Any]]
    analysis: dict[str, Any]
    quality: dict[str, Any]
    samples: dict[str, Any]

    @classmethod
    def open(cls, root: Path) -> "Results":
        """Read all records below `root`. Raises DoorError naming the first that is missing or damaged."""
        best = read_record(root / BEST)
        if best is None:
            raise DoorError(f"{root / BEST} holds no trained model: run accelerate launch training/run.py --part best")
        search = [read_record(folder) for folder in sorted((root / BEST / "search").glob("*"))]
        return cls(
            root,
            best,
            [record for record in search if record is not None],
            read_json(root / "comparison_analysis" / "fits.json"),
            read_json(root / QUALITY_FOLDER / QUALITY),
            read_json(root / BEST / "samples" / "samples.json"),
        )


def percent(share: dict[str, Any]) -> str:
    """Return a share with its Wilson interval."""
    low, high = share["interval"]
    return f"{100 * share['share']:.0f} % [{100 * low:.0f}, {100 * high:.0f}] of {share['total']}"


def validity_lines(quality: dict[str, Any]) -> list[str]:
    """Return a line for each temperature of the best model, and one for tunes that people wrote."""
    lines = [
        f"temperature {cell['temperature']:.2g}: valid {percent(cell['shares']['valid'])}" for cell in quality["best"]
    ]
    people = quality["human"]["test"]["shares"]["valid"]
    return [*lines, f"human tunes of the test split, same test: valid {percent(people)}"]


def best_lines(best: dict[str, Any]) -> list[str]:
    """Return what the best model is and how well it predicts."""
    recipe = best["recipe"]
    error = best["test_loss_standard_error"] / log(2)
    return [
        f"{recipe['architecture'].upper()} {recipe['size']}, {best['n_params']:,} parameters "
        f"({best['n_params_non_embedding']:,} without tables), trained on from {recipe['init_from']} "
        f"for {best['tokens']:,} tokens (rate {recipe['learning_rate']:.3g}, dropout {recipe['dropout']}, "
        f"weight decay {recipe['weight_decay']})",
        f"test: {best['test_bits_per_character']:.4f} bits per character (± {error:.4f} over tunes), "
        f"perplexity {exp(best['test_loss']):.3f}; validation: {best['validation_bits_per_character']:.4f}",
    ]


def shown_tunes(samples: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the tunes that are shown: of each temperature the first that is valid, or else the first.

    One that is copied from the training tunes, or that nobody compared with them, is never shown.
    """
    chosen: dict[float, dict[str, Any]] = {}
    own = [tune for tune in samples["samples"] if tune["copied"] is False]
    for tune in sorted(own, key=lambda tune: not tune["verdict"]["valid"]):
        chosen.setdefault(tune["settings"]["temperature"], tune)
    return sorted(chosen.values(), key=lambda tune: float(tune["settings"]["temperature"]))[:TUNES_ON_SCREEN]


def facts_of(tune: dict[str, Any]) -> str:
    """Return a shown tune's temperature and verdict, and whether its bars were forced to add up."""
    strict = ", bars forced to be full" if tune["settings"]["bars"] == STRICT else ""
    verdict = "valid" if tune["verdict"]["valid"] else "not valid"
    return f"temperature {tune['settings']['temperature']:.2g}{strict}, {verdict}"


def screen(results: Results) -> str:
    """Return the one screen that ends a study."""
    root, data = results.root, results.analysis
    compared = [] if data["comparison"] is None else data["comparison"]["laws"]
    tunes = []
    for tune in shown_tunes(results.samples):
        tunes += [f"  {tune['file']} ({facts_of(tune)})"]
        tunes += [f"    {line}" for line in tune["abc"].strip().split("\n")]
    folders = (root / "GPT_analysis", root / "comparison_analysis", root / QUALITY_FOLDER)
    figures = {folder: ", ".join(path.name for path in sorted(folder.glob("*.png"))) for folder in folders}
    return "\n".join(
        [
            "",
            "LAWS (95 % bootstrap intervals; N counts all parameters)",
            *(f"  {line}" for line in law_lines(data)),
            *(f"  {exponent_sentence(law)}" for law in compared if law["axis"] == "n_params"),
            "BEST MODEL",
            *(f"  {line}" for line in best_lines(results.best)),
            *(f"  {line}" for line in validity_lines(results.quality)),
            "TUNES (the first valid one of each temperature)",
            *tunes,
            "FILES",
            f"  corpus    {root / 'processed_music_data'}",
            f"  runs      {root / 'GPT_initial_training'}, {root / 'LSTM_training'}",
            *(f"  figures   {folder}: {names}" for folder, names in figures.items()),
            f"  fits      {root / 'comparison_analysis' / 'fits.json'}",
            f"  report    {root / 'comparison_analysis' / 'report.html'} (or report.md)",
            f"  quality   {root / QUALITY_FOLDER / REPORT}",
            f"  model     {root / BEST} (card: README.md; tunes to see and hear: samples/index.html)",
        ]
    )


def model_card(results: Results) -> str:
    """Return the best model's card."""
    best, recipe = results.best, results.best["recipe"]
    name = f"abc-{recipe['architecture']}-{recipe['size']}"
    metrics = [
        EvalResult(
            task_type="text-generation",
            dataset_type="abc-notation",
            dataset_name="ABC tunes carried by music21, test split by melody",
            metric_type=kind,
            metric_value=value,
        )
        for kind, value in (
            ("bits_per_character", best["test_bits_per_character"]),
            ("perplexity", exp(best["test_loss"])),
        )
    ]
    data = ModelCardData(
        license=LICENCE,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["music", "abc-notation", "scaling-laws", recipe["architecture"]],
        model_name=name,
        eval_results=metrics,
    )
    search = [
        f"| {r['recipe']['learning_rate']:.3g} | {r['recipe']['dropout']} | {r['recipe']['weight_decay']} "
        f"| {r['validation_bits_per_character']:.4f} |"
        for r in results.search
    ]
    tunes = []
    for tune in shown_tunes(results.samples):
        tunes += [f"{facts_of(tune).capitalize()}:", "", "```abc", tune["abc"].strip(), "```", ""]
    body = "\n".join(
        [
            f"# {name}",
            "",
            "A character-level language model of ABC notation, the best run of a scaling study, trained further.",
            "",
            *(f"- {line}" for line in best_lines(best)),
            *(f"- {line}" for line in validity_lines(results.quality)),
            "",
            "## Use",
            "",
            "```python",
            "from transformers import pipeline",
            "",
            f'tunes = pipeline("{TASK}", model="{results.root / BEST}", trust_remote_code=True)',
            'for tune in tunes(key="Dmix", metre="6/8", n=3, temperature=0.9, seed=1):',
            '    print(tune["abc"], tune["verdict"]["valid"])',
            "```",
            "",
            "## Quality of the tunes",
            "",
            *(f"- {line}" for line in results.quality["headlines"]),
            "",
            "## The search",
            "",
            "| rate | dropout | weight decay | validation bpc |",
            "|---|---|---|---|",
            *search,
            "",
            "## Samples",
            "",
            "The first valid tune of each temperature, in the order of generation; none that is copied from training.",
            "",
            *tunes,
            "## Data and licence",
            "",
            "Trained on the ABC tunes that the music21 package carries. Most are Essen folk songs, which may be used "
            "for non-commercial purposes only; so may this model.",
            "",
            "## Training",
            "",
            f"- commit {best['git_commit']}, seed {recipe['seed']}, {best['seconds']:.0f} s on {best['hardware']}",
            f"- {best['flops']:.3g} FLOPs in this last part, {best['tokens_per_second']:.0f} tokens per second",
            f"- versions: {', '.join(f'{k} {v}' for k, v in best['versions'].items())}",
        ]
    )
    return f"---\n{data.to_yaml()}\n---\n\n{body}\n"
