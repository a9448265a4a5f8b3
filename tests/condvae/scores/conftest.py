from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from condvae.scores.feature_network import train_feature_network


@pytest.fixture(scope="session")
def digits():
    """Digits at 16 x 16 pixels: (training images, labels), (test images, labels)."""
    data = load_digits()
    images = np.stack(
        [
            np.asarray(
                Image.fromarray(np.round(image * 255 / 16).astype(np.uint8)).resize(
                    (16, 16), Image.Resampling.BICUBIC
                )
            )
            for image in data.images
        ]
    )[:, None]
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[: int(0.7 * len(order))], order[int(0.8 * len(order)) :]
    return tuple(
        (torch.from_numpy(images[rows]), torch.from_numpy(data.target[rows]))
        for rows in (train, test)
    )


@pytest.fixture(scope="session")
def trained(digits):
    """A classifier of digits and its card, trained on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    (images, labels), held_out = digits
    try:
        return train_feature_network(images, labels, name="digits", epochs=12, held_out=held_out)
    finally:
        torch.set_num_threads(threads)
