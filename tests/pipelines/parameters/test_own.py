"""Parameters and folders of the pipelines of tasks: who wins, and what is refused."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from kedro.config import OmegaConfigLoader
from kedro.framework.project import configure_project
from kedro.framework.session import KedroSession

from condvae.ground.configuration import ConfigurationError, read_config
from condvae.models.folder import save_posterior
from condvae.models.presets import StatedModel
from condvae.posterior.image_posterior import ImagePosterior
from condvae.tasks import SuperResolution
from pipelines import settings
from pipelines.app import hooks
from pipelines.app.hooks import ParameterHooks
from pipelines.app.session import Session, requested_pipelines
from pipelines.parameters import ModelConfig, WeightsConfig, check_parameters
from pipelines.parameters.overlay import TASK_PIPELINES, override_sections
from pipelines.parameters.own import check_folder, read_parameters
from pipelines.parameters.recipe import apply_recipe
from pipelines.runs import labels as run_labels

ROOT = Path(__file__).resolve().parents[3]


def make_loader(given=None, env="base"):
    return OmegaConfigLoader(
        str(ROOT / "conf"), env=env, runtime_params=given, **settings.CONFIG_LOADER_ARGS
    )


def read(*requested, given=None, env="base", project=ROOT):
    return read_parameters(make_loader(given, env), requested, project)


def test_shapes_of_own_models_come_from_files(tmp_path):
    layers = "encoder: 16x1,16d2,8d8,1x1\ndecoder: 1x1,8m1,16m8\nimage_size: 16\n"
    (tmp_path / "new.yml").write_text(f"{layers}channels: 1\nwidth: 8\nlatent_channels: 2\n")
    (tmp_path / "old.yaml").write_text(f"{layers}mean: 3\nstd: 50.5\n")
    given = {
        "model": {"architecture": "new.yml"},
        "weights": {"preset": "old.yaml", "vae": "own.th"},
    }
    parameters, _ = read("inpaint", given=given, project=tmp_path)
    check_parameters(parameters)
    shape = read_config(ModelConfig, parameters["model"], "model").vae_architecture
    assert (shape.width, len(shape.decoder_blocks)) == (8, 3)
    preset = read_config(WeightsConfig, parameters["weights"], "weights").preset
    assert preset == StatedModel("16x1,16d2,8d8,1x1", "1x1,8m1,16m8", 16, 3.0, 50.5)
    # Recipes take such a model for one that nobody published.
    assert apply_recipe(parameters | {"recipe": "published"}, {}, tmp_path)["training"]["steps"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"weights\.preset: .*own\.yml cannot be read \(No such file"),
        ("a: [", r"weights\.preset: .*own\.yml cannot be read \(while parsing"),
        ("cifar10", r"weights\.preset: .*own\.yml holds 'cifar10', expected a mapping"),
        ("decoder: 1x1", r"missing parameter weights\.preset\.encoder"),
        ("mixture: 3", r"unknown parameter weights\.preset\.mixture"),
    ],
)
def test_wrong_files_of_shapes_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "own.yml").write_text(content)
    given = {"weights": {"preset": "own.yml", "vae": "own.th"}}
    with pytest.raises(ConfigurationError, match=message):
        check_parameters(read("inpaint", given=given, project=tmp_path)[0])


def test_a_task_changes_what_it_names_and_the_folders_and_nothing_else():
    plain, folder = read("inpaint")
    assert folder == "inpaint"
    assert plain["folders"]["inpaint"] == "data/06_models/inpaint"
    for name in TASK_PIPELINES:
        own, folder = read(name)
        assert folder == name
        assert own["task"] == plain["tasks"][name]["task"]
        assert own["folders"]["inpaint"] == f"data/06_models/{name}"
        assert own["folders"]["evaluation"] == f"data/05_model_input/{name}"
        assert own["folders"]["reporting"] == f"data/08_reporting/{name}"
        assert own["model"] == {**plain["model"], **plain["tasks"][name].get("model", {})}
        changed = {section for section in plain if own[section] != plain[section]}
        assert changed - {"model"} == {"task", "folders"}


def test_the_catalog_goes_the_same_way():
    loader = make_loader()
    read_parameters(loader, ["label_to_image"], ROOT)
    paths = [entry["filepath"] for entry in loader["catalog"].values()]
    assert "data/08_reporting/label_to_image/metrics.json" in paths
    assert "data/07_model_output/label_to_image/examples.npz" in paths
    # Another task's cases would replace those that an earlier manifest names.
    assert "data/05_model_input/label_to_image/evaluation_manifest.json" in paths
    assert not [path for path in paths if "inpaint" in path]
    # The next run begins anew.
    read_parameters(loader, ["evaluate"], ROOT)
    paths = [entry["filepath"] for entry in loader["catalog"].values()]
    assert "data/06_models/inpaint/posterior.json" in paths


def test_environment_stands_where_the_pipeline_says_nothing():
    paired, _ = read("edges_to_photo", env="edges2shoes")
    assert paired["task"] == {"name": "edges", "options": {"paired": True}}
    assert paired["training"]["steps"] == 250_000
    check_parameters(paired)
    # Its options are those of another task here.
    other, _ = read("super_resolve", env="edges2shoes")
    assert other["task"]["options"] == {"factor": 4, "kernel": "box"}


def test_the_command_line_wins():
    found, _ = read("super_resolve", given={"task": {"options": {"factor": 2}}})
    assert found["task"] == {
        "name": "super_resolution",
        "options": {"factor": 2, "kernel": "box"},
    }
    found, folder = read("super_resolve", given={"task": {"name": "glimpses"}, "seed": 3})
    assert found["task"] == {"name": "glimpses"}
    assert (found["seed"], folder) == (3, "super_resolve")
    found, _ = read("super_resolve", given={"tasks": {"super_resolve": {"training": {"steps": 5}}}})
    assert found["training"]["steps"] == 5
    assert found["training"]["batch_size"] == 32


def test_options_do_not_outlive_a_change_of_task():
    edges = {"task": {"name": "edges", "options": {"style": "soft"}}}
    kept = override_sections(edges, {"task": {"options": {"threshold": 9.0}}})
    assert kept["task"]["options"] == {"style": "soft", "threshold": 9.0}
    assert override_sections(edges, {"task": {"name": "colourisation"}}) == {
        "task": {"name": "colourisation"}
    }


@pytest.fixture
def stored(tmp_path, make_posterior):
    """A posterior for super-resolution by 2, in a folder of the project `tmp_path`."""
    model = make_posterior().model
    save_posterior(tmp_path / "elsewhere", ImagePosterior(model, SuperResolution(2)), {})
    return {"weights": {"posterior": "elsewhere"}}


def test_evaluate_takes_the_task_from_the_card(stored, tmp_path):
    expected = {"name": "super_resolution", "options": {"factor": 2, "kernel": "box"}}
    for pipeline in ("evaluate", "score", "complete"):
        found, folder = read(pipeline, given=stored, project=tmp_path)
        assert (found["task"], folder) == (expected, "super_resolve")
        assert found["folders"]["reporting"] == "data/08_reporting/super_resolve"
    given = {**stored, "task": {"name": "colourisation"}}
    assert read("evaluate", given=given, project=tmp_path)[0]["task"] == {"name": "colourisation"}
    # Others train a posterior of their own.
    assert read("inpaint", given=stored, project=tmp_path)[0]["task"]["name"] == "inpainting"


@pytest.mark.parametrize("name", [None, "digits_inpainting", "nowhere", "a.th"])
def test_other_posteriors_leave_the_folder_of_inpaint(name):
    found, folder = read("evaluate", given={"weights": {"posterior": name}})
    assert (found["task"], folder) == ({"name": "inpainting", "options": {}}, "inpaint")


@pytest.mark.parametrize("names", [("super_resolve", "colorize"), ("inpaint", "colorize")])
def test_two_tasks_at_once_are_refused(names):
    with pytest.raises(ConfigurationError, match=f"^pipelines {', '.join(names)}: expected those"):
        read(*names)


def test_session_says_what_it_runs(monkeypatch):
    seen = []
    configure_project("pipelines")

    @functools.wraps(KedroSession.run)
    def run(*_, **__):
        seen.append(requested_pipelines())

    monkeypatch.setattr(KedroSession, "run", run)
    monkeypatch.setattr(run_labels, "_command", [])
    session = Session.__new__(Session)
    session._store = {}
    session.run(pipeline_names=["colorize"])
    session.run("inpaint")
    session.run()
    assert seen == [("colorize",), ("inpaint",), ()]
    assert requested_pipelines() == ()
    assert settings.SESSION_CLASS is Session


def test_grey_images_are_refused_before_anything_is_coloured(monkeypatch, untracked):
    monkeypatch.setattr(hooks, "requested_pipelines", lambda: ("colorize",))
    context = SimpleNamespace(config_loader=make_loader(), project_path=ROOT)
    with pytest.raises(
        click.ClickException,
        match=r"^task\.name = 'colourisation': .* needs images of 3 channels, found 1; --env=photos",
    ):
        ParameterHooks().after_context_created(context)
    monkeypatch.setattr(hooks, "requested_pipelines", lambda: ("label_to_image",))
    ParameterHooks().after_context_created(context)
    assert context.config_loader["parameters"]["task"]["name"] == "class_label"


def test_session_that_says_nothing_is_refused():
    check_folder("inpaint", ["evaluate"])
    with pytest.raises(ConfigurationError, match=r"^pipeline colorize has .*Session\.create$"):
        check_folder("inpaint", ["colorize"])
    run = {"project_path": str(ROOT), "pipeline_names": ["super_resolve"]}
    with pytest.raises(click.ClickException, match="parameters of its own, which were not read"):
        ParameterHooks().before_pipeline_run(run, SimpleNamespace(datasets=set), None)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"colourise": {}}, r"^tasks = 'colourise': expected one of .*did you mean 'colorize'"),
        ({"colorize": None}, r"^tasks\.colorize = None: expected sections of parameters$"),
        ({"colorize": {"trainin": {}}}, r"^unknown parameter tasks\.colorize\.trainin \(known: "),
        (
            {"colorize": {"training": {"stepz": 1}}},
            r"^unknown parameter tasks\.colorize\.training\.stepz \(did you mean",
        ),
        (
            {"super_resolve": {"task": {"options": {"kernel": "cubic"}}}},
            r"kernel = 'cubic': expected one of box, bicubic",
        ),
    ],
)
def test_mistakes_are_found_without_a_run_of_the_pipeline(tasks, message):
    parameters = copy.deepcopy(dict(make_loader()["parameters"]))
    with pytest.raises(ConfigurationError, match=message):
        check_parameters(override_sections(parameters, {"tasks": tasks}))
