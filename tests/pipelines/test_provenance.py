"""A model that may have seen test images is named in a warning; others pass in silence."""

from __future__ import annotations

import pytest

from pipelines.provenance import warn_of_seen_images

STORE = {"name": "digits", "fingerprint": "a" * 64}


@pytest.mark.parametrize(
    ("card", "warned"),
    [
        ({"name": "digits", "weights_source": {"data": "b" * 64}}, True),
        ({"name": "digits", "weights_source": {"data": "a" * 64}}, False),
        ({"name": "fashion_mnist", "weights_source": {"data": "b" * 64}}, False),
        ({"weights_source": None}, False),
    ],
)
def test_only_another_split_of_the_same_data_warns(card, warned, caplog):
    warn_of_seen_images("VAE digits", card, STORE)
    assert ("the VAE digits was trained on digits with another" in caplog.text) == warned
