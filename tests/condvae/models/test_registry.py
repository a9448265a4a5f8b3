from __future__ import annotations

import math
from dataclasses import astuple

import pytest
import yaml

from condvae.ground.configuration import ConfigurationError
from condvae.models import registry as cards
from condvae.models.presets import PRESETS
from condvae.models.registry import card_named, read_cards

PUBLISHED = {name: card for name, card in read_cards().items() if name.startswith("vdvae-")}
EFFICIENT = {n: card for n, card in read_cards().items() if n.startswith("efficient-vdvae-")}
ENTRY = {
    "kind": "vae",
    "description": "A test.",
    "host": "https://host/prefix",
    "path": "folder/model-ema.th",
    "preset": "cifar10",
    "data_contract": {"channels": 3, "size": 32, "mean": 120.0, "std": 64.0},
    "licence": "MIT",
}


@pytest.fixture
def write_card(tmp_path, monkeypatch):
    def write(**changes):
        text = yaml.safe_dump({"model": {**ENTRY, **changes}})
        (tmp_path / "cards.yaml").write_text(text)
        monkeypatch.setattr(cards, "files", lambda _: tmp_path)

    return write


def test_there_is_a_card_for_every_published_checkpoint():
    ends = {
        "cifar10-seed0-iter-900000-model-ema.th": 2,
        "cifar10-seed1-iter-1050000-model-ema.th": 2,
        "cifar10-seed2-iter-650000-model-ema.th": 2,
        "cifar10-seed3-iter-1050000-model-ema.th": 2,
        "imagenet32-iter-1700000-model-ema.th": 1,
        "imagenet32-iter-1700000-model.th": 1,
        "imagenet64-iter-1600000-model-ema.th": 2,
        "imagenet64-iter-1600000-model.th": 2,
        "ffhq256-iter-1700000-model-ema.th": 1,
        "ffhq256-iter-1700000-model.th": 1,
        "ffhq1024-iter-1700000-model-ema.th": 1,
        "ffhq1024-iter-1700000-model.th": 1,
    }
    base = "https://openaipublic.blob.core.windows.net/very-deep-vaes-assets/vdvae-assets"
    expected = {f"{base}{'-2' if n == 2 else ''}/{end}" for end, n in ends.items()}
    assert {card.address for card in PUBLISHED.values()} == expected
    assert {card.file_name for card in PUBLISHED.values()} == set(ends)
    assert all(card.sha256 is None for card in PUBLISHED.values())


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("vdvae-cifar10-seed0", 2.879),
        ("vdvae-cifar10-seed1", 2.842),
        ("vdvae-cifar10-seed2", 2.898),
        ("vdvae-cifar10-seed3", 2.864),
        ("vdvae-imagenet32", 2.6364 / math.log(2)),
        ("vdvae-imagenet64", 2.44 / math.log(2)),
        ("vdvae-ffhq256", 0.4232 / math.log(2)),
        ("vdvae-ffhq1024", 1.678 / math.log(2)),
    ],
)
def test_published_scores(name, bits):
    assert card_named(name).expected_bits_per_dim == pytest.approx(bits, abs=5e-4)


@pytest.mark.parametrize(
    ("end", "size", "bits"),
    [("celebA64", 64, 1.83), ("imagenet32", 32, 3.58), ("imagenet64", 64, 3.30)],
)
def test_cards_of_efficient_vdvae(end, size, bits):
    card = card_named(f"efficient-vdvae-{end.lower()}")
    host = "https://storage.googleapis.com/dessa-public-files/efficient_vdvae/Pytorch"
    assert card.address == f"{host}/{end}_baseline_checkpoints.zip"
    assert astuple(card.data_contract) == (3, size, 127.5, 127.5, 8)
    assert card.expected_bits_per_dim == bits
    assert card.licence.startswith("MIT ")
    assert card.sha256 is None


def test_only_averaged_weights_have_a_score():
    for card in PUBLISHED.values():
        assert (card.expected_bits_per_dim is not None) == card.file_name.endswith("-ema.th")
        assert (card.scored_on is not None) == (card.expected_bits_per_dim is not None)


@pytest.mark.parametrize(
    ("preset", "contract"),
    [
        ("cifar10", (3, 32, 120.63838, 64.16736, 8)),
        ("imagenet32", (3, 32, 116.2373, 69.37404, 8)),
        ("imagenet64", (3, 64, 115.92961967, 69.37404, 8)),
        ("ffhq256", (3, 256, 112.8666757481, 69.84780273, 5)),
        ("ffhq1024", (3, 1024, 255 * 0.4387, 255 * 0.2743, 8)),
    ],
)
def test_data_contracts(preset, contract):
    found = [c.data_contract for c in PUBLISHED.values() if c.preset == preset]
    assert found
    for one in found:
        values = (one.channels, one.size, one.mean, one.std, one.bits)
        assert values == pytest.approx(contract, rel=1e-12)


def test_cards_agree_with_the_presets():
    both = PUBLISHED | EFFICIENT
    assert set(both) == {name for name, card in read_cards().items() if card.folder is None}
    assert {card.preset for card in both.values()} == set(PRESETS)
    for card in both.values():
        expected = astuple(PRESETS[card.preset].contract)
        assert astuple(card.data_contract) == pytest.approx(expected, rel=1e-12)


def test_only_ffhq1024_is_known_not_to_fit():
    found = {name for name, card in PUBLISHED.items() if card.known_mismatch is not None}
    assert found == {"vdvae-ffhq1024", "vdvae-ffhq1024-raw"}
    assert "issue 3" in card_named("vdvae-ffhq1024").known_mismatch


def test_address_and_file_name(write_card):
    write_card()
    card = card_named("model")
    assert card.address == "https://host/prefix/folder/model-ema.th"
    assert card.file_name == "model-ema.th"
    assert card.sha256 is None


def test_unknown_name_is_refused_with_those_known():
    with pytest.raises(
        ConfigurationError, match=r"vdvae-cifar10-seed9.*did you mean 'vdvae-cifar10"
    ):
        card_named("vdvae-cifar10-seed9")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "gan"}, r"model\.kind = 'gan': expected one of vae, posterior"),
        ({"sha256": "abc"}, r"model\.sha256 = 'abc': expected 64 hexadecimal digits"),
        ({"sha256": "A" * 64}, r"sha256 = 'A+': expected 64"),
        ({"host": None}, r"model\.host = None: a published checkpoint needs it"),
        ({"path": None}, r"model\.path = None"),
        ({"preset": None}, r"model\.preset = None"),
        ({"data_contract": None}, r"model\.data_contract = None"),
        ({"licence": None}, r"model\.licence = None"),
        ({"megabytes": 0}, r"model\.megabytes = 0: expected > 0"),
        ({"expected_bits_per_dim": -1.0}, r"model\.expected_bits_per_dim = -1\.0: expected > 0"),
        ({"folder": "bundled/x"}, r"model\.sha256 = None: a model of the package needs its hash"),
        ({"folder": "bundled/x", "sha256": "0" * 64}, r"model\.folder and host or path"),
        ({"data_contract": {"channels": 2}}, r"missing parameter model\.data_contract\.size"),
        ({"adress": "x"}, r"unknown parameter model\.adress"),
    ],
)
def test_wrong_cards_are_refused(write_card, change, message):
    write_card(**change)
    with pytest.raises(ConfigurationError, match=message):
        read_cards()
