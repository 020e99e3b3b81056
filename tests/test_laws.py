"""The formulas: exact derivatives, published numbers, and the simpler laws that they become at their limits."""

from itertools import combinations_with_replacement

import numpy as np
import pytest
from known_laws import CHINCHILLA, MUPT, THETA
from scipy.special import erf

from analysis import laws
from analysis.laws import LAWS, Law

X = {
    "x": np.array([2e4, 1e5, 6e5, 3e6]),
    "n": np.array([2e4, 1e5, 6e5, 3e6]),
    "d": np.array([1e6, 8e6, 2e6, 6e7]),
    "u": np.array([2e6, 1e6, 5e5, 3e6]),
    "keys": np.array([1.0, 3.0, 6.0, 12.0]),
}
LAW = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS.keys())


def columns(law: Law, **changes):
    return {name: changes.get(name, X[name]) for name in law.needs}


def predicted(name, theta, **changes):
    return LAWS[name].predict(np.array([theta], dtype=float), columns(LAWS[name], **changes))[0]


def derivatives(law, theta):
    """The loss [points], its gradient [parameters, points] and its Hessian [parameters, parameters, points] at X."""
    points, count = len(X["n"]), len(theta)
    loss, first, second = law.derivatives(np.array([theta]), columns(law))
    gradient = np.concatenate([np.broadcast_to(slope, (1, points)) for slope in first])
    hessian = np.zeros((count, count, points))
    for (i, j), curvature in second.items():
        hessian[i, j] = hessian[j, i] = np.broadcast_to(curvature, (1, points))[0]
    return loss[0], gradient, hessian


@LAW
def test_the_derivatives_are_those_of_small_steps(law):
    theta = np.array(THETA[law.name])
    value, gradient, hessian = derivatives(law, theta)
    assert value == pytest.approx(predicted(law.name, theta), rel=1e-14)
    for i, j in combinations_with_replacement(range(len(theta)), 2):
        step = np.zeros(len(theta))
        step[j] = 1e-5 * max(abs(theta[j]), 1e-7)
        above, below = (derivatives(law, theta + side * step) for side in (1, -1))
        for exact, found in ((gradient[j], 0), (hessian[i, j], 1)):
            change = above[0] - below[0] if found == 0 else above[1][i] - below[1][i]
            slope = change / (2 * step[j])
            scale = np.abs(slope).max()
            assert exact == pytest.approx(slope, rel=1e-4, abs=1e-6 * scale + 1e-9), (law.names[i], law.names[j])


@LAW
def test_the_basis_times_the_coefficients_is_the_loss(law):
    """Without what is not linear in them: the effective N of the data-constrained law, the overfitting of SMS."""
    theta = list(THETA[law.name])
    if law.name == "data_constrained":
        theta[-1] = np.log(1e9)
    if law.name == "sms":
        theta[7:] = [0, 0, 0, 0]
    factors = [p.shown(value) for p, value in zip(law.parameters, theta, strict=True) if p.linear]
    assert factors @ law.basis(np.array(theta), columns(law)) == pytest.approx(predicted(law.name, theta), rel=1e-6)


# Published numbers


def test_the_data_constrained_law_is_the_published_predictor():
    """The function and the stored parameters of Muennighoff et al. 2023."""
    theta = [np.exp(0.6254804), 6.255414, 0.3526596, 7.3049974, 0.3526596, np.log(15.387756), np.log(5.309743)]
    law = LAWS["data_constrained"]
    found = law.predict(np.array([theta]), {"n": np.array([6.34e9]), "d": np.array([242e9]), "u": np.array([25e9])})
    assert found[0, 0] == pytest.approx(2.2256440889984477, abs=1e-9)


@pytest.mark.parametrize("k", [0.01, 0.5, 0.92])
def test_mupts_effective_data_are_a_geometric_sum_over_the_epochs(k):
    u, epochs = 1e6, np.array([1, 2, 5])
    x = {"n": np.ones(3), "u": np.full(3, u), "d": u * epochs}
    theta = [0.0, -np.inf, 1.0, 0.0, -1.0, -np.inf, np.log(-np.log(k))]  # the loss is D'' itself
    found = LAWS["mupt"].predict(np.array([theta]), x)[0]
    assert found == pytest.approx([u * sum(k**i for i in range(count)) for count in epochs], rel=1e-12)


# Limits


ONE_EPOCH = {"d": X["u"]}


def test_tokens_never_seen_twice_are_worth_themselves_under_every_law_of_repetition():
    plain = predicted("chinchilla", CHINCHILLA, d=X["u"])
    law = LAWS["data_constrained"]
    at_most_optimal = law.predict(
        np.array([THETA[law.name]]),
        columns(law, d=X["u"], n=np.full(4, 1.0)),  # fewer parameters than are optimal
    )[0]
    assert at_most_optimal == pytest.approx(predicted("chinchilla", CHINCHILLA, d=X["u"], n=np.full(4, 1.0)))
    assert predicted("transposition", [*CHINCHILLA, np.log(8), 0.0], **ONE_EPOCH) == pytest.approx(plain)
    without_interaction = [*CHINCHILLA, -np.inf, np.log(0.08)]
    assert predicted("mupt", without_interaction, **ONE_EPOCH) == pytest.approx(plain)


def test_a_large_half_life_makes_repeated_data_as_good_as_new():
    plain = predicted("chinchilla", CHINCHILLA)
    never = np.log(1e12)
    assert predicted("data_constrained", [*CHINCHILLA, never, never]) == pytest.approx(plain, rel=1e-9)
    assert predicted("transposition", [*CHINCHILLA, never, 0.25]) == pytest.approx(plain, rel=1e-9)
    assert predicted("mupt", [*CHINCHILLA, -np.inf, np.log(1e-12)]) == pytest.approx(plain, rel=1e-9)


def test_a_transposed_copy_of_worth_0_is_nothing_and_of_worth_1_a_new_tune():
    def at(worth, **changes):
        return predicted("transposition", [*CHINCHILLA, np.log(8), worth], **changes)

    assert at(0.0) == pytest.approx(at(0.25, keys=np.ones(4)))
    assert at(1.0) == pytest.approx(at(0.25, keys=np.ones(4), u=X["u"] * X["keys"]))


def test_sms_is_mupt_and_the_term_for_overfitting():
    overfit = 2e-8 * X["d"] + 0.06 * np.log(X["n"]) - 0.05 * np.log(X["u"]) - 0.3
    expected = predicted("mupt", MUPT) + overfit * 0.5 * (1 + erf(overfit / np.sqrt(2)))
    assert predicted("sms", THETA["sms"]) == pytest.approx(expected, rel=1e-12)


def test_coefficients_may_be_zero():
    """E = 0 and a factor of 0 are values like others: nothing takes the logarithm of a single term."""
    theta = [0.0, np.log(25), 0.35, -np.inf, 0.42]
    assert predicted("chinchilla", theta) == pytest.approx(25 * X["n"] ** -0.35)


def test_parameters_are_shown_on_their_own_scale_and_finite():
    factor, worth, decay = laws.A, laws.WORTH, laws.DECAY
    assert factor.shown(np.log(25)) == pytest.approx(25)
    assert np.isfinite(factor.shown(np.array([1e4, 1e300]))).all()
    assert worth.shown(0.25) == 0.25
    assert decay.shown(np.log(-np.log(0.92))) == pytest.approx(0.92)
