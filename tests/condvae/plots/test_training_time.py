from __future__ import annotations

import math

import pytest

from condvae.ground.configuration import ConfigurationError
from condvae.plots.style import png_bytes
from condvae.plots.training_time import TimedRuns, plot_training_time

TEXTS = {"title": "T", "note": "N", "extractor": "net_f16", "ceiling": (1.2, "prior")}


def test_figure_shows_every_method_and_hides_what_is_far_off():
    quick = TimedRuns((1.0, 10.0), (9.0, 1.0), (0.5, 0.1), (2.0, 0.3))
    slow = TimedRuns((2.0, 40.0), (1.4, 1.1), (math.nan, math.nan), (3.0, math.nan))
    figure = plot_training_time({"quick": quick, "slow": slow}, **TEXTS)
    left, right = figure.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in left.get_lines()}
    assert lines["quick"] == [[1.0, 9.0], [10.0, 1.0]]
    assert lines["slow"] == [[2.0, 1.4], [40.0, 1.1]]
    low, high = left.get_ylim()
    assert low < 1.0 < 1.2 < 1.4 < 9.0
    assert 1.2 < high < 1.4
    ends = [container[0].get_xydata().tolist()[0] for container in right.containers]
    assert ends == [[10.0, 2.0], [40.0, 3.0]]
    assert "net_f16" in right.get_ylabel()
    assert png_bytes(figure).startswith(b"\x89PNG")


def test_no_methods_are_refused():
    with pytest.raises(ConfigurationError, match="at least one"):
        plot_training_time({}, **TEXTS)
