from __future__ import annotations

import pytest

from condvae.data import DataConfig
from condvae.data.config import SOURCE_NAMES
from condvae.data.sources import SOURCES
from condvae.ground.configuration import ConfigurationError, read_config


def test_defaults_are_the_bundled_digits():
    config = read_config(DataConfig, {}, "data")
    assert (config.source, config.image_size, config.channels) == ("digits", 16, 1)


def test_every_source_name_has_a_source():
    assert set(SOURCES) == set(SOURCE_NAMES)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": "image_foldr", "path": "x"}, "did you mean 'image_folder'"),
        ({"source": "npz"}, "data.path = None: source 'npz' needs a path"),
        ({"source": "image_folder", "path": ""}, "needs a path"),
        ({"path": "somewhere"}, "source 'digits' is bundled"),
        ({"name": "../up"}, "data.name = '../up'"),
        ({"name": ""}, "data.name = ''"),
        ({"image_size": 0}, "data.image_size = 0"),
        ({"channels": 4}, "data.channels = 4: expected one of 1, 3"),
        ({"fit": "crop"}, "data.fit = 'crop'"),
        ({"limit": 0}, "data.limit = 0"),
        ({"validation_share": 0.0}, "data.validation_share = 0.0"),
        ({"validation_share": 0.5, "test_share": 0.5}, "validation_share + test_share = 1"),
        ({"seed": -1}, "data.seed = -1"),
        ({"unreadable": "ignore"}, "data.unreadable = 'ignore'"),
        ({"image_sise": 3}, "did you mean data.image_size"),
        ({"source": "cifar10"}, "data.path = None: source 'cifar10' needs a path"),
        ({"split": "official"}, "data.split = 'official': source 'digits' has no published split"),
        ({"split": "offical"}, "did you mean 'official'"),
        ({"crop": 0}, "data.crop = 0: expected > 0"),
        ({"duplicates": "remove"}, "data.duplicates = 'remove': expected one of drop, keep, stop"),
    ],
)
def test_bad_values_are_refused_by_name(values, message):
    with pytest.raises(ConfigurationError) as error:
        read_config(DataConfig, values, "data")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("split", "duplicates", "rule"),
    [
        ("random", None, "drop"),
        ("official", None, "keep"),
        ("random", "keep", "keep"),
        ("official", "stop", "stop"),
    ],
)
def test_an_official_split_keeps_duplicates_unless_told_otherwise(split, duplicates, rule):
    config = DataConfig(source="mnist", path="x", split=split, duplicates=duplicates)
    assert config.duplicate_rule == rule
