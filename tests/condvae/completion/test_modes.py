from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from condvae.completion import find_modes
from condvae.completion import modes as module

MASK = np.zeros((16, 16), dtype=bool)
MASK[:8] = True


def draw(centres, counts, noise, seed=0, shape=(16, 16, 1)):
    """Completions around planted centres, and the group of each."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    pixels = np.asarray(centres)[groups] + noise * rng.standard_normal((len(groups), *shape))
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8), groups


def planted(count):
    rng = np.random.default_rng(5)
    coarse = rng.integers(60, 200, (count, 4, 4, 1)).astype(float)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


@pytest.mark.parametrize("counts", [(9, 7), (10, 4, 2), (6, 5, 3, 2)])
def test_planted_groups_are_found_with_their_shares(counts):
    completions, groups = draw(planted(len(counts)), counts, noise=12.0)
    modes = find_modes(completions, MASK)
    assert [mode.share for mode in modes] == [count / sum(counts) for count in counts]
    # Larger groups come first, so the place is the group.
    assert [groups[mode.medoid] for mode in modes] == list(range(len(counts)))


def test_medoid_is_the_completion_closest_to_the_others():
    completions, groups = draw(planted(2), (9, 7), noise=12.0)
    features = module._low_pass(completions, MASK)
    for group, mode in enumerate(find_modes(completions, MASK)):
        members = np.flatnonzero(groups == group)
        distances = np.linalg.norm(features[members][:, None] - features[members], axis=2)
        assert mode.medoid == members[distances.sum(axis=1).argmin()]


def test_what_is_observed_and_grain_do_not_count():
    completions, _ = draw(planted(2), (9, 7), noise=12.0)
    nothing_differs = completions.copy()
    nothing_differs[:, 8:] = 100
    assert find_modes(nothing_differs, MASK) == [module.Mode(0, 1.0)]
    large = completions.repeat(16, axis=1).repeat(16, axis=2)
    grain = np.random.default_rng(0).integers(-40, 41, large.shape)
    noisy = np.clip(large.astype(int) + grain, 0, 255).astype(np.uint8)
    found = find_modes(noisy, MASK.repeat(16, axis=0).repeat(16, axis=1))
    assert [mode.share for mode in found] == [9 / 16, 7 / 16]


@pytest.mark.parametrize("scale", ["wide", "narrow"])
def test_one_gaussian_cloud_is_rarely_cut(scale):
    # At most 5 % in the long run; 8 of 60 would be exceeded in 0.3 % of all seeds.
    cut = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        directions = rng.standard_normal((4 if scale == "narrow" else 60, 16, 16, 1))
        lengths = np.geomspace(40, 5, len(directions))
        weights = rng.standard_normal((16, len(directions))) * lengths
        pixels = 127 + np.einsum("sd,dhwc->shwc", weights, directions) / 4
        completions = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        cut += len(find_modes(completions, np.zeros((16, 16), bool))) > 1
    assert cut <= 8


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_completions_are_one_group(count):
    completions, _ = draw(planted(count), (1,) * count, noise=0.0)
    modes = find_modes(completions, MASK)
    assert len(modes) == 1
    assert modes[0].share == 1.0


def test_no_completions_are_refused():
    with pytest.raises(ValueError, match="expected at least one"):
        find_modes(np.zeros((0, 16, 16, 1), np.uint8), MASK)


def test_further_completions_join_the_nearest_medoid():
    completions, _ = draw(planted(2), (120, 60), noise=12.0)
    modes = find_modes(completions, MASK)
    assert [mode.share for mode in modes] == [120 / 180, 60 / 180]
    assert all(mode.medoid < module.MOST_CLUSTERED for mode in modes)
    assert find_modes(completions, MASK) == modes


def test_partition_is_the_best_there_is():
    features = np.random.default_rng(2).standard_normal((9, 3))
    distances = module._distances(module._gram(features))
    np.testing.assert_allclose(
        distances, np.linalg.norm(features[:, None] - features, axis=2), atol=1e-7
    )
    for count in (1, 2, 3):
        costs = {
            chosen: distances[:, chosen].min(axis=1).sum()
            for chosen in itertools.combinations(range(9), count)
        }
        found = tuple(sorted(module._medoids(distances, count).tolist()))
        assert costs[found] == pytest.approx(min(costs.values()))


def test_silhouette_is_scikit_learns():
    rng = np.random.default_rng(3)
    features, groups = rng.standard_normal((12, 4)), np.array([0] * 6 + [1] * 5 + [2])
    distances = np.linalg.norm(features[:, None] - features, axis=2)
    expected = silhouette_score(distances, groups, metric="precomputed")
    assert module._mean_silhouette(distances, groups, 3) == pytest.approx(expected)
