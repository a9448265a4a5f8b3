"""Conditional priors p(z | y) over vectors of latents, y given as a vector of features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from condvae.ground.configuration import check_choice, check_positive
from condvae.ground.distributions import DiagonalGaussian
from condvae.priors.flows import CouplingFlow, full_precision
from condvae.priors.mixture import GaussianMixture
from condvae.priors.published import PublishedCoupling
from condvae.priors.univariate import UNIVARIATES

__all__ = [
    "PRIORS",
    "ConditionalPrior",
    "FlowPrior",
    "GaussianPrior",
    "MixturePrior",
    "PublishedPrior",
    "StandardPrior",
    "make_prior",
]

PRIORS = ("standard", "gaussian", "mixture", *UNIVARIATES, "paper")
_NOT_INVERTIBLE = (
    "prior = 'mixture' has no base variable: the component of a z is not a function of z; expected a "
    f"Gaussian or a flow ({', '.join(kind for kind in PRIORS if kind != 'mixture')})"
)


def make_prior(
    kind: str,
    latents: int,
    features: int,
    *,
    layers: int = 6,
    hidden: int = 64,
    components: int = 10,
) -> ConditionalPrior:
    """Build a prior p(z | y).

    Args:
        kind: ``standard``: N(0, I), whatever y is. ``gaussian``: a diagonal Gaussian of y. ``mixture``:
            a mixture of them. ``affine``, ``spline``, ``additive``: that Gaussian and a flow of
            couplings of this kind after it, each of which sees y. ``paper``: that Gaussian and the
            published coupling, which does not.
        latents: Z.
        features: E, length of the context.
        layers: Couplings of a flow; with 0 it is the ``gaussian``.
        hidden: Width of the networks.
        components: Of a mixture.

    Raises:
        ConfigurationError: Unknown `kind`, or a number out of range.
    """
    check_choice("prior", kind, PRIORS)
    check_positive("latents", latents)
    check_positive("features", features)
    check_positive("hidden", hidden)
    if kind == "standard":
        return StandardPrior(latents, features)
    if kind == "gaussian":
        return GaussianPrior(latents, features, hidden)
    if kind == "mixture":
        return MixturePrior(latents, features, hidden, components)
    if kind == "paper":
        return PublishedPrior(latents, features, hidden)
    return FlowPrior(latents, features, hidden, kind, layers)


class ConditionalPrior(nn.Module):
    """A density p(z | y) over vectors.

    Densities and maps are computed in float32 at least, also under autocast. What is called noise
    here is the base variable u of the flow, standard normal if z follows the prior.

    Attributes:
        mean: (Z,), subtracted from latents before anything else; saved with the weights.
        std: (Z,), divides them afterwards; saved with the weights.
        needs_uniform: Whether `sample` needs `uniform`.
        invertible: Whether there are `to_base` and `from_base`.
    """

    mean: Tensor
    std: Tensor
    needs_uniform = False
    invertible = True

    def __init__(self, latents: int, features: int) -> None:
        super().__init__()
        self.latents = latents
        self.features = features
        self.register_buffer("mean", torch.zeros(latents))
        self.register_buffer("std", torch.ones(latents))

    def standardise(self, mean: Tensor, std: Tensor) -> None:
        """Set what latents are shifted and scaled by; a new prior has this mean and deviation.

        Splines act within 5 deviations of the mean only, so the moments of q(z) belong here before
        the first update. Afterwards they are part of the density and are not to be changed.

        Args:
            mean: (Z,).
            std: (Z,), positive.

        Raises:
            ValueError: Wrong shape, or values that are not finite or not positive.
        """
        for name, values in (("mean", mean), ("std", std)):
            if values.shape != (self.latents,):
                raise ValueError(
                    f"{name} with shape {tuple(values.shape)}: expected ({self.latents},)"
                )
            if not bool(values.isfinite().all()):
                raise ValueError(f"{name} = {values.tolist()}: expected finite values")
        if not bool((std > 0).all()):
            raise ValueError(f"std = {std.tolist()}: expected positive values")
        self.mean.copy_(mean)
        self.std.copy_(std)

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """Log density in nats.

        Args:
            z: (B,Z).
            context: (B,E), features of y.

        Returns:
            (B,).

        Raises:
            ValueError: Wrong shapes.
        """
        with full_precision(z):
            z, context = self._checked("z", z, context)
            return self._log_density((z - self.mean) / self.std, context) - self.std.log().sum()

    def sample(
        self,
        noise: Tensor,
        context: Tensor,
        temperature: float = 1.0,
        uniform: Tensor | None = None,
    ) -> Tensor:
        """Draw z; differentiable in everything but `uniform`.

        Args:
            noise: (B,Z), standard normal.
            context: (B,E).
            temperature: Scales `noise`; at 0 Gaussians give their mode. Weights of a mixture stay.
            uniform: (B,), in [0, 1): chooses the component of a mixture, else unused.

        Returns:
            (B,Z).

        Raises:
            ValueError: Wrong shapes, or no `uniform` where it is needed.
        """
        with full_precision(noise):
            noise, context = self._checked("noise", noise, context)
            scaled = noise if temperature == 1.0 else temperature * noise
            return self._draw(scaled, context, uniform) * self.std + self.mean

    def to_base(self, z: Tensor, context: Tensor) -> Tensor:
        """The noise u (B,Z) that `sample` maps to `z` (B,Z) for this context (B,E).

        Raises:
            ValueError: Wrong shapes, or a prior that is not `invertible`.
        """
        with full_precision(z):
            z, context = self._checked("z", z, context)
            return self._to_noise((z - self.mean) / self.std, context)[0]

    def from_base(self, u: Tensor, context: Tensor) -> Tensor:
        """The inverse of `to_base`: z (B,Z) of noise `u` (B,Z).

        Raises:
            ValueError: Wrong shapes, or a prior that is not `invertible`.
        """
        with full_precision(u):
            u, context = self._checked("u", u, context)
            return self._from_noise(u, context) * self.std + self.mean

    def _checked(self, name: str, values: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Both in one type, float32 at least."""
        batch = len(values)
        expected = {name: (values, self.latents), "context": (context, self.features)}
        for label, (tensor, length) in expected.items():
            if tensor.shape != (batch, length):
                raise ValueError(
                    f"{label} with shape {tuple(tensor.shape)}: expected ({batch}, {length})"
                )
        dtype = torch.promote_types(values.dtype, torch.float32)
        return values.to(dtype), context.to(dtype)

    def _log_density(self, t: Tensor, context: Tensor) -> Tensor:
        """Of standardised latents."""
        u, log_determinant = self._to_noise(t, context)
        normal = 0.5 * u.square().sum(dim=1) + 0.5 * self.latents * math.log(2 * math.pi)
        return log_determinant - normal

    def _draw(self, noise: Tensor, context: Tensor, uniform: Tensor | None) -> Tensor:
        """Standardised latents."""
        del uniform
        return self._from_noise(noise, context)

    def _to_noise(self, t: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """From standardised latents to noise, and the log-determinant (B,)."""
        raise NotImplementedError

    def _from_noise(self, u: Tensor, context: Tensor) -> Tensor:
        """From noise to standardised latents."""
        raise NotImplementedError


class StandardPrior(ConditionalPrior):
    """N(0, I), whatever y is and whatever the moments of q(z) are."""

    def standardise(self, mean: Tensor, std: Tensor) -> None:
        """Nothing: the moments are checked, and the prior stays N(0, I)."""
        super().standardise(mean, std)
        self.mean.zero_()
        self.std.fill_(1.0)

    def _to_noise(self, t: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        del context
        return t, t.new_zeros(len(t))

    def _from_noise(self, u: Tensor, context: Tensor) -> Tensor:
        del context
        return u


class GaussianPrior(ConditionalPrior):
    """A diagonal Gaussian whose mean and deviation are functions of y, at first 0 and 1."""

    def __init__(self, latents: int, features: int, hidden: int) -> None:
        super().__init__(latents, features)
        last = nn.Linear(hidden, 2 * latents)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.gaussian = nn.Sequential(nn.Linear(features, hidden), nn.GELU(), last)

    def _base(self, context: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian.from_parameters(self.gaussian(context))

    def _to_noise(self, t: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        base = self._base(context)
        return base.standardise(t), -base.log_std.sum(dim=1)

    def _from_noise(self, u: Tensor, context: Tensor) -> Tensor:
        return self._base(context).sample(u)


class FlowPrior(GaussianPrior):
    """The Gaussian of y, its noise a flow's output; the flow's couplings see y, see `CouplingFlow`."""

    def __init__(self, latents: int, features: int, hidden: int, kind: str, layers: int) -> None:
        super().__init__(latents, features, hidden)
        self.flow = CouplingFlow(kind, latents, 1, features, layers=layers, hidden=hidden)

    def _to_noise(self, t: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        u, log_determinant = super()._to_noise(t, context)
        noise, log_slopes = self.flow(_as_pixel(u), _as_pixel(context))
        return noise.flatten(1), log_determinant + log_slopes.flatten(1).sum(dim=1)

    def _from_noise(self, u: Tensor, context: Tensor) -> Tensor:
        inner = self.flow.inverse(_as_pixel(u), _as_pixel(context))
        return super()._from_noise(inner.flatten(1), context)


class PublishedPrior(GaussianPrior):
    """N(f(z); mean(y), std(y)^2) |df/dz|, f the one coupling of De (2025); see `PublishedCoupling`.

    The order is the published one: f comes before the Gaussian and never sees y. So the first half of
    z is a Gaussian of y for ever, and where mean and deviation are equal for two y the densities are.
    """

    def __init__(self, latents: int, features: int, hidden: int) -> None:
        super().__init__(latents, features, hidden)
        self.coupling = PublishedCoupling(latents)

    def _to_noise(self, t: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        v, log_slopes = self.coupling(t)
        u, log_determinant = super()._to_noise(v, context)
        return u, log_determinant + log_slopes.sum(dim=1)

    def _from_noise(self, u: Tensor, context: Tensor) -> Tensor:
        return self.coupling.inverse(super()._from_noise(u, context))


class MixturePrior(ConditionalPrior):
    """A mixture of diagonal Gaussians, weights included a function of y; see `GaussianMixture`.

    With y a class it is a mixture of its own for every class. There is no base variable: which
    component a z came from is not a function of z.
    """

    needs_uniform = True
    invertible = False

    def __init__(self, latents: int, features: int, hidden: int, components: int) -> None:
        super().__init__(latents, features)
        check_positive("components", components)
        self.mixture = GaussianMixture(latents, features, components, hidden)

    def _log_density(self, t: Tensor, context: Tensor) -> Tensor:
        log_density: Tensor = self.mixture.log_prob(t, context)
        return log_density

    def _draw(self, noise: Tensor, context: Tensor, uniform: Tensor | None) -> Tensor:
        if uniform is None or uniform.shape != (len(noise),):
            found = None if uniform is None else f"of shape {tuple(uniform.shape)}"
            raise ValueError(
                f"uniform = {found}: a mixture chooses its components by it; expected shape "
                f"({len(noise)},)"
            )
        return self.mixture.sample(noise, context, uniform)

    def _to_noise(self, t: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        raise ValueError(_NOT_INVERTIBLE)

    def _from_noise(self, u: Tensor, context: Tensor) -> Tensor:
        raise ValueError(_NOT_INVERTIBLE)


def _as_pixel(values: Tensor) -> Tensor:
    """(B,D) -> (B,D,1,1)."""
    return values[:, :, None, None]
