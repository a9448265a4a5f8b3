from types import SimpleNamespace

import numpy as np
import pytest
import torch

from condvae.training.randomness import image_noise, latent_noise, rows_of_step, step_rng

CPU = torch.device("cpu")


def group(*shape):
    return SimpleNamespace(latent_shape=shape)


@pytest.mark.parametrize(("n_rows", "batch_size"), [(10, 3), (10, 5), (7, 7), (3, 8), (1, 4)])
def test_every_epoch_is_a_permutation_even_when_batches_span_epochs(n_rows, batch_size):
    stream = np.concatenate([rows_of_step(n_rows, batch_size, s, seed=5) for s in range(40)])
    for epoch in range(len(stream) // n_rows):
        rows = stream[epoch * n_rows : (epoch + 1) * n_rows]
        assert sorted(rows.tolist()) == list(range(n_rows))


def test_epochs_and_seeds_have_different_orders():
    first, second = (rows_of_step(50, 50, step, seed=0) for step in (0, 1))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, rows_of_step(50, 50, 0, seed=1))


def test_rows_depend_on_seed_and_step_only():
    wanted = rows_of_step(20, 6, 17, seed=3)
    np.random.default_rng(0).random(5)
    rows_of_step(20, 6, 4, seed=3)
    assert np.array_equal(rows_of_step(20, 6, 17, seed=3), wanted)


def test_rows_do_not_depend_on_how_the_stream_is_cut_into_batches():
    whole = rows_of_step(9, 24, 0, seed=2)
    parts = np.concatenate([rows_of_step(9, 4, step, seed=2) for step in range(6)])
    assert np.array_equal(whole, parts)


def test_a_step_draws_the_same_again_and_steps_are_independent():
    draws = [step_rng(1, step).random(2000) for step in (0, 1)]
    assert np.array_equal(draws[0], step_rng(1, 0).random(2000))
    assert abs(np.corrcoef(draws)[0, 1]) < 0.1


def test_latent_noise_is_reproducible_and_standard_normal():
    def draw(seed, step):
        noise = latent_noise(seed, step, CPU, torch.float32)
        return torch.cat([noise(group(4, 2, 8, 8)).flatten(), noise(group(4, 2, 16, 16)).flatten()])

    base = draw(0, 3)
    assert torch.equal(base, draw(0, 3))
    assert abs(float(base.mean())) < 0.06
    assert abs(float(base.std()) - 1) < 0.05
    for other in (draw(0, 4), draw(1, 3)):
        assert abs(float(torch.corrcoef(torch.stack([base, other]))[0, 1])) < 0.06


def test_latent_noise_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    latent_noise(0, 0, CPU, torch.float32)(group(2, 2, 4, 4))
    image_noise(0, np.arange(2), CPU, torch.float32)(group(2, 2, 4, 4))
    assert torch.equal(torch.get_rng_state(), before)


def test_image_noise_belongs_to_the_row_and_not_to_the_batch():
    def draw(rows, seed=0):
        noise = image_noise(seed, np.array(rows), CPU, torch.float64)
        shapes = [(2, 1, 1), (2, 4, 4)]  # visited in this order, as in a model
        return torch.cat([noise(group(len(rows), *s)).flatten(1) for s in shapes], dim=1)

    together = draw([5, 2, 9])
    assert together.dtype == torch.float64
    for position, row in enumerate((5, 2, 9)):
        assert torch.equal(draw([row])[0], together[position])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(draw([5], seed=1)[0], together[0])


def test_image_noise_is_not_the_noise_of_a_training_step():
    row = image_noise(0, np.array([3]), CPU, torch.float32)(group(1, 2, 8, 8))
    step = latent_noise(0, 3, CPU, torch.float32)(group(1, 2, 8, 8))
    assert not torch.equal(row, step)
