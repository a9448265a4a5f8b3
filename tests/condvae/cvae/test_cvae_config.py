"""Settings of a flat model: what is refused, and what a VAE's identity is."""

import pytest

from condvae.cvae.config import CvaeConfig
from condvae.ground.configuration import ConfigurationError, read_config


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("latents", 0, "latents = 0: expected > 0"),
        ("width", -1, "width = -1"),
        ("features", 0, "features = 0"),
        ("mixtures", 0, "mixtures = 0"),
        ("prior_hidden", 0, "prior_hidden = 0"),
        ("prior_components", 0, "prior_components = 0"),
        ("prior_layers", -1, "prior_layers = -1: expected >= 0"),
        ("beta", 0.0, "beta = 0.0"),
        ("likelihood", "optima", "did you mean 'optimal'"),
        ("prior", "splines", "did you mean 'spline'"),
        ("training", "three_stage", "did you mean 'two_stage'"),
        ("fixed_std", 0.001, "fixed_std = 0.001: expected at least half a grey level"),
        ("drop_share", 1.5, "drop_share = 1.5"),
    ],
)
def test_a_value_out_of_range_is_named(name, value, message):
    with pytest.raises(ConfigurationError) as error:
        CvaeConfig(**{name: value})
    assert message in str(error.value)


def test_a_mixture_is_always_discretised():
    with pytest.raises(ConfigurationError, match="discretised = False"):
        CvaeConfig(likelihood="logistic_mixture", discretised=False)


def test_it_is_read_from_parameters():
    config = read_config(CvaeConfig, {"prior": "affine", "beta": 2}, "model")
    assert config == CvaeConfig(prior="affine", beta=2.0)
    with pytest.raises(ConfigurationError, match=r"unknown parameter model\.latent "):
        read_config(CvaeConfig, {"latent": 3}, "model")


def test_priors_fitted_afterwards_share_a_vae_and_joint_ones_do_not():
    two, other = CvaeConfig(), CvaeConfig(prior="mixture", prior_components=3, prior_layers=1)
    assert two.vae_facts == other.vae_facts
    assert two.vae_facts != CvaeConfig(width=8).vae_facts
    joint = CvaeConfig(training="joint")
    assert joint.vae_facts != CvaeConfig(training="joint", prior="mixture").vae_facts
