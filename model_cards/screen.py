"""The one screen that ends a study."""

from typing import Any

from analysis.report import exponent_sentence, law_lines
from generation.abc_pipeline import STRICT
from generation.study import QUALITY_FOLDER, REPORT
from model_cards.results import Results, model_lines, share_lines, shown_tunes
from training.record import BEST


def facts_of(tune: dict[str, Any]) -> str:
    """Return a shown tune's temperature and verdict, and whether its bars were forced to add up."""
    strict = ", bars forced to be full" if tune["settings"]["bars"] == STRICT else ""
    verdict = "valid" if tune["verdict"]["valid"] else "not valid"
    return f"temperature {tune['settings']['temperature']:.2g}{strict}, {verdict}"


def screen(results: Results) -> str:
    """Return the screen: laws, best model, tunes, and where every file lies."""
    root, data = results.root, results.analysis
    compared = [] if data["comparison"] is None else data["comparison"]["laws"]
    tunes = []
    for tune in shown_tunes(results.samples["samples"]):
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
            *(f"  {line}" for line in model_lines(results.best)),
            *(f"  {line}" for line in share_lines(results, results.best, "valid", "valid")),
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
