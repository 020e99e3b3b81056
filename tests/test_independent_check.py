"""The published numbers, computed again from the table of runs by plain scipy; no line of analysis/ takes part.

An agreement is a difference of at most a hundredth of the width of the interval that is printed.
"""

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.optimize import minimize, minimize_scalar
from scipy.stats import norm
from scipy.stats import t as student

RESULTS = Path(__file__).parent.parent / "results"
STUDY = "cpu"
DELTA = 0.01  # of the Huber loss, on log loss
ARCHITECTURES = ("gpt", "lstm")
SETTING = ["size", "budget", "data_fraction", "keys"]
EXPONENTS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.5)
SHARES_OF_E = (0.0, 0.3, 0.6, 0.9)  # of the least loss, where a fit starts
RESAMPLES = 200
COLUMNS = [
    "study",
    "status",
    "n_params",
    "n_params_non_embedding",
    "tokens",
    "unique_tokens",
    "epochs",
    "flops",
    "validation_loss",
    *(f"config.{name}" for name in ("architecture", "size", "seed", "tokens", "data_fraction", "n_keys", "schedule")),
    *("config.sequences", "config.init_from"),
]


@dataclass
class Law:
    """L = [E +] Σ coefficient · (x / centre)^-exponent: parameters, objective, and the fit to it."""

    x: list[np.ndarray]  # one variable a term, over its geometric mean
    centres: list[float]
    with_e: bool
    log_loss: np.ndarray
    weights: np.ndarray

    def terms(self, theta):
        return [np.exp(theta[2 * i] - theta[2 * i + 1] * np.log(x)) for i, x in enumerate(self.x)]

    def objective(self, theta, counts=1.0):
        """The sum of weight · Huber(log fitted - log measured), and its gradient."""
        terms = self.terms(theta)
        loss = sum(terms) + (theta[-1] if self.with_e else 0.0)
        residual = np.log(loss) - self.log_loss
        size = np.abs(residual)
        weights = counts * self.weights
        huber = np.where(size <= DELTA, residual**2 / 2, DELTA * (size - DELTA / 2))
        pull = weights * np.clip(residual, -DELTA, DELTA) / loss
        slopes = [slope for term, x in zip(terms, self.x, strict=True) for slope in (term, -term * np.log(x))]
        slopes += [np.ones_like(loss)] * self.with_e
        return float(weights @ huber), np.array([pull @ slope for slope in slopes])

    def starts(self):
        for exponents, share in product(product(EXPONENTS, repeat=len(self.x)), SHARES_OF_E[: 4 if self.with_e else 1]):
            with_e = share * np.exp(self.log_loss.min())
            coefficient = np.log((np.exp(self.log_loss.mean()) - with_e) / len(self.x))
            yield np.array(
                [part for exponent in exponents for part in (coefficient, exponent)] + [with_e] * self.with_e
            )

    def descend(self, start, counts=1.0, **options):
        """L-BFGS-B on an objective of order 1."""
        scale = 1 / self.objective(start, counts)[0]

        def scaled(theta):
            value, slope = self.objective(theta, counts)
            return scale * value, scale * slope

        bounds = [(None, None), (-3.0, 3.0)] * len(self.x) + [(0.0, None)] * self.with_e
        return minimize(scaled, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x

    def fit(self):
        """The lowest of many starts, polished."""
        found = sorted(
            (self.descend(start, maxiter=300) for start in self.starts()), key=lambda t: self.objective(t)[0]
        )
        best = found[0]
        for _ in range(3):  # each begins with a fresh memory and a scale of 1
            best = self.descend(best, maxiter=2000, maxfun=10_000, ftol=1e-16, gtol=1e-12)
        return best

    def shown(self, theta):
        """The parameters as reports show them."""
        found = {}
        for i, (factor, exponent) in enumerate((("A", "alpha"), ("B", "beta"))[: len(self.x)]):
            found[exponent] = theta[2 * i + 1]
            found[factor] = np.exp(theta[2 * i] + theta[2 * i + 1] * np.log(self.centres[i]))
        return found | ({"E": theta[-1]} if self.with_e else {})


def law_of(runs, variables, with_e, weighted=True):
    columns = [runs[name].to_numpy(float) for name in variables]
    centres = [float(np.exp(np.log(column).mean())) for column in columns]
    x = [column / centre for column, centre in zip(columns, centres, strict=True)]
    weights = weights_of(runs) if weighted else np.ones(len(runs))
    return Law(x, centres, with_e, np.log(runs.validation_loss.to_numpy()), weights)


def weights_of(runs):
    """1 / variance of the seeds' log losses, 1 on average; log variance is a line in log N.

    The line maximises the likelihood of the settings' chi-squared variances; its height drops out.
    """
    seeds = runs.assign(log_loss=np.log(runs.validation_loss), log_n=np.log(runs.n_params)).groupby(SETTING)
    table = seeds.agg(variance=("log_loss", "var"), log_n=("log_n", "mean"), count=("log_loss", "size"))
    table = table[table["count"] > 1]
    degrees = (table["count"] - 1).to_numpy()
    variance = table.variance.clip(lower=1e-3 * table.variance.max()).to_numpy()
    place = (table.log_n - np.average(table.log_n, weights=degrees)).to_numpy()
    # At the best height the deviance is log Σ degrees · variance · exp(-slope · place), but for a constant.
    slope = minimize_scalar(lambda s: np.log(degrees @ (variance * np.exp(-s * place))), bracket=(-1, 1), tol=1e-12).x
    weights = np.exp(-slope * np.log(runs.n_params.to_numpy()))
    return weights / weights.mean()


@pytest.fixture(scope="module")
def runs():
    """The study's finished runs of the schedule that most have, one row a run."""
    table = pq.read_table(RESULTS / "runs.parquet", columns=COLUMNS).to_pandas()
    table = table.rename(columns={"config.tokens": "budget", "config.n_keys": "keys"})
    table = table.rename(columns=lambda name: name.removeprefix("config."))
    table = table[(table.study == STUDY) & table.init_from.isna() & (table.status == "finished")]
    table = table[table.schedule == table.schedule.mode()[0]]
    return table.assign(stateful=table.sequences == "streams")


@pytest.fixture(scope="module")
def whole(runs):
    """Those on all tunes in their own keys, without state, by architecture and size."""
    some = runs[(runs.data_fraction == 1) & (runs["keys"] == 1) & ~runs.stateful]
    return some.sort_values(["n_params", "budget", "seed"])


@pytest.fixture(scope="module")
def main(whole):
    """Those at the budget that most runs have, of equally frequent ones the largest."""
    counts = whole.budget.value_counts()
    return whole[whole.budget == counts[counts == counts.max()].index.max()]


@pytest.fixture(scope="module")
def published():
    return json.loads((RESULTS / "comparison_analysis" / "fits.json").read_text(encoding="utf-8"))


def frontier(runs):
    """Means over seeds that none of as few FLOPs beats."""
    means = runs.groupby(SETTING, as_index=False)[["validation_loss", "flops"]].mean().sort_values("flops")
    return means[means.validation_loss < means.validation_loss.cummin().shift(fill_value=np.inf)]


def of(runs, architecture):
    return runs[runs.architecture == architecture]


def fit_in(published, architecture, law, axis):
    [fitted] = [fit for fit in published["fits"][architecture] if (fit["law"], fit["axis"]) == (law, axis)]
    return fitted


def agrees(ours, theirs, interval):
    """Whether two numbers differ by at most a hundredth of the interval; with an open one, of the number."""
    width = abs(theirs) if None in interval else interval[1] - interval[0]
    return abs(ours - theirs) <= 0.01 * width


def assert_same_fit(law, fitted):
    """The same minimum: as low, and the parameters there."""
    theta = law.fit()
    assert len(law.log_loss) == fitted["points"]
    assert law.objective(theta)[0] == pytest.approx(fitted["objective"], rel=1e-6)
    for name, value in law.shown(theta).items():
        row = fitted["parameters"][name]
        assert agrees(value, row["value"], row["bootstrap"]), (name, value, row["value"], row["bootstrap"])


def test_runs_sizes_and_budgets_are_counted_alike(published, runs, main):
    assert published["main_budget"] == main.budget.iloc[0]
    assert published["runs"] == runs[~runs.stateful].architecture.value_counts().to_dict()
    for row in published["sizes"]:
        for architecture in set(ARCHITECTURES) & row.keys():
            losses = of(main, architecture).query("size == @row['size']").validation_loss
            assert row[architecture]["loss"] == pytest.approx(losses.mean(), rel=1e-12)
            assert row[architecture]["seed_deviation"] == pytest.approx(losses.std(), rel=1e-9)


@pytest.mark.parametrize("axis", ["n_params", "n_params_non_embedding"])
@pytest.mark.parametrize("law", ["power", "power_irreducible"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_laws_of_n_are_found_again(published, main, architecture, law, axis):
    assert_same_fit(
        law_of(of(main, architecture), [axis], law == "power_irreducible"), fit_in(published, architecture, law, axis)
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_chinchilla_s_law_is_found_again(published, whole, architecture):
    law = law_of(of(whole, architecture), ["n_params", "tokens"], True)
    assert_same_fit(law, fit_in(published, architecture, "chinchilla", "n_params"))


@pytest.mark.parametrize("with_e", [False, True])
@pytest.mark.parametrize("axis", ["tokens", "flops"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_laws_of_d_at_one_size_and_of_c_along_the_best_runs_are_found_again(
    published, whole, architecture, axis, with_e
):
    mine = of(whole, architecture)
    if axis == "tokens":
        budgets = mine.groupby("size").agg(budgets=("budget", "nunique"), n=("n_params", "first"))
        mine = mine[mine["size"] == budgets.sort_values(["budgets", "n"]).index[-1]]
    else:
        mine = frontier(mine)
    law = law_of(mine, [axis], with_e, weighted=False)
    assert_same_fit(law, fit_in(published, architecture, "power_irreducible" if with_e else "power", axis))


def paired(runs):
    """Those with a partner of the same setting and seed in the other architecture."""
    return runs[runs.groupby([*SETTING, "seed"]).architecture.transform("nunique") == len(ARCHITECTURES)]


def test_architectures_are_compared_on_the_pairs_of_all_tunes_in_their_own_keys(published, whole, main):
    assert published["comparison"]["budget"] == main.budget.iloc[0]
    assert published["comparison"]["pairs"] == len(of(paired(whole), "gpt")) == len(of(paired(whole), "lstm"))


@pytest.mark.parametrize("axis", ["n_params", "n_params_non_embedding", "flops"])
def test_the_difference_of_exponents_and_the_crossover_are_found_again(published, main, axis):
    pairs = paired(main)
    laws = [law_of(of(pairs, architecture), [axis], False) for architecture in ARCHITECTURES]
    gpt, lstm = (law.shown(law.fit()) for law in laws)
    [theirs] = [law for law in published["comparison"]["laws"] if (law["law"], law["axis"]) == ("power", axis)]
    difference, [crossover] = theirs["differences"]["alpha"], theirs["crossovers"]
    assert agrees(gpt["alpha"] - lstm["alpha"], difference["value"], difference["bootstrap"])
    where = (gpt["A"] / lstm["A"]) ** (1 / (gpt["alpha"] - lstm["alpha"]))
    if crossover["value"] is not None:  # with a parameter that is not identified there is none
        assert agrees(where, crossover["value"], crossover["interval"])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_fewer_tunes_and_more_keys_change_is_found_again(published, runs, architecture):
    mine = of(runs[~runs.stateful], architecture)
    own_keys = mine[mine["keys"] == 1]
    kinds = {
        "part": (
            own_keys[own_keys.data_fraction < 1],
            own_keys[own_keys.data_fraction == 1],
            ["size", "seed", "budget"],
        ),
        "keys": (mine[mine["keys"] > 1], own_keys, ["size", "seed", "budget", "data_fraction"]),
    }
    rows = [row for row in published["ablations"][architecture] if row["against"] in kinds]
    assert {row["against"] for row in rows} == kinds.keys()
    for kind, (changed, base, on) in kinds.items():
        both = changed.merge(base[[*on, "validation_loss"]], on=on, suffixes=("", "_of_base"))
        both["difference"] = both.validation_loss - both.validation_loss_of_base
        groups = both.groupby(SETTING).difference
        degrees = int((groups.size() - 1).sum())
        deviation = np.sqrt(((both.difference - groups.transform("mean")) ** 2).sum() / degrees)
        theirs = {tuple(row[name] for name in SETTING): row for row in rows if row["against"] == kind}
        assert theirs.keys() == groups.groups.keys()
        for setting, group in groups:
            half = student.ppf(0.975, degrees) * deviation / np.sqrt(len(group))
            assert theirs[setting]["difference"] == pytest.approx(group.mean(), abs=1e-12)
            assert theirs[setting]["interval"] == pytest.approx([group.mean() - half, group.mean() + half], abs=1e-9)


@pytest.mark.parametrize("with_e", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_plain_bootstrap_of_runs_gives_intervals_of_like_width(published, main, architecture, with_e):
    law = law_of(of(main, architecture), ["n_params"], with_e)
    best, draw = law.fit(), np.random.default_rng(0)
    points = len(law.log_loss)  # at one budget every run is one cluster
    counts = draw.multinomial(points, np.full(points, 1 / points), RESAMPLES)
    found = [law.shown(law.descend(best, row, maxiter=500)) for row in counts]
    fitted = fit_in(published, architecture, "power_irreducible" if with_e else "power", "n_params")
    tail = norm.cdf(student.ppf(0.025, points - len(best)))  # farther out than 2.5 %: runs are few
    for name, row in fitted["parameters"].items():
        low, high = np.quantile([theta[name] for theta in found], [tail, 1 - tail])
        assert 1 / 1.5 <= (row["bootstrap"][1] - row["bootstrap"][0]) / (high - low) <= 1.5
