"""The numbers of the model that matched the official implementations, on a clean clone."""

from __future__ import annotations

import functools
import runpy
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
SCRIPT = runpy.run_path(str(HERE / "make_regression_vectors.py"))
CASES = tuple(SCRIPT["CASES"])


@functools.cache
def expected(case):
    with np.load(HERE / "regression" / f"{case}.npz") as file:
        return dict(file)


@functools.cache
def computed(case):
    return SCRIPT["compute"](case)


def test_every_file_belongs_to_a_case():
    files = list((HERE / "regression").iterdir())
    assert {file.name for file in files} == {f"{case}.npz" for case in CASES}
    assert sum(file.stat().st_size for file in files) < 300_000


@pytest.mark.parametrize(
    ("case", "name"), [(case, name) for case in CASES for name in expected(case)]
)
def test_array(case, name):
    found, wanted = computed(case)[name], expected(case)[name]
    assert wanted.dtype == np.float64
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_every_array_is_compared(case):
    assert computed(case).keys() == expected(case).keys()


def test_cases_cover_what_models_differ_in():
    cases = SCRIPT["CASES"]
    assert {case.bits for case in cases.values()} == {5, 8}
    assert {bool(case.architecture.widths) for case in cases.values()} == {True, False}
    # A resolution without a learned constant starts from what lies above.
    assert any(
        case.architecture.bias_up_to < case.architecture.image_size for case in cases.values()
    )


def test_hashed_numbers_are_uniform_and_differ_by_name():
    first, second = (SCRIPT["hashed"](name, (20_000,)) for name in ("a", "b"))
    for values in (first, second):
        assert values.min() >= 0.0
        assert values.max() < 1.0
        # Standard deviation of a mean of n uniforms: sqrt(1 / 12 n).
        assert abs(values.mean() - 0.5) < 4 / (12 * 20_000) ** 0.5
        assert abs(values.var() - 1 / 12) < 0.002
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    # Integer arithmetic and a division by a power of two: exact on every machine.
    assert first[:3].tolist() == [0.6579991738859579, 0.24419100453317732, 0.3697230966418973]
