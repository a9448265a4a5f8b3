"""How often a classifier gives completions the true label, or the attributes they were drawn for."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from condvae.ground.configuration import ConfigurationError

__all__ = ["attribute_agreement", "label_agreement", "predicted_labels"]


def predicted_labels(logits: ArrayLike) -> NDArray[np.intp]:
    """Return the most likely class: logits (..., classes) -> (...)."""
    return np.asarray(np.argmax(np.asarray(logits), axis=-1))


def label_agreement(predictions: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Return, for each case, the share of its completions that got the true label.

    Args:
        predictions: Integers (S,N), the classes given to S completions of each case.
        labels: Integers (N,), the true classes.

    Returns:
        (N,), 0 to 1.

    Raises:
        ConfigurationError: Other shapes or types.
    """
    given, true = np.asarray(predictions), np.asarray(labels)
    if given.dtype.kind not in "iu" or true.dtype.kind not in "iu":
        raise ConfigurationError(
            f"predictions of type {given.dtype}, labels of type {true.dtype}: expected integers"
        )
    if given.ndim != 2 or given.shape[0] == 0 or given.shape[1:] != true.shape:
        raise ConfigurationError(
            f"predictions of shape {given.shape}, labels of shape {true.shape}: "
            "expected (S, N) with S >= 1 and (N,)"
        )
    return np.asarray((given == true).mean(axis=0))


def attribute_agreement(
    predictions: ArrayLike, asked: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how many of the attributes that were asked for a case's completions show.

    Args:
        predictions: Integers (S,N,A), values read off S completions of each case.
        asked: Integers (N,A), values that were asked for, -1 for none.

    Returns:
        (N,), the number shown, mean over completions; and (N,), the number asked for. The agreement
        of many cases is the ratio of the sums.

    Raises:
        ConfigurationError: Other shapes or types.
    """
    given, wanted = np.asarray(predictions), np.asarray(asked)
    if given.dtype.kind not in "iu" or wanted.dtype.kind not in "iu":
        raise ConfigurationError(
            f"predictions of type {given.dtype}, attributes of type {wanted.dtype}: expected integers"
        )
    if given.ndim != 3 or given.shape[0] == 0 or given.shape[1:] != wanted.shape:
        raise ConfigurationError(
            f"predictions of shape {given.shape}, attributes of shape {wanted.shape}: "
            "expected (S, N, A) with S >= 1 and (N, A)"
        )
    # What was read off an image is never -1.
    shown = (given == wanted).mean(axis=0).sum(axis=1)
    return np.asarray(shown, np.float64), (wanted >= 0).sum(axis=1).astype(np.float64)
