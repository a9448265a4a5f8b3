"""The registry in a database of its own, with tiny posteriors."""

from __future__ import annotations

import re
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import sha256_of_file
from condvae.models import find_model
from condvae.models.folder import load_posterior, read_card, save_posterior
from pipelines.parameters import RegistryConfig
from pipelines.runs import registry as model_registry
from pipelines.runs.database import path_of_database, prepare_database
from pipelines.runs.registry import (
    open_registered,
    open_version,
    register,
    registered_name,
    store_baseline,
)

METRICS = ("energy_score_pixels", "bound_bits_per_unobserved_dim")
BUNDLED = "condvae-inpainting-digits"


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A registry for all tests of this module; each has a data set, so a name, of its own."""
    folder = tmp_path_factory.mktemp("project")
    uri = f"sqlite:///{folder}/mlruns/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_RUN_CONTEXT", "{}")
        prepare_database(uri)
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(uri)
        experiment = MlflowClient().create_experiment("condvae", str(folder / "mlruns/artifacts"))
        patch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
        yield MlflowClient()
        mlflow.set_tracking_uri(before)


@pytest.fixture
def data(database):
    return f"data{uuid.uuid4().hex[:8]}"


@pytest.fixture
def make_folder(tmp_path, make_posterior):
    def make(seed=0):
        folder = tmp_path / f"posterior{seed}"
        if not folder.exists():
            save_posterior(folder, make_posterior(seed=seed, width=8), {"name": "x"})
        return folder

    return make


@pytest.fixture
def make_evaluation(tmp_path):
    """Files of an evaluation on 30 cases, in which every score is `shift` above 10."""

    def make(shift=0.0, manifest="cases\n"):
        folder = tmp_path / uuid.uuid4().hex
        folder.mkdir()
        tables = [
            pd.DataFrame(
                {
                    "case_id": [f"case{i:03d}" for i in range(30)],
                    "image_id": np.arange(30),
                    "image_sha256": "same",
                    "bin": "0_20",
                    "observed_share": 0.1,
                    "sampler": "ipa",
                    "metric": metric,
                    "value": 10.0 + shift,
                    "weight": 1.0,
                }
            )
            for metric in METRICS
        ]
        pd.concat(tables).to_parquet(folder / "c.parquet", index=False)
        (folder / "c.json").write_text('{"ipa": {}}')
        (folder / "c.jsonl").write_text(manifest)
        return {
            "cases": folder / "c.parquet",
            "calibration": folder / "c.json",
            "manifest": folder / "c.jsonl",
            "facts": {"k": 3},
        }

    return make


def list_versions(client, name):
    return sorted(int(v.version) for v in client.search_model_versions(f"name = '{name}'"))


def test_first_posterior_is_whole_and_champion(database, data, make_folder, make_evaluation):
    folder, files = make_folder(), make_evaluation()
    experiment = database.get_experiment_by_name("condvae").experiment_id
    run = database.create_run(experiment).info.run_id
    found = register(
        *(folder,),
        **files,
        task="inpainting",
        data=data,
        run_id=run,
        temperature=0.9,
        tags={"recipe": "tuned"},
    )
    shutil.rmtree(files["cases"].parent)
    assert found == open_registered(f"condvae-inpainting-{data}")
    assert (found.name, found.version, found.aliases) == (
        *(registered_name("inpainting", data), "1"),
        ("champion",),
    )
    assert (found.temperature, found.run_id, found.facts) == (0.9, run, {"k": 3})
    sha256 = sha256_of_file(folder / "model.safetensors")
    assert found.posterior_sha256 == sha256 == sha256_of_file(found.folder / "model.safetensors")
    assert read_card(found.folder, "posterior") == read_card(folder)
    assert found.manifest.read_text() == "cases\n"
    assert found.manifest_sha256 == sha256_of_file(found.manifest)
    assert found.calibration.read_text() == '{"ipa": {}}'
    assert len(pd.read_parquet(found.cases)) == 60
    assert set(found.environment) == {"torch", "condvae", "python"}
    version = database.get_model_version(found.name, "1")
    assert version.tags["recipe"] == "tuned"
    assert version.description == version.tags["alias_reason"] == found.reason
    logged = database.get_run(run)
    assert logged.info.status == "RUNNING"  # it is not ours to end


def test_model_of_the_champion_completes_images(data, make_folder, make_evaluation, make_pixels):
    folder = make_folder()
    register(folder, task="inpainting", data=data, temperature=0.5)
    model = mlflow.pyfunc.load_model(f"models:/condvae-inpainting-{data}@champion")
    image = make_pixels(2)
    mask = np.zeros((2, 1, 16, 16), np.uint8)
    mask[..., :8] = 1
    given = {"image": image.numpy(), "mask": mask}
    drawn = model.predict(given, params={"completions": 3, "seed": 7})
    import torch

    posterior = load_posterior(folder)
    observed = posterior.observe(image, torch.from_numpy(mask))
    expected = posterior.sample(observed, 3, temperature=0.5, seed=7)
    np.testing.assert_array_equal(drawn["completions"], expected.transpose(0, 1))
    # Defaults and the signature are MLflow's to apply.
    assert model.predict(given)["completions"].shape == (2, 16, 1, 16, 16)
    with pytest.raises(MlflowException, match="mask"):
        model.predict({"image": image.numpy()})
    with pytest.raises(MlflowException, match=r"incompatible|type"):
        model.predict({**given, "image": image.numpy().astype(np.float32)})


def test_alias_follows_the_paired_scores(database, data, make_folder, make_evaluation):
    def add(seed, **evaluation):
        return register(
            make_folder(seed), task="inpainting", data=data, **make_evaluation(**evaluation)
        )

    name = registered_name("inpainting", data)
    assert add(0).aliases == ("champion",)
    assert add(1, shift=0.5).aliases == ("challenger",)
    other = add(2, shift=-2.0, manifest="other cases\n")
    assert other.aliases == ("challenger",)
    assert "manifest" in other.reason
    assert open_registered(name).version == "1"
    better = add(3, shift=-1.0)
    assert better.aliases == ("champion",)
    assert open_registered(name).version == better.version == "4"
    assert open_registered(name, "challenger").version == "3"
    assert (open_version(name, "1").version, open_version(name, "1").aliases) == ("1", ())
    # The same weights again: no new version, and an alias that has moved on does not come back.
    again = add(0, shift=-9.0)
    assert (again.version, again.aliases) == ("1", ())
    assert list_versions(database, name) == [1, 2, 3, 4]


def test_another_temperature_is_another_version(database, data, make_folder):
    rule = RegistryConfig(promote="never")
    for temperature, expected in ((1.0, "1"), (0.7, "2"), (1.0, "1")):
        found = register(
            make_folder(), task="inpainting", data=data, temperature=temperature, rule=rule
        )
        assert (found.version, found.temperature) == (expected, temperature)


class Killed(BaseException):
    """Stands for the end of the process."""


STEPS = (
    "create_registered_model",
    "create_model_version",
    "set_model_version_tag",
    "set_registered_model_alias",
)


@pytest.mark.parametrize("step", STEPS)
def test_registration_killed_after_a_step_is_finished_by_the_next(
    database, data, make_folder, make_evaluation, monkeypatch, step
):
    arguments = {"task": "inpainting", "data": data, **make_evaluation()}
    name = registered_name("inpainting", data)
    original = getattr(MlflowClient, step)

    def fail(*given, **named):
        original(*given, **named)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, step, fail)
        with pytest.raises(Killed):
            register(make_folder(), **arguments)
    if step == "set_registered_model_alias":
        assert open_registered(name).manifest_sha256
    else:
        with pytest.raises(ConfigurationError, match="is not registered"):
            open_registered(name)
    found = register(make_folder(), **arguments)
    assert (found.version, found.aliases) == ("1", ("champion",))
    assert found.reason == "the first registered under this name"
    assert list_versions(database, name) == [1]
    assert database.get_model_version(name, "1").tags["alias_given"] == "champion"


def test_two_at_once_make_one_version(database, data, make_folder, make_evaluation):
    arguments = {"task": "inpainting", "data": data, **make_evaluation()}
    folder = make_folder()
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(register, folder, **arguments) for _ in range(2)]
        found = [job.result() for job in jobs]
    assert found[0] == found[1]
    assert list_versions(database, found[0].name) == [1]


def test_busy_database_is_named(data, make_folder, monkeypatch):
    def busy(*_arguments, **_named):
        raise MlflowException("(sqlite3.OperationalError) database is locked")

    monkeypatch.setattr(MlflowClient, "create_model_version", busy)
    with pytest.raises(ConfigurationError, match=r"mlflow.db is busy: run the same command again"):
        register(make_folder(), task="inpainting", data=data)


def test_bundled_posterior_is_the_first_champion(database, make_evaluation):
    with pytest.raises(ConfigurationError, match=f"{BUNDLED}@challenger is not registered"):
        open_registered(BUNDLED, "challenger")
    found = open_registered(BUNDLED)
    assert (found.version, found.aliases, found.manifest_sha256) == ("1", ("champion",), None)
    assert (found.cases, found.calibration, found.manifest, found.facts) == (None, None, None, {})
    source = find_model("digits_inpainting")
    assert found.posterior_sha256 == sha256_of_file(source / "model.safetensors")
    assert open_registered(BUNDLED) == found
    # Its first evaluation becomes what later ones are compared with; a second does not replace it.
    evaluation = make_evaluation()
    evaluated = store_baseline(found, **evaluation)
    assert evaluated.manifest_sha256 == sha256_of_file(evaluation["manifest"])
    assert evaluated.cases.read_bytes() == evaluation["cases"].read_bytes()
    assert evaluated.facts == {"k": 3}
    assert open_registered(BUNDLED) == evaluated
    assert store_baseline(found, **make_evaluation(shift=1.0)) == evaluated
    assert list_versions(database, BUNDLED) == [1]


def test_a_trial_has_a_name_of_its_own(database, data, tmp_path, make_posterior, caplog):
    source = {"training": {"steps": 6, "batch_size": 8}}
    facts = {"weights_source": source, "data": {"images": {"train": 84}}}
    save_posterior(tmp_path / "trial", make_posterior(width=8), facts)
    found = register(tmp_path / "trial", task="inpainting", data=data)
    assert found.name == f"condvae-trial-inpainting-{data}"
    assert found.aliases == ("champion",)
    said = "its 6 steps of 8 images show it fewer than the 84 it is trained on"
    assert database.get_model_version(found.name, found.version).tags["trial"] == said
    assert f"{found.name}, a trial: {said}" in caplog.text
    with pytest.raises(ConfigurationError, match=f"condvae-inpainting-{data}@champion is not reg"):
        open_registered(registered_name("inpainting", data))


def test_a_trial_that_is_champion_gives_way_to_the_model_of_the_package(
    database, tmp_path, make_posterior, monkeypatch
):
    if list_versions(database, BUNDLED):
        database.delete_registered_model(BUNDLED)
    facts = {"weights_source": {}, "vae": "random"}
    save_posterior(tmp_path / "trial", make_posterior(width=8), facts)
    with monkeypatch.context() as patch:  # as registries were before trials had names of their own
        patch.setattr("pipelines.runs.registry.list_shortcomings", lambda _: [])
        before = register(tmp_path / "trial", task="inpainting", data="digits")
    assert (before.name, before.aliases) == (BUNDLED, ("champion",))
    found = open_registered(BUNDLED)
    assert (found.version, found.shortcomings) == ("2", [])
    assert found.reason.startswith("version 1 is a trial and gives way: its VAE: it was never")
    assert open_registered(BUNDLED) == found


@pytest.mark.parametrize(
    ("task", "options", "name"),
    [
        ("inpainting", None, "condvae-inpainting-digits"),
        ("super_resolution", {"factor": 4}, "condvae-super_resolution-digits"),
        (
            *("super_resolution", {"kernel": "bicubic", "factor": 2}),
            "condvae-super_resolution-digits-factor_2-kernel_bicubic",
        ),
        ("class_label", {"classes": 10}, "condvae-class_label-digits-classes_10"),
    ],
)
def test_options_of_a_task_are_part_of_the_name(task, options, name):
    assert registered_name(task, "digits", options) == name


def test_long_options_are_told_apart_by_their_hash():
    parts = [{"parts": {"inpainting": {}, "class_label": {"classes": n}}} for n in (3, 4)]
    names = [registered_name("combination", "digits", options) for options in parts]
    assert len({*names}) == 2
    for name in names:
        assert re.fullmatch(r"condvae-combination-digits-[0-9a-f]{12}", name)


def test_missing_models_and_files_are_named(data, make_folder):
    with pytest.raises(ConfigurationError, match="condvae-nothing-here@champion is not registered"):
        open_registered("condvae-nothing-here")
    found = register(make_folder(), task="inpainting", data=data)
    shutil.rmtree(found.folder.parents[1])
    with pytest.raises(
        ConfigurationError, match=f"{found.name} version 1: its files cannot"
    ) as said:
        open_registered(found.name)
    assert str(found.folder.parents[1]) in str(said.value)
    # A new posterior is registered all the same; it takes that place when told to.
    left = register(make_folder(1), task="inpainting", data=data)
    assert left.aliases == ("challenger",)
    assert "version 1: its files cannot be read" in left.reason
    always = RegistryConfig(promote="always")
    assert register(make_folder(2), task="inpainting", data=data, rule=always).version == "3"
    assert open_registered(found.name).version == "3"
    with pytest.raises(ConfigurationError, match="not a model folder"):
        register(found.folder, task="inpainting", data=data)


def list_files(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_models_of_a_copied_project_are_those_of_the_copy(
    database, data, make_folder, make_evaluation, tmp_path
):
    before = mlflow.get_tracking_uri()
    project = path_of_database(before).parents[1]
    found = register(make_folder(), task="inpainting", data=data)
    copy = shutil.copytree(project, tmp_path / "a copy, größer")
    untouched = list_files(project)
    uri = f"sqlite:///{copy}/mlruns/mlflow.db"
    prepare_database(uri)
    mlflow.set_tracking_uri(uri)
    try:
        copied = open_registered(found.name)
        assert copied.folder == copy / found.folder.relative_to(project)
        assert load_posterior(copied.folder)
        evaluated = store_baseline(copied, **make_evaluation())
        assert evaluated.cases.is_relative_to(copy)
        other = register(make_folder(1), task="inpainting", data=data)
        assert other.folder.is_relative_to(copy)
    finally:
        mlflow.set_tracking_uri(before)
    assert list_files(project) == untouched
    assert open_registered(found.name) == found


def test_a_name_that_another_command_registers_this_instant_is_used(
    database, data, make_folder, monkeypatch
):
    database.create_registered_model(registered_name("inpainting", data))
    monkeypatch.setattr(model_registry, "_is_registered", lambda *_: False)
    assert register(make_folder(), task="inpainting", data=data).version == "1"
