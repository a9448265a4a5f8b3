"""How well scores of partly seen images tell foreign images from those of a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from condvae.evaluation.bins import POOLED
from condvae.ground.configuration import ConfigurationError, check_positive
from condvae.ipa import PartialEncoder
from condvae.masks.kinds import OBSERVED_BINS, bin_name, bin_of
from condvae.masks.sampling import MaskConfig, draw_masks
from condvae.posterior.anomaly import GradientDensity, auroc, range_scores, temperature_gradients
from condvae.posterior.image_posterior import ImagePosterior
from condvae.posterior.input_check import check_observations
from condvae.tasks.observation import Observation
from condvae.tasks.subject import SideInformation

__all__ = ["ANOMALY_SCORES", "NORMAL", "AnomalyScorer", "fit_scorer", "tabulate_auroc"]

ANOMALY_SCORES = {
    "temperature_gradient": "−log density of temperature gradients",
    "bound": "Bound on −log p(y), bits per observed value",
    "input_check": "Distance from the range of the input check",
}
NORMAL = "test"
"""Name of the set of normal images."""

_Progress = Callable[[int], object]


@dataclass(frozen=True)
class AnomalyScorer:
    """Everything that decides the scores of an observation.

    Attributes:
        posterior: The model.
        density: Of the gradients of its training images.
        draws: Draws of z that gradients and bound are averaged over.
        seed: Of these draws.
        batch_size: Cases at a time; decides nothing.
    """

    posterior: ImagePosterior
    density: GradientDensity
    draws: int
    seed: int
    batch_size: int

    def score(
        self,
        images: NDArray[np.uint8],
        masks: NDArray[np.bool_],
        rows: NDArray[np.int64],
        case_ids: Sequence[str],
        side_information: SideInformation | None = None,
        progress: _Progress | None = None,
    ) -> dict[str, NDArray[np.float64]]:
        """Score images behind masks; larger is more foreign.

        Args:
            images: uint8 (N,H,W,C).
            masks: bool (N,H,W), true = observed, at least one pixel each.
            rows: (N,), rows of the images whose side information holds.
            case_ids: N names, which decide the draws.
            side_information: For tasks that need it.
            progress: Called with the number of images scored.

        Returns:
            (N,) by name, see `ANOMALY_SCORES`; nan where there is no such score.
        """
        parts: list[list[NDArray[np.float64]]] = []
        how: dict[str, int] = {
            "draws": self.draws,
            "seed": self.seed,
            "batch_size": self.batch_size,
        }
        known = side_information or SideInformation()
        for observation in _observe(
            self.posterior, images, masks, rows, case_ids, known, self.batch_size
        ):
            gradients = _gradients(self.posterior, observation, **how)
            bound = self.posterior.observation_bound(observation, **how).bits_per_observed_dim
            verdicts = check_observations(self.posterior, observation, batch_size=self.batch_size)
            parts.append([self.density.scores(gradients), bound.numpy(), range_scores(verdicts)])
            if progress is not None:
                progress(len(observation))
        columns = [np.concatenate(values) for values in zip(*parts, strict=True)]
        return dict(zip(ANOMALY_SCORES, columns, strict=True))


def fit_scorer(
    posterior: ImagePosterior,
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    masks: MaskConfig,
    *,
    pairs: int,
    draws: int,
    seed: int,
    batch_size: int,
    side_information: SideInformation | None = None,
    progress: _Progress | None = None,
) -> AnomalyScorer:
    """Fit the density of temperature gradients to training images behind training masks.

    Args:
        posterior: The model, of a task with masks.
        images: uint8 (N,H,W,C), possibly memory-mapped.
        rows: Rows of the training images, in which they go around until there are enough pairs.
        masks: The masks it was trained with; those that show nothing are left out.
        pairs: Pairs of image and mask; many more than there are latent groups.
        draws: Draws of z that gradients are averaged over.
        seed: Of pairs and draws.
        batch_size: Cases at a time.
        side_information: For tasks that need it.
        progress: Called with the number of pairs done.

    Raises:
        ConfigurationError: A task without masks, settings below 1, or a density that cannot be fitted.
    """
    if not posterior.task.uses_mask:
        raise ConfigurationError(
            f"task {posterior.task.name!r} shows no pixels themselves: scores of observed pixels "
            "need a task with masks, such as 'inpainting'"
        )
    check_positive("pairs", pairs)
    drawn = draw_masks(masks, posterior.contract.size, pairs, seed)
    order = np.random.default_rng(seed).permutation(rows)[np.arange(pairs) % len(rows)]
    seen = drawn.any(axis=(1, 2))
    drawn, order = drawn[seen], order[seen]
    names = [f"reference {number} {row}" for number, row in enumerate(order.tolist())]
    known = side_information or SideInformation()
    gradients = []
    if progress is not None:
        progress(pairs - len(order))
    for start in range(0, len(order), batch_size):
        part = slice(start, start + batch_size)
        for observation in _observe(
            posterior, images[order[part]], drawn[part], order[part], names[part], known, batch_size
        ):
            gradients.append(
                _gradients(posterior, observation, draws=draws, seed=seed, batch_size=batch_size)
            )
            if progress is not None:
                progress(len(observation))
    density = GradientDensity.fit(np.concatenate(gradients))
    return AnomalyScorer(posterior, density, draws, seed, batch_size)


def _gradients(
    posterior: ImagePosterior, observation: Observation, **how: int
) -> NDArray[np.float64]:
    """(B,·), temperature gradients of the groups that are conditioned: those of others are always 0."""
    found: NDArray[np.float64] = temperature_gradients(posterior, observation, **how).numpy()
    latents = posterior.model.latents
    return found[:, : latents.first_groups] if isinstance(latents, PartialEncoder) else found


def _observe(
    posterior: ImagePosterior,
    images: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    rows: NDArray[np.int64],
    case_ids: Sequence[str],
    known: SideInformation,
    batch_size: int,
) -> Iterator[Observation]:
    """Observations of at most `batch_size` cases: of all they might not fit into memory."""
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        pixels = torch.from_numpy(np.ascontiguousarray(np.moveaxis(images[part], -1, 1)))
        shown = torch.from_numpy(masks[part]).unsqueeze(1)
        subject = known.subject(pixels, shown, rows[part], posterior.task.needs)
        yield posterior.task.observe(subject, posterior.contract, tuple(case_ids[part]))


def tabulate_auroc(
    scores: dict[str, dict[str, NDArray[np.float64]]],
    shares: NDArray[np.float64],
    images: dict[str, Sequence[str]],
) -> list[dict[str, Any]]:
    """List the AUROC of every foreign set and score, bin by bin of the observed share and pooled.

    Args:
        scores: Set -> score -> (N,), case by case behind the same masks; `NORMAL` among the sets.
        shares: (N,), observed shares.
        images: Set -> N names of the images; cases that share one are not independent.

    Returns:
        Rows ``set, score, bin, value, standard_error, n_normal, n_foreign``; a bin in which a score
        has no values is left out.
    """
    bins = np.array([bin_of(float(share)) for share in shares])
    groups = {bin_name(i): np.flatnonzero(bins == i) for i in range(len(OBSERVED_BINS))}
    groups[POOLED] = np.arange(len(bins))
    rows = []
    for name, found in scores.items():
        if name == NORMAL:
            continue
        for score, values in found.items():
            for where, group in groups.items():
                sides = []
                for column, names in (
                    (scores[NORMAL][score][group], images[NORMAL]),
                    (values[group], images[name]),
                ):
                    there = ~np.isnan(column)
                    sides.append((column[there], np.array(names)[group][there]))
                if not all(len(column) for column, _ in sides):
                    continue
                (normal, of_normal), (foreign, of_foreign) = sides
                result = auroc(normal, foreign, (of_normal, of_foreign))
                rows.append(
                    {
                        "set": name,
                        "score": score,
                        "bin": where,
                        "value": result.value,
                        "standard_error": result.standard_error,
                        "n_normal": result.n_normal,
                        "n_foreign": result.n_foreign,
                    }
                )
    return rows
