import math

import numpy as np
import pandas as pd
import pytest

from condvae.ground.configuration import ConfigurationError
from pipelines.reporting.facts import list_facts
from pipelines.reporting.tables import check_metrics, describe_comparisons, tabulate_metrics


def test_one_table_per_metric_with_samplers_by_bins(metrics):
    tables = {
        table.metric: table
        for table in tabulate_metrics(metrics.sample(frac=1.0, random_state=0), {})
    }
    assert len(tables) == 7
    table = tables["class_agreement"]
    assert table.headings == ["0–20 %", "20–40 %", "40–60 %", "60–80 %", "80–100 %", "all"]
    assert table.counts == ["100"] * 5 + ["500"]
    rows = dict(table.rows)
    # 0.55 + (0.2 + 0.1) * 0.3 + 0.2 / 3
    assert rows["ipa"][1] == "0.707 ± 0.018"
    # 0.55 + 0.3 * 0.5 + 0.2 / 3 = 0.7667, its error 0.018 / 2.2
    assert rows["ipa"][-1] == "0.7667 ± 0.0082"
    assert table.pooled["ipa"] == "0.7667 [0.7506, 0.7827]"
    assert tables["frechet_distance"].rows[0][1][0] == "–"


def test_coverage_comes_first_then_proper_scores_then_the_others(metrics):
    tables = tabulate_metrics(metrics.sample(frac=1.0, random_state=0), {})
    assert [(table.group, table.metric) for table in tables] == [
        ("calibration", "posterior_coverage"),
        ("proper", "bound_bits_per_unobserved_dim"),
        ("other", "negative_elbo_nats_per_dim"),
        ("other", "frechet_distance"),
        ("other", "perceptual_best_of_k"),
        ("other", "perceptual_diversity"),
        ("other", "class_agreement"),
    ]
    assert tables[0].direction == "calibrated: 0.90"


def test_samplers_are_ranked_by_what_is_better(metrics):
    rankings = {table.metric: table.ranking for table in tabulate_metrics(metrics, {})}
    assert rankings["class_agreement"] == ["ipa", "untrained", "prior"]  # higher is better
    assert rankings["frechet_distance"] == ["ipa", "untrained", "prior"]  # lower is better
    assert rankings["posterior_coverage"] == ["ipa", "prior", "untrained"]  # nearest to 0.90
    assert rankings["perceptual_diversity"] == []


def pooled_row(metric, sampler, value, **fields):
    row = {"metric": metric, "bin": "pooled", "sampler": sampler, "value": value}
    return row | {"standard_error": 0.01, "n": 5} | fields


def test_coverage_above_its_level_is_as_bad_as_below():
    values = {"wide": 0.97, "narrow": 0.86, "good": 0.91, "lost": None}
    rows = [pooled_row("posterior_coverage", name, value) for name, value in values.items()]
    (table,) = tabulate_metrics(pd.DataFrame(rows), {})
    assert table.ranking == ["good", "narrow", "wide"]
    assert table.pooled["lost"] == "–"


def test_metrics_that_are_not_known_come_last_in_their_order():
    rows = [pooled_row(metric, "a", 1.0) for metric in ("zeta", "alpha", "class_nll")]
    tables = tabulate_metrics(pd.DataFrame(rows), {})
    assert [table.metric for table in tables] == ["class_nll", "zeta", "alpha"]


def test_missing_cells_and_counts_are_dashes_and_optional_columns_may_be_absent():
    rows = [
        {
            "metric": "m",
            "bin": "pooled",
            "sampler": "a",
            "value": 1.0,
            "standard_error": 0.1,
            "n": 5,
        },
        {
            "metric": "m",
            "bin": "0_20",
            "sampler": "b",
            "value": 2.0,
            "standard_error": np.nan,
            "n": np.nan,
        },
    ]
    (table,) = tabulate_metrics(pd.DataFrame(rows), {})
    assert table.headings == ["0–20 %", "all"]
    assert table.rows == [("a", ["–", "1.00 ± 0.10"]), ("b", ["2", "–"])]
    assert table.counts == ["–", "5"]
    assert table.pooled == {"a": "1.00 ± 0.10"}
    assert table.card.k == table.card.seed == table.card.manifest == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns=["n"]), "lack the columns n"),
        (lambda t: t.assign(bin="20-40"), "bin = '20-40'"),
        (lambda t: pd.concat([t, t[3:4]]), "two values for posterior_coverage, 60_80, ipa"),
        (lambda t: t.assign(manifest=["a"] + ["b"] * (len(t) - 1)), "different manifests, a, b"),
    ],
)
def test_tables_that_do_not_belong_together_are_refused(metrics, change, message):
    with pytest.raises(ConfigurationError, match=message):
        check_metrics(change(metrics), {})


def compare(metric="perceptual_best_of_k", **values):
    row = {"metric": metric, "bin": "pooled", "sampler_a": "ipa", "sampler_b": "prior"}
    row |= {"difference": -0.031, "low": -0.036, "high": -0.027, "level": 0.95}
    row |= {"relative_difference": -0.2, "n": 500}
    (comparison,) = describe_comparisons(pd.DataFrame([row | values]))
    return comparison


def test_a_negative_difference_is_lower_by_a_positive_amount():
    found = compare()
    assert found.text == "ipa lower than prior by 0.0310 [0.0270, 0.0360] (95 %)"
    assert found.verdict == "ipa better"
    assert found.relative == "−20.0 %"
    assert found.pooled
    assert (found.n, found.bin) == ("500", "all")


def test_a_positive_difference_is_higher_and_the_direction_decides_the_verdict():
    values = {"difference": 3.0, "low": 1.0, "high": 5.0, "level": 0.9, "bin": "0_20"}
    assert compare(**values).text == "ipa higher than prior by 3.0 [1.0, 5.0] (90 %)"
    assert compare(**values).verdict == "prior better"
    assert compare("class_agreement", **values).verdict == "ipa better"
    assert compare("perceptual_diversity", **values).verdict == ""
    assert not compare(**values).pooled


@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.0), (0.0, 2.0), (-2.0, 0.0)])
def test_an_interval_that_holds_zero_settles_nothing(low, high):
    found = compare(difference=(low + high) / 2, low=low, high=high)
    assert found.text.startswith("no clear difference between ipa and prior: ")
    assert found.verdict == "not clear"


def test_differences_that_could_not_be_computed_are_said_to_be_missing():
    nothing = dict.fromkeys(("difference", "low", "high", "relative_difference"), math.nan)
    found = compare(**nothing)
    assert found.text == "ipa and prior: not available"
    assert (found.verdict, found.relative) == ("", "–")


def test_a_difference_without_spread_is_written_with_four_decimals():
    assert "by 0.5000 [0.5000, 0.5000]" in compare(difference=0.5, low=0.5, high=0.5).text


def test_facts_are_grouped_and_written_plainly(run_facts):
    groups = dict(list_facts(run_facts))
    assert ("git commit", "0123456789abcdef0123456789abcdef01234567") in groups["Run"]
    assert ("peak memory mib", "812.2") in groups["Run"]
    assert groups["Data"] == [
        ("name", "digits"),
        ("images · train", "1257"),
        ("images · validation", "270"),
        ("images · test", "270"),
    ]
    assert ("source", "–") in groups["Weights"]
    assert ("trained", "yes") in groups["Weights"]
    assert groups["Resizers"] == [("digits_classifier_f2_abababab", "none")]
    shown = {name for lines in groups.values() for name, _ in lines}
    assert not shown & {"command", "sampler definitions"}


def test_names_of_samplers_are_written_as_they_are():
    facts = {"seconds": {"train_it": 1.5, "samplers": {"ipa_t0.7": 2.0}}}
    facts |= {"seconds_per_case": {"ipa_t0.7": 0.25}}
    assert dict(list_facts(facts)) == {
        "Seconds": [("train it", "1.5"), ("samplers · ipa_t0.7", "2")],
        "Seconds per case": [("ipa_t0.7", "0.25")],
    }
