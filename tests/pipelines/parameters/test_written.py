"""Values of ``--params`` are what was written, with the types that parameters are declared to have."""

from __future__ import annotations

import math

import pytest

from condvae.ground.configuration import ConfigurationError
from pipelines.parameters.written import read_parameters_text, write_parameters_text

READ = [
    # Text stays what was written, whatever YAML would make of it.
    ("complete.output=2024", {"complete": {"output": "2024"}}),
    ("complete.output=no", {"complete": {"output": "no"}}),
    ("complete.output=0012", {"complete": {"output": "0012"}}),
    ("complete.output=1_000", {"complete": {"output": "1_000"}}),
    ("complete.output=1e5,seed=1", {"complete": {"output": "1e5"}, "seed": 1}),
    ("complete.images=/a #3: b", {"complete": {"images": "/a #3: b"}}),
    ("complete.images=[a]", {"complete": {"images": "[a]"}}),
    ("compare.runs=12345678", {"compare": {"runs": "12345678"}}),
    ("mlflow_run_name=2024", {"mlflow_run_name": "2024"}),
    ("tasks.colorize.weights.vae=0012", {"tasks": {"colorize": {"weights": {"vae": "0012"}}}}),
    ("data={limit: 5, path: 0012}", {"data": {"limit": 5, "path": "0012"}}),
    # Commas, equals signs and quotes.
    ("complete.images=/a,b/c, d,seed=1", {"complete": {"images": "/a,b/c, d"}, "seed": 1}),
    ("complete.images=/a=b,seed=1", {"complete": {"images": "/a=b"}, "seed": 1}),
    ("complete.images='/a,seed=2', seed=1", {"complete": {"images": "/a,seed=2"}, "seed": 1}),
    ('complete.images="it\'s, n=1",seed=1', {"complete": {"images": "it's, n=1"}, "seed": 1}),
    ("complete.images=it's,seed=1", {"complete": {"images": "it's"}, "seed": 1}),
    ("weights.posterior='null'", {"weights": {"posterior": "null"}}),
    ("seed=1,", {"seed": 1}),
    ("", {}),
    # Numbers are decimal, and of the kind that is wanted; others are left for the check to refuse.
    ("training.steps=0100", {"training": {"steps": 100}}),
    ("training.steps=1e3", {"training": {"steps": "1e3"}}),
    ("training.learning_rate=1e-3", {"training": {"learning_rate": 0.001}}),
    ("masks.kinds.half=1", {"masks": {"kinds": {"half": 1}}}),
    ("evaluation.quick.cases_per_bin=08", {"evaluation": {"quick": {"cases_per_bin": 8}}}),
    ("weights.allow_untrained=yes", {"weights": {"allow_untrained": True}}),
    ("data.limit=null,data.path=", {"data": {"limit": None, "path": None}}),
    ("model.flows=", {"model": {"flows": ""}}),
    # Lists and mappings.
    ("complete.quantiles=[0.1,0.9],seed=1", {"complete": {"quantiles": [0.1, 0.9]}, "seed": 1}),
    (
        "attributes.conditions=[class, 0012, no]",
        {"attributes": {"conditions": ["class", "0012", "no"]}},
    ),
    (
        'attributes.hold_out=[{class: "3", slant: right}]',
        {"attributes": {"hold_out": [{"class": "3", "slant": "right"}]}},
    ),
    # What is declared nowhere is a number only where it is written as one.
    (
        "task.options.factor=2,task.options.hidden=0.3,task.options.kernel=box",
        {"task": {"options": {"factor": 2, "hidden": 0.3, "kernel": "box"}}},
    ),
    (
        "task.options.a=007,task.options.b=no,task.options.c=true,task.options.d=null",
        {"task": {"options": {"a": "007", "b": "no", "c": True, "d": None}}},
    ),
    ("trainng.steps=nan", {"trainng": {"steps": "nan"}}),
]


@pytest.mark.parametrize(("text", "parameters"), READ)
def test_values_are_read_as_written(text, parameters):
    found = read_parameters_text(text)
    assert found == parameters
    assert repr(found) == repr(parameters)  # True is no 1


@pytest.mark.parametrize("parameters", [parameters for _, parameters in READ])
def test_what_is_written_is_read_again(parameters):
    assert read_parameters_text(write_parameters_text(parameters)) == parameters


def test_numbers_that_are_none_are_left_to_the_check():
    found = read_parameters_text("sampling.guidance=.nan,sampling.temperature=-Infinity")
    assert math.isnan(found["sampling"]["guidance"])
    assert found["sampling"]["temperature"] == -math.inf


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nosuch", "'nosuch': expected name=value"),
        ("a,seed=1", "'a': expected name=value"),
        ("=3", "'': expected a name before '='"),
        ("data..path=3", r"'data..path': expected a name"),
    ],
)
def test_what_is_no_parameter_is_refused(text, message):
    with pytest.raises(ConfigurationError, match=message):
        read_parameters_text(text)
