import math

from pipelines.reporting.trust import describe_trust, list_verdict_columns


def test_samplers_stand_in_the_order_of_the_table_with_their_headline(metrics, calibration):
    backwards = dict(reversed(calibration.items()))
    found = describe_trust(backwards, metrics, {"prior": "Ignores y."})
    assert [one.sampler for one in found] == ["ipa", "untrained", "prior"]
    # 0.01 / 2.2 = 0.0045; untrained: 0.9 - 0.3 * 0.5 - 0.3 / 3
    assert [one.coverage for one in found][:2] == ["0.9000 ± 0.0045", "0.6500 ± 0.0045"]
    assert [one.temperature for one in found] == ["1"] * 3
    assert [one.definition for one in found] == ["", "", "Ignores y."]


def test_verdicts_say_what_rejects_or_what_could_have_been_seen(metrics, calibration):
    ipa, untrained, _ = describe_trust(calibration, metrics, {})
    assert ipa.overall.calibrated
    assert ipa.overall.words == "calibrated at this n"
    assert ipa.overall.power == "n = 100; would see bias 0.4, spread ×1.5"
    assert "No test on 100 images rejects" in ipa.summary
    assert "a bias of 0.4 posterior standard deviations" in ipa.summary
    assert not untrained.overall.calibrated
    assert untrained.overall.words == "too narrow, biased"
    assert untrained.overall.power == "n = 100; 2 tests reject"
    assert untrained.summary.startswith("2 tests reject on 100 images")
    assert untrained.rejected == ["Random pixel 1", "Distance to reference of y, pixels"]
    assert untrained.use_of_y == ""


def test_features_are_told_apart_and_the_use_of_the_observation_is_given(metrics, calibration):
    verdict = calibration["ipa"]["verdicts"]["pooled"] | {
        "rejected_features": ["feature_projection_3"],
        "use_of_y": {"value": 0.914, "low": 0.82, "high": 1.01, "level": 0.95, "n": 100},
    }
    one = calibration["ipa"] | {"verdicts": {"pooled": verdict}}
    (found,) = describe_trust({"ipa": one}, metrics, {})
    assert found.overall.calibrated is None
    assert found.overall.words == "hidden pixels: calibrated at this n; features differ"
    assert found.overall.power == "n = 100; would see bias 0.4, spread ×1.5"
    assert "which do not enter the verdict, 1 test rejects:" in found.summary
    assert found.rejected == ["Feature projection 3"]
    assert found.use_of_y == "0.914 [0.820, 1.010]"
    verdict["use_of_y"] = {"value": 0.5, "low": 0.1, "high": None}
    assert describe_trust({"ipa": one}, metrics, {})[0].use_of_y == "0.5"


def test_few_images_are_called_few_and_no_number_is_made_up(metrics, calibration):
    few = calibration["ipa"]["verdicts"]["0_20"]
    for missing in (None, math.nan):
        verdict = few | {"visible_bias": missing, "visible_spread": missing}
        one = calibration["ipa"] | {"verdicts": {"pooled": verdict}}
        (found,) = describe_trust({"ipa": one}, metrics, {})
        assert found.overall.power == "n = 20; too few images to see much"
        assert found.overall.calibrated is None
        assert "would hide even gross errors" in found.summary
        assert "nan" not in found.summary


def test_columns_are_the_bins_that_any_sampler_has(metrics, calibration):
    less = calibration["prior"] | {
        "verdicts": {"40_60": calibration["prior"]["verdicts"]["pooled"]}
    }
    both = {"ipa": calibration["ipa"], "prior": less}
    assert list_verdict_columns(both) == ["0_20", "40_60", "80_100"]
    ipa, prior = describe_trust(both, metrics, {})
    assert [cell.words for cell in prior.cells] == ["–", "too narrow, biased", "–"]
    assert prior.overall.calibrated is None
    assert prior.summary == ""
    good = "calibrated at this n"
    assert [cell.words for cell in ipa.cells] == [good, "–", good]


def test_sampler_that_is_not_in_the_table_comes_last_without_numbers(metrics, calibration):
    *_, last = describe_trust({"lama": calibration["prior"], **calibration}, metrics, {})
    assert (last.sampler, last.coverage, last.temperature) == ("lama", "–", "–")
