"""Examples of tasks whose observations are pictures of their own, or nothing to see."""

from __future__ import annotations

import numpy as np
import pytest

from condvae.plots import POOLED, format_interval
from condvae.plots.completions import describe_case
from pipelines.evaluation.judging import doubt_samples
from pipelines.reporting.examples import read_examples
from pipelines.reporting.page import render_page


def test_a_picture_of_y_is_shown_whole(examples):
    pictures = np.random.default_rng(0).integers(0, 256, examples["truths"].shape, np.uint8)
    plain, shown = (
        next(iter(read_examples(arrays, per_bin=1).values()))
        for arrays in (examples, {**examples, "pictures": pictures})
    )
    for case, other in zip(shown, plain, strict=True):
        row = list(examples["case_ids"]).index(case.case_id)
        np.testing.assert_array_equal(case.observation, pictures[row])
        assert case.mask.all()
        assert case.observed_share == other.observed_share
        assert not other.mask.all()


def test_without_observed_pixels_examples_are_not_by_bin(examples):
    count = len(examples["case_ids"])
    bins, masks = np.zeros(count, np.int64), np.zeros_like(examples["masks"])
    hidden = {**examples, "bins": bins, "masks": masks}
    for cases in read_examples(hidden, per_bin=1).values():
        assert len(cases) == min(5, count)
        assert describe_case(cases[0])[:2] == [cases[0].case_id, "no pixel observed"]


@pytest.fixture
def render(metrics, calibration, comparisons, run_facts):
    """Rows without bins under the name of `metric`, and the page that shows them."""

    def render(is_exact, metric):
        rows = metrics[(metrics["metric"] == "perceptual_diversity") & (metrics["bin"] == POOLED)]
        facts = {**run_facts, "task": "super_resolution", "is_exact": is_exact}
        rows = rows.assign(metric=metric)
        return rows, render_page({}, rows, comparisons[:0], calibration, facts)

    return render


def test_doubts_about_completions_stand_on_top_of_the_page(metrics, calibration, run_facts):
    rows = metrics[metrics["bin"] == POOLED].iloc[:2].assign(metric="observed_error")
    rows = rows.assign(value=[3.0, 61.25], sampler=["fine", "scaled"])
    (doubt,) = doubt_samples(rows)
    assert doubt.startswith("scaled: completions differ from what was observed by 61.2 grey levels")
    facts = {**run_facts, "warnings": [doubt]}
    page = render_page({}, metrics, metrics[:0], calibration, facts)
    assert "Warning: scaled: completions differ" in page


def test_page_says_whether_the_theory_is_exact_and_what_the_residual_is(render):
    rows, page = render(False, "consistency_rmse")
    assert "theorem 2 of Harvey et al. (2022) does not hold exactly" in page
    assert "is measured by consistency_rmse" in page
    assert "Agreement with the observation" in page
    assert "grouped by the share" not in page
    assert "<h1>Super resolution: digits</h1>" in page
    for row in rows.itertuples():
        shown = format_interval(row.value, row.low, row.high, row.standard_error)
        assert f"Consistency with the observation</a>: {shown} grey levels" in page
    _, page = render(False, "perceptual_diversity")
    assert "does not hold exactly" in page
    assert "consistency" not in page
    _, page = render(True, "perceptual_diversity")
    assert "freezing the VAE loses nothing" in page
