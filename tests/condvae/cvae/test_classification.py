"""Bayes' rule with a linear Gaussian whose posterior is known, and with the flat model."""

import math

import pytest
import torch

from condvae.cvae.classification import classify, value_shares
from condvae.ground.attributes import Attribute
from condvae.ground.configuration import ConfigurationError

ATTRIBUTES = (
    Attribute("level", ("low", "middle", "high")),
    Attribute("side", ("left", "right")),
    Attribute("tilt", mean=1.0, std=2.0),
)
STD = 40.0


class LinearGaussian:
    """Pixels are N(level * a + side * b + tilt * c, STD^2); an unknown side is either with half."""

    attributes = ATTRIBUTES

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.a, self.b, self.c = 20.0 * torch.randn(3, 16, generator=generator).double()
        self.seeds = []

    def mean(self, level, side, tilt):
        return level * self.a + side * self.b + tilt * self.c

    def log_prob(self, pixels, y, draws, *, seed, batch_size):
        self.seeds.append(seed)
        x, result = pixels.double().flatten(1), []
        for row, (level, side, tilt) in zip(x, y.double().tolist(), strict=True):
            sides = (0.0, 1.0) if math.isnan(side) else (side,)
            means = torch.stack([self.mean(level, s, tilt) for s in sides])
            law = torch.distributions.Normal(means, STD)
            result.append(law.log_prob(row).sum(1).logsumexp(0) - math.log(len(sides)))
        return torch.stack(result)


@pytest.fixture
def pixels():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 60, (6, 1, 4, 4), generator=generator).to(torch.uint8)


def test_two_values_give_the_logistic_function_of_a_linear_score(pixels):
    model = LinearGaussian()
    tilt = torch.linspace(-1, 1, 6)
    y = torch.stack([torch.arange(6) % 3.0, torch.full((6,), math.nan), tilt], dim=1)
    shares = torch.tensor([0.3, 0.7])
    found = classify(model, pixels, y, "side", 4, seed=5, shares=shares)
    rest = pixels.double().flatten(1) - torch.stack(
        [model.mean(level, 0.0, t) for level, _, t in y.double().tolist()]
    )
    score = (rest @ model.b - 0.5 * model.b.square().sum()) / STD**2 + math.log(7 / 3)
    torch.testing.assert_close(found[:, 1], torch.sigmoid(score))
    torch.testing.assert_close(found.sum(dim=1), torch.ones(6, dtype=torch.float64))
    assert set(model.seeds) == {5}
    assert found[:, 1].std() > 0.02


def test_unknown_attributes_are_summed_over_by_the_model(pixels):
    """p(level | x) with an unknown side is the sum over sides of the joint posterior."""
    y = torch.tensor([[math.nan, math.nan, 0.5]]).repeat(6, 1)
    model = LinearGaussian()
    joint = torch.empty(6, 3, 2, dtype=torch.float64)
    for level in range(3):
        for side in range(2):
            mean = model.mean(level, side, 0.5)
            joint[:, level, side] = -(pixels.double().flatten(1) - mean).square().sum(1)
    joint = (joint / (2 * STD**2)).flatten(1).softmax(dim=1).reshape(6, 3, 2)
    torch.testing.assert_close(classify(model, pixels, y, "level", 1), joint.sum(dim=2))


def test_shares_of_each_image_and_of_no_value(pixels):
    model, y = LinearGaussian(), torch.tensor([[math.nan, 1.0, 0.0]]).repeat(6, 1)
    even = classify(model, pixels, y, "level", 1)
    shares = torch.rand(6, 3, generator=torch.Generator().manual_seed(2))
    shares[0, 1] = 0.0
    expected = even * shares / (even * shares).sum(dim=1, keepdim=True)
    torch.testing.assert_close(classify(model, pixels, y, "level", 1, shares=10 * shares), expected)
    assert classify(model, pixels, y, "level", 1, shares=shares)[0, 1] == 0


def test_log_densities_far_below_the_smallest_number_are_no_trouble(pixels):
    class Far(LinearGaussian):
        def log_prob(self, *arguments, **options):
            return super().log_prob(*arguments, **options) - 1e6

    y = torch.tensor([[math.nan, 1.0, 0.0]]).repeat(6, 1)
    found = classify(Far(), pixels, y, "level", 1)
    expected = classify(LinearGaussian(), pixels, y, "level", 1)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_the_flat_model_is_scored_at_every_value(make_cvae, make_pixels, make_conditions):
    model, pixels, y = make_cvae(), make_pixels(4, size=8), make_conditions(4)
    found = classify(model, pixels, y, "shade", 3, seed=2)
    scores = []
    for value in range(3):
        changed = torch.stack([torch.full((4,), float(value)), y[:, 1]], dim=1)
        scores.append(model.log_prob(pixels, changed, 3, seed=2))
    scores = torch.stack(scores, dim=1)
    expected = (scores - scores.logsumexp(dim=1, keepdim=True)).exp()
    torch.testing.assert_close(found, expected)
    alone = classify(model, pixels[2:3], y[2:3], "shade", 3, seed=2)
    torch.testing.assert_close(alone[0], found[2], rtol=1e-7, atol=1e-9)
    changed = y.clone()
    changed[:, 0] = 1.0  # what y says of the attribute itself has no part in it
    assert torch.equal(classify(model, pixels, changed, "shade", 3, seed=2), found)


def test_shares_of_values_are_counted():
    y = torch.tensor([[0.0, 1.0, 0.0], [2.0, math.nan, 0.0], [2.0, 1.0, 0.0], [math.nan, 1.0, 0.0]])
    torch.testing.assert_close(
        value_shares(ATTRIBUTES, y, "level"), torch.tensor([1 / 3, 0, 2 / 3], dtype=torch.float64)
    )
    assert value_shares(ATTRIBUTES, y, "side").tolist() == [0, 1]
    with pytest.raises(ConfigurationError, match="'level': unknown in all 1 conditions"):
        value_shares(ATTRIBUTES, y[3:], "level")


def test_wrong_arguments_are_named(pixels):
    model, y = LinearGaussian(), torch.zeros(6, 3)
    for name, options, message in (
        ("tilt", {}, "'tilt' is continuous"),
        ("colour", {}, "'colour': expected one of level, side, tilt"),
        ("side", {"shares": torch.ones(3)}, r"shares of shape \(3,\): expected \(2,\) or \(6, 2\)"),
        ("side", {"shares": torch.tensor([1.0, -1.0])}, "expected finite values >= 0"),
        ("side", {"shares": torch.zeros(2)}, "not all of them 0"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            classify(model, pixels, y, name, 2, **options)
    with pytest.raises(ConfigurationError, match="draws = 0"):
        classify(model, pixels, y, "side", 0)
