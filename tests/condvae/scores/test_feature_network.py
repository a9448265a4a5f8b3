from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from condvae.ground.configuration import ConfigurationError
from condvae.scores.extraction import extract_features
from condvae.scores.feature_network import (
    LAYERS,
    FeatureNetwork,
    load_feature_network,
    save_feature_network,
    train_feature_network,
)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_digits_are_recognised(trained, digits):
    network, card = trained
    images, labels = digits[1]
    logits = extract_features(network, images, layers=("logits",))["logits"]
    accuracy = float((logits.argmax(1) == labels.numpy()).mean())
    assert accuracy >= 0.97
    assert card.accuracy == pytest.approx(accuracy)
    assert (card.extractor, card.task) == ("digits_classifier_f32", "classifier")
    assert (card.images, card.held_out, card.classes, card.features) == (1257, 360, 10, 32)


def test_classes_of_held_out_images_alone_count_too(digits):
    (images, labels), (test_images, test_labels) = digits
    few = labels < 7
    network, card = train_feature_network(
        images[few][:40],
        labels[few][:40],
        name="digits",
        features=4,
        epochs=1,
        held_out=(test_images, test_labels),
    )
    assert card.classes == 10
    assert network(test_images[:2])["logits"].shape == (2, 10)


def test_rotations_are_learned_without_labels(digits):
    (images, _), (test_images, _) = digits
    network, card = train_feature_network(
        images, None, name="digits", features=8, epochs=3, held_out=(test_images, None)
    )
    assert card.extractor == "digits_rotation_f8"
    assert card.classes == 4
    assert card.accuracy > 0.7  # chance is 0.25; 0, 1 and 8 look alike upside down
    upside_down = torch.rot90(test_images, 2, (2, 3))
    predicted = extract_features(network, upside_down, layers=("logits",))["logits"].argmax(1)
    assert np.bincount(predicted, minlength=4).argmax() == 2


def test_the_seed_fixes_the_weights(digits):
    images, labels = digits[0][0][:100], digits[0][1][:100]
    state = torch.get_rng_state()
    cards = [
        train_feature_network(images, labels, name="d", epochs=1, seed=seed)[1]
        for seed in (3, 3, 4)
    ]
    assert torch.equal(state, torch.get_rng_state())  # global randomness is neither used nor moved
    assert cards[0].sha256 == cards[1].sha256
    assert cards[0].sha256 != cards[2].sha256
    assert cards[0].accuracy is None


def test_progress_is_told_after_each_epoch(digits):
    calls = []
    images, labels = digits[0][0][:64], digits[0][1][:64]
    train_feature_network(
        images, labels, name="d", epochs=3, progress=lambda *values: calls.append(values)
    )
    assert [call[:2] for call in calls] == [(1, 3), (2, 3), (3, 3)]
    assert calls[-1][2] < calls[0][2]


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 8, 8), (3, 16, 16), (3, 50, 33)])
def test_layers_at_any_size(channels, height, width):
    network = FeatureNetwork(channels, classes=7, features=12).eval()
    images = torch.randint(0, 256, (2, channels, height, width), dtype=torch.uint8)
    output = network(images)
    assert tuple(output) == LAYERS
    assert output["block1"].shape == (2, 16, height, width)
    assert output["block2"].shape == (2, 32, height // 2, width // 2)
    assert output["block3"].shape == (2, 64, height // 4, width // 4)
    assert output["features"].shape == (2, 12)
    assert output["logits"].shape == (2, 7)
    assert output["block3"].min() >= 0


def test_every_parameter_is_used():
    network = FeatureNetwork(1, classes=3, features=5)
    images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
    network(images)["logits"].square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize("batch_size", [1, 7, 360, 1000])
def test_features_do_not_depend_on_the_batch(trained, digits, batch_size):
    network, _ = trained
    images = digits[1][0]
    whole = extract_features(network, images, 100, LAYERS)
    parts = extract_features(network, images.numpy(), batch_size, LAYERS)
    assert tuple(parts) == LAYERS
    for layer in LAYERS:
        assert parts[layer].dtype == np.float32
        np.testing.assert_allclose(parts[layer], whole[layer], atol=1e-4)


def test_features_keep_the_order(trained, digits):
    network, _ = trained
    images = digits[1][0][:50]
    order = np.random.default_rng(0).permutation(50)
    straight = extract_features(network, images)["features"]
    mixed = extract_features(network, images[order], 16)["features"]
    np.testing.assert_allclose(mixed, straight[order], atol=1e-4)


def test_a_saved_network_comes_back(trained, digits, tmp_path):
    network, card = trained
    save_feature_network(tmp_path / "net", network, card)
    loaded, loaded_card = load_feature_network(tmp_path / "net")
    assert loaded_card == card
    images = digits[1][0][:20]
    for layer, values in extract_features(loaded, images, layers=LAYERS).items():
        np.testing.assert_array_equal(
            values, extract_features(network, images, layers=LAYERS)[layer]
        )


def test_changed_files_are_refused(trained, tmp_path):
    network, card = trained
    with pytest.raises(ConfigurationError, match=r"card\.json: no such file"):
        load_feature_network(tmp_path)
    with pytest.raises(ConfigurationError, match="their card says 00"):
        save_feature_network(tmp_path, network, dataclasses.replace(card, sha256="00"))
    save_feature_network(tmp_path, network, card)
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"expected {card.sha256}"):
        load_feature_network(tmp_path)
    values = json.loads((tmp_path / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps(values | {"colour": 1}))
    with pytest.raises(ConfigurationError, match="colour"):
        load_feature_network(tmp_path)


def blank(*shape):
    return torch.zeros(shape, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: FeatureNetwork(1, 2, 33), "features = 33: expected 1 to 32"),
        (lambda: FeatureNetwork(1, 2)(torch.zeros(1, 1, 8, 8)), "float32"),
        (lambda: FeatureNetwork(1, 2)(blank(1, 3, 8, 8)), "expects 1 channels"),
        (lambda: FeatureNetwork(1, 2)(blank(1, 1, 7, 8)), "at least 8 pixels"),
        (
            lambda: train_feature_network(blank(4, 1, 8, 9), None, name="d"),
            "8 x 9 pixels: .*square",
        ),
        (
            lambda: train_feature_network(blank(4, 1, 8, 8), torch.zeros(3).long(), name="d"),
            r"labels of type torch.int64 and shape \(3,\)",
        ),
        (lambda: train_feature_network(blank(4, 8, 8), None, name="d"), r"shape \(4, 8, 8\)"),
        (lambda: train_feature_network(blank(4, 1, 8, 8), None, name="d", epochs=0), "epochs = 0"),
        (
            lambda: train_feature_network(
                blank(4, 1, 8, 8),
                None,
                name="d",
                held_out=(blank(4, 1, 8, 8), torch.zeros(4).long()),
            ),
            "expected both or none",
        ),
        (lambda: extract_features(FeatureNetwork(1, 2), blank(2, 1, 8, 8)), "training mode"),
        (lambda: extract_features(FeatureNetwork(1, 2).eval(), blank(0, 1, 8, 8)), "no images"),
        (
            lambda: extract_features(FeatureNetwork(1, 2), blank(2, 1, 8, 8), layers=("feature",)),
            "did you mean 'features'",
        ),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ConfigurationError, match=message):
        call()
