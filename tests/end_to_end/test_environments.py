"""Environments of published data sets, on stand-ins in the official layouts, with a small VAE.

CIFAR-10 goes through the commands as a user gives them. The others run the nodes of `inpaint` in this
process, with the parameters and the catalog that Kedro loads: to the trained posterior, two of them
to the scores.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import pandas as pd
import pytest
import torch
from kedro.config import OmegaConfigLoader
from kedro.io import DataCatalog
from kedro.runner import SequentialRunner
from PIL import Image
from sklearn.model_selection import train_test_split

from condvae.evaluation.cases import read_cases
from condvae.ground.configuration import ConfigurationError
from condvae.ground.images import likelihood_target
from condvae.models import read_cards
from condvae.models.folder import load_posterior, load_vae, read_card
from condvae.vdvae import ARCHITECTURES, Architecture
from pipelines import settings
from pipelines.app.hooks import ParameterHooks
from pipelines.data_preparation.nodes import prepare_images_node
from pipelines.parameters import check_parameters
from pipelines.pipeline_registry import register_pipelines

ROOT = Path(__file__).resolve().parents[2]
LAYERS = {
    32: ("32d4,8d8,1x1", "1x1,8m1,32m8"),
    64: ("64d4,16d4,4d4,1x1", "1x1,4m1,16m4,64m16"),
    256: ("256d4,64d4,16d4,4d4,1x1", "1x1,4m1,16m4,64m16,256m64"),
}
# What makes a run short; everything else is the environment's own.
SMALL = {
    "model": {"architecture": "small"},
    "weights": {"vae": "random", "allow_untrained": True},
    "data": {"accept_licence": True},
    "masks": {"pool": 8},
    "training": {"steps": 2, "batch_size": 2, "log_every": 2},
    "sampling": {"batch_size": 8},
    "evaluation": {
        "quick": {"cases_per_bin": 2, "completions": 2, "bound_draws": [1], "samplers": ["ipa"]},
        "feature_network": {"features": 2, "epochs": 1},
    },
    "device": "cpu",
}
TRAINED = ("build_manifest_node", "train_partial_encoder_node")
JUDGED = ("collect_facts_node",)
RESTRICTED = ("celeba64", "celebahq256", "edges2shoes", "ffhq256", "imagenet32", "imagenet64")


def small_architecture(size):
    encoder, decoder = LAYERS[size]
    return Architecture(
        image_size=size,
        channels=3,
        width=8,
        latent_channels=1,
        encoder=encoder,
        decoder=decoder,
        bottleneck=0.5,
        mixtures=1,
    )


# CIFAR-10: pretrain, inpaint and evaluate as commands.

CLASSES = [
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
]
TRAIN, TEST = 40, 8
# In one process, because Kedro takes longer to start than these commands to work.
COMMANDS = """
import json, shutil, sys
from kedro.framework.cli import main
for name, arguments in json.loads(sys.argv[1]).items():
    sys.argv = ["kedro", *arguments]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
    if name != "pretrain":
        for part in ("07_model_output", "08_reporting"):
            shutil.copytree(f"data/{part}", f"after_{name}/{part}")
"""


@pytest.fixture(scope="module")
def cifar10(project, stand_ins):
    """The project after the three commands: its folder, the pictures and the labels.

    What `inpaint` has reported is kept in `after_inpaint`, since `evaluate` replaces it.
    """
    pixels, labels = stand_ins.cifar10(project.folder / "data/01_raw/cifar10", per_batch=TEST)
    shape = dataclasses.asdict(small_architecture(32))
    with (project.folder / "src/pipelines/settings.py").open("a") as file:
        file.write("\nfrom condvae.vdvae import ARCHITECTURES, Architecture\n")
        file.write(f"ARCHITECTURES['small'] = Architecture(**{shape!r})\n")
    parameters = {
        "model.architecture": "small",
        "pretraining.steps": 2,
        "pretraining.batch_size": 4,
        "training.steps": 2,
        "training.batch_size": 4,
        "masks.pool": 20,
        "evaluation.quick.cases_per_bin": 2,
        "evaluation.quick.completions": 2,
        "evaluation.full.masks_per_image": 1,
        "evaluation.full.completions": 2,
        "evaluation.feature_network.features": 2,
        "evaluation.feature_network.epochs": 1,
    }
    given = ",".join(f"{name}={value}" for name, value in parameters.items())
    vae = ",weights.vae=data/06_models/vae/cifar10"
    commands = {
        name: ["run", "--env=cifar10", f"--pipeline={name}", f"--params={given}{more}"]
        for name, more in (("pretrain", ""), ("inpaint", vae), ("evaluate", vae))
    }
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        cwd=project.folder,
        env=project.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return SimpleNamespace(folder=project.folder, pixels=pixels, labels=labels)


@pytest.mark.slow
def test_cifar10_is_prepared_with_the_official_split(cifar10):
    manifest = pd.read_parquet(cifar10.folder / "data/03_primary/manifest.parquet")
    assert manifest["origin"].iloc[[0, TEST, TRAIN]].tolist() == [
        *("data_batch_1[0]", "data_batch_2[0]", "test_batch[0]")
    ]
    # The published 5,000 of 50,000 are a tenth.
    train, held_out = train_test_split(
        np.arange(TRAIN), test_size=TRAIN // 10, random_state=11172018
    )
    expected = np.full(TRAIN + TEST, "test", object)
    expected[train], expected[held_out] = "train", "validation"
    assert manifest["split"].tolist() == expected.tolist()
    assert manifest["label"].tolist() == cifar10.labels.tolist()
    store = json.loads((cifar10.folder / "data/03_primary/image_store.json").read_text())
    assert (store["channels"], store["image_size"], store["count"]) == (3, 32, TRAIN + TEST)
    assert store["class_names"] == CLASSES
    prepared = np.load(cifar10.folder / "data/02_intermediate/cifar10/images.npy")
    np.testing.assert_array_equal(prepared, cifar10.pixels)
    for channel in range(3):
        means = cifar10.pixels[..., channel].mean(axis=(1, 2))
        np.testing.assert_allclose(manifest[f"mean_{channel}"], means, rtol=1e-6)


@pytest.mark.slow
def test_cifar10_has_the_published_normalisation_from_vae_to_posterior(cifar10):
    vae_folder = cifar10.folder / "data/06_models/vae/cifar10"
    vae, posterior = (
        read_card(vae_folder, "vae"),
        read_card(cifar10.folder / "data/06_models/inpaint/posterior", "posterior"),
    )
    published = read_cards()["vdvae-cifar10-seed1"].data_contract
    expected = {"channels": 3, "size": 32, "mean": 120.63838, "std": 64.16736, "bits": 8}
    assert dataclasses.asdict(published) == expected
    assert vae["data_contract"] == posterior["data_contract"] == expected
    assert vae["test_images"] == TEST
    assert vae["test_bits_per_dim"] > 0
    source = posterior["weights_source"]
    assert source["vae"] == vae["sha256"]
    # Published settings of the environment, which nothing on the command line has changed.
    for settings_used in (source["training"], vae["weights_source"]["training"]):
        assert settings_used["steps"] == 2
        assert settings_used["learning_rate"] == 2e-4
        assert settings_used["ema_decay"] == 0.9999
        assert settings_used["clip_norm"] == 200.0
    assert posterior["heads"] == "absolute"
    # What the encoder sees of a white pixel.
    model, _ = load_vae(vae_folder)
    seen = []
    hook = model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model.encode(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8))
    hook.remove()
    white = (255 - 120.63838) / 64.16736
    torch.testing.assert_close(seen[0], torch.full((1, 3, 32, 32), white))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pipeline", "size", "cases", "samplers"),
    [
        ("inpaint", "quick", 10, ["ipa", "ipa_t0.7", "ipa_t1.3", "untrained", "prior"]),
        ("evaluate", "full", TEST, ["ipa", "prior"]),
    ],
)
def test_cifar10_is_judged_on_its_test_pictures(cifar10, pipeline, size, cases, samplers):
    after = cifar10.folder / f"after_{pipeline}"
    path = cifar10.folder / f"data/05_model_input/inpaint/cases_{size}.jsonl"
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    listed = read_cases(path, sha256)
    assert len(listed) == cases
    assert {case.image_id for case in listed} == set(range(TRAIN, TRAIN + TEST))
    assert {case.bin for case in listed} == set(range(5))
    table = (after / "08_reporting/inpaint/metrics.json").read_text()
    metrics = pd.DataFrame(json.loads(table))
    assert list(metrics["sampler"].unique()) == samplers
    assert set(metrics["manifest"]) == {sha256}
    crps = metrics[(metrics["metric"] == "crps_per_unobserved_dim") & (metrics["bin"] == "pooled")]
    assert crps["value"].between(0, 255, inclusive="neither").all()
    assert crps["n"].tolist() == [cases] * len(samplers)
    # Pixels and classes of the official file, in the picture that the case names.
    examples = np.load(after / "07_model_output/inpaint/examples.npz")
    ids = {case.case_id: case.image_id for case in listed}
    rows = [ids[str(name)] for name in examples["case_ids"]]
    np.testing.assert_array_equal(examples["truths"], cifar10.pixels[rows])
    assert examples["labels"].tolist() == [CLASSES[label] for label in cifar10.labels[rows]]
    same = examples["completions/ipa"] == examples["truths"]
    assert same.shape[1:] == (len(rows), 32, 32, 3)
    assert same[:, examples["masks"]].all()
    assert same[:, ~examples["masks"]].mean() < 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("pipeline", "size"), [("inpaint", "quick"), ("evaluate", "full")])
def test_cifar10_report_says_what_was_used(cifar10, pipeline, size):
    report = cifar10.folder / f"after_{pipeline}/08_reporting/inpaint"
    facts = json.loads((report / "run_facts.json").read_text())
    vae = read_card(cifar10.folder / "data/06_models/vae/cifar10", "vae")
    assert facts["data"]["name"] == "cifar10"
    assert (facts["data"]["channels"], facts["data"]["image_size"]) == (3, 32)
    assert facts["model"]["frozen_vae_sha256"] == vae["sha256"]
    assert facts["extractor"]["extractor"] == "cifar10_classifier_f2"
    assert f"kedro run --pipeline={pipeline} --env=cifar10" in facts["command"]
    page = (report / "report.html").read_text()
    cases = (cifar10.folder / f"data/05_model_input/inpaint/cases_{size}.jsonl").read_bytes()
    for shown in ("cifar10", f"--pipeline={pipeline}", hashlib.sha256(cases).hexdigest()[:12]):
        assert shown in page


# The other sets, node after node in this process.


class Environment:
    """Parameters and catalog of an environment, over the empty folder that the process is in."""

    def __init__(self, name, given):
        self.loader = OmegaConfigLoader(
            str(ROOT / "conf"), env=name, runtime_params=given, **settings.CONFIG_LOADER_ARGS
        )
        self.parameters = self.loader["parameters"]
        self.catalog = DataCatalog.from_config(self.loader["catalog"])
        self.raw = Path(self.parameters["data"]["path"])

    def run(self, *last):
        """Run `inpaint` as far as the nodes named, which need a posterior and cases to judge it on."""
        check_parameters(self.parameters, Path.cwd())
        pipeline = register_pipelines()["inpaint"].to_nodes(*last)
        for name in pipeline.inputs():
            self.catalog[name] = self.parameters[name.removeprefix("params:")]
        SequentialRunner().run(pipeline, self.catalog)
        self.store = self.catalog.load("image_store")
        self.manifest = self.catalog.load("manifest")
        self.pixels = self.array("images")
        self.posterior = load_posterior(self.catalog.load("posterior")["folder"])
        (step,) = self.catalog.load("training_history")
        assert step["step"] == 2
        assert np.isfinite(step["train/loss"])
        cases = self.catalog.load("evaluation_manifest")
        self.cases = read_cases(cases["path"], cases["sha256"])
        # Drawings say nothing of single pixels: nothing is observed exactly.
        paired = self.parameters["task"]["name"] == "edges"
        assert {case.bin for case in self.cases} == ({0} if paired else set(range(5)))
        assert {case.image_id for case in self.cases} <= set(self.rows("test"))

    def array(self, name):
        return np.load(Path(self.store["folder"]) / f"{name}.npy")

    def rows(self, split):
        return np.flatnonzero(self.manifest["split"] == split).tolist()

    @property
    def normalisation(self):
        contract = self.posterior.model.vae.contract
        return contract.mean, contract.std, contract.bits


@pytest.fixture
def open_environment(tmp_path, monkeypatch):
    """A function that opens an environment in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def open_one(name, given=SMALL):
        environment = Environment(name, given)
        size = environment.parameters["data"]["image_size"]
        monkeypatch.setitem(ARCHITECTURES, "small", small_architecture(size))
        return environment

    return open_one


def shrink(picture, size):
    return np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS))


def test_celeba64(open_environment, stand_ins):
    environment = open_environment("celeba64")
    names, attributes, splits = stand_ins.celeba(environment.raw)
    path = environment.raw / "img_align_celeba" / names[0]
    Image.fromarray(stand_ins.random_pixels(218, 178, 3)).save(path)
    environment.run(*JUDGED)
    assert environment.manifest["origin"].tolist() == [f"img_align_celeba/{n}" for n in names]
    assert environment.manifest["split"].tolist() == splits
    assert len(set(splits)) == 3
    assert environment.store["attribute_names"] == [f"Attribute_{j}" for j in range(40)]
    np.testing.assert_array_equal(environment.array("attributes"), attributes)
    # 140 of 178 x 218 pixels about the centre, then 64.
    with Image.open(path) as picture:
        np.testing.assert_array_equal(
            environment.pixels[0], shrink(picture.crop((19, 39, 159, 179)), 64)
        )
    # Without labels the features are those of rotations, and there are no classes to agree on.
    facts = environment.catalog.load("run_facts")
    assert facts["extractor"]["extractor"] == "celeba64_rotation_f2"
    assert "class_agreement" not in set(environment.catalog.load("metrics")["metric"])
    # Nobody publishes a VAE of it: a new one is normalised by its training pictures.
    training = environment.pixels[environment.rows("train")].astype(float)
    assert environment.normalisation == pytest.approx((training.mean(), training.std(), 8))


@pytest.fixture
def held_out_faces():
    """The last tenth of the published permutation of 20 faces."""
    np.random.seed(5)  # noqa: NPY002 - as published
    return sorted(np.random.permutation(20)[-2:].tolist())  # noqa: NPY002


def test_ffhq256(open_environment, stand_ins, held_out_faces):
    environment = open_environment("ffhq256")
    pixels = stand_ins.ffhq_array(environment.raw, size=256)
    environment.run(*TRAINED)
    np.testing.assert_array_equal(environment.pixels, pixels)
    assert environment.store["validation_is_test"] is True
    assert environment.rows("test") == held_out_faces
    assert environment.rows("train") == sorted(set(range(20)) - set(held_out_faces))
    assert environment.normalisation == (112.8666757481, 69.84780273, 5)
    vae = environment.posterior.model.vae
    assert vae.likelihood.bits == 5
    # 32 levels, each for eight of the pixels' 256.
    ramp = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    _, counts = likelihood_target(ramp, vae.contract).unique(return_counts=True)
    assert counts.tolist() == [8] * 32


def test_imagenet64(open_environment, stand_ins):
    environment = open_environment("imagenet64")
    pixels, _ = stand_ins.imagenet_batches(environment.raw, 64)
    environment.run(*JUDGED)
    # Batch 10 comes after batch 9; the validation batch is the test split.
    names = [f"train_data_batch_{i}" for i in range(1, 12)] + ["val_data"]
    files = [np.load(environment.raw / f"{name}.npz") for name in names]
    assert environment.manifest["origin"].iloc[[2, 20, 22]].tolist() == [
        *("train_data_batch_2.npz[0]", "train_data_batch_11.npz[0]", "val_data.npz[0]")
    ]
    planes = np.concatenate([file["data"] for file in files]).reshape(-1, 3, 64, 64)
    np.testing.assert_array_equal(environment.pixels, planes.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(environment.pixels, pixels)
    labels = np.concatenate([file["labels"] for file in files])
    assert environment.manifest["label"].tolist() == (labels - 1).tolist()
    assert len(environment.store["class_names"]) == 1000
    # The classes of the three test pictures are not among those of the training pictures.
    assert environment.catalog.load("feature_network")["classes"] == labels.max()
    assert "class_agreement" in set(environment.catalog.load("metrics")["metric"])
    order = np.random.RandomState(42).permutation(22)
    assert environment.rows("validation") == [order[-1]]
    assert environment.rows("train") == sorted(order[:-1])
    assert environment.rows("test") == [22, 23, 24]
    assert environment.normalisation == (115.92961967, 69.37404, 8)


def test_chest_xray14(open_environment, stand_ins):
    environment = open_environment("chest_xray14")
    pixels, _, _ = stand_ins.chest_xray(environment.raw, size=512)
    environment.run(*TRAINED)
    with (environment.raw / "Data_Entry_2017_v2020.csv").open() as file:
        table = list(csv.DictReader(file))
    names = [row["Image Index"] for row in table]
    assert environment.manifest["origin"].tolist() == [f"images/{name}" for name in names]
    findings, attributes = environment.store["attribute_names"], environment.array("attributes")
    assert len(findings) == attributes.shape[1] == 14
    for row, stored in zip(table, attributes, strict=True):
        present = {name for name, value in zip(findings, stored, strict=True) if value}
        assert present == set(row["Finding Labels"].split("|")) - {"No Finding"}
    for split, file in (("test", "test_list.txt"), ("train", "train_val_list.txt")):
        listed = {names.index(name) for name in (environment.raw / file).read_text().split()}
        here = {*environment.rows(split), *(environment.rows("validation") * (split == "train"))}
        assert here == listed
    assert len(environment.rows("validation")) == 1
    # Grey, as three equal channels.
    assert environment.pixels.shape == (10, 256, 256, 3)
    grey = shrink(Image.fromarray(pixels[0]), 256)
    for channel in range(3):
        np.testing.assert_array_equal(environment.pixels[0, ..., channel], grey)
    # (x / 255 - 0.5) / 0.25
    assert environment.normalisation == (127.5, 63.75, 8)


def test_edges2shoes(open_environment, stand_ins):
    environment = open_environment("edges2shoes")
    stand_ins.edges(environment.raw, "edges2shoes", train=12, size=256, suffix="jpg")
    environment.run(*TRAINED)
    folder = environment.raw / "edges2shoes"
    files = [*sorted(folder.glob("train/*")), *sorted(folder.glob("val/*"))]
    origins = [path.relative_to(folder).as_posix() for path in files]
    assert environment.manifest["origin"].tolist() == origins
    drawings = environment.array("condition")
    assert drawings.shape == environment.pixels.shape == (14, 64, 64, 3)
    for path, drawing, photo in zip(files, drawings, environment.pixels, strict=True):
        with Image.open(path) as picture:
            assert picture.size == (512, 256)
            for half, stored in ((0, drawing), (256, photo)):
                found = shrink(picture.crop((half, 0, half + 256, 256)), 64)
                np.testing.assert_array_equal(stored, found)
    assert environment.rows("test") == [12, 13]
    assert environment.rows("validation") == [np.random.RandomState(42).permutation(12)[-1]]
    assert environment.normalisation == (115.92961967, 69.37404, 8)


# Terms.


@pytest.mark.parametrize("name", RESTRICTED)
def test_restricted_set_is_refused_before_any_work(open_environment, monkeypatch, name):
    folder = Path.cwd()
    environment = open_environment(name, {**SMALL, "data": {}})
    assert environment.parameters["data"]["accept_licence"] is False
    # Lying there already is no consent.
    environment.raw.mkdir(parents=True)
    (environment.raw / "picture.png").touch()
    monkeypatch.setattr(settings, "ROOT", folder)  # where MLflow's database would be
    context = SimpleNamespace(config_loader=environment.loader, project_path=folder)
    with pytest.raises(click.ClickException) as refusal:
        ParameterHooks().after_context_created(context)
    source = environment.parameters["data"]["source"]
    assert refusal.value.message.startswith(f"{source} is restricted; licence: ")
    assert "Set data.accept_licence: true" in refusal.value.message
    with pytest.raises(ConfigurationError, match="is restricted"):
        prepare_images_node(environment.parameters["data"], environment.parameters["folders"])
    assert [path.name for path in Path().rglob("*") if path.is_file()] == ["picture.png"]
