from __future__ import annotations

import numpy as np
import pytest

from condvae.calibration.verdict import CALIBRATED, TOO_NARROW
from condvae.evaluation.monitoring import JUDGED, compare_coverage, compare_scores, find_new_faults
from condvae.ground.configuration import ConfigurationError

N = 80


def table(values, metrics=JUDGED, sampler="ipa"):
    """Columns with the same values (N,) under every metric, weight 2."""
    columns = {name: [] for name in ("metric", "value", "weight", "case_id", "image_id", "bin")}
    for metric in metrics:
        columns["metric"] += [metric] * N
        columns["value"] += list(values)
        columns["weight"] += [2.0] * N
        columns["case_id"] += [f"q-{i:03d}" for i in range(N)]
        columns["image_id"] += list(range(N))
        columns["bin"] += ["0_20"] * N
    count = len(columns["metric"])
    columns |= {"sampler": [sampler] * count, "observed_share": [0.1] * count}
    return columns | {"image_sha256": columns["case_id"]}


def compare(now, before, **changes):
    how = {"tolerance": 0.01, "level": 0.95, "seed": 0} | changes
    return compare_scores(now, before, **how)


@pytest.fixture
def before():
    return np.random.default_rng(0).uniform(5, 15, N)


def test_an_unchanged_model_is_not_worse(before):
    changes = compare(table(before), table(before))
    assert {change.metric for change in changes} == set(JUDGED)
    for change in changes:
        assert (change.difference, change.low, change.high, change.worse) == (0, 0, 0, False)
        assert change.before == pytest.approx(before.sum() / (2 * N))
        assert change.level == pytest.approx(1 - 0.05 / len(JUDGED))


def test_a_change_counts_when_it_is_sure_and_large(before):
    noise = np.random.default_rng(1).normal(0, 0.05, N)
    worse = compare(table(before * 1.05 + noise), table(before))
    assert all(change.worse and change.low > 0 for change in worse)
    assert "difference +0.2" in worse[0].message
    small = compare(table(before * 1.005), table(before))
    assert all(change.low > 0 and not change.worse for change in small)
    better = compare(table(before * 0.9), table(before))
    assert not any(change.worse for change in better)
    unsure = np.random.default_rng(2).normal(0.2, 20.0, N)
    assert not any(change.worse for change in compare(table(before + unsure), table(before)))


def test_samplers_have_names_of_their_own(before):
    now = table(before * 1.1, sampler="project")
    assert compare(now, table(before), sampler_now="project")[0].worse
    with pytest.raises(ConfigurationError, match="sampler_a"):
        compare(now, table(before))


def test_tables_without_a_common_score_are_refused(before):
    with pytest.raises(ConfigurationError, match="no score in common"):
        compare(
            table(before, ["energy_score_pixels"]), table(before, ["negative_elbo_nats_per_dim"])
        )


def coverage(now, before):
    rng = np.random.default_rng(3)
    noise = rng.uniform(-0.02, 0.02, (2, N))
    tables = [
        table(2 * (share + part), ["posterior_coverage"])
        for share, part in zip((now, before), noise, strict=True)
    ]
    return compare_coverage(*tables, tolerance=0.02, level=0.99, seed=0)


def test_intervals_that_cover_less_are_too_narrow():
    found = coverage(0.7, 0.9)
    assert found.worse
    assert found.now == pytest.approx(0.7, abs=0.01)
    assert "too narrow" in found.message


def test_intervals_that_cover_more_are_too_wide_and_nearer_to_the_mark_is_no_fault():
    assert "too wide" in coverage(0.97, 0.9).message
    assert not coverage(0.89, 0.80).worse
    assert not coverage(0.89, 0.90).worse


def test_only_new_faults_are_named():
    assert find_new_faults((TOO_NARROW, "biased"), ("biased",)) == (TOO_NARROW,)
    assert find_new_faults((CALIBRATED,), (TOO_NARROW,)) == ()
