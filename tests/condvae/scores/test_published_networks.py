from __future__ import annotations

import os
import unittest.mock

import numpy as np
import pytest
import torch
import torchvision

from condvae.ground.configuration import ConfigurationError
from condvae.scores.extraction import extract_features
from condvae.scores.published_networks import (
    BACKBONES,
    InceptionNetwork,
    LpipsBackbone,
    read_heads,
)

CHANNELS = {
    "alex": (64, 192, 384, 256, 256),
    "vgg": (64, 128, 256, 512, 512),
    "squeeze": (64, 128, 256, 384, 384, 512, 512),
}


def random_images(count, size, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, channels, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """torch-fidelity's network with random weights, and the file of them."""
    from torch_fidelity import feature_extractor_inceptionv3 as module

    kind = module.FeatureExtractorInceptionV3
    with (
        unittest.mock.patch.object(module, "load_state_dict_from_url", return_value={}),
        unittest.mock.patch.object(kind, "load_state_dict"),
    ):
        network = kind("standin", ["2048"])
    path = tmp_path_factory.mktemp("inception") / "standin.pth"
    torch.save(network.state_dict(), path)
    return network, path


def test_inception_is_torch_fidelitys(inception):
    original, path = inception
    network = InceptionNetwork(path)
    images = random_images(3, 32)
    found = extract_features(network, images, batch_size=2)["features"]
    assert found.shape == (3, 2048)
    np.testing.assert_allclose(found, original(images)[0].numpy(), rtol=1e-4, atol=1e-6)
    assert np.ptp(found, axis=0).max() > 0


def test_inception_takes_grey_images_as_three_equal_channels(inception):
    network = InceptionNetwork(inception[1])
    grey = random_images(1, 16, channels=1)
    np.testing.assert_array_equal(
        network(grey)["features"], network(grey.repeat(1, 3, 1, 1))["features"]
    )


@pytest.mark.parametrize("kind", BACKBONES)
def test_backbones_are_torchvisions_up_to_the_compared_layers(kind, tmp_path):
    name, taps, least = BACKBONES[kind]
    original = torchvision.models.get_model(name, weights=None).features.eval()
    path = tmp_path / "features.pth"
    torch.save({f"features.{key}": value for key, value in original.state_dict().items()}, path)
    network = LpipsBackbone(kind, path)
    images = random_images(2, max(least, 33))
    maps = network(images)
    assert tuple(maps) == network.layers
    assert tuple(values.shape[1] for values in maps.values()) == CHANNELS[kind]
    # LPIPS 0.1: images in [-1, 1], minus shift, over scale
    x = images.double() / 255 * 2 - 1
    x = x - torch.tensor([-0.030, -0.088, -0.188]).double()[:, None, None]
    x = x / torch.tensor([0.458, 0.448, 0.450]).double()[:, None, None]
    for values, tap in zip(maps.values(), taps, strict=True):
        expected = original[: tap + 1].double()(x)
        torch.testing.assert_close(values.double(), expected, rtol=1e-3, atol=1e-4)
        assert values.min() >= 0  # behind a rectifier
    assert min(v.shape[2] for v in network(random_images(1, least)).values()) >= 1
    with pytest.raises(ConfigurationError, match=f"needs at least {least} a side"):
        network(random_images(1, least - 1))


def test_loading_neither_uses_nor_moves_global_randomness(inception, tmp_path):
    path = tmp_path / "squeeze.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), path)
    state = torch.get_rng_state()
    LpipsBackbone("squeeze", path)
    InceptionNetwork(inception[1])
    assert torch.equal(state, torch.get_rng_state())


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "load",
    [
        lambda path: LpipsBackbone("squeeze", path),
        InceptionNetwork,
        lambda path: read_heads(path, 7),
    ],
)
def test_files_of_something_else_are_refused(load, tmp_path):
    path = tmp_path / "file.pth"
    for content in ({"features.0.weight": torch.zeros(2)}, {"a": "b"}, [1, 2]):
        torch.save(content, path)
        with pytest.raises(ConfigurationError, match=r"file\.pth: expected"):
            load(path)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(ConfigurationError, match=r"file\.pth: expected a file of weights"):
        load(path)
    torch.save({"a": Malicious(tmp_path / "harm")}, path)
    with pytest.raises(ConfigurationError, match=r"file\.pth: expected a file of weights"):
        load(path)
    assert not (tmp_path / "harm").exists()


def test_other_images_are_refused(inception):
    network = InceptionNetwork(inception[1])
    for images in (torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 8, 8, dtype=torch.uint8)):
        with pytest.raises(ConfigurationError, match=r"expected torch\.uint8"):
            network(images)


def test_unknown_backbones_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="did you mean 'squeeze'"):
        LpipsBackbone("squeez", tmp_path / "no.pth")


@pytest.mark.shared
@pytest.mark.parametrize("kind", BACKBONES)
def test_published_heads_fit_the_compared_layers(kind, shared_folder):
    heads = read_heads(
        shared_folder / "weights" / "lpips_heads" / f"{kind}.pth", len(CHANNELS[kind])
    )
    assert tuple(len(values) for values in heads) == CHANNELS[kind]
    assert all((values >= 0).all() for values in heads)
