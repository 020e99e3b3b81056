"""Sentences and tables from the analysis of quality against size: each holds its numbers."""

from collections.abc import Iterator
from math import exp
from typing import Any

from generation.quality import TIERS
from generation.quality_vs_size import AXES, CHANCE, MIN_RUNS, MIN_SIZES, Data, cells_of

NAMES = {"gpt": "GPT", "lstm": "LSTM"}
AXIS_WORDS = {"n_params": "all parameters", "n_params_non_embedding": "parameters without tables"}
FIGURES = {
    "quality_over_size": "Every metric against parameters: sizes with 95 % intervals, fitted curves, people's tunes.",
    "quality_over_loss": "Every metric against validation loss, one curve an architecture.",
    "abilities": "The number of parameters at which each ability appears.",
}
UNITS = (("G", 1e9), ("M", 1e6), ("K", 1e3))
TOLD = ("valid", "no_errors", "bars_add_up", "repeated_bars", "copied")
FREE = "no interval"
WHOSE = {"best": "the best model's", "human": "people's (test)"}
MEAN_SHARES = ("repeated_bars", "ngram_overlap")  # a number of each tune, from 0 to 1
LISTED = 5  # disagreements with each judge; quality.json has more


def short(number: float, _: Any = None) -> str:
    """Return a count as 15K, 1.2M."""
    for unit, size in UNITS:
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def amount(metric: Data, value: float, sign: str = "", unit: bool = True) -> str:
    """Return a value of a metric: shares in percent (differences of them in points), others with three digits."""
    if metric["kind"] != "share" and metric["name"] not in MEAN_SHARES:
        return f"{value:{sign}.3g}"
    value = value if sign else max(value, 0.0)  # the interval of a mean share close to none reaches below
    return f"{100 * value:{sign}.1f}{('' if sign else ' %') if unit else ''}"


def quantity(metric: Data, row: Data | None, sign: str = "") -> str:
    """Return a value with its interval, a dash where there is none."""
    value = None if row is None else row.get("value", row.get("share"))
    if row is None or value is None:
        return "–"
    edges = [FREE] if None in row["interval"] else [amount(metric, e, sign, unit=False) for e in row["interval"]]
    return f"{amount(metric, value, sign)} [{', '.join(edges)}]"


def slope(curve: Data | None) -> str:
    """Return the slope of a curve in N: logits or the metric's unit per decade, or a factor per decade."""
    if curve is None:
        return "–"
    if curve["reason"]:
        return f"{curve['verdict']}: {curve['reason']}"
    value, edges = curve["slope"]["value"], curve["slope"]["interval"]
    factor = curve["form"] == "log line"
    texts = [f"{exp(b):.3g}" if factor else f"{b:+.3g}" for b in (value, *edges)]
    return f"{'× ' if factor else ''}{texts[0]} [{texts[1]}, {texts[2]}], {curve['verdict']}"


def place(row: Data | None, range_: tuple[float, float]) -> str:
    """Return where an ability appears; an edge outside of the sizes is named as such."""
    if row is None:
        return "–"
    first, last = map(short, range_)
    if row["status"] == "no trend":
        return f"no trend ({row['reason']})"
    low, high = row["interval"]
    edges = f" [{'< ' + first if low is None else short(low)}, {'> ' + last if high is None else short(high)}]"
    if row["status"] == "measured":
        return f"{short(row['value'])}{edges}"
    where = f"below the smallest size, {first}" if row["status"] == "below" else f"beyond the largest size, {last}"
    return where if row["interval"] in ([None, range_[0]], [range_[1], None]) else f"{where}{edges}"


def ratio(row: Data | None) -> str:
    """Return the N of the LSTM over that of the GPT with its interval, open where the sizes do not bound it."""
    if row is None or row["interval"] == [None, None]:
        return "not identified"
    edges = ", ".join("open" if edge is None else f"{edge:.2g}" for edge in row["interval"])
    return f"{'outside of the sizes' if row['value'] is None else format(row['value'], '.2g')} [{edges}]"


def verdict(metric: Data, row: Data) -> str:
    """Say for which architecture an interval of LSTM − GPT decides: by better, or by more where neither is better."""
    if row["sign"] == 0:
        return "not told"
    if metric["better"] == 0:
        return "LSTM more" if row["sign"] > 0 else "GPT more"
    return "LSTM better" if row["sign"] == metric["better"] else "GPT better"


def tally(metrics: dict[str, Data], rows: dict[str, Data]) -> str:
    """Count the metrics, of those with a better side, that are decided for either architecture, and name them.

    The tiers count once, as valid tunes: they are parts of that.
    """
    counted = [name for name in rows if metrics[name]["better"] and name not in TIERS]
    decided = {name: verdict(metrics[name], rows[name]) for name in counted}
    texts = []
    for words in ("LSTM better", "GPT better"):
        mine = [name for name, found in decided.items() if found == words]
        labels = [metrics[name]["label"] for name in mine if metrics[name]["kind"] != "distance"]
        distances = len(mine) - len(labels)
        labels += [f"{distances} distances" if distances > 1 else "1 distance"] if distances else []
        named = f" ({', '.join(labels)})" if labels else ""
        texts.append(f"{words} in {len(mine)}{named}")
    left = list(decided.values()).count("not told")
    return f"of {len(decided)} metrics with a better side: {'; '.join(texts)}; not told in {left}"


def ends(view: Data, name: str, axis: str) -> tuple[float, float]:
    """Return the least and the most that an architecture's sizes have on an axis."""
    values = [row[axis] for found in view.values() for row in found["points"].get(name, [])]
    return min(values), max(values)


def architectures(view: Data) -> list[str]:
    """Return the architectures that a view has."""
    return list(next(iter(view.values()))["points"])


# The findings


def findings(quality: Data, analysis: Data) -> list[str]:
    """Return what the study says in at most six lines, each with its numbers."""
    view, metrics = analysis["chosen"], {metric["name"]: metric for metric in analysis["metrics"]}
    lines = [study_line(quality, analysis)]
    told = [ends_line(metrics[name], view[name]) for name in TOLD if name in view]
    lines += [" ".join(told)] if told else []
    if any(metric["kind"] == "distance" for metric in metrics.values()):
        lines.append(distance_line(metrics, view))
    return lines + ability_line(metrics, view) + compared_lines(metrics, view)


def headlines(analysis: Data) -> list[str]:
    """Return the few of the findings that stand at the top of a README: tunes that are valid, bars that come again."""
    view, metrics = analysis["chosen"], {metric["name"]: metric for metric in analysis["metrics"]}
    return [ends_line(metrics[name], view[name]) for name in ("valid", "repeated_bars") if name in view]


def compared_lines(metrics: dict[str, Data], view: Data) -> list[str]:
    """Say how LSTM and GPT compare at equal N and at equal loss, nothing with one architecture."""
    there = "equal_size" in next(iter(view.values()))
    return [size_line(metrics, view), loss_line(metrics, view)] if there else []


def study_line(quality: Data, analysis: Data) -> str:
    """Say what was generated, and what is shown of it."""
    cells = cells_of(quality, analysis["bars"])
    least, most = (short(pick(cell["n_params"] for cell in cells)) for pick in (min, max))
    runs = [
        f"{len({(c['size'], c['seed']) for c in cells if c['architecture'] == name})} {NAMES[name]}"
        for name in architectures(analysis["chosen"])
    ]
    low, high = (pick(cell["samples"] for cell in cells) for pick in (min, max))
    tunes = str(low) if low == high else f"{low} to {high}"
    temperatures = ", ".join(f"{t:g}" for t in sorted({cell["temperature"] for cell in cells}))
    return (
        f"{' and '.join(runs)} runs of {least} to {most} parameters, {tunes} tunes (bars {analysis['bars']}) for each "
        f"run and temperature ({temperatures}). Temperatures are chosen on validation, distances are to test; "
        "intervals are 95 %."
    )


def ends_line(metric: Data, found: Data) -> str:
    """Say what a share is at the smallest and the largest size of each architecture, and its trend between."""
    texts = []
    for name, rows in found["points"].items():
        shown = rows[:1] + rows[1:][-1:]
        both = " → ".join(f"{quantity(metric, row)} at {row['size']}" for row in shown)
        texts.append(f"{NAMES[name]} {both or 'not measured'} ({trend(found, name)})")
    people = quantity(metric, metric["human"]["test"])
    return (
        f"{metric['label'].capitalize()}, each size at the temperature chosen for it: {'; '.join(texts)}; "
        f"people's test tunes {people}."
    )


def trend(found: Data, name: str) -> str:
    """Return the verdict on a metric's slope over all parameters, or why there is none."""
    return found["curves"][name]["n_params"]["verdict"] if name in found["curves"] else found["no_curve"][name]


def distance_line(metrics: dict[str, Data], view: Data) -> str:
    """Count the distances to the test split that fall with N, and those still above their floor at the largest size."""
    names = [name for name in view if metrics[name]["kind"] == "distance"]
    texts = []
    for architecture in architectures(view):
        verdicts = [trend(view[name], architecture) for name in names]
        last = {name: view[name]["points"][architecture][-1] for name in names if view[name]["points"][architecture]}
        above = [
            name
            for name, row in last.items()
            if metrics[name]["floor"] and row["interval"][0] > metrics[name]["floor"]["interval"][1]
        ]
        size = max(last.values(), key=lambda row: row["n_params"])["size"] if last else "no size"
        texts.append(
            f"{NAMES[architecture]}: {verdicts.count('falls')} fall, {verdicts.count('rises')} rise with N, "
            f"at {size} {len(above)} lie clear above the floor"
        )
    return f"Of {len(names)} distances to test tunes, {'; '.join(texts)} (training tunes, as many as samples)."


def ability_line(metrics: dict[str, Data], view: Data) -> list[str]:
    """Say in one line at which N each ability appears, nothing where none was measured."""
    texts = []
    for name, found in view.items():
        rows = found.get("appears", {}).get("n_params")
        if rows and rows["at"]:
            parts = [f"{NAMES[a]} {place(row, ends(view, a, 'n_params'))}" for a, row in rows["at"].items()]
            both = f", ratio {ratio(rows['ratio'])}" if rows["ratio"] else ""
            texts.append(f"{metrics[name]['label']}: {', '.join(parts)}{both}")
    rule = "N at which abilities pass halfway from chance to people's validation share (ratio: LSTM over GPT)"
    return [f"{rule}: {'; '.join(texts)}."] if texts else []


def size_line(metrics: dict[str, Data], view: Data) -> str:
    """Say which architecture is better at equal N, metric by metric."""
    rows = {name: found["equal_size"]["mean"] for name, found in view.items()}
    return f"LSTM against GPT at equal N (mean of matched runs), {tally(metrics, rows)}.{valid_too(metrics, rows)}"


def loss_line(metrics: dict[str, Data], view: Data) -> str:
    """Say which architecture writes better tunes than its loss says, or why that cannot be told."""
    rows = {name: found["equal_loss"] for name, found in view.items()}
    able = {name: row for name, row in rows.items() if row["value"] is not None}
    if not able:
        reasons = "; ".join(dict.fromkeys(row["reason"] for row in rows.values()))
        return f"LSTM against GPT at equal validation loss: not identified ({reasons})."
    low, high = (pick(row["range"][i] for row in able.values()) for i, pick in enumerate((min, max)))
    return (
        f"LSTM against GPT at equal validation loss ({low:.3f} to {high:.3f} nats per character), "
        f"{tally(metrics, able)}.{valid_too(metrics, able)}"
    )


def valid_too(metrics: dict[str, Data], rows: dict[str, Data]) -> str:
    """Return the difference in valid tunes as a sentence, if it is there."""
    return f" Valid: {quantity(metrics['valid'], rows['valid'], '+')} points." if "valid" in rows else ""


# The document


def report(quality: Data, analysis: Data) -> str:
    """Return the report of quality against size as Markdown; the figures named in FIGURES lie beside it."""
    metrics = {metric["name"]: metric for metric in analysis["metrics"]}
    chosen, at_1 = analysis["chosen"], analysis["at_1"]
    lines = [
        "# Quality of generated tunes against size",
        "",
        *(f"- {line}" for line in findings(quality, analysis)),
        "",
        *(line for name, caption in FIGURES.items() for line in (f"![{caption}]({name}.png)", "")),
        "## At the temperature chosen on validation",
        "",
        *size_table(metrics, chosen),
        "",
        "## Trends",
        "",
        "Change per decade of N: of shares in logits, of distances as a factor, of other numbers in their unit.",
        "",
        *trend_table(metrics, chosen),
        "",
        *ability_section(metrics, chosen),
        *compared_section(metrics, chosen),
    ]
    if at_1 is not None and any(row["chosen"] != 1 for row in analysis["temperatures"]):
        lines += ["## At temperature 1", "", *size_table(metrics, at_1), "", *trend_table(metrics, at_1), ""]
        lines += compared_section(metrics, at_1, "at temperature 1")
    lines += [*best_section(quality, metrics), *judges_section(quality)]
    lines += ["## Temperatures", "", *temperature_table(analysis), "", "## Rules", "", *rules(metrics), ""]
    return "\n".join([*lines, "## Caveats", "", *caveats(quality, analysis)]) + "\n"


def size_table(metrics: dict[str, Data], view: Data) -> list[str]:
    """Return a Markdown table of every metric at every size, beside people's tunes and the floor."""
    names = architectures(view)
    heads = ["metric", "size", *(NAMES[name] for name in names), "LSTM − GPT", "people (test)", "floor"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for metric_name, found in view.items():
        metric = metrics[metric_name]
        rows = {name: {row["size"]: row for row in found["points"][name]} for name in names}
        off = {row["size"]: row for row in found.get("equal_size", {"sizes": []})["sizes"]}
        n = {size: row["n_params"] for mine in rows.values() for size, row in mine.items()}
        beside = f"{quantity(metric, metric['human']['test'])} | {quantity(metric, metric['floor'])}"
        for size in sorted(n, key=lambda size: n[size]):
            cells = " | ".join(quantity(metric, rows[name].get(size)) for name in names)
            lines.append(
                f"| {metric['label']} | {size} | {cells} | {quantity(metric, off.get(size), '+')} | {beside} |"
            )
    return lines


def trend_table(metrics: dict[str, Data], view: Data) -> list[str]:
    """Return a Markdown table of every slope with its verdict, on both counts of N."""
    names = architectures(view)
    heads = ["metric", *(f"{NAMES[name]}, {AXIS_WORDS[axis]}" for axis in AXES for name in names)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for metric_name, found in view.items():
        cells = [
            slope(found["curves"][name][axis]) if name in found["curves"] else found["no_curve"][name]
            for axis in AXES
            for name in names
        ]
        lines.append(f"| {metrics[metric_name]['label']} | {' | '.join(cells)} |")
    return lines


def ability_section(metrics: dict[str, Data], view: Data) -> list[str]:
    """Return where each ability appears on both counts of N, nothing where none has a level."""
    rows = []
    for name, found in view.items():
        metric = metrics[name]
        for axis, appears in found.get("appears", {}).items():
            places = (
                place(appears["at"].get(a), ends(view, a, axis)) if found["points"].get(a) else "–" for a in NAMES
            )
            level = f"{amount(metric, metric['level'])} (chance {amount(metric, metric['chance'])})"
            label = f"{metric['label']} | {AXIS_WORDS[axis]} | {level}"
            rows.append(f"| {label} | {' | '.join(places)} | {ratio(appears['ratio'])} |")
    if not rows:
        return []
    heads = "| ability | N | level | GPT | LSTM | LSTM / GPT |"
    return ["## Where abilities appear", "", heads, "|---|---|---|---|---|---|", *rows, ""]


def compared_section(metrics: dict[str, Data], view: Data, where: str = "") -> list[str]:
    """Return LSTM − GPT of every metric at equal size and at equal loss, nothing with one architecture."""
    if "equal_size" not in next(iter(view.values())):
        return []
    lines = [
        f"## LSTM against GPT {where}".rstrip(),
        "",
        "| metric | LSTM − GPT at equal N | | sizes told: LSTM higher, GPT higher | at equal loss | | losses |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in view.items():
        metric, mean, loss = metrics[name], found["equal_size"]["mean"], found["equal_loss"]
        signs = [row["sign"] for row in found["equal_size"]["sizes"]]
        told = f"{signs.count(1)}, {signs.count(-1)} of {len(signs)}"
        range_ = f"{loss['range'][0]:.3f} to {loss['range'][1]:.3f}" if loss["range"] else "–"
        at_loss = f"not identified: {loss['reason']} | " if loss["reason"] else f"{quantity(metric, loss, '+')} | "
        at_loss += "" if loss["reason"] else verdict(metric, loss)
        cells = f"{quantity(metric, mean, '+')} | {verdict(metric, mean)} | {told}"
        lines.append(f"| {metric['label']} | {cells} | {at_loss} | {range_} |")
    return [*lines, ""]


def best_section(quality: Data, metrics: dict[str, Data]) -> list[str]:
    """Return a table of the best model at each temperature beside people's tunes, nothing without that model."""
    cells, people = quality.get("best", []), quality["human"]["test"]
    if not cells:
        return []
    heads = ["metric", *(f"temperature {cell['temperature']:g}" for cell in cells), "people (test)"]
    tunes, n = cells[0]["samples"], min(cell["samples"] for cell in [*cells, *quality["cells"]])
    lines = ["## The best model", "", f"{tunes} tunes at each temperature; distances are those of the first {n}.", ""]
    lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, metric in metrics.items():
        part = "shares" if metric["kind"] == "share" else "test_numbers"
        rows = [cell[part].get(name) for cell in cells]
        rows.append(people["shares" if part == "shares" else "numbers"].get(name))  # to validation: not to themselves
        lines.append(f"| {metric['label']} | {' | '.join(quantity(metric, row) for row in rows)} |")
    return [*lines, ""]


def judges_section(quality: Data) -> list[str]:
    """Return what other judges say of the best model's tunes and of people's, and where they disagree with us."""
    judges = quality.get("judges")
    if judges is None:
        return []
    distance = quality["frechet_music_distance"]
    told = distance if isinstance(distance, str) else f"Fréchet music distance to the test tunes: {distance:.1f}"
    lines = ["## Other judges", "", *(f"- {line}" for line in [*judges["missing"], told]), ""]
    rows = [(whose, row) for whose in ("best", "human") for row in judges[whose]]
    if rows:
        lines += ["| tunes | judge | passes | both | we alone | the judge alone | neither |", "|---" * 7 + "|"]
    for whose, row in rows:
        counts = " | ".join(str(row[name]) for name in ("both", "ours", "theirs", "neither"))
        lines.append(f"| {WHOSE[whose]} | {row['judge']} | {row['tier'].replace('_', ' ')} | {counts} |")
    lines.append("")
    for whose, row in rows:
        for case in row["disagreements"][:LISTED]:
            which = f"{WHOSE[whose]}, {row['tier'].replace('_', ' ')}, tune {case['index']}"
            we, judge = (" ".join(str(case[name] or "nothing wrong").split()) for name in ("we", "judge"))
            lines.append(f"- {which}: we say {we}; {row['judge']} says {judge}")
    return [*lines, ""]


def temperature_table(analysis: Data) -> list[str]:
    """Return a Markdown table of each size's temperatures with their distances over the floors."""
    lines = ["| | size | chosen | mean distance to validation over the floor | |", "|---|---|---|---|---|"]
    for row in analysis["temperatures"]:
        scores = ", ".join(
            f"{at['temperature']:g}: {'–' if at['score'] is None else format(at['score'], '.2f')}"
            for at in row["scores"]
        )
        name = NAMES[row["architecture"]]
        lines.append(f"| {name} | {row['size']} | {row['chosen']:g} | {scores} | {row['reason'] or ''} |")
    return lines


def rules(metrics: dict[str, Data]) -> list[str]:
    """Say how all of it was computed."""
    chances = ", ".join(f"{m['label']} {m['chance']:.3f}" for m in metrics.values() if m["chance"]) or "none above 0"
    return [
        "- Temperature: for each architecture and size the one with the smallest distance to VALIDATION tunes, each "
        "distance over its floor (the distance of as many training tunes), mean over distances and seeds. Distances in "
        "tables and figures are to TEST tunes; ceilings and levels come from people's VALIDATION tunes, the people "
        "beside them are TEST.",
        "- Tiers: a tune counts in a tier only if it passes all before it, but for `ended by itself`, which is of all.",
        "- Size by size: seeds pooled. Shares have Wilson intervals with the tunes divided by how much more seeds vary "
        "than tunes explain (Rao and Scott 1992); numbers normal ones from their bootstrap over tunes and the seeds' "
        "further spread. Differences at a size: Newcombe (1998, method 10) of the two intervals.",
        "- Curves: shares are chance + (ceiling − chance)·σ(a + b·log N) by maximum likelihood, the ceiling being "
        "people's validation share (1 without one, for copies, and where models lie clear above it); distances lines "
        "of their logarithm, other numbers lines, in log N. Over validation loss the same.",
        f"- Intervals of curves: bootstrap over runs, one (size, seed) each, residuals over √(1 − leverage), read as "
        f"far out as Student's t asks. None below {MIN_SIZES} sizes or {MIN_RUNS} runs. A trend is told if the slope's "
        "interval does not hold 0.",
        f"- An ability appears where its curve passes halfway from chance to people's validation share. Chance: "
        f"{chances} (tonic {CHANCE['tonic_ending']:.3f}: the last note drawn evenly from the scale's seven, unless "
        "measured); 0 for the others, so what comes about by chance alone appears too early.",
        "- At equal loss: the difference of the two curves over validation loss, mean over the losses that both reach.",
    ]


def decisions(part: Any) -> Iterator[Data]:
    """Yield every interval that is held against zero."""
    if isinstance(part, dict):
        if "sign" in part and None not in part["interval"]:
            yield part
        for value in part.values():
            yield from decisions(value)
    elif isinstance(part, list):
        for value in part:
            yield from decisions(value)


def caveats(quality: Data, analysis: Data) -> list[str]:
    """Say what limits the findings, in numbers."""
    found = list(decisions([analysis["chosen"], analysis["at_1"]]))
    away = sum(row["sign"] != 0 for row in found)
    cells = cells_of(quality, analysis["bars"])
    fewest = min((row["total"], name) for cell in cells for name, row in cell["shares"].items())
    spreads = [
        row["overdispersion"]
        for view in (analysis["chosen"], analysis["at_1"] or {})
        for part in view.values()
        for rows in part["points"].values()
        for row in rows[:1]
        if "overdispersion" in row
    ]
    seeds = sorted({cell["seed"] for cell in cells})
    others = len(quality["cells"]) - len(cells)
    return [
        f"- Multiple comparisons: {len(found)} intervals are held against 0, {away} do not hold it; if nothing were "
        f"there, about {len(found) / 20:.0f} would not. None is corrected, and many share their runs (two counts of N, "
        "two choices of temperature).",
        f"- Fewest tunes behind a share of one run: {fewest[0]} ({fewest[1]}). Seeds: {', '.join(map(str, seeds))}; "
        f"they vary up to {max(spreads, default=1):.1f} times what tunes explain (variance).",
        "- Temperatures are chosen from those tried, and the choice's own noise is in no interval; at a temperature "
        "other than 1 the validation loss is not the loss of what is sampled.",
        "- People's shares and the floors are taken as they are, without their intervals, in ceilings and levels.",
        "- At equal loss the answer leans on the curve's form, most where the common range is short.",
        *([f"- {others} cells of another way of decoding (bars) are not in it."] if others else []),
    ]
