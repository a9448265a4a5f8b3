"""What calibration tests need of every case: references made from y, and ranks among completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from condvae.calibration import (
    View,
    nearest_references,
    other_references,
    rank_classes,
    rank_features,
    rank_pixels,
    reference_gaps,
    share_covered,
)
from condvae.calibration.ranks import MOST_BINS, case_uniforms
from condvae.evaluation.cases import EvaluationCase
from condvae.ground.images import DataContract
from condvae.ground.pixels import load_pixels
from condvae.scores.extraction import extract_features
from condvae.scores.feature_network import FeatureNetwork
from condvae.tasks import SideInformation, Task

__all__ = ["Calibrator", "largest_bank", "list_signatures", "usable_draws"]

FEWEST_BINS = 8
# Values of the bank of training images, 256 MiB as float64.
BANK_VALUES = 2**25
# Values of cases at a time whose references are looked for, or of their distances to the bank.
VALUES_AT_ONCE = 2**22

Ranks = dict[str, NDArray[np.int64]]


def usable_draws(completions: int) -> int:
    """How many of S completions rank tests use: the most whose ranks fall into 8 to 20 equal bins.

    100 completions give 101 ranks, which cannot be divided; 99 of them give 100.

    Args:
        completions: S, at least 2. Below 7 all are used.
    """
    for draws in range(completions, FEWEST_BINS - 2, -1):
        if any((draws + 1) % bins == 0 for bins in range(FEWEST_BINS, MOST_BINS + 1)):
            return draws
    return completions


def largest_bank(values: int) -> int:
    """How many training images of `values` values each make a bank of 256 MiB."""
    return max(1, BANK_VALUES // values)


def list_signatures(
    task: Task,
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    side_information: SideInformation,
    *,
    batch_size: int = 256,
) -> NDArray[np.float32]:
    """Describe what a task without masks says of stored images.

    Args:
        task: The task.
        images: uint8 (N,H,W,C), possibly memory-mapped.
        rows: (M,) which of them.
        side_information: What else is known of them.
        batch_size: Images at a time.

    Returns:
        (M,D), see `condvae.tasks.Task.signature`.
    """
    _, height, _, channels = images.shape
    # Signatures are of the images, whatever a model would subtract from them.
    contract = DataContract(channels, height, mean=127.5, std=127.5)
    parts = []
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        pixels = load_pixels(images, part, torch.device("cpu"))
        hidden = torch.zeros(len(part), 1, height, height, dtype=torch.bool)
        subject = side_information.subject(pixels, hidden, part, task.needs)
        parts.append(task.signature(subject, contract).float().numpy())
    return np.concatenate(parts)


class Calibrator:
    """Ranks the truths of N cases among their completions, a few cases at a time.

    The reference of a case is the training image nearest to it in what is observed: a function of y
    alone, and of chance where several are equally near. It is looked for in a bank of at most
    `largest_bank` images. What is observed are pixels,
    or for tasks without masks the vectors of `condvae.tasks.Task.signature`.

    Args:
        cases: N cases.
        truths: uint8 (N,C,H,W); only observed pixels make references.
        training_images: uint8 (M,C,H,W), none of which is judged; of more than the bank holds, a
            random choice.
        network: Gives the features.
        seed: Of everything random.
        signatures: (N,Dy) of the cases and (M,Dy) of the training images; None where what is
            observed are pixels.

    Raises:
        ConfigurationError: More than half of the cases share one image.
    """

    def __init__(
        self,
        cases: Sequence[EvaluationCase],
        truths: Tensor,
        training_images: Tensor,
        network: FeatureNetwork,
        seed: int,
        signatures: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
    ) -> None:
        # At random: the first images of a file may all be of one class.
        order = np.random.default_rng(seed).permutation(len(training_images))
        rows = np.sort(order[: largest_bank(truths[0].numel())])
        self._bank = training_images[torch.from_numpy(rows)].flatten(1).numpy()
        self._cases = cases
        self._truths = truths
        self._network = network
        self._seed = seed
        numbers = np.arange(len(cases))
        images = np.array([case.image_id for case in cases])
        self._partner = other_references(numbers[:, None], images, seed)[:, 0].astype(np.intp)
        if signatures is not None:
            signatures = signatures[0], signatures[1][rows]
        self._nearest = self._find_references(signatures)

    def rank(
        self,
        start: int,
        pixels: NDArray[np.uint8],
        features: NDArray[np.float32],
        true_features: NDArray[np.float32],
        logits: tuple[NDArray[np.float32], NDArray[np.float32]] | None,
    ) -> tuple[Ranks, NDArray[np.float64], NDArray[np.float64]]:
        """Rank the truths of B cases, the first of which is number `start`.

        Args:
            start: Number of the first case.
            pixels: (S,B,D), completions.
            features: (S,B,F) of the completions.
            true_features: (B,F) of the truths.
            logits: (S,B,classes) of the completions and (B,classes) of the truths; None when the
                network tells no classes apart.

        Returns:
            Statistic -> ranks (B,) among the first `usable_draws` completions; the expected number
            (B,levels) of unobserved values inside intervals of the levels
            `condvae.calibration.LEVELS`; and (B,2) `condvae.calibration.reference_gaps`; both from
            all completions.
        """
        part = np.arange(start, start + pixels.shape[1])
        used = slice(0, usable_draws(len(pixels)))
        truths, hidden = self._values(part)
        references = self._bank[self._nearest[np.concatenate([part, self._partner[part]])]]
        near, far = np.split(references, 2)
        view = View(pixels[used], truths, hidden, near, far)
        ranks = rank_pixels(view, seed=self._seed, first=start)
        images = torch.from_numpy(references).reshape(-1, *self._truths.shape[1:])
        anchors = np.split(extract_features(self._network, images)["features"], 2)
        view = View(features[used], true_features, None, *anchors)
        ranks |= rank_features(view, seed=self._seed, first=start)
        if logits is not None:
            of_draws, of_truths = logits
            ranks |= rank_classes(of_draws[used], of_truths, seed=self._seed, first=start)
        everything = View(pixels, truths, hidden, near, far)
        return ranks, share_covered(everything), reference_gaps(everything)

    def _values(self, numbers: NDArray[np.intp]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """(B,D) truths of these cases, and (B,D) which of their values are hidden."""
        truths = self._truths[torch.from_numpy(numbers)]
        masks = torch.from_numpy(np.stack([self._cases[number].mask for number in numbers]))
        hidden = (~masks).unsqueeze(1).expand_as(truths)
        return truths.flatten(1).numpy(), hidden.flatten(1).numpy()

    def _find_references(
        self, signatures: tuple[NDArray[np.float32], NDArray[np.float32]] | None
    ) -> NDArray[np.intp]:
        """Row of the bank for each of the N cases; once, since every source needs all of them."""
        bank = (self._bank if signatures is None else signatures[1]).astype(np.float64)
        squares = np.square(bank)

        def observed(block: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
            if signatures is None:
                return self._values(block)
            vectors = signatures[0][block]
            return vectors, np.zeros(vectors.shape, np.bool_)

        step = max(1, VALUES_AT_ONCE // max(bank.shape))
        blocks = np.split(np.arange(len(self._cases)), range(step, len(self._cases), step))
        ties = case_uniforms("ties of references", self._seed, 0, len(self._cases))
        return np.concatenate(
            [
                nearest_references(*observed(block), bank, squares, uniforms=ties[block])
                for block in blocks
            ]
        )
