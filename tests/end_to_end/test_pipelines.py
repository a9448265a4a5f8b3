"""The registered pipelines, run as commands in a copy of the project with the environment `test`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time

import pandas as pd
import pytest

from condvae.files import sha256_of_file
from condvae.metrics.cases import read_cases
from condvae.model_folder import load_posterior, read_card

BINS = ["0_20", "20_40", "40_60", "60_80", "80_100", "pooled"]


@pytest.fixture(scope="module")
def inpainted(project):
    """The project after `kedro run --env=test --pipeline=inpaint`, and what it printed."""
    return project, project.kedro("run", "--env=test", "--pipeline=inpaint")


def test_inpaint_writes_what_the_design_says(inpainted):
    project, _ = inpainted
    report = project.folder / "data/test/08_reporting/inpaint"
    metrics = pd.DataFrame(json.loads((report / "metrics.json").read_text()))
    assert list(metrics.columns) == [
        *("metric", "bin", "sampler", "value", "standard_error", "n", "k"),
        *("temperature", "extractor", "seed", "manifest"),
    ]
    assert set(metrics["metric"]) == {
        "negative_elbo_nats_per_dim",
        "bound_bits_per_unobserved_dim",
        "frechet_distance",
        "perceptual_best_of_k",
        "perceptual_diversity",
        "class_agreement",
    }
    assert set(metrics["sampler"]) == {"ipa", "untrained", "prior"}
    assert set(metrics["bin"]) == set(BINS)
    assert set(metrics.loc[metrics["metric"] == "frechet_distance", "extractor"]) == {
        "digits_classifier_f2"
    }
    table = pd.read_csv(report / "metrics.csv")
    pd.testing.assert_frame_equal(table, metrics, check_dtype=False, rtol=1e-12)
    manifest = json.loads(
        (project.folder / "data/test/05_model_input/evaluation_manifest.json").read_text()
    )
    assert set(metrics["manifest"]) == {manifest["sha256"]}
    assert len(read_cases(project.folder / manifest["path"], manifest["sha256"])) == 20


def test_pooled_values_follow_from_the_cases(inpainted):
    project, _ = inpainted
    report = project.folder / "data/test/08_reporting/inpaint"
    cases = pd.read_parquet(report / "cases.parquet")
    metrics = pd.DataFrame(json.loads((report / "metrics.json").read_text()))
    sums = cases.groupby(["metric", "sampler"])[["value", "weight"]].sum()
    ratios = (sums["value"] / sums["weight"]).rename("expected").reset_index()
    pooled = metrics[metrics["bin"] == "pooled"].merge(ratios, on=["metric", "sampler"])
    assert len(pooled) == 5 * 3
    assert pooled["value"].tolist() == pytest.approx(pooled["expected"].tolist(), rel=1e-9)


def test_report_stands_alone(inpainted):
    project, _ = inpainted
    page = (project.folder / "data/test/08_reporting/inpaint/report.html").read_text()
    assert page.count("data:image/png;base64,") >= 8
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_posterior_folder_opens_and_completes(inpainted):
    import torch

    project, _ = inpainted
    posterior = load_posterior(project.folder / "data/test/06_models/inpaint/posterior")
    truth = torch.randint(0, 256, (1, 1, 16, 16), dtype=torch.uint8)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    drawn = posterior.sample(posterior.observe(truth, mask), 3)
    assert drawn.shape == (3, 1, 1, 16, 16)
    assert torch.equal(drawn[..., :8], truth[..., :8].expand(3, 1, 1, 16, 8))


def test_mlflow_run_says_what_was_done(inpainted):
    project, _ = inpainted
    client, runs = project.runs()
    run = next(r for r in runs if r.info.run_name == "inpaint")
    assert run.info.status == "FINISHED"
    assert run.data.params["training.steps"] == "6"
    assert run.data.params["masks.kinds.free_form"] == "0.4"
    weights = project.folder / "data/test/06_models/inpaint/posterior/model.safetensors"
    assert run.data.tags["posterior_sha256"] == sha256_of_file(weights)
    assert run.data.tags["device"] == "cpu"
    for tag in ("data_fingerprint", "weights_sha256", "manifest_sha256", "extractor", "gpu"):
        assert run.data.tags[tag]
    metrics = run.data.metrics
    for sampler, root in (("ipa", "eval"), ("prior", "eval_prior")):
        assert f"{root}/pooled/perceptual_best_of_k/digits_classifier_f2" in metrics, sampler
    assert "eval/20_40/bound_bits_per_unobserved_dim/pixels" in metrics
    history = client.get_metric_history(run.info.run_id, "train/kl_nats")
    assert [point.step for point in history] == [2, 4, 6]
    assert len({a.path for a in client.list_artifacts(run.info.run_id)}) >= 3
    names = {a.path for a in client.list_artifacts(run.info.run_id, "report")}
    assert {"report/report.html", "report/completions.png"} <= names
    names = {a.path for a in client.list_artifacts(run.info.run_id, "posterior")}
    assert names == {"posterior/card.json", "posterior/model.safetensors"}


def test_same_command_again_trains_nothing_and_gives_the_same(inpainted):
    project, _ = inpainted
    report = project.folder / "data/test/08_reporting/inpaint"
    before = (report / "metrics.json").read_bytes()
    weights = project.folder / "data/test/06_models/inpaint/posterior/model.safetensors"
    sha256, checkpoints = sha256_of_file(weights), _checkpoint_times(project)
    project.kedro("run", "--env=test", "--pipeline=inpaint")
    assert sha256_of_file(weights) == sha256
    assert _checkpoint_times(project) == checkpoints
    assert (report / "metrics.json").read_bytes() == before


def _checkpoint_times(project):
    folder = project.folder / "data/test/06_models/inpaint/training"
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("checkpoint-*.pt")}


def test_evaluate_scores_the_last_posterior_on_the_full_manifest(inpainted):
    project, _ = inpainted
    project.kedro("run", "--env=test", "--pipeline=evaluate")
    metrics = json.loads(
        (project.folder / "data/test/08_reporting/inpaint/metrics.json").read_text()
    )
    assert {row["n"] for row in metrics if row["bin"] == "pooled"} == {25}
    assert {row["k"] for row in metrics if row["metric"] == "perceptual_diversity"} == {4}


def test_pretrain_makes_a_vae_that_inpaint_takes(inpainted):
    project, _ = inpainted
    project.kedro("run", "--env=test", "--pipeline=pretrain")
    folder = project.folder / "data/test/06_models/vae/digits"
    card = read_card(folder, "vae")
    assert card["weights_source"]["seed"] == 0
    assert card["test_bits_per_dim"] > 0
    project.kedro(
        "run",
        "--env=test",
        "--pipelines=data_preparation,pretrained_weights,conditional_training",
        f"--params=weights.vae={folder},weights.allow_untrained=false",
    )
    posterior = read_card(project.folder / "data/test/06_models/inpaint/posterior", "posterior")
    assert posterior["weights_source"]["vae"] == card["sha256"]


def test_wrong_parameter_is_refused_before_any_work(inpainted):
    project, _ = inpainted
    count = len(project.runs()[1])
    printed = project.kedro("run", "--env=test", "--params=training.stepz=3", fails=True)
    assert "Error: unknown parameter training.stepz (did you mean training.steps?)" in printed
    assert "Traceback" not in printed
    assert len(project.runs()[1]) == count


def test_never_trained_vae_is_refused(inpainted):
    project, _ = inpainted
    printed = project.kedro(
        "run", "--env=test", "--params=weights.allow_untrained=false", fails=True
    )
    assert "was never trained" in printed
    assert "weights.allow_untrained=true" in printed
    _, runs = project.runs()
    assert runs[0].info.status == "FAILED"


def test_killed_run_is_finished_by_the_same_command(inpainted):
    project, _ = inpainted
    command = project.command(
        "run", "--env=test", "--pipeline=inpaint", "--params=seed=5,training.steps=400"
    )
    finished = project.command(
        "run",
        "--env=test",
        "--pipelines=data_preparation,pretrained_weights,conditional_training",
        "--params=seed=5,training.steps=400",
    )
    settings = {"cwd": project.folder, "env": {**project.environment, "OMP_NUM_THREADS": "1"}}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **settings
    ) as process:
        deadline = time.monotonic() + 240
        while not _steps_done(project) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    killed_at = _steps_done(project)
    assert 0 < killed_at < 400
    done = subprocess.run(finished, capture_output=True, text=True, check=False, **settings)
    assert done.returncode == 0, done.stderr[-3000:]
    card = read_card(project.folder / "data/test/06_models/inpaint/posterior", "posterior")
    assert card["weights_source"]["training"]["steps"] == 400
    assert card["weights_source"]["seed"] == 5
    _, runs = project.runs()
    assert {run.data.tags["pid"]: run.info.status for run in runs}[str(process.pid)] == "KILLED"
    assert runs[0].info.status == "FINISHED"


def test_run_ended_by_hand_is_marked_as_killed(inpainted):
    project, _ = inpainted
    command = project.command("run", "--env=test", "--params=seed=6,training.steps=100000")
    # A process started in the background may ignore SIGINT; a user's does not.
    listen = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    start = "sys.argv[0] = 'kedro'; from kedro.framework.cli import main; main()"
    with subprocess.Popen(
        [command[0], "-c", listen + start, *command[3:]],
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        before = _steps_done(project)
        deadline = time.monotonic() + 240
        while _steps_done(project) <= max(before, 400) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) != 0
    _, runs = project.runs()
    assert {run.data.tags["pid"]: run.info.status for run in runs}[str(process.pid)] == "KILLED"


def _steps_done(project):
    folder = project.folder / "data/test/06_models/inpaint/training"
    found = [int(path.stem.split("-")[1]) for path in folder.rglob("checkpoint-*.pt")]
    # The six steps of the test environment's own run do not count.
    return max((steps for steps in found if steps > 6), default=0)
