from __future__ import annotations

import pytest

from condvae.evaluation.monitoring import DEGRADED, DRIFTED, INVALID, NOTED, Finding, reach_verdict
from condvae.ground.configuration import ConfigurationError


def test_nothing_found_is_ok_and_notes_decide_nothing():
    assert reach_verdict([]) == ("ok", ())
    assert reach_verdict([Finding(NOTED, "environment", "torch")]) == ("ok", ())


def test_the_worst_finding_decides_and_lesser_ones_are_still_told():
    worse = Finding(DEGRADED, "scores", "worse")
    drift = Finding(DRIFTED, "features", "others")
    hashes = Finding(INVALID, "weights", "sha256")
    note = Finding(NOTED, "card", "no scores")
    assert reach_verdict([worse, note, drift]) == ("drifted", (drift, worse))
    assert reach_verdict([worse, drift, hashes]) == ("invalid", (hashes, drift, worse))
    assert reach_verdict([worse]) == ("degraded", (worse,))


def test_a_finding_has_a_weight_that_is_known():
    with pytest.raises(ConfigurationError, match="weight = 'ok'"):
        Finding("ok", "scores", "well")
