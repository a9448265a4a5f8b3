"""Settings of a flat conditional VAE."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from condvae.ground.configuration import ConfigurationError, check_choice, check_positive
from condvae.ground.gaussian_pixels import SMALLEST_STD
from condvae.priors.vector import PRIORS

__all__ = ["LIKELIHOODS", "TRAININGS", "CvaeConfig"]

LIKELIHOODS = ("optimal", "learned", "fixed", "logistic_mixture")
TRAININGS = ("two_stage", "joint")
# What only the prior's own training depends on.
_PRIOR_FIELDS = ("prior", "prior_layers", "prior_hidden", "prior_components")


@dataclass(frozen=True)
class CvaeConfig:
    """A model and how its parts are trained.

    Attributes:
        latents: Z.
        width: Channels of the first scale; deeper ones have up to four times as many.
        features: E, length of the features that y becomes.
        encoder_sees_y: q(z | x, y), else q(z | x).
        decoder_sees_y: p(x | z, y), else p(x | z).
        likelihood: Of the pixels: normals with an ``optimal``, ``learned`` or ``fixed`` standard
            deviation (`condvae.ground.gaussian_pixels`), or the discretised ``logistic_mixture``.
        discretised: Normals as probabilities of grey levels, else as densities of dequantised pixels.
        fixed_std: Std of ``fixed`` on the scale of [-1, 1]; what ``learned`` starts from.
        mixtures: Components of the ``logistic_mixture``.
        prior: p(z | y), one of `PRIORS`.
        prior_layers: Couplings of a flow; 0 = ``gaussian``.
        prior_hidden: Width of the prior's networks.
        prior_components: Components of the ``mixture`` prior.
        training: ``two_stage``: VAE with N(0, I), then with everything else frozen p(z | y) by maximum
            likelihood on draws from q. ``joint``: all at once.
        beta: Weight of the KL divergence in training; scores always have 1.
        drop_share: Share of conditions that training makes partial, see `condvae.cvae.conditions.drop`.
    """

    latents: int = 16
    width: int = 32
    features: int = 128
    encoder_sees_y: bool = True
    decoder_sees_y: bool = True
    likelihood: str = "optimal"
    discretised: bool = True
    fixed_std: float = 1.0
    mixtures: int = 10
    prior: str = "spline"
    prior_layers: int = 6
    prior_hidden: int = 64
    prior_components: int = 10
    training: str = "two_stage"
    beta: float = 1.0
    drop_share: float = 0.4

    def __post_init__(self) -> None:
        for name in ("latents", "width", "features", "mixtures", "beta"):
            check_positive(name, getattr(self, name))
        for name in ("prior_hidden", "prior_components"):
            check_positive(name, getattr(self, name))
        check_positive("prior_layers", self.prior_layers, zero=True)
        check_choice("likelihood", self.likelihood, LIKELIHOODS)
        check_choice("prior", self.prior, PRIORS)
        check_choice("training", self.training, TRAININGS)
        if not self.fixed_std >= SMALLEST_STD:
            raise ConfigurationError(
                f"fixed_std = {self.fixed_std!r}: expected at least half a grey level, "
                f"{SMALLEST_STD:.4f}"
            )
        if not 0.0 <= self.drop_share <= 1.0:
            raise ConfigurationError(f"drop_share = {self.drop_share!r}: expected in [0, 1]")
        if self.likelihood == "logistic_mixture" and not self.discretised:
            raise ConfigurationError(
                "discretised = False: a logistic_mixture is always discretised; expected True"
            )

    @property
    def vae_facts(self) -> dict[str, Any]:
        """What the VAE's training depends on: priors that are fitted afterwards share one VAE."""
        facts = asdict(self)
        if self.training == "two_stage":
            for name in _PRIOR_FIELDS:
                del facts[name]
        return facts
