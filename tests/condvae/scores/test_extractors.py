from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import sha256_of_file
from condvae.scores import extractors
from condvae.scores.extraction import extract_features
from condvae.scores.extractors import (
    WEIGHTS,
    Extractor,
    WeightsCard,
    extractor_names,
    load_extractor,
    register_extractor,
)
from condvae.scores.feature_network import FeatureNetwork, save_feature_network
from condvae.scores.perceptual import best_of_k, perceptual_embedding

CHANNELS = (64, 128, 256, 384, 384, 512, 512)
TAPS = (1, 4, 7, 9, 10, 11, 12)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and no installed package lpips."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("CONDVAE_CACHE", str(folder))
    monkeypatch.setattr(extractors, "_packaged_heads", lambda kind: None)
    return folder


@pytest.fixture(scope="module")
def standins(tmp_path_factory):
    """SqueezeNet and LPIPS heads with random weights, in the published layouts."""
    folder = tmp_path_factory.mktemp("standins")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torchvision.models.squeezenet1_1(weights=None).eval()
        heads = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate(CHANNELS)}
    torch.save(network.state_dict(), folder / "squeeze.pth")
    torch.save(heads, folder / "heads.pth")
    return network, heads, folder


def stated(folder):
    """Arguments that load the stand-ins."""
    weights, heads = folder / "squeeze.pth", folder / "heads.pth"
    return {
        "weights": weights,
        "sha256": sha256_of_file(weights),
        "heads": heads,
        "heads_sha256": sha256_of_file(heads),
    }


def random_images(count, size=40, channels=3, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, channels, size, size), dtype=np.uint8)


def slow_lpips(network, heads, first, second):
    """LPIPS 0.1 of two images in [-1, 1], (3,H,W), in float64."""
    shift = torch.tensor([-0.030, -0.088, -0.188], dtype=torch.float64)[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450], dtype=torch.float64)[:, None, None]
    total, maps = 0.0, (torch.stack([first, second]) - shift) / scale
    start = 0
    with torch.no_grad():
        for index, tap in enumerate(TAPS):
            for layer in network.features[start : tap + 1]:
                maps = layer.double()(maps)
            start = tap + 1
            u, v = (m / (m.pow(2).sum(0, keepdim=True).sqrt() + 1e-10) for m in maps)
            weights = heads[f"lin{index}.model.1.weight"].double()[0]
            total += (weights * (u - v) ** 2).sum(0).mean().item()
    return total


def test_lpips_is_the_published_formula(standins):
    network, heads, folder = standins
    extractor = load_extractor("lpips_squeeze", **stated(folder))
    images = random_images(4)
    embedded = extractor.embed(images, batch_size=3)
    assert embedded.dtype == np.float32
    signed = torch.from_numpy(images).double() / 255 * 2 - 1
    for i, j in ((0, 1), (2, 3), (0, 3)):
        expected = slow_lpips(network, heads, signed[i], signed[j])
        assert expected > 0.01
        distance = ((embedded[i] - embedded[j]).astype(float) ** 2).sum()
        assert distance == pytest.approx(expected, rel=1e-4)
    assert best_of_k(embedded[None, :1], embedded[:1])[0] == 0


def test_other_weights_are_named_for_what_they_are(standins):
    _, _, folder = standins
    arguments = stated(folder)
    extractor = load_extractor("lpips_squeeze", **arguments)
    digits = arguments["sha256"][:8], arguments["heads_sha256"][:8]
    assert extractor.name == f"lpips_like_squeeze_{digits[0]}_{digits[1]}"
    assert extractor.resizer == "none"


def test_published_weights_have_the_published_name(standins, cache, monkeypatch):
    _, _, folder = standins
    cards = dict(WEIGHTS)
    for card, file in (("squeeze", "squeeze.pth"), ("squeeze_heads", "heads.pth")):
        digest = sha256_of_file(folder / file)
        cards[card] = WeightsCard(file, digest, "https://example.org")
        (cache / file).write_bytes((folder / file).read_bytes())
    monkeypatch.setattr(extractors, "WEIGHTS", cards)
    extractor = load_extractor("lpips_squeeze")  # found in the cache folder
    assert extractor.name == f"lpips_squeeze_{cards['squeeze'].sha256[:8]}"
    both = (cards["squeeze"].sha256, cards["squeeze_heads"].sha256)
    assert extractor.sha256 == ",".join(both)
    (cache / "squeeze.pth").write_bytes(b"cut short")
    with pytest.raises(
        ConfigurationError, match=r"squeeze\.pth has sha256 .*of the published file"
    ):
        load_extractor("lpips_squeeze")


def test_channel_weights_are_found_in_the_package_without_importing_it(
    standins, tmp_path, monkeypatch
):
    _, _, folder = standins
    weights = tmp_path / "site" / "lpips" / "weights" / "v0.1"
    weights.mkdir(parents=True)
    (tmp_path / "site" / "lpips" / "__init__.py").write_text("raise RuntimeError('imported')")
    (weights / "squeeze.pth").write_bytes((folder / "heads.pth").read_bytes())
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("CONDVAE_CACHE", str(tmp_path / "cache"))
    importlib.invalidate_caches()
    arguments = stated(folder)
    del arguments["heads"]
    extractor = load_extractor("lpips_squeeze", **arguments)
    assert extractor.name.startswith("lpips_like_squeeze_")
    assert "lpips" not in sys.modules


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("inception", "inception"),
        ("lpips_alex", "alex"),
        ("lpips_vgg", "vgg"),
        ("lpips_squeeze", "squeeze"),
    ],
)
def test_a_missing_file_is_named_with_its_hash_and_its_place(name, card, cache):
    with pytest.raises(ConfigurationError) as caught:
        load_extractor(name)
    message = str(caught.value)
    for part in (WEIGHTS[card].file, WEIGHTS[card].sha256, str(cache / WEIGHTS[card].file)):
        assert part in message
    assert WEIGHTS[card].source in message
    with pytest.raises(ConfigurationError, match=r"no file /nowhere/w\.pth"):
        load_extractor(name, "/nowhere/w.pth")


def test_missing_channel_weights_name_the_package(standins, cache):
    _, _, folder = standins
    weights = folder / "squeeze.pth"
    with pytest.raises(ConfigurationError, match="pip install lpips") as caught:
        load_extractor("lpips_squeeze", weights, sha256=sha256_of_file(weights))
    assert WEIGHTS["squeeze_heads"].sha256 in str(caught.value)
    assert str(cache / "lpips-v0.1-squeeze.pth") in str(caught.value)


def test_an_unpublished_hash_is_said_to_be(cache, monkeypatch):
    card = WeightsCard("net.pth", None, "https://example.org/net.pth")
    monkeypatch.setattr(extractors, "WEIGHTS", {**WEIGHTS, "inception": card})
    with pytest.raises(ConfigurationError, match=r"net\.pth \(sha256 not published\)"):
        load_extractor("inception")


@pytest.mark.parametrize("name", ["inception", "lpips_squeeze"])
def test_another_hash_is_refused(name, standins):
    _, _, folder = standins
    weights = folder / "squeeze.pth"
    with pytest.raises(ConfigurationError, match="of the published file; state another") as caught:
        load_extractor(name, weights)
    assert sha256_of_file(weights) in str(caught.value)
    with pytest.raises(ConfigurationError, match=r"expected 0000.* \(as stated\)"):
        load_extractor(name, weights, sha256="0" * 64)


def test_hashes_agree_with_the_published_file_names():
    for card in ("inception", "alex", "vgg", "squeeze"):
        stem = Path(WEIGHTS[card].file).stem  # ends in the first digits of the sha256
        assert WEIGHTS[card].sha256.startswith(stem.rpartition("-")[2])
    assert all(len(card.sha256) == 64 for card in WEIGHTS.values())


def test_nothing_is_fetched(standins, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("asked for a download")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setattr("requests.Session.request", refuse)
    for name in ("inception", "lpips_alex"):
        with pytest.raises(ConfigurationError, match="there is no file"):
            load_extractor(name)
    load_extractor("lpips_squeeze", **stated(standins[2])).embed(random_images(1))


def test_feature_network_gives_features_and_distances(trained, digits, tmp_path):
    network, card = trained
    save_feature_network(tmp_path / "net", network, card)
    extractor = load_extractor("feature_network", tmp_path / "net")
    assert extractor.name == f"digits_classifier_f32_{card.sha256[:8]}"
    assert extractor.sha256 == card.sha256
    images = digits[1][0][:20]
    np.testing.assert_array_equal(
        extractor.features(images), extract_features(network, images, 64)["features"]
    )
    layers = ("block1", "block2", "block3")
    np.testing.assert_allclose(
        extractor.embed(images, batch_size=7),
        perceptual_embedding(extract_features(network, images, layers=layers)),
        rtol=1e-4,
        atol=1e-5,
    )


def test_registered_extractors():
    def build(weights, device):
        network = FeatureNetwork(1, 2, features=3).eval().to(device)
        return Extractor(f"mine_{weights}", "none", network, feature_layer="features")

    before = extractor_names()
    register_extractor("mine", build)
    try:
        assert extractor_names() == (*before, "mine")
        extractor = load_extractor("mine", "w.pth")
        assert extractor.name == "mine_w.pth"
        assert extractor.features(random_images(2, 8, 1)).shape == (2, 3)
        with pytest.raises(ConfigurationError, match="gives features only"):
            extractor.embed(random_images(2, 8, 1))
        with pytest.raises(ConfigurationError, match=r"sha256 = 'a'.*mine does not take it"):
            load_extractor("mine", sha256="a")
    finally:
        del extractors._registered["mine"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: load_extractor("lpips_squeez"), "did you mean 'lpips_squeeze'"),
        (lambda f: register_extractor("inception", None), "'inception' is built in"),
        (lambda f: load_extractor("feature_network"), "expects the folder"),
        (lambda f: load_extractor("inception", heads="h.pth"), "inception does not take it"),
        (lambda f: Extractor("a/b", "none", torch.nn.Identity()), "extractor name 'a/b'"),
        (lambda f: f.features(random_images(1)), "gives perceptual distances only"),
        (lambda f: f.embed(random_images(1), batch_size=0), "batch_size = 0"),
        (lambda f: f.embed(random_images(1)[:0]), "no images"),
        (lambda f: f.embed(random_images(1, size=16)), "at least 17 a side"),
    ],
)
def test_bad_arguments_are_refused(call, message, standins):
    extractor = load_extractor("lpips_squeeze", **stated(standins[2]))
    with pytest.raises(ConfigurationError, match=message):
        call(extractor)


@pytest.mark.shared
def test_published_channel_weights_on_another_backbone_are_lpips_like(shared_folder):
    folder = shared_folder / "weights"
    weights = folder / "squeezenet_caffe" / "squeezenet1_1_caffe_features_torch.pth"
    heads = folder / "lpips_heads" / "squeeze.pth"
    extractor = load_extractor(
        "lpips_squeeze", weights, sha256=sha256_of_file(weights), heads=heads
    )
    assert extractor.name == "lpips_like_squeeze_3818a261_4a5350f2"
    network = torchvision.models.squeezenet1_1(weights=None)
    network.load_state_dict(torch.load(weights, weights_only=True), strict=False)
    images = random_images(2, 64)
    first, second = torch.from_numpy(images).double() / 255 * 2 - 1
    embedded = extractor.embed(images)
    published = torch.load(heads, map_location="cpu", weights_only=True)
    expected = slow_lpips(network, published, first, second)
    assert ((embedded[0] - embedded[1]) ** 2).sum() == pytest.approx(expected, rel=1e-4)


def test_published_distances(monkeypatch):
    # The example of the documentation of torchmetrics, images rounded to 256 levels.
    monkeypatch.undo()
    try:
        extractor = load_extractor("lpips_squeeze")
    except ConfigurationError as error:
        pytest.skip(str(error))
    generator = torch.Generator().manual_seed(42)
    first, second = (torch.rand(2, 3, 100, 100, generator=generator) for _ in range(2))
    a, b = (extractor.embed((x * 255).round().to(torch.uint8)) for x in (first, second))
    np.testing.assert_allclose(((a - b) ** 2).sum(1), [0.1024, 0.0938], atol=1e-3)
