"""A mistake in a command ends it in one line, before anything is read or made."""

from __future__ import annotations

import copy
import functools

import click
import pytest
from click.testing import CliRunner
from kedro.framework.project import configure_project
from kedro.io import DataCatalog

from pipelines import cli
from pipelines.app import session
from pipelines.runs import labels as run_labels


@pytest.fixture(autouse=True)
def project(monkeypatch):
    configure_project("pipelines")
    monkeypatch.setattr(run_labels, "_command", [])


@pytest.fixture
def start(monkeypatch):
    """Starts a run and returns what its session says of it; nothing is run."""
    seen = []

    @functools.wraps(session.KedroSession.run)
    def run(self, *arguments, **options):
        seen.append((session.requested_pipelines(), run_labels.command()))

    monkeypatch.setattr(session.KedroSession, "run", run)

    def start(store=None, **options):
        made = session.Session.__new__(session.Session)
        made._store = store or {}
        made.run(**options)
        return seen[-1]

    return start


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tags": ("nosuch",)}, "--tags = 'nosuch': expected one of (none has any)"),
        ({"pipeline_names": ["inpant"]}, "pipeline = 'inpant': expected one of "),
        ({"pipeline_name": "inpant"}, "(did you mean 'inpaint'?)"),
        ({"node_names": ("verify_node",)}, "--nodes = 'verify_node': expected one of"),
        ({"from_nodes": ["register_node"]}, "(did you mean 'register_posterior_node'?)"),
        ({"to_nodes": ["x"]}, "--to-nodes = 'x': expected one of"),
        ({"from_inputs": ["image_stor"]}, "(did you mean 'image_store'?)"),
        ({"to_outputs": ["x"]}, "--to-outputs = 'x': expected one of"),
        ({"namespaces": ["x"]}, "--namespaces=x: no node is left to run"),
        (
            {"from_nodes": ["register_posterior_node"], "to_nodes": ["prepare_images_node"]},
            "--from-nodes=register_posterior_node --to-nodes=prepare_images_node: no node is left",
        ),
    ],
)
def test_names_that_nothing_has_are_refused(start, options, message):
    with pytest.raises(click.ClickException) as caught:
        start(**options)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_the_command_is_that_of_the_run_however_it_was_started(start, monkeypatch):
    monkeypatch.setattr("sys.argv", ["pytest", "tests"])
    assert start() == ((), "kedro run")
    store = {"env": "test", "runtime_params": {"complete": {"images": "my, own"}, "seed": 1}}
    requested, command = start(store, pipeline_names=["inpaint"], from_nodes=["collect_facts_node"])
    assert requested == ("inpaint",)
    assert command == (
        "kedro run --pipeline=inpaint --env=test --from-nodes=collect_facts_node "
        "'--params=complete.images=my, own,seed=1'"
    )
    assert run_labels.command() == command


def call(monkeypatch, *arguments, does):
    """The project's `run` with another body."""
    monkeypatch.setattr(cli, "kedro_run", copy.copy(cli.kedro_run))
    monkeypatch.setattr(cli.kedro_run, "callback", does)
    return CliRunner().invoke(cli.cli, ["run", *arguments])


def test_parameters_reach_the_run_as_they_were_written(monkeypatch, tmp_path):
    seen = {}
    given = "--params=complete.output=0012,complete.images=a,b"
    done = call(monkeypatch, given, does=seen.update)
    assert done.exit_code == 0
    assert seen["params"] == {"complete": {"output": "0012", "images": "a,b"}}
    done = call(monkeypatch, "--params=seed", does=seen.update)
    assert (done.exit_code, "'seed': expected name=value" in done.output) == (2, True)
    # Parameters in a file of options have the types that they have there.
    (tmp_path / "run.yml").write_text("run: {params: {seed: 3}}")
    call(monkeypatch, f"--config={tmp_path / 'run.yml'}", does=seen.update)
    assert seen["params"] == {"seed": 3}


def test_what_kedro_refuses_is_one_line_and_what_breaks_is_not_hidden(monkeypatch):
    def refuse(**_):
        DataCatalog({}).load("nothing\nhere")

    done = call(monkeypatch, does=refuse)
    assert done.exit_code == 1
    (line,) = done.output.splitlines()
    assert line.startswith("Error: ")
    assert "nothing here" in line

    def fail(**_):
        raise ValueError("a mistake of ours")

    assert isinstance(call(monkeypatch, does=fail).exception, ValueError)
