"""Both objectives on a tiny model and a dozen images."""

import numpy as np
import pytest
import torch

from condvae.ipa.model import ConditionalModel
from condvae.training.config import TrainingConfig
from condvae.training.loop import fit
from condvae.training.pretraining import bits_per_dim

SHORT = TrainingConfig(
    steps=30, batch_size=8, learning_rate=5e-3, warmup_steps=3, log_every=1, ema_decay=0.5
)


def snapshot(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def scores(objective):
    """Validate as `fit` does."""
    with torch.no_grad():
        return objective.validate()


def losses(result):
    return np.array([record["train/loss"] for record in result.history])


@pytest.fixture
def trained_vae(vae, make_elbo, tmp_path):
    """A VAE whose posterior says something about the image, and its run."""
    return vae, fit(SHORT, make_elbo(SHORT), tmp_path / "vae", "vae")


def test_negative_elbo_falls(make_elbo, vae, tmp_path):
    objective = make_elbo(SHORT)
    start = scores(objective)["bits_per_dim"]
    result = fit(SHORT, objective, tmp_path, "vae")
    values = losses(result)
    assert values[-5:].mean() < values[:5].mean() - 0.3  # nats per dimension
    assert result.history[-1]["validation/bits_per_dim"] < start - 0.3
    assert set(result.weights) == {name for name, _ in vae.named_parameters()}


def test_negative_elbo_adds_up_to_rate_and_distortion(make_elbo):
    loss, metrics = make_elbo().loss(3)
    dimensions = 256
    total = metrics["kl_nats"] + metrics["distortion_nats"]
    torch.testing.assert_close(total, loss.detach() * dimensions)
    assert metrics["bits_per_dim"].item() == pytest.approx(loss.item() / np.log(2))


def test_forward_kl_falls_and_leaves_the_vae_as_it_was(trained_vae, make_forward_kl, tmp_path):
    vae, _ = trained_vae
    objective = make_forward_kl(SHORT)
    before = snapshot(vae)
    start = snapshot(objective.module)
    result = fit(SHORT, objective, tmp_path / "conditional", "conditional")
    values = losses(result)
    assert values[-5:].mean() < 0.7 * values[:5].mean()
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    changed = snapshot(objective.module)
    assert any(not torch.equal(changed[name], start[name]) for name in start)
    assert set(result.weights) == {name for name, _ in objective.module.named_parameters()}


def test_forward_kl_sends_gradients_to_the_partial_encoder_only(vae, make_forward_kl):
    objective = make_forward_kl()
    loss, _ = objective.loss(0)
    loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in vae.parameters())
    for name, parameter in objective.module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_forward_kl_is_the_rate_of_the_conditional_model(vae, make_forward_kl, monkeypatch):
    objective = make_forward_kl()
    seen = {}
    observe = objective.task.observe

    def remember(subject, contract):
        seen["pixels"], seen["y"] = subject.pixels, observe(subject, contract)
        return seen["y"]

    monkeypatch.setattr(objective.task, "observe", remember)
    noise = {}

    def tee(source):
        def draw(group):
            noise[group.index] = source(group)
            return noise[group.index]

        return draw

    latent_noise = objective.loss.__func__.__globals__["latent_noise"]
    monkeypatch.setitem(
        objective.loss.__func__.__globals__, "latent_noise", lambda *a: tee(latent_noise(*a))
    )
    loss, metrics = objective.loss(0)
    model = ConditionalModel(vae, objective.module)
    rate, _ = model.rate_nats(seen["pixels"], seen["y"].condition, lambda g: noise[g.index])
    expected = rate.sum(dim=1).mean()
    torch.testing.assert_close(metrics["kl_nats"], expected.detach())
    torch.testing.assert_close(loss, expected / 256)


@pytest.mark.parametrize("kind", ["make_elbo", "make_forward_kl"])
def test_the_loss_is_a_function_of_weights_and_step(kind, request):
    objective = request.getfixturevalue(kind)()
    first = objective.loss(4)[0].item()
    objective.loss(5)
    scores(objective)
    torch.manual_seed(99)
    assert objective.loss(4)[0].item() == first
    assert objective.loss(5)[0].item() != first


@pytest.mark.parametrize("kind", ["make_elbo", "make_forward_kl"])
def test_validation_is_the_same_at_every_call(kind, request):
    objective = request.getfixturevalue(kind)()
    first = scores(objective)
    objective.loss(0)
    assert scores(objective) == first
    assert all(np.isfinite(list(first.values())))


@pytest.mark.parametrize("kind", ["make_elbo", "make_forward_kl"])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_validation_does_not_depend_on_the_batch_size(kind, batch_size, request):
    make = request.getfixturevalue(kind)
    expected = scores(make(TrainingConfig(batch_size=4)))
    found = scores(make(TrainingConfig(batch_size=batch_size)))
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["make_elbo", "make_forward_kl"])
def test_without_validation_images_there_are_no_scores(kind, request):
    objective = request.getfixturevalue(kind)()
    objective.validation_rows = objective.validation_rows[:0]
    assert scores(objective) == {}


def test_bits_per_dim_is_the_mean_over_images_whatever_their_order(vae, images):
    vae = vae.double()
    rows = np.array([7, 2, 5, 0])
    value, error = bits_per_dim(vae, images, rows, batch_size=4, seed=0)
    alone = np.array([bits_per_dim(vae, images, rows[i : i + 2], 2, 0)[0] for i in (0, 2)])
    assert value == pytest.approx(alone.mean(), rel=1e-9)
    assert bits_per_dim(vae, images, rows[::-1], 3, 0) == pytest.approx((value, error), rel=1e-9)
    assert bits_per_dim(vae, images, rows, 4, seed=1)[0] != value


def test_bits_per_dim_agrees_with_the_elbo_of_each_image(vae, images):
    vae = vae.double()
    rows = np.arange(3)
    nats = []
    for row in rows:
        pixels = torch.from_numpy(images[row : row + 1]).permute(0, 3, 1, 2)
        noise = bits_per_dim.__globals__["image_noise"](0, np.array([row]), vae.device, vae.dtype)
        with torch.no_grad():
            nats.append(float(vae.elbo(pixels, noise).negative_elbo_nats))
    bits = np.array(nats) / (256 * np.log(2))
    value, error = bits_per_dim(vae, images, rows, 2, 0)
    assert value == pytest.approx(bits.mean(), rel=1e-9)
    assert error == pytest.approx(bits.std(ddof=1) / 3**0.5, rel=1e-6)


@pytest.mark.parametrize("kind", ["make_elbo", "make_forward_kl"])
def test_bfloat16_computes_coarsely_but_keeps_weights_float32(kind, request, tmp_path):
    config = TrainingConfig(
        steps=3, batch_size=4, precision="bfloat16", log_every=1, checkpoint_every=2
    )
    objective = request.getfixturevalue(kind)(config)
    exact = request.getfixturevalue(kind)(TrainingConfig(batch_size=4)).loss(0)[0].item()
    assert objective.loss(0)[0].item() != exact
    result = fit(config, objective, tmp_path, "bfloat16")
    assert all(value.dtype == torch.float32 for value in result.weights.values())
    assert all(p.dtype == torch.float32 for p in objective.module.parameters())
    assert all(np.isfinite(record["train/loss"]) for record in result.history)


@pytest.mark.parametrize("kind", ["make_elbo", "make_forward_kl"])
def test_bfloat16_keeps_the_kl_in_float32(kind, request):
    objective = request.getfixturevalue(kind)(TrainingConfig(batch_size=4, precision="bfloat16"))
    _, metrics = objective.loss(0)
    assert metrics["kl_nats"].dtype == torch.float32
    assert metrics["kl_nats"] > 0
