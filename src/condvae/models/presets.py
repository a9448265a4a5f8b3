"""Models in the official layout: the published ones by name, others by what their owner states.

References:
    R. Child. Very deep VAEs generalize autoregressive models and can outperform them on images.
    ICLR 2021. Settings from the hyper-parameters released with it (github.com/openai/vdvae).
    W. Harvey, S. Naderiparizi, F. Wood. Conditional image generation by conditioning variational
    auto-encoders. ICLR 2022. Settings from its table of training costs and github.com/plai-group/ipa.
    L. Hazami, R. Mama, R. Thurairatnam. Efficient-VDVAE: Less is more. 2022. Shapes from the examples
    in github.com/Rayhane-mamah/Efficient-VDVAE.
"""

from __future__ import annotations

from dataclasses import dataclass

from condvae.ground.configuration import ConfigurationError, check_choice
from condvae.ground.images import DataContract
from condvae.training.config import TrainingConfig
from condvae.vdvae.architecture import Architecture
from condvae.vdvae.architectures import architecture_named

__all__ = ["PRESETS", "Preset", "StatedModel", "check_stated", "preset_named"]


@dataclass(frozen=True)
class Preset:
    """Everything that is published about one model, apart from its weights.

    The published rule for leaving out updates has no end (openai/vdvae issue 25); here `max_skips`
    still ends it after that many updates in a row. Otherwise the settings are the published ones.

    Attributes:
        architecture: Registered name, or an architecture that has none.
        contract: Normalisation of the encoder's input and bits of the likelihood.
        unconditional: Settings the VAE was trained with; `steps` is the age of the published weights.
            None where they cannot be said in ours (another optimiser).
        conditional: Settings of its partial encoder (IPA), None where nobody published any.
        source: Where the numbers are from and what is peculiar to them.
    """

    architecture: str | Architecture
    contract: DataContract
    unconditional: TrainingConfig | None
    conditional: TrainingConfig | None
    source: str

    def __post_init__(self) -> None:
        shape = self.shape
        if (shape.channels, shape.image_size) != (self.contract.channels, self.contract.size):
            raise ConfigurationError(
                f"contract for {self.contract.channels} x {self.contract.size}² images: "
                f"architecture {self.architecture} takes {shape.channels} x {shape.image_size}²"
            )
        if shape.latent_std != "exp" and not shape.is_efficient:
            raise ConfigurationError(
                f"architecture {self.architecture} has latent_std = {shape.latent_std!r}: published "
                "models of the family vdvae have 'exp'"
            )

    @property
    def shape(self) -> Architecture:
        """The architecture itself."""
        if isinstance(self.architecture, Architecture):
            return self.architecture
        return architecture_named(self.architecture)


@dataclass(frozen=True)
class StatedModel:
    """What the tensors of a checkpoint in the official layout do not say of its model.

    Everything else is read off them: channels, widths, latent channels, bottleneck, mixtures, and up
    to which resolution there are biases.

    Attributes:
        encoder: Layer string of the bottom-up network, see `Architecture`.
        decoder: Layer string of the top-down network.
        image_size: Height and width of images.
        mean: What the encoder subtracts from pixels on the 0-255 scale.
        std: What it divides by afterwards.
        bits: Of the likelihood per channel, 8 or 5.
        test_bits_per_dim: What it scores on its test images, where that is known: `verify` compares.
    """

    encoder: str
    decoder: str
    image_size: int
    mean: float
    std: float
    bits: int = 8
    test_bits_per_dim: float | None = None

    def __post_init__(self) -> None:
        _ = self.draft
        DataContract(1, self.image_size, self.mean, self.std, self.bits)

    @property
    def draft(self) -> Architecture:
        """An architecture with these layers, and otherwise as small as it can be.

        Raises:
            ConfigurationError: Layer strings that no model can have.
        """
        size = self.image_size
        return Architecture(size, 1, 4, 1, self.encoder, self.decoder, bias_up_to=size)


def check_stated(preset: str | StatedModel | None, checkpoint: str) -> str | StatedModel:
    """Return what is said of an official checkpoint, which does not say it itself.

    Raises:
        ConfigurationError: Nothing is, or a name that is not registered.
    """
    if preset is None:
        raise ConfigurationError(
            f"preset = None: {checkpoint!r} is an official checkpoint, which does not say what model "
            f"it is; expected one of {', '.join(PRESETS)}, or for a model of your own a mapping or a "
            "YAML file with encoder, decoder, image_size, mean, std and bits, which its tensors do not "
            "tell"
        )
    if isinstance(preset, str):
        preset_named(preset)
    return preset


def _published(
    *, steps: int, batch: int, rate: float, ema: float, clip: float, skip: float
) -> TrainingConfig:
    """Settings with what all published runs share; `batch` is the sum over GPUs."""
    return TrainingConfig(
        steps=steps,
        batch_size=batch,
        learning_rate=rate,
        betas=(0.9, 0.9),
        weight_decay=0.01,
        warmup_steps=100,
        schedule="constant",
        ema_decay=ema,
        ema_warmup=False,
        clip_norm=clip,
        skip_rule="published",
        skip_threshold=skip,
        checkpoint_every=10_000,
        log_every=100,
    )


PRESETS: dict[str, Preset] = {
    "cifar10": Preset(
        architecture="cifar10",
        contract=DataContract(3, 32, mean=120.63838, std=64.16736),
        unconditional=_published(
            steps=1_050_000, batch=32, rate=2e-4, ema=0.9999, clip=200.0, skip=400.0
        ),
        conditional=_published(
            steps=550_000, batch=30, rate=2e-4, ema=0.9999, clip=200.0, skip=400.0
        ),
        source="Child 2021 (16 images on each of 2 GPUs; weights of seed 1); Harvey et al. 2022",
    ),
    "imagenet32": Preset(
        architecture="imagenet32",
        contract=DataContract(3, 32, mean=116.2373, std=69.37404),
        unconditional=_published(
            steps=1_700_000, batch=256, rate=1.5e-4, ema=0.999, clip=200.0, skip=300.0
        ),
        conditional=_published(
            steps=700_000, batch=16, rate=1.5e-4, ema=0.999, clip=200.0, skip=300.0
        ),
        source="Child 2021 (8 images on each of 32 GPUs); Harvey et al. 2022, whose partial encoder "
        "of this VAE was trained on CIFAR-10, over a VAE of their own",
    ),
    "imagenet64": Preset(
        architecture="imagenet64",
        contract=DataContract(3, 64, mean=115.92961967, std=69.37404),
        unconditional=_published(
            steps=1_600_000, batch=128, rate=1.5e-4, ema=0.999, clip=220.0, skip=380.0
        ),
        conditional=_published(
            steps=700_000, batch=4, rate=5e-5, ema=0.999, clip=220.0, skip=380.0
        ),
        source="Child 2021 (4 images on each of 32 GPUs); Harvey et al. 2022",
    ),
    "ffhq256": Preset(
        architecture="ffhq256",
        contract=DataContract(3, 256, mean=112.8666757481, std=69.84780273, bits=5),
        unconditional=_published(
            steps=1_700_000, batch=32, rate=1.5e-4, ema=0.999, clip=130.0, skip=180.0
        ),
        conditional=_published(
            steps=626_000, batch=12, rate=1.5e-4, ema=0.999, clip=130.0, skip=180.0
        ),
        source="Child 2021 (1 image on each of 32 GPUs; 5-bit likelihood, 8-bit encoder input); "
        "Harvey et al. 2022",
    ),
    "ffhq1024": Preset(
        architecture="ffhq1024",
        # Published on the scale from 0 to 1, as 0.4387 and 0.2743.
        contract=DataContract(3, 1024, mean=111.8685, std=69.9465),
        unconditional=_published(
            steps=1_700_000, batch=32, rate=7e-5, ema=0.999, clip=360.0, skip=500.0
        ),
        conditional=None,
        source="Child 2021 (1 image on each of 32 GPUs). The published weights are reported not to "
        "fit this architecture (openai/vdvae issue 3)",
    ),
}


def _efficient(name: str, size: int) -> Preset:
    """A model of Hazami et al., whose encoder sees pixels between -1 and 1."""
    return Preset(
        architecture=name,
        contract=DataContract(3, size, mean=127.5, std=127.5),
        unconditional=None,
        conditional=None,
        source="Hazami et al. 2022; a checkpoint's own architecture goes before the example's",
    )


PRESETS |= {
    "efficient_celeba64": _efficient("efficient_celeba64", 64),
    "efficient_imagenet32": _efficient("efficient_imagenet32", 32),
    "efficient_imagenet64": _efficient("efficient_imagenet64", 64),
}


def preset_named(name: str) -> Preset:
    """Return a published model's preset.

    Raises:
        ConfigurationError: The name is not registered; the message lists those that are.
    """
    check_choice("preset", name, PRESETS)
    return PRESETS[name]
