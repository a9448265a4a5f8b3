"""Scores that say how foreign a partly seen image is to what a model was trained on, and their AUROC.

Two scores need nothing but a posterior and y. The bound on -log p(y) is what
`ImagePosterior.observation_bound` gives. The temperature gradient says where in the hierarchy y asks
for latents that are unusual under the prior; it becomes a score by its density under a normal law
fitted to gradients of training images behind training masks. A third one is the distance from what
the card of the model holds about its validation images, which `condvae.posterior.input_check` warns by.

References:
    W. Harvey, S. Naderiparizi, F. Wood. Conditional image generation by conditioning variational
    auto-encoders. ICLR 2022, appendix.
    J. Schäfer, K. Strimmer. A shrinkage approach to large-scale covariance matrix estimation and
    implications for functional genomics. 2005.
    E. DeLong, D. DeLong, D. Clarke-Pearson. Comparing the areas under two or more correlated receiver
    operating characteristic curves. 1988. N. Obuchowski. Nonparametric analysis of clustered ROC curve
    data. 1997.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from condvae.ground.configuration import ConfigurationError, check_positive
from condvae.ground.devices import explain_out_of_memory, plain_inference
from condvae.ground.distributions import DiagonalGaussian
from condvae.ground.noise import case_generator
from condvae.posterior.image_posterior import ImagePosterior, noise_by_group
from condvae.posterior.input_check import InputVerdict
from condvae.tasks.observation import Observation
from condvae.vdvae.decoder import LatentGroup
from condvae.vdvae.model import Noise

__all__ = ["Auroc", "GradientDensity", "auroc", "range_scores", "temperature_gradients"]


def temperature_gradients(
    posterior: ImagePosterior,
    observation: Observation,
    *,
    draws: int = 1,
    seed: int = 0,
    batch_size: int = 256,
) -> Tensor:
    """Differentiate the reverse bound on log p(y) by the temperatures of the prior, at 1.

    With every standard deviation of the prior's group l times t_l, the bound
    ``E_c[log p(y | z)] - sum_l KL(c(z_l | z_<l, y) || p_t(z_l | z_<l))`` has the derivative
    ``E_c sum ((z_l - prior mean) / prior std)^2 - 1`` at t = 1: positive where y asks for latents
    farther out than the prior has them, negative where they are closer to its means. Within a draw of
    the groups above the expectation is exact for Gaussian heads; for flows it is estimated by the draw.

    Args:
        posterior: The model.
        observation: B cases.
        draws: Draws of z from c that gradients are averaged over.
        seed: With the case id and the number of the draw decides the draw.
        batch_size: Cases at a time.

    Returns:
        (B,L) float64 on the CPU, nats.

    Raises:
        ConfigurationError: draws or batch_size below 1.
    """
    check_positive("draws", draws)
    check_positive("batch_size", batch_size)
    parts = []
    for start in range(0, len(observation), batch_size):
        part = observation.part(start, start + batch_size)
        with plain_inference(), explain_out_of_memory("batch_size", batch_size):
            parts.append(_mean_gradients(posterior, part, draws, seed))
    return torch.cat(parts)


def _mean_gradients(
    posterior: ImagePosterior, observation: Observation, draws: int, seed: int
) -> Tensor:
    """(B,L) float64 on the CPU, mean over draws."""
    vae, latents = posterior.model.vae, posterior.model.latents
    observation = observation.to(vae.device, vae.dtype)
    features = latents.encode(observation.condition)
    normals = torch.empty(len(observation), vae.architecture.latent_dimensions, dtype=torch.float32)
    gradients: list[Tensor] = []
    for draw in range(draws):
        for row, case_id in enumerate(observation.case_ids):
            generator = case_generator(seed, case_id, f"temperature gradient {draw}")
            torch.randn(normals.shape[1], generator=generator, out=normals[row])
        noise = noise_by_group(normals.to(vae.device, vae.dtype))

        def from_condition(group: LatentGroup, h: Tensor, noise: Noise = noise) -> Tensor:
            conditional = latents.distribution(group, h, features)
            z = conditional.sample(noise(group))
            if isinstance(conditional, DiagonalGaussian):
                ratio = torch.exp(2.0 * (conditional.log_std - group.prior.log_std))
                second_moment = group.prior.standardise(conditional.mean).square() + ratio
            else:
                second_moment = group.prior.standardise(z).square()
            gradients.append((second_moment - 1.0).flatten(1).sum(dim=1, dtype=torch.float64))
            return z

        vae.decoder.descend(from_condition, len(observation), output=False)
    return torch.stack(gradients, dim=1).reshape(len(observation), draws, -1).mean(dim=1).cpu()


@dataclass(frozen=True, eq=False)
class GradientDensity:
    """A normal law of temperature gradients.

    Attributes:
        mean: (L,).
        factor: (L,L), lower Cholesky factor of the covariance.
        shrinkage: Share of the correlations that was taken away, 0 to 1.
        n: Gradients it was fitted to.
    """

    mean: NDArray[np.float64]
    factor: NDArray[np.float64]
    shrinkage: float
    n: int

    @classmethod
    def fit(cls, gradients: ArrayLike) -> GradientDensity:
        """Fit mean and covariance.

        Variances are those of the sample. Correlations are shrunk towards 0 by the share that
        minimises their expected squared error (Schäfer and Strimmer 2005): near 0 for many more
        gradients than groups, larger for few, so that the covariance can always be inverted.

        Args:
            gradients: (N,L), N >= 3, of the images that count as normal.

        Raises:
            ConfigurationError: Too few, values that are not finite, or a group whose gradient never
                changes.
        """
        values = np.asarray(gradients, dtype=np.float64)
        if values.ndim != 2 or len(values) < 3 or not np.isfinite(values).all():
            raise ConfigurationError(
                f"gradients of shape {values.shape}: expected (N,L) finite numbers with N >= 3"
            )
        n, mean, std = len(values), values.mean(axis=0), values.std(axis=0, ddof=1)
        if not std.all():
            group = int(np.flatnonzero(std == 0)[0])
            raise ConfigurationError(f"gradients of group {group} are all equal: nothing to fit")
        standardised = (values - mean) / std
        correlation = standardised.T @ standardised / (n - 1)
        # Variance of each correlation, from that of the mean of products over the sample.
        squares = np.square(standardised).T @ np.square(standardised)
        spread = (squares - n * np.square(correlation * (n - 1) / n)) * n / (n - 1) ** 3
        off = ~np.eye(len(mean), dtype=bool)
        total = float(np.square(correlation[off]).sum())
        shrinkage = 1.0 if total == 0 else min(1.0, float(spread[off].sum()) / total)
        correlation[off] *= 1.0 - shrinkage
        factor = std[:, None] * np.linalg.cholesky(correlation)
        return cls(mean, factor, shrinkage, n)

    def scores(self, gradients: ArrayLike) -> NDArray[np.float64]:
        """Return (B,), -log density in nats of gradients (B,L): larger is more foreign.

        inf where a gradient is not finite.
        """
        centred = np.asarray(gradients, dtype=np.float64) - self.mean
        finite = np.isfinite(centred).all(axis=1)
        white = np.linalg.solve(self.factor, np.where(finite, centred.T, 0.0))
        log_scale = float(np.log(np.diag(self.factor)).sum())
        constant = 0.5 * len(self.mean) * math.log(2 * math.pi)
        scores = 0.5 * np.square(white).sum(axis=0) + log_scale + constant
        return np.where(finite, scores, np.inf)


def range_scores(verdicts: Sequence[InputVerdict]) -> NDArray[np.float64]:
    """Return (B,), distances from the middle of the card's range, in half widths of it.

    Above 1 exactly where `check_observations` calls y unusual. Both sides count, other than in the
    bound. nan where there was no check, inf where the bound is not finite.

    Args:
        verdicts: Of B observations.
    """
    scores = []
    for verdict in verdicts:
        bits, low, high = verdict.bits_per_observed_dim, verdict.low, verdict.high
        if not verdict.checked or low is None or high is None:
            scores.append(math.nan)
        elif bits is None:
            scores.append(math.inf)
        else:
            scores.append(abs(2.0 * bits - low - high) / (high - low))
    return np.array(scores, dtype=np.float64)


@dataclass(frozen=True)
class Auroc:
    """Area under the receiver operating characteristic curve.

    Attributes:
        value: Probability that a foreign image scores higher than a normal one, ties counted half.
        standard_error: Of the value; nan with one cluster only, 0 where all foreign cases score
            higher than all normal ones, which says nothing about how far from 1 the value may be.
        n_normal: Normal cases.
        n_foreign: Foreign cases.
    """

    value: float
    standard_error: float
    n_normal: int
    n_foreign: int


def auroc(
    normal: ArrayLike,
    foreign: ArrayLike,
    clusters: tuple[ArrayLike, ArrayLike] | None = None,
) -> Auroc:
    """Say how well a score tells foreign cases from normal ones.

    The standard error is that of DeLong et al. 1988, which supposes nothing about the law of the
    scores; with clusters that of Obuchowski 1997, where all cases of a cluster, normal and foreign,
    come and go together: several masks of one image, or an image and what was made of it.

    Args:
        normal: (N,) scores of normal cases, larger is more foreign; may be infinite.
        foreign: (M,) scores of foreign cases.
        clusters: (N,) and (M,) labels of the independent units, `None` when all cases are
            independent.

    Raises:
        ConfigurationError: No scores, a score that is nan, or labels of other shapes.
    """
    scores = [np.asarray(values, dtype=np.float64) for values in (normal, foreign)]
    for name, values in zip(("normal", "foreign"), scores, strict=True):
        if values.ndim != 1 or values.size == 0 or np.isnan(values).any():
            raise ConfigurationError(
                f"{name} scores of shape {values.shape}, {int(np.isnan(values).sum())} of them nan: "
                "expected (N,) numbers with N >= 1"
            )
    low, high = scores
    above = 1.0 - _share_below(high, low)  # of each normal case: foreign cases that score higher
    below = _share_below(low, high)
    value = float(below.mean())
    # Residuals of the two means; their sum over independent units has the variance of the value.
    parts = [(above - value) / len(low), (below - value) / len(high)]
    if clusters is None:
        variance = sum(
            float(part @ part) * len(part) / (len(part) - 1) if len(part) > 1 else math.nan
            for part in parts
        )
    else:
        labels = [np.asarray(c) for c in clusters]
        if [c.shape for c in labels] != [s.shape for s in scores]:
            raise ConfigurationError(
                f"clusters of shapes {[c.shape for c in labels]}: expected "
                f"{[s.shape for s in scores]}"
            )
        _, groups = np.unique(np.concatenate(labels), return_inverse=True)
        sums = np.bincount(groups, weights=np.concatenate(parts))
        count = len(sums)
        variance = float(sums @ sums) * count / (count - 1) if count > 1 else math.nan
    return Auroc(value, math.sqrt(variance), len(low), len(high))


def _share_below(
    reference: NDArray[np.float64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Share of `reference` below each value, ties counted half."""
    ordered = np.sort(reference)
    left, right = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return np.asarray((left + right) / (2 * len(ordered)))
