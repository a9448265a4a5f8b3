"""What share of pictures the input check of a digits model calls unusual.

    python benchmarks/input_check.py [--model digits_inpainting] [--write]

Test images of the digits, as they are and changed, behind one fresh mask each in every bin of the
observed share; masks that show nothing are left out. `--write` first puts `input_reference` into the
model's card (the weights stay): for models made before the training did so itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile

import numpy as np
import torch
from torch import Tensor

from condvae import ImagePosterior, load_posterior
from condvae.data import DataConfig, PreparedImages, prepare_images
from condvae.ground.configuration import ConfigurationError, read_config
from condvae.ground.files import write_json
from condvae.ground.images import to_nchw
from condvae.masks.kinds import OBSERVED_BINS, bin_name
from condvae.masks.sampling import MaskConfig, draw_mask_in_bin
from condvae.models import find_model
from condvae.models.folder import CARD
from condvae.posterior.input_check import check_observations, input_reference

MASK_SEED = 5
BATCH = 256


def refer_to_validation(
    posterior: ImagePosterior, images: PreparedImages, masks: MaskConfig
) -> ImagePosterior:
    """The posterior with `input_reference` in its card, as training writes it."""
    source = posterior.card["weights_source"]
    if source["data"] != images.fingerprint:
        raise ConfigurationError("the model was not trained on the digits of conf/base")
    rows, seed = images.indices("validation"), source["seed"]
    found = input_reference(posterior, images.pixels, rows, masks, seed=seed, batch_size=BATCH)
    return dataclasses.replace(posterior, card=posterior.card | {"input_reference": found})


def change_images(test: Tensor) -> dict[str, Tensor]:
    """Pictures by what they are, uint8 (N,C,H,W) like `test`."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, test.shape, generator=generator, dtype=torch.uint8)
    return {
        "test images": test,
        "mirrored left-right": test.flip(3),
        "turned by 90°": test.rot90(1, (2, 3)),
        "half as bright": test // 2,
        "inverted": 255 - test,
        "uniform noise": noise,
        "constant, black": torch.full_like(test, 0),
        "constant, grey (128)": torch.full_like(test, 128),
        "constant, white": torch.full_like(test, 255),
    }


def count_unusual(
    posterior: ImagePosterior, pixels: Tensor, masks: MaskConfig
) -> list[tuple[int, int]]:
    """(unusual, checked) in every bin."""
    size = posterior.contract.size
    counts = []
    for index in range(len(OBSERVED_BINS)):
        rng = np.random.default_rng([MASK_SEED, index])
        drawn = np.stack([draw_mask_in_bin(masks, size, index, rng) for _ in pixels])
        names = tuple(f"{bin_name(index)} {row}" for row in range(len(pixels)))
        observation = posterior.observe(pixels, torch.from_numpy(drawn).unsqueeze(1), names)
        verdicts = check_observations(posterior, observation, batch_size=BATCH)
        counts.append((sum(v.unusual for v in verdicts), sum(v.checked for v in verdicts)))
    return counts


def print_row(name: str, cells: list[str]) -> None:
    """Print a row of a Markdown table."""
    print(f"| {' | '.join([name, *cells])} |")


def main() -> None:
    """Print the reference and the shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="digits_inpainting")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = find_model(arguments.model)
    posterior = load_posterior(folder)
    masks = read_config(MaskConfig, posterior.card["weights_source"]["masks"], "masks")
    with tempfile.TemporaryDirectory() as store:
        images = prepare_images(DataConfig(), store)
        if arguments.write:
            posterior = refer_to_validation(posterior, images, masks)
            write_json(folder / CARD, posterior.card)
        test = to_nchw(torch.from_numpy(images.pixels[images.indices("test")]))
    reference = posterior.card["input_reference"]["bins"]
    names = [bin_name(index) for index in range(len(OBSERVED_BINS))]
    print_row("bits per observed value", [*(f"{n.replace('_', '–')} %" for n in names), "all"])
    print_row("---", ["---"] * (len(names) + 1))
    ranges = [reference[name] for name in names]
    print_row(
        "reference (n)", [f"{r['low']:.2f} to {r['high']:.2f} ({r['n']})" for r in ranges] + [""]
    )
    for kind, pixels in change_images(test).items():
        counts = count_unusual(posterior, pixels, masks)
        counts.append((sum(c[0] for c in counts), sum(c[1] for c in counts)))
        print_row(kind, [f"{100 * unusual / checked:.1f} %" for unusual, checked in counts])


if __name__ == "__main__":
    main()
