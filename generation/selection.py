"""Tunes of both architectures to read, to see and to hear, chosen by RULE from those that the quality part has kept."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from tqdm import tqdm

from cli import UserError
from files import atomic_folder, check_output, read_json, write_json, write_text
from generation.abc_pipeline import AbcGenerationPipeline
from generation.messages import describe_copy, describe_failure
from generation.page import Tune, write_page
from generation.quality import TIERS, Share, score_tune
from generation.quality_vs_size import ARCHITECTURES, SHARES
from generation.rendering import missing_programs, read_notes, render
from generation.report import NAMES
from generation.structure import structure
from generation.study import CELLS, FINDINGS, QUALITY_FOLDER, Cell, load_pipeline, plan_cells, read_memory
from preprocessing.corpus import Corpus
from preprocessing.notation import judge
from training.record import read_record

SELECTION = "samples.json"
SHOWN = 20  # tunes of each architecture
KINDS = ("mid", "svg")
RULE = (
    f"Of each architecture the largest size, trained on the main budget, at the temperature that the validation split "
    f"has chosen for it. Its draws in their order, seed after seed: the first {SHOWN} that are valid and not copied "
    f"from the training tunes, and if there are fewer, behind them the first that are not valid, marked so. "
    f"A copied tune is never shown."
)
MODEL = ("architecture", "size", "seed", "n_params", "validation_loss", "temperature", "bars")
BAR_LINES = "A line's end closes a full bar, as in the Essen songs; the scores have no bar line there."


def largest_cells(root: Path) -> dict[str, list[Cell]]:
    """Return for each architecture the runs of its largest size, by seed, at the temperature chosen for that size.

    Raises UserError if the quality part has not measured it.
    """
    path = root / QUALITY_FOLDER / FINDINGS
    found = read_json(path, "temperatures", "bars")
    chosen = {(row["architecture"], row["size"]): row["chosen"] for row in found["temperatures"]}
    every = [cell for cell in plan_cells(root, sorted({*chosen.values()}), found["bars"]) if not cell.best]
    cells = {}
    for name in ARCHITECTURES:
        mine = [cell for cell in every if cell.architecture == name]
        if mine:
            size = max(mine, key=lambda cell: cell.n_params).size
            if (name, size) not in chosen:
                raise UserError(f"{path} lacks {name} {size}: python generation/run.py --part quality measures it")
            cells[name] = [cell for cell in mine if (cell.size, cell.temperature) == (size, chosen[name, size])]
    return cells


def read_draws(root: Path, cells: Sequence[Cell], corpus: Corpus) -> list[dict[str, Any]]:
    """Return the kept tunes of these cells in their order, each with its model and its place among that model's.

    Raises UserError if there are none, or if the models were trained on another corpus.
    """
    draws: list[dict[str, Any]] = []
    for cell in cells:
        record = read_record(cell.folder)
        if record is None or record.config.corpus != corpus.digest():
            raise UserError(f"{corpus.folder}: not the corpus that {cell.folder} was trained on (--corpus FOLDER)")
        model = {name: getattr(cell, name) for name in MODEL} | {"tokens": record.config.tokens}
        kept = read_json(root / QUALITY_FOLDER / CELLS / f"{cell.name}.json", "tunes")["tunes"]
        draws += [{**model, "draw": number, **tune} for number, tune in enumerate(kept, start=1)]
    return draws


def shown_before(folder: Path, name: str, cells: Sequence[Cell]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return what stands in `folder` of these cells, whose weights are not here: the tunes, and what is told of them.

    Raises UserError if it is not theirs.
    """
    before: dict[str, Any] = {"samples": [], "accounts": {}}
    if (folder / SELECTION).is_file():
        before = read_json(folder / SELECTION, *before)
    tunes = [tune for tune in before["samples"] if tune["architecture"] == name]
    wanted = {tuple(getattr(cell, key) for key in MODEL) for cell in cells}
    if not tunes or not {tuple(tune[key] for key in MODEL) for tune in tunes} <= wanted:
        missing_here = next(cell for cell in cells if not cell.weights.is_file())
        raise UserError(
            f"{missing_here.weights} is missing, and {folder} shows no tunes of it: "
            f"delete {missing_here.folder} and train it again"
        )
    return tunes, before["accounts"][name]


def pick(draws: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the draws that RULE shows, in the order in which it shows them."""
    own = [draw for draw in draws if not draw["copied"]]
    return sorted(own, key=lambda draw: not draw["verdict"]["valid"])[:SHOWN]  # stable: in order of their draw


def account(draws: Sequence[dict[str, Any]], shown: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what RULE has passed over: `looked_at` draws, up to the last one shown, or all if valid ones were lacking.

    `valid` and `copied` are shares of all draws; `not_valid` counts those passed over by the first tier that they miss.
    """
    places = [draws.index(draw) for draw in shown]
    enough = len(shown) == SHOWN and all(draw["verdict"]["valid"] for draw in shown)
    looked_at = max(places) + 1 if enough else len(draws)
    over = [draws[place] for place in range(looked_at) if place not in places]
    tiers = Counter(next(tier for tier in TIERS if not draw["verdict"][tier]) for draw in over if not draw["copied"])
    return {
        "draws": len(draws),
        "valid": Share(sum(draw["verdict"]["valid"] for draw in draws), len(draws)).as_dict(),
        "copied": Share(sum(draw["copied"] for draw in draws), len(draws)).as_dict(),
        "shown": {"valid": sum(draw["verdict"]["valid"] for draw in shown), "all": len(shown)},
        "looked_at": looked_at,
        "passed_over": {
            "copied": sum(draw["copied"] for draw in over),
            "not_valid": {tier: tiers[tier] for tier in TIERS if tiers[tier]},
        },
    }


@torch.inference_mode()
def own_loss(pipe: AbcGenerationPipeline, abc: str, ended: bool) -> float:
    """Return a model's loss on a tune and, if it has ended it, on its end, in nats per character at temperature 1.

    Long tunes are read as training reads them: in windows of the context, each without what came before.
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
    """Return a score of verovio without the indents and the ids that nothing in it refers to."""
    text = re.sub(r">\s+<", "><", svg.decode())
    used = set(re.findall(r"#([\w-]+)", text))
    return re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text).encode()


def write_selection(root: Path, corpus: Corpus, folder: Path) -> list[str]:
    """Write the tunes that RULE shows of a study to a folder, and return what is to be said of them.

    `gpt/01.abc`, .mid, .svg, …, SELECTION with all their scores, index.md and index.html. Tunes of an architecture
    whose weights are not here stay as they stand there. The same of the same tunes by the same code is not written
    again. Raises UserError if the folder is another's, or as its parts do.
    """
    check_output(folder, SELECTION)
    cells = largest_cells(root)
    here = [name for name, mine in cells.items() if all(cell.weights.is_file() for cell in mine)]
    kept = {name: shown_before(folder, name, mine) for name, mine in cells.items() if name not in here}
    draws = {name: read_draws(root, cells[name], corpus) for name in here}
    absent = [line for kind, line in missing_programs().items() if kind in KINDS]
    code = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.*"))]
    identity = hashlib.sha256(b"".join([repr((draws, kept, absent)).encode(), *code])).hexdigest()
    if (folder / SELECTION).is_file() and read_json(folder / SELECTION, "identity")["identity"] == identity:
        return [f"{folder}: finished already, nothing to do"]
    memory, training = read_memory(corpus)
    for draw in (draw for rows in draws.values() for draw in rows):
        trace = memory.recall(judge(draw["abc"]).pitches)
        copy = trace.as_dict() | {"words": describe_copy(trace, training)}
        draw |= {"verdict": score_tune(draw["abc"], draw["ended"]), "copied": trace.copied, "copy": copy}
    shown = {name: pick(draws[name]) if name in here else kept[name][0] for name in cells}
    accounts = {name: account(draws[name], shown[name]) if name in here else kept[name][1] for name in cells}
    pages, lines = [], []
    with atomic_folder(folder, SELECTION) as temporary, ThreadPoolExecutor(2) as pool:
        for name, tunes in shown.items():
            (temporary / name).mkdir()
            pipes = {cell.seed: load_pipeline(str(cell.folder)) for cell in cells[name]} if name in here else {}
            made = pool.map(lambda tune: render(tune["abc"], KINDS), tunes)
            pairs = zip(tunes, made, strict=True)
            for number, (tune, (files, failures)) in enumerate(tqdm(pairs, desc=name, total=len(tunes)), start=1):
                stem = f"{name}/{number:02d}"
                if name in here:
                    tune["structure"] = structure(tune["abc"])
                    tune["nats_per_character"] = own_loss(pipes[tune["seed"]], tune["abc"], tune["ended"])
                tune |= {"file": f"{stem}.abc", "formats": sorted(files), "failures": failures}
                said = {"verdict": verdict_words(tune), **facts(tune)}
                comments = "".join(f"% {fact}: {' '.join(value.split())}\n" for fact, value in said.items())
                write_text(temporary / tune["file"], comments + tune["abc"])
                for kind, content in files.items():
                    (temporary / f"{stem}.{kind}").write_bytes(slim(content) if kind == "svg" else content)
                lines += [f"{tune['file']}: {line}" for line in failures]
                valid, sound = tune["verdict"]["valid"], read_notes(files["mid"]) if "mid" in files else None
                title = f"{NAMES[name]} {number}"
                pages.append(Tune(stem, title, tune["abc"], verdict_words(tune), valid, facts(tune), sound))
        told = {NAMES[name]: told_account(cells[name], shown[name][0], accounts[name]) for name in cells}
        write_page(temporary, pages, {"Rule": RULE, **told, "Scores": BAR_LINES}, "Selected tunes")
        write_text(temporary / "index.md", as_markdown(shown, told))
        rows = [tune for tunes in shown.values() for tune in tunes]
        write_json(temporary / SELECTION, {"identity": identity, "rule": RULE, "accounts": accounts, "samples": rows})
    return [*lines, *absent, *(f"{name}: {text}" for name, text in told.items()), f"open {folder / 'index.html'}"]


def verdict_words(tune: dict[str, Any]) -> str:
    """Return whether a tune is valid, and if it is not, why."""
    fault = describe_failure(tune["verdict"])
    return f"not valid: {fault}" if fault else "valid"


def facts(tune: dict[str, Any]) -> dict[str, str]:
    """Return what is told of a tune, in words."""
    verdict, shape = tune["verdict"], tune["structure"]
    answers = {True: "yes", False: "no", None: "–"}
    failed = {"not rendered": "; ".join(tune["failures"])} if tune["failures"] else {}
    return {
        "model": f"{tune['architecture']} {tune['size']}, seed {tune['seed']}, {tune['tokens']:,} training tokens",
        "sampling": f"temperature {tune['temperature']:g}, draw {tune['draw']}",
        "bars": f"{verdict['bars']}, {100 * verdict['good_bars_share']:.0f} % of them add up",
        "notes": str(verdict["notes"]),
        "form": shape["form"] or "–",
        "repeats close": answers[shape["repeats_close"]],
        "ends on the tonic": answers[shape["tonic_ending"]],
        "keeps its key": answers[shape["key_kept"]],
        "loss of its own model": f"{tune['nats_per_character']:.2f} nats per character",
        "most like in training": tune["copy"]["words"],
        **failed,
    }


def told_account(cells: Sequence[Cell], model: dict[str, Any], account: dict[str, Any]) -> str:
    """Return which model wrote the draws, how many of them are valid and copied, and what was passed over."""
    shown, over = account["shown"], account["passed_over"]
    seeds = ", ".join(str(cell.seed) for cell in cells)
    low, high = (100 * edge for edge in account["valid"]["interval"])
    reasons = ", ".join(f"{SHARES[tier]} {count}" for tier, count in over["not_valid"].items())
    first_missed = f" (what they miss first: {reasons})" if reasons else ""
    return (
        f"{model['size']}, {model['n_params']:,} parameters, {model['tokens']:,} training tokens, seeds {seeds}, "
        f"temperature {model['temperature']:g}. Of all its {account['draws']} draws {account['valid']['count']} are "
        f"valid ({100 * account['valid']['share']:.1f} % [{low:.1f}, {high:.1f}]) and {account['copied']['count']} are "
        f"copied. Shown are {shown['valid']} valid tunes and {shown['all'] - shown['valid']} that are not, found among "
        f"the first {account['looked_at']} draws; passed over there: {over['copied']} copied, "
        f"{sum(over['not_valid'].values())} not valid{first_missed}."
    )


def as_markdown(shown: dict[str, list[dict[str, Any]]], told: dict[str, str]) -> str:
    """Return the selection as a page that a forge shows: the rule, and of each tune its score and its facts."""
    parts = ["# Selected tunes", RULE, f"{BAR_LINES} `index.html`, opened from a copy of this folder, plays the tunes."]
    for name, tunes in shown.items():
        parts += [f"## {NAMES[name]}", told[NAMES[name]]]
        for number, tune in enumerate(tunes, start=1):
            stem = tune["file"].removesuffix(".abc")
            parts.append(f"### {NAMES[name]} {number} – {verdict_words(tune)}")
            if "svg" in tune["formats"]:
                parts.append(f"![Score of {NAMES[name]} {number}]({stem}.svg)")
            links = " · ".join(f"[{kind}]({stem}.{kind})" for kind in ("abc", *tune["formats"]))
            said = " · ".join(f"{fact}: {as_markdown_text(value)}" for fact, value in facts(tune).items())
            parts.append(f"{links}<br>{said}")
    return "\n\n".join(parts) + "\n"


def as_markdown_text(text: str) -> str:
    """Return text as Markdown that shows it unchanged."""
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", escape(text, quote=False))
