"""Efficient-VDVAE against a functional rendering of the published model, layer by layer."""

from __future__ import annotations

import dataclasses
import math
import zipfile

import pytest
import torch
import torch.nn.functional as F

from condvae.ground.configuration import ConfigurationError
from condvae.ground.images import DataContract
from condvae.ground.state_dicts import load_strictly
from condvae.ipa import (
    ConditionalModel,
    PartialEncoder,
    forward_kl,
    initialise,
    run_trunk,
)
from condvae.models.efficient_vdvae import (
    convert_efficient,
    efficient_architecture,
    load_efficient_vae,
    read_efficient,
)
from condvae.models.folder import load_posterior, load_vae, save_posterior
from condvae.models.official import convert_official
from condvae.models.official_layout import load_official_vae, read_official
from condvae.models.presets import PRESETS, Preset
from condvae.posterior.image_posterior import ImagePosterior
from condvae.tasks import Inpainting, Subject
from condvae.vdvae import ARCHITECTURES, VDVAE, Architecture

UP, UP_ENDS = "bottom_up.levels_up", "bottom_up.levels_up_downsample"
DOWN, DOWN_STARTS = "top_down.levels_down", "top_down.levels_down_upsample"


@dataclasses.dataclass(frozen=True)
class Released:
    """Hyper-parameters in the words of the released files, per level; decoder lists from the top."""

    size: int
    latent: int
    mixtures: int
    up_strides: list[int]
    up_blocks: list[int]
    up_filters: list[int]
    down_blocks: list[int]
    down_filters: list[int]
    input_filters: int

    @property
    def down_strides(self):
        return self.up_strides[::-1]

    @property
    def up_sizes(self):
        return [self.size // math.prod(self.up_strides[:i]) for i in range(len(self.up_strides))]


# Levels without and with blocks before their link, shared links, a pooling by 4, two widths.
SMALL = Released(
    size=16,
    latent=3,
    mixtures=2,
    up_strides=[1, 2, 1, 2, 4, 1],
    up_blocks=[0, 1, 0, 2, 0, 0],
    up_filters=[8, 12, 12, 12, 12, 12],
    down_blocks=[1, 0, 2, 0, 0, 1],
    down_filters=[12, 12, 12, 12, 8, 8],
    input_filters=8,
)
CELEBA64 = Released(
    size=64,
    latent=32,
    mixtures=10,
    up_strides=[1] * 11 + [2] + [1] * 8 + [2] + [1] * 6 + [2] + [1] * 6 + [2] + [1] * 3 + [4, 1, 1],
    up_blocks=[0] * 41,
    up_filters=[512] * 41,
    down_blocks=[0] * 13 + [4] + [0] * 6 + [7] + [0] * 8 + [10] + [0] * 11,
    down_filters=[512] * 41,
    input_filters=512,
)
IMAGENET64 = Released(
    size=64,
    latent=32,
    mixtures=10,
    up_strides=[*[1] * 4, 2, *[1] * 15, 2, *[1] * 9, 2, *[1] * 8, 2, *[1] * 6, 4, *[1] * 6],
    up_blocks=[0] * 53,
    up_filters=[512] * 53,
    down_blocks=[0] * 13 + [10] + [0] * 8 + [15] + [0] * 9 + [0] + [0] * 15 + [6] + [0] * 4,
    down_filters=[512] * 53,
    input_filters=512,
)
IMAGENET32 = dataclasses.replace(
    IMAGENET64,
    size=32,
    up_strides=[1] * 15 + [2] + [1] * 9 + [2] + [1] * 8 + [2] + [1] * 6 + [4] + [1] * 6,
    up_blocks=[0] * 48,
    up_filters=[512] * 48,
    down_blocks=[0] * 13 + [10] + [0] * 8 + [15] + [0] * 25,
    down_filters=[512] * 48,
)


def published_shapes(r: Released) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every entry, written down level by level."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name, inputs, outputs, kernel=1):
        shapes[f"{name}.weight"] = (outputs, inputs, kernel, kernel)
        shapes[f"{name}.bias"] = (outputs,)

    def cell(name, inputs, middle, outputs, size):
        kernel = 3 if size > 2 else 1
        conv(f"{name}.convs.1", inputs, middle)
        conv(f"{name}.convs.3", middle, middle, kernel)
        conv(f"{name}.convs.5", middle, middle, kernel)
        conv(f"{name}.convs.7", middle, outputs)

    conv("bottom_up.input_conv", 3, r.input_filters)
    width = r.input_filters
    links = []
    for i, (stride, size) in enumerate(zip(r.up_strides, r.up_sizes, strict=True)):
        for j in range(r.up_blocks[i]):
            cell(f"{UP}.{i}.{j}.residual_block.0", width, width // 4, width, size)
        cell(f"{UP_ENDS}.{i}.residual_block.0", width, width // 4, width, size)
        conv(f"{UP_ENDS}.{i}.skip_projection", width, width)
        links.append(width)
        if stride > 1:
            conv(f"{UP_ENDS}.{i}.pool.ops.0", width, r.up_filters[i], stride)
        width = r.up_filters[i]
    top = r.size // math.prod(r.up_strides)
    shapes["top_down.trainable_h"] = (1, r.down_filters[0], top, top)

    def group(name, width, size):
        cell(f"{name}.residual_block.0", width, width // 4, width, size)
        cell(f"{name}.posterior_net.0", 2 * width, width // 4, width, size)
        cell(f"{name}.prior_net.0", width, width // 4, 2 * width, size)
        conv(f"{name}.prior_layer.projection", width, 2 * r.latent)
        conv(f"{name}.posterior_layer.projection", width, 2 * r.latent)
        conv(f"{name}.z_projection", r.latent, width)

    before, size = r.down_filters[0], top
    for i, stride in enumerate(r.down_strides):
        width, start = r.down_filters[i], f"{DOWN_STARTS}.{i}"
        if stride > 1:
            size *= stride
            shapes[f"{start}.unpool.scale_bias"] = (1, width, size, size)
            conv(f"{start}.unpool.ops.0", before, width)
        group(start, width, size)
        for j in range(r.down_blocks[i]):
            group(f"{DOWN}.{i}.{j}", width, size)
        before = width
    conv("top_down.output_conv", before, 10 * r.mixtures)
    return shapes


def random_state(r: Released = SMALL, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator, dtype=dtype)
        * (0.3 if name.endswith("bias") else 0.7 * math.prod(shape[1:]) ** -0.5)
        for name, shape in published_shapes(r).items()
    }


def run_published(r: Released, state, x, noise, *, from_prior=False):
    """What the released code computes, in float64: outputs and (mean, std) of q and p per group."""

    def conv(name, x, **options):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    def cell(name, x):
        for number in (1, 3, 5, 7):
            pad = state[f"{name}.convs.{number}.weight"].shape[2] // 2
            x = conv(f"{name}.convs.{number}", x * torch.sigmoid(x), padding=pad)
        return x

    def statistics(name, x):
        mean, raw = conv(f"{name}.projection", x).chunk(2, dim=1)
        return mean, torch.logaddexp(raw * math.log(2), torch.zeros_like(raw)) / math.log(2)

    links = []
    h = conv("bottom_up.input_conv", x)
    for i, stride in enumerate(r.up_strides):
        for name in [f"{UP}.{i}.{j}" for j in range(r.up_blocks[i])] + [f"{UP_ENDS}.{i}"]:
            h = h + cell(f"{name}.residual_block.0", h)
        links.append(conv(f"{UP_ENDS}.{i}.skip_projection", h))
        if stride > 1:
            h = F.leaky_relu(conv(f"{UP_ENDS}.{i}.pool.ops.0", h, stride=stride), 0.1)
    links.reverse()
    y = state["top_down.trainable_h"].expand(len(x), -1, -1, -1)
    q, p = [], []
    for i, stride in enumerate(r.down_strides):
        if stride > 1:
            start = f"{DOWN_STARTS}.{i}.unpool"
            y = F.leaky_relu(conv(f"{start}.ops.0", y), 0.1)
            y = y.repeat_interleave(stride, 2).repeat_interleave(stride, 3)
            y = y + state[f"{start}.scale_bias"]
        for name in [f"{DOWN_STARTS}.{i}"] + [f"{DOWN}.{i}.{j}" for j in range(r.down_blocks[i])]:
            skip, features = cell(f"{name}.prior_net.0", y).chunk(2, dim=1)
            p.append(statistics(f"{name}.prior_layer", features))
            posterior = cell(f"{name}.posterior_net.0", torch.cat([y, links[i]], dim=1))
            q.append(statistics(f"{name}.posterior_layer", posterior))
            mean, std = (p if from_prior else q)[-1]
            z = mean + std * noise[len(q) - 1]
            y = y + skip + conv(f"{name}.z_projection", z)
            y = y + cell(f"{name}.residual_block.0", y)
    return conv("top_down.output_conv", y), q, p


def mixture_nats(outputs, pixels, mixtures):
    """-log p per pixel, from probabilities of bins alone."""
    x = (pixels.double() - 127.5) / 127.5
    logits, rest = outputs[:, :mixtures], outputs[:, mixtures:].unflatten(1, (3, 3 * mixtures))
    means, raw, tied = rest.split(mixtures, dim=2)
    scale, tied = torch.log2(1 + 2**raw), torch.tanh(tied)
    centres = [
        means[:, 0],
        means[:, 1] + tied[:, 0] * x[:, :1],
        means[:, 2] + tied[:, 1] * x[:, :1] + tied[:, 2] * x[:, 1:2],
    ]
    total = torch.log_softmax(logits, dim=1)
    for colour, centre in enumerate(centres):
        value = x[:, colour : colour + 1]
        upper = torch.sigmoid((value + 1 / 255 - centre) / scale[:, colour])
        lower = torch.sigmoid((value - 1 / 255 - centre) / scale[:, colour])
        upper = torch.where(value == 1, 1.0, upper)
        lower = torch.where(value == -1, 0.0, lower)
        total = total + torch.log(upper - lower)
    return -torch.logsumexp(total, dim=1)


def build(r: Released, state, size) -> VDVAE:
    architecture = efficient_architecture(state)
    vae = VDVAE(architecture, DataContract(3, size, 127.5, 127.5)).double()
    load_strictly(vae, convert_efficient(state, architecture), "test")
    return vae.requires_grad_(False)


@pytest.fixture(scope="module")
def state():
    return random_state()


@pytest.fixture(scope="module")
def vae(state):
    return build(SMALL, state, 16)


@pytest.fixture
def pixels(make_pixels):
    pixels = make_pixels(batch=2, channels=3)
    pixels[:, :, 0, :4], pixels[:, :, 1, :4] = 0, 255
    return pixels


@pytest.fixture
def normals(vae):
    generator = torch.Generator().manual_seed(5)
    return [
        torch.randn(2, 3, b.resolution, b.resolution, generator=generator, dtype=torch.float64)
        for b in vae.architecture.decoder_blocks
    ]


@pytest.fixture
def small_preset(monkeypatch, vae):
    monkeypatch.setitem(ARCHITECTURES, "efficient_small", vae.architecture)
    preset = Preset("efficient_small", vae.contract, None, None, "a test")
    monkeypatch.setitem(PRESETS, "efficient_small", preset)
    return preset


def write_checkpoint(path, state, **changes):
    """A checkpoint as released: averaged weights beside the raw ones and the optimiser's."""
    content = {
        "global_step": 800_000,
        "model_state_dict": {name: value + 1 for name, value in state.items()},
        "ema_model_state_dict": state,
        "optimizer_state_dict": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 1e-3}]},
        "scheduler_state_dict": {"last_epoch": torch.tensor(3), "base_lrs": [1e-3]},
    }
    torch.save({**content, **changes}, path)
    return path


@pytest.fixture
def archive(tmp_path, state):
    """A published zip archive, float32."""
    singles = {name: value.float() for name, value in state.items()}
    inner = write_checkpoint(tmp_path / "checkpoints-small", singles)
    path = tmp_path / "small_checkpoints.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("logs-small/hparams-small.cfg", "[run]\nname = small\n")
        file.write(inner, "checkpoints-small")
    inner.unlink()
    return path


def test_architecture_is_read_from_the_weights(vae):
    a = vae.architecture
    assert a.encoder == "16x1,16u1,16d2,8x1,8u2,8d2,4d4,1x1"
    assert a.decoder == "1x1,1r1,4m1,8m4,8r2,8x1,16m8,16x1,16r1"
    assert (a.image_size, a.channels, a.width, a.widths) == (16, 3, 12, "16:8")
    assert (a.latent_channels, a.mixtures, a.bottleneck) == (3, 2, 0.25)
    # Groups that share a link, and links taken from the deepest block up.
    assert [b.link for b in a.decoder_blocks] == [0, 0, 0, 1, 1, 1, 0, 1, 0, 0]


@pytest.mark.parametrize(
    ("released", "name", "groups"),
    [
        (CELEBA64, "efficient_celeba64", 62),
        (IMAGENET32, "efficient_imagenet32", 73),
        (IMAGENET64, "efficient_imagenet64", 84),
    ],
)
def test_every_entry_of_the_released_shapes_has_a_place(released, name, groups):
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in published_shapes(released).items()}
        architecture = efficient_architecture(state)
        assert architecture == ARCHITECTURES[name]
        assert len(architecture.decoder_blocks) == groups
        converted = convert_efficient(state, architecture)
        if name == "efficient_celeba64":  # the others have the same parts
            vae = VDVAE(architecture, PRESETS[name].contract)
            load_strictly(vae, converted, name, assign=True)


def test_posterior_prior_and_outputs_are_the_published_ones(vae, state, pixels, normals):
    outputs, q, p = run_published(SMALL, state, (pixels.double() - 127.5) / 127.5, normals)
    activations = vae.encode(pixels)
    seen = []

    def choose(group, h):
        posterior = group.block.posterior(h, activations[group.block.resolution])
        seen.append((posterior, group.prior))
        return posterior.sample(normals[group.index])

    found = vae.decoder.likelihood_parameters(vae.decoder.descend(choose, 2))
    torch.testing.assert_close(found, outputs, rtol=1e-10, atol=1e-10)
    assert len(seen) == len(q) == 10
    for pair, published in zip(seen, zip(q, p, strict=True), strict=True):
        for ours, (mean, std) in zip(pair, published, strict=True):
            torch.testing.assert_close(ours.mean, mean, rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(ours.log_std.exp(), std, rtol=1e-10, atol=1e-10)


def test_samples_of_the_prior_are_the_published_ones(vae, state, normals):
    anything = torch.zeros(2, 3, 16, 16, dtype=torch.float64)
    outputs, _, _ = run_published(SMALL, state, anything, normals, from_prior=True)
    found = vae.decoder.descend(lambda g, h: g.prior.sample(normals[g.index]), 2)
    found = vae.decoder.likelihood_parameters(found)
    torch.testing.assert_close(found, outputs, rtol=1e-10, atol=1e-10)


def test_bound_is_the_published_one(vae, state, pixels, normals):
    terms = vae.elbo(pixels, lambda group: normals[group.index])
    outputs, q, p = run_published(SMALL, state, (pixels.double() - 127.5) / 127.5, normals)
    rates = [
        torch.distributions.kl_divergence(
            torch.distributions.Normal(*posterior), torch.distributions.Normal(*prior)
        ).sum(dim=(1, 2, 3))
        for posterior, prior in zip(q, p, strict=True)
    ]
    torch.testing.assert_close(terms.rate_nats, torch.stack(rates, 1), rtol=1e-9, atol=1e-9)
    # Smooth outputs: bins everywhere have a probability that a difference of sigmoids resolves.
    outputs = outputs / 20
    nats = mixture_nats(outputs, pixels, 2)
    target = (pixels.double() - 127.5) / 127.5
    torch.testing.assert_close(-vae.likelihood.log_prob(outputs, target), nats)
    assert torch.isfinite(terms.negative_elbo_nats).all()


def test_mixture_has_no_floor_at_exp_minus_7(vae):
    outputs = torch.zeros(1, 20, 1, 1, dtype=torch.float64)
    outputs[:, 2:].unflatten(1, (3, 6))[:, :, 2:4] = -14.0  # scale 2^-14 / ln 2, below e^-7
    x = torch.zeros(1, 3, 1, 1, dtype=torch.float64)
    scale = 2**-14 / math.log(2)
    expected = -3 * math.log(math.tanh(1 / 255 / scale / 2))
    assert float(-vae.likelihood.log_prob(outputs, x)) == pytest.approx(expected, rel=1e-4)
    outputs[:, 2:].unflatten(1, (3, 6))[:, :, 2:4] = -1e4
    assert torch.isfinite(vae.likelihood.log_prob(outputs.float(), x.float())).all()


def test_averaged_weights_of_an_archive_are_loaded(archive, state, vae, small_preset, pixels):
    loaded = load_efficient_vae(archive, small_preset, torch.float64)
    assert list(archive.parent.iterdir()) == [archive]
    assert not loaded.training
    for name, value in vae.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    assert read_efficient(archive).keys() == state.keys()


def test_checkpoint_without_its_archive_is_read_too(tmp_path, state):
    path = write_checkpoint(tmp_path / "checkpoints-small", state)
    found = read_efficient(path)
    assert all(torch.equal(value, found[name]) for name, value in state.items())


def test_conversion_is_made_once_and_gives_the_same_outputs(
    tmp_path, archive, small_preset, pixels
):
    folder = convert_official(archive, "efficient_small", tmp_path / "converted")
    stamp = (folder / "card.json").stat().st_mtime_ns
    assert convert_official(archive, "efficient_small", tmp_path / "converted") == folder
    assert (folder / "card.json").stat().st_mtime_ns == stamp
    stored, card = load_vae(folder)
    assert card["weights_source"]["official"] == archive.name
    direct = load_efficient_vae(archive, small_preset)
    assert stored.architecture == direct.architecture
    loaded = stored.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in direct.state_dict().items())
    noise = [
        torch.randn(2, 3, b.resolution, b.resolution) for b in direct.architecture.decoder_blocks
    ]
    found, expected = (
        model.elbo(pixels, lambda g: noise[g.index]).negative_elbo_nats
        for model in (stored, direct)
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_own_architecture_goes_before_the_example(tmp_path, state, small_preset, caplog):
    r = dataclasses.replace(SMALL, down_blocks=[0, 0, 2, 0, 0, 1])
    path = write_checkpoint(tmp_path / "checkpoints-other", random_state(r, dtype=torch.float32))
    loaded = load_efficient_vae(path, small_preset)
    assert loaded.architecture.decoder == "1x1,4m1,8m4,8r2,8x1,16m8,16x1,16r1"
    assert "other than the example" in caplog.text
    # Converted once although the preset says something else.
    folder = convert_official(path, "efficient_small", tmp_path / "converted")
    stamp = (folder / "card.json").stat().st_mtime_ns
    convert_official(path, "efficient_small", tmp_path / "converted")
    assert (folder / "card.json").stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({f"{DOWN_STARTS}.1.unpool.ops.0.bias": None}, r"ops\.0\.bias is missing"),
        ({f"{UP_ENDS}.0.residual_block.0.convs.9.weight": torch.zeros(1)}, r"convs\.9\.weight"),
        ({"top_down.new.weight": torch.zeros(1)}, r"1 entries have no place"),
        ({"bottom_up.input_conv.weight": torch.zeros(8, 1, 1, 1)}, "images of 1 channels"),
        ({"bottom_up.input_conv.weight": torch.zeros(8, 3, 3, 3)}, r"in_conv\.weight is \(8, 3, 3"),
        ({f"{UP_ENDS}.2.skip_projection.weight": torch.zeros(6, 12, 1, 1)}, r"skip|widths|links"),
        ({"top_down.trainable_h": torch.full((1, 12, 1, 1), math.nan)}, "not finite"),
    ],
)
def test_other_models_are_refused(tmp_path, state, small_preset, entries, message):
    changed = {name: value for name, value in (state | entries).items() if value is not None}
    path = write_checkpoint(tmp_path / "checkpoints-small", changed)
    with pytest.raises(ConfigurationError, match=message) as error:
        load_efficient_vae(path, small_preset)
    assert str(path) in str(error.value)


def test_images_of_another_size_are_refused(tmp_path, state):
    path = write_checkpoint(tmp_path / "checkpoints-small", state)
    with pytest.raises(ConfigurationError, match="for images of 16², preset efficient_celeba64"):
        load_efficient_vae(path, PRESETS["efficient_celeba64"])


def test_archives_of_something_else_are_refused(tmp_path, state, archive):
    jax = tmp_path / "jax.zip"
    with zipfile.ZipFile(jax, "w") as file:
        file.writestr("checkpoints-small/checkpoint_800000", b"\x81\xa5state" * 100)
    with pytest.raises(ConfigurationError, match=r"checkpoint_800000 cannot be read|damaged"):
        read_efficient(jax)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(ConfigurationError, match="empty archive"):
        read_efficient(tmp_path / "empty.zip")
    torch.save(state, tmp_path / "vdvae.th")
    with pytest.raises(ConfigurationError, match="has no ema_model_state_dict"):
        read_efficient(tmp_path / "vdvae.th")
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(bytes(data))
    with pytest.raises(ConfigurationError, match="damaged"):
        read_efficient(archive)
    deflated = tmp_path / "deflated.zip"
    with zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("checkpoints-small", bytes(1000))
    data = bytearray(deflated.read_bytes())
    data[30 + len("checkpoints-small")] = 0xFF  # no kind of block that there is
    deflated.write_bytes(bytes(data))
    with pytest.raises(ConfigurationError, match=r"deflated\.zip is damaged"):
        read_efficient(deflated)
    with pytest.raises(ConfigurationError, match="no such file"):
        read_efficient(tmp_path / "missing.zip")
    assert not list(tmp_path.glob(".*"))


def test_reader_of_vdvae_says_what_it_is(tmp_path, state):
    path = write_checkpoint(tmp_path / "model.th", state)
    for read in (read_official, lambda p: load_official_vae(p, PRESETS["cifar10"])):
        with pytest.raises(
            ConfigurationError, match=r"one of Efficient-VDVAE.*efficient-vdvae-cel.*efficient_cel"
        ):
            read(path)


def test_copied_partial_encoder_of_the_whole_image_is_the_encoder(vae, pixels, make_noise):
    partial = PartialEncoder(vae, 4).double()
    initialise(partial, vae, "copy", 0)
    everything = torch.ones(2, 1, 16, 16, dtype=torch.bool)
    y = Inpainting().observe(Subject(pixels, everything), vae.contract)
    condition = y.condition.double()
    trunk = run_trunk(vae, pixels, make_noise())
    rates = forward_kl(trunk, partial, condition)
    torch.testing.assert_close(rates, torch.zeros_like(rates), rtol=0, atol=1e-9)
    forward_kl(trunk, partial, torch.zeros_like(condition)).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in partial.heads.parameters())
    reached = [
        n for n, p in partial.encoder.named_parameters() if p.grad is not None and p.grad.any()
    ]
    # Biases and all but the first convolution's weights see a condition of zeros as well.
    assert set(dict(partial.encoder.named_parameters())) - set(reached) == {"in_conv.weight"}


def test_residual_heads_start_at_the_prior(vae, pixels, make_noise):
    partial = PartialEncoder(vae, 4, "residual").double()
    initialise(partial, vae, "residual", 0)
    trunk = run_trunk(vae, pixels, make_noise(), priors=True)
    condition = torch.randn(2, 4, 16, 16, dtype=torch.float64)
    expected = vae.elbo(pixels, make_noise()).rate_nats
    torch.testing.assert_close(forward_kl(trunk, partial, condition), expected)


def test_flows_see_the_link_of_their_group(vae, pixels, make_noise):
    resolutions = sorted({b.resolution for b in vae.architecture.decoder_blocks if b.link})
    flowing = PartialEncoder(vae, 4, flows=" ".join(f"{r}:affine" for r in resolutions)).double()
    plain = PartialEncoder(vae, 4).double()
    for partial in (flowing, plain):
        initialise(partial, vae, "copy", 0)
    assert flowing.flows
    trunk = run_trunk(vae, pixels, make_noise())
    condition = torch.randn(2, 4, 16, 16, dtype=torch.float64)
    expected = forward_kl(trunk, plain, condition)
    torch.testing.assert_close(forward_kl(trunk, flowing, condition), expected)


def test_posterior_samples_and_survives_its_folder(tmp_path, vae, pixels):
    vae = build(SMALL, random_state(), 16).float()
    partial = PartialEncoder(vae, 4)
    initialise(partial, vae, "random", 3)
    posterior = ImagePosterior(ConditionalModel(vae, partial), Inpainting())
    mask = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    mask[..., :8] = True
    drawn = posterior.sample(posterior.observe(pixels, mask), 3, batch_size=2)
    assert torch.equal(drawn[..., :8], pixels[..., :8].expand(3, 2, 3, 16, 8))
    save_posterior(tmp_path / "posterior", posterior, {"weights_source": "a test"})
    loaded = load_posterior(tmp_path / "posterior")
    assert torch.equal(loaded.sample(loaded.observe(pixels, mask), 3, batch_size=2), drawn)
    terms = loaded.bound(pixels, loaded.observe(pixels, mask))
    assert torch.isfinite(terms.bound_bits).all()


GOOD = {
    "image_size": 16,
    "channels": 3,
    "width": 8,
    "latent_channels": 2,
    "encoder": "16x1,16d4,4u1,4x2",
    "decoder": "4x1,4r2,4x1,16m4,16x1",
    "latent_std": "softplus",
    "family": "efficient_vdvae",
}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"decoder": "4x1,16m4,16x1"}, "takes other links"),
        ({"decoder": "4x2,16m4,16x2"}, "takes other links"),
        ({"decoder": "4r1,4x2,16m4,16x1"}, "no group at 4 before the first one"),
        ({"decoder": "4x2,16x2"}, "first block at 16 needs a mixin"),
        ({"encoder": "16x1,16d4,4u1", "decoder": "4x1,16m4,16x1"}, "takes other links"),
        ({"encoder": "16x1,16d4,4v1"}, "not of the form 16xN|Rx"),
        ({"bias_up_to": 8}, "bias_up_to = 8: expected at least the image size"),
        ({"family": "nvae"}, "family = 'nvae'"),
        ({"family": "vdvae"}, "'4u1' is not of the form"),
    ],
)
def test_wrong_links_are_refused(entries, message):
    Architecture(**GOOD)
    with pytest.raises(ConfigurationError, match=message):
        Architecture(**{**GOOD, **entries})


def test_five_bits_are_refused(vae):
    with pytest.raises(ValueError, match="bits = 5"):
        VDVAE(vae.architecture, DataContract(3, 16, 127.5, 127.5, 5))


def test_family_is_a_fact_only_where_it_is_not_the_first_one():
    assert "family" not in ARCHITECTURES["cifar10"].facts()
    assert ARCHITECTURES["efficient_celeba64"].facts()["family"] == "efficient_vdvae"
