"""An attribute classifier on real digits: what it reads, what it ignores, and its folder."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from condvae.ground.attributes import Attribute
from condvae.ground.configuration import ConfigurationError
from condvae.scores import attribute_classifier
from condvae.scores.attribute_classifier import (
    AttributeNetwork,
    load_attribute_classifier,
    predict_attributes,
    save_attribute_classifier,
    train_attribute_classifier,
)

ATTRIBUTES = (
    Attribute("class", tuple("0123456789")),
    Attribute("odd", ("no", "yes")),
    Attribute("ink", ()),
)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def conditions(images, labels):
    """Class, whether it is odd, and standardised mean of the pixels."""
    ink = (images.float().mean((1, 2, 3)) - 77) / 11
    return torch.stack([labels.float(), labels.float() % 2, ink], dim=1)


@pytest.fixture(scope="module")
def judge(digits):
    torch.set_num_threads(1)
    train, test = (conditions(*part) for part in digits)
    generator = torch.Generator().manual_seed(0)
    train[torch.rand(train.shape, generator=generator) < 0.2] = float("nan")
    return train_attribute_classifier(
        digits[0][0],
        train,
        ATTRIBUTES,
        name="digits",
        epochs=5,
        held_out=(digits[1][0], test),
    )


def test_attributes_are_read_off_images_with_a_fifth_of_them_unknown(judge, digits):
    network, card = judge
    images, labels = digits[1]
    found = predict_attributes(network, images)
    assert found.features.shape == (360, 32)
    y = conditions(images, labels).numpy()
    for place, name in enumerate(("class", "odd")):
        accuracy = (found.values[:, place] == y[:, place]).mean()
        assert accuracy >= 0.95
        assert card.ceiling[name] == pytest.approx(accuracy)
    error = np.sqrt(np.square(found.values[:, 2] - y[:, 2]).mean())
    assert error < 0.5 * y[:, 2].std()
    assert card.ceiling["ink"] == pytest.approx(error)
    assert (card.extractor, card.held_out) == ("digits_attributes_f32", 360)


def test_probabilities_belong_to_values(judge, digits):
    found = predict_attributes(judge[0], digits[1][0], batch_size=100)
    assert found.probabilities[2] is None
    for place, count in enumerate((10, 2)):
        table = found.probabilities[place]
        assert table.shape == (360, count)
        np.testing.assert_allclose(table.sum(axis=1), 1)
        np.testing.assert_array_equal(table.argmax(axis=1), found.values[:, place])
    again = predict_attributes(judge[0], digits[1][0], batch_size=7)
    np.testing.assert_allclose(again.features, found.features, atol=1e-5)


def test_loss_is_a_sum_over_heads_that_leaves_unknown_values_out():
    network = AttributeNetwork(ATTRIBUTES, 1, 4)
    logits = torch.randn(5, 13, generator=torch.Generator().manual_seed(0), requires_grad=True)
    y = torch.tensor(
        [[3, 1, 0.5], [7, 0, float("nan")], [0, float("nan"), 1], [1, 1, 1], [2, 0, 0]]
    )
    expected = (
        F.cross_entropy(logits[:, :10], y[:, 0].long(), label_smoothing=0.1)
        + F.cross_entropy(
            logits[[0, 1, 3, 4], 10:12], torch.tensor([1, 0, 1, 0]), label_smoothing=0.1
        )
        + ((logits[[0, 2, 3, 4], 12] - torch.tensor([0.5, 1, 1, 0])) ** 2).mean() / 2
    )
    loss = network.loss(logits, y)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert (logits.grad[2, 10:12] == 0).all()
    assert logits.grad[1, 12] == 0
    nothing = network.loss(logits, torch.full((5, 3), float("nan")))
    assert nothing == 0
    assert nothing.requires_grad


def test_shifts_repeat_the_border():
    """Moved images are filled up with their own border, never with black."""
    images = torch.randint(100, 200, (3, 1, 8, 8), dtype=torch.uint8)
    generator, places = torch.Generator().manual_seed(0), set()
    for _ in range(200):
        moved = attribute_classifier._shift(images, generator)
        assert moved.dtype == torch.uint8
        assert moved.min() >= 100
        # What is not border has only been moved, the same way in all images of a batch.
        found = [
            (down, right)
            for down in range(5)
            for right in range(5)
            if torch.equal(
                moved[:, :, max(2 - down, 0) : 10 - down, max(2 - right, 0) : 10 - right],
                images[:, :, max(down - 2, 0) : 6 + down, max(right - 2, 0) : 6 + right],
            )
        ]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) == 25


def test_the_seed_fixes_the_weights(digits):
    images, y = digits[0][0][:80], conditions(digits[0][0][:80], digits[0][1][:80])
    state = torch.get_rng_state()
    calls = []
    cards = [
        train_attribute_classifier(
            images,
            y,
            ATTRIBUTES,
            name="d",
            epochs=2,
            seed=seed,
            progress=lambda *values: calls.append(values),
        )[1]
        for seed in (3, 3, 4)
    ]
    assert torch.equal(state, torch.get_rng_state())
    assert cards[0].sha256 == cards[1].sha256 != cards[2].sha256
    assert cards[0].ceiling == {}
    assert [call[:2] for call in calls[:2]] == [(1, 2), (2, 2)]


def test_a_folder_keeps_it_and_tells_when_it_was_changed(judge, digits, tmp_path):
    network, card = judge
    save_attribute_classifier(tmp_path, network, card)
    loaded, read = load_attribute_classifier(tmp_path)
    assert read == card
    assert loaded.attributes == ATTRIBUTES
    assert not loaded.training
    images = digits[1][0][:9]
    for layer, values in network(images).items():
        assert torch.equal(values, loaded(images)[layer])
    with pytest.raises(ConfigurationError, match="their card says"):
        save_attribute_classifier(tmp_path, network, dataclasses.replace(card, sha256="0"))
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"model.safetensors: sha256 is"):
        load_attribute_classifier(tmp_path)
    values = json.loads((tmp_path / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps(values | {"colour": 1}))
    with pytest.raises(ConfigurationError, match=r"unknown parameter .*colour"):
        load_attribute_classifier(tmp_path)
    (tmp_path / "card.json").write_text("{")
    with pytest.raises(ConfigurationError, match="not JSON"):
        load_attribute_classifier(tmp_path)
    (tmp_path / "card.json").unlink()
    with pytest.raises(ConfigurationError, match="no such file"):
        load_attribute_classifier(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(4, 1, 8, 8)}, "images of type torch.float32"),
        ({"y": torch.zeros(3, 3)}, "4 images and 3 conditions y"),
        ({"y": torch.zeros(4, 2)}, r"shape \(4, 2\)"),
        ({"y": torch.full((4, 3), 2.0)}, "'odd' of condition 0 = 2.0"),
        ({"attributes": (), "y": torch.zeros(4, 0)}, "expected at least one"),
        ({"epochs": 0}, "epochs = 0"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    arguments = {
        "images": torch.zeros(4, 1, 8, 8, dtype=torch.uint8),
        "y": torch.zeros(4, 3),
        "attributes": ATTRIBUTES,
        "name": "d",
    } | changes
    with pytest.raises(ConfigurationError, match=message):
        train_attribute_classifier(**arguments)
