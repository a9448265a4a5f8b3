from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.special
import torch
import torch_fidelity

from condvae.ground.configuration import ConfigurationError
from condvae.scores.extraction import extract_features
from condvae.scores.fidelity_extractor import register_with_torch_fidelity
from condvae.scores.frechet import frechet_distance, frechet_infinity


def exact_sample(n, mean, root, seed):
    """n rows whose sample mean and covariance are exactly `mean` and root @ root.T."""
    z = np.random.default_rng(seed).normal(size=(n, len(mean)))
    z -= z.mean(0)
    z = z @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(z, rowvar=False)))).T
    return mean + z @ root.T


def test_axis_aligned_gaussians_in_closed_form():
    mean_a, mean_b = np.array([1.0, 0.0, -2.0]), np.array([0.0, 0.5, -2.0])
    sd_a, sd_b = np.array([1.0, 2.0, 0.5]), np.array([3.0, 2.0, 0.25])
    a = exact_sample(50, mean_a, np.diag(sd_a), 0)
    b = exact_sample(80, mean_b, np.diag(sd_b), 1)
    expected = ((mean_a - mean_b) ** 2).sum() + ((sd_a - sd_b) ** 2).sum()
    score = frechet_distance(a, b, paired=False, resamples=0)
    assert score.value == pytest.approx(expected, rel=1e-9)
    assert score.n == 50
    assert math.isnan(score.standard_error)


def test_any_gaussians_against_the_matrix_square_root():
    generator = np.random.default_rng(2)
    roots = generator.normal(size=(2, 6, 6))
    a = exact_sample(40, np.zeros(6), roots[0], 3)
    b = exact_sample(40, np.full(6, 0.3), roots[1], 4)
    cov_a, cov_b = (root @ root.T for root in roots)
    cross = scipy.linalg.sqrtm(cov_a @ cov_b).real
    expected = 6 * 0.09 + np.trace(cov_a + cov_b - 2 * cross)
    assert frechet_distance(a, b, resamples=0).value == pytest.approx(expected, rel=1e-8)


def test_one_feature():
    a, b = (
        exact_sample(20, np.zeros(1), np.eye(1), 0),
        exact_sample(20, np.ones(1), 3 * np.eye(1), 1),
    )
    assert frechet_distance(a, b, resamples=0).value == pytest.approx(1 + 4)


def test_standard_error_is_the_spread_over_repetitions():
    generator = np.random.default_rng(5)
    values = []
    for _ in range(400):
        a, b = generator.normal(size=(150, 2)), generator.normal(1, 1.5, size=(150, 2))
        values.append(frechet_distance(a, b, resamples=0).value)
    errors = [
        frechet_distance(
            generator.normal(size=(150, 2)), generator.normal(1, 1.5, size=(150, 2)), paired=False
        ).standard_error
        for _ in range(20)
    ]
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)


def test_weighting_rows_is_repeating_them():
    a, b = np.random.default_rng(8).normal(size=(2, 30, 3))
    score = frechet_distance(a, b, resamples=5, seed=9)
    generator, values = np.random.default_rng(9), []
    for _ in range(5):
        rows = np.repeat(np.arange(30), generator.multinomial(30, np.full(30, 1 / 30)))
        values.append(frechet_distance(a[rows], b[rows], resamples=0).value)
    assert score.standard_error == pytest.approx(np.std(values, ddof=1), rel=1e-9)
    assert score.resamples == pytest.approx(values, rel=1e-9)


def test_paired_rows_are_resampled_together():
    a = np.random.default_rng(6).normal(size=(60, 3))
    same = frechet_distance(a, a.copy(), resamples=50)
    assert same.value == pytest.approx(0, abs=1e-9)
    assert same.standard_error == pytest.approx(0, abs=1e-9)
    apart = frechet_distance(a, a.copy(), paired=False, resamples=50)
    assert apart.standard_error > 0.01
    moved = frechet_distance(a, a + 1.0, resamples=50)  # the shift is the same in any resample
    assert moved.standard_error == pytest.approx(0, abs=1e-9)


def test_the_seed_fixes_the_standard_error():
    a, b = np.random.default_rng(7).normal(size=(2, 50, 4))
    first = frechet_distance(a, b, resamples=20, seed=1)
    assert first == frechet_distance(a, b, resamples=20, seed=1)
    assert first.standard_error != frechet_distance(a, b, resamples=20, seed=2).standard_error


def test_few_rows_are_taken_when_forced():
    a, b = np.random.default_rng(10).normal(size=(2, 5, 4))
    forced = frechet_distance(a, b, resamples=0, force=True, extractor="net")
    assert forced.value > 0
    assert (forced.n, forced.extractor) == (5, "net")


def test_bias_falls_as_one_over_n_and_is_taken_out_by_extrapolation():
    generator = np.random.default_rng(11)
    plain, extrapolated = {}, {}
    for n in (80, 320):
        scores = []
        for _ in range(30):
            a, b = generator.normal(size=(2, n, 4))
            scores.append(
                (
                    frechet_distance(a, b, resamples=0).value,
                    frechet_infinity(a, b, extractor="x", paired=False, repeats=2).value,
                )
            )
        plain[n], extrapolated[n] = np.array(scores).T
    assert plain[80].mean() == pytest.approx(4 * plain[320].mean(), rel=0.25)
    for values, biased in ((extrapolated[n], plain[n]) for n in plain):
        assert values.mean() == pytest.approx(0, abs=3 * values.std() / math.sqrt(30))
        assert abs(values.mean()) < 0.2 * biased.mean()


def test_extrapolation_finds_the_distance_of_gaussians():
    sd, mean = np.array([2.0, 0.5, 1.0]), np.array([0.0, 1.0, -1.0])
    expected = (mean**2).sum() + ((sd - 1) ** 2).sum()
    generator = np.random.default_rng(12)
    scores = [
        frechet_infinity(
            generator.normal(mean, sd, size=(150, 3)),
            generator.normal(size=(150, 3)),
            extractor="x",
            paired=False,
            repeats=10 if i < 8 else 2,
        )
        for i in range(60)
    ]
    values = np.array([score.value for score in scores])
    assert values.mean() == pytest.approx(expected, abs=3 * values.std() / math.sqrt(60))
    errors = [score.standard_error for score in scores[:8]]
    assert np.mean(errors) == pytest.approx(values.std(), rel=0.35)
    assert scores[0].settings == {"parts": 5, "repeats": 10}
    assert scores[0].n == 150


def test_extrapolation_keeps_images_together():
    generator = np.random.default_rng(13)
    images = np.repeat(np.arange(40), 5)
    a, b = generator.normal(size=(2, 40, 2)) + np.array([1.0, 0.0])[:, None, None]
    a, b = (x[images] + 0.01 * generator.normal(size=(200, 2)) for x in (a, b))
    clustered = frechet_infinity(a, b, extractor="x", clusters=images)
    naive = frechet_infinity(a, b, extractor="x")
    assert clustered.standard_error > 1.5 * naive.standard_error
    assert clustered.value < naive.value  # five times fewer images have five times the bias
    assert clustered == frechet_infinity(a, b, extractor="x", clusters=images)


class Images(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def test_equals_torch_fidelity_on_the_same_images(trained, digits):
    network, card = trained
    truths = digits[1][0]
    noise = torch.randn(truths.shape, generator=torch.Generator().manual_seed(0))
    noisy = (truths + 20 * noise).clamp(0, 255).to(torch.uint8)
    register_with_torch_fidelity(card.extractor, network)
    register_with_torch_fidelity(card.extractor, network)  # again replaces
    expected = torch_fidelity.calculate_metrics(
        input1=Images(noisy),
        input2=Images(truths),
        feature_extractor=card.extractor,
        fid=True,
        isc=True,
        isc_splits=1,
        kid=True,
        kid_subset_size=100,
        cuda=False,
        save_cpu_ram=True,
        verbose=False,
    )
    ours = frechet_distance(
        extract_features(network, noisy)["features"],
        extract_features(network, truths)["features"],
        resamples=0,
    )
    assert ours.value == pytest.approx(expected["frechet_inception_distance"], rel=1e-5)
    assert ours.value > 0.1
    logits = extract_features(network, noisy, layers=("logits",))["logits"].astype(np.float64)
    classes = scipy.special.softmax(logits, axis=1)
    gain = (classes * np.log(classes / classes.mean(0))).sum(1).mean()
    assert expected["inception_score_mean"] == pytest.approx(np.exp(gain), rel=1e-5)
    assert expected["kernel_inception_distance_mean"] > 0


def test_torch_fidelity_own_names_are_kept(trained):
    with pytest.raises(ConfigurationError, match="'vgg16' is one of torch-fidelity's own"):
        register_with_torch_fidelity("vgg16", trained[0])


def test_a_registered_network_does_not_change_with_the_original(trained):
    network, _ = trained
    before = {name: value.requires_grad for name, value in network.named_parameters()}
    register_with_torch_fidelity("copy_of_digits", network)
    torch_fidelity.utils.create_feature_extractor(
        "copy_of_digits", ["features"], cuda=False, verbose=False
    )
    assert {name: value.requires_grad for name, value in network.named_parameters()} == before


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        (np.ones((63, 32)), np.ones((90, 32)), {}, "63 rows .* 32 dimensions: .* at least 64"),
        (np.ones((9, 2)), np.ones((9, 3)), {}, "2 and 3 dimensions"),
        (np.ones((9, 2)), np.ones((8, 2)), {}, "9 and 8 rows"),
        (np.ones(9), np.ones((8, 2)), {}, r"features_a of shape \(9,\)"),
        (np.ones((9, 2)), np.full((9, 2), np.nan), {}, "features_b: contains values"),
        (np.ones((9, 2)), np.ones((9, 2)), {"resamples": -1}, "resamples = -1"),
    ],
)
def test_bad_features_are_refused(a, b, options, message):
    with pytest.raises(ConfigurationError, match=message):
        frechet_distance(a, b, **options)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((127, 32), {}, "127 rows .* 32 dimensions: .* at least 128"),
        ((7, 1), {}, "7 independent images"),
        ((16, 1), {"clusters": np.repeat(np.arange(4), 4)}, "4 independent images"),
        ((16, 1), {"repeats": 0}, "repeats = 0"),
    ],
)
def test_too_little_to_extrapolate_is_refused(shape, options, message):
    a, b = np.random.default_rng(0).normal(size=(2, *shape))
    with pytest.raises(ConfigurationError, match=message):
        frechet_infinity(a, b, extractor="x", **options)
