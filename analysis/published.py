"""Published scaling laws, and this study's numbers beside them: every verdict follows from the two numbers.

MuPT (Qu et al. 2024) prints no exponent of the laws that it fitted to ABC, only how well they fit and how they split
compute. Of the small studies of ABC (course projects of 2025) those are here whose published losses give their
exponent again.
"""

from dataclasses import dataclass
from math import exp, inf
from pathlib import Path

import numpy as np

from analysis.figures import COLOURS, GREY, LAW_COLOURS, MARKERS, figure
from analysis.intervals import Interval
from analysis.report import LAW_WORDS, NAMES, Data, edges, figure_of, find_fit, short

BOTH = ("gpt", "lstm")
VERDICTS = ("includes it", "lies above", "lies below", "not identified")
AXES = {"n_params": "", "n_params_non_embedding": ", without tables"}
FIGURE_COLOURS = {**LAW_COLOURS, "data_constrained": GREY}
EXPONENTS = (0.01, 3.0)  # of the figure; an interval that is open is drawn to its edge
Place = tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """A publication: its name and address, what was trained on, the least and the most parameters."""

    name: str
    address: str
    data: str
    token: str
    n_params: tuple[float, float]


@dataclass(frozen=True)
class Published:
    """A published number, where its source prints it, and where fits.json holds this study's.

    `ours` is ("law", law, axis, parameter), ("allocation", way, quantity) or ("epochs", epochs), of the
    `architectures` that it can be held against. `interval` is as printed, at its `level`; `note` is what else differs.
    """

    source: Source
    where: str
    what: str
    ours: Place
    value: float
    interval: Interval | None = None
    level: str = ""
    note: str = ""
    architectures: tuple[str, ...] = BOTH


@dataclass(frozen=True)
class Ours:
    """This study's number with its 95 % interval (None: open on that side), or why it is not identified."""

    reason: str | None
    value: float = float("nan")
    interval: Interval = (None, None)

    def verdict(self, published: Published) -> str:
        """Say where this interval lies from the published value, and whether it overlaps the published interval."""
        if self.reason is not None:
            return f"not identified ({self.reason})"
        low, high = _closed(self.interval)
        if low <= published.value <= high:
            return "includes it" if None not in self.interval else "not identified (its interval is open)"
        first, last = _closed(published.interval or (published.value, published.value))
        overlap = ", but the intervals overlap" if low <= last and first <= high else ""
        return f"lies {'above' if low > published.value else 'below'}{overlap}"


@dataclass(frozen=True)
class Comparison:
    """A published number, this study's by architecture, and why they need not agree."""

    published: Published
    ours: dict[str, Ours]
    differences: list[str]


def _closed(interval: Interval) -> tuple[float, float]:
    low, high = interval
    return -inf if low is None else low, inf if high is None else high


def law(name: str, parameter: str = "alpha", axis: str = "n_params") -> Place:
    """Return where fits.json holds a parameter of a law."""
    return "law", name, axis, parameter


ENVELOPE, ISOFLOP = ("allocation", "envelope", "a"), ("allocation", "isoflop", "a")
PARABOLAS, PARAMETRIC = ("allocation", "isoflop", "plain"), ("allocation", "parametric", "plain")
RATIO = ("allocation", "parametric", "tokens_per_parameter")
A, TOKENS = "a of N_opt ∝ C^a", "tokens a parameter"
R_D_STAR = 15.387756

KAPLAN = Source("Kaplan et al. 2020", "https://arxiv.org/abs/2001.08361", "WebText2", "BPE token", (768, 1.5e9))
HOFFMANN = Source("Hoffmann et al. 2022", "https://arxiv.org/abs/2203.15556", "MassiveText", "subword", (70e6, 16e9))
BESIROGLU = Source("Besiroglu et al. 2024", "https://arxiv.org/abs/2404.10102", "MassiveText", "subword", (70e6, 16e9))
PORIAN = Source("Porian et al. 2024", "https://arxiv.org/abs/2406.19146", "web text", "subword", (5e6, 901e6))
PEARCE = Source("Pearce & Song 2024", "https://arxiv.org/abs/2406.12907", "BookCorpus", "BPE token", (0.8e6, 4.6e6))
MUENNIGHOFF = Source("Muennighoff et al. 2023", "https://arxiv.org/abs/2305.16264", "C4", "BPE token", (10e6, 9e9))
MUPT = Source("Qu et al. 2024 (MuPT)", "https://arxiv.org/abs/2404.06393", "ABC", "BPE token", (190e6, 4.23e9))

NO_TABLES = "N and C without the tables there"
DECILES, NORMAL = "10th to 90th percentile", "95 %, 1.96 of the printed standard errors"
OF_TEXT = (
    Published(
        KAPLAN,
        "eq. 1.1",
        "α of N^-α",
        law("power", axis="n_params_non_embedding"),
        0.076,
        note="trained to convergence there",
    ),
    Published(
        KAPLAN, "eq. 1.2", "α of D^-α", law("power", axis="tokens"), 0.095, note="D is the size of the data there"
    ),
    Published(KAPLAN, "eq. 1.3", "α of C^-α", law("power", axis="flops"), 0.050, note="C without the tables there"),
    Published(KAPLAN, "section 1.2", A, ENVELOPE, 0.73, note=NO_TABLES),
    Published(HOFFMANN, "table 2, approach 1", A, ENVELOPE, 0.50, (0.488, 0.502), DECILES),
    Published(HOFFMANN, "table 2, approach 2", A, PARABOLAS, 0.49, (0.462, 0.534), DECILES),
    Published(HOFFMANN, "table 2, approach 3", A, PARAMETRIC, 0.46, (0.454, 0.455), DECILES),
    Published(HOFFMANN, "table 3, 1.21e20 FLOPs", TOKENS, ("allocation", "envelope", "tokens_per_parameter"), 20.2),
    Published(HOFFMANN, "eq. 10", "Chinchilla's α", law("chinchilla"), 0.34),
    Published(HOFFMANN, "eq. 10", "Chinchilla's β", law("chinchilla", "beta"), 0.28),
    Published(HOFFMANN, "eq. 10", "Chinchilla's E", law("chinchilla", "E"), 1.69),
    Published(BESIROGLU, "refit", "Chinchilla's α", law("chinchilla"), 0.3478, (0.3086, 0.3870), NORMAL),
    Published(BESIROGLU, "refit", "Chinchilla's β", law("chinchilla", "beta"), 0.3658, (0.3266, 0.4050), NORMAL),
    Published(BESIROGLU, "refit", "Chinchilla's E", law("chinchilla", "E"), 1.8172, (1.7584, 1.8760), NORMAL),
    Published(BESIROGLU, "refit", A, PARAMETRIC, 0.5126, (0.4773, 0.5479), NORMAL),
    Published(BESIROGLU, "refit, from 1e26 FLOPs on", TOKENS, RATIO, 20, (4, 40), "80 %"),
    Published(
        PORIAN, "table 1, OpenWebText2, as Kaplan", A, ISOFLOP, 0.864, (0.82, 0.90), "95 %", "C without the head there"
    ),
    Published(PORIAN, "table 1, OpenWebText2, tuned", A, ISOFLOP, 0.518, (0.49, 0.54), "95 %"),
    Published(PORIAN, "table 1, RefinedWeb, tuned", A, ISOFLOP, 0.497, (0.49, 0.50), "95 %"),
    Published(PEARCE, "experiments, all parameters", A, ENVELOPE, 0.49),
    Published(PEARCE, "experiments, without the tables", A, ENVELOPE, 0.74, note=NO_TABLES),
    Published(MUENNIGHOFF, "C4", "data-constrained α", law("data_constrained"), 0.3527, note="α = β there"),
    Published(MUENNIGHOFF, "C4", "data-constrained β", law("data_constrained", "beta"), 0.3527, note="α = β there"),
    Published(MUENNIGHOFF, "C4", "R_D*", law("data_constrained", "R_D*"), R_D_STAR),
    Published(MUENNIGHOFF, "C4", "R_N*", law("data_constrained", "R_N*"), 5.309743),
    Published(
        MUENNIGHOFF, "from R_D*", "worth of 4 epochs (data)", ("epochs", "4"), 1 + R_D_STAR * (1 - exp(-3 / R_D_STAR))
    ),
    Published(
        MUPT, "4.2.3, SMS law: 2.10G for 2.82 × 33.6G", TOKENS, RATIO, 2.82 * 33.6 / 2.10, note="of the SMS law there"
    ),
    Published(MUPT, "4.2.3, Chinchilla's law: 0.99G for 6.1 × 33.6G", TOKENS, RATIO, 6.1 * 33.6 / 0.99),
)


@dataclass(frozen=True)
class Ladder:
    """A small study of ABC, one run a size: where it is, its exponent, and the losses that the exponent is of."""

    repository: str
    commit: str
    file: str
    architecture: str
    alpha: float
    n_params: tuple[float, ...]
    losses: tuple[float, ...]
    token: str = "character"
    law: str = "power_irreducible"

    def without_floor(self) -> float:
        """Return the exponent of the power law without a floor, by least squares in logs."""
        return -float(np.polyfit(np.log(self.n_params), np.log(self.losses), 1)[0])

    def rows(self) -> list[Published]:
        """Return the exponent as published and, of a law with a floor, the one that its losses give without."""
        owner, name = self.repository.split("/")
        address = f"https://github.com/{owner}/{name}/blob/{self.commit}/{self.file.replace(' ', '%20')}"
        source = Source(owner, address, "ABC made of MIDI", self.token, (min(self.n_params), max(self.n_params)))
        rest = ("", f"{len(self.losses)} runs there, one a size", (self.architecture,))
        words = {
            "power": f"α of N^-α, {NAMES[self.architecture]}",
            "power_irreducible": f"α of E + N^-α, {NAMES[self.architecture]}",
        }
        found = [Published(source, "as printed", words[self.law], law(self.law), self.alpha, None, *rest)]
        if self.law == "power_irreducible":
            value = self.without_floor()
            found.append(Published(source, "its losses, fitted here", words["power"], law("power"), value, None, *rest))
        return found


SURYA = ("suryaajith21/Symbolic-Music-Scaling-Project", "6405adc770cf90a924ab77fb6f944d21515b03fa")
DIPESH = ("DipeshK47/Transformer-vs-LSTM-Scaling-on-ABC-Music-Modeling", "2bd116159a1ff65a92d7a3f968412ad01908624b")
BUDDHSEN = ("Buddhsen-tripathi/music-scaling-laws", "127fc3dd6238b349470cdbba71f638462758ec30", "report/report.md")
PRAGYA = ("pragya2002/transformer-rnn-music-modeling", "fd4242886e1c61a34d1de2d553abaf82e55a4124")
ADI = ("thisisadi/Scaling-Laws-for-LLMs-on-Music-Data", "b9ed750b180d9f7cd4c4975443411b6992da09e6")
PRABHJEET = (
    "prabhjeet2570-spec/Scaling-Laws-for-Language-Models-on-Symbolic-Music-Data",
    "52d95343940aaa5a04a1ce5656d5d8b780f05c3d",
)
PART_2 = "part2-Transformer Scaling Study/"
LADDERS = (
    Ladder(
        *SURYA,
        "notebooks/Music_Scaling.ipynb",
        "gpt",
        0.0828,
        (0.8e6, 4.8e6, 21.4e6, 50.5e6, 113.5e6),
        (0.65284709, 0.47927661, 0.45095918, 0.4364914, 0.42503417),
        law="power",
    ),
    Ladder(
        *DIPESH,
        f"{PART_2}100M/100M_scaling_analysis_summary.txt",
        "gpt",
        0.091091,
        (1.01e6, 4.89e6, 19.57e6, 49.6e6, 100.28e6),
        (1.2026, 1.0821, 0.9337, 0.8564, 0.7965),
    ),
    Ladder(
        *DIPESH,
        f"{PART_2}150M_scaling_analysis_summary.txt",
        "gpt",
        0.26325,
        (0.96e6, 4.82e6, 19.46e6, 49.44e6, 100.07e6),
        (1.0919, 0.8896, 0.7715, 0.7315, 0.6786),
    ),
    Ladder(
        *DIPESH,
        "part3-RNN Scaling Study and Comparison/rnn_scaling_analysis_summary.txt",
        "lstm",
        0.184958,
        (145_024, 1_078_528, 2_404_224, 6_355_456),
        (1.2306, 1.1418, 1.1026, 1.0813),
    ),
    Ladder(
        *BUDDHSEN,
        "gpt",
        0.6037,
        (801_152, 4_176_720, 18_643_240, 55_444_740, 99_209_472),
        (0.5633, 0.4595, 0.4280, 0.4132, 0.4088),
    ),
    Ladder(
        *BUDDHSEN,
        "lstm",
        0.2669,
        (925_921, 3_728_993, 23_194_721, 49_319_777, 96_572_769),
        (0.6650, 0.5714, 0.4825, 0.4622, 0.4457),
    ),
    Ladder(
        *PRAGYA,
        "models+training/music_generation_project.ipynb",
        "gpt",
        0.6715,
        (977_664, 4_855_808, 21_469_440, 50_672_640, 98_763_520),
        (0.72358209, 0.52913012, 0.47350465, 0.45434562, 0.4418685),
    ),
    Ladder(
        *PRAGYA,
        "models+training/music_generation_project.ipynb",
        "lstm",
        0.6214,
        (1_104_384, 4_305_920, 19_054_080, 33_794_048, 105_198_080),
        (0.70800424, 0.61509892, 0.56885684, 0.54727321, 0.55599071),
    ),
    Ladder(
        *ADI,
        "model_training/Notebook/CS_GY_6923_Optional_Project.ipynb",
        "gpt",
        0.81999,
        (1_084_464, 4_878_080, 21_477_504, 50_160_516, 113_740_032),
        (0.5295, 0.4060, 0.3837, 0.3751, 0.3556),
    ),
    Ladder(
        *PRABHJEET,
        "notebooks/Part_2.ipynb",
        "gpt",
        0.8717,
        (3_701_120, 8_192_000, 20_322_816, 53_228_544, 156_788_736),
        (0.8684, 0.6150, 0.4662, 0.4021, 0.3751),
        "token of a large vocabulary",
    ),
    Ladder(
        *PRABHJEET,
        "notebooks/Part_3.ipynb",
        "lstm",
        0.8813,
        (3_545_176, 7_260_760, 19_915_864, 51_870_424),
        (1.0413034605, 0.7971553826, 0.6251442616, 0.5655659842),
        "token of a large vocabulary",
    ),
)
PUBLISHED = (*OF_TEXT, *(row for ladder in LADDERS for row in ladder.rows()))


def compare_with_published(data: Data) -> list[Comparison]:
    """Return every published number of an architecture that is here beside this study's, from what fits.json holds."""
    return [
        Comparison(
            row,
            {name: _ours(data, name, row.ours) for name in row.architectures if name in data["fits"]},
            _differences(row, data),
        )
        for row in PUBLISHED
        if data["fits"].keys() & row.architectures
    ]


def _ours(data: Data, architecture: str, place: Place) -> Ours:
    """Look a number up; its interval is the hull of those over runs and over sizes, as both must exclude a value."""
    kind, *rest = place
    row: Data | None = None
    reason: str | None = None
    if kind == "law":
        fitted = find_fit(data, architecture, rest[0], rest[1])
        if fitted is not None:
            row = fitted["parameters"][rest[2]]
            reason = row["reason"]
    elif kind == "allocation":
        way = data["allocation"][architecture]["ways"][rest[0]]
        inside = [best for best in way["optima"] if not best["extrapolated"]]
        found = inside[-1] if inside and rest[1] == "tokens_per_parameter" else way  # the largest budget
        row, reason = found.get(rest[1]), way["reason"]
    else:
        worth = (data["repetition"][architecture] or {}).get("epochs")
        if worth is not None:
            row = next(entry for entry in worth["rows"] if entry["epochs"] == int(rest[0]))
            reason = worth["reason"]
    if row is None or reason is not None:
        return Ours(reason or "this study has too few runs for it")
    pairs = [row[over] for over in ("bootstrap", "jackknife") if over in row]
    low, high = ([pair[side] for pair in pairs] for side in (0, 1))
    return Ours(None, row["value"], (None if None in low else min(low), None if None in high else max(high)))


def _differences(row: Published, data: Data) -> list[str]:
    """Return why two numbers need not agree: what was modelled, the sizes, the budget, and the row's own note."""
    found = []
    if row.source.data != "ABC" or row.source.token != "character":
        found.append(f"a {row.source.token} of {row.source.data} there, a character of ABC here")
    largest = max(size[name]["n_params"] for size in data["sizes"] for name in row.architectures if name in size)
    if row.source.n_params[0] > largest:
        found.append(f"the smallest N there is {row.source.n_params[0] / largest:.3g} times the largest here")
    if row.ours[0] == "law" and row.ours[1] in ("power", "power_irreducible") and row.ours[2] in AXES:
        found.append(f"{short(data['tokens'])} tokens ({data['epochs']:.2f} epochs) here")
    return [*found, *([row.note] if row.note else [])]


def published_lines(rows: list[Comparison]) -> list[str]:
    """Return the comparison as Markdown: how many agree, and a table."""
    names = [name for name in BOTH if any(name in row.ours for row in rows)]
    printed, alike = [ladder.alpha for ladder in LADDERS], [ladder.without_floor() for ladder in LADDERS]
    lines = [
        "- The interval here goes as far as the one over runs or the one over sizes, whichever goes farther; it "
        "includes the published value, or lies above or below it.",
        *(_count(name, rows) for name in names),
        f"- {len(LADDERS)} small ladders on ABC print an α from {min(printed):.3f} to {max(printed):.3f}, most with a "
        f"floor; all fitted without one, their losses give {min(alike):.3f} to {max(alike):.3f}.",
    ]
    heads = " | ".join(f"{NAMES[name]} here" for name in names)
    lines += ["", f"| what | published | by | {heads} | why they need not agree |", "|---" * (4 + len(names)) + "|"]
    for row in rows:
        theirs = row.published
        value = figure_of(theirs.value)
        if theirs.interval is not None:
            value += f" {edges(list(theirs.interval))} ({theirs.level})"
        cells = [_cell(row.ours[name], theirs) if name in row.ours else "–" for name in names]
        by = f"[{theirs.source.name}]({theirs.source.address}), {theirs.where}"
        what = theirs.what.replace("*", r"\*")
        lines.append(f"| {what} | {value} | {by} | {' | '.join(cells)} | {'; '.join(row.differences)} |")
    return lines


def _cell(ours: Ours, published: Published) -> str:
    verdict = ours.verdict(published)
    return verdict if ours.reason else f"{figure_of(ours.value)} {edges(list(ours.interval))} {verdict}"


def _count(name: str, rows: list[Comparison]) -> str:
    found = [row.ours[name].verdict(row.published) for row in rows if name in row.ours]
    counts = (f"{words} {sum(verdict.startswith(words) for verdict in found)}" for words in VERDICTS)
    return f"- {NAMES[name]}, beside {len(found)} published numbers: {', '.join(counts)}."


def published_figure(path: Path, rows: list[Comparison]) -> None:
    """The exponents of N, published and of this study, a colour a law; lines are intervals where there are any."""
    alphas = [row for row in rows if row.published.ours[0] == "law" and row.published.ours[3] == "alpha"]
    alphas = sorted((row for row in alphas if row.published.ours[2] in AXES), key=lambda row: row.published.value)
    drawn: list[tuple[str, float, Interval, str, str]] = []  # label, value, interval, colour, marker
    for law_name, colour in FIGURE_COLOURS.items():
        mine = [row for row in alphas if row.published.ours[1] == law_name]
        for theirs in (row.published for row in mine):
            label = f"{theirs.source.name}{', LSTM' if theirs.architectures == ('lstm',) else ''}"
            drawn.append((label, theirs.value, theirs.interval or (theirs.value, theirs.value), colour, "d"))
        here = {(row.published.ours[2], name): ours for row in mine for name, ours in row.ours.items()}
        for (axis, name), ours in sorted(here.items()):
            if ours.reason is None:
                label = f"here, {NAMES[name]}{AXES[axis]}"
                drawn.append((label, ours.value, ours.interval, COLOURS[name], MARKERS[name]))
    with figure(path, width=6.4, height=0.8 + 0.17 * len(drawn)) as [axes]:
        for place, (_, value, interval, colour, marker) in enumerate(drawn):
            axes.plot(np.clip(_closed(interval), *EXPONENTS), (place, place), color=colour, lw=1.3)
            axes.plot(value, place, marker, color=colour, ms=4)
        for law_name, colour in FIGURE_COLOURS.items():
            axes.plot([], [], "d", color=colour, ms=4, label=LAW_WORDS[law_name])
        axes.set(xscale="log", xlabel="exponent α of N", ylim=(len(drawn) - 0.5, -0.5))
        axes.set_yticks(range(len(drawn)), [label for label, *_ in drawn], fontsize=7)
        axes.legend(fontsize=7)
