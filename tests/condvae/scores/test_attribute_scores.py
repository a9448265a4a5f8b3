"""Scores of attributes against known answers, scikit-learn, simulation and finite resampling."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as oracle

from condvae.ground.attributes import Attribute
from condvae.ground.configuration import ConfigurationError
from condvae.posterior.anomaly import auroc
from condvae.scores.attribute_scores import ALL, relative_score, score_attributes
from condvae.scores.estimates import ScoreValue, mean_score

SHAPE = Attribute("shape", ("disc", "square", "star"))
RED = Attribute("red", ("no", "yes"))
SLANT = Attribute("slant", ())
NAN = np.nan


def table(predicted, wanted, attributes, **more):
    found = score_attributes(predicted, wanted, attributes, **more)
    return {(one.metric, one.attribute): one.score for one in found}


def guesses(n=400, seed=0):
    """A third of the predictions are wrong, at random."""
    rng = np.random.default_rng(seed)
    wanted = np.stack([rng.integers(3, size=n), rng.integers(2, size=n)], axis=1).astype(float)
    other = np.stack([rng.integers(3, size=n), rng.integers(2, size=n)], axis=1)
    return np.where(rng.random((n, 2)) < 0.5, wanted, other), wanted


def test_known_answers_by_hand():
    wanted = [[0, 1], [0, 0], [1, NAN], [2, 1], [NAN, 0]]
    predicted = [[0, 1], [1, 0], [1, 0], [2, 0], [0, 1]]
    found = table(predicted, wanted, (SHAPE, RED))
    assert found["accuracy", "shape"].value == pytest.approx(3 / 4)
    assert found["balanced_accuracy", "shape"].value == pytest.approx((1 / 2 + 1 + 1) / 3)
    # disc: 1 hit, 1 missed; square: 1 hit, 1 too many; star: 1 hit. The fifth row asks for no shape.
    assert found["f1", "shape"].value == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert found["accuracy", "red"].value == pytest.approx(2 / 4)
    assert found["accuracy", ALL].value == pytest.approx((3 / 4 + 2 / 4) / 2)
    # Both right; shape wrong; shape right and red not asked; red wrong; red wrong.
    assert found["exact_match", ALL].value == pytest.approx(2 / 5)
    assert [found["accuracy", name].n for name in ("shape", "red", ALL)] == [4, 4, 5]


def test_scores_are_those_of_scikit_learn():
    predicted, wanted = guesses()
    found = table(predicted, wanted, (SHAPE, RED))
    for place, name in enumerate(("shape", "red")):
        columns = wanted[:, place], predicted[:, place]
        for metric, reference in (
            ("accuracy", oracle.accuracy_score(*columns)),
            ("balanced_accuracy", oracle.balanced_accuracy_score(*columns)),
            ("f1", oracle.f1_score(*columns, average="macro")),
        ):
            assert found[metric, name].value == pytest.approx(reference, abs=1e-12)
    assert found["exact_match", ALL].value == pytest.approx((predicted == wanted).all(1).mean())


def test_guessing_the_commonest_value_has_balanced_accuracy_of_chance():
    wanted = np.repeat([[0.0], [1.0], [2.0]], [95, 3, 2], axis=0)
    found = table(np.zeros_like(wanted), wanted, (SHAPE,))
    assert found["accuracy", "shape"].value == pytest.approx(0.95)
    assert found["balanced_accuracy", "shape"].value == pytest.approx(1 / 3)
    assert found["f1", "shape"].value == pytest.approx(2 * 0.95 / 1.95 / 3)


@pytest.mark.parametrize("clustered", [False, True])
def test_standard_errors_are_those_of_repetition(clustered):
    """Spread of every score over fresh data sets, of three correlated draws per condition or one."""

    def once(rng):
        n, draws = 60, 3 if clustered else 1
        wanted = np.stack([rng.integers(2, size=n) * 1.0, rng.normal(size=n)], axis=1)
        hard = rng.random(n) < 0.5  # shared by the draws of a condition
        score = wanted[:, 0] * 1.2 + rng.normal(size=(draws, n)) * 0.6 + np.where(hard, 1.0, -1.0)
        chance = 1 / (1 + np.exp(-score))
        value = 0.8 * wanted[:, 1] + 0.5 * rng.normal(size=(draws, n)) + 0.4 * hard
        given = np.stack([(chance > 0.5) * 1.0, value], axis=2).reshape(-1, 2)
        return table(
            given,
            np.tile(wanted, (draws, 1)),
            (RED, SLANT),
            probabilities=[np.stack([1 - chance, chance], axis=2).reshape(-1, 2), None],
            clusters=np.tile(np.arange(n), draws),
        )

    runs = [once(np.random.default_rng(seed)) for seed in range(150)]
    for key in (
        ("accuracy", "red"),
        ("balanced_accuracy", "red"),
        ("f1", "red"),
        ("auroc", "red"),
        ("exact_match", ALL),
        ("rmse", "slant"),
        ("correlation", "slant"),
    ):
        spread = np.std([run[key].value for run in runs], ddof=1)
        stated = np.sqrt(np.mean([run[key].standard_error ** 2 for run in runs]))
        assert stated == pytest.approx(spread, rel=0.25), key


def test_errors_of_accuracy_are_those_of_a_mean():
    predicted, wanted = guesses(50)
    clusters = np.arange(50) // 2
    found = table(predicted, wanted, (SHAPE, RED), clusters=clusters)["accuracy", "shape"]
    mean = mean_score(predicted[:, 0] == wanted[:, 0], clusters)
    assert found.standard_error == pytest.approx(mean.standard_error)
    together = (predicted == wanted).mean(axis=1)
    assert table(predicted, wanted, (SHAPE, RED))["accuracy", ALL].standard_error == pytest.approx(
        mean_score(together).standard_error
    )


def test_area_under_the_curve_is_that_of_obuchowski_with_ties():
    rng = np.random.default_rng(1)
    wanted = rng.integers(2, size=80) * 1.0
    chance = np.round(np.clip(rng.normal(0.4 + 0.2 * wanted, 0.2), 0, 1), 1)
    clusters = np.arange(80) // 4
    found = table(
        wanted[:, None],
        wanted[:, None],
        (RED,),
        probabilities=[np.stack([1 - chance, chance], axis=1)],
        clusters=clusters,
    )["auroc", "red"]
    yes = wanted == 1
    same = auroc(chance[~yes], chance[yes], (clusters[~yes], clusters[yes]))
    assert found.value == pytest.approx(oracle.roc_auc_score(wanted, chance))
    assert found.standard_error == pytest.approx(same.standard_error)
    assert found.n == 80


def test_areas_of_several_values_are_averaged_over_those_asked_for():
    rng = np.random.default_rng(2)
    wanted = rng.integers(2, size=60) * 1.0  # no star is asked for
    chances = rng.dirichlet([1, 1, 1], size=60)
    found = table(wanted[:, None], wanted[:, None], (SHAPE,), probabilities=[chances])
    areas = [oracle.roc_auc_score(wanted == value, chances[:, value]) for value in (0, 1)]
    assert found["auroc", "shape"].value == pytest.approx(np.mean(areas))
    one = table(np.zeros((5, 1)), np.zeros((5, 1)), (SHAPE,), probabilities=[chances[:5]])
    assert ("auroc", "shape") not in one  # with nothing to tell it from


def test_continuous_values_have_error_and_correlation():
    rng = np.random.default_rng(3)
    wanted = rng.normal(size=(40, 1))
    predicted = wanted + rng.normal(size=(40, 1))
    wanted[:5] = NAN
    found = table(predicted, wanted, (SLANT,))
    x, y = predicted[5:, 0], wanted[5:, 0]
    assert found["rmse", "slant"].value == pytest.approx(np.sqrt(((x - y) ** 2).mean()))
    assert found["correlation", "slant"].value == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert found["rmse", "slant"].n == 35
    assert {metric for metric, _ in found} == {"rmse", "correlation"}
    perfect = table(wanted[5:], wanted[5:], (SLANT,))
    assert perfect["rmse", "slant"] == ScoreValue(0.0, 0.0, 35)


def test_an_attribute_nobody_asked_for_is_left_out():
    found = table([[0, 1], [1, 0]], [[0, NAN], [1, NAN]], (SHAPE, RED))
    assert {name for _, name in found} == {ALL, "shape"}
    assert found["exact_match", ALL].value == 1


def test_one_cluster_has_no_standard_error():
    found = table([[0], [1]], [[0], [0]], (SHAPE,), clusters=[7, 7])
    assert np.isnan(found["accuracy", "shape"].standard_error)


def test_share_of_the_ceiling():
    share = relative_score(ScoreValue(0.72, 0.03, 10), ScoreValue(0.9, 0.02, 20))
    assert share.value == pytest.approx(0.8)
    # Relative errors add in squares.
    assert share.standard_error == pytest.approx(0.8 * np.hypot(0.03 / 0.72, 0.02 / 0.9))
    assert np.isnan(relative_score(ScoreValue(0.7, 0.1, 1), ScoreValue(0.0, 0.1, 1)).value)


@pytest.mark.parametrize(
    ("predicted", "wanted", "message"),
    [
        ([[0]], [[0, 1]], r"predicted of shape \(1, 1\)"),
        ([[0, 1]], [[3, 1]], "'shape' of condition 0 = 3"),
        ([[0, 2]], [[0, 1]], "'red' of condition 0 = 2"),
        ([[NAN, 1]], [[0, 1]], "predicted shape of row 0 = nan"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(predicted, wanted, message):
    with pytest.raises(ConfigurationError, match=message):
        score_attributes(predicted, wanted, (SHAPE, RED))


def test_probabilities_of_another_shape_are_refused():
    with pytest.raises(ConfigurationError, match=r"probabilities of shape of shape \(1, 2\)"):
        score_attributes([[0]], [[0]], (SHAPE,), probabilities=[[[0.5, 0.5]]])
    with pytest.raises(ConfigurationError, match="probabilities of 2 attributes: expected 1"):
        score_attributes([[0]], [[0]], (SHAPE,), probabilities=[None, None])
