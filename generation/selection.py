"""A selection of a study's tunes by a fixed rule, as files and as pages that show and play them."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from files import atomic_folder, check_output, read_json, render, write_json, write_text
from generation.abc_pipeline import AbcGenerationPipeline
from generation.identity import identity_of, is_current, package_files
from generation.memorisation import describe_copy
from generation.page import Tune, write_page, write_tunes
from generation.quality import TIERS, describe_failure, first_failure, score_tune
from generation.quality_vs_size import ARCHITECTURES
from generation.rendering import missing_programs
from generation.report import NAMES
from generation.shares import share
from generation.structure import structure
from generation.study import Cell, Reference, Tunes, load_pipeline
from preprocessing.notation import judge
from training.record import read_record

SELECTION = "samples.json"
TEMPLATE = Path(__file__).parent / "selection.md.j2"
SHOWN = 20  # tunes of each architecture
KINDS = ("mid", "svg")
RULE = (
    f"Of each architecture the largest size, trained on the main token budget, at the temperature chosen on the "
    f"validation split. Of its tunes in the order of sampling, seed after seed, the first {SHOWN} that are valid and "
    f"not copied from the training tunes; if there are fewer, then the first that are not valid, marked so. "
    f"A copied tune is never shown."
)
BAR_LINES = "The end of a line closes a full bar, as in the Essen songs; the scores have no bar line there."
MODEL = ("architecture", "size", "seed", "n_params", "validation_loss", "temperature", "bars")


@dataclass(frozen=True)
class Selected:
    """The shown tunes of one architecture, and the account of all from which they were selected."""

    tunes: list[dict[str, Any]]
    account: dict[str, Any]


def largest_cells(cells: Sequence[Cell], temperatures: Sequence[Mapping[str, Any]]) -> dict[str, list[Cell]]:
    """Return for each architecture the runs of its largest size, by seed, at the temperature chosen for that size."""
    chosen = {(row["architecture"], row["size"]): row["chosen"] for row in temperatures}
    found = {}
    for name in ARCHITECTURES:
        mine = [cell for cell in cells if cell.architecture == name and not cell.best]
        if mine:
            size = max(mine, key=lambda cell: cell.n_params).size
            found[name] = [cell for cell in mine if (cell.size, cell.temperature) == (size, chosen[name, size])]
    return found


def selected_before(folder: Path, name: str, cells: Sequence[Cell]) -> Selected | None:
    """Return what an earlier selection in `folder` shows of these cells, None if it is not of them."""
    if not (folder / SELECTION).is_file():
        return None
    before = read_json(folder / SELECTION, "samples", "accounts")
    tunes = [tune for tune in before["samples"] if tune["architecture"] == name]
    models = {tuple(getattr(cell, key) for key in MODEL) for cell in cells}
    if not tunes or not {tuple(tune[key] for key in MODEL) for tune in tunes} <= models:
        return None
    return Selected(tunes, before["accounts"][name])


def select(scored: Sequence[dict[str, Any]]) -> Selected:
    """Return the tunes that RULE shows, in its order, and the account of those passed over.

    `looked_at`: the tunes up to the last one shown, or all if valid ones were too few; `not_valid` counts those passed
    over among them by the first tier that they fail; `valid` and `copied` are shares of all.
    """
    own = [tune for tune in scored if not tune["copied"]]
    shown = sorted(own, key=lambda tune: not tune["verdict"]["valid"])[:SHOWN]  # stable: in the order of sampling
    valid = sum(tune["verdict"]["valid"] for tune in shown)
    indices = [scored.index(tune) for tune in shown]
    looked_at = max(indices) + 1 if valid == SHOWN else len(scored)
    over = [tune for i, tune in enumerate(scored[:looked_at]) if i not in indices]
    failed = Counter(first_failure(tune["verdict"]) for tune in over if not tune["copied"])
    account = {
        "draws": len(scored),
        "valid": share(sum(tune["verdict"]["valid"] for tune in scored), len(scored)),
        "copied": share(sum(tune["copied"] for tune in scored), len(scored)),
        "shown": {"valid": valid, "all": len(shown)},
        "looked_at": looked_at,
        "passed_over": {
            "copied": sum(tune["copied"] for tune in over),
            "not_valid": {tier: failed[tier] for tier in TIERS if failed[tier]},
        },
    }
    return Selected(shown, account)


@torch.inference_mode()
def own_loss(pipe: AbcGenerationPipeline, abc: str, ended: bool) -> float:
    """Return a model's loss on a tune, with its end if the model ended it, in nats per character at temperature 1.

    Long tunes are read in windows of the context, each without what came before.
    """
    tokenizer = pipe.tokenizer
    ids = torch.tensor(tokenizer(abc, verbose=False)["input_ids"] + [tokenizer.eos_token_id] * ended)
    stride, total = tokenizer.model_max_length - 1, 0.0
    for start in range(0, len(ids) - 1, stride):
        window = ids[start : start + stride + 1]
        logits = pipe.model(window[None], use_cache=False).logits[0, :-1]
        total += float(F.cross_entropy(logits, window[1:], reduction="sum"))
    return total / (len(ids) - 1)


def slim(svg: bytes) -> bytes:
    """Return a score of verovio without indents and without the ids that nothing refers to."""
    text = re.sub(r">\s+<", "><", svg.decode())
    used = set(re.findall(r"#([\w-]+)", text))
    return re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text).encode()


def score_tunes(cells: Sequence[Cell], tunes: Mapping[str, Tunes], reference: Reference) -> Tunes:
    """Return the tunes of one architecture's cells with their model, verdict and nearest training tune."""
    scored = []
    for cell in cells:
        record = read_record(cell.folder)
        assert record is not None  # cells are planned from records
        model = {name: getattr(cell, name) for name in MODEL} | {"tokens": record.config.tokens}
        for number, tune in enumerate(tunes[cell.name], start=1):
            trace = reference.memory.recall(judge(tune["abc"]).pitches)
            copy = trace.as_dict() | {"words": describe_copy(trace, reference.training)}
            verdict = score_tune(tune["abc"], tune["ended"])
            scored.append({**model, "draw": number, **tune, "verdict": verdict, "copied": trace.copied, "copy": copy})
    return scored


def select_tunes(cells: Sequence[Cell], tunes: Mapping[str, Tunes], reference: Reference) -> Selected:
    """Return what RULE shows of one architecture, with structure and loss."""
    selected = select(score_tunes(cells, tunes, reference))
    for cell in cells:
        pipe = load_pipeline(str(cell.folder))
        for tune in (tune for tune in selected.tunes if tune["seed"] == cell.seed):
            tune["structure"] = structure(tune["abc"])
            tune["nats_per_character"] = own_loss(pipe, tune["abc"], tune["ended"])
    return selected


def write_selection(
    cells: Mapping[str, Sequence[Cell]],
    tunes: Mapping[str, Tunes],
    read_reference: Callable[[], Reference],
    folder: Path,
    earlier: Path,
) -> list[str]:
    """Write the tunes that RULE shows to a folder, and return messages for the user.

    gpt/01.abc, .mid, .svg, …, samples.json with all scores, index.md and index.html. Tunes of an architecture without
    weights are taken from the selection in `earlier`, if it is of the same cells, else left out. Raises UserError if
    the folder holds other files.
    """
    check_output(folder, SELECTION)
    messages = [message for kind, message in missing_programs().items() if kind in KINDS]
    own = {name: mine for name, mine in cells.items() if all(cell.name in tunes for cell in mine)}
    kept = {name: selected_before(earlier, name, mine) for name, mine in cells.items() if name not in own}
    content = [[tunes[cell.name] for mine in own.values() for cell in mine], kept, messages]
    identity = identity_of(content, code=package_files())
    if is_current(folder / SELECTION, identity):
        return [f"{folder}: finished already, nothing to do"]
    selected = {
        name: select_tunes(mine, tunes, read_reference()) if name in own else kept[name] for name, mine in cells.items()
    }
    shown = {name: found for name, found in selected.items() if found is not None and found.tunes}
    messages += [f"{folder} shows no tunes of {NAMES[name]}" for name in selected if name not in shown]
    messages += write_pages(shown, folder, identity)
    return [*messages, f"open {folder / 'index.html'}"]


def write_pages(selected: Mapping[str, Selected], folder: Path, identity: str) -> list[str]:
    """Write the selected tunes of each architecture in all formats, with their scores and pages; return messages."""
    accounts = {NAMES[name]: describe_account(found) for name, found in selected.items()}
    shown = {NAMES[name]: found.tunes for name, found in selected.items()}
    with atomic_folder(folder, SELECTION) as temporary:
        pages = [page for name, found in selected.items() for page in write_shown(name, found.tunes, temporary)]
        write_page(temporary, pages, {"Rule": RULE, **accounts, "Scores": BAR_LINES}, "Selected tunes")
        values = {"rule": RULE, "bar_lines": BAR_LINES, "accounts": accounts, "shown": shown}
        functions = {"facts": facts, "verdict": verdict, "escape": escape_markdown}
        write_text(temporary / "index.md", render(TEMPLATE, **values, **functions))
        record: dict[str, Any] = {"identity": identity, "rule": RULE}
        record["accounts"] = {name: found.account for name, found in selected.items()}
        record["samples"] = [tune for tunes in shown.values() for tune in tunes]
        write_json(temporary / SELECTION, record)
    failed = sum(bool(tune["failures"]) for tune in record["samples"])
    lacking = [f"{failed} of the tunes could not be written in all formats (reasons: {SELECTION})"] if failed else []
    return [*lacking, *(f"{name}: {text}" for name, text in accounts.items())]


def write_shown(name: str, tunes: Tunes, folder: Path) -> list[Tune]:
    """Write the shown tunes of one architecture in all formats, and return the page's tunes."""
    (folder / name).mkdir()
    notes = write_tunes(
        folder, tunes, KINDS, lambda tune: {"verdict": verdict(tune), **facts(tune)}, f"{name}/{{:02d}}"
    )
    for score in (folder / name).glob("*.svg"):
        score.write_bytes(slim(score.read_bytes()))
    pages = []
    for number, (tune, played) in enumerate(zip(tunes, notes, strict=True), start=1):
        stem, valid = tune["file"].removesuffix(".abc"), tune["verdict"]["valid"]
        pages.append(Tune(stem, f"{NAMES[name]} {number}", tune["abc"], verdict(tune), valid, facts(tune), played))
    return pages


def verdict(tune: Mapping[str, Any]) -> str:
    """Return whether a tune is valid, and if it is not, why."""
    fault = describe_failure(tune["verdict"])
    return f"not valid: {fault}" if fault else "valid"


def facts(tune: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts that are shown with a tune."""
    scores, form = tune["verdict"], tune["structure"]
    words = {True: "yes", False: "no", None: "–"}
    failed = {"not rendered": "; ".join(tune["failures"])} if tune["failures"] else {}
    return {
        "model": f"{tune['architecture']} {tune['size']}, seed {tune['seed']}, {tune['tokens']:,} training tokens",
        "sampling": f"temperature {tune['temperature']:g}, tune {tune['draw']}",
        "bars": f"{scores['bars']}, {100 * scores['good_bars_share']:.0f} % of them add up",
        "notes": str(scores["notes"]),
        "form": form["form"] or "–",
        "repeats close": words[form["repeats_close"]],
        "ends on the tonic": words[form["tonic_ending"]],
        "keeps its key": words[form["key_kept"]],
        "loss of its own model": f"{tune['nats_per_character']:.2f} nats per character",
        "most like in training": tune["copy"]["words"],
        **failed,
    }


def describe_account(selected: Selected) -> str:
    """Return the model of the shown tunes, and how many of its tunes are valid, copied, shown and passed over."""
    model, account = selected.tunes[0], selected.account
    shown, over = account["shown"], account["passed_over"]
    low, high = (100 * edge for edge in account["valid"]["interval"])
    failed = ", ".join(f"{TIERS[tier].label} {count}" for tier, count in over["not_valid"].items())
    return (
        f"{model['size']}, {model['n_params']:,} parameters, {model['tokens']:,} training tokens, "
        f"temperature {model['temperature']:g}; of {account['draws']} tunes {account['valid']['count']} valid "
        f"({100 * account['valid']['share']:.1f} % [{low:.1f}, {high:.1f}]), {account['copied']['count']} copied; "
        f"shown {shown['valid']} valid, {shown['all'] - shown['valid']} not valid, from the first "
        f"{account['looked_at']}; passed over {over['copied']} copied, {sum(over['not_valid'].values())} not valid"
        + (f" (first tier failed: {failed})" if failed else "")
    )


def escape_markdown(text: str) -> str:
    """Return text as Markdown that shows it unchanged."""
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", escape(text, quote=False))
