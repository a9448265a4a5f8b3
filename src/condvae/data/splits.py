"""The published splits of known data sets, as lists of indices.

They depend on nothing but how many pictures there are and in which order they stand, so they are
computed from counts alone. Permutations are those of NumPy's legacy generator (`RandomState`), whose
stream is frozen.

Where a test part but no validation pictures are published (MNIST, Fashion-MNIST, ChestX-ray14), 5,000
of the training pictures are held out by a seed of this project.

Sources:
    R. Child. Very deep VAEs generalize autoregressive models and can outperform them on images.
    ICLR 2021: CIFAR-10, ImageNet and FFHQ.
    W. Harvey, S. Naderiparizi, F. Wood. Conditional image generation by conditioning variational
    auto-encoders. ICLR 2022: the same, and edges to photos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from condvae.data.records import SPLITS
from condvae.ground.configuration import ConfigurationError, check_choice

__all__ = ["COUNTED_SPLITS", "OfficialSplit", "assign_official", "official_split"]

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Rule:
    """How validation pictures are held out of the first part.

    Attributes:
        seed: Of the permutation.
        held_out: Pictures held out of a complete data set.
        complete: Pictures in the part of the complete data set that they are taken from.
        from_start: Whether the first of the permutation are held out, not the last.
        test_part: Whether a second part is the test split; otherwise the held-out ones are.
    """

    seed: int
    held_out: int
    complete: int
    from_start: bool = False
    test_part: bool = True


_RULES = {
    # scikit-learn's train_test_split takes the first of the permutation.
    "cifar10": _Rule(11172018, 5000, 50_000, from_start=True),
    "imagenet32": _Rule(42, 5000, 1_281_149),
    "imagenet64": _Rule(42, 5000, 1_281_149),
    "ffhq": _Rule(5, 7000, 70_000, test_part=False),
    "edges2shoes": _Rule(42, 5000, 49_825),
    "edges2handbags": _Rule(42, 5000, 138_567),
    # Published without a validation split: these seeds are this project's own.
    "chest_xray14": _Rule(0, 5000, 86_524),
    "mnist": _Rule(0, 5000, 60_000),
    "fashion_mnist": _Rule(0, 5000, 60_000),
}
COUNTED_SPLITS = tuple(_RULES)


@dataclass(frozen=True)
class OfficialSplit:
    """Which split each picture of a source belongs to.

    Attributes:
        codes: Places in `SPLITS`, uint8 (N,).
        validation_is_test: The same pictures are published as validation and as test split; their
            code is that of the test split.
    """

    codes: npt.NDArray[np.uint8]
    validation_is_test: bool = False

    def name(self, index: int) -> str:
        """Return the split of a picture: ``train``, ``validation`` or ``test``."""
        return SPLITS[self.codes[index]]


def official_split(name: str, counts: Sequence[int]) -> dict[str, Indices]:
    """Return the published index lists of a data set.

    Of a data set that is not complete the same share is held out (rounded, at least one picture);
    of a complete one exactly the published number.

    Args:
        name: One of `COUNTED_SPLITS`.
        counts: Pictures in each published part, in the order in which the source lists them:
            training and test pictures (``val`` of ImageNet and of edges to photos is the test part,
            ``train_val_list.txt`` of ChestX-ray14 the training part), or all of FFHQ as one part.

    Returns:
        ``train``, ``validation`` and ``test``, each int64 (n,), in published order. The indices count
        through all parts. FFHQ is published with one list for validation and test, so there the two
        are equal.

    Raises:
        ConfigurationError: Unknown name, wrong number of parts, or too few pictures to hold any out.
    """
    check_choice("official split", name, COUNTED_SPLITS)
    rule = _RULES[name]
    parts = 1 + rule.test_part
    if len(counts) != parts or min(counts) < 1:
        raise ConfigurationError(
            f"official split of {name}: parts of {list(counts)} pictures; expected {parts} "
            f"{'part' if parts == 1 else 'parts'} with pictures in each"
        )
    test = np.arange(counts[0], sum(counts), dtype=np.int64)
    held_out = max(1, round(counts[0] * rule.held_out / rule.complete))
    if held_out >= counts[0]:
        raise ConfigurationError(
            f"official split of {name}: {counts[0]} pictures; expected at least 2, one is held out"
        )
    order = np.random.RandomState(rule.seed).permutation(counts[0]).astype(np.int64)
    if rule.from_start:
        validation, train = order[:held_out], order[held_out:]
    else:
        train, validation = order[:-held_out], order[-held_out:]
    return {
        "train": train,
        "validation": validation,
        "test": test if rule.test_part else validation,
    }


def assign_official(indices: Mapping[str, npt.ArrayLike], count: int) -> OfficialSplit:
    """Turn lists of indices into one split for each picture.

    Args:
        indices: The indices of ``train``, ``validation`` and ``test``. Validation and test may be
            equal; otherwise no picture may be in two.
        count: Number of pictures; each must be in a list.

    Raises:
        ConfigurationError: A picture is in no list, or in two that are not equal.
    """
    lists = {split: np.asarray(indices[split], np.int64) for split in SPLITS}
    shared = np.array_equal(lists["validation"], lists["test"])
    codes = np.full(count, len(SPLITS), np.uint8)
    for code, split in enumerate(SPLITS):
        if split == "validation" and shared:
            continue
        if (codes[lists[split]] != len(SPLITS)).any():
            raise ConfigurationError(f"official split: pictures of {split} are in another list too")
        codes[lists[split]] = code
    missing = int((codes == len(SPLITS)).sum())
    if missing:
        raise ConfigurationError(f"official split: {missing} of {count} pictures are in no list")
    return OfficialSplit(codes, shared)
