"""The study's questions and what it answers: sentences from fits.json alone, each with its number and interval."""

from typing import Any

from analysis.ablations import KEYS, PART, STATE, STATE_RESET
from analysis.report import (
    AXIS_WORDS,
    LAW_WORDS,
    NAMES,
    PARAMETERS,
    WAYS,
    chosen_fit,
    crossover_sentence,
    difference,
    edges,
    epochs_before,
    estimate,
    exponent_sentence,
    extrapolation_lines,
    find_comparison,
    find_fit,
    image,
    lead_sentence,
    percent,
    position_lines,
    quantity,
    repetition_lines,
    rising,
    short,
    sizes_of,
    unswept_lines,
)

Data = dict[str, Any]
TEXT = 20  # tokens a parameter for text: Hoffmann et al. 2022 (2203.15556), table 3
WORDS = {
    PART: "fewer tunes, repeated, change the loss by",
    KEYS: "transposing the tunes changes it by",
    STATE: "carrying the state from window to window, in training and in validation, changes it by",
    STATE_RESET: "carrying it in training alone changes it by",
}
BOTH = "GPT or LSTM: which gains more, by which axis, and from where on?"
MUSIC = "What music appears at which size, and how much of it is copied?"
MUSIC_FIGURE = "quality_over_size"  # of generation/, beside the scores that the findings are of
COMPARED, FLOORED = "power", "power_irreducible"  # exponents without a floor alone are alike


def answer_section(data: Data, drawn: set[str]) -> list[str]:
    """Return the questions with their answers as Markdown; `drawn` are the names of the figures beside it."""
    questions: dict[str, tuple[list[str], tuple[str, ...]]] = {
        "How does the loss fall with size, data and compute?": (
            law_answers(data),
            ("combined_scaling_laws", "budgets"),
        ),
        BOTH: (scaling_answers(data), ("combined_scaling_laws",)),
        "How many tokens a parameter is compute best spent on, against text's 20?": (ratio_answers(data), ("isoflop",)),
        "What are repeated data and transposed tunes worth?": (data_answers(data), ("repetition",)),
        "How well did small sizes foretell the large?": (extrapolation_lines(data), ("extrapolation",)),
        MUSIC: (data["quality"]["findings"] if data["quality"] else ["Not measured."], (MUSIC_FIGURE,)),
        "How do these numbers compare with published ones?": (
            ["Point by point in the section “Beside published numbers”."],
            ("published",),
        ),
        "What failed, and what is not identified?": (failure_answers(data), ("profile_likelihoods",)),
    }
    if data["comparison"] is None:
        del questions[BOTH]
    lines = ["## Answers", ""]
    for question, (answers, figures) in questions.items():
        shown = ", ".join(name for name in figures if name in drawn)
        lines += [f"**{question}**{f' ({shown})' if shown else ''}", "", *(f"- {answer}" for answer in answers), ""]
        if question == MUSIC:
            lines += image(drawn, MUSIC_FIGURE, "What the models write, against their size; quality.md says more.")
    return lines


def headline(data: Data) -> list[str]:
    """Return the answer in five lines."""
    names = list(data["fits"])
    form = chosen_fit(data, names[0])["form"].removeprefix("L = ").replace("x^-alpha", "N^-α")
    fits = {name: chosen_fit(data, name) for name in names}
    laws = "; ".join(
        f"{NAMES[name]} {_parameters(law)} over runs, α {edges(law['parameters']['alpha']['jackknife'])} over sizes"
        for name, law in fits.items()
    )
    return [
        f"**Size.** The loss, in nats per character, falls with parameters N as {form} (95 % intervals): {laws}."
        + "".join(f" {line}" for line in unswept_lines(data)),
        f"**Which.** {_faster(data)}",
        f"**Compute.** {_best_split(data)}",
        f"**Data.** {_other_data(data)}",
        f"**Music.** {' '.join(data['quality']['headlines']) if data['quality'] else 'Not measured.'}",
    ]


def _faster(data: Data) -> str:
    """Say from where on which architecture's loss is the lower, and whose falls faster."""
    compared = None if data["comparison"] is None else find_comparison(data, COMPARED)
    if compared is None:
        return "Only one architecture was trained."
    texts = [lead_sentence(data)]
    for law in (FLOORED, COMPARED):
        lines = _crossings(data, law, "n_params")
        if lines:
            texts.append(f"By the {LAW_WORDS[law]}: {lines[0]}")
            break
    steeper = compared["steeper"] if compared["identified"] else None
    verdict = (
        "No architecture's loss is shown to fall faster"
        if steeper is None
        else f"Over these sizes the {NAMES[steeper]}'s loss falls faster"
    )
    alpha, alike = difference(compared["differences"]["alpha"]), compared["equal_weights"]["alpha"]
    alike_words = "" if alike is None else f"; {alike:+.3f} with equal weights for all runs"
    why = "" if compared["identified"] else f", from which nothing follows, as {compared['reason']}"
    texts.append(f"{verdict}: α(GPT) − α(LSTM) = {alpha} ({LAW_WORDS[COMPARED]}{alike_words}){why}.")
    return " ".join([*texts, *_carried(data)])


def _carried(data: Data) -> list[str]:
    """Say that windows begin without state, if it is known what the LSTM gains where they do not."""
    rows = data["arms"].get("lstm", ())
    mine = [row for row in rows if row["against"] == STATE and row["budget"] == data["main_budget"]]
    changes = ", ".join(f"{row['difference']:+.3f} {edges(row['interval'], '+')} ({row['size']})" for row in mine)
    what = "Here every window begins without state; carried from window to window it changes the loss of the LSTM by"
    return [f"{what} {changes}."] if mine else []


def _crossings(data: Data, law: str, axis: str) -> list[str]:
    """Say from where on an axis the GPT's law is the lower, as far as that is identified."""
    compared = find_comparison(data, law, axis)
    found = [] if compared is None else [row for row in compared["crossovers"] if row["reason"] is None]
    lines = [crossover_sentence(row) for row in found if row["axis"] == axis]
    if compared is not None and lines and compared["equal_weights"]["crossover"] is not None:
        lines[-1] += f" With equal weights for all runs: from {short(compared['equal_weights']['crossover'])} on."
    return lines


def _capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"


def _best_split(data: Data) -> str:
    """Say for each architecture the best number of tokens a parameter, by the first way that is identified."""
    parts = [next((row for row in ratios(data) if row["architecture"] == name), None) for name in data["allocation"]]
    texts = [f"{NAMES[row['architecture']]}, {WAYS[row['way']]}: {_ratio(row)}" for row in parts if row is not None]
    if not texts:
        return "How it is best split is not identified."
    return f"Compute is best spent on this many characters a parameter (text: {TEXT} tokens). {'; '.join(texts)}."


def _other_data(data: Data) -> str:
    """Say what fewer tunes and more keys change at the main budget, of the largest size that was trained so."""
    found: dict[str, list[str]] = {}
    for name, rows in data["arms"].items():
        mine = [row for row in rows if row["budget"] == data["main_budget"] and row["against"] in (PART, KEYS)]
        for row in sorted(mine, key=lambda row: (row["against"] == KEYS, -row["data_fraction"])):
            if row["size"] == mine[-1]["size"]:
                part = "all tunes" if row["data_fraction"] == 1 else f"{percent(row['data_fraction'])} of the tunes"
                more = (
                    f"in {row['keys']} keys instead of their own"
                    if row["against"] == KEYS
                    else f"alone instead of all, {row['epochs']:.0f} epochs"
                )
                change = f"{row['difference']:+.3f} {edges(row['interval'], '+')} ({NAMES[name]} {row['size']})"
                found.setdefault(f"{part} {more}", []).append(change)
    if not found:
        return "Repeating and transposing were not tried."
    changes = "; ".join(f"{what}: {', '.join(each)}" for what, each in found.items())
    return f"At {short(data['main_budget'])} tokens, the loss changes as follows. {changes}."


def study_words(data: Data) -> str:
    """Return what the runs are whose losses at the main budget are shown, for the caption of their figure."""
    names = list(data["fits"])
    sizes = sizes_of(data, names[0])
    least, most = (short(row[names[0]]["n_params"]) for row in (sizes[0], sizes[-1]))
    counts = (sum(row[name]["seeds"] for row in sizes_of(data, name)) for name in names)
    runs = " and ".join(f"{count} {NAMES[name]}" for name, count in zip(names, counts, strict=True))
    return (
        f"{runs} runs of {least} to {most} parameters, {short(data['tokens'])} tokens (a token is a character; "
        f"{data['epochs']:.1f} epochs of the training tunes)"
    )


def law_answers(data: Data) -> list[str]:
    """Say the law of N, of D and of C of each architecture, the one with a floor where all of it is identified."""
    lines = []
    for name in data["fits"]:
        for axis, where in (
            ("n_params", f"at {short(data['tokens'])} tokens"),
            ("tokens", f"at size {sizes_of(data, name)[-1]['size']}"),
            ("flops", "along the best runs of each cost"),
        ):
            floor, plain = (find_fit(data, name, law, axis) for law in ("power_irreducible", "power"))
            if plain is None:
                lines.append(f"{NAMES[name]}, {AXIS_WORDS[axis]}: too few budgets for a law.")
                continue
            known = floor is not None and all(row["identified"] for row in floor["parameters"].values())
            text = f"without a floor, {_parameters(plain)}"
            if known and floor is not None:
                text = f"with a floor, {_parameters(floor)}; {text}"
            else:
                text += "; a floor is not identified"
            lines.append(f"{NAMES[name]}, {AXIS_WORDS[axis]}, {where}: {text}.")
        both = find_fit(data, name, "chinchilla")
        if both is not None:
            words = (
                "is identified" if all(r["identified"] for r in both["parameters"].values()) else "is NOT identified"
            )
            lines.append(
                f"{NAMES[name]}, {LAW_WORDS['chinchilla']} {words}: {_parameters(both)}; it misses the runs by "
                f"{_miss(both)}."
            )
    return lines


def _parameters(fitted: Data) -> str:
    wanted = [name for name in ("alpha", "beta", "E") if name in fitted["parameters"]]
    return ", ".join(f"{PARAMETERS.get(name, name)} = {estimate(fitted['parameters'][name])}" for name in wanted)


def _miss(fitted: Data) -> str:
    residuals = fitted["residuals"]
    mean = (sum(r * r for r in residuals) / len(residuals)) ** 0.5
    return f"{100 * mean:.1f} % (root mean square; the worst by {100 * max(map(abs, residuals)):.1f} %)"


def scaling_answers(data: Data) -> list[str]:
    """Say which architecture's loss falls faster, from where its law is the lower, and what was measured."""
    lines: list[str] = []
    if data["comparison"] is None:
        return lines
    for axis in ("n_params", "flops"):
        for law in (COMPARED, FLOORED):
            compared = find_comparison(data, law, axis)
            if compared is not None:
                lines += [exponent_sentence(compared), *map(_capital, _crossings(data, law, axis))]
    lines += [f"{lead_sentence(data)} That is at {short(data['tokens'])} tokens.", *_carried(data)]
    if data["comparison"]["positions"] is not None:
        lines += position_lines(data["comparison"]["positions"])
    return lines


def ratios(data: Data) -> list[Data]:
    """Return the best number of tokens a parameter by each way at the most compute it has seen, equal FLOPs first.

    `place` holds the ratio against text's: above or below it only if both kinds of interval are. `less` are the optima
    at less compute.
    """
    rows = []
    for name, found in data["allocation"].items():
        for way, approach in sorted(found["ways"].items(), key=lambda item: item[0] != "isoflop"):
            seen = [best for best in approach["optima"] if not best["extrapolated"]]
            if approach["reason"] is None and seen:
                *less, best = sorted(seen, key=lambda best: best["flops"])
                ratio = best["tokens_per_parameter"]
                lows, highs = zip(ratio["bootstrap"], ratio["jackknife"], strict=True)
                above = None not in lows and min(lows) > TEXT
                below = None not in highs and max(highs) < TEXT
                rows.append(
                    {
                        "architecture": name,
                        "way": way,
                        "flops": best["flops"],
                        "ratio": ratio,
                        "less": less,
                        "a": approach["a"],
                        "place": "above" if above else "below" if below else "not told from",
                    }
                )
    return rows


def _ratio(row: Data) -> str:
    ratio = row["ratio"]
    over_sizes = f"{edges(ratio['jackknife'])} over sizes"
    return f"{quantity(ratio)} over runs, {over_sizes}, at {short(row['flops'])} FLOPs ({row['place']} {TEXT})"


def ratio_answers(data: Data) -> list[str]:
    """Hold the best number of tokens a parameter against text's."""
    lines = []
    for row in ratios(data):
        trend = "".join(
            f"{best['tokens_per_parameter']['value']:.1f} at {short(best['flops'])} FLOPs, " for best in row["less"]
        )
        lines.append(
            f"{NAMES[row['architecture']]}, {WAYS[row['way']]}, characters a parameter: {trend}{_ratio(row)}; N_opt "
            f"grows as C^{quantity(row['a'])} over runs, {edges(row['a']['jackknife'])} over sizes."
        )
    return lines or ["It is not identified."]


def data_answers(data: Data) -> list[str]:
    """Say what fewer tunes, more passes, more keys and carried state changed, and what the laws make of it."""
    lines = []
    for name, rows in data["arms"].items():
        mine = [row for row in rows if row["budget"] == data["main_budget"]]
        for kind, words in WORDS.items():
            cells = [_change(row) for row in mine if row["against"] == kind]
            if cells:
                lines.append(f"{NAMES[name]}, at {short(data['main_budget'])} tokens: {words} {'; '.join(cells)}.")
        if rising(data, name):
            lines.append(
                f"{NAMES[name]}: repeated further, the same tunes RAISE the loss by "
                f"{'; '.join(map(_rise, rising(data, name)))}. "
                "The data-constrained law below cannot rise: there it does not describe these runs."
            )
    return (lines + repetition_lines(data)) or ["Not tried."]


def _rise(row: Data) -> str:
    what = f"{percent(row['data_fraction'])} of them, from {epochs_before(row):.0f} to {row['epochs']:.0f} epochs"
    return f"{row['difference']:+.3f} {edges(row['interval'], '+')} ({row['size']}, {what})"


def _change(row: Data) -> str:
    part = "all tunes" if row["data_fraction"] == 1 else f"{percent(row['data_fraction'])} of them"
    more = {PART: f", {row['epochs']:.0f} epochs", KEYS: f" in {row['keys']} keys", STATE: "", STATE_RESET: ""}
    what = f"{part}{more[row['against']]}"
    return f"{row['difference']:+.3f} {edges(row['interval'], '+')} ({row['size']}, {what})"


def arm_section(data: Data) -> list[str]:
    """Return the section with every difference that fewer tunes, more keys and carried state make, if there is one."""
    if not any(data["arms"].values()):
        return []
    rows = [
        "## What fewer tunes, more keys and carried state change",
        "",
        "Means over seeds of the difference, in nats per character, from the run of the same size, seed and budget; "
        "where tokens stand under “against”, from the run on the same tunes for that many.",
        "",
        "| | size | tokens | tunes | keys | epochs | seeds | loss | change | against |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    against = {
        PART: "all tunes",
        KEYS: "own keys alone",
        STATE: "state reset in every window",
        STATE_RESET: "the same, reset in validation for both",
    }
    for name, members in data["arms"].items():
        for row in members:
            cells = [
                NAMES[name],
                row["size"],
                short(row["budget"]),
                "all" if row["data_fraction"] == 1 else percent(row["data_fraction"]),
                str(row["keys"]),
                f"{row['epochs']:.2f}",
                str(row["seeds"]),
                f"{row['loss']:.3f}",
                f"{row['difference']:+.3f} {edges(row['interval'], '+')}",
                against.get(row["against"], f"{short(row['from_budget'])} tokens"),
            ]
            rows.append(f"| {' | '.join(cells)} |")
    return [*rows, ""]


def failure_answers(data: Data) -> list[str]:
    """Name the parameters that are not identified, fit by fit, and the runs that are not fitted."""
    lines = []
    for name, fits in data["fits"].items():
        for fitted in fits:
            unknown = [key for key, row in fitted["parameters"].items() if not row["identified"]]
            if unknown:
                which = ", ".join(PARAMETERS.get(key, key) for key in unknown)
                where = f"{NAMES[name]}, {LAW_WORDS[fitted['law']]} on {AXIS_WORDS[fitted['axis']]}"
                lines.append(f"{where}: {which} not identified.")
    lines += unswept_lines(data)
    return [*lines, *(f"{_capital(line)}." for line in data["left_out"])] or ["Nothing."]
