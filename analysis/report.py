"""Sentences from fits.json: every one cites what it is derived from, and none concludes what is not identified."""

from collections.abc import Callable
from itertools import pairwise
from math import inf
from typing import Any

from analysis.ablations import LONGER

Data = dict[str, Any]
NAMES = {"gpt": "GPT", "lstm": "LSTM"}
LAW_WORDS = {
    "power": "power law without a floor",
    "power_irreducible": "power law with a floor",
    "chinchilla": "Chinchilla's law of N and D",
    "data_constrained": "data-constrained law (Muennighoff)",
    "mupt": "MuPT's equation 2",
    "sms": "Symbolic Music Scaling law (MuPT)",
    "transposition": "law of transposed copies",
}
AXIS_WORDS = {
    "n_params": "all parameters",
    "n_params_non_embedding": "parameters without the tables",
    "tokens": "tokens seen, D",
    "flops": "training FLOPs, C",
}
NEAR = 1.1  # times the largest size whose rate was swept
PARAMETERS = {"alpha": "α", "beta": "β"}
VARIABLES = {"n": "N", "d": "D", "c": "C", "u": "U", "keys": "keys"}
GOAL, DECADE = 0.01, 10.0  # foretell a loss one decade above the largest fitted size within 1 %
FACTORS = {"A", "B", "d"}  # fitted as logarithms
UNITS = (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("K", 1e3))


def percent(fraction: float) -> str:
    """Return a fraction in percent, to three digits: 6.25 %."""
    return f"{100 * fraction:.3g} %"


def short(number: float, _: Any = None) -> str:
    """Return a count as 15K, 1.2M, 3G."""
    for unit, size in UNITS:
        if number >= size:
            return f"{number / size:.3g}{unit}" if number < 1e18 else f"{number:.2e}"
    return f"{number:.3g}"


def figure_of(number: float) -> str:
    """Return a fitted number with the digits that a reader can use."""
    if 1e-3 <= abs(number) < 10 or number == 0:
        return f"{number:.3f}"
    return f"{number:.4g}" if 10 <= abs(number) < 1e5 else f"{number:.2e}"


def edges(pair: list[float | None], sign: str = "") -> str:
    """Return an interval in brackets; a side that is not bounded is called open."""
    texts = ("open" if edge is None else f"{edge:{sign}.3f}" if sign else figure_of(edge) for edge in pair)
    return f"[{', '.join(texts)}]"


def estimate(row: Data) -> str:
    """Return a value with its bootstrap interval, or the verdict that it is not identified, and why."""
    text = f"{figure_of(row['value'])} {edges(row['bootstrap'])}"
    return text if row["identified"] else f"not identified (best {text}; {row['reason']})"


def difference(row: Data) -> str:
    """Return a difference with its two intervals."""
    return f"{row['value']:+.3f} {edges(row['bootstrap'], '+')} over runs, {edges(row['jackknife'], '+')} over sizes"


def find_fit(data: Data, architecture: str, law: str, axis: str = "n_params") -> Data | None:
    """Return a fit of an architecture, or None if the study has no runs for it."""
    return next((fit for fit in data["fits"][architecture] if fit["law"] == law and fit["axis"] == axis), None)


def chosen_fit(data: Data, architecture: str) -> Data:
    """Return the law of N that describes an architecture: the one with a floor where that is identified for all.

    Exponents with and without a floor are not alike, and so not shown side by side.
    """
    floors = [find_fit(data, name, "power_irreducible") for name in data["fits"]]
    law = (
        "power_irreducible"
        if all(fit is not None and fit["parameters"]["E"]["identified"] for fit in floors)
        else "power"
    )
    chosen = find_fit(data, architecture, law)
    assert chosen is not None
    return chosen


def law_line(architecture: str, fitted: Data) -> str:
    """Return one line for one fitted law of N at one budget."""
    parameters = fitted["parameters"]
    parts = [f"α = {estimate(parameters['alpha'])}"]
    if "E" in parameters:
        parts.append(f"floor at this budget E = {estimate(parameters['E'])}")
    state = "" if fitted["converged"] else "; the fit did NOT converge"
    return f"{NAMES[architecture]}, {LAW_WORDS[fitted['law']]}: {', '.join(parts)}{state}"


def law_lines(data: Data) -> list[str]:
    """Return a line for each architecture and law of N at the main budget, on all parameters."""
    found = [(name, find_fit(data, name, law)) for name in data["fits"] for law in ("power", "power_irreducible")]
    return [law_line(name, fitted) for name, fitted in found if fitted is not None]


def parameter_table(fits: list[tuple[str, Data]]) -> list[str]:
    """Return a Markdown table of every parameter of fits with its three intervals and its verdict."""
    rows = [
        "| | law | parameter | value | over runs | over sizes | profile | identified |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for label, fitted in fits:
        for name, row in fitted["parameters"].items():
            cells = " | ".join(edges(row[kind]) for kind in ("bootstrap", "jackknife", "profile"))
            verdict = "yes" if row["identified"] else f"no: {row['reason']}"
            symbol = PARAMETERS.get(name, name)
            rows.append(f"| {label} | {fitted['law']} | {symbol} | {figure_of(row['value'])} | {cells} | {verdict} |")
    return rows


def fit_sentence(label: str, fitted: Data) -> str:
    """Say how a law was fitted: points, clusters, loss, starts, convergence, bounds, the strongest correlation."""
    loss = "least squares on log loss" if fitted["loss"] == "squares" else f"Huber on log loss, δ = {fitted['delta']:g}"
    state = "converged" if fitted["converged"] else "did NOT converge"
    bounds = f"; at its bound: {', '.join(fitted['at_bound'])}" if fitted["at_bound"] else ""
    beyond = sum(abs(residual) > (fitted["delta"] or float("inf")) for residual in fitted["residuals"])
    share = (
        f" ({100 * beyond / len(fitted['residuals']):.0f} % of the residuals lie beyond it)" if fitted["delta"] else ""
    )
    pairs = [(abs(r), a, b, r) for a, row in fitted["correlations"].items() for b, r in row.items() if a < b]
    strongest = max(pairs, default=None)
    tie = ""
    if strongest is not None:
        first, second = (PARAMETERS.get(name, f"log {name}" if name in FACTORS else name) for name in strongest[1:3])
        tie = f"; strongest correlation {first} with {second}, {strongest[3]:+.3f}"
    return (
        f"{label}: {fitted['form']} ({fitted['source']}); {fitted['points']} points in {fitted['clusters']} clusters, "
        f"{loss}{share}, objective {fitted['objective']:.6g}, {fitted['starts']} starts, {state}{bounds}; "
        f"{fitted['resamples_converged']} of {fitted['resamples']} resamples converged{tie}."
    )


def size_table(data: Data) -> list[str]:
    """Return a Markdown table of losses by size at the main budget."""
    names = list(data["fits"])
    heads = [f"{NAMES[name]} {what}" for name in names for what in ("N", "seeds", "loss (bpc)", "seconds")]
    both = len(names) == 2
    rows = [
        f"| size | {' | '.join(heads)} |{' GPT − LSTM |' if both else ''}",
        "|---" * (1 + len(heads) + both) + "|",
    ]
    matches = {row["size"]: row for row in data["comparison"]["matches"]} if data["comparison"] is not None else {}
    for row in data["sizes"]:
        cells = [row["size"]]
        for name in names:
            entry = row.get(name)
            cells += (
                ["–"] * 4
                if entry is None
                else [f"{entry['n_params']:,}", str(entry["seeds"]), _loss(entry), f"{entry['seconds']:.0f}"]
            )
        if both:
            match = matches.get(row["size"])
            cells.append(f"{match['difference']:+.3f} {edges(match['interval'], '+')}" if match else "–")
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _loss(row: Data) -> str:
    spread = f" ± {row['seed_deviation']:.3f}" if row["seed_deviation"] is not None else ""
    return f"{row['loss']:.3f}{spread} ({row['bits_per_character']:.3f})"


def sizes_of(data: Data, architecture: str) -> list[Data]:
    """Return the rows of the sizes that an architecture has."""
    return [row for row in data["sizes"] if architecture in row]


def order_sentence(data: Data, architecture: str) -> str:
    """Say whether every larger model has the lower mean loss, and name the pairs that do not."""
    losses = [(row["size"], row[architecture]["loss"]) for row in sizes_of(data, architecture)]
    broken = [f"{b[0]} ({b[1]:.3f}) is not below {a[0]} ({a[1]:.3f})" for a, b in pairwise(losses) if b[1] >= a[1]]
    if broken:
        return f"{NAMES[architecture]}: the loss does not fall with every step in size: {'; '.join(broken)}."
    return f"{NAMES[architecture]}: every larger model reaches a lower mean validation loss than every smaller one."


def baseline_sentence(data: Data, architecture: str) -> str:
    """Say on which side of the n-gram baseline the smallest model lies."""
    smallest, baseline = sizes_of(data, architecture)[0], data["baseline"]
    loss, line = smallest[architecture]["loss"], baseline["validation_loss"]
    side = "beats" if loss < line else "does NOT beat"
    better = [str(row["order"]) for row in baseline["orders"] if row["validation_loss"] <= loss]
    others = f"n-grams of order {', '.join(better)} are better" if better else "no n-gram of any order is better"
    return (
        f"The smallest {NAMES[architecture]} ({smallest['size']}, {loss:.3f}) {side} the {baseline['order']}-gram "
        f"baseline ({line:.3f}); {others}."
    )


def lead_sentence(data: Data) -> str:
    """Say which architecture has the lower loss at how many matched sizes of the main budget."""
    matches = data["comparison"]["matches"]
    gpt: list[str] = []
    lstm: list[str] = []
    neither: list[str] = []
    for row in matches:
        low, high = row["interval"]
        ahead = gpt if high is not None and high < 0 else lstm if low is not None and low > 0 else neither
        ahead.append(row["size"])
    places = {"the GPT": gpt, "the LSTM": lstm, "neither, as it is not told,": neither}
    found = ", ".join(f"{who} at {len(sizes)} ({', '.join(sizes)})" for who, sizes in places.items() if sizes)
    return f"Of {len(matches)} matched sizes the lower loss belongs to {found}."


def extrapolation_ranking(rows: list[Data]) -> list[Data]:
    """Return the laws of one architecture by their root mean square error on larger sizes, best first.

    All are held to the same runs, those of the main budget: a law of N alone says nothing of others.
    """
    ranking = []
    for law in dict.fromkeys(row["law"] for row in rows):
        mine = [row["error"] for row in rows if row["law"] == law and row["main"]]
        ranking.append({"law": law, "tests": len(mine), "error": (sum(e**2 for e in mine) / len(mine)) ** 0.5})
    return sorted(ranking, key=lambda row: row["error"])


def extrapolation_lines(data: Data) -> list[str]:
    """Rank the laws by their error on sizes larger than any fitted, and say what becomes of a decade."""
    lines = []
    for name in data["fits"]:
        rows = [row for row in data["extrapolation"] if row["architecture"] == name]
        if not rows:
            lines.append(f"{NAMES[name]}: too few sizes to leave one out.")
            continue
        ranking = extrapolation_ranking(rows)
        order = ", ".join(f"{LAW_WORDS[r['law']]} {100 * r['error']:.2f} % ({r['tests']} tests)" for r in ranking)
        where = f"at {short(data['main_budget'])} tokens on sizes larger than any fitted"
        lines.append(f"{NAMES[name]}, root mean square error {where}: {order}.")
        for law in (row["law"] for row in ranking):
            mine = [row for row in rows if row["law"] == law and row["main"]]
            far = [row for row in mine if row["times"] >= DECADE]
            row = (  # of a decade or more, from the most sizes
                max(far, key=lambda row: (row["fitted_sizes"], -row["times"]))
                if far
                else max(mine, key=lambda row: row["times"])
            )
            note = "" if far else "no size lies a decade above a fitted range; the farthest is "
            lines.append(f"{NAMES[name]}, {LAW_WORDS[law]}: {note}{_foretold(row)}")
    return lines


def _foretold(row: Data) -> str:
    verdict = "within" if abs(row["error"]) <= GOAL else "NOT within"
    inside = "inside" if row["inside"] else "outside"
    return (
        f"{row['size']}, {row['times']:.1f} times the largest of {row['fitted_sizes']} sizes fitted: "
        f"{row['foretold']:.3f} foretold, {row['loss']:.3f} measured, {100 * row['error']:+.2f} % ({verdict} 1 %; "
        f"{inside} its 95 % band)."
    )


def epochs_before(row: Data) -> float:
    """Return the epochs of the smaller budget that a difference is from."""
    return float(row["epochs"] * row["from_budget"] / row["budget"])


def rising(data: Data, name: str) -> list[Data]:
    """Return the differences by which more passes over the same tunes raise the loss of an architecture."""
    return [row for row in data["arms"][name] if row["against"] == LONGER and (row["interval"][0] or 0) > 0]


def repetition_lines(data: Data) -> list[str]:
    """Say what repeated epochs and transposed copies are worth, or that it is not identified."""
    lines = []
    for name, found in data["repetition"].items():
        if found is None:
            continue
        for kind, unit, words in (
            ("epochs", "epochs", "of the same data are worth as much as"),
            ("keys", "keys", "of every tune are worth as much as"),
        ):
            part = found[kind]
            if part is None:
                continue
            if not part["identified"]:
                lines.append(f"{NAMES[name]}: what repeated {unit} are worth is not identified ({part['reason']}).")
                continue
            most = min(map(epochs_before, rising(data, name)), default=inf)
            told = [row for row in part["rows"] if unit != "epochs" or row[unit] <= most]
            values = ", ".join(f"{row[unit]}: {row['value']:.2f} {edges(row['bootstrap'])}" for row in told)
            short_of = "" if len(told) == len(part["rows"]) else "; more are not told, as a measured loss rises there"
            lines.append(f"{NAMES[name]}: {unit} {words} this many times the fresh data: {values}{short_of}.")
    return lines


# GPT against LSTM


def find_comparison(data: Data, law: str, axis: str = "n_params") -> Data | None:
    """Return the comparison under one law on one axis, or None if there is none."""
    return next((c for c in data["comparison"]["laws"] if c["law"] == law and c["axis"] == axis), None)


def exponent_sentence(comparison: Data) -> str:
    """Say which exponent is larger, or that this study cannot tell."""
    alpha = comparison["differences"]["alpha"]
    alike = comparison["equal_weights"]["alpha"]
    where = (
        f"On {AXIS_WORDS[comparison['axis']]}, {LAW_WORDS[comparison['law']]}: α(GPT) − α(LSTM) = {difference(alpha)}"
        f"{'' if alike is None else f' ({alike:+.3f} with equal weights for all runs)'}."
    )
    if not comparison["identified"]:
        return f"{where} Nothing follows from it, as {comparison['reason']}."
    test = shared_sentence("exponent", alpha["test"])
    if comparison["steeper"] is None:
        return f"{where} An interval holds 0: no architecture is shown to scale better. {test}"
    name = NAMES[comparison["steeper"]]
    floor = comparison["differences"].get("E")
    if floor is None:
        return f"{where} Neither interval holds 0: over the sizes fitted, the loss of the {name} falls faster. {test}"
    return (
        f"{where} Neither interval holds 0: the {name} nears its own floor faster; the floors differ by "
        f"E(GPT) − E(LSTM) = {difference(floor)}. {test}"
    )


def shared_sentence(what: str, test: Data) -> str:
    """Say whether one value would do for both."""
    if test["p"] is None:
        return f"Whether both could share one {what} is not identified: {test['reason']}."
    freedom = ", ".join(f"{number:.3g}" for number in test["freedom"])
    verdict = "fits worse than" if test["p"] < 0.05 else "is not told from"
    numbers = f"F({freedom}) = {test['statistic']:.2f}, p = {test['p']:.3g}"
    return f"By the noise of runs alone, one {what} for both {verdict} two (Wald: {numbers})."


def crossover_sentence(crossover: Data) -> str:
    """Say where the GPT's law comes to lie below the LSTM's."""
    low, high = crossover["interval"]
    text = f"{short(crossover['value'])} [{short(low)}, {short(high)}]"
    far = "" if crossover["measured"] else " That lies outside what was measured: an extrapolation."
    share = f"it does in {100 * crossover['share']:.0f} % of the resamples"
    where = f"on {AXIS_WORDS[crossover['axis']]}, the GPT's law comes to lie below the LSTM's"
    return f"{where} from {text} on ({share}).{far}"


def crossover_lines(compared: Data) -> list[str]:
    """Return a line for each crossover that is identified, and one for each reason why others are not."""
    lines: list[str] = []
    missing: dict[str, list[str]] = {}
    for law in compared["laws"]:
        for crossover in law["crossovers"]:
            if crossover["reason"] is None:
                lines.append(f"{LAW_WORDS[law['law']]}: {crossover_sentence(crossover)}")
            else:
                where = f"{LAW_WORDS[law['law']]} on {AXIS_WORDS[crossover['axis']]}"
                missing.setdefault(crossover["reason"], []).append(where)
    return lines + [f"No crossover is identified ({'; '.join(laws)}): {why}." for why, laws in missing.items()]


RESOURCE_WORDS = {
    "n_params": "parameters",
    "n_params_non_embedding": "parameters without tables",
    "tokens": "tokens",
    "flops": "training FLOPs",
    "seconds": "seconds of training",
    "peak_memory_bytes": "bytes of memory",
}


def ratio_table(ratios: list[Data]) -> list[str]:
    """Return a Markdown table of how much more the GPT needs than the LSTM, at the middle of the losses compared."""
    rows = ["| resource | at the loss | GPT | LSTM | GPT / LSTM |", "|---|---|---|---|---|"]
    groups: dict[tuple[str, str | None], list[Data]] = {}
    for row in ratios:
        groups.setdefault((row["resource"], row["size"]), []).append(row)
    for (resource, size), group in groups.items():
        row = sorted(group, key=lambda row: row["loss"])[len(group) // 2]
        where = f" at size {size}" if size else ""
        open_why = f" (interval open: {row['reason']})" if row["reason"] is not None else ""
        cells = [
            f"{row['loss']:.3f}",
            short(row["gpt"]),
            short(row["lstm"]),
            f"{row['ratio']:.2f} {edges(row['interval'])}{open_why}",
        ]
        rows.append(f"| {RESOURCE_WORDS[resource]}{where} | {' | '.join(cells)} |")
    return rows


def position_lines(positions: Data) -> list[str]:
    """Say how the loss falls with the characters that a model can see, for each and for their difference."""
    first, last = positions["bins"][0], positions["bins"][-1]
    lines = []
    for name, words in (("gpt", "GPT"), ("lstm", "LSTM"), ("difference", "GPT − LSTM")):
        curve = positions[name]
        sign = "+" if name == "difference" else ""
        ends = (
            f"{curve['loss'][0]:{sign}.3f} nats at {first[0]}–{first[1]} visible characters, "
            f"{curve['loss'][-1]:{sign}.3f} at {last[0]}–{last[1]}"
        )
        until = curve["falls_until"]
        fall = (
            "; not shown to fall anywhere" if until is None else f"; shown to fall bin by bin until {until} characters"
        )
        lines.append(
            f"{words} ({positions['size']}, {positions['seeds']} seeds): {ends}; change per doubling over the last two "
            f"bins {curve['slope']:+.4f} {_small(curve['slope_interval'])}{'' if name == 'difference' else fall}."
        )
    return lines


def _small(pair: list[float | None]) -> str:
    return f"[{', '.join('open' if edge is None else f'{edge:+.4f}' for edge in pair)}]"


# The documents


def one_budget(data: Data) -> str:
    """Return the warning that a study of one budget needs."""
    return ", the only budget trained; another can reverse it" if len(data["budgets"]) == 1 else ""


def image(figures: set[str], name: str, caption: str) -> list[str]:
    """Return the Markdown of a figure if it was drawn."""
    return [f"![{caption}]({name}.png)", ""] if name in figures else []


def write_report(data: Data, figures: set[str], opening: list[str]) -> str:
    """Return the report of a study as Markdown; `figures` are the names of those that lie beside it.

    `opening` are the lines that stand before the evidence.
    """
    names = list(data["fits"])
    title = (
        "GPT against LSTM on ABC notation" if len(names) == 2 else f"How the {NAMES[names[0]]} scales on ABC notation"
    )
    runs = " and ".join(f"{data['runs'][name]} {NAMES[name]}" for name in names)
    budgets = ("budget" if len(data["budgets"]) == 1 else "budgets") + " of "
    budgets += ", ".join(short(budget) for budget in data["budgets"])
    labelled = [(f"{NAMES[name]}, {AXIS_WORDS[fit['axis']]}", fit) for name in names for fit in data["fits"][name]]
    lines = [
        f"# {title}",
        "",
        f"{runs} runs; {budgets} tokens. The tables of sizes and the laws of N are of the main budget, "
        f"{short(data['tokens'])} tokens ({data['epochs']:.2f} epochs), with up to {len(data['seeds'])} seeds. "
        f"Loss is in nats per character on {short(data['validation_tokens'])} validation characters; the sampling "
        f"error of that set is ± {data['validation_standard_error']:.3f} (over tunes, the same tunes for every model).",
        "",
        *image(figures, "combined_scaling_laws", "Loss against parameters; points are runs, bands 95 % intervals."),
        *opening,
        "## Sizes",
        "",
        *size_table(data),
        "",
        *(f"- {order_sentence(data, name)}" for name in names),
        *([f"- {lead_sentence(data)}"] if data["comparison"] is not None else []),
        f"- The table is of {short(data['tokens'])} tokens{one_budget(data)}.",
        "",
        "## Baseline",
        "",
        *(f"- {baseline_sentence(data, name)}" for name in names),
        "",
        "| n-gram order | validation loss | bpc |",
        "|---|---|---|",
        *(
            f"| {row['order']} | {row['validation_loss']:.3f} | {row['bits_per_character']:.3f} |"
            for row in data["baseline"]["orders"]
        ),
        "",
        "## Laws",
        "",
        "N counts all parameters. In a law of N alone, E is the loss that the law gives an endless model at this one "
        "budget of tokens, not the entropy of the music. A parameter is identified only if all three intervals are "
        "clear of its bounds and, for floors, factors and exponents, of zero (k_d, k_n, k_u and k_in of the Symbolic "
        "Music Scaling law may have either sign): the bootstrap's, over runs; the jackknife's, which leaves out each "
        "size (for a law of D each budget, for one of C each point of the frontier, which is chosen once and not "
        "again in resamples); the profile's.",
        "",
        *(f"- {line}" for line in law_lines(data)),
        "",
        *parameter_table(labelled),
        "",
        *image(figures, "budgets", "Loss against parameters at every budget; lines are Chinchilla's law."),
        *image(figures, "residuals", "Measured over fitted loss, run by run."),
        *image(
            figures, "profile_likelihoods", "The rise of the objective with each parameter held; 1 is the 95 % limit."
        ),
        "How each was fitted:",
        "",
        *(f"- {fit_sentence(label, fit)}" for label, fit in labelled),
        "",
        "## Sizes larger than any fitted",
        "",
        *(f"- {line}" for line in extrapolation_lines(data)),
        "",
        *image(figures, "extrapolation", "The error of laws on sizes larger than any that they were fitted to."),
        *compared_section(data, figures),
        *allocation_section(data, figures),
        *repetition_section(data, figures),
        *rate_section(data, figures),
    ]
    if data["left_out"]:
        lines += ["## Runs that are not fitted", "", *(f"- {row}" for row in data["left_out"]), ""]
    return "\n".join(lines).rstrip() + "\n"


def compared_section(data: Data, figures: set[str]) -> list[str]:
    """Return the section on GPT against LSTM, or nothing where only one was trained."""
    compared = data["comparison"]
    if compared is None:
        return []
    lines = [
        "## GPT against LSTM",
        "",
        f"{compared['pairs']} pairs of runs of one size, budget and seed; a resample draws the pairs of one size and "
        "seed with all their budgets. Laws of one variable are of the main budget. The tests are not corrected for "
        "their number: the intervals, not they, decide.",
        "",
        *(f"- {exponent_sentence(law)}" for law in compared["laws"]),
        "",
        *(f"- {line}" for line in crossover_lines(compared)),
        "",
    ]
    if compared["ratios"]:
        lines += [
            "What the GPT needs for the same loss, only where both reached it:",
            "",
            *ratio_table(compared["ratios"]),
            "",
        ]
    if compared["positions"] is not None:
        lines += ["By how many characters a prediction could see:", ""]
        lines += [f"- {line}" for line in position_lines(compared["positions"])]
        lines += ["", *image(figures, "loss_by_position", "Loss by place in the context.")]
    if compared["left_out"]:
        lines += [*(f"- Left out: {what}: {why}." for what, why in compared["left_out"].items()), ""]
    return lines


WAYS = {
    "envelope": "envelope of the curves of all sizes",
    "isoflop": "minima at equal FLOPs",
    "parametric": "Chinchilla's law",
}


def quantity(row: Data | None, text: Callable[[float], str] = figure_of) -> str:
    """Return a value with its bootstrap interval."""
    if row is None:
        return "–"
    low, high = ("open" if edge is None else text(edge) for edge in row["bootstrap"])
    return f"{text(row['value'])} [{low}, {high}]"


def allocation_section(data: Data, figures: set[str]) -> list[str]:
    """Return the section on how compute is best split, or nothing where no way had the runs for it."""
    ways = {name: found["ways"] for name, found in data["allocation"].items()}
    if not any(way["reason"] is None for mine in ways.values() for way in mine.values()):
        return []
    lines = [
        "## Where compute is best spent",
        "",
        "N_opt = k·C^a and D_opt = k'·C^b minimise the loss at C training FLOPs, counted per module. Intervals are "
        "over seeds, and where it is said over sizes.",
        "",
        "| | way | a of N_opt | a over sizes | b of D_opt | from FLOPs | to FLOPs |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, mine in ways.items():
        for way, found in mine.items():
            if found["reason"] is None:
                low, high = found["used"]
                cells = [
                    quantity(found["a"]),
                    edges(found["a"]["jackknife"]),
                    quantity(found["b"]),
                    short(low),
                    short(high),
                ]
                lines.append(f"| {NAMES[name]} | {WAYS[way]} | {' | '.join(cells)} |")
    lines += ["", "| | way | C | N_opt | D_opt | tokens a parameter | loss | |", "|---|---|---|---|---|---|---|---|"]
    for name, mine in ways.items():
        for way, found in mine.items():
            for best in found["optima"]:
                cells = [
                    short(best["flops"]),
                    *(quantity(best[key], short) for key in ("n_params", "tokens", "tokens_per_parameter")),
                ]
                note = "extrapolated" if best["extrapolated"] else ""
                lines.append(
                    f"| {NAMES[name]} | {WAYS[way]} | {' | '.join(cells)} | {quantity(best['loss'])} | {note} |"
                )
    lines.append("")
    for name, mine in ways.items():
        lines += [
            f"- {NAMES[name]}, {WAYS[way]}: not identified, {found['reason']}."
            for way, found in mine.items()
            if found["reason"] is not None
        ]
        lines.append(f"- {agreement_sentence(name, data['allocation'][name]['comparisons'])}")
    return [
        *lines,
        "",
        *image(figures, "isoflop", "Loss against parameters at equal training compute; minima are marked."),
    ]


def agreement_sentence(architecture: str, comparisons: list[Data]) -> str:
    """Say where two ways to the best split differ beyond doubt."""
    if not comparisons:
        return f"{NAMES[architecture]}: fewer than two ways are identified, so none can be held against another."
    apart = [row for row in comparisons if row["differ"]]
    if not apart:
        return (
            f"{NAMES[architecture]}: no two ways are shown to differ, in {len(comparisons)} comparisons of intervals."
        )
    texts = []
    for row in apart:
        first, second = (WAYS[way] for way in row["ways"])
        what = f"N_opt at {short(row['flops'])} FLOPs" if row["flops"] else row["quantity"]
        texts.append(f"{first} and {second} on {what}")
    return f"{NAMES[architecture]}: the ways DISAGREE, neither kind of interval overlaps: {'; '.join(texts)}."


def repetition_section(data: Data, figures: set[str]) -> list[str]:
    """Return the section on repeated epochs and transposed copies, or nothing where none was trained."""
    found = repetition_lines(data)
    if not found:
        return []
    drawing = image(figures, "repetition", "Loss against epochs, by how many characters there are to repeat.")
    return ["## Repeated epochs and transposed copies", "", *(f"- {line}" for line in found), "", *drawing]


def unswept_lines(data: Data) -> list[str]:
    """Name the sizes larger than any whose rate was swept: their rates follow a rule that is extrapolated."""
    rules = {} if data["learning_rate"] is None else data["learning_rate"]["rules"]
    beyond = [
        f"{NAMES[name]} {row['size']}"
        for name in data["fits"]
        if name in rules
        for row in sizes_of(data, name)
        if row[name]["n_params_non_embedding"] > NEAR * max(optimum["n"] for optimum in rules[name]["optima"])
    ]
    if not beyond:
        return []
    return [
        f"Beyond the sizes whose peak rate was swept: {', '.join(beyond)}. The rule is extrapolated there, and the "
        "loss may not be the best of its size."
    ]


def rate_lines(data: Data) -> list[str]:
    """Say how much the rates of the runs cost at most against the best ones, at the sizes that were swept."""
    lines = []
    for name, used in data["learning_rate"]["used"].items():
        known = [row for row in used if row["rise"] is not None]
        if known:
            worst = max(known, key=lambda row: row["rise"])
            lines.append(
                f"{NAMES[name]}: at the {len(known)} of {len(used)} sizes that were swept, the rates of the runs "
                f"raise the loss by at most {worst['rise']:.4f} at that budget ({worst['size']}). The best rate is the "
                "vertex of a parabola through the sweep's lowest run and its neighbours."
            )
    return lines


def rate_section(data: Data, figures: set[str]) -> list[str]:
    """Return the section on the learning rate, or nothing without a sweep."""
    sweep = data["learning_rate"]
    if sweep is None:
        return []
    whose = (
        "this corpus"
        if sweep["config"]["corpus"] == data["corpus"]
        else f"another corpus ({sweep['config']['corpus']}) than this study's"
    )
    rules = [
        f"- {NAMES[name]}: best peak rate = {rule['coefficient']:.3g}·N^-{rule['exponent']:.3f} over "
        f"{len(rule['optima'])} sizes, N without tables."
        for name, rule in sweep["rules"].items()
    ]
    rows = [(NAMES[name], row) for name, used in sweep["used"].items() for row in used]
    table = [
        f"| {name} | {row['size']} | {row['rate']:.3g} | "
        + (f"{row['best']:.3g} | +{row['rise']:.4f} |" if row["best"] is not None else "– | – |")
        for name, row in rows
    ]
    drawing = image(
        figures, "learning_rate", "The best peak rate of each size swept, the rule, and the rates of the runs."
    )
    return [
        "## Learning rate",
        "",
        f"Swept on {whose}, at {short(sweep['config']['tokens'])} tokens; at other budgets another may be the best.",
        "",
        *rules,
        *(f"- {line}" for line in [*rate_lines(data), *unswept_lines(data)]),
        "",
        "| | size | peak rate of its runs | best peak rate | what that costs, nats per character |",
        "|---|---|---|---|---|",
        *table,
        "",
        *drawing,
    ]
