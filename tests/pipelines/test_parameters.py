"""Every parameter file is accepted as it is, and every kind of mistake is refused by name."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from condvae.configuration import ConfigurationError
from pipelines.parameters import check_parameters

CONF = Path(__file__).resolve().parents[2] / "conf"


def load(*patterns):
    """Parameters as the soft merge of Kedro's loader gives them."""
    merged = {}
    for pattern in patterns:
        for path in sorted(CONF.glob(pattern)):
            merge(merged, yaml.safe_load(path.read_text()))
    return merged


def merge(into, values):
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def set_value(parameters, dotted, value):
    *path, last = dotted.split(".")
    for name in path:
        parameters = parameters.setdefault(name, {})
    parameters[last] = value


@pytest.fixture(scope="module")
def base():
    return load("base/parameters/*.yml")


def test_base_is_accepted(base):
    check_parameters(base)


def test_test_environment_is_accepted():
    check_parameters(load("base/parameters/*.yml", "test/parameters.yml"))


def test_base_states_every_parameter_of_the_training_sections(base):
    # A default that is nowhere to be read would be found by nobody; these two are rarely changed.
    from dataclasses import fields

    from condvae.training import TrainingConfig

    names = {field.name for field in fields(TrainingConfig)} - {
        "betas",
        "weight_decay",
        "max_skips",
    }
    assert set(base["training"]) == set(base["pretraining"]) == names


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("trainings", {}, "unknown parameter trainings (did you mean training?)"),
        ("training.stepz", 3, "unknown parameter training.stepz (did you mean training.steps?)"),
        ("training.steps", "many", "training.steps = 'many': expected int"),
        ("training.steps", True, "training.steps = True: expected int"),
        ("training.learning_rate", -1, "training.learning_rate = -1.0: expected > 0"),
        ("training.schedule", "cosin", "training.schedule = 'cosin': expected one of"),
        ("training", 3, "training = 3: expected a mapping"),
        ("model.architecture", "cifar", "model.architecture = 'cifar': expected one of"),
        ("model.initialisation", "copied", "model.initialisation = 'copied': expected one of"),
        ("masks.kinds.free", 1.0, "free"),
        ("task.name", "inpaint", "task.name = 'inpaint': expected one of inpainting"),
        ("evaluation.samplers", ["prior"], "expected 'ipa' among them"),
        ("evaluation.quick.completions", 1, "evaluation.quick.completions = 1: diversity needs"),
        ("sampling.temperature", -0.1, "sampling.temperature = -0.1: expected >= 0"),
        ("data.source", "npy", "data.source = 'npy'"),
        ("device", "cuda:99", "device = 'cuda:99'"),
        ("device", "gpu", "device = 'gpu': expected auto, cpu, cuda or cuda:N"),
        ("seed", -1, "seed = -1: expected >= 0"),
        ("seed", "one", "seed = 'one'"),
        ("folders.images", None, "folders.images = None: expected str"),
    ],
)
def test_mistake_is_refused_by_name(base, name, value, message):
    parameters = copy.deepcopy(base)
    set_value(parameters, name, value)
    with pytest.raises(ConfigurationError) as caught:
        check_parameters(parameters)
    assert message in str(caught.value)
