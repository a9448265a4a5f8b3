"""Parameters of evaluations."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from condvae.evaluation.samplers import SAMPLER_DEFINITIONS, split_temperature
from condvae.ground.configuration import (
    ConfigurationError,
    check_choice,
    check_positive,
    check_seed,
)
from condvae.scores.extractors import Extractor, extractor_names, load_extractor

__all__ = [
    "EvaluationConfig",
    "ExtractorConfig",
    "FeatureConfig",
    "ManifestConfig",
    "ScoreConfig",
]

# Each is a metric of its own in `condvae.scores.definitions`.
BOUND_DRAWS = (1, 10, 100)


@dataclass(frozen=True)
class ManifestConfig:
    """Which cases are evaluated, how thoroughly, and which samplers.

    Attributes:
        completions: Per case.
        cases_per_bin: So many cases in every bin of observed share; or
        masks_per_image: every test image behind so many masks, each of another bin.
        bound_draws: Numbers of draws of the importance-weighted bound of the first sampler.
        samplers: What is scored; the first is the one the others are compared to. ``ipa_t0.7`` is
            ``ipa`` at temperature 0.7.
    """

    completions: int
    cases_per_bin: int | None = None
    masks_per_image: int | None = None
    bound_draws: tuple[int, ...] = ()
    samplers: tuple[str, ...] = ("ipa",)

    def __post_init__(self) -> None:
        if self.completions < 2:
            raise ConfigurationError(
                f"completions = {self.completions!r}: diversity needs at least 2"
            )
        if (self.cases_per_bin is None) == (self.masks_per_image is None):
            raise ConfigurationError(
                f"cases_per_bin = {self.cases_per_bin!r}, masks_per_image = "
                f"{self.masks_per_image!r}: expected one of the two, and null for the other"
            )
        if self.cases_per_bin is not None:
            check_positive("cases_per_bin", self.cases_per_bin)
        if self.masks_per_image is not None and not 1 <= self.masks_per_image <= 5:
            raise ConfigurationError(f"masks_per_image = {self.masks_per_image!r}: expected 1 to 5")
        for draws in self.bound_draws:
            check_choice("bound_draws", draws, BOUND_DRAWS)
        for sampler in self.samplers:
            split_temperature(sampler, 1.0)
        if not self.samplers or len(set(self.samplers)) < len(self.samplers):
            raise ConfigurationError(
                f"samplers = {self.samplers!r}: expected at least one, all different"
            )


@dataclass(frozen=True)
class FeatureConfig:
    """The small network whose features the scores use; trained by the evaluation."""

    features: int = 32
    epochs: int = 30

    def __post_init__(self) -> None:
        check_positive("features", self.features)
        if self.features > 32:
            raise ConfigurationError(f"features = {self.features!r}: expected at most 32")
        check_positive("epochs", self.epochs)


@dataclass(frozen=True)
class ExtractorConfig:
    """A network that gives features or perceptual distances; see `load_extractor`.

    Attributes:
        name: ``feature_network`` is the one the evaluation trains.
        weights: File of the weights, null for the cache folder.
        sha256: Of `weights`, when they are not the published ones.
        heads: File of LPIPS' channel weights.
        heads_sha256: Of `heads`, when they are not the published ones.
    """

    name: str = "feature_network"
    weights: str | None = None
    sha256: str | None = None
    heads: str | None = None
    heads_sha256: str | None = None

    def __post_init__(self) -> None:
        check_choice("name", self.name, extractor_names())
        for key in ("sha256", "heads", "heads_sha256"):
            if self.name == "feature_network" and getattr(self, key) is not None:
                raise ConfigurationError(
                    f"{key} = {getattr(self, key)!r}: feature_network does not take it"
                )

    def load(self, feature_network: str, name: str, device: torch.device) -> Extractor:
        """Load it.

        Args:
            feature_network: Folder of the network that the evaluation has trained.
            name: Its name, without a hash: runs of one command on several machines compare by it.
            device: Where it runs.
        """
        if self.name == "feature_network" and self.weights is None:
            own = load_extractor(self.name, feature_network, device=device)
            return replace(own, name=name)
        return load_extractor(
            self.name,
            self.weights,
            sha256=self.sha256,
            heads=self.heads,
            heads_sha256=self.heads_sha256,
            device=device,
        )


@dataclass(frozen=True)
class EvaluationConfig:
    """What is evaluated: `quick` by `inpaint`, `full` by `evaluate`.

    Attributes:
        quick: The evaluation of `inpaint`.
        full: The evaluation of `evaluate`.
        feature_network: The small network that tells classes apart and serves calibration tests.
        fidelity: Gives the features of scores of sets and of the energy score.
        perceptual: Gives perceptual distances.
        compare_with: ``cases.parquet`` of another run on the same cases; every sampler that both have
            is compared with its scores there.
        level: Of intervals.
        seed: Of cases, masks, feature network and all draws. Not the run's seed: runs that differ in
            their training seed are judged on the same cases by the same features.
    """

    quick: ManifestConfig
    full: ManifestConfig
    feature_network: FeatureConfig = field(default_factory=FeatureConfig)
    fidelity: ExtractorConfig = field(default_factory=ExtractorConfig)
    perceptual: ExtractorConfig = field(default_factory=ExtractorConfig)
    compare_with: str | None = None
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed("seed", self.seed)
        if not 0.0 < self.level < 1.0:
            raise ConfigurationError(f"level = {self.level!r}: expected in (0, 1)")
        if self.fidelity.name.startswith("lpips_"):
            raise ConfigurationError(
                f"fidelity.name = {self.fidelity.name!r}: gives distances only, expected features"
            )
        if self.perceptual.name == "inception":
            raise ConfigurationError(
                "perceptual.name = 'inception': gives features only, expected distances"
            )

    def check_inputs(self, project: Path = Path()) -> None:
        """Refuse extractors and an earlier run whose files are not there, before anything is trained.

        Args:
            project: Folder that relative paths start at.

        Raises:
            ConfigurationError: A missing file, another hash, or a registered extractor that does not
                give what it is used for.
        """
        if self.compare_with is not None and not (project / self.compare_with).is_file():
            raise ConfigurationError(
                f"evaluation.compare_with = {self.compare_with!r}: no such file; expected the "
                "cases.parquet of another run"
            )
        for role in ("fidelity", "perceptual"):
            config: ExtractorConfig = getattr(self, role)
            if config.name == "feature_network" and config.weights is None:
                continue
            files = {
                key: str(project / path)
                for key in ("weights", "heads")
                if (path := getattr(config, key)) is not None
            }
            try:
                found = replace(config, **files).load("", "", torch.device("cpu"))
            except ConfigurationError as error:
                raise ConfigurationError(f"evaluation.{role}: {error}") from None
            if not (found.feature_layer if role == "fidelity" else found.map_layers):
                needed = "features" if role == "fidelity" else "distances"
                raise ConfigurationError(
                    f"evaluation.{role}.name = {config.name!r}: it does not give {needed}"
                )


@dataclass(frozen=True)
class ScoreConfig:
    """Completions of another system, scored by `score`.

    Attributes:
        samples: Folder with ``<case_id>/<k>.png``, or an ``.npz`` file; see `export_cases`.
        manifest: The ``cases.jsonl`` they were made for; null when it lies in the folder of `samples`,
            or its sha256 in the ``.npz`` file.
        name: Of the system, in tables and figures.
        size: Which manifest: ``quick`` or ``full``.
        against: Samplers of ours that are scored beside it, on the same cases with as many
            completions.
    """

    samples: str | None = None
    manifest: str | None = None
    name: str = "external"
    size: str = "full"
    against: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z][\w.-]*", self.name):
            raise ConfigurationError(
                f"name = {self.name!r}: expected letters, digits, '_', '-' and '.' only, and a "
                "letter first"
            )
        check_choice("size", self.size, ("quick", "full"))
        for sampler in self.against:
            split_temperature(sampler, 1.0)
        if self.name in self.against or self.name in SAMPLER_DEFINITIONS:
            taken = ", ".join(dict.fromkeys([*SAMPLER_DEFINITIONS, *self.against]))
            raise ConfigurationError(
                f"name = {self.name!r}: the name of a sampler of ours; taken are {taken}"
            )

    def check_inputs(self, project: Path = Path()) -> None:
        """Refuse a run of `score` that is not told what to score.

        Args:
            project: Folder that relative paths start at.

        Raises:
            ConfigurationError: No completions are named, or what is named is not there.
        """
        if self.samples is None:
            raise ConfigurationError(
                "score.samples = None: expected the completions to score, a folder with "
                "<case_id>/<k>.png or an .npz file. `kedro run --pipeline=export` writes the cases"
            )
        for key in ("samples", "manifest"):
            path = getattr(self, key)
            if path is not None and not (project / path).exists():
                raise ConfigurationError(f"score.{key} = {path!r}: no such file or folder")
