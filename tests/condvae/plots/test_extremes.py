import pytest

from condvae.ground.configuration import ConfigurationError
from condvae.plots import plot_extremes


def test_best_cases_stand_above_worst_ones_with_their_scores(make_case):
    cases = [make_case(seed=seed, count=2, label="7") for seed in range(4)]
    figure = plot_extremes(cases, [0.314159, 1.0, 20.0, 41.26], title="Best and worst")
    heights = {text.get_text(): text.get_position()[1] for text in figure.texts}
    names = ["best 1: CRPS 0.314", "best 2: CRPS 1", "worst 2: CRPS 20", "worst 1: CRPS 41.3"]
    found = [heights[name] for name in names]
    assert found == sorted(found, reverse=True)
    assert found[1] - found[2] > 1.05 * (found[0] - found[1])
    assert heights["case-0"] > heights["case-3"]
    assert {"Best and worst", "label: 7", "grey levels"} <= {
        *heights,
        *(axes.get_xlabel() for axes in figure.axes),
    }


@pytest.mark.parametrize(("count", "scores"), [(0, []), (1, [1.0]), (2, [1.0]), (2, [1.0] * 3)])
def test_cases_without_a_score_or_a_counterpart_are_refused(make_case, count, scores):
    with pytest.raises(ConfigurationError, match=f"{count} cases and {len(scores)} scores"):
        plot_extremes([make_case(seed=i) for i in range(count)], scores)
