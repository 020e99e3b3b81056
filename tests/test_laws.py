"""The formulas: exact derivatives, published numbers, and the simpler laws that they become at their limits."""

from dataclasses import replace
from itertools import combinations_with_replacement

import numpy as np
import pytest
from scipy.special import erf

from analysis import laws
from analysis.laws import LAWS, Jet, Law

X = {
    "x": np.array([2e4, 1e5, 6e5, 3e6]),
    "n": np.array([2e4, 1e5, 6e5, 3e6]),
    "d": np.array([1e6, 8e6, 2e6, 6e7]),
    "u": np.array([2e6, 1e6, 5e5, 3e6]),
    "keys": np.array([1.0, 3.0, 6.0, 12.0]),
}
CHINCHILLA = [0.9, np.log(25), 0.35, np.log(300), 0.42]
MUPT = [0.8, np.log(15), 0.33, np.log(150), 0.4, np.log(2000), np.log(0.08)]
THETA = {
    "power": [np.log(8), 0.12],
    "power_irreducible": [1.0, np.log(20), 0.3],
    "chinchilla": CHINCHILLA,
    "data_constrained": [*CHINCHILLA, np.log(12), np.log(6)],
    "transposition": [*CHINCHILLA, np.log(8), 0.25],
    "mupt": MUPT,
    "sms": [*MUPT, 2e-8, 0.06, 0.05, 0.3],
}
LAW = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS.keys())


def columns(law: Law, **changes):
    return {name: changes.get(name, X[name]) for name in law.needs}


def predicted(name, theta, **changes):
    return LAWS[name].predict(np.array([theta], dtype=float), columns(LAWS[name], **changes))[0]


def jet_of(law, theta):
    value = law.formula([Jet(np.array([[value]]), {i: 1.0}, {}) for i, value in enumerate(theta)], columns(law))
    points = len(X["n"])

    def whole(entry):
        return np.broadcast_to(entry, (1, points))[0]

    first = {i: whole(slope) for i, slope in value.first.items()}
    return whole(value.value), first, {ij: whole(bend) for ij, bend in value.second.items()}


def complex_loss(law, theta):
    """The loss at complex parameters: the real formula with its functions continued to complex numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(laws, "saturation", lambda x: 1 - np.exp(-x))
        patch.setattr(laws, "gelu", lambda x: x * (0.5 + gaussian_integral(x)))
        patch.setattr(laws, "at_most", lambda x, highest: np.where(x.real < np.real(highest), x, highest))
        patch.setattr(laws, "seen", complex_seen)
        return law.formula(theta[:, None], columns(law))


def gaussian_integral(x):
    """Phi(x) - 1/2 of x with a tiny imaginary part."""
    real, step = np.real(x), np.imag(x)
    return 0.5 * erf(real / np.sqrt(2)) + 1j * step * np.exp(-(real**2) / 2) / np.sqrt(2 * np.pi)


def complex_seen(x, worth=0.0):
    unique = x["u"] * (1 + worth * (x["keys"] - 1)) if "keys" in x else x["u"]
    unique = np.where(np.real(unique) < x["d"], unique, x["d"])
    return np.log(unique), x["d"] / unique - 1


# Derivatives


@LAW
def test_the_first_derivatives_are_those_of_complex_steps(law):
    theta = np.array(THETA[law.name], dtype=complex)
    _, first, _ = jet_of(law, theta.real)
    assert first.keys() == set(range(len(theta)))
    for i in range(len(theta)):
        step = theta.copy()
        step[i] += 1e-30j
        slope = np.imag(complex_loss(law, step)) / 1e-30
        assert first[i] == pytest.approx(slope, rel=1e-9, abs=1e-14), law.names[i]


@LAW
def test_the_second_derivatives_are_those_of_the_first(law):
    theta = np.array(THETA[law.name])
    _, _, second = jet_of(law, theta)
    for i, j in combinations_with_replacement(range(len(theta)), 2):
        step = np.zeros(len(theta))
        step[j] = 1e-5 * max(abs(theta[j]), 1e-7)
        up, down = (jet_of(law, theta + side * step)[1][i] for side in (1, -1))
        slope = (up - down) / (2 * step[j])
        scale = np.abs(slope).max()
        exact = second.get((i, j), np.zeros(len(slope)))
        assert exact == pytest.approx(slope, rel=1e-4, abs=1e-6 * scale + 1e-9), (law.names[i], law.names[j])


@LAW
def test_jets_and_arrays_give_the_same_loss(law):
    value, _, _ = jet_of(law, np.array(THETA[law.name]))
    assert value == pytest.approx(predicted(law.name, THETA[law.name]), rel=1e-14)


@LAW
def test_the_basis_times_the_coefficients_is_the_loss_where_nothing_else_adds_to_it(law):
    """data_constrained's basis leaves the effective N out, so it is held to its limit; sms's the overfit term."""
    theta = list(THETA[law.name])
    if law.name == "data_constrained":
        theta[-1] = np.log(1e9)
    if law.name == "sms":
        theta[7:] = [0, 0, 0, 0]
    shown = [parameter.shown(value) for parameter, value in zip(law.parameters, theta, strict=True)]
    factors = [value for parameter, value in zip(law.parameters, shown, strict=True) if parameter.linear]
    terms = law.basis(np.array(theta), columns(law))
    assert sum(factor * term for factor, term in zip(factors, terms, strict=True)) == pytest.approx(
        predicted(law.name, theta), rel=1e-6
    )


# Published numbers


def test_the_data_constrained_law_is_the_published_predictor():
    """The function and the stored parameters of Muennighoff et al. 2023."""
    theta = [np.exp(0.6254804), 6.255414, 0.3526596, 7.3049974, 0.3526596, np.log(15.387756), np.log(5.309743)]
    law = LAWS["data_constrained"]
    found = law.predict(np.array([theta]), {"n": np.array([6.34e9]), "d": np.array([242e9]), "u": np.array([25e9])})
    assert found[0, 0] == pytest.approx(2.2256440889984477, abs=1e-9)


def test_gelu_and_its_relatives_have_the_values_of_their_definitions():
    z = np.array([-3.0, -0.5, 0.0, 1e-9, 2.0])
    assert laws.gelu(z) == pytest.approx(z * 0.5 * (1 + erf(z / np.sqrt(2))), rel=1e-12)
    assert laws.saturation(np.array([1e-12, 1.0])) == pytest.approx([1e-12, 1 - np.exp(-1)], rel=1e-12)


@pytest.mark.parametrize("k", [0.01, 0.5, 0.92])
def test_mupts_effective_data_are_a_geometric_sum_over_the_epochs(k):
    u, epochs = 1e6, np.array([1, 2, 5])
    x = {"u": np.full(3, u), "d": u * epochs}
    found = np.exp(laws.log_geometric(x, np.log(-np.log(k))))
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


def test_a_small_half_life_makes_repeated_data_worthless():
    never = np.log(1e-9)
    seen_once = np.minimum(X["d"], X["u"])
    plain = predicted("chinchilla", CHINCHILLA, d=seen_once)
    assert predicted("transposition", [*CHINCHILLA, never, 0.0]) == pytest.approx(plain, rel=1e-6)


def test_a_transposed_copy_of_worth_0_is_nothing_and_of_worth_1_a_new_tune():
    def at(worth, **changes):
        return predicted("transposition", [*CHINCHILLA, np.log(8), worth], **changes)

    assert at(0.0) == pytest.approx(at(0.25, keys=np.ones(4)))
    assert at(1.0) == pytest.approx(at(0.25, keys=np.ones(4), u=X["u"] * X["keys"]))


def test_more_of_anything_lowers_the_loss_of_laws_without_an_overfit_term():
    for name in ("chinchilla", "data_constrained", "transposition", "mupt"):
        base = predicted(name, THETA[name])
        for variable in ("n", "d"):
            assert (predicted(name, THETA[name], **{variable: X[variable] * 2}) < base).all(), (name, variable)


def test_the_symbolic_music_law_is_mupts_and_the_overfit_term():
    overfit = 2e-8 * X["d"] + 0.06 * np.log(X["n"]) - 0.05 * np.log(X["u"]) - 0.3
    expected = predicted("mupt", MUPT) + overfit * 0.5 * (1 + erf(overfit / np.sqrt(2)))
    assert predicted("sms", THETA["sms"]) == pytest.approx(expected, rel=1e-12)


def test_exact_coefficients_of_nothing_are_nothing():
    """E = 0 and a factor of 0 are values like others: nothing takes the logarithm of a single term."""
    theta = [0.0, np.log(25), 0.35, -np.inf, 0.42]
    assert predicted("chinchilla", theta) == pytest.approx(25 * X["n"] ** -0.35)


def test_parameters_are_shown_on_their_own_scale_and_always_finite():
    factor, worth, decay = laws.A, laws.WORTH, laws.DECAY
    assert factor.shown(np.log(25)) == pytest.approx(25)
    assert np.isfinite(factor.shown(np.array([1e4, 1e300]))).all()
    assert worth.shown(0.25) == 0.25
    assert decay.shown(np.log(-np.log(0.92))) == pytest.approx(0.92)


def test_a_law_of_ones_own_is_a_law():
    law = replace(LAWS["power"], name="mine", formula=lambda t, x: laws.exp(t[0]) + t[1] * x["x"])
    assert law.predict(np.array([[0.0, 2.0]]), {"x": np.array([1.0, 3.0])}) == pytest.approx(np.array([[3.0, 7.0]]))
