"""One version of a registered posterior: what it holds, how it is written and read.

The folder of the MLflow model holds all that judging the posterior again takes: the posterior's own
folder, its scores per case, its calibration and the manifest they belong to.
"""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import write_json
from condvae.models.folder import read_card
from pipelines.runs import pyfunc_model
from pipelines.runs.database import variable
from pipelines.runs.shortcomings import list_shortcomings

__all__ = [
    "Evaluation",
    "RegisteredPosterior",
    "add_evaluation",
    "current_environment",
    "log_posterior",
    "read_version",
]

# Files of an evaluation inside the model's folder.
EVALUATION = "artifacts/evaluation"
CASES, CALIBRATION, MANIFEST = "cases.parquet", "calibration.json", "manifest.jsonl"
FACTS = "evaluation_facts.json"
# What loading a posterior imports; `condvae` itself is on no index and must be installed beside them.
REQUIREMENTS = ("mlflow", "numpy", "pillow", "pyyaml", "requests", "safetensors", "torch", "tqdm")
FLOWS = "zuko"  # of posteriors with flows


@dataclass(frozen=True)
class Evaluation:
    """Files of one evaluation of a posterior.

    Attributes:
        cases: Parquet of the scores per case.
        calibration: JSON.
        manifest: The cases, JSON lines.
        facts: What the evaluation says of itself: completions ``k``, ``seed``, ``extractors``, ...
    """

    cases: Path
    calibration: Path
    manifest: Path
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RegisteredPosterior:
    """A version of a registered model.

    Attributes:
        name: See `pipelines.runs.registry.registered_name`.
        version: Number of the version, as text.
        folder: Of the posterior: ``model.safetensors`` and ``card.json``.
        posterior_sha256: What the registry says of the weights.
        manifest_sha256: Of the cases that it was evaluated on; None before it was.
        environment: Versions of ``torch``, ``condvae``, ``python`` it was registered with.
        cases: Parquet of its scores per case on the manifest; None before it was evaluated.
        calibration: ``calibration.json`` of the same evaluation.
        manifest: The cases themselves, JSON lines.
        run_id: Run that registered it.
        temperature: It was evaluated at, and samples at unless told otherwise.
        guidance: The same.
        facts: See `Evaluation`.
        aliases: That point to it.
        reason: Why it has, or had, its alias.
    """

    name: str
    version: str
    folder: Path
    posterior_sha256: str
    manifest_sha256: str | None
    environment: dict[str, str]
    cases: Path | None
    calibration: Path | None
    manifest: Path | None
    run_id: str | None
    temperature: float
    guidance: float = 1.0
    facts: dict[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    reason: str = ""

    @property
    def shortcomings(self) -> list[str]:
        """Why it is no more than a trial; see `list_shortcomings`."""
        return list_shortcomings(read_card(self.folder, "posterior"))


def current_environment() -> dict[str, str]:
    """Versions of what completions and scores are computed with."""
    return {
        "torch": version_of("torch"),
        "condvae": version_of("condvae"),
        "python": platform.python_version(),
    }


def log_posterior(
    folder: Path,
    card: Mapping[str, Any],
    evaluation: Evaluation | None,
    *,
    temperature: float,
    guidance: float,
    run_id: str | None,
) -> Any:
    """Write the MLflow model, which is not registered yet; its files are copies.

    Args:
        folder: Of the posterior.
        card: Its card.
        evaluation: None where it was not evaluated.
        temperature: See `RegisteredPosterior`.
        guidance: The same.
        run_id: Run that the model is shown with; None for none.

    Returns:
        MLflow's `ModelInfo`.
    """
    needed = [*REQUIREMENTS, *([FLOWS] if card.get("flows") else [])]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        artifacts = {"posterior": str(folder)}
        if evaluation is not None:
            staged = Path(temporary) / "evaluation"
            _copy_evaluation(evaluation, staged)
            artifacts["evaluation"] = str(staged)
        with _quiet():
            return Model.log(
                artifact_path=None,
                # Not the name of a folder among the run's artifacts: MLflow would list both as one.
                name="registered_posterior",
                flavor=mlflow.pyfunc,
                run_id=run_id,
                python_model=str(pyfunc_model.__file__),
                artifacts=artifacts,
                signature=pyfunc_model.make_signature(card, temperature),
                input_example=pyfunc_model.make_example(card),
                model_config={"guidance": guidance},
                pip_requirements=[f"{name}=={version_of(name)}" for name in needed],
            )


def add_evaluation(version: ModelVersion, evaluation: Evaluation) -> None:
    """Put an evaluation beside the weights of a version that has none."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        _copy_evaluation(evaluation, Path(temporary) / EVALUATION)
        model_id = str(version.source).removeprefix("models:/")
        MlflowClient().log_model_artifacts(model_id, temporary)


def read_version(version: ModelVersion) -> RegisteredPosterior:
    """Find the files of a version; the weights are not checked.

    Raises:
        ConfigurationError: Its files are gone.
    """
    name, number, tags = version.name, str(version.version), version.tags
    address = MlflowClient().get_model_version_download_uri(name, number)
    try:
        root = _fetch(address, f"models:/{name}/{number}", evaluated="manifest_sha256" in tags)
        flavour = Model.load(str(root)).flavors["python_function"]
        folder = root / flavour["artifacts"]["posterior"]["path"]
    except (MlflowException, OSError, KeyError) as error:
        raise ConfigurationError(
            f"{name} version {number}: its files cannot be read from {address} ({error}); restore "
            "them, or give the alias to another version"
        ) from error
    files = {
        file: path
        for file in (CASES, CALIBRATION, MANIFEST, FACTS)
        if "manifest_sha256" in tags and (path := root / EVALUATION / file).is_file()
    }
    aliases = MlflowClient().get_registered_model(name).aliases.items()
    prefix = "environment."
    return RegisteredPosterior(
        name,
        number,
        folder,
        tags["posterior_sha256"],
        tags.get("manifest_sha256"),
        {key.removeprefix(prefix): tags[key] for key in tags if key.startswith(prefix)},
        files.get(CASES),
        files.get(CALIBRATION),
        files.get(MANIFEST),
        version.run_id or None,
        float(tags["temperature"]),
        float(tags["guidance"]),
        json.loads(files[FACTS].read_text()) if FACTS in files else {},
        tuple(sorted(alias for alias, holder in aliases if str(holder) == number)),
        tags.get("alias_reason", ""),
    )


def _fetch(address: str, model: str, *, evaluated: bool) -> Path:
    """The folder of a model where it is, or else a copy that is there until the process ends."""
    if urlsplit(address).scheme in ("", "file"):
        with _quiet():
            return Path(mlflow.artifacts.download_artifacts(model))
    return _download(address, model, evaluated)


@cache  # the first evaluation is all that ever changes
def _download(address: str, model: str, evaluated: bool) -> Path:
    del address, evaluated
    with _quiet():
        folder = tempfile.mkdtemp(dir=_downloads().name)
        return Path(mlflow.artifacts.download_artifacts(model, dst_path=folder))


@cache
def _downloads() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(ignore_cleanup_errors=True)


def _copy_evaluation(evaluation: Evaluation, folder: Path) -> None:
    folder.mkdir(parents=True)
    shutil.copyfile(evaluation.cases, folder / CASES)
    shutil.copyfile(evaluation.calibration, folder / CALIBRATION)
    shutil.copyfile(evaluation.manifest, folder / MANIFEST)
    write_json(folder / FACTS, dict(evaluation.facts))


def _quiet() -> AbstractContextManager[None]:
    """No bars for copying a handful of files."""
    return variable("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
