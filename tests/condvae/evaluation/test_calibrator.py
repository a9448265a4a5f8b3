import numpy as np
import pytest
import torch

from condvae.evaluation import calibrator as calibrating
from condvae.evaluation import largest_bank, usable_draws
from condvae.ground.configuration import ConfigurationError
from condvae.scores.extraction import extract_features

N, DRAWS, SIZE = 7, 8, 10


@pytest.fixture
def cases(make_case):
    # Seven images; of the last nothing is observed.
    return [make_case(i, 20 + i, rows) for i, rows in enumerate([2, 5, 9, 7, 1, 4, 0])]


@pytest.mark.parametrize(
    ("completions", "expected"),
    [
        *((2, 2), (3, 3), (4, 4), (5, 5), (6, 6)),
        *((7, 7), (10, 10), (16, 16), (18, 18), (19, 19)),
        # 21 ranks make 7 bins or 21; 23, 29 and 101 ranks cannot be divided.
        *((20, 19), (22, 21), (28, 27), (99, 99), (100, 99), (1000, 1000)),
    ],
)
def test_usable_draws(completions, expected):
    assert usable_draws(completions) == expected


def test_usable_draws_are_the_most_whose_ranks_can_be_divided():
    def divisible(draws):
        return any((draws + 1) / bins == (draws + 1) // bins for bins in range(8, 21))

    for completions in range(7, 130):
        draws = usable_draws(completions)
        assert divisible(draws)
        assert not any(divisible(more) for more in range(draws + 1, completions + 1))


def test_the_largest_bank_takes_256_mib_as_float64():
    for values in (1, 256, 3072, 196_608):
        assert largest_bank(values) * values * 8 <= 2**28 < (largest_bank(values) + 1) * values * 8
    assert largest_bank(2**40) == 1


def draw(channels, make_pixels):
    truths = make_pixels(N, channels, SIZE, seed=1)
    drawn = make_pixels(DRAWS * N, channels, SIZE, seed=2).reshape(DRAWS, N, -1).numpy()
    return truths, drawn


def features_of(network, truths, drawn):
    images = torch.from_numpy(drawn).reshape(-1, *truths.shape[1:])
    layers = ("features", "logits")
    of_draws = extract_features(network, images, layers=layers)
    of_truths = extract_features(network, truths, layers=layers)
    return {n: (v.reshape(DRAWS, N, -1), of_truths[n]) for n, v in of_draws.items()}


def rank_all(calibrator, drawn, found, step, classes=True):
    """Ranks of all cases, and coverage and gaps side by side, `step` cases at a time."""
    parts = []
    for start in range(0, N, step):
        here = slice(start, start + step)
        some = {name: (v[:, here], true[here]) for name, (v, true) in found.items()}
        logits = some["logits"] if classes else None
        parts.append(calibrator.rank(start, drawn[:, here], *some["features"], logits))
    ranks = {name: np.concatenate([part[0][name] for part in parts]) for name in parts[0][0]}
    return ranks, np.concatenate([np.hstack(part[1:]) for part in parts])


@pytest.mark.parametrize("channels", [1, 3])
def test_ranks_do_not_depend_on_the_chunks(
    channels, cases, make_pixels, make_network, make_calibrator
):
    network = make_network(channels)
    truths, drawn = draw(channels, make_pixels)
    calibrator = make_calibrator(cases, truths, network=network)
    found = features_of(network, truths, drawn)
    expected, covered = rank_all(calibrator, drawn, found, N)
    for step in (1, 3):
        ranks, shares = rank_all(calibrator, drawn, found, step)
        assert list(ranks) == list(expected)
        for name, values in expected.items():
            np.testing.assert_array_equal(ranks[name], values, err_msg=name)
        np.testing.assert_array_equal(shares, covered)
    hidden = channels * np.array([(~case.mask).sum() for case in cases])
    assert covered.shape == (N, 4 + 2)  # levels, gaps
    assert (covered[:, :4] <= hidden[:, None]).all()
    assert (np.diff(covered[:, :4], axis=1) > 0).all()


def test_without_logits_only_the_class_statistic_is_missing(
    cases, make_pixels, network, make_calibrator
):
    truths, drawn = draw(1, make_pixels)
    calibrator = make_calibrator(cases, truths)
    found = features_of(network, truths, drawn)
    with_classes, _ = rank_all(calibrator, drawn, found, N)
    without, _ = rank_all(calibrator, drawn, found, N, classes=False)
    assert set(with_classes) - set(without) == {"class_probability"}
    for name, values in without.items():
        np.testing.assert_array_equal(with_classes[name], values)


class References:
    """Remembers what distances are taken to."""

    def __init__(self, monkeypatch):
        self.found = []
        for name in ("rank_pixels", "rank_features"):
            monkeypatch.setattr(calibrating, name, self._remember(getattr(calibrating, name)))

    def _remember(self, function):
        def remember(view, **settings):
            self.found += [view.references.copy(), view.other_references.copy()]
            return function(view, **settings)

        return remember


def test_references_are_functions_of_what_is_observed(
    cases, make_pixels, network, make_calibrator, monkeypatch
):
    truths, drawn = draw(1, make_pixels)
    others = make_pixels(N, 1, SIZE, seed=3)
    masks = torch.tensor(np.stack([case.mask for case in cases]))[:, None]
    changed = torch.where(masks, truths, others)
    bank = make_pixels(6, 1, SIZE, seed=77)
    references = References(monkeypatch)
    for images in (truths, changed):
        calibrator = make_calibrator(cases, images, bank=bank)
        rank_all(calibrator, drawn, features_of(network, images, drawn), N)
    seen = references.found
    for first, second in zip(seen[:4], seen[4:], strict=True):
        np.testing.assert_array_equal(first, second)
    near, far, near_features, far_features = seen[:4]
    for n, case in enumerate(cases):
        gaps = (bank[:, 0].numpy().astype(float) - truths[n, 0].numpy())[:, case.mask]
        closest = int(np.square(gaps).sum(axis=1).argmin())
        np.testing.assert_array_equal(near[n], bank[closest].flatten())
    of_bank = extract_features(network, torch.from_numpy(near).reshape(N, 1, SIZE, SIZE))
    np.testing.assert_allclose(near_features, of_bank["features"], rtol=1e-6)
    # The other references are those of other images: the same rows, none in its place.
    order = [int(np.flatnonzero((near_features == row).all(axis=1))[0]) for row in far_features]
    np.testing.assert_array_equal(far, near[order])
    assert len(np.unique(near, axis=0)) > 2


def test_references_follow_what_is_observed(cases, make_pixels, make_calibrator, network):
    truths, drawn = draw(1, make_pixels)
    bank = make_pixels(6, 1, SIZE, seed=77)
    # The truths are images of the bank: where anything is observed they are their own references.
    truths[:6] = bank[[3, 1, 4, 5, 2, 0]]
    calibrator = make_calibrator(cases, truths, bank=bank)
    ranks, _ = rank_all(calibrator, drawn, features_of(network, truths, drawn), N)
    np.testing.assert_array_equal(ranks["tarp_y_pixels"][:6], 0)
    np.testing.assert_array_equal(ranks["tarp_y_features"][:6], 0)
    assert ranks["tarp_other_pixels"][:6].any()


def test_a_bank_too_large_is_thinned_out_at_random(
    cases, make_pixels, make_calibrator, network, monkeypatch
):
    truths, drawn = draw(1, make_pixels)
    found = features_of(network, truths, drawn)
    # Sorted by class, so to say: 30 dark images, then 30 bright ones.
    bank = torch.cat([torch.full((30, 1, SIZE, SIZE), v, dtype=torch.uint8) for v in (0, 255)])
    bright = torch.full_like(truths, 255)
    monkeypatch.setattr(calibrating, "BANK_VALUES", 12 * SIZE * SIZE)
    references = References(monkeypatch)
    rank_all(make_calibrator(cases, bright, bank=bank), drawn, found, N)
    rank_all(make_calibrator(cases, bright, bank=bank), drawn, found, N)
    near, again = references.found[0], references.found[4]
    assert (near[:6] == 255).all()
    np.testing.assert_array_equal(near, again)


def test_too_many_cases_of_one_image_are_refused(make_case, make_pixels, make_calibrator):
    cases = [make_case(i, image, 4) for i, image in enumerate([1, 1, 1, 2, 3])]
    with pytest.raises(ConfigurationError, match="3 of 5 cases share an image"):
        make_calibrator(cases, make_pixels(5, 1, SIZE))


def test_references_do_not_depend_on_the_blocks_they_are_looked_for_in(
    cases, make_pixels, network, make_calibrator, monkeypatch
):
    truths, drawn = draw(1, make_pixels)
    references = References(monkeypatch)
    for values in (2**22, 3 * SIZE**2, 1):
        monkeypatch.setattr(calibrating, "VALUES_AT_ONCE", values)
        calibrator = make_calibrator(cases, truths)
        rank_all(calibrator, drawn, features_of(network, truths, drawn), N)
    whole, *others = references.found[::4]
    assert len(others) == 2
    for found in others:
        np.testing.assert_array_equal(found, whole)
