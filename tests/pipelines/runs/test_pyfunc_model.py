"""The registered model, against the posterior it holds."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from condvae.ground.configuration import ConfigurationError
from condvae.ipa import ConditionalModel, PartialEncoder
from condvae.models.folder import load_posterior, read_card, save_posterior
from condvae.posterior.guidance import guide_posterior
from condvae.posterior.image_posterior import ImagePosterior
from condvae.posterior.importance import importance_bound
from condvae.tasks import ClassLabel
from pipelines.runs.pyfunc_model import PosteriorModel, make_example, make_signature


@pytest.fixture
def folder(tmp_path, make_posterior):
    save_posterior(tmp_path / "posterior", make_posterior(dtype=torch.float32), {})
    return tmp_path / "posterior"


def open_model(folder, **config):
    model = PosteriorModel()
    model.load_context(SimpleNamespace(artifacts={"posterior": str(folder)}, model_config=config))
    return model


@pytest.fixture
def inputs(make_pixels):
    mask = np.zeros((3, 1, 16, 16), np.uint8)
    mask[:, :, :, :6] = 1
    mask[2] = 1
    return {"image": make_pixels().numpy(), "mask": mask}


def test_result_is_what_the_posterior_draws(folder, inputs):
    drawn = open_model(folder).predict(
        None, inputs, {"completions": 4, "seed": 3, "temperature": 0.8, "bound_draws": 0}
    )
    posterior = load_posterior(folder)
    pixels, mask = (torch.from_numpy(inputs[name]) for name in ("image", "mask"))
    expected = posterior.sample(posterior.observe(pixels, mask), 4, temperature=0.8, seed=3)
    assert drawn["completions"].dtype == np.uint8
    np.testing.assert_array_equal(drawn["completions"], expected.transpose(0, 1))
    wide = expected.double()
    np.testing.assert_allclose(drawn["mean"], wide.mean(0), rtol=1e-6)
    np.testing.assert_allclose(drawn["sd"], wide.std(0), rtol=1e-5, atol=1e-5)
    assert np.isnan(drawn["log_bound"]).all()
    assert drawn["log_bound"].shape == (3,)


def test_requests_are_checked_as_everywhere(folder, inputs):
    model = open_model(folder)
    with pytest.raises(ConfigurationError, match="completions = 1: a standard deviation needs"):
        model.predict(None, inputs, {"completions": 1})
    with pytest.raises(ConfigurationError, match=r"seed = -3: expected 0 to 2\^63 - 1"):
        model.predict(None, inputs, {"seed": -3})
    scaled = {**inputs, "image": (inputs["image"] > 127).astype(np.uint8)}
    with pytest.raises(ConfigurationError, match="image 0: no value above 1"):
        model.predict(None, scaled, {"completions": 2})


def test_bound_is_the_log_of_the_mean_weight_in_nats(folder, inputs):
    drawn = open_model(folder).predict(None, inputs, {"completions": 2, "bound_draws": 5})
    posterior = load_posterior(folder)
    pixels, mask = (torch.from_numpy(inputs[name]) for name in ("image", "mask"))
    bits = importance_bound(posterior, pixels, posterior.observe(pixels, mask), [5]).bound_bits[5]
    np.testing.assert_allclose(drawn["log_bound"], -math.log(2) * bits, rtol=1e-12)
    assert (drawn["log_bound"][:2] < 0).all()
    # It is of the given image in every pixel, the unobserved ones as well.
    changed = {**inputs, "image": inputs["image"].copy()}
    changed["image"][0, 0, 8, 12] ^= 128
    other = open_model(folder).predict(None, changed, {"completions": 2, "bound_draws": 5})
    assert other["log_bound"][0] != drawn["log_bound"][0]
    np.testing.assert_array_equal(other["completions"], drawn["completions"])


def test_guidance_is_that_of_the_registration(folder, inputs):
    drawn = open_model(folder, guidance=0.5).predict(None, inputs, {"completions": 2})
    posterior = guide_posterior(load_posterior(folder), 0.5)
    pixels, mask = (torch.from_numpy(inputs[name]) for name in ("image", "mask"))
    expected = posterior.sample(posterior.observe(pixels, mask), 2)
    np.testing.assert_array_equal(drawn["completions"], expected.transpose(0, 1))


def test_task_of_labels_takes_labels_alone(tmp_path, make_vae):
    vae = make_vae(dtype=torch.float32).requires_grad_(False)
    task = ClassLabel(4)
    partial = PartialEncoder(vae, task.condition_channels(vae.contract))
    save_posterior(tmp_path, ImagePosterior(ConditionalModel(vae, partial), task), {})
    card = read_card(tmp_path)
    signature = make_signature(card, 1.0)
    assert signature.inputs.input_names() == ["labels"]
    example, params = make_example(card)
    model = open_model(tmp_path)
    assert model.predict(None, example, params)["completions"].shape == (1, 2, 1, 16, 16)
    drawn = model.predict(None, {"labels": np.array([0, 3, -1])}, {"completions": 2})
    assert drawn["completions"].shape == (3, 2, 1, 16, 16)
    with pytest.raises(ConfigurationError, match="bound_draws = 3: expected 0"):
        model.predict(None, {"labels": np.array([0])}, {"bound_draws": 3})


def test_signature_and_example_agree_with_the_model(folder):
    card = read_card(folder)
    signature, (example, params) = make_signature(card, 0.7), make_example(card)
    drawn = open_model(folder).predict(None, example, params)
    for schema, arrays in ((signature.inputs, example), (signature.outputs, drawn)):
        assert set(schema.input_names()) == set(arrays)
        for spec in schema.inputs:
            found = arrays[spec.name]
            assert found.dtype == spec.type
            assert len(found.shape) == len(spec.shape)
            assert all(size in (-1, n) for size, n in zip(spec.shape, found.shape, strict=True))
    defaults = {param.name: param.default for param in signature.params.params}
    assert defaults == {"completions": 16, "seed": 0, "temperature": 0.7, "bound_draws": 0}


def test_mask_with_other_values_is_refused(folder, inputs):
    inputs["mask"][0] *= 255
    with pytest.raises(ValueError, match="mask"):
        open_model(folder).predict(None, inputs, {"completions": 2})
