"""A model that may have seen test images is named in a warning; others pass in silence."""

from __future__ import annotations

import pytest

from pipelines.runs.provenance import warn_of_seen_images

A, B, C = (letter * 64 for letter in "abc")
STORE = {"name": "digits", "fingerprint": A, "images_sha256": C}
EITHER = "other images, or on the same ones split in another way,"


@pytest.mark.parametrize(
    ("card", "cause"),
    [
        ({"name": "digits", "weights_source": {"data": B}}, EITHER),
        ({"name": "digits", "weights_source": {"data": A}}, None),
        ({"name": "fashion_mnist", "weights_source": {"data": B}}, None),
        ({"weights_source": None}, None),
        (
            {
                **{"name": "digits", "weights_source": {"data": B}},
                "data": {"fingerprint": B, "images_sha256": C},
            },
            "these very images, split or labelled in another way,",
        ),
        (
            {
                **{"name": "digits", "weights_source": {"data": B}},
                "data": {"fingerprint": B, "images_sha256": A},
            },
            "other images than these",
        ),
        # Its own images are these; what it began with has seen others.
        (
            {
                "name": "digits",
                "weights_source": {
                    **{"data": A},
                    "start": {"trained_on": [{"name": "digits", "fingerprint": B}]},
                },
                "data": {"fingerprint": A, "images_sha256": C},
            },
            EITHER,
        ),
    ],
)
def test_only_other_images_of_the_same_name_warn_and_the_cause_is_the_one_that_is_known(
    card, cause, caplog
):
    warn_of_seen_images("VAE digits", card, STORE)
    said = f"the VAE digits was trained on {cause} under the name digits: it may have seen images"
    assert (said in caplog.text) if cause else not caplog.text
