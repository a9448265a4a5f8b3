from __future__ import annotations

import dataclasses

import pytest
import torch

from condvae.ground.configuration import ConfigurationError, read_config
from condvae.ground.images import DataContract
from condvae.ipa import PartialEncoder
from condvae.models import find_model
from condvae.models.folder import read_card
from condvae.vdvae import ARCHITECTURES, VDVAE, Architecture, architecture_named
from condvae.vdvae.architecture import DecoderBlockSpec, EncoderBlockSpec

# Published hyper-parameters (Child 2020); groups, latent dimensions and parameters in millions were
# counted from them by hand and agree with the published totals.
PUBLISHED = {
    "cifar10": {
        "image_size": 32,
        "width": 384,
        "decoder": "1x1,4m1,4x2,8m4,8x5,16m8,16x10,32m16,32x21",
        "encoder": "32x11,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x3",
        "facts": (43, 412_432, 39.15, 17.80),
    },
    "imagenet32": {
        "image_size": 32,
        "width": 512,
        "decoder": "1x2,4m1,4x4,8m4,8x9,16m8,16x19,32m16,32x40",
        "encoder": "32x15,32d2,16x9,16d2,8x8,8d2,4x6,4d4,1x6",
        "facts": (78, 765_216, 119.28, 51.99),
    },
    "imagenet64": {
        "image_size": 64,
        "width": 512,
        "decoder": "1x2,4m1,4x3,8m4,8x7,16m8,16x15,32m16,32x31,64m32,64x12",
        "encoder": "64x11,64d2,32x20,32d2,16x9,16d2,8x8,8d2,4x7,4d4,1x5",
        "facts": (75, 1_451_040, 125.01, 58.22),
    },
    "ffhq256": {
        "image_size": 256,
        "width": 512,
        "decoder": "1x2,4m1,4x3,8m4,8x4,16m8,16x9,32m16,32x21,64m32,64x13,128m64,128x7,256m128",
        "encoder": "256x3,256d2,128x8,128d2,64x12,64d2,32x17,32d2,16x7,16d2,8x5,8d2,4x5,4d4,1x4",
        "facts": (66, 4_470_816, 114.87, 55.89),
    },
}
FFHQ1024 = {
    "image_size": 1024,
    "channels": 3,
    "width": 16,
    "latent_channels": 16,
    "mixtures": 2,
    "widths": "512:32,256:64,128:512,64:512,32:512,16:512,8:512,4:512,1:512",
    "decoder": "1x2,4m1,4x3,8m4,8x4,16m8,16x9,32m16,32x20,64m32,64x14,128m64,128x7,256m128,256x2,"
    "512m256,1024m512",
    "encoder": "1024x1,1024d2,512x3,512d2,256x5,256d2,128x7,128d2,64x10,64d2,32x14,32d2,16x7,16d2,"
    "8x5,8d2,4x5,4d4,1x4",
}


def tiny(**changes):
    return dataclasses.replace(ARCHITECTURES["tiny16"], **changes)


def test_items_become_blocks():
    architecture = tiny(
        encoder="16x2,16d2,8d2,4x1,4d4, 1x1", decoder="1x2,4m1, 8m4,8x1,16m8", bias_up_to=1
    )
    assert architecture.encoder_blocks == (
        EncoderBlockSpec(16, None),
        EncoderBlockSpec(16, None),
        EncoderBlockSpec(16, 2),
        EncoderBlockSpec(8, 2),
        EncoderBlockSpec(4, None),
        EncoderBlockSpec(4, 4),
        EncoderBlockSpec(1, None),
    )
    assert architecture.decoder_blocks == (
        DecoderBlockSpec(1, None),
        DecoderBlockSpec(1, None),
        DecoderBlockSpec(4, 1),
        DecoderBlockSpec(8, 4),
        DecoderBlockSpec(8, None),
        DecoderBlockSpec(16, 8),
    )
    assert architecture.latent_dimensions == 2 * (1 + 1 + 16 + 64 + 64 + 256)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_architectures(name):
    values = dict(PUBLISHED[name])
    groups, latents, millions, partial_millions = values.pop("facts")
    architecture = Architecture(channels=3, latent_channels=16, **values)
    assert len(architecture.decoder_blocks) == groups
    assert architecture.latent_dimensions == latents
    with torch.device("meta"):
        vae = VDVAE(architecture, DataContract(3, architecture.image_size, 0.0, 1.0))
        partial = PartialEncoder(vae, 4)
    count, partial_count = (sum(p.numel() for p in m.parameters()) for m in (vae, partial))
    assert count / 1e6 == pytest.approx(millions, abs=0.005)
    assert partial_count / 1e6 == pytest.approx(partial_millions, abs=0.005)


def test_widths_of_the_largest_published_architecture():
    architecture = Architecture(**FFHQ1024)
    assert len(architecture.decoder_blocks) == 70
    assert architecture.latent_dimensions / 1e6 == pytest.approx(27.6, abs=0.05)
    widths = [architecture.width_at(r) for r in (1024, 512, 256, 128, 4, 1)]
    assert widths == [16, 32, 64, 512, 512, 512]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": ""}, r"encoder = '': '' is not of the form RxN or RdN"),
        ({"encoder": "16x1,"}, r"encoder = '16x1,': '' is not"),
        ({"encoder": "16x0"}, r"'16x0' is not of the form"),
        ({"encoder": "016x1"}, r"'016x1' is not of the form"),
        ({"encoder": "16m1"}, r"'16m1' is not of the form RxN or RdN"),
        ({"encoder": "16x1;8x1"}, r"'16x1;8x1' is not of the form"),
        ({"encoder": "16"}, r"'16' is not of the form"),
        ({"encoder": "-16x1"}, r"'-16x1' is not of the form"),
        ({"encoder": "8x1"}, r"encoder = '8x1': a block at 8 where the activations have size 16"),
        ({"encoder": "16x1,8x1"}, r"a block at 8 where the activations have size 16"),
        ({"encoder": "16d2,16x1"}, r"a block at 16 where the activations have size 8"),
        ({"encoder": "16d3"}, r"cannot pool 16 by 3"),
        ({"encoder": "16d1"}, r"cannot pool 16 by 1"),
        ({"encoder": "16x1,16d2,8x1"}, r"decoder = '1x1,4m1,8m4,16m8': the encoder has no .* at 1"),
        ({"decoder": "1d2"}, r"decoder = '1d2': '1d2' is not of the form RxN or RmN"),
        ({"decoder": "1x1,4 m1"}, r"'4 m1' is not of the form"),
        ({"decoder": "2x1,16m2"}, r"the encoder has no activations at 2"),
        ({"decoder": "4m1,16m4"}, r"4m1 before any block at 1"),
        ({"decoder": "1x1,8m1,4m8,16m4"}, r"8 does not divide 4"),
        (
            {"decoder": "1x1,4m1,8x1,16m8", "bias_up_to": 4},
            r"the first block at 8 needs a mixin \(no bias above 4",
        ),
        ({"decoder": "1x1,4m1,8m4"}, r"ends at 8, images have size 16"),
        ({"image_size": 32}, r"a block at 16 where the activations have size 32"),
        ({"widths": "8"}, r"widths = '8': '8' is not RESOLUTION:WIDTH"),
        ({"widths": "8:16,4=16"}, r"'4=16' is not RESOLUTION:WIDTH"),
        ({"widths": "8:8"}, r"widths = '8:8' with width = 16: .* expected none smaller"),
        ({"widths": "16:32"}, r"widths = '16:32' with width = 16: .* expected none smaller"),
        ({"width": 3}, r"bottleneck = 0\.25: leaves no channel of a width of 3"),
        ({"width": 0}, r"width = 0: expected > 0"),
        ({"latent_channels": 0}, r"latent_channels = 0: expected > 0"),
        ({"bottleneck": 0.0}, r"bottleneck = 0\.0: expected > 0"),
        ({"mixtures": -1}, r"mixtures = -1: expected > 0"),
        ({"image_size": 0}, r"image_size = 0: expected > 0"),
        ({"latent_std": "elu"}, r"latent_std = 'elu': expected one of exp, softplus"),
    ],
)
def test_malformed_architectures_are_refused_by_name(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        tiny(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"widths": "8:24,4:32,1:32"},
        {"bias_up_to": 1},
        {"bias_up_to": 0, "decoder": "1x1,4m1,8m4,16m8"},
        {"encoder": "16d2,8d2,4d4", "decoder": "1x1,16m1"},
        {"decoder": "1x1,4x1,4m1,8m4,16m1,16x1"},
        {"channels": 3, "bottleneck": 0.5},
        {"latent_std": "softplus"},
    ],
)
def test_what_is_accepted_runs(changes, make_noise):
    if changes.get("bias_up_to") == 0:
        with pytest.raises(ConfigurationError, match="first block at 1 needs a mixin"):
            tiny(**changes)
        return
    architecture = tiny(**changes)
    vae = VDVAE(architecture, DataContract(architecture.channels, 16, 100.0, 50.0))
    pixels = torch.zeros(2, architecture.channels, 16, 16, dtype=torch.uint8)
    terms = vae.elbo(pixels, make_noise(dtype=torch.float32))
    assert terms.rate_nats.shape == (2, len(architecture.decoder_blocks))
    assert terms.negative_elbo_nats.isfinite().all()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_registered_architectures_can_be_built(name):
    architecture = architecture_named(name)
    with torch.device("meta"):
        VDVAE(architecture, DataContract(architecture.channels, architecture.image_size, 0.0, 1.0))


def test_facts_are_those_of_cards_from_before_there_were_kinds_of_std():
    # Another set of keys would give every run another fingerprint.
    card = read_card(find_model("digits"))
    assert ARCHITECTURES["digits16"].facts() == card["architecture"]
    assert card["weights_source"]["architecture"] == card["architecture"]
    smooth = tiny(latent_std="softplus")
    assert smooth.facts() == {**tiny().facts(), "latent_std": "softplus"}
    for shape in (tiny(), smooth):
        assert read_config(Architecture, shape.facts(), "architecture") == shape


def test_unknown_name_lists_those_known():
    with pytest.raises(
        ConfigurationError, match=r"architecture = 'digit16': expected one of digits16"
    ):
        architecture_named("digit16")
