import dataclasses

import pytest

from condvae.ground.configuration import ConfigurationError, read_config
from condvae.ground.files import fingerprint
from condvae.models import find_model
from condvae.models.folder import read_card
from condvae.training.config import TrainingConfig
from condvae.vdvae import ARCHITECTURES


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("steps", 0, "> 0"),
        ("batch_size", -1, "> 0"),
        ("learning_rate", 0.0, "> 0"),
        ("learning_rate", float("nan"), "> 0"),
        ("clip_norm", 0.0, "> 0"),
        ("skip_threshold", 0.0, "> 0"),
        ("max_skips", 0, "> 0"),
        ("max_restarts", -1, ">= 0"),
        ("checkpoint_every", 0, "> 0"),
        ("log_every", 0, "> 0"),
        ("weight_decay", -0.1, ">= 0"),
        ("warmup_steps", -1, ">= 0"),
        ("validate_every", -1, ">= 0"),
        ("schedule", "linear", "constant, cosine"),
        ("skip_rule", "always", "adaptive, published, none"),
        ("precision", "float16", "float32, bfloat16"),
        ("ema_decay", 1.0, "[0, 1)"),
        ("ema_decay", -0.1, "[0, 1)"),
        ("betas", (0.9, 1.0), "two numbers in [0, 1)"),
    ],
)
def test_values_out_of_range_are_named(name, value, expected):
    with pytest.raises(ConfigurationError) as caught:
        read_config(TrainingConfig, {name: value}, "training")
    message = str(caught.value)
    assert message.startswith(f"training.{name} = {value!r}: expected ")
    assert expected in message


@pytest.mark.parametrize(
    ("name", "value"),
    [("weight_decay", 0.0), ("warmup_steps", 0), ("validate_every", 0), ("ema_decay", 0.0)],
)
def test_zero_means_none_of_it(name, value):
    assert getattr(read_config(TrainingConfig, {name: value}, "training"), name) == value


def test_three_betas_are_refused():
    with pytest.raises(ConfigurationError, match=r"training\.betas .*expected 2 values"):
        read_config(TrainingConfig, {"betas": [0.9, 0.9, 0.9]}, "training")


def test_an_unknown_key_gets_a_suggestion():
    with pytest.raises(ConfigurationError, match=r"did you mean training\.batch_size\?"):
        read_config(TrainingConfig, {"batchsize": 4}, "training")


def test_facts_are_those_of_runs_from_before_there_were_restarts():
    identity = dict(read_card(find_model("digits"))["weights_source"])
    run, _ = identity.pop("run"), identity.pop("command")
    config = read_config(TrainingConfig, identity["training"], "training")
    facts = {"training": config.facts(), "architecture": ARCHITECTURES["digits16"].facts()}
    # What the run was called when it was made.
    assert fingerprint({**identity, **facts}) == run
    more = dataclasses.replace(config, max_restarts=3)
    assert more.facts() == {**config.facts(), "max_restarts": 3}


def test_a_settled_run_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainingConfig().steps = 3
