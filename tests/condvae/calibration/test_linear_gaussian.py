"""IPA on a model with known posterior, from the objective to the verdict."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from condvae.calibration import (
    View,
    assess_all_ranks,
    judge,
    other_references,
    posterior_coverage,
    rank_pixels,
    share_covered,
    tabulate_coverage,
)
from condvae.ipa import ConditionalModel, UnconditionalLatents

LinearGaussian = runpy.run_path(str(Path(__file__).with_name("linear_gaussian.py")))[
    "LinearGaussian"
]
CASES, DRAWS = 1000, 99


@pytest.fixture(scope="module")
def chain():
    """Four one-dimensional groups, each depending on those above; 3 of 8 values are seen."""
    rng = np.random.default_rng(0)
    mixing = np.tril(rng.normal(size=(4, 4)), -1) * 0.5 + np.eye(4)
    system = LinearGaussian(rng.normal(size=(8, 4)), mixing @ mixing.T, 0.1, [1] * 4, seen=3)
    return system, system.train()


@pytest.fixture(scope="module")
def pair():
    """One two-dimensional group. The seen sum of both latents makes them correlated.

    The values are z1 + z2 (seen), z1, z2 and z1 - z2; given all of them the latents are independent.
    """
    loadings = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, -1.0]])
    system = LinearGaussian(loadings, np.eye(2), 0.3, [2], seen=1)
    return system, system.train()


def judge_sampler(system, model, temperature, seed, values):
    """Verdict and coverage on fresh cases, judged by the values (a slice of x) alone."""
    rng = np.random.default_rng(seed)
    _, x = system.draw(rng, CASES)
    y = x[:, : system.seen]
    samples = system.sample(model, y, DRAWS, temperature, seed)[:, :, values]
    truths = x[:, values]
    references = y @ rng.normal(size=(system.seen, truths.shape[1]))
    others = other_references(references, np.arange(CASES), seed)
    view = View(samples, truths, None, references, others)
    verdict = judge(assess_all_ranks(rank_pixels(view, seed=seed), DRAWS, seed=seed))
    sizes = np.full(CASES, truths.shape[1])
    return verdict, posterior_coverage(tabulate_coverage(share_covered(view), sizes))


@pytest.mark.parametrize("objective", ["ipa", "ipa_r"])
def test_exact_posterior_is_reached_with_one_dimensional_groups(chain, objective):
    system, model = chain
    if objective == "ipa_r":
        model = system.train_reverse()
    y = system.draw(np.random.default_rng(1), 5)[1][:, : system.seen]
    gain, covariance = system.posterior(system.seen)
    mean, spread = system.moments(model, y)
    np.testing.assert_allclose(mean, y @ (system.loadings @ gain).T, atol=1e-5)
    np.testing.assert_allclose(
        spread, system.loadings @ covariance @ system.loadings.T, rtol=1e-4, atol=1e-6
    )


def test_temperature_scales_the_covariance(chain):
    system, model = chain
    y = np.ones((1, system.seen))
    spread, cooled = (system.moments(model, y, t)[1] for t in (1.0, 0.7))
    np.testing.assert_allclose(cooled, 0.49 * spread, rtol=1e-9)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("temperature", "word"),
    [(1.0, "calibrated at this n"), (0.7, "too narrow"), (1.4, "too wide")],
)
def test_verdict_on_ipa(chain, temperature, word, seed):
    verdict, coverage = judge_sampler(*chain, temperature, seed, slice(3, 8))
    assert verdict.words == (word,)
    gap = (coverage.value - 0.9) / coverage.standard_error
    expected = {1.0: (-3, 3), 0.7: (-np.inf, -6), 1.4: (6, np.inf)}[temperature]
    assert expected[0] < gap < expected[1]


def test_diagonal_ipa_has_exact_marginal_deviations_of_a_correlated_group(pair):
    system, model = pair
    _, covariance = system.posterior(system.seen)
    correlation = covariance[0, 1] / covariance[0, 0]
    assert correlation < -0.9
    # The values 1 and 2 are the latents themselves.
    _, spread = system.moments(model, np.zeros((1, 1)))
    np.testing.assert_allclose(np.diag(spread)[1:3], np.diag(covariance), rtol=1e-6)
    assert abs(spread[1, 2]) < 1e-12


def test_ipa_r_shrinks_the_deviations_of_a_correlated_group(pair):
    """To those of one latent given the other: by sqrt(1 - r^2)."""
    system, _ = pair
    gain, covariance = system.posterior(system.seen)
    r = covariance[0, 1] / covariance[0, 0]
    model = system.train_reverse()
    y = np.array([[-1.0], [0.0], [2.0]])
    mean, spread = system.moments(model, y)
    np.testing.assert_allclose(mean, y @ (system.loadings @ gain).T, atol=1e-5)
    expected = np.sqrt(np.diag(covariance) * (1 - r**2))
    np.testing.assert_allclose(np.sqrt(np.diag(spread)[1:3]), expected, rtol=1e-5)
    assert expected[0] < 0.5 * np.sqrt(covariance[0, 0])
    assert abs(spread[1, 2]) < 1e-12


def test_projections_expose_the_missing_correlation(pair):
    system, model = pair
    verdict, _ = judge_sampler(system, model, 1.0, 3, slice(1, 3))
    assert verdict.words == ("too narrow", "too wide")
    assert not any(name.startswith("pixel") for name in verdict.rejected)
    # The posterior is narrow along z1 + z2, which the hole's mean is, and wide along z1 - z2.
    assert "hole_mean" in verdict.shown_by["too wide"]
    assert all(name.startswith("projection") for name in verdict.shown_by["too narrow"])
    assert "too wide in hole_mean" in verdict.summary
    shapes = {test.name: test.shape for test in verdict.tests}
    _, covariance = system.posterior(system.seen)
    noise, r = system.noise**2, covariance[0, 1] / covariance[0, 0]
    v = covariance[0, 0]
    for names, sign in ((verdict.shown_by["too narrow"], -1), (verdict.shown_by["too wide"], 1)):
        expected = np.sqrt((v * (1 + sign * r) + noise) / (v + noise))
        for name in names:
            # Of 99 draws the extremes cut the scores' tails a little.
            assert shapes[name].spread == pytest.approx(expected, rel=0.08)


def test_the_frozen_prior_ignores_y(chain):
    system, model = chain
    prior = ConditionalModel(model.vae, UnconditionalLatents())
    verdict, coverage = judge_sampler(system, prior, 1.0, 4, slice(3, 8))
    assert verdict.words == ("ignores y",)
    # Intervals of the prior cover as promised: coverage alone does not tell.
    assert abs(coverage.value - 0.9) < 4 * coverage.standard_error
