from __future__ import annotations

import multiprocessing
import threading
import time
from types import SimpleNamespace

import click
import pytest

from condvae.ground.configuration import ConfigurationError, read_config
from pipelines.parameters import ReevaluationConfig
from pipelines.reevaluation import hooks as reevaluation_hooks
from pipelines.reevaluation.hooks import (
    ALARM_EXIT_CODE,
    AlarmError,
    ReevaluationHooks,
    VerdictHooks,
)
from pipelines.reevaluation.lock import hold


def _hold_for_ever(path, held):
    with hold(path, 0, "kedro run --pipeline=reevaluate"):
        held.set()
        time.sleep(600)


@pytest.fixture
def other(tmp_path):
    """A process that holds the lock."""
    # A fork has everything imported, which would take a new process many seconds.
    context = multiprocessing.get_context("fork")
    held = context.Event()
    process = context.Process(target=_hold_for_ever, args=(tmp_path / "lock", held), daemon=True)
    process.start()
    assert held.wait(60)
    yield process
    process.kill()
    process.join()


def test_the_second_leaves_with_a_message_that_names_the_first(other, tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        hold(tmp_path / "lock", 0.3, "second")
    assert f"process {other.pid} on" in str(caught.value)
    assert "kedro run --pipeline=reevaluate" in str(caught.value)
    assert "wait_seconds = 0.3" in str(caught.value)


def test_the_second_waits_for_the_first_even_if_that_is_killed(other, tmp_path):
    threading.Timer(0.5, other.kill).start()
    with hold(tmp_path / "lock", 30, "second"):
        assert '"command": "second"' in (tmp_path / "lock").read_text()


REASON = {"weight": "degraded", "about": "calibration", "message": "intervals are too narrow"}


def run_hooks(folder, verdict, pipeline_inputs=("params:reevaluate",)):
    hooks = ReevaluationHooks()
    catalog = SimpleNamespace(load=lambda _: {"folder": "reevaluate", "wait_seconds": 0})
    hooks.before_pipeline_run(
        {"project_path": str(folder)}, SimpleNamespace(inputs=lambda: set(pipeline_inputs)), catalog
    )
    hooks.after_dataset_saved("reevaluation_verdict", verdict)
    return hooks


def test_an_alarm_is_an_exit_code_and_gives_the_lock_back(tmp_path):
    hooks = run_hooks(tmp_path, {"verdict": "degraded", "reasons": [REASON]})
    with pytest.raises(AlarmError, match="degraded: intervals are too narrow") as caught:
        hooks.after_pipeline_run()
    assert isinstance(caught.value, click.ClickException)
    assert caught.value.exit_code == ALARM_EXIT_CODE == 3
    run_hooks(tmp_path, {"verdict": "ok", "reasons": []}).after_pipeline_run()


def test_verdict_of_a_run_that_failed_afterwards_is_not_that_of_the_next(monkeypatch):
    tagged = []
    fake = SimpleNamespace(active_run=object, set_tags=tagged.append)
    fake.log_dict = lambda *_: None
    monkeypatch.setattr(reevaluation_hooks, "mlflow", fake)
    champion = {"name": "condvae-a-b", "version": "1", "sha256": "0" * 64}
    verdict = {"verdict": "ok", "reasons": [], "champion": champion, "manifest": None}
    hooks = VerdictHooks()
    hooks.after_dataset_saved("reevaluation_verdict", verdict)
    hooks.before_pipeline_run()
    hooks.after_pipeline_run()
    assert tagged == []
    hooks.after_dataset_saved("reevaluation_verdict", verdict)
    hooks.after_pipeline_run()
    assert tagged[0]["verdict"] == "ok"


def test_while_one_runs_another_is_refused_in_one_line(tmp_path):
    hooks = run_hooks(tmp_path, {"verdict": "ok", "reasons": []})
    with pytest.raises(click.ClickException, match="another re-evaluation"):
        run_hooks(tmp_path, {})
    hooks.on_pipeline_error()
    run_hooks(tmp_path, {"verdict": "ok", "reasons": []}).after_pipeline_run()


def test_other_pipelines_take_no_lock(tmp_path):
    first, second = (run_hooks(tmp_path, None, ("params:task",)) for _ in range(2))
    first.after_pipeline_run()
    second.after_pipeline_run()
    assert not (tmp_path / "reevaluate").exists()


def test_a_folder_of_new_pictures_that_is_not_there_is_refused_before_anything(tmp_path):
    values = {"folder": "reevaluate", "new_data": "nowhere"}
    with pytest.raises(click.ClickException, match=r"reevaluate\.new_data = 'nowhere'"):
        ReevaluationHooks().before_pipeline_run(
            {"project_path": str(tmp_path)},
            SimpleNamespace(inputs=lambda: {"params:reevaluate"}),
            SimpleNamespace(load=lambda _: values),
        )
    assert not (tmp_path / "reevaluate").exists()


@pytest.mark.parametrize(
    "values",
    [
        {"alpha": 0.0},
        {"level": 1.0},
        {"least_images": 1},
        {"most_images": 10},
        {"size": "small"},
        {"tolerance": -0.1},
    ],
)
def test_wrong_parameters_are_named(values):
    with pytest.raises(ConfigurationError, match=f"reevaluate.{next(iter(values))} = "):
        read_config(ReevaluationConfig, {"folder": "reevaluate"} | values, "reevaluate")
