import numpy as np
import pytest

from condvae.evaluation import CaseScores, compare, compare_case_tables, list_case_scores
from condvae.ground.configuration import ConfigurationError

BOUND, BEST = "bound_bits_per_unobserved_dim", "perceptual_best_of_k"
SETTINGS = {"level": 0.9, "seed": 1}


@pytest.fixture
def cases(make_case):
    return [make_case(n, image, rows) for n, (image, rows) in enumerate([(7, 0), (8, 5), (7, 5)])]


def make_scores(seed):
    rng = np.random.default_rng(seed)
    weights = np.array([100.0, 50.0, 50.0])
    values = {BOUND: rng.random(3) * weights, BEST: rng.random(3), "observed_error": rng.random(3)}
    nothing = np.empty((3, 0))
    return CaseScores(values, {BOUND: weights}, *[nothing] * 3, {}, nothing)


@pytest.fixture
def columns(cases):
    """A function that makes the table of a run with two samplers, its rows in any order."""

    def make(scores, order=None):
        found = list_case_scores({"ipa": scores, "prior": make_scores(9)}, cases)
        order = np.arange(len(found["value"])) if order is None else order
        return {name: np.array(column)[order] for name, column in found.items()}

    return make


def test_runs_compare_as_samplers_of_one_run_do(cases, columns):
    first, second = make_scores(1), make_scores(2)
    expected = compare({"ipa": first, "other": second}, cases, **SETTINGS)
    shuffled = columns(second, np.random.default_rng(0).permutation(2 * 3 * 3))
    names = {"sampler_a": "ipa", "sampler_b": "ipa"}
    found = compare_case_tables(columns(first), shuffled, **names, **SETTINGS)
    assert {row["metric"] for row in found} == {BOUND, BEST}
    assert len(found) == len(expected)
    for row, other in zip(found, expected, strict=True):
        assert row == other | {"sampler_b": "ipa"}


@pytest.mark.parametrize("column", ["case_id", "image_sha256", "bin", "observed_share", "weight"])
def test_runs_on_different_cases_are_refused(columns, column):
    first, second = columns(make_scores(1)), columns(make_scores(2))
    second[column] = np.roll(second[column], 1)
    if column == "case_id":
        second[column] = np.char.add("z", second[column])
    with pytest.raises(ConfigurationError, match=f"differ in {column}; expected runs on the same"):
        compare_case_tables(first, second, sampler_a="ipa", sampler_b="ipa", **SETTINGS)


def test_runs_with_another_number_of_cases_are_refused(columns):
    first, second = columns(make_scores(1)), columns(make_scores(2))
    fewer = {name: values[second["case_id"] != "q-2"] for name, values in second.items()}
    with pytest.raises(ConfigurationError, match="differ in case_id"):
        compare_case_tables(first, fewer, sampler_a="ipa", sampler_b="ipa", **SETTINGS)


def test_a_sampler_that_a_run_lacks_is_named(columns):
    table = columns(make_scores(1))
    with pytest.raises(ConfigurationError, match="sampler_b = 'lama': expected one of ipa, prior"):
        compare_case_tables(table, table, sampler_a="ipa", sampler_b="lama", **SETTINGS)
