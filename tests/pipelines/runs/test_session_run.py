"""MLflow's stack of active runs after a session, with kedro-mlflow's calls made by hand."""

from __future__ import annotations

import threading

import mlflow
import pytest
from mlflow import MlflowClient

from pipelines.runs.session_run import SessionRun


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, make_mlflow_database):
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(make_mlflow_database(tmp_path_factory.mktemp("mlflow")))
    yield mlflow.create_experiment("condvae")
    mlflow.set_tracking_uri(before)


@pytest.fixture(autouse=True)
def empty_stack(experiment):
    mlflow.set_experiment(experiment_id=experiment)
    yield
    while mlflow.active_run() is not None:
        mlflow.end_run()


def status(run_id):
    return MlflowClient().get_run(run_id).info.status


def enter_node(session, run_id):
    """What happens before a node runs."""
    mlflow.start_run(run_id=run_id, nested=True)
    session.note_entry()


def begin(session, nodes=3):
    """A session as far as its last node; returns its run."""
    session.prepare()
    run = mlflow.active_run() or mlflow.start_run(nested=True)
    session.open()
    for _ in range(nodes):
        enter_node(session, run.info.run_id)
    return run.info.run_id


def test_sessions_one_after_another_have_runs_of_their_own():
    session, found = SessionRun(), []
    for _ in range(2):
        found.append(begin(session))
        session.leave()
        assert status(found[-1]) == "RUNNING"  # it is kedro-mlflow's to end
        mlflow.end_run()
        assert mlflow.active_run() is None
    assert found[0] != found[1]
    assert [status(run_id) for run_id in found] == ["FINISHED", "FINISHED"]
    assert "mlflow.parentRunId" not in MlflowClient().get_run(found[1]).data.tags


def test_the_callers_run_is_logged_to_and_left_to_the_caller():
    session = SessionRun()
    with mlflow.start_run() as study:
        with mlflow.start_run(nested=True) as own:
            for _ in range(2):
                assert begin(session) == own.info.run_id
                session.leave()
                assert mlflow.active_run().info.run_id == own.info.run_id
        assert mlflow.active_run().info.run_id == study.info.run_id
    assert mlflow.active_run() is None
    assert [status(run.info.run_id) for run in (study, own)] == ["FINISHED", "FINISHED"]


def test_the_next_session_ends_what_an_interrupted_one_has_left():
    session = SessionRun()
    interrupted = begin(session)
    following = begin(session)
    assert following != interrupted
    assert status(interrupted) == "KILLED"
    session.leave()
    session.end_interrupted()  # at exit: nothing is left to end
    assert status(following) == "RUNNING"


def test_the_callers_run_outlives_an_interrupted_session():
    session = SessionRun()
    with mlflow.start_run() as own:
        begin(session)
        session.prepare()
        assert mlflow.active_run().info.run_id == own.info.run_id
    assert mlflow.active_run() is None
    assert status(own.info.run_id) == "FINISHED"


def test_nodes_of_other_threads_leave_the_stack_of_this_one_alone():
    session = SessionRun()
    run_id = begin(session, nodes=1)
    thread = threading.Thread(target=enter_node, args=(session, run_id))
    thread.start()
    thread.join()
    session.leave()
    assert mlflow.active_run().info.run_id == run_id
    mlflow.end_run()
    assert mlflow.active_run() is None
