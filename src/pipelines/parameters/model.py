"""Parameters of weights, models and tasks, and of how they are used."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from condvae.ground.configuration import ConfigurationError, check_choice, check_positive
from condvae.ground.distributions import LATENT_STDS
from condvae.ground.images import DataContract
from condvae.ipa.heads import parse_flows
from condvae.ipa.partial_encoder import INITIALISATIONS
from condvae.models.presets import StatedModel, check_stated
from condvae.posterior.guidance import GUIDANCE_RULES
from condvae.tasks import TASKS, Task, task_named
from condvae.vdvae.architecture import Architecture
from condvae.vdvae.architectures import architecture_named

__all__ = [
    "FoldersConfig",
    "ModelConfig",
    "SamplingConfig",
    "TaskConfig",
    "VerifyConfig",
    "WeightsConfig",
]


@dataclass(frozen=True)
class FoldersConfig:
    """Where results lie."""

    images: str
    features: str
    evaluation: str
    vae: str
    inpaint: str
    reporting: str
    comparison: str
    anomaly: str
    attributes: str
    attributes_reporting: str
    ladder: str
    ladder_reporting: str
    data_docs: str


@dataclass(frozen=True)
class WeightsConfig:
    """Which weights are used.

    Attributes:
        vae: Registered name, model folder, official checkpoint (``.th``), or ``random``. The name of a
            published checkpoint has it fetched.
        allow_untrained: Accept a VAE that was never trained.
        posterior: What `evaluate` scores: a name, a folder or an official conditional checkpoint;
            None = the last trained posterior, else the bundled one.
        preset: The published model that official checkpoints belong to, or what their tensors do not
            say of a model of one's own; None for everything else.
        allow_unpinned: Accept a published file whose sha256 nobody has stated yet, and pin it.
        cache: Folder of fetched files; None = ``$CONDVAE_CACHE``, else ``~/.cache/condvae``.
    """

    vae: str = "digits"
    allow_untrained: bool = False
    posterior: str | None = None
    preset: str | StatedModel | None = None
    allow_unpinned: bool = False
    cache: str | None = None

    def __post_init__(self) -> None:
        official = [name for name in (self.vae, self.posterior) if name and name.endswith(".th")]
        for name in official:
            check_stated(self.preset, name)
        if self.preset is not None and not official:
            check_stated(self.preset, "")
            raise ConfigurationError(
                f"preset = {self.preset!r}: only for official checkpoints (.th), but weights.vae = "
                f"{self.vae!r} and weights.posterior = {self.posterior!r}"
            )


@dataclass(frozen=True)
class ModelConfig:
    """Shape and data contract of a new VAE, and start of the partial encoder.

    Attributes:
        architecture: Registered name, or the architecture itself.
        initialisation: How the partial encoder starts.
        bits: Bits per channel of a new VAE's likelihood, 8 or 5.
        mean: What a new VAE subtracts from pixels on the 0-255 scale; None = the mean of the training
            images.
        std: What it divides by afterwards; None = theirs.
        latent_std: How a new VAE gives the standard deviations of latents; None = as registered for
            the architecture, see there.
        flows: Latent groups of the partial encoder with a flow after their Gaussian, and its kind:
            ``1:spline,4:affine`` = splines for groups of 1x1, affine couplings for those of 4x4;
            ``1:mixture`` = a mixture in place of a flow.
        flow_layers: Couplings per flow.
        first_groups: Only so many latent groups, from the top, are conditioned; the others are drawn
            from the prior. None = all.
    """

    architecture: str | Architecture = "digits16"
    initialisation: str = "residual"
    bits: int = 8
    mean: float | None = None
    std: float | None = None
    latent_std: str | None = None
    flows: str = ""
    flow_layers: int = 2
    first_groups: int | None = None

    def __post_init__(self) -> None:
        if self.first_groups is not None:
            check_positive("first_groups", self.first_groups)
        parse_flows(self.flows)
        check_positive("flow_layers", self.flow_layers, zero=True)
        efficient = self.vae_architecture.is_efficient
        check_choice("bits", self.bits, (5, 8))
        if efficient and self.bits != 8:
            raise ConfigurationError(f"bits = {self.bits!r}: expected 8 for {self.architecture}")
        if self.std is not None:
            check_positive("std", self.std)
        if self.mean is not None and not 0.0 <= self.mean <= 255.0:
            raise ConfigurationError(f"mean = {self.mean!r}: expected in [0, 255]")
        check_choice("initialisation", self.initialisation, INITIALISATIONS)
        if self.latent_std is not None:
            check_choice("latent_std", self.latent_std, LATENT_STDS)

    @property
    def vae_architecture(self) -> Architecture:
        """Architecture of a new VAE."""
        shape = self.architecture
        if isinstance(shape, str):
            shape = architecture_named(shape)
        return shape if self.latent_std is None else replace(shape, latent_std=self.latent_std)

    def contract(self, training_mean: float, training_std: float) -> DataContract:
        """What a new VAE expects of its images, given mean and deviation of the training images."""
        shape = self.vae_architecture
        return DataContract(
            shape.channels,
            shape.image_size,
            training_mean if self.mean is None else self.mean,
            training_std if self.std is None else self.std,
            self.bits,
        )


@dataclass(frozen=True)
class TaskConfig:
    """Which conditional task.

    Attributes:
        name: Registered name.
        options: Its parameters; those left out have their defaults.
    """

    name: str = "inpainting"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("name", self.name, TASKS)
        self.make()

    def make(self) -> Task:
        """The task itself."""
        return task_named(self.name, self.options)


@dataclass(frozen=True)
class SamplingConfig:
    """How completions are drawn.

    Attributes:
        temperature: Multiplies the standard deviation of every latent; the posterior is 1.
        batch_size: Images decoded at a time.
        paste_observed: Copy observed pixels exactly.
        guidance: Weight of c(z | y) against the prior; the posterior is 1. See
            `condvae.posterior.guidance`.
        guidance_rule: What the weight means, one of `condvae.posterior.guidance.GUIDANCE_RULES`.
    """

    temperature: float = 1.0
    batch_size: int = 256
    paste_observed: bool = True
    guidance: float = 1.0
    guidance_rule: str = GUIDANCE_RULES[0]

    def __post_init__(self) -> None:
        check_positive("temperature", self.temperature, zero=True)
        check_positive("batch_size", self.batch_size)
        check_positive("guidance", self.guidance, zero=True)
        check_choice("guidance_rule", self.guidance_rule, GUIDANCE_RULES)


@dataclass(frozen=True)
class VerifyConfig:
    """How `verify` scores a VAE: on so many test images (all if there are fewer), so many at a time."""

    images: int = 1000
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.images < 2:
            raise ConfigurationError(f"images = {self.images!r}: a standard error needs at least 2")
        check_positive("batch_size", self.batch_size)
