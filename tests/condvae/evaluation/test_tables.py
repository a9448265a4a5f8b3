"""Tables from scores made by hand; every expected number is worked out beside it."""

import math

import numpy as np
import pytest

from condvae.evaluation import METRIC_DEFINITIONS, CaseScores, compare, list_case_scores, tabulate

FACTS = {"k": 8, "temperature": 1.0, "extractor": "toy_f2", "seed": 5, "manifest": "quick"}
COLUMNS = {
    *("metric", "bin", "sampler", "value", "standard_error", "n", "k"),
    *("temperature", "extractor", "seed", "manifest"),
}
ELBO = np.array([1.0, 3.0, 2.0, 6.0])
BITS = np.array([300.0, 90.0, 100.0, 20.0])
DIMENSIONS = np.array([100.0, 90.0, 50.0, 40.0])
BEST = np.array([0.5, 0.1, 0.2, 0.4])
TRUTH_FEATURES = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [3.0, 3.0]], np.float32)
SHIFT = np.array([3.0, 4.0], np.float32)


@pytest.fixture
def cases(make_case):
    # Two images, each in two bins: 0 and 10 % observed, then 50 % both.
    return [make_case(0, 7, 0), make_case(1, 8, 1), make_case(2, 7, 5), make_case(3, 8, 5)]


def make_scores(*, better_by=0.0, agreement=True, features=TRUTH_FEATURES + SHIFT):
    values = {
        "negative_elbo_nats_per_dim": ELBO - better_by,
        "bound_bits": BITS - better_by * DIMENSIONS,
        "perceptual_best_of_k": BEST - better_by,
        "perceptual_diversity": np.array([1.0, 1.0, 2.0, 2.0]),
    }
    if agreement:
        values["class_agreement"] = np.array([1.0, 0.0, 0.5, 0.5])
    return CaseScores(values, DIMENSIONS, features, TRUTH_FEATURES[:, : features.shape[1]])


def row(rows, **wanted):
    found = [r for r in rows if all(r[k] == v for k, v in wanted.items())]
    assert len(found) == 1, (wanted, found)
    return found[0]


def test_means_are_per_bin_and_pooled(cases):
    rows = tabulate({"ipa": make_scores()}, cases, FACTS)
    for name, mean, n in (("0_20", 2.0, 2), ("40_60", 4.0, 2), ("pooled", 3.0, 4)):
        found = row(rows, metric="negative_elbo_nats_per_dim", bin=name)
        assert found["value"] == pytest.approx(mean)
        assert found["n"] == n
    assert row(rows, metric="perceptual_best_of_k", bin="pooled")["value"] == pytest.approx(0.3)
    assert row(rows, metric="class_agreement", bin="0_20")["value"] == pytest.approx(0.5)
    assert row(rows, metric="perceptual_diversity", bin="40_60")["value"] == pytest.approx(2.0)


def test_the_bound_is_a_ratio_of_sums_not_a_mean_of_ratios(cases):
    rows = tabulate({"ipa": make_scores()}, cases, FACTS)
    for name, value in (("0_20", 390 / 190), ("40_60", 120 / 90), ("pooled", 510 / 280)):
        found = row(rows, metric="bound_bits_per_unobserved_dim", bin=name)
        assert found["value"] == pytest.approx(value)
    assert np.mean(BITS / DIMENSIONS) != pytest.approx(510 / 280, rel=0.01)
    assert not [r for r in rows if r["metric"] == "bound_bits"]


def test_standard_errors_take_the_image_as_the_unit(cases):
    # Pooled: images 7 and 8 have sums of residuals (1-3)+(2-3) = -3 and (3-3)+(6-3) = 3.
    rows = tabulate({"ipa": make_scores()}, cases, FACTS)
    pooled = row(rows, metric="negative_elbo_nats_per_dim", bin="pooled")
    assert pooled["standard_error"] == pytest.approx(math.sqrt(2 / 1 * (9 + 9)) / 4)
    # In a bin each image occurs once: the usual standard error of two values.
    alone = row(rows, metric="negative_elbo_nats_per_dim", bin="40_60")
    assert alone["standard_error"] == pytest.approx(np.std([2, 6], ddof=1) / math.sqrt(2))


def test_frechet_distance_only_where_there_are_enough_cases(cases):
    rows = tabulate({"ipa": make_scores()}, cases, FACTS)
    assert [r["bin"] for r in rows if r["metric"] == "frechet_distance"] == ["pooled"]
    narrow = make_scores(features=(TRUTH_FEATURES + SHIFT)[:, :1])
    rows = tabulate({"ipa": narrow}, cases, FACTS)
    bins = [r["bin"] for r in rows if r["metric"] == "frechet_distance"]
    assert bins == ["0_20", "40_60", "pooled"]
    wide = make_scores(features=np.ones((4, 3), np.float32))
    rows = tabulate({"ipa": wide}, cases, FACTS)
    assert not [r for r in rows if r["metric"] == "frechet_distance"]


def test_frechet_distance_of_shifted_features_is_the_squared_shift(cases):
    rows = tabulate({"ipa": make_scores()}, cases, FACTS)
    found = row(rows, metric="frechet_distance", bin="pooled")
    assert found["value"] == pytest.approx(3.0**2 + 4.0**2, abs=1e-4)
    assert found["standard_error"] == pytest.approx(0.0, abs=1e-4)  # rows are resampled in pairs


def test_columns_say_what_a_number_belongs_to(cases):
    rows = tabulate({"ipa": make_scores(), "prior": make_scores(better_by=-1)}, cases, FACTS)
    assert all(set(r) == COLUMNS for r in rows)
    assert {r["metric"] for r in rows} == set(METRIC_DEFINITIONS)
    for r in rows:
        likelihood = r["metric"] in ("negative_elbo_nats_per_dim", "bound_bits_per_unobserved_dim")
        assert r["k"] == (1 if likelihood or r["metric"] == "frechet_distance" else 8)
        assert r["extractor"] == ("pixels" if likelihood else "toy_f2")
        assert (r["temperature"], r["seed"], r["manifest"]) == (1.0, 5, "quick")
    keys = [(r["metric"], r["bin"], r["sampler"]) for r in rows]
    assert len(keys) == len(set(keys))


def test_bins_without_cases_and_unknown_labels_give_no_row(cases):
    rows = tabulate({"ipa": make_scores(agreement=False)}, cases, FACTS)
    assert {r["bin"] for r in rows} == {"0_20", "40_60", "pooled"}
    assert "class_agreement" not in {r["metric"] for r in rows}


def test_the_order_of_the_cases_does_not_matter(cases):
    order = [2, 0, 3, 1]
    scores = make_scores()
    shuffled = CaseScores(
        {name: value[order] for name, value in scores.values.items()},
        DIMENSIONS[order],
        scores.features[order],
        scores.truth_features[order],
    )
    first = tabulate({"ipa": scores}, cases, FACTS)
    second = tabulate({"ipa": shuffled}, [cases[i] for i in order], FACTS)
    for a, b in zip(first, second, strict=True):
        assert {k: a[k] for k in ("metric", "bin", "n")} == {
            k: b[k] for k in ("metric", "bin", "n")
        }
        assert a["value"] == pytest.approx(b["value"], abs=1e-4)
        assert a["standard_error"] == pytest.approx(b["standard_error"], abs=1e-4)


def test_a_constant_difference_is_found_exactly(cases):
    scores = {"ipa": make_scores(better_by=0.25), "prior": make_scores()}
    rows = compare(scores, cases, level=0.9, seed=1)
    assert {r["metric"] for r in rows} == {
        *("bound_bits_per_unobserved_dim", "negative_elbo_nats_per_dim", "perceptual_best_of_k"),
        "class_agreement",
    }
    for metric in ("negative_elbo_nats_per_dim", "perceptual_best_of_k"):
        for name in ("0_20", "40_60", "pooled"):
            found = row(rows, metric=metric, bin=name)
            for key in ("difference", "low", "high"):
                assert found[key] == pytest.approx(-0.25, rel=1e-9)
            assert found["standard_error"] == pytest.approx(0.0, abs=1e-9)
    elbo = row(rows, metric="negative_elbo_nats_per_dim", bin="pooled")
    assert elbo["relative_difference"] == pytest.approx(-0.25 / 3.0)
    assert (elbo["sampler_a"], elbo["sampler_b"]) == ("ipa", "prior")
    assert (elbo["level"], elbo["n"]) == (0.9, 4)
    same = row(rows, metric="class_agreement", bin="pooled")
    assert same["difference"] == same["low"] == same["high"] == 0.0


def test_the_difference_of_the_bound_is_that_of_the_tabulated_ratios(cases):
    worse = make_scores()
    worse.values["bound_bits"] = BITS + np.array([10.0, 50.0, 0.0, 7.0])
    scores = {"ipa": make_scores(), "untrained": worse}
    table = tabulate(scores, cases, FACTS)
    metric = "bound_bits_per_unobserved_dim"
    for name in ("0_20", "40_60", "pooled"):
        a = row(table, metric=metric, bin=name, sampler="ipa")["value"]
        b = row(table, metric=metric, bin=name, sampler="untrained")["value"]
        found = row(compare(scores, cases, level=0.95, seed=1), metric=metric, bin=name)
        assert found["difference"] == pytest.approx(a - b)
        assert found["relative_difference"] == pytest.approx((a - b) / b)
        assert found["low"] <= found["difference"] <= found["high"]


def test_every_other_sampler_is_compared_with_the_reference(cases):
    scores = {"prior": make_scores(), "ipa": make_scores(), "untrained": make_scores()}
    pairs = {(r["sampler_a"], r["sampler_b"]) for r in compare(scores, cases, level=0.9, seed=0)}
    assert pairs == {("ipa", "prior"), ("ipa", "untrained")}
    turned = compare(scores, cases, level=0.9, seed=0, reference="prior")
    assert {r["sampler_b"] for r in turned} == {"ipa", "untrained"}


def test_a_score_that_one_sampler_lacks_is_not_compared(cases):
    scores = {"ipa": make_scores(), "prior": make_scores(agreement=False)}
    rows = compare(scores, cases, level=0.9, seed=0)
    assert "class_agreement" not in {r["metric"] for r in rows}


def test_case_scores_have_a_row_per_case_sampler_and_metric(cases):
    scores = {"ipa": make_scores(), "prior": make_scores(agreement=False)}
    columns = list_case_scores(scores, cases)
    assert list(columns) == [
        *("case_id", "image_id", "bin", "observed_share", "sampler", "metric", "value", "weight")
    ]
    assert {len(column) for column in columns.values()} == {4 * (5 + 4)}
    rows = [dict(zip(columns, entry, strict=True)) for entry in zip(*columns.values(), strict=True)]
    found = row(rows, case_id="q-1", sampler="ipa", metric="bound_bits_per_unobserved_dim")
    assert found == {
        "case_id": "q-1",
        "image_id": 8,
        "bin": "0_20",
        "observed_share": 0.1,
        "sampler": "ipa",
        "metric": "bound_bits_per_unobserved_dim",
        "value": 90.0,
        "weight": 90.0,
    }
    assert row(rows, case_id="q-3", sampler="prior", metric="perceptual_best_of_k")["weight"] == 1.0


def test_pooled_numbers_follow_from_the_case_scores(cases):
    scores = {"ipa": make_scores()}
    columns = list_case_scores(scores, cases)
    table = tabulate(scores, cases, FACTS)
    metrics = np.array(columns["metric"])
    for metric in set(columns["metric"]):
        here = metrics == metric
        value = np.array(columns["value"])[here].sum() / np.array(columns["weight"])[here].sum()
        assert value == pytest.approx(row(table, metric=metric, bin="pooled")["value"])
