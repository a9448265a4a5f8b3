"""Every parameter file is accepted as it is, and every kind of mistake is refused by name."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import yaml

from condvae.ground.configuration import ConfigurationError
from pipelines.parameters import check_parameters

CONF = Path(__file__).resolve().parents[3] / "conf"


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


@pytest.mark.parametrize(
    "task",
    [
        {"name": "super_resolution"},
        {"name": "class_label", "options": {"classes": 10}},
        {"name": "combination", "options": {"parts": {"outpainting": {}, "edges": {}}}},
    ],
)
def test_tasks_that_the_images_are_made_for_are_accepted(base, task):
    check_parameters({**base, "task": task})


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


def test_base_states_every_parameter_of_the_objective(base):
    from dataclasses import asdict

    from condvae.training import ObjectiveConfig

    assert base["objective"] == asdict(ObjectiveConfig())


def test_objective_that_fits_weights_and_task_is_accepted(base):
    check_parameters({**base, "objective": {"name": "ipa_r"}})
    weights = {**base["weights"], "vae": "random"}
    check_parameters({**base, "objective": {"name": "joint"}, "weights": weights})
    task = {"name": "class_label", "options": {"classes": 10}}
    with pytest.raises(ConfigurationError, match=r"objective\.name = 'ipa_r' needs"):
        check_parameters({**base, "objective": {"name": "ipa_r"}, "task": task})


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
        ("task.options", {"factor": 2}, "task.options = {'factor': 2}: task 'inpainting' has no"),
        ("task", {"name": "class_label"}, "missing parameter task.options.classes"),
        ("task", {"name": "colourisation"}, "'colourisation' needs images of 3 channels, found 1"),
        (
            "task",
            {"name": "super_resolution", "options": {"factor": 3}},
            "task.name = 'super_resolution': factor = 3: expected a divisor of the image side 16",
        ),
        (
            "task",
            {"name": "edges", "options": {"paired": True}},
            "'edges' needs paired, and data.source = 'digits' has none; expected one of edges2shoes",
        ),
        (
            "task",
            {"name": "attributes", "options": {"count": 40}},
            "'attributes' needs attributes, and data.source = 'digits' has none",
        ),
        ("model.first_groups", 0, "model.first_groups = 0: expected > 0"),
        ("objective.name", "joint", "from random weights, but weights.vae = 'digits'"),
        ("objective.trainable", "none", "objective.trainable = 'none': expected one of partial"),
        ("evaluation.quick.samplers", ["ipa", "priors"], "sampler = 'priors': expected one of"),
        ("evaluation.quick.samplers", ["ipa", "ipa"], "expected at least one, all different"),
        ("evaluation.quick.samplers", [], "expected at least one, all different"),
        ("evaluation.quick.bound_draws", [7], "bound_draws = 7: expected one of 1, 10, 100"),
        ("evaluation.quick.masks_per_image", 3, "expected one of the two, and null for the other"),
        ("evaluation.full.masks_per_image", 6, "masks_per_image = 6: expected 1 to 5"),
        ("evaluation.fidelity.name", "inceptoin", "did you mean 'inception'"),
        (
            "evaluation.fidelity.name",
            "lpips_alex",
            "evaluation.fidelity.name = 'lpips_alex': gives distances only",
        ),
        (
            "evaluation.perceptual.name",
            "inception",
            "evaluation.perceptual.name = 'inception': gives features only",
        ),
        ("evaluation.fidelity.sha256", "0", "evaluation.fidelity.sha256 = '0': feature_network"),
        ("evaluation.perceptual.heads", "a", "evaluation.perceptual.heads = 'a': feature_network"),
        ("score.name", "prior", "the name of a sampler of ours"),
        ("score.name", "a/b", "expected letters, digits"),
        ("score.size", "half", "score.size = 'half': expected one of quick, full"),
        ("evaluation.quick.completions", 1, "evaluation.quick.completions = 1: diversity needs"),
        ("sampling.temperature", -0.1, "sampling.temperature = -0.1: expected >= 0"),
        ("sampling.guidance", -0.1, "sampling.guidance = -0.1: expected >= 0"),
        (
            "sampling.guidance_rule",
            "sum",
            "sampling.guidance_rule = 'sum': expected one of product",
        ),
        ("anomaly.draws", 0, "anomaly.draws = 0: expected > 0"),
        ("data.source", "npy", "data.source = 'npy'"),
        ("device", "cuda:99", "device = 'cuda:99'"),
        ("device", "gpu", "device = 'gpu': expected auto, cpu, cuda or cuda:N"),
        ("start.load", 3, "start.load = 3: expected str"),
        ("start", {"resume": "a", "load": "b"}, "start.resume = 'a', load = 'b': expected at most"),
        ("start.from", "a", "unknown parameter start.from"),
        ("recipe", "publish", "recipe = 'publish': expected one of tuned, published"),
        ("recipe", 3, "recipe = 3: expected text"),
        ("model.bits", 7, "model.bits = 7: expected one of 5, 8"),
        ("model.flows", "1:cubic", "model.flows = '1:cubic': '1:cubic' is not one of the expected"),
        ("model.flow_layers", -1, "model.flow_layers = -1: expected >= 0"),
        ("weights.allow_unpinned", "yes", "weights.allow_unpinned = 'yes': expected bool"),
        ("verify.images", 1, "verify.images = 1: a standard error needs at least 2"),
        ("seed", -1, "seed = -1: expected 0 to 2^63 - 1"),
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


@pytest.mark.parametrize(
    ("rung", "message"),
    [
        ("resume", "start.resume = 'nowhere': no such folder"),
        ("load", "start.load = 'nowhere': model 'nowhere': neither a registered name"),
        ("load_part", "start.load_part = 'nowhere': model 'nowhere': neither a registered name"),
    ],
)
def test_start_that_is_not_there_is_refused_unless_a_run_has_begun_from_it(
    base, tmp_path, rung, message
):
    parameters = copy.deepcopy(base)
    set_value(parameters, f"start.{rung}", "nowhere")
    set_value(parameters, "folders.inpaint", "models/inpaint")
    with pytest.raises(ConfigurationError) as caught:
        check_parameters(parameters, tmp_path)
    assert message in str(caught.value)
    run = tmp_path / "models" / "inpaint" / "training" / "0123456789ab"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"fingerprint": "0123456789ab", "source": "nowhere"}))
    check_parameters(parameters, tmp_path)


@pytest.mark.parametrize("name", ["digits", "here"])
def test_start_that_is_there_is_accepted(base, tmp_path, name):
    (tmp_path / "here").mkdir()
    parameters = copy.deepcopy(base)
    set_value(parameters, "start.load", name)
    check_parameters(parameters, tmp_path)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"vae": "a.th", "preset": "cifar10"}, "weights.vae = 'a.th': no such file"),
        ({"posterior": "b.th", "preset": "cifar10"}, "weights.posterior = 'b.th': no such file"),
        ({"vae": "nowhere"}, "model 'nowhere': neither a registered name"),
        ({"posterior": "vdvae-cifar10-seed1"}, "is a VAE, expected a posterior"),
    ],
)
def test_weights_that_are_not_there_are_refused(base, tmp_path, weights, message):
    parameters = copy.deepcopy(base)
    parameters["weights"].update(weights)
    with pytest.raises(ConfigurationError) as caught:
        check_parameters(parameters, tmp_path)
    assert message in str(caught.value)


def test_published_vae_may_be_fetched_later(base, tmp_path):
    parameters = copy.deepcopy(base)
    parameters["weights"]["vae"] = "vdvae-cifar10-seed1"
    check_parameters(parameters, tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"source": "npz", "path": "a.npz"}, "data.path = 'a.npz': no such file or folder"),
        ({"source": "cifar10", "path": "cifar"}, "only obtained for a path that ends in 'cifar10'"),
        (
            {"source": "chest_xray14", "path": "raw/chest_xray14"},
            "chest_xray14 cannot be fetched without a person",
        ),
        ({"source": "ffhq", "path": "raw/ffhq"}, "ffhq is restricted"),
    ],
)
def test_images_that_cannot_be_had_are_refused(base, tmp_path, data, message):
    parameters = copy.deepcopy(base)
    parameters["data"].update(data)
    with pytest.raises(ConfigurationError) as caught:
        check_parameters(parameters, tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["cifar10", "ffhq"])
def test_published_images_may_be_fetched_later(base, tmp_path, source):
    parameters = copy.deepcopy(base)
    path = f"data/01_raw/{source}"
    parameters["data"].update({"source": source, "path": path, "accept_licence": True})
    check_parameters(parameters, tmp_path)
