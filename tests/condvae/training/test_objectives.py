"""The objectives of conditional training, in float64 against what they are made of."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from condvae.ground.configuration import ConfigurationError
from condvae.ipa import ConditionalModel, PartialEncoder, forward_kl, initialise, run_trunk
from condvae.posterior.image_posterior import ImagePosterior
from condvae.tasks import Colourisation, Glimpses, Inpainting, Subject
from condvae.tasks.labels import ClassLabel
from condvae.training import ObjectiveConfig, TrainingConfig, fit
from condvae.training import objectives as conditioning
from condvae.training.objectives import check_objective, objective_class
from condvae.training.randomness import latent_noise, rows_of_step, step_rng

BATCH, DIMENSIONS = 3, 256
TRAINING, VALIDATION = np.arange(8), np.arange(8, 12)
OBJECTIVES = {
    "ipa": {"observations_per_image": 2},
    "ipa_r": {"name": "ipa_r", "likelihood_start": 0.1, "likelihood_steps": 3},
    "output_head": {"trainable": "output_head", "predicted": "unobserved"},
    "joint": {"name": "joint"},
}


@pytest.fixture
def make(make_vae, images, masks):
    """A function that makes an objective over a small VAE with groups at 1, 4, 4, 8, 16."""

    def make(*, dtype=torch.float64, first_groups=None, config=None, **choices):
        vae = make_vae(decoder="1x1,4m1,4x1,8m4,16m8", dtype=dtype, scale=0.1)
        partial = PartialEncoder(vae, 2, first_groups=first_groups)
        initialise(partial.to(dtype), vae, "random", 1)
        objective = ObjectiveConfig(**choices)
        return objective_class(objective)(
            *(vae, partial, Inpainting(), images, TRAINING, VALIDATION),
            *(masks[TRAINING], masks[VALIDATION]),
            *(config or TrainingConfig(batch_size=BATCH), 5, None, objective),
        )

    return make


def batch_of(objective, step, times=1):
    """Pixels of a step and its observations, drawn as documented."""
    rows = TRAINING[rows_of_step(len(TRAINING), BATCH, step, objective.seed)]
    chosen = step_rng(objective.seed, step).integers(8, size=times * BATCH)
    mask = torch.from_numpy(objective.training_masks[chosen]).unsqueeze(1)
    pixels = torch.from_numpy(objective.images[rows]).permute(0, 3, 1, 2)
    subjects = [Subject(pixels, part) for part in mask.split(BATCH)]
    contract = objective.vae.contract
    observations = [objective.task.observe(s, contract) for s in subjects]
    return pixels, [y.to(objective.vae.device, objective.vae.dtype) for y in observations]


def noise_of(objective, step):
    return latent_noise(objective.seed, step, objective.vae.device, objective.vae.dtype)


def gradients(module):
    return {n: p.grad for n, p in module.named_parameters() if p.grad is not None}


def snapshot(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("first_groups", [None, 2])
def test_several_observations_per_image_are_the_mean_of_single_ones(make, first_groups):
    objective = make(observations_per_image=3, first_groups=first_groups)
    calls = []
    objective.vae.encoder.register_forward_hook(lambda *_: calls.append(1))
    loss, metrics = objective.loss(4)
    loss.backward()
    assert len(calls) == 1
    found = {n: g.clone() for n, g in gradients(objective.partial).items()}
    objective.partial.zero_grad()
    pixels, observations = batch_of(objective, 4, times=3)
    single = []
    for y in observations:
        trunk = run_trunk(objective.vae, pixels, noise_of(objective, 4), groups=first_groups)
        single.append(forward_kl(trunk, objective.partial, y.condition).sum(dim=1).mean())
    expected = torch.stack(single).mean()
    assert torch.stack(single).std() > 1e-5 * expected
    (expected / DIMENSIONS).backward()
    torch.testing.assert_close(metrics["kl_nats"], expected.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(loss.detach() * DIMENSIONS, expected.detach(), rtol=1e-12, atol=0)
    assert found.keys() == {n for n, _ in objective.partial.named_parameters()}
    for name, gradient in gradients(objective.partial).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-8, atol=1e-12)


def test_reverse_terms_against_torch_distributions(make, make_noise):
    objective = make(name="ipa_r")
    vae, partial = objective.vae, objective.partial
    _, (y,) = batch_of(objective, 0)
    features, noise, expected = partial.encode(y.condition), make_noise(), []

    def choose(group, h):
        parameters = partial.heads[group.index](torch.cat([h, features[h.shape[2]]], dim=1))
        mean, log_std = parameters.chunk(2, dim=1)
        p_mean, p_log_std = group.block.prior(h)[:, : 2 * mean.shape[1]].chunk(2, dim=1)
        c, p = Normal(mean, log_std.exp()), Normal(p_mean, p_log_std.exp())
        expected.append(kl_divergence(c, p).sum(dim=(1, 2, 3)))
        return mean + log_std.exp() * noise(group)

    output = vae.decoder.descend(choose, BATCH)
    nats = (vae.pixel_nats(output, y.pixels) * y.mask[:, 0]).sum(dim=(1, 2))
    rates, found = ConditionalModel(vae, partial).reverse_terms(features, y.pixels, y.mask, noise)
    torch.testing.assert_close(rates, torch.stack(expected, dim=1), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found, nats, rtol=1e-10, atol=0)


@pytest.mark.parametrize("weight", [1.0, 0.01])
def test_reverse_loss_is_the_bound_on_the_observation(make, monkeypatch, weight):
    annealed = {} if weight == 1.0 else {"likelihood_start": weight, "likelihood_steps": 10}
    objective = make(name="ipa_r", **annealed)
    _, (y,) = batch_of(objective, 0)
    posterior = ImagePosterior(ConditionalModel(objective.vae, objective.partial), objective.task)
    terms = posterior.observation_bound(y, seed=9)
    same_noise = posterior._case_noise(y, 9, "observation bound 0")
    monkeypatch.setattr(conditioning, "latent_noise", lambda *_: same_noise)
    loss, metrics = objective.loss(0)
    rate, observed = terms.rate_nats.sum(dim=1).mean(), terms.observed_nats.mean()
    torch.testing.assert_close(metrics["reverse_kl_nats"], rate, rtol=1e-12, atol=0)
    torch.testing.assert_close(metrics["observed_nats"], observed, rtol=1e-12, atol=0)
    expected = (rate + weight * observed) / DIMENSIONS
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-12, atol=0)


def test_likelihood_is_annealed_as_planned_after_a_restart(make):
    """Steps are then counted on from the end of the run."""
    config = TrainingConfig(batch_size=BATCH, steps=20)
    objective = make(name="ipa_r", likelihood_start=0.01, likelihood_steps=10, config=config)
    for step, planned in ((3, 3), (23, 3), (45, 5), (32, 12)):
        weight = 0.01 ** max(0.0, 1 - planned / 10)
        loss, metrics = objective.loss(step)
        expected = (metrics["reverse_kl_nats"] + weight * metrics["observed_nats"]) / DIMENSIONS
        torch.testing.assert_close(loss.detach(), expected, rtol=1e-12, atol=0)


def test_reverse_loss_sees_nothing_but_y(make):
    objective = make(name="ipa_r")
    loss = objective.loss(1)[0].item()
    rows = TRAINING[rows_of_step(len(TRAINING), BATCH, 1, objective.seed)]
    chosen = step_rng(objective.seed, 1).integers(8, size=BATCH)
    objective.images = objective.images.copy()
    for row, mask in zip(rows, objective.training_masks[chosen], strict=True):
        objective.images[row][~mask] = 7
    assert objective.loss(1)[0].item() == loss
    objective.images[rows[0]] = 7
    assert objective.loss(1)[0].item() != loss


@pytest.mark.parametrize("first_groups", [None, 2])
@pytest.mark.parametrize("predicted", ["all", "unobserved"])
def test_joint_loss_is_the_distortion_of_the_elbo_and_the_rate_of_c(make, predicted, first_groups):
    objective = make(name="joint", predicted=predicted, first_groups=first_groups)
    vae, partial = objective.vae, objective.partial
    pixels, (y,) = batch_of(objective, 2)
    terms = vae.elbo(pixels, noise_of(objective, 2))
    trunk = run_trunk(vae, pixels, noise_of(objective, 2))
    features, rates = partial.encode(y.condition), terms.rate_nats.clone()
    for index, head in enumerate(partial.heads):
        h, q = trunk.hidden[index], trunk.posteriors[index]
        mean, log_std = head(torch.cat([h, features[h.shape[2]]], dim=1)).chunk(2, dim=1)
        kl = kl_divergence(Normal(q.mean, q.log_std.exp()), Normal(mean, log_std.exp()))
        rates[:, index] = kl.sum(dim=(1, 2, 3))
    assert len(partial.heads) == (first_groups or 5)
    counted = torch.ones_like(y.mask) if predicted == "all" else ~y.mask
    distortion = (terms.pixel_nats * counted[:, 0]).sum(dim=(1, 2))
    loss, metrics = objective.loss(2)
    torch.testing.assert_close(metrics["kl_nats"], rates.sum(dim=1).mean(), rtol=1e-9, atol=0)
    torch.testing.assert_close(metrics["distortion_nats"], distortion.mean(), rtol=1e-10, atol=0)
    expected = (rates.sum(dim=1) + distortion).mean() / DIMENSIONS
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)


def test_trained_posterior_comes_back_from_below_the_floor(make):
    objective = make(name="joint")
    vae, group = objective.vae, 2
    bias, z = vae.decoder.dec_blocks[group].enc.c4.bias, vae.architecture.latent_channels
    with torch.no_grad():
        bias[z:] = -400.0
    pixels, (y,) = batch_of(objective, 0)
    trunk = run_trunk(vae, pixels, noise_of(objective, 0), gradients=True)
    rates = forward_kl(trunk, objective.partial, y.condition, log_std_floor=-8.0)
    rates.sum().backward()
    # KL(q || c) falls as q widens up to c.
    assert (bias.grad[z:] < 0).all()


def test_joint_gradient_is_the_slope(make):
    objective = make(name="joint", observations_per_image=2, predicted="unobserved")
    objective.loss(0)[0].backward()
    vae = objective.vae
    weights = [vae.encoder.in_conv.weight, vae.decoder.dec_blocks[1].z_proj.weight]
    for weight in weights:
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[0, 0, 0, 0] += sign * 1e-6
                values.append(objective.loss(0)[0].item())
                weight[0, 0, 0, 0] -= sign * 1e-6
        slope = (values[0] - values[1]) / 2e-6
        assert weight.grad[0, 0, 0, 0].item() == pytest.approx(slope, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("first_groups", [None, 2])
@pytest.mark.parametrize("kind", OBJECTIVES)
def test_gradients_are_where_they_should_be(make, kind, first_groups):
    objective = make(first_groups=first_groups, **OBJECTIVES[kind])
    vae, partial = objective.vae, objective.partial
    objective.loss(3)[0].backward()
    assert all(g.abs().max() > 0 for g in gradients(partial).values())
    assert gradients(partial).keys() == {n for n, _ in partial.named_parameters()}
    everything = {n for n, _ in vae.named_parameters()}
    expected = {
        "ipa": set(),
        "ipa_r": set(),
        "output_head": {n for n in everything if n.startswith("decoder.out_net.")},
        "joint": everything,
    }[kind]
    assert {n for n, p in vae.named_parameters() if p.requires_grad} == expected
    assert gradients(vae).keys() == expected
    assert all(g.abs().max() > 0 for g in gradients(vae).values())
    priors = [n for n in expected if n.endswith("prior.c4.bias")]
    for name in priors:  # mean and log-std of p: trained where p stands for c, and only there
        conditioned = first_groups is None or int(name.split(".")[2]) < first_groups
        untouched = not gradients(vae)[name][: 2 * vae.architecture.latent_channels].any()
        assert untouched == conditioned, name


def test_reverse_objective_runs_no_encoder_and_no_posterior_head(make):
    objective, calls = make(name="ipa_r"), []
    for module in (objective.vae.encoder, *(b.enc for b in objective.vae.decoder.dec_blocks)):
        module.register_forward_hook(lambda *_: calls.append(1))
    objective.loss(0)[0].backward()
    with torch.no_grad():
        objective.validate()
    assert calls == []


class KilledError(Exception):
    pass


class Killer:
    """A callback that ends the run after a step."""

    def __init__(self, at):
        self.at = at

    def on_start(self, *_):
        pass

    def on_step(self, step):
        if step == self.at:
            raise KilledError

    def on_metrics(self, *_):
        pass

    def on_end(self):
        pass


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_killed_run_goes_on_bit_for_bit_and_frozen_weights_stay(make, kind, tmp_path):
    config = TrainingConfig(
        steps=4, batch_size=BATCH, warmup_steps=0, checkpoint_every=2, log_every=1, ema_decay=0.5
    )

    def new():
        return make(dtype=torch.float32, config=config, **OBJECTIVES[kind])

    objective = new()
    before = snapshot(objective.vae)
    whole = fit(config, objective, tmp_path / "whole", kind)
    trainable = {n for n, p in objective.module.named_parameters() if p.requires_grad}
    assert whole.weights.keys() == trainable
    for name, value in objective.vae.state_dict().items():
        assert torch.equal(value, before[name]) == (f"vae.{name}" not in trainable), name
    with pytest.raises(KilledError):
        fit(config, new(), tmp_path / "killed", kind, callbacks=[Killer(3)])
    resumed = fit(config, new(), tmp_path / "killed", kind)
    assert resumed.resumed_from == 2
    assert resumed.history == whole.history
    for name, value in whole.weights.items():
        assert torch.equal(resumed.weights[name], value), name


@pytest.mark.parametrize(("kind", "terms"), [("ipa_r", 2), ("joint", 2), ("ipa", 1)])
def test_validation_adds_up_and_does_not_depend_on_the_batch(make, kind, terms):
    objective = make(**OBJECTIVES[kind])
    with torch.no_grad():
        scores = objective.validate()
        objective.config = TrainingConfig(batch_size=1)
        assert objective.validate() == pytest.approx(scores, rel=1e-9)
    values = {n: v for n, v in scores.items() if not n.endswith("_standard_error")}
    assert len(values) == (terms + 1 if terms > 1 else 1)
    total = values.pop("bound_nats", None)
    # Not annealed: scores of different steps are to be compared.
    assert total is None or total == pytest.approx(sum(values.values()))


def test_single_validation_image_has_no_standard_error(make):
    objective = make(name="joint")
    objective.validation_rows = VALIDATION[:1]
    objective.validation_masks = objective.validation_masks[:1]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = objective.validate()
    assert set(scores) == {"kl_nats", "distortion_nats", "bound_nats"}


def test_tasks_that_an_objective_makes_no_sense_for_are_refused():
    reverse, several = ObjectiveConfig("ipa_r"), ObjectiveConfig(observations_per_image=4)
    check_objective(reverse, Inpainting())
    check_objective(several, Glimpses())
    for task in (ClassLabel(10), Colourisation(), Glimpses()):
        with pytest.raises(ConfigurationError, match=f"'ipa_r' needs .* task '{task.name}'"):
            check_objective(reverse, task)
    with pytest.raises(ConfigurationError, match="per_image = 4: task 'class_label' makes one"):
        check_objective(several, ClassLabel(10))
