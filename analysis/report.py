"""Sentences from numbers: every one cites what it is derived from, and none concludes what the fits do not identify."""

from itertools import pairwise
from typing import Any

from analysis.figures import NAMES, short

Data = dict[str, Any]
WORDS = {"power": "power law without a floor", "power_floor": "power law with a floor"}
AXIS_WORDS = {"n_params": "all parameters", "n_params_non_embedding": "parameters without the tables"}


def edges(pair: list[float | None], sign: str = "") -> str:
    """Return an interval in brackets; a side that is not bounded is called open."""
    low, high = ("open" if edge is None else f"{edge:{sign}.3f}" for edge in pair)
    return f"[{low}, {high}]"


def estimate(row: Data) -> str:
    """Return a value with its bootstrap interval, or the verdict that it is not identified."""
    text = f"{row['value']:.3f} {edges(row['bootstrap'])}"
    return text if row["identified"] else f"not identified (best {text})"


def difference(row: Data) -> str:
    """Return a difference with its two intervals."""
    return f"{row['value']:+.3f} {edges(row['bootstrap'], '+')} over runs, {edges(row['jackknife'], '+')} over sizes"


def law_line(architecture: str, fitted: Data) -> str:
    """Return one line for one fitted law."""
    parameters = fitted["parameters"]
    parts = [f"α = {estimate(parameters['alpha'])}"]
    if "E" in parameters:
        parts.append(f"floor at this budget E = {estimate(parameters['E'])}")
    state = "" if fitted["converged"] else "; the fit did NOT converge"
    return f"{NAMES[architecture]}, {WORDS[fitted['law']]}: {', '.join(parts)}{state}"


def interval_table(data: Data) -> list[str]:
    """Return a Markdown table of all intervals of the laws on all parameters."""
    rows = [
        "| | law | parameter | value | over runs | over sizes | profile | identified |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for architecture, name in NAMES.items():
        for law in WORDS:
            fitted = find(data["comparisons"], law)["fits"][architecture]
            for parameter, row in fitted["parameters"].items():
                cells = (edges(row[kind]) for kind in ("bootstrap", "jackknife", "profile"))
                verdict = "yes" if row["identified"] else "no"
                rows.append(f"| {name} | {law} | {parameter} | {row['value']:.4f} | {' | '.join(cells)} | {verdict} |")
    return rows


def find(comparisons: list[Data], law: str, axis: str = "n_params") -> Data:
    """Return the comparison under one law on one axis."""
    return next(c for c in comparisons if c["law"] == law and c["axis"] == axis)


def law_lines(data: Data) -> list[str]:
    """Return a line for each architecture and law on all parameters."""
    laws = [find(data["comparisons"], law)["fits"] for law in WORDS]
    return [law_line(architecture, fits[architecture]) for architecture in NAMES for fits in laws]


def exponent_sentence(comparison: Data) -> str:
    """Say which exponent is larger, or that this study cannot tell."""
    number = f"α(GPT) − α(LSTM) = {difference(comparison['delta_alpha'])}"
    where = f"On {AXIS_WORDS[comparison['axis']]}, {WORDS[comparison['law']]}: {number}."
    if not comparison["identified"]:
        return f"{where} It is not identified, as not every parameter of the two fits is."
    if comparison["steeper"] is None:
        return f"{where} An interval holds 0: no architecture is shown to scale better."
    name = NAMES[comparison["steeper"]]
    if comparison["delta_floor"] is None:
        return (
            f"{where} Neither interval holds 0: over the sizes fitted, the loss of the {name} falls faster with size."
        )
    floors = f"the floors differ by E(GPT) − E(LSTM) = {difference(comparison['delta_floor'])}"
    return f"{where} Neither interval holds 0: the {name} nears its own floor faster; {floors}."


def crossover_sentence(comparison: Data) -> str:
    """Say where the GPT's law comes to lie below the LSTM's, if it does."""
    if not comparison["identified"]:
        return "Where the fitted lines would cross is not identified either."
    share = f"it does in {100 * comparison['crossover_share_of_resamples']:.0f} % of the resamples"
    if comparison["crossover"] is None:
        return f"The GPT's fitted line does not come to lie below the LSTM's at any size ({share})."
    bounds = comparison["crossover_interval"]
    if bounds is None:
        return f"The GPT's fitted line comes to lie below the LSTM's at no identified N ({share})."
    text = f"N = {short(comparison['crossover'])} [{short(bounds[0])}, {short(bounds[1])}]"
    largest = comparison["largest_n"]
    beyond = bounds[0] > largest
    warning = f" That lies beyond the largest model trained ({short(largest)}): an extrapolation." if beyond else ""
    return f"The GPT's fitted line comes to lie below the LSTM's from {text} ({share}).{warning}"


def size_table(data: Data) -> list[str]:
    """Return a Markdown table of losses by size."""
    rows = [
        "| size | GPT N | LSTM N | seeds | GPT loss (bpc) | LSTM loss (bpc) | GPT − LSTM | GPT s | LSTM s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in data["sizes"]:
        gpt, lstm = row["gpt"], row["lstm"]
        difference = gpt["loss"] - lstm["loss"]
        rows.append(
            f"| {row['size']} | {gpt['n_params']:,} | {lstm['n_params']:,} | {row['seeds']} "
            f"| {_loss(gpt)} | {_loss(lstm)} | {difference:+.3f} | {gpt['seconds']:.0f} | {lstm['seconds']:.0f} |"
        )
    return rows


def _loss(row: Data) -> str:
    spread = f" ± {row['seed_deviation']:.3f}" if row["seed_deviation"] is not None else ""
    return f"{row['loss']:.3f}{spread} ({row['bits_per_character']:.3f})"


def order_sentence(name: str, sizes: list[Data], key: str) -> str:
    """Say whether every larger model has the lower mean loss, and name the pairs that do not."""
    losses = [(row["size"], row[key]["loss"]) for row in sizes]
    broken = [f"{b[0]} ({b[1]:.3f}) is not below {a[0]} ({a[1]:.3f})" for a, b in pairwise(losses) if b[1] >= a[1]]
    if broken:
        return f"{name}: the loss does not fall with every step in size: {'; '.join(broken)}."
    return f"{name}: every larger model reaches a lower mean validation loss than every smaller one."


def baseline_sentence(name: str, smallest: Data, key: str, baseline: Data) -> str:
    """Say on which side of the n-gram baseline the smallest model lies."""
    loss, line = smallest[key]["loss"], baseline["validation_loss"]
    side = "beats" if loss < line else "does NOT beat"
    order = baseline["order"]
    better = [str(row["order"]) for row in baseline["orders"] if row["validation_loss"] <= loss]
    others = f"n-grams of order {', '.join(better)} are better" if better else "no n-gram of any order is better"
    return (
        f"The smallest {name} ({smallest['size']}, {loss:.3f}) {side} the {order}-gram baseline ({line:.3f}); {others}."
    )


def lead_sentence(sizes: list[Data]) -> str:
    """Say which architecture has the lower loss at how many sizes of this study's one budget."""
    ahead = {"gpt": 0, "lstm": 0}
    for row in sizes:
        difference = row["gpt"]["loss"] - row["lstm"]["loss"]
        if difference:
            ahead["gpt" if difference < 0 else "lstm"] += 1
    counts = ", ".join(f"the {NAMES[k]} at {n}" for k, n in ahead.items())
    return f"Of {len(sizes)} matched sizes the lower mean loss belongs to {counts}."


def write_report(data: Data) -> str:
    """Return the whole comparison report as Markdown."""
    tokens, seeds = data["tokens"], data["seeds"]
    sizes = data["sizes"]
    lines = [
        "# GPT against LSTM on ABC notation",
        "",
        f"{data['runs']['gpt']} GPT and {data['runs']['lstm']} LSTM runs of {short(tokens)} tokens each "
        f"({data['epochs']:.2f} epochs), {len(seeds)} seeds. Loss is in nats per character on "
        f"{short(data['validation_tokens'])} validation characters; "
        f"the sampling error of that set is ± {data['validation_standard_error']:.3f} "
        "(over tunes, the same tunes for every model).",
        "",
        *size_table(data),
        "",
        order_sentence("GPT", sizes, "gpt"),
        order_sentence("LSTM", sizes, "lstm"),
        lead_sentence(sizes),
        f"All of this holds at one budget of {short(tokens)} tokens; another budget can reverse it.",
        "",
        "## Baseline",
        "",
        baseline_sentence("GPT", sizes[0], "gpt", data["baseline"]),
        baseline_sentence("LSTM", sizes[0], "lstm", data["baseline"]),
        "",
        "| n-gram order | validation loss | bpc |",
        "|---|---|---|",
        *(
            f"| {r['order']} | {r['validation_loss']:.3f} | {r['bits_per_character']:.3f} |"
            for r in data["baseline"]["orders"]
        ),
        "",
        "## Laws",
        "",
        "N counts all parameters. E is the loss that the law gives an endless model at this one budget of tokens, not",
        "the entropy of the music. The first interval is the bootstrap's, over runs; a parameter is identified only if",
        "the interval over sizes (each left out in turn) and the profile likelihood are clear of zero too.",
        "",
        *(f"- {line}" for line in law_lines(data)),
        "",
        *interval_table(data),
        "",
        "## Exponents",
        "",
        *(f"- {exponent_sentence(c)} {crossover_sentence(c)}" for c in data["comparisons"]),
        "",
        "## Fitted without the largest size",
        "",
        *(f"- {held_out_sentence(row)}" for row in data["held_out"]),
    ]
    if data["unfinished"]:
        lines += ["", "## Runs that are not fitted", "", *(f"- {row}" for row in data["unfinished"])]
    return "\n".join(lines) + "\n"


def held_out_sentence(row: Data) -> str:
    """Say by how much a law fitted to the smaller sizes misses the largest."""
    name = f"{NAMES[row['architecture']]}, {WORDS[row['law']]}"
    if row["error"] is None:
        return f"{name}: too few sizes are left to fit it."
    return f"{name}: the loss of {row['size']} is foretold with an error of {100 * row['error']:+.2f} %."


def chosen_law(data: Data, architecture: str) -> str:
    """Return the law that describes an architecture: the one with a floor where that is identified."""
    fitted = find(data["comparisons"], "power_floor")["fits"][architecture]
    return "power_floor" if fitted["parameters"]["E"]["identified"] else "power"


def findings(data: Data) -> list[str]:
    """Return what the study found in a few sentences, each with its numbers."""
    sizes = data["sizes"]
    first, last = sizes[0], sizes[-1]
    laws = {k: find(data["comparisons"], chosen_law(data, k))["fits"][k] for k in NAMES}
    span = f"{short(first['gpt']['n_params'])} to {short(last['gpt']['n_params'])} parameters"
    return [
        f"{short(data['tokens'])} training characters ({data['epochs']:.2f} epochs), {span}; losses are in nats per "
        "character, intervals are 95 % over runs.",
        *(f"{law_line(k, laws[k])}." for k in NAMES),
        exponent_sentence(find(data["comparisons"], "power")),
        f"{lead_sentence(sizes)} At {last['size']} they reach {last['gpt']['loss']:.3f} (GPT) and "
        f"{last['lstm']['loss']:.3f} (LSTM) nats per character. This is one budget of tokens; another can reverse it.",
        f"In nats per character: {baseline_sentence('GPT', first, 'gpt', data['baseline'])} "
        f"{baseline_sentence('LSTM', first, 'lstm', data['baseline'])}",
    ]
