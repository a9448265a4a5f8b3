"""AUROC by set, score and bin; scores of observations go through whatever the batch is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from condvae.evaluation.anomaly import ANOMALY_SCORES, NORMAL, fit_scorer, tabulate_auroc
from condvae.ground.configuration import ConfigurationError
from condvae.ipa import ConditionalModel, PartialEncoder
from condvae.masks.sampling import MaskConfig
from condvae.posterior.anomaly import temperature_gradients
from condvae.posterior.image_posterior import ImagePosterior
from condvae.tasks import Colourisation

MASKS = MaskConfig(kinds={"half": 1.0, "blank": 1.0}, stratified=False)
HOW = {"pairs": 30, "draws": 1, "seed": 0, "batch_size": 8}


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 16, 16, 1), dtype=np.uint8)


def test_scores_are_the_three_of_the_library(make_posterior, images):
    posterior = make_posterior(dtype=torch.float32)
    done = []
    scorer = fit_scorer(posterior, images, np.arange(4), MASKS, **HOW, progress=done.append)
    # Masks that show nothing are left out of the 30.
    assert 10 < scorer.density.n < 30 == sum(done)
    masks = np.zeros((6, 16, 16), bool)
    masks[:, :9] = True
    names = [str(i) for i in range(6)]
    found = scorer.score(images, masks, np.arange(6), names)
    assert list(found) == list(ANOMALY_SCORES)
    y = posterior.observe(
        torch.from_numpy(np.moveaxis(images, -1, 1).copy()),
        torch.from_numpy(masks[:, None]),
        tuple(names),
    )
    gradients = temperature_gradients(posterior, y, seed=0)
    np.testing.assert_allclose(
        found["temperature_gradient"], scorer.density.scores(gradients), rtol=1e-3
    )
    bits = posterior.observation_bound(y, seed=0).bits_per_observed_dim
    np.testing.assert_allclose(found["bound"], bits, rtol=1e-4)
    # The card holds nothing to compare with.
    assert np.isnan(found["input_check"]).all()


def test_groups_that_are_not_conditioned_do_not_count(make_posterior, images):
    posterior = make_posterior(dtype=torch.float32)
    vae = posterior.model.vae
    latents = PartialEncoder(vae, 2, first_groups=2).requires_grad_(False)
    posterior = dataclasses.replace(posterior, model=ConditionalModel(vae, latents))
    scorer = fit_scorer(posterior, images, np.arange(4), MASKS, **HOW)
    assert scorer.density.mean.shape == (2,)
    masks = np.ones((6, 16, 16), bool)
    found = scorer.score(images, masks, np.arange(6), [str(i) for i in range(6)])
    assert np.isfinite(found["temperature_gradient"]).all()


def test_task_without_masks_is_refused(make_posterior, images):
    posterior = make_posterior()
    posterior = ImagePosterior(posterior.model, Colourisation())
    with pytest.raises(ConfigurationError, match="task 'colourisation' shows no pixels"):
        fit_scorer(posterior, images, np.arange(4), MASKS, **HOW)


def test_table_has_a_row_for_every_bin_with_values():
    shares = np.array([0.1, 0.15, 0.3, 0.35])
    scores = {
        NORMAL: {"a": np.array([0.0, 1.0, 2.0, 3.0]), "b": np.full(4, np.nan)},
        "noise": {"a": np.array([0.5, 2.0, 1.0, 9.0]), "b": np.zeros(4)},
        "other": {"a": np.array([5.0, 5.0, np.nan, np.nan]), "b": np.zeros(4)},
    }
    images = {NORMAL: list("pqrs"), "noise": list("pqrs"), "other": list("tuvw")}
    rows = tabulate_auroc(scores, shares, images)
    found = {(row["set"], row["score"], row["bin"]): row for row in rows}
    assert set(found) == {
        *(("noise", "a", where) for where in ("0_20", "20_40", "pooled")),
        *(("other", "a", where) for where in ("0_20", "pooled")),
    }
    assert found["noise", "a", "0_20"]["value"] == pytest.approx(3 / 4)
    assert found["noise", "a", "20_40"]["value"] == pytest.approx(2 / 4)
    assert found["noise", "a", "pooled"]["value"] == pytest.approx((1 + 2.5 + 1.5 + 4) / 16)
    assert found["other", "a", "pooled"]["n_foreign"] == 2
    assert found["other", "a", "0_20"]["value"] == 1.0
