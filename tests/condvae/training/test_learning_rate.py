import pytest

from condvae.training.config import TrainingConfig
from condvae.training.loop import learning_rate_at


def rates(**settings):
    config = TrainingConfig(learning_rate=0.8, **settings)
    return [learning_rate_at(config, step) for step in range(config.steps)]


def test_warmup_rises_linearly_and_its_last_step_has_the_peak():
    assert rates(steps=6, warmup_steps=4) == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])


def test_no_warmup_starts_at_the_peak():
    assert rates(steps=3, warmup_steps=0) == [0.8, 0.8, 0.8]


def test_cosine_goes_from_the_peak_through_half_to_zero():
    config = TrainingConfig(learning_rate=0.8, steps=110, warmup_steps=10, schedule="cosine")
    assert learning_rate_at(config, 10) == pytest.approx(0.8)
    assert learning_rate_at(config, 60) == pytest.approx(0.4)
    assert 0.0 < learning_rate_at(config, 109) < 0.8 * 0.001
    assert learning_rate_at(config, 110) == pytest.approx(0.0, abs=1e-12)


def test_cosine_never_rises_after_the_warmup():
    after = rates(steps=50, warmup_steps=5, schedule="cosine")[4:]
    assert after == sorted(after, reverse=True)


def test_every_restart_halves_the_rate_of_every_step():
    config = TrainingConfig(learning_rate=0.8, steps=50, warmup_steps=5, schedule="cosine")
    for step in (0, 4, 5, 30, 49):
        own = learning_rate_at(config, step)
        assert learning_rate_at(config, step, 0) == own
        assert learning_rate_at(config, step, 3) == pytest.approx(own / 8, rel=1e-12)


def test_a_run_shorter_than_its_warmup_keeps_rising():
    assert rates(steps=2, warmup_steps=4, schedule="cosine") == pytest.approx([0.2, 0.4])
