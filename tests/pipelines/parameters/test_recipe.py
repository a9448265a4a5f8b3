"""The published recipe: what it sets, for which model, and what it leaves alone."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from kedro.config import OmegaConfigLoader

from condvae.ground.configuration import ConfigurationError
from condvae.ground.images import DataContract
from condvae.models.folder import save_vae
from condvae.models.presets import PRESETS
from condvae.training.config import TrainingConfig
from pipelines import settings
from pipelines.app.hooks import ParameterHooks
from pipelines.parameters import ModelConfig, check_parameters
from pipelines.parameters.recipe import apply_recipe

ROOT = Path(__file__).resolve().parents[3]
KEPT = ("precision", "checkpoint_every", "log_every", "validate_every")


def make_loader(given=None):
    return OmegaConfigLoader(
        str(ROOT / "conf"), env="base", runtime_params=given, **settings.CONFIG_LOADER_ARGS
    )


def published(given=None):
    """Effective parameters of `kedro run --params=recipe=published,...` in this checkout."""
    given = {"recipe": "published", **(given or {})}
    return apply_recipe(dict(make_loader(given)["parameters"]), given, ROOT)


def assert_settings(found, expected, *configured):
    """Every field of `expected` but those that stay as configured."""
    for name, value in vars(expected).items():
        if name not in (*KEPT, *configured):
            assert found[name] == (list(value) if isinstance(value, tuple) else value), name


def test_tuned_is_what_the_files_say():
    configured = make_loader()["parameters"]
    assert configured["recipe"] == "tuned"
    assert apply_recipe(configured, {}, ROOT) == configured


def test_reverse_objective_begins_with_a_copied_encoder():
    assert published({"objective": {"name": "ipa_r"}})["model"]["initialisation"] == "copy"


def test_unknown_recipe_is_refused():
    parameters = {**make_loader()["parameters"], "recipe": "publish"}
    with pytest.raises(
        ConfigurationError, match=r"^recipe = 'publish': .*did you mean 'published'"
    ):
        check_parameters(parameters)


def test_model_nobody_published_gets_the_common_settings_and_keeps_its_steps():
    configured = make_loader()["parameters"]
    found = published()
    for section, kind in (("training", "conditional"), ("pretraining", "unconditional")):
        assert_settings(found[section], getattr(PRESETS["cifar10"], kind), "steps")
        for name in ("steps", *KEPT):
            assert found[section][name] == configured[section][name]
    # Numbers of the paper's appendix, not of the registry they are read from.
    assert found["training"]["batch_size"] == 30
    assert found["training"]["learning_rate"] == 2e-4
    assert found["training"]["ema_decay"] == 0.9999
    assert found["training"]["skip_rule"] == "published"
    assert found["training"]["skip_threshold"] == 400.0
    assert found["training"]["schedule"] == "constant"
    assert found["model"] == {**configured["model"], "initialisation": "random"}
    assert found["masks"] == {
        "kinds": {"free_form_published": 1.0},
        "stratified": False,
        "pool": configured["masks"]["pool"],
    }
    for name in set(configured) - {"recipe", "training", "pretraining", "model", "masks"}:
        assert found[name] == configured[name]
    check_parameters(found)


@pytest.mark.parametrize("name", PRESETS)
def test_new_vae_of_a_preset_gets_its_settings_and_contract(name):
    found = published({"model": {"architecture": name}})
    preset = PRESETS[name]
    if preset.unconditional is not None:
        assert_settings(found["pretraining"], preset.unconditional)
    else:
        assert_settings(found["pretraining"], PRESETS["cifar10"].unconditional, "steps")
    contract = DataContract(
        preset.contract.channels,
        preset.contract.size,
        found["model"]["mean"],
        found["model"]["std"],
        found["model"]["bits"],
    )
    assert contract == preset.contract
    if preset.conditional is not None:
        assert_settings(found["training"], preset.conditional)
    check_parameters(found)


def test_partial_encoder_nobody_published_gets_the_common_settings():
    found = published({"model": {"architecture": "ffhq1024"}})
    configured = make_loader()["parameters"]
    assert_settings(found["training"], PRESETS["cifar10"].conditional, "steps")
    assert found["training"]["steps"] == configured["training"]["steps"]
    assert found["pretraining"]["steps"] == 1_700_000


@pytest.mark.parametrize(
    ("weights", "preset"),
    [
        ({"vae": "a/b.th", "preset": "imagenet64"}, "imagenet64"),
        ({"vae": "vdvae-ffhq256"}, "ffhq256"),
        ({"vae": "digits"}, "imagenet32"),  # no preset on its card: model.architecture decides
        ({"vae": "random"}, "imagenet32"),
    ],
)
def test_preset_of_the_frozen_vae(weights, preset):
    found = published({"weights": weights, "model": {"architecture": "imagenet32"}})
    assert_settings(found["training"], PRESETS[preset].conditional)
    # Another VAE, to be made by `pretrain`: its own settings.
    assert_settings(found["pretraining"], PRESETS["imagenet32"].unconditional)
    assert found["model"]["mean"] == 116.2373


def test_preset_of_a_converted_folder_is_read_from_its_card(tmp_path, make_vae):
    save_vae(tmp_path / "converted", make_vae(), {"preset": "ffhq256"})
    parameters = {**make_loader()["parameters"], "recipe": "published"}
    parameters["weights"] = {"vae": "converted"}
    found = apply_recipe(parameters, {}, tmp_path)
    assert_settings(found["training"], PRESETS["ffhq256"].conditional)
    assert_settings(found["pretraining"], PRESETS["ffhq256"].unconditional)
    assert found["model"]["mean"] is None  # a new digits16 has nothing to do with FFHQ


def test_vae_that_is_nowhere_is_refused():
    with pytest.raises(ConfigurationError, match=r"'nowhere': neither a registered name"):
        published({"weights": {"vae": "nowhere"}})


def test_values_on_the_command_line_win():
    found = published(
        {
            "training": {"steps": 7, "skip_rule": "none"},
            "model": {"initialisation": "copy", "architecture": "cifar10", "bits": 5},
            "masks": {"kinds": {"half": 0.5}},
        }
    )
    assert found["training"]["steps"] == 7
    assert found["training"]["skip_rule"] == "none"
    assert found["training"]["skip_threshold"] == 400.0
    assert found["model"]["initialisation"] == "copy"
    assert found["model"]["bits"] == 5
    assert found["model"]["std"] == 64.16736
    assert found["masks"]["kinds"] == {"free_form_published": 1.0, "half": 0.5}


def test_one_line_says_what_is_set(caplog):
    with caplog.at_level(logging.INFO, logger="pipelines.parameters.recipe"):
        published({"training": {"steps": 7}, "weights": {"vae": "vdvae-cifar10-seed1"}})
    message = next(r.getMessage() for r in caplog.records if r.levelno == logging.INFO)
    assert message.startswith(
        "recipe published, frozen VAE of preset cifar10, new VAE of preset none"
    )
    assert "training (batch_size 30, learning_rate 0.0002, " in message
    assert "pretraining (steps 1050000, batch_size 32, " in message
    assert "model (initialisation random)" in message
    assert "masks (kinds.free_form_published 1.0, stratified False)" in message
    assert message.endswith("; as given: training.steps")


def test_average_that_is_mostly_the_random_start_is_warned_of(caplog):
    published({"training": {"steps": 7000}, "pretraining": {"steps": 30_000}})
    (message,) = (r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)
    # exp(-0.7) = 0.4966; after 30,000 steps exp(-3) = 0.0498 is left.
    assert message == (
        "recipe published: 50 % of the averaged weights are still the random start after "
        "training.steps = 7000; raise it, or give training.ema_warmup=true or a smaller "
        "training.ema_decay"
    )


@pytest.mark.parametrize("cure", [{"ema_warmup": True}, {"ema_decay": 0.99}, {"steps": 100_000}])
def test_cures_that_the_warning_names_are_cures(caplog, cure):
    long = {"pretraining": {"steps": 100_000}}
    published({**long, "training": {"steps": 1000, **cure}})
    assert not [r for r in caplog.records if r.levelno == logging.WARNING]


@pytest.fixture
def hook(untracked):
    def call(given):
        loader = make_loader(given)
        context = SimpleNamespace(config_loader=loader, project_path=ROOT)
        ParameterHooks().after_context_created(context)
        return loader

    return call


def test_hook_puts_effective_values_where_kedro_reads_them(hook):
    assert hook({"recipe": "published"})["parameters"]["training"]["batch_size"] == 30
    assert hook({})["parameters"]["training"]["batch_size"] == 32


def test_effective_values_are_checked(hook):
    # 3 x 32 x 32 images are asked for by the preset's architecture, digits are there.
    given = {"recipe": "published", "model": {"architecture": "cifar10"}}
    weights = {"vae": "random", "allow_untrained": True}
    with pytest.raises(
        click.ClickException, match=r"model\.architecture = 'cifar10' is for 3 x 32²"
    ):
        hook({**given, "weights": weights})
    with pytest.raises(click.ClickException, match=r"training\.stepz"):
        hook({"recipe": "published", "training": {"stepz": 1}})


def test_contract_of_a_new_vae():
    own = ModelConfig("tiny16").contract(80.0, 90.0)
    assert own == DataContract(1, 16, 80.0, 90.0, 8)
    assert ModelConfig("tiny16", bits=5, std=64.0).contract(80.0, 90.0) == DataContract(
        1, 16, 80.0, 64.0, 5
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bits": 7}, "bits = 7: expected one of 5, 8"),
        (
            {"architecture": "efficient_celeba64", "bits": 5},
            "bits = 5: expected 8 for efficient_cel",
        ),
        ({"std": 0.0}, "std = 0.0: expected > 0"),
        ({"mean": 256.0}, r"mean = 256\.0: expected in \[0, 255\]"),
    ],
)
def test_impossible_contract_is_refused(values, message):
    with pytest.raises(ConfigurationError, match=message):
        ModelConfig(**values)


def test_published_settings_are_legal():
    # Recipe and registry could drift apart in the names of fields.
    names = set(vars(TrainingConfig()))
    found = published()
    assert set(found["training"]) == set(found["pretraining"]) == names
