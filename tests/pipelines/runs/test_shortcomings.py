"""What makes a model a trial is read from its card, whatever it is called."""

from __future__ import annotations

import pytest

from condvae.models import find_model
from condvae.models.folder import read_card
from condvae.models.registry import read_cards
from pipelines.runs.shortcomings import list_shortcomings


def make_card(steps=100, vae="digits", **more):
    return {
        "weights_source": {"training": {"steps": steps, "batch_size": 8}},
        **{"data": {"images": {"train": 80, "test": 20}}, "vae": vae, **more},
    }


@pytest.mark.parametrize(
    ("card", "said"),
    [
        (make_card(10), []),
        (make_card(9), ["its 9 steps of 8 images show it fewer than the 80 it is trained on"]),
        (make_card(vae_shortcomings=["it is small"]), ["its VAE: it is small"]),
        # The VAE is judged by what is known of it, its name only where nothing is.
        (make_card(vae="random", vae_shortcomings=[]), []),
        (make_card(vae="random"), ["its VAE: it was never trained"]),
        ({"weights_source": None}, ["it was never trained"]),
        ({"weights_source": {"training": {"steps": 1, "batch_size": 1}}}, []),
        ({"weights_source": "https://example.org/vae.th"}, []),
        ({}, []),
    ],
)
def test_shortcomings_are_those_of_the_training(card, said):
    assert list_shortcomings(card) == said


def test_a_joint_objective_trains_its_random_vae():
    card = make_card(vae="random")
    card["weights_source"]["objective"] = {"name": "joint"}
    assert list_shortcomings(card) == []


def test_models_of_the_package_are_no_trials():
    bundled = [name for name, card in read_cards().items() if card.folder is not None]
    assert bundled
    for name in bundled:
        assert list_shortcomings(read_card(find_model(name))) == []
