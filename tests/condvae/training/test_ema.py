import pytest
import torch
from torch import nn

from condvae.training.ema import WeightAverage


class Scalar(nn.Module):
    def __init__(self, value=2.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(value, dtype=torch.float64))
        self.frozen = nn.Parameter(torch.tensor(7.0), requires_grad=False)


def follow(decay, values, *, warmup):
    module = Scalar()
    average = WeightAverage(module, decay, warmup=warmup)
    for t, value in enumerate(values):
        with torch.no_grad():
            module.weight.fill_(value)
        average.update(t)
    return module, average


def test_constant_weight_has_a_geometric_closed_form():
    _, average = follow(0.9, [5.0] * 12, warmup=False)
    assert float(average.values["weight"]) == pytest.approx(5.0 + (2.0 - 5.0) * 0.9**12, rel=1e-12)


def test_moving_weight_is_the_weighted_sum_of_its_past():
    values = [1.0, -3.0, 4.0, 0.5]
    _, average = follow(0.7, values, warmup=False)
    expected = 0.7**4 * 2.0 + sum(0.3 * 0.7 ** (3 - t) * v for t, v in enumerate(values))
    assert float(average.values["weight"]) == pytest.approx(expected, rel=1e-12)


def test_warmup_uses_short_averages_first():
    values = [1.0, -3.0, 4.0, 0.5]
    _, average = follow(0.2, values, warmup=True)
    decays = [1 / 10, 2 / 11, 0.2, 0.2]  # (1 + t) / (10 + t) until it reaches the decay
    expected = 2.0
    for decay, value in zip(decays, values, strict=True):
        expected = decay * expected + (1 - decay) * value
    assert float(average.values["weight"]) == pytest.approx(expected, rel=1e-12)


def test_warmup_forgets_the_random_start():
    with_warmup = follow(0.999, [0.0] * 50, warmup=True)[1]
    without = follow(0.999, [0.0] * 50, warmup=False)[1]
    assert float(with_warmup.values["weight"]) < 1e-6
    assert float(without.values["weight"]) == pytest.approx(2.0 * 0.999**50)


def test_decay_zero_is_the_latest_value():
    _, average = follow(0.0, [0.1, 1 / 3], warmup=False)
    assert float(average.values["weight"]) == 1 / 3


def test_frozen_parameters_are_not_stored():
    assert set(WeightAverage(Scalar(), 0.9, warmup=False).values) == {"weight"}


def test_applied_gives_the_averages_and_then_the_own_weights_back():
    module, average = follow(0.5, [4.0], warmup=False)
    with average.applied():
        assert module.weight.item() == 3.0
        assert module.frozen.item() == 7.0
    assert module.weight.item() == 4.0


def test_applied_restores_after_an_error():
    module, average = follow(0.5, [4.0], warmup=False)
    with pytest.raises(ZeroDivisionError), average.applied():
        raise ZeroDivisionError
    assert module.weight.item() == 4.0


def test_load_copies_values_in():
    _, average = follow(0.5, [4.0], warmup=False)
    saved = {"weight": torch.tensor(1.5, dtype=torch.float64)}
    average.load(saved)
    average.update(0)
    assert float(average.values["weight"]) == pytest.approx(2.75)
    assert float(saved["weight"]) == 1.5


def test_loaded_averages_take_no_part_in_gradients():
    module = torch.nn.Linear(2, 1)
    average = WeightAverage(module, 0.9, warmup=False)
    average.load(dict(module.named_parameters()))  # parameters, which require gradients
    assert not any(value.requires_grad for value in average.values.values())
