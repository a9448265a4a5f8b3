"""Shapes of every size, independence of the batch, and what features of y reach."""

import pytest
import torch

from condvae.cvae.networks import ImageDecoder, ImageEncoder, scale_sizes
from condvae.ground.configuration import ConfigurationError


@pytest.mark.parametrize(
    ("size", "expected"), [(8, [8, 4]), (16, [16, 8, 4]), (86, [86, 43, 22, 11, 6, 3])]
)
def test_scales(size, expected):
    assert scale_sizes(size) == expected


def test_images_too_small():
    with pytest.raises(ConfigurationError, match="size = 7: expected images of at least 8"):
        scale_sizes(7)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("size", [8, 9, 13, 28, 86])
def test_any_size_and_channels(size, channels):
    encoder, decoder = (
        ImageEncoder(channels, size, 2, 5, 7),
        ImageDecoder(3, size, 2, 5, channels),
    )
    features = torch.randn(2, 5)
    assert encoder(torch.randn(2, channels, size, size), features).shape == (2, 7)
    assert decoder(torch.randn(2, 3), features).shape == (2, channels, size, size)


@pytest.mark.parametrize("features", [0, 5])
def test_a_row_is_the_same_alone_and_in_a_batch(features):
    encoder = ImageEncoder(1, 13, 4, features, 6).double()
    decoder = ImageDecoder(3, 13, 4, features, 1).double()
    x, z = torch.randn(5, 1, 13, 13).double(), torch.randn(5, 3).double()
    f = torch.randn(5, features).double() if features else None
    for network, inputs in ((encoder, x), (decoder, z)):
        together = network(inputs, f)
        for b in range(5):
            alone = network(inputs[b : b + 1], None if f is None else f[b : b + 1])
            torch.testing.assert_close(alone, together[b : b + 1], rtol=1e-12, atol=1e-12)


def test_an_empty_batch():
    assert ImageEncoder(1, 8, 2, 5, 7)(torch.zeros(0, 1, 8, 8), torch.zeros(0, 5)).shape == (0, 7)
    assert ImageDecoder(3, 8, 2, 5, 1)(torch.zeros(0, 3), torch.zeros(0, 5)).shape == (0, 1, 8, 8)


def test_features_reach_the_output_and_every_pixel_the_vector():
    encoder, decoder = ImageEncoder(1, 16, 4, 5, 6).double(), ImageDecoder(3, 16, 4, 5, 1).double()
    x = torch.randn(1, 1, 16, 16).double().requires_grad_()
    f = torch.randn(1, 5).double().requires_grad_()
    z = torch.randn(1, 3).double().requires_grad_()
    for output in (encoder(x, f), decoder(z, f)):
        gradient = torch.autograd.grad(output.square().sum(), f, retain_graph=True)[0]
        assert (gradient != 0).all()
    assert (torch.autograd.grad(encoder(x, f).square().sum(), x)[0] != 0).all()
    jacobian = torch.autograd.functional.jacobian(lambda v: decoder(v, f), z)
    assert (jacobian.abs().amax(dim=(0, 4, 5)) > 0).all()
