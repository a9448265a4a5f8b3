"""Tables from scores made by hand; every expected number is worked out beside it."""

import math

import numpy as np
import pytest

from condvae.evaluation import (
    COMPARISON_COLUMNS,
    CaseScores,
    compare,
    list_case_scores,
    tabulate,
)
from condvae.evaluation.bins import POOLED, group_cases
from condvae.evaluation.tables import _set_interval
from condvae.ground.configuration import ConfigurationError
from condvae.scores.definitions import METRICS
from condvae.scores.feature_scores import FeatureScore

FACTS = {"k": 8, "temperature": 1.0, "seed": 5, "manifest": "quick"}
FACTS["extractors"] = {"features": "toy_f2", "perceptual": "toy_maps", "classes": "toy_classes"}
COLUMNS = {
    *("metric", "bin", "sampler", "value", "standard_error", "low", "high", "level", "n", "k"),
    *("temperature", "extractor", "settings", "seed", "manifest"),
}
BOUND = "bound_bits_per_unobserved_dim"
ELBO = "negative_elbo_nats_per_dim"
NATS = np.array([1.0, 3.0, 2.0, 6.0])
BITS = np.array([300.0, 90.0, 100.0, 20.0])
DIMENSIONS = np.array([100.0, 90.0, 50.0, 40.0])
SQUARES = np.array([400.0, 810.0, 800.0, 160.0])
BEST = np.array([0.5, 0.1, 0.2, 0.4])
FEATURES = np.zeros((4, 2), np.float32)
BINS = ("0_20", "40_60", "pooled")


@pytest.fixture
def cases(make_case):
    # Two images, each in two bins: 0 and 10 % observed, then 50 % both.
    return [make_case(0, 7, 0), make_case(1, 8, 1), make_case(2, 7, 5), make_case(3, 8, 5)]


def make_scores(*, better_by=0.0, agreement=True, features=FEATURES, truth_features=FEATURES):
    values = {
        ELBO: NATS - better_by,
        BOUND: BITS - better_by * DIMENSIONS,
        "bound_10_bits_per_unobserved_dim": BITS - DIMENSIONS,
        "posterior_mean_rmse": SQUARES,
        "observed_error": np.array([0.0, 30.0, 50.0, 100.0]),
        "perceptual_best_of_k": BEST - better_by,
        "perceptual_diversity": np.array([1.0, 1.0, 2.0, 2.0]),
    }
    weights = dict.fromkeys(
        (BOUND, "bound_10_bits_per_unobserved_dim", "posterior_mean_rmse"), DIMENSIONS
    )
    weights["observed_error"] = 100 - DIMENSIONS
    if agreement:
        values["class_agreement"] = np.array([1.0, 0.0, 0.5, 0.5])
    return CaseScores(
        values, weights, features, truth_features, np.empty((4, 0), np.int64), {}, np.empty((4, 2))
    )


def table(scores, cases, *, level=0.9, facts=FACTS):
    return tabulate(scores, cases, facts, level=level)


def row(rows, **wanted):
    found = [r for r in rows if all(r[k] == v for k, v in wanted.items())]
    assert len(found) == 1, (wanted, found)
    return found[0]


def test_groups_are_the_bins_that_have_cases_and_all(cases):
    found = group_cases(cases)
    expected = {"0_20": [0, 1], "40_60": [2, 3], POOLED: [0, 1, 2, 3]}
    assert list(found) == list(expected) == list(BINS)
    for name, numbers in expected.items():
        assert found[name].tolist() == numbers


def test_means_are_per_bin_and_pooled(cases):
    rows = table({"ipa": make_scores()}, cases)
    for name, mean, n in (("0_20", 2.0, 2), ("40_60", 4.0, 2), ("pooled", 3.0, 4)):
        found = row(rows, metric=ELBO, bin=name)
        assert found["value"] == pytest.approx(mean)
        assert found["n"] == n
    assert row(rows, metric="perceptual_best_of_k", bin="pooled")["value"] == pytest.approx(0.3)
    assert row(rows, metric="class_agreement", bin="0_20")["value"] == pytest.approx(0.5)
    assert row(rows, metric="perceptual_diversity", bin="40_60")["value"] == pytest.approx(2.0)


def test_ratios_are_ratios_of_sums_not_means_of_ratios(cases):
    rows = table({"ipa": make_scores()}, cases)
    for name, value in (("0_20", 390 / 190), ("40_60", 120 / 90), ("pooled", 510 / 280)):
        found = row(rows, metric=BOUND, bin=name)
        assert found["value"] == pytest.approx(value)
        weighted = row(rows, metric="bound_10_bits_per_unobserved_dim", bin=name)
        assert weighted["value"] == pytest.approx(value - 1)
    assert np.mean(BITS / DIMENSIONS) != pytest.approx(510 / 280, rel=0.01)
    for name, value in (("0_20", 30 / 10), ("40_60", 150 / 110), ("pooled", 180 / 120)):
        assert row(rows, metric="observed_error", bin=name)["value"] == pytest.approx(value)


def test_roots_are_taken_of_the_pooled_ratio(cases):
    rows = table({"ipa": make_scores()}, cases)
    for name, mean_square in (("0_20", 1210 / 190), ("40_60", 960 / 90), ("pooled", 2170 / 280)):
        root = row(rows, metric="posterior_mean_rmse", bin=name)
        noise = row(rows, metric="posterior_mean_psnr", bin=name)
        assert root["value"] == pytest.approx(math.sqrt(mean_square))
        assert noise["value"] == pytest.approx(20 * math.log10(255 / math.sqrt(mean_square)))
        # A small error is a large signal-to-noise ratio: the ends change places.
        assert noise["low"] == pytest.approx(20 * math.log10(255 / root["high"]))
        assert noise["high"] == pytest.approx(20 * math.log10(255 / root["low"]))
        assert root["low"] < root["value"] < root["high"]
        assert noise["low"] < noise["value"] < noise["high"]
    # 40_60: the residuals 800 - 50 m and 160 - 40 m of the mean square m are opposite numbers.
    mean_square = 960 / 90
    error = 2 * (800 - 50 * mean_square) / 90
    found = row(rows, metric="posterior_mean_rmse", bin="40_60")
    assert found["standard_error"] == pytest.approx(error / (2 * math.sqrt(mean_square)))


def test_a_case_without_error_has_no_finite_signal_to_noise_ratio(cases):
    scores = make_scores()
    scores.values["posterior_mean_rmse"] = np.zeros(4)
    rows = table({"ipa": scores}, cases)
    root = row(rows, metric="posterior_mean_rmse", bin="pooled")
    assert (root["value"], root["low"], root["high"]) == (0.0, 0.0, 0.0)
    assert row(rows, metric="posterior_mean_psnr", bin="pooled")["value"] == math.inf


def test_a_bin_where_nothing_is_observed_has_no_error_there(make_case):
    cases = [make_case(0, 7, 0), make_case(1, 8, 0), make_case(2, 7, 5), make_case(3, 8, 5)]
    scores = make_scores()
    scores.weights["observed_error"] = np.array([0.0, 0.0, 50.0, 50.0])
    rows = table({"ipa": scores}, cases)
    assert [r["bin"] for r in rows if r["metric"] == "observed_error"] == ["40_60", "pooled"]


def test_standard_errors_take_the_image_as_the_unit(cases):
    # Pooled: images 7 and 8 have sums of residuals (1-3)+(2-3) = -3 and (3-3)+(6-3) = 3.
    rows = table({"ipa": make_scores()}, cases)
    pooled = row(rows, metric=ELBO, bin="pooled")
    assert pooled["standard_error"] == pytest.approx(math.sqrt(2 / 1 * (9 + 9)) / 4)
    # In a bin each image occurs once: the usual standard error of two values.
    alone = row(rows, metric=ELBO, bin="40_60")
    assert alone["standard_error"] == pytest.approx(np.std([2, 6], ddof=1) / math.sqrt(2))
    # Of a ratio m too: image 7 has the residual (300 - 100 m) + (100 - 50 m), image 8 its opposite.
    found = row(rows, metric=BOUND, bin="pooled")
    assert found["standard_error"] == pytest.approx(2 * (400 - 150 * 510 / 280) / 280)
    # Resampling two images gives both, or one of them twice: their means are the ends.
    assert (pooled["low"], pooled["high"]) == pytest.approx((1.5, 4.5))


@pytest.fixture
def rng():
    return np.random.default_rng(4)


def random_scores(cases, rng, *, features=2, shift=(0.3,)):
    n = len(cases)
    truths = rng.normal(size=(n, features)).astype(np.float32)
    weights = np.array([float((~case.mask).sum()) for case in cases])
    return CaseScores(
        {
            ELBO: rng.normal(3, 1, n),
            BOUND: weights * rng.gamma(2, 1, n),
            "posterior_mean_rmse": weights * rng.gamma(3, 10, n),
            "posterior_coverage": weights * rng.beta(9, 1, n),
            "perceptual_diversity": rng.gamma(2, 1, n),
        },
        dict.fromkeys((BOUND, "posterior_mean_rmse", "posterior_coverage"), weights),
        truths + np.array(shift, np.float32),
        truths,
        np.empty((n, 0), np.int64),
        {},
        np.empty((n, 2)),
    )


def test_intervals_hold_their_values(make_case, rng):
    cases = [make_case(i, i % 40, (3, 7)[i // 40]) for i in range(80)]
    rows = table({"ipa": random_scores(cases, rng)}, cases, level=0.95)
    assert {r["bin"] for r in rows} == {"20_40", "60_80", "pooled"}
    for r in rows:
        bounds = METRICS[r["metric"]].bounds
        assert r["level"] == 0.95
        if METRICS[r["metric"]].kind != "set":
            # About 2 * 1.96 standard errors wide.
            assert 3 < (r["high"] - r["low"]) / r["standard_error"] < 5, r
        elif r["metric"] != "posterior_mean_psnr" and not r["standard_error"] > 0:
            assert math.isnan(r["low"]), r
            assert math.isnan(r["high"]), r
            continue
        assert r["low"] <= r["value"] <= r["high"], r
        assert np.clip([r["low"], r["high"]], *bounds).tolist() == [r["low"], r["high"]], r
    wide = table({"ipa": random_scores(cases, rng)}, cases, level=0.5)
    assert row(wide, metric="frechet_distance", bin="pooled")["level"] == 0.5


def test_intervals_of_sets_come_from_resamples_or_standard_errors_within_bounds():
    def interval(metric, value, error, resamples=()):
        score = FeatureScore(value, error, 50, "x", {}, tuple(resamples))
        found = _set_interval(metric, score, 0.9)
        assert found.level == 0.9
        return found.low, found.high

    # The middle of 0, 0.1, ..., 20 is 10 and moves to 12; 5 % and 95 % are 9 away.
    resamples = np.arange(201) / 10
    assert interval("frechet_distance", 12.0, 1.0, resamples) == pytest.approx((3.0, 21.0))
    assert interval("frechet_distance", 4.0, 1.0, resamples) == pytest.approx((0.0, 13.0))
    reach = 1.6448536
    assert interval("frechet_distance", 4.0, 1.0, resamples[:9]) == pytest.approx(
        (4 - reach, 4 + reach)
    )
    assert interval("precision", 0.95, 0.1) == pytest.approx((0.95 - 0.1 * reach, 1.0))
    assert interval("kernel_distance", 0.0, 0.1) == pytest.approx((-0.1 * reach, 0.1 * reach))
    for error in (0.0, math.nan):
        assert np.isnan(interval("p_ids", 0.0, error)).all()


def test_metrics_of_collections_only_where_there_are_enough_images(make_case, rng, caplog):
    def bins(images, features):
        # 24 cases in one bin, 12 in the other.
        cases = [make_case(i, i % images, 3 if i < 24 else 7) for i in range(36)]
        caplog.clear()
        with caplog.at_level("INFO", logger="condvae.evaluation.tables"):
            rows = table({"ipa": random_scores(cases, rng, features=features)}, cases)
        found = {}
        for r in rows:
            if METRICS[r["metric"]].kind == "set" and r["metric"] != "posterior_mean_psnr":
                found.setdefault(r["bin"], set()).add(r["metric"])
                assert r["n"] == min(images, 24 if r["bin"] == "20_40" else 36)
        return found

    everything = {
        *("frechet_distance", "frechet_distance_infinity", "kernel_distance"),
        *("precision", "recall", "density", "manifold_coverage"),
        *("p_ids", "u_ids", "p_ids_held_out", "u_ids_held_out"),
    }
    assert bins(36, 2) == {"20_40": everything, "pooled": everything}
    # 8 features need 16 images, their extrapolation 32; 13 need 26, theirs 52.
    without = everything - {"frechet_distance_infinity"}
    assert bins(36, 8) == {"20_40": without, "pooled": everything}
    any_size = without - {"frechet_distance", "p_ids", "u_ids"}
    assert bins(36, 13) == {"20_40": any_size, "pooled": without}
    (message,) = caplog.messages
    assert message.startswith("ipa: ")
    assert "60_80: all, which need 16 images and have 12" in message
    assert "20_40: of 24 images with 13 features frechet_distance needs 26" in message
    assert "pooled: of 36 images with 13 features frechet_distance_infinity needs 52" in message
    assert bins(16, 2) == {"20_40": everything, "pooled": everything}
    assert bins(15, 2) == {}


def test_the_frechet_distance_of_shifted_features_is_the_squared_shift(make_case, rng):
    cases = [make_case(i, i, 3) for i in range(24)]
    scores = random_scores(cases, rng, shift=(3, 4))
    found = row(table({"ipa": scores}, cases), metric="frechet_distance", bin="pooled")
    assert found["value"] == pytest.approx(3.0**2 + 4.0**2, abs=1e-3)
    assert found["standard_error"] == pytest.approx(0.0, abs=1e-3)  # rows are resampled in pairs
    assert (found["k"], found["n"], found["extractor"]) == (1, 24, "toy_f2")
    assert found["settings"] == ""
    folds = row(table({"ipa": scores}, cases), metric="u_ids_held_out", bin="pooled")
    assert folds["settings"] == '{"folds": 5}'


def test_columns_say_what_a_number_belongs_to(cases):
    rows = table({"ipa": make_scores(), "prior": make_scores(better_by=-1)}, cases, level=0.8)
    assert all(set(r) == COLUMNS for r in rows)
    draws = {ELBO: 1, BOUND: 1, "bound_10_bits_per_unobserved_dim": 10}
    extractors = {
        **dict.fromkeys(("perceptual_best_of_k", "perceptual_diversity"), "toy_maps"),
        "class_agreement": "toy_classes",
    }
    for r in rows:
        assert r["k"] == draws.get(r["metric"], 8)
        assert r["extractor"] == extractors.get(r["metric"], "pixels")
        assert (r["temperature"], r["seed"], r["manifest"], r["level"]) == (1.0, 5, "quick", 0.8)
    keys = [(r["metric"], r["bin"], r["sampler"]) for r in rows]
    assert len(keys) == len(set(keys))
    # Rows of a group follow the order of the definitions, the headline first.
    order = [list(METRICS).index(r["metric"]) for r in rows if r["sampler"] == "ipa"]
    per_group = len(order) // len(BINS)
    assert order[:per_group] == sorted(order[:per_group])


def test_bins_without_cases_and_unknown_labels_give_no_row(cases):
    rows = table({"ipa": make_scores(agreement=False)}, cases)
    assert {r["bin"] for r in rows} == set(BINS)
    assert "class_agreement" not in {r["metric"] for r in rows}


def test_the_order_of_the_cases_does_not_matter(cases):
    order = [2, 0, 3, 1]
    scores = make_scores()
    shuffled = CaseScores(
        {name: value[order] for name, value in scores.values.items()},
        {name: weight[order] for name, weight in scores.weights.items()},
        *(scores.features[order], scores.truth_features[order], scores.predictions, {}),
        scores.gaps[order],
    )
    first = table({"ipa": scores}, cases)
    second = table({"ipa": shuffled}, [cases[i] for i in order])
    for a, b in zip(first, second, strict=True):
        for name in COLUMNS:
            assert a[name] == (pytest.approx(b[name]) if isinstance(b[name], float) else b[name])


def test_a_constant_difference_is_found_exactly(cases):
    scores = {"ipa": make_scores(better_by=0.25), "prior": make_scores()}
    rows = compare(scores, cases, level=0.9, seed=1)
    assert {r["metric"] for r in rows} == {BOUND, ELBO, "perceptual_best_of_k", "class_agreement"}
    assert all(set(r) == set(COMPARISON_COLUMNS) for r in rows)
    for metric in (ELBO, BOUND, "perceptual_best_of_k"):
        for name in BINS:
            found = row(rows, metric=metric, bin=name)
            # The first sampler is better where lower is better: the difference is negative.
            for key in ("difference", "low", "high"):
                assert found[key] == pytest.approx(-0.25, rel=1e-9)
            assert found["standard_error"] == pytest.approx(0.0, abs=1e-9)
    elbo = row(rows, metric=ELBO, bin="pooled")
    assert elbo["relative_difference"] == pytest.approx(-0.25 / 3.0)
    assert (elbo["sampler_a"], elbo["sampler_b"]) == ("ipa", "prior")
    assert (elbo["level"], elbo["n"]) == (0.9, 4)
    same = row(rows, metric="class_agreement", bin="pooled")
    assert same["difference"] == same["low"] == same["high"] == 0.0


def test_the_difference_of_the_bound_is_that_of_the_tabulated_ratios(cases):
    worse = make_scores()
    worse.values[BOUND] = BITS + np.array([10.0, 50.0, 0.0, 7.0])
    scores = {"ipa": make_scores(), "untrained": worse}
    rows = table(scores, cases)
    for name in BINS:
        a = row(rows, metric=BOUND, bin=name, sampler="ipa")["value"]
        b = row(rows, metric=BOUND, bin=name, sampler="untrained")["value"]
        found = row(compare(scores, cases, level=0.95, seed=1), metric=BOUND, bin=name)
        assert found["difference"] == pytest.approx(a - b)
        assert found["relative_difference"] == pytest.approx((a - b) / b)
        assert found["low"] <= found["difference"] <= found["high"]


def test_every_other_sampler_is_compared_with_the_reference(cases):
    scores = {"prior": make_scores(), "ipa": make_scores(), "untrained": make_scores()}
    pairs = {(r["sampler_a"], r["sampler_b"]) for r in compare(scores, cases, level=0.9, seed=0)}
    assert pairs == {("ipa", "prior"), ("ipa", "untrained")}
    turned = compare(scores, cases, level=0.9, seed=0, reference="prior")
    assert {r["sampler_b"] for r in turned} == {"ipa", "untrained"}
    assert compare({"ipa": make_scores()}, cases, level=0.9, seed=0) == []
    with pytest.raises(ConfigurationError, match="reference = 'ipa': expected one of prior"):
        compare({"prior": make_scores()}, cases, level=0.9, seed=0)


def test_a_score_that_one_sampler_lacks_is_not_compared(cases):
    scores = {"ipa": make_scores(), "prior": make_scores(agreement=False)}
    rows = compare(scores, cases, level=0.9, seed=0)
    assert "class_agreement" not in {r["metric"] for r in rows}


def test_case_scores_have_a_row_per_case_sampler_and_metric(cases):
    scores = {"ipa": make_scores(), "prior": make_scores(agreement=False)}
    columns = list_case_scores(scores, cases)
    assert list(columns) == [
        *("case_id", "image_id", "image_sha256", "bin", "observed_share"),
        *("sampler", "metric", "value", "weight"),
    ]
    assert {len(column) for column in columns.values()} == {4 * (8 + 7)}
    rows = [dict(zip(columns, entry, strict=True)) for entry in zip(*columns.values(), strict=True)]
    found = row(rows, case_id="q-1", sampler="ipa", metric=BOUND)
    assert found == {
        "case_id": "q-1",
        "image_id": 8,
        "image_sha256": f"{8:064x}",
        "bin": "0_20",
        "observed_share": 0.1,
        "sampler": "ipa",
        "metric": BOUND,
        "value": 90.0,
        "weight": 90.0,
    }
    assert row(rows, case_id="q-3", sampler="prior", metric="perceptual_best_of_k")["weight"] == 1.0


def test_tabulated_numbers_follow_from_the_case_scores(cases):
    scores = {"ipa": make_scores()}
    columns = {name: np.array(column) for name, column in list_case_scores(scores, cases).items()}
    rows = table(scores, cases)
    for metric in set(columns["metric"]):
        for name in BINS:
            here = columns["metric"] == metric
            here &= (columns["bin"] == name) | (name == "pooled")
            value = columns["value"][here].sum() / columns["weight"][here].sum()
            if METRICS[metric].kind == "root":
                value = math.sqrt(value)
            assert value == pytest.approx(row(rows, metric=metric, bin=name)["value"]), metric
