"""The figure says the counts it is given, and refuses what is no table of counts."""

from __future__ import annotations

import numpy as np
import pytest

from condvae.ground.configuration import ConfigurationError
from condvae.plots.confusion import plot_confusion


def test_counts_and_shares_are_drawn():
    figure = plot_confusion([[3, 1], [0, 0]], ["left", "right"], title="Slant")
    (axes,) = figure.axes
    np.testing.assert_array_equal(axes.images[0].get_array(), [[0.75, 0.25], [0, 0]])
    assert [t.get_text() for t in axes.texts] == ["3", "1"]
    words = " ".join(t.get_text() for t in figure.texts) + str(figure._suptitle and "")
    assert "3 of 4 right" in words + " ".join(
        t.get_text() for t in axes.get_children() if hasattr(t, "get_text")
    )
    assert [t.get_text() for t in axes.get_yticklabels()] == ["left", "right"]


@pytest.mark.parametrize("counts", [[[1, 2]], [[0, 0], [0, 0]], [[1, -1], [0, 1]]])
def test_other_tables_are_refused(counts):
    with pytest.raises(ConfigurationError, match=r"counts of shape .* with 2 values: expected"):
        plot_confusion(counts, ["a", "b"], title="")
