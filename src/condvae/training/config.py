"""Settings of a training run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from condvae.ground.configuration import ConfigurationError, check_choice, check_positive

__all__ = ["OBJECTIVES", "TRAINABLE", "ObjectiveConfig", "TrainingConfig"]

OBJECTIVES = ("ipa", "ipa_r", "joint")
TRAINABLE = ("partial", "output_head", "all")


@dataclass(frozen=True)
class TrainingConfig:
    """Optimisation settings; everything that changes the resulting weights is here.

    Attributes:
        steps: Updates in all.
        batch_size: Images per update.
        learning_rate: Peak rate of AdamW.
        betas: AdamW's averaging constants; (0.9, 0.9) as published.
        weight_decay: AdamW's decoupled decay.
        warmup_steps: Linear rise of the rate from 0.
        schedule: ``constant`` after the warm-up (published) or ``cosine`` to zero.
        ema_decay: Averaging of trainable weights, 0 = none. Results always use the average.
        ema_warmup: Start with short averages, min(ema_decay, (1 + t) / (10 + t)); without it the
            random start keeps a weight of ema_decay^steps.
        clip_norm: Gradients are scaled down to this norm.
        skip_rule: When to leave an update out. ``adaptive``: norm above `skip_threshold` times the
            median of recent norms. ``published``: norm above `skip_threshold` itself. ``none``.
            Non-finite gradients are always left out.
        skip_threshold: See `skip_rule`.
        max_skips: So many updates in a row are left out at most; the next one is taken, clipped. The
            published rule alone freezes training for ever once norms stay high (vdvae issue 25).
        max_restarts: So many times a run that has diverged goes back to a checkpoint, halves its
            learning rate and goes on with other draws; then, as with 0, it ends with an error.
            Diverged is a run whose gradients or weights stay non-finite or, unless this is 0, whose
            gradient norms explode; see `condvae.training.guard`.
        precision: ``float32`` or ``bfloat16`` (autocast; weights and KL stay float32).
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between metric records.
        validate_every: Steps between validations, 0 = only at the end.
    """

    steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.9)
    weight_decay: float = 0.01
    warmup_steps: int = 100
    schedule: str = "constant"
    ema_decay: float = 0.999
    ema_warmup: bool = True
    clip_norm: float = 200.0
    skip_rule: str = "adaptive"
    skip_threshold: float = 10.0
    max_skips: int = 10
    max_restarts: int = 0
    precision: str = "float32"
    checkpoint_every: int = 200
    log_every: int = 20
    validate_every: int = 0

    def __post_init__(self) -> None:
        names = ("steps", "batch_size", "learning_rate", "clip_norm", "skip_threshold")
        for name in (*names, "checkpoint_every", "log_every", "max_skips"):
            check_positive(name, getattr(self, name))
        for name in ("weight_decay", "warmup_steps", "validate_every", "max_restarts"):
            check_positive(name, getattr(self, name), zero=True)
        check_choice("schedule", self.schedule, ("constant", "cosine"))
        check_choice("skip_rule", self.skip_rule, ("adaptive", "published", "none"))
        check_choice("precision", self.precision, ("float32", "bfloat16"))
        if not 0.0 <= self.ema_decay < 1.0:
            raise ConfigurationError(f"ema_decay = {self.ema_decay!r}: expected in [0, 1)")
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ConfigurationError(f"betas = {self.betas!r}: expected two numbers in [0, 1)")

    def facts(self) -> dict[str, Any]:
        """Fields by name, for fingerprints."""
        facts = asdict(self)
        # Younger than the first fingerprints: at its default it must not change any.
        if self.max_restarts == 0:
            del facts["max_restarts"]
        return facts


@dataclass(frozen=True)
class ObjectiveConfig:
    """What conditional training minimises (Harvey, Naderiparizi, Wood 2022).

    Attributes:
        name: ``ipa``: the forward KL, which covers the posterior. ``ipa_r``: the reverse bound on
            log p(y), for tasks whose y is exactly known pixels; seeks modes. ``joint``: VAE and
            partial encoder together from random weights, the paper's baseline.
        observations_per_image: Observations y per pass of the unconditional model over an image.
            Not with ``ipa_r``, which makes no such pass.
        trainable: ``partial``: the partial encoder, the VAE stays frozen. ``output_head``: the
            decoder's output layer too. ``all``: everything. Only ``ipa`` has the choice; ``joint``
            always trains all.
        predicted: x~, what the decoder's likelihood counts where it is trained: ``all`` pixels or
            the ``unobserved`` ones.
        likelihood_start: Weight of the likelihood of ``ipa_r`` at the first step.
        likelihood_end: Its weight from step `likelihood_steps` on.
        likelihood_steps: Steps of the geometric way from one to the other.
    """

    name: str = "ipa"
    observations_per_image: int = 1
    trainable: str = "partial"
    predicted: str = "all"
    likelihood_start: float = 1.0
    likelihood_end: float = 1.0
    likelihood_steps: int = 0

    def __post_init__(self) -> None:
        check_choice("name", self.name, OBJECTIVES)
        check_choice("trainable", self.trainable, TRAINABLE)
        check_choice("predicted", self.predicted, ("all", "unobserved"))
        for name in ("observations_per_image", "likelihood_start", "likelihood_end"):
            check_positive(name, getattr(self, name))
        check_positive("likelihood_steps", self.likelihood_steps, zero=True)
        used = {
            "observations_per_image": self.name != "ipa_r",
            "trainable": self.trained == self.trainable,
            "predicted": self.trained != "partial",
            "likelihood_start": self.name == "ipa_r" and self.likelihood_steps > 0,
            "likelihood_end": self.name == "ipa_r",
            "likelihood_steps": self.name == "ipa_r"
            and self.likelihood_start != self.likelihood_end,
        }
        for name, value in self.choices.items():
            if not used.get(name, True):
                raise ConfigurationError(
                    f"{name} = {value!r}: has no effect with the other parameters of {self.choices}"
                )

    @property
    def trained(self) -> str:
        """Which weights are trained, one of `TRAINABLE`."""
        return {"ipa": self.trainable, "ipa_r": "partial", "joint": "all"}[self.name]

    @property
    def choices(self) -> dict[str, Any]:
        """What differs from the default, as a run's identity and a card state it."""
        default = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in asdict(self).items() if value != default[name]}

    def likelihood_weight(self, step: int) -> float:
        """Weight of the likelihood at 0-based `step`: geometric from start to end, then constant."""
        if step >= self.likelihood_steps:
            return self.likelihood_end
        done = step / self.likelihood_steps
        return float(self.likelihood_start ** (1.0 - done) * self.likelihood_end**done)
