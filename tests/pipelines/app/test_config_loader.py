"""Which of the files in `conf/` has the last word."""

from __future__ import annotations

import pytest
from kedro.config import MissingConfigException

from pipelines import settings
from pipelines.app.config_loader import ConfigLoader


@pytest.fixture
def load(tmp_path):
    """A function that reads a kind of files in an environment; `conf` is its folder."""
    texts = {
        "base/parameters.yml": "a: {b: 1, c: 1, d: 1, e: 1}",
        "base/catalog.yml": "x: {type: base, filepath: base}",
        "base/globals.yml": "data: base",
        "photos/parameters.yml": "a: {c: 2, d: 2, e: 2}",
        "local/parameters.yml": "a: {d: 3, e: 3}\nf: ${globals:data}",
        "local/mlflow.yml": "server: {mlflow_tracking_uri: local}",
        "local/catalog.yml": "x: {type: local}",
        "local/credentials.yml": "server: {MLFLOW_TRACKING_TOKEN: secret}",
        "local/globals.yml": "data: local",
        "base/mlflow.yml": "server: {mlflow_tracking_uri: base, credentials: server}",
    }
    for name, text in texts.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def read(kind, env="photos", **given):
        arguments = settings.CONFIG_LOADER_ARGS
        return ConfigLoader(str(tmp_path), env=env, runtime_params=given, **arguments)[kind]

    read.conf = tmp_path
    return read


def test_local_settings_hold_in_every_environment(load):
    assert settings.CONFIG_LOADER_CLASS is ConfigLoader
    assert load("parameters")["a"] == {"b": 1, "c": 2, "d": 3, "e": 3}
    assert load("parameters", None)["a"] == load("parameters", "base")["a"] | {"d": 3, "e": 3}
    assert load("mlflow") == {"server": {"mlflow_tracking_uri": "local", "credentials": "server"}}
    # As in Kedro, data sets are replaced whole; what refers to other files sees what holds in the end.
    assert load("catalog") == {"x": {"type": "local"}}
    assert load("parameters")["f"] == "local"


def test_the_command_line_has_the_last_word(load):
    assert load("parameters", a={"e": 4})["a"] == {"b": 1, "c": 2, "d": 3, "e": 4}


def test_credentials_are_found_where_only_local_has_them(load):
    for env in ("photos", None):
        assert load("credentials", env) == {"server": {"MLFLOW_TRACKING_TOKEN": "secret"}}


def test_an_environment_that_is_not_there_is_refused(load):
    with pytest.raises(MissingConfigException, match="photoz"):
        load("parameters", "photoz")


def test_a_project_without_local_settings_is_read(load):
    for path in (load.conf / "local").iterdir():
        path.unlink()
    (load.conf / "local").rmdir()
    assert load("parameters")["a"] == {"b": 1, "c": 2, "d": 2, "e": 2}
