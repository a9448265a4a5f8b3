"""Every attribute has embeddings of its own; "unknown" is one of them; dropping has its shares."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from condvae.cvae.conditions import ConditionEncoder, drop
from condvae.ground.attributes import BINARY, Attribute
from condvae.ground.configuration import ConfigurationError

NAN = math.nan
ATTRIBUTES = (
    Attribute("class", ("0", "1", "2", "3")),
    Attribute("age"),
    Attribute("odd", BINARY),
    Attribute("width"),
    Attribute("slant", ("left", "upright", "right")),
)
COUNTS = [4, 0, 2, 0, 3]


def draw_conditions(n):
    rng = np.random.default_rng(0)
    columns = [rng.integers(c, size=n) if c else rng.normal(size=n) for c in COUNTS]
    y = np.stack(columns, axis=1)
    return torch.from_numpy(np.where(rng.random(y.shape) < 0.3, NAN, y)).float()


@pytest.fixture
def encoder():
    return ConditionEncoder(ATTRIBUTES, 6).double()


def test_parts_are_rows_of_the_table(encoder):
    # Rows: class 0-3 and unknown, age and unknown, odd 0-1 and unknown, width and unknown, slant ...
    first = [0, 5, 7, 10, 12]
    slope = {1: encoder.slopes[0], 3: encoder.slopes[1]}
    y = draw_conditions(40).double()
    for row, parts in zip(y, encoder.embed(y), strict=True):
        for a, value in enumerate(row.tolist()):
            if math.isnan(value):
                expected = encoder.embeddings[first[a] + (COUNTS[a] or 1)]
            elif a in slope:
                expected = encoder.embeddings[first[a]] + value * slope[a]
            else:
                expected = encoder.embeddings[first[a] + int(value)]
            torch.testing.assert_close(parts[a], expected)
    assert len(encoder.embeddings) == 12 + 4


@pytest.mark.parametrize("changed", range(5))
def test_an_attribute_changes_its_own_part_only(encoder, changed):
    y = torch.tensor([[1, 0.3, 0, -0.7, 2]])
    for value in (0.0, NAN) if changed != 2 else (1.0, NAN):
        other = y.clone()
        other[0, changed] = value
        differs = (encoder.embed(y) != encoder.embed(other)).any(dim=-1)[0]
        assert differs.tolist() == [a == changed for a in range(5)]


@pytest.mark.parametrize("order", [[4, 2, 0, 1, 3], [3, 1, 2, 0, 4]])
def test_permuting_attributes_permutes_their_embeddings_only(encoder, order):
    permuted = ConditionEncoder([ATTRIBUTES[a] for a in order], 6).double()
    permuted.load_state_dict(
        encoder.state_dict()
        | {
            "embeddings": torch.cat([embeddings_of(encoder, a) for a in order]),
            "slopes": encoder.slopes[[[1, 3].index(a) for a in order if a in (1, 3)]],
        }
    )
    y = draw_conditions(30).double()
    torch.testing.assert_close(permuted.embed(y[:, order]), encoder.embed(y)[:, order])
    torch.testing.assert_close(permuted(y[:, order]), encoder(y))


def embeddings_of(encoder, a):
    ends = np.cumsum([(count or 1) + 1 for count in COUNTS])
    return encoder.embeddings[ends[a] - (COUNTS[a] or 1) - 1 : ends[a]]


def test_unknown_differs_from_every_value(encoder):
    columns = [[*range(count), NAN] if count else [-1.0, 0.0, 1.0, NAN] for count in COUNTS]
    for a, values in enumerate(columns):
        y = torch.full((len(values), 5), NAN)
        y[:, a] = torch.tensor(values)
        for parts in (encoder.embed(y)[:, a], encoder(y)):
            distances = torch.cdist(parts, parts) + torch.eye(len(values))
            assert distances.min() > 1e-3


def test_continuous_values_are_linear_before_mixing(encoder):
    y = torch.tensor([[NAN, v, NAN, NAN, NAN] for v in (0.0, 1.0, 3.0)])
    zero, one, three = encoder.embed(y)[:, 1]
    torch.testing.assert_close(three - zero, 3 * (one - zero))


@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_any_batch_size(encoder, n):
    y = draw_conditions(7)
    features = encoder(y[:n])
    assert features.shape == (n, 6)
    torch.testing.assert_close(features, encoder(y)[:n])


def test_every_weight_is_reached(encoder):
    values = [[0, 0.5, 0, 0.5, 0], [1, -0.5, 1, -0.5, 1], [2, 0, 0, 0, 2], [3, 0, 0, 0, 0]]
    encoder(torch.tensor([*values, [NAN] * 5])).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad.abs().sum(dim=-1).min() > 0, name
        assert parameter.grad.isfinite().all(), name


def test_what_does_not_fit_is_refused_by_name(encoder):
    wrong = draw_conditions(3)
    wrong[2, 4] = 3
    with pytest.raises(ConfigurationError, match=r"'slant' of condition 2 = 3.0: expected 0 to 2"):
        encoder(wrong)
    with pytest.raises(ConfigurationError, match=r"expected floating point and \(B, 5\)"):
        encoder(wrong[:, :4])
    with pytest.raises(ConfigurationError, match=r"attributes = \(\): expected at least one"):
        ConditionEncoder((), 6)
    with pytest.raises(ConfigurationError, match="features = 0"):
        ConditionEncoder(ATTRIBUTES, 0)


def test_only_one_kind_of_attribute():
    assert ConditionEncoder(ATTRIBUTES[1:2], 3)(torch.tensor([[0.5], [NAN]])).shape == (2, 3)
    assert ConditionEncoder(ATTRIBUTES[:1], 3)(torch.tensor([[3.0], [NAN]])).shape == (2, 3)


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_partial_conditions_of_every_size_are_equally_common(share):
    n, a = 20_000, 3
    y = torch.arange(n * a, dtype=torch.float32).reshape(n, a)
    lost = drop(y, share, generator(0)).isnan()
    error = 5 * 0.5 / math.sqrt(n)
    np.testing.assert_allclose(lost.float().mean(dim=0), share / 2, atol=error)
    sizes = lost.sum(dim=1).bincount(minlength=a + 1) / n
    expected = share / (a + 1) + np.array([1 - share, 0, 0, 0])
    np.testing.assert_allclose(sizes, expected, atol=error)
    # No value is favoured: given how many are lost, each of them is as likely.
    for k in (1, 2):
        np.testing.assert_allclose(
            lost[lost.sum(dim=1) == k].float().mean(dim=0), k / a, atol=4 * error
        )


def test_dropping_is_decided_by_the_generator():
    y = draw_conditions(50)
    before, state = y.clone(), torch.get_rng_state()
    once, again = (drop(y, 0.3, generator(1)) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, drop(y, 0.3, generator(2)), equal_nan=True)
    np.testing.assert_array_equal(y, before)
    assert torch.equal(state, torch.get_rng_state())
    kept = ~once.isnan()
    assert torch.equal(once[kept], y[kept])


def test_ends_of_the_share():
    y = draw_conditions(50)
    np.testing.assert_array_equal(drop(y, 0.0, generator(0)), y)
    assert drop(y[:0], 0.5, generator(0)).shape == (0, 5)
    for share in (-0.1, 1.1, NAN):
        with pytest.raises(ConfigurationError, match=r"drop_share = .*expected in \[0, 1\]"):
            drop(y, share, generator(0))
