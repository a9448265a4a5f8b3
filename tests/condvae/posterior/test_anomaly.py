"""Gradients against finite differences, densities and AUROC against their definitions."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from condvae.ground.configuration import ConfigurationError
from condvae.ground.distributions import DiagonalGaussian
from condvae.ground.noise import case_generator
from condvae.ipa import ConditionalModel, PartialEncoder
from condvae.posterior.anomaly import GradientDensity, auroc, range_scores, temperature_gradients
from condvae.posterior.image_posterior import noise_by_group
from condvae.posterior.input_check import InputVerdict


@pytest.fixture
def observed(make_posterior, make_pixels):
    posterior = make_posterior()
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :9] = 1
    return posterior, posterior.observe(make_pixels(2), mask)


def kl_with_heated_prior(posterior, y, group_index, t, draw):
    """KL(c || p) of all groups with the prior's standard deviations of one group times t."""
    vae, latents = posterior.model.vae, posterior.model.latents
    normals = torch.stack(
        [
            torch.randn(
                vae.architecture.latent_dimensions,
                generator=case_generator(3, name, f"temperature gradient {draw}"),
            )
            for name in y.case_ids
        ]
    ).double()
    noise, features, total = noise_by_group(normals), latents.encode(y.condition.double()), 0.0

    def choose(group, h):
        nonlocal total
        c = latents.distribution(group, h, features)
        heat = t if group.index == group_index else 1.0
        p = Normal(group.prior.mean, heat * group.prior.log_std.exp())
        z = c.sample(noise(group))
        if isinstance(c, DiagonalGaussian):
            terms = kl_divergence(Normal(c.mean, c.log_std.exp()), p)
        else:
            terms = c.log_prob(z) - p.log_prob(z)
        total = total + terms.flatten(1).sum(dim=1)
        return z

    with torch.no_grad():
        vae.decoder.descend(choose, len(y), output=False)
    return total


@pytest.mark.parametrize("flows", ["", "1:affine"])
def test_gradients_agree_with_finite_differences(observed, flows):
    posterior, y = observed
    if flows:
        vae = posterior.model.vae
        partial = PartialEncoder(vae, 2, flows=flows).to(vae.dtype).requires_grad_(False)
        posterior = dataclasses.replace(posterior, model=ConditionalModel(vae, partial))
    found = temperature_gradients(posterior, y, draws=2, seed=3)
    assert found.dtype == torch.float64
    step = 1e-4
    for group in range(found.shape[1]):
        # Of the bound only the KL depends on the temperatures, with a minus sign.
        ends = [
            torch.stack(
                [kl_with_heated_prior(posterior, y, group, 1 + s, draw) for draw in range(2)]
            )
            for s in (step, -step)
        ]
        slope = -(ends[0] - ends[1]).mean(dim=0) / (2 * step)
        torch.testing.assert_close(found[:, group], slope, rtol=1e-5, atol=1e-5)


def test_gradients_do_not_depend_on_the_batch(observed):
    posterior, y = observed
    together = temperature_gradients(posterior, y, seed=1)
    apart = temperature_gradients(posterior, y, seed=1, batch_size=1)
    torch.testing.assert_close(together, apart, rtol=1e-9, atol=1e-9)
    assert not torch.equal(together, temperature_gradients(posterior, y, seed=2))


def test_density_is_the_normal_one_with_shrunk_correlations():
    rng = np.random.default_rng(0)
    scale = np.array([100.0, 1.0, 0.01])
    values = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 3)) * scale + 5
    density = GradientDensity.fit(values)
    covariance = density.factor @ density.factor.T
    sample = np.cov(values.T)
    assert 0 < density.shrinkage < 1
    np.testing.assert_allclose(np.diag(covariance), np.diag(sample), rtol=1e-10)
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(
        covariance[off], (1 - density.shrinkage) * sample[off], rtol=1e-9, atol=0
    )
    law = MultivariateNormal(torch.from_numpy(density.mean), torch.from_numpy(covariance))
    other = rng.normal(size=(5, 3)) * scale
    expected = -law.log_prob(torch.from_numpy(other)).numpy()
    np.testing.assert_allclose(density.scores(other), expected, rtol=1e-9)
    other[1, 2] = np.inf
    np.testing.assert_array_equal(np.isposinf(density.scores(other)), [0, 1, 0, 0, 0])


def test_shrinkage_is_that_of_the_definition():
    values = np.random.default_rng(1).normal(size=(12, 4))
    n, standardised = 12, (values - values.mean(0)) / values.std(0, ddof=1)
    above = below = 0.0
    for i in range(4):
        for j in range(4):
            if i != j:
                w = standardised[:, i] * standardised[:, j]
                above += n / (n - 1) ** 3 * np.square(w - w.mean()).sum()
                below += (n / (n - 1) * w.mean()) ** 2
    assert GradientDensity.fit(values).shrinkage == pytest.approx(min(1.0, above / below))


def test_fewer_gradients_than_groups_still_have_a_density():
    values = np.random.default_rng(2).normal(size=(6, 20))
    density = GradientDensity.fit(values)
    assert np.isfinite(density.scores(values)).all()
    assert density.scores(values + 50).min() > density.scores(values).max()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((2, 3)), r"shape \(2, 3\): expected"),
        (np.full((5, 2), np.nan), r"shape \(5, 2\): expected"),
        (np.column_stack([np.arange(5.0), np.ones(5)]), r"group 1 are all equal"),
    ],
)
def test_gradients_that_cannot_be_fitted_are_refused(values, message):
    with pytest.raises(ConfigurationError, match=message):
        GradientDensity.fit(values)


def test_auroc_counts_pairs():
    rng = np.random.default_rng(0)
    normal, foreign = rng.integers(0, 6, 37).astype(float), rng.integers(2, 8, 23).astype(float)
    normal[0], foreign[0] = -np.inf, np.inf
    pairs = [(f > n) + 0.5 * (f == n) for n in normal for f in foreign]
    found = auroc(normal, foreign)
    assert found.value == pytest.approx(np.mean(pairs))
    grid = np.array(pairs).reshape(37, 23)
    # DeLong et al. 1988, equation 5 with components over rows and columns.
    variance = grid.mean(1).var(ddof=1) / 37 + grid.mean(0).var(ddof=1) / 23
    assert found.standard_error == pytest.approx(math.sqrt(variance))
    assert (found.n_normal, found.n_foreign) == (37, 23)


@pytest.mark.parametrize(
    ("normal", "foreign", "expected"),
    [
        ([0.0, 1.0], [2.0, 3.0], 1.0),
        ([2.0, 3.0], [0.0, 1.0], 0.0),
        ([1.0, 1.0], [1.0, 1.0], 0.5),
        ([1.0, 2.0, 3.0], [2.0, 3.0, 4.0], 7 / 9),
    ],
)
def test_known_values_of_auroc(normal, foreign, expected):
    assert auroc(normal, foreign).value == pytest.approx(expected)


def test_repeated_cases_of_one_image_add_no_certainty():
    rng = np.random.default_rng(3)
    normal, foreign = rng.normal(size=30), rng.normal(0.5, 1, size=30)
    names = np.arange(30)
    once = auroc(normal, foreign, (names, names + 100))
    twice = auroc(
        np.tile(normal, 2), np.tile(foreign, 2), (np.tile(names, 2), np.tile(names + 100, 2))
    )
    assert twice.value == pytest.approx(once.value)
    assert twice.standard_error == pytest.approx(once.standard_error)
    assert auroc(np.tile(normal, 2), np.tile(foreign, 2)).standard_error < once.standard_error


def test_standard_error_of_pairs_is_the_spread_over_repetitions():
    rng = np.random.default_rng(4)
    values, errors = [], []
    for _ in range(400):
        shared = rng.normal(size=50)
        normal, foreign = shared + rng.normal(size=50), shared + 1 + rng.normal(size=50)
        found = auroc(normal, foreign, (np.arange(50), np.arange(50)))
        values.append(found.value)
        errors.append(found.standard_error)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.12)


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(ConfigurationError, match=r"foreign scores of shape \(2,\), 1 of them nan"):
        auroc([1.0], [1.0, math.nan])
    with pytest.raises(ConfigurationError, match=r"clusters of shapes"):
        auroc([1.0, 2.0], [1.0, 2.0], ([1], [1, 2]))


def test_range_scores_exceed_one_where_the_check_warns():
    def verdict(bits, *, checked=True):
        unusual = bits is None or not 2 <= bits <= 6
        return InputVerdict(unusual, checked, bits, 2.0, 6.0, "")

    verdicts = [verdict(bits) for bits in (2.0, 4.0, 5.0, 7.0, 1.0, None)]
    found = range_scores([*verdicts, verdict(4.0, checked=False)])
    np.testing.assert_allclose(found, [1, 0, 0.5, 1.5, 1.5, np.inf, np.nan])
