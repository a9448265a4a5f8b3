from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch_fidelity

from condvae.ground.configuration import ConfigurationError
from condvae.scores.discrimination import held_out_discrimination, in_sample_discrimination
from condvae.scores.extraction import extract_features
from condvae.scores.fidelity import density_coverage, kernel_distance, precision_recall
from condvae.scores.fidelity_extractor import register_with_torch_fidelity
from condvae.scores.frechet import frechet_distance, frechet_infinity


def kernel(x, y):
    return (x @ y.T / x.shape[1] + 1) ** 3


def squared_mmd(a, b):
    """Unbiased squared MMD, sum by sum."""
    n, m = len(a), len(b)
    within_a = sum(kernel(a[[i]], a[[j]]).item() for i in range(n) for j in range(n) if i != j)
    within_b = sum(kernel(b[[i]], b[[j]]).item() for i in range(m) for j in range(m) if i != j)
    return within_a / (n * (n - 1)) + within_b / (m * (m - 1)) - 2 * kernel(a, b).mean()


class Images(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def test_equals_torch_fidelity_on_the_same_images(trained, digits):
    network, _ = trained
    truths = digits[1][0]
    noise = torch.randn(truths.shape, generator=torch.Generator().manual_seed(0))
    noisy = (truths + 40 * noise).clamp(0, 255).to(torch.uint8)
    register_with_torch_fidelity("digits_for_fidelity", network)
    expected = torch_fidelity.calculate_metrics(
        input1=Images(noisy),
        input2=Images(truths),
        feature_extractor="digits_for_fidelity",
        kid=True,
        kid_subset_size=len(truths),
        kid_subsets=1,
        prc=True,
        cuda=False,
        verbose=False,
    )
    features = [extract_features(network, images)["features"] for images in (noisy, truths)]
    distance = kernel_distance(*features, extractor="digits")
    assert distance.value == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-5)
    assert distance.value > 10 * distance.standard_error > 0
    assert distance.settings == {"subset_size": 360, "subsets": 1}
    precision, recall = precision_recall(*features, extractor="digits", splits=2)
    assert precision.value == pytest.approx(expected["precision"], abs=1e-6)
    assert recall.value == pytest.approx(expected["recall"], abs=1e-6)
    assert 0 < precision.value < 1
    assert (precision.extractor, precision.settings, precision.n) == (
        "digits",
        {"neighbours": 3},
        360,
    )


def test_subsets_are_torch_fidelitys():
    a, b = np.random.default_rng(0).normal(size=(2, 1100, 3))
    score = kernel_distance(a, b, extractor="x", subsets=4, seed=2020)
    expected = torch_fidelity.metric_kid.kid_features_to_metric(
        torch.from_numpy(a), torch.from_numpy(b), kid_subsets=4, verbose=False
    )
    assert score.value == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-12)
    assert score.settings == {"subset_size": 1000, "subsets": 4}
    assert score.standard_error != pytest.approx(expected["kernel_inception_distance_std"], rel=0.1)


def test_kernel_distance_of_gaussians_in_closed_form():
    # In one dimension (xy + 1)^3 compares three moments: 3 d1^2 + 3 d2^2 + d3^2.
    mean, sd = 0.5, 1.3
    moments = np.array([mean, mean**2 + sd**2, mean**3 + 3 * mean * sd**2])
    expected = (np.array([3, 3, 1]) * (moments - [0, 1, 0]) ** 2).sum()
    generator = np.random.default_rng(1)
    scores = [
        kernel_distance(
            generator.normal(mean, sd, size=(300, 1)),
            generator.normal(size=(300, 1)),
            extractor="x",
            paired=False,
        )
        for _ in range(40)
    ]
    values, errors = np.array([(s.value, s.standard_error) for s in scores]).T
    assert values.mean() == pytest.approx(expected, abs=3 * values.std() / math.sqrt(40))
    assert errors.mean() == pytest.approx(values.std(), rel=0.3)


def test_kernel_distance_of_equal_laws_is_near_zero():
    generator = np.random.default_rng(2)
    values = [
        kernel_distance(*generator.normal(size=(2, 60, 4)), extractor="x").value for _ in range(100)
    ]
    assert min(values) < 0 < max(values)
    assert np.mean(values) == pytest.approx(0, abs=3 * np.std(values) / 10)


@pytest.mark.parametrize("paired", [True, False])
def test_jackknife_leaves_units_out(paired):
    generator = np.random.default_rng(3)
    a, b = generator.normal(size=(12, 2)), generator.normal(1, 1, size=(12, 2))
    images = np.repeat([7, 3, 5, 9], [1, 4, 2, 5]) if paired else np.arange(12)
    score = kernel_distance(a, b, extractor="x", paired=paired, clusters=images if paired else None)
    assert score.value == pytest.approx(squared_mmd(a, b), rel=1e-9)

    def variance(values):
        count = len(values)
        return (count - 1) / count * ((values - np.mean(values)) ** 2).sum()

    names = np.unique(images)
    if paired:
        without = [squared_mmd(a[images != i], b[images != i]) for i in names]
        expected = variance(without)
    else:
        expected = variance([squared_mmd(np.delete(a, i, 0), b) for i in names])
        expected += variance([squared_mmd(a, np.delete(b, i, 0)) for i in names])
    assert score.standard_error == pytest.approx(math.sqrt(expected), rel=1e-9)


def test_pairs_lower_the_kernel_distance_as_stated():
    generator = np.random.default_rng(4)
    a = generator.normal(size=(50, 3))
    own = np.mean(np.diag(kernel(a, a)))
    strangers = (kernel(a, a).sum() - 50 * own) / (50 * 49)
    score = kernel_distance(a, a.copy(), extractor="x")
    assert score.value == pytest.approx(-2 / 50 * (own - strangers), rel=1e-9)


def test_without_pairs_the_kernel_distance_of_equal_laws_is_zero_on_average():
    generator = np.random.default_rng(12)
    images = np.repeat(np.arange(20), 2)
    values = {True: [], False: []}
    for _ in range(300):
        shared = generator.normal(size=(20, 3))[images]
        a, b = shared + 0.3 * generator.normal(size=(2, 40, 3))
        for keep, found in values.items():
            score = kernel_distance(a, b, extractor="x", clusters=images, keep_pairs=keep)
            found.append(score.value)
    assert score.settings == {"pairs": 0}
    without, published = np.array(values[False]), np.array(values[True])
    assert without.mean() == pytest.approx(0, abs=3 * without.std() / math.sqrt(300))
    assert published.mean() < -10 * published.std() / math.sqrt(300)
    assert published.mean() < 0 - 3 * without.std() / math.sqrt(300)


def test_without_pairs_products_and_jackknife_are_those_of_other_images():
    generator = np.random.default_rng(13)
    a, b = generator.normal(size=(12, 2)), generator.normal(1, 1, size=(12, 2))
    images = np.repeat([7, 3, 5, 9], [1, 4, 2, 5])

    def distance(rows):
        x, y, own = a[rows], b[rows], images[rows]
        other = own[:, None] != own
        return (kernel(x, x) + kernel(y, y) - 2 * kernel(x, y))[other].mean()

    score = kernel_distance(a, b, extractor="x", clusters=images, keep_pairs=False)
    assert score.value == pytest.approx(distance(np.arange(12)), rel=1e-9)
    without = np.array([distance(np.flatnonzero(images != i)) for i in np.unique(images)])
    variance = 3 / 4 * np.square(without - without.mean()).sum()
    assert score.standard_error == pytest.approx(math.sqrt(variance), rel=1e-9)


def test_precision_and_recall_tell_missing_modes_from_wrong_ones():
    generator = np.random.default_rng(5)
    truths = generator.normal(size=(200, 2)) + 50 * (np.arange(200) % 2)[:, None]
    one_mode = generator.normal(size=(200, 2))
    precision, recall = precision_recall(one_mode, truths, extractor="x", splits=0)
    assert precision.value > 0.8
    assert 0.3 < recall.value <= 0.5
    assert math.isnan(precision.standard_error)
    astray = np.where((np.arange(200) < 100)[:, None], truths, 1000.0 + one_mode)
    precision, recall = precision_recall(astray, truths, extractor="x", splits=0)
    assert precision.value == 0.5
    assert recall.value > 0.7


def test_density_and_coverage_by_hand():
    truths = np.array([[0.0], [1.0], [3.0], [10.0]])
    drawn = np.array([[0.5], [0.6], [2.0], [50.0]])
    # k = 1: radii 1, 1, 2, 7; open balls (-1, 1), (0, 2), (1, 5), (3, 17)
    density, coverage = density_coverage(drawn, truths, extractor="x", neighbours=1, splits=0)
    assert density.value == pytest.approx((2 + 2 + 1 + 0) / 4)
    assert coverage.value == pytest.approx(3 / 4)
    assert density.settings == {"neighbours": 1}


def test_density_and_coverage_of_equal_laws():
    # Whatever the law: E density = 1, E coverage = 1 - prod_{i=1..k} (n - i) / (2 n - i).
    generator = np.random.default_rng(6)
    n, k = 60, 5
    values = np.array(
        [
            [
                score.value
                for score in density_coverage(
                    *generator.exponential(size=(2, n, 3)), extractor="x", splits=0
                )
            ]
            for _ in range(200)
        ]
    )
    expected = [1, 1 - np.prod([(n - i) / (2 * n - i) for i in range(1, k + 1)])]
    np.testing.assert_allclose(
        values.mean(0), expected, atol=3 * values.std(0).max() / math.sqrt(200)
    )


@pytest.mark.parametrize("score", [precision_recall, density_coverage])
def test_neighbour_scores_standard_errors_are_the_spread_over_repetitions(score):
    generator = np.random.default_rng(7)

    def draw(splits):
        return score(
            generator.normal(0.4, 0.8, size=(120, 2)),
            generator.normal(size=(120, 2)),
            extractor="x",
            paired=False,
            splits=splits,
        )

    values = np.array([[s.value for s in draw(0)] for _ in range(150)])
    errors = np.array([[s.standard_error for s in draw(20)] for _ in range(8)])
    np.testing.assert_allclose(errors.mean(0), values.std(0), rtol=0.35)


def test_images_that_share_rows_count_once():
    generator = np.random.default_rng(8)
    a, b = generator.normal(size=(2, 40, 2)) + np.array([0.3, 0.0])[:, None, None]
    images = np.repeat(np.arange(40), 3)
    a, b = a[images] + 1e-3 * generator.normal(size=(120, 2)), b[images]
    b = b + 1e-3 * generator.normal(size=(120, 2))
    clustered = kernel_distance(a, b, extractor="x", clusters=images)
    naive = kernel_distance(a, b, extractor="x")
    ratio = clustered.standard_error / naive.standard_error
    assert ratio == pytest.approx(math.sqrt(3), rel=0.1)


def test_nothing_is_cached(tmp_path, monkeypatch):
    # torch-fidelity's cache knows inputs by a name only and would return the numbers of others.
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    generator = np.random.default_rng(9)
    for shift in (0.0, 5.0):
        a, b = generator.normal(size=(2, 60, 2)) + np.array([shift, 0.0])[:, None, None]
        assert (kernel_distance(a, b, extractor="same name").value > 1) == (shift > 0)
        assert (precision_recall(a, b, extractor="same name", splits=2)[0].value < 0.5) == (
            shift > 0
        )
        assert (frechet_distance(a, b, extractor="same name", resamples=0).value > 5) == (shift > 0)
    assert list(tmp_path.rglob("*")) == []


def test_rows_sorted_by_class_do_not_matter():
    # The first rows of a file sorted by class are another law than the whole.
    generator = np.random.default_rng(10)
    classes = np.repeat([0.0, 4.0, -4.0, 8.0], 300)[:, None]
    a, b = generator.normal(size=(2, 1200, 2)) + classes
    shuffled = b[generator.permutation(1200)]
    for call in (frechet_infinity, kernel_distance):  # both take some of the rows
        options = {"repeats": 2} if call is frechet_infinity else {"subsets": 5}
        first = call(a[:300], shuffled[:300], extractor="x", paired=False, **options)
        whole = call(a, shuffled, extractor="x", paired=False, **options)
        assert first.value > 5
        assert abs(whole.value) < first.value / 10
    errors = [
        density_coverage(a, other, extractor="x", paired=False, splits=4)[1].standard_error
        for other in (b, shuffled)
    ]
    assert max(errors) < 0.05  # halves are random too


def test_every_score_names_its_extractor_and_takes_images():
    a, b = np.random.default_rng(11).normal(size=(2, 40, 2))
    images = np.repeat(np.arange(20), 2)
    calls = (
        frechet_distance,
        frechet_infinity,
        kernel_distance,
        precision_recall,
        density_coverage,
        in_sample_discrimination,
        held_out_discrimination,
    )
    for call in calls:
        result = call(a, b, extractor="net_12345678", clusters=images)
        for score in result if isinstance(result, tuple) else (result,):
            assert score.extractor == "net_12345678"
            assert score.n == 40
            assert score.standard_error > 0
        assert result == call(a, b, extractor="net_12345678", clusters=images)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: kernel_distance(a[:1], a[:1], extractor="x"), "1 rows of features"),
        (lambda a: kernel_distance(a, a, extractor="x", subsets=0), "subsets = 0"),
        (
            lambda a: kernel_distance(a, a, extractor="x", paired=False, keep_pairs=False),
            "keep_pairs = False",
        ),
        (
            lambda a: kernel_distance(a, a, extractor="x", clusters=[0] * 9, keep_pairs=False),
            "1 units",
        ),
        (lambda a: precision_recall(a[:3], a[:3], extractor="x"), "at least 4"),
        (lambda a: precision_recall(a, a[:, :1], extractor="x"), "2 and 1 dimensions"),
        (lambda a: density_coverage(a, a, extractor="x", neighbours=0), "neighbours = 0"),
        (lambda a: density_coverage(a, a, extractor="x", splits=-1), "splits = -1"),
        (lambda a: density_coverage(a, np.ones(9), extractor="x"), "reference of shape"),
    ],
)
def test_bad_features_are_refused(call, message):
    with pytest.raises(ConfigurationError, match=message):
        call(np.ones((9, 2)))
