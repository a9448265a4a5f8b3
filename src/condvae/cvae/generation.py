"""Use of a flat model: images for given attributes, edits, sweeps and ways between conditions.

Everything random about an image is decided by (seed, case id, number of the image): neither batches nor
how many images are asked for change any of them. Images are uint8 on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from condvae.cvae.drawing import (
    Features,
    ImageNoise,
    decode,
    draw_latents,
    draw_noise,
    encode_conditions,
)
from condvae.cvae.guidance import check_guidance
from condvae.cvae.model import FlatVAE
from condvae.ground.attributes import Attribute, attribute_index, check_conditions, encode_value
from condvae.ground.configuration import ConfigurationError, check_choice, check_positive
from condvae.ground.devices import explain_out_of_memory, plain_inference

__all__ = ["PIXELS", "edit", "interpolate", "sample", "sweep", "sweep_values"]

PIXELS = ("mean", "sample")
"""What is taken of p(x | z, y)."""
# Standard deviations from the mean that a sweep of a continuous attribute goes through.
_CONTINUOUS_SWEEP = (-2.0, -1.0, 0.0, 1.0, 2.0)


@plain_inference()
def sample(
    model: FlatVAE,
    y: Tensor,
    n: int,
    seed: int = 0,
    *,
    temperature: float = 1.0,
    guidance: float = 1.0,
    pixels: str = "mean",
    case_ids: Sequence[str] | None = None,
    batch_size: int = 256,
) -> Tensor:
    """Draw images for given attributes.

    Args:
        model: In evaluation mode.
        y: (B,A), nan = unknown.
        n: S, images per condition.
        seed: Any integer; with case id and number it decides an image.
        temperature: Multiplies the prior's base noise, 1 = p(z | y); weights of a mixture stay.
        guidance: Weight w of the law ``p(z | y)^w p(z | unknown)^(1 - w)``, 1 = p(z | y). Of a Gaussian
            prior it is drawn from exactly; of others one of 64 draws of p(z | y) is chosen, see
            `condvae.cvae.guidance.choose_candidates`. The decoder sees y as it is.
        pixels: ``mean`` of p(x | z, y), or a ``sample`` of it.
        case_ids: B of them; None = "0", "1", ...
        batch_size: Images decoded at a time.

    Returns:
        uint8 (S,B,C,H,W).

    Raises:
        ConfigurationError: Values out of range, conditions that do not fit the model, or guidance
            that is not defined, see `condvae.cvae.guidance`.
    """
    check_positive("n", n)
    check_guidance(model, guidance)
    check_choice("pixels", pixels, PIXELS)
    _check_drawing(temperature, batch_size)
    features, ids = encode_conditions(model, y), _name_cases(y, case_ids)
    result = _empty(model, n, len(y))
    pairs = torch.cartesian_prod(torch.arange(len(y)), torch.arange(n)).reshape(-1, 2)
    for part in _parts(len(pairs), batch_size):
        cases, ks = pairs[part].unbind(dim=1)
        noise = draw_noise(model, seed, [ids[case] for case in cases.tolist()], ks.tolist())
        here = features.part(cases)
        with explain_out_of_memory("batch_size", batch_size):
            z = draw_latents(model, noise, here, temperature, guidance)
            uniform = noise.pixels if pixels == "sample" else None
            result[ks, cases] = decode(model, z, here, uniform)
    return result


@plain_inference()
def edit(
    model: FlatVAE, pixels: Tensor, y_old: Tensor, y_new: Tensor, *, batch_size: int = 256
) -> Tensor:
    """Change attributes of given pictures, and keep what the attributes do not say.

    The mean of q(z | x, y_old) is taken to the prior's noise under `y_old`, from there back under
    `y_new`, and decoded with `y_new`, to the mean of the likelihood. With `y_new` = `y_old` the result
    is the reconstruction of the picture.

    Args:
        model: In evaluation mode.
        pixels: uint8 (B,C,H,W).
        y_old: (B,A), what the pictures show; nan = unknown.
        y_new: (B,A), what they are to show.
        batch_size: Pictures at a time.

    Returns:
        uint8 (B,C,H,W).

    Raises:
        ConfigurationError: A mixture prior, which has no base noise; or shapes that do not fit.
    """
    if not model.prior.invertible:
        raise ConfigurationError(
            f"prior = {model.config.prior!r}: an edit goes through base noise, which it does not have; "
            "expected a Gaussian or a flow"
        )
    check_positive("batch_size", batch_size)
    model.contract.check(pixels)
    old, new = encode_conditions(model, y_old), encode_conditions(model, y_new)
    if not len(pixels) == len(y_old) == len(y_new):
        raise ConfigurationError(
            f"{len(pixels)} pictures, {len(y_old)} conditions before and {len(y_new)} after: expected "
            "as many of each"
        )
    result = _empty(model, len(pixels))
    for rows in _parts(len(pixels), batch_size):
        before, after = old.part(rows), new.part(rows)
        with explain_out_of_memory("batch_size", batch_size):
            q = model.encode(pixels[rows].to(model.device), y_old[rows].to(model.device))
            u = model.prior.to_base(q.mean, before.prior)
            result[rows] = decode(model, model.prior.from_base(u, after.prior), after)
    return result


@plain_inference()
def interpolate(
    model: FlatVAE,
    y_a: Tensor,
    y_b: Tensor,
    steps: int,
    seed: int = 0,
    *,
    seed_b: int | None = None,
    temperature: float = 1.0,
    case_ids: Sequence[str] | None = None,
    batch_size: int = 256,
) -> Tensor:
    """Go from one condition to another in equal steps.

    The features of y, for prior and decoder, move on a straight line. The base noise stays or, with
    `seed_b`, takes the arc ``cos(t) a + sin(t) b``, t from 0 to π/2, which is standard normal for every
    t; a straight line would shrink half-way. Both ends are image 0 of `sample`. Where a mixture prior
    changes the component there is a jump.

    Args:
        model: In evaluation mode.
        y_a: (B,A), nan = unknown.
        y_b: (B,A).
        steps: S, images with both ends, at least 2.
        seed: Of the noise of the first image.
        seed_b: Of the noise of the last one, another seed; None = the noise stays.
        temperature: See `sample`.
        case_ids: See `sample`.
        batch_size: Images decoded at a time.

    Returns:
        uint8 (S,B,C,H,W), means of the likelihood.

    Raises:
        ConfigurationError: Less than 2 steps, equal seeds, or as `sample`.
    """
    if steps < 2:
        raise ConfigurationError(f"steps = {steps!r}: expected at least 2, both ends")
    if seed_b == seed:
        raise ConfigurationError(f"seed = seed_b = {seed!r}: expected two different seeds, or None")
    if y_a.shape != y_b.shape:
        raise ConfigurationError(
            f"y_b of shape {tuple(y_b.shape)}: expected that of y_a, {tuple(y_a.shape)}"
        )
    _check_drawing(temperature, batch_size)
    a, b = encode_conditions(model, y_a), encode_conditions(model, y_b)
    noise = noise_b = _first_noise(model, y_a, seed, case_ids)
    if seed_b is not None:
        noise_b = _first_noise(model, y_a, seed_b, case_ids)
    result = _empty(model, steps, len(y_a))
    for step in range(steps):
        share = step / (steps - 1)
        here = noise if seed_b is None else noise.on_arc(noise_b, share)
        result[step] = _draw_means(model, here, a.towards(b, share), temperature, batch_size)
    return result


@plain_inference()
def sweep(
    model: FlatVAE,
    y: Tensor,
    name: str,
    seed: int = 0,
    *,
    values: Sequence[object] | None = None,
    temperature: float = 1.0,
    case_ids: Sequence[str] | None = None,
    batch_size: int = 256,
) -> Tensor:
    """Change one attribute from value to value; everything else, the noise included, stays.

    Args:
        model: In evaluation mode.
        y: (B,A), nan = unknown; repeat a condition to see it with several noises. What it says of
            the attribute is replaced.
        name: Of the attribute.
        seed: Of the noise. Images are number 0 of `sample` for their condition and case.
        values: V of them, in words or the attribute's own unit, as `encode_value` takes them; None =
            those of `sweep_values`.
        temperature: See `sample`.
        case_ids: See `sample`.
        batch_size: Images decoded at a time.

    Returns:
        uint8 (B,V,C,H,W), means of the likelihood.

    Raises:
        ConfigurationError: Unknown attribute or value, no values, or as `sample`.
    """
    _check_drawing(temperature, batch_size)
    check_conditions(model.attributes, y)
    place = attribute_index(model.attributes, name)
    attribute = model.attributes[place]
    wanted = sweep_values(attribute) if values is None else values
    if not wanted:
        raise ConfigurationError(f"values = {values!r}: expected at least one of {name!r}")
    noise = _first_noise(model, y, seed, case_ids)
    result = _empty(model, len(y), len(wanted))
    for number, value in enumerate(wanted):
        changed = y.clone()
        changed[:, place] = encode_value(attribute, value)
        features = encode_conditions(model, changed)
        result[:, number] = _draw_means(model, noise, features, temperature, batch_size)
    return result


def sweep_values(attribute: Attribute) -> tuple[str, ...]:
    """What a sweep goes through: all values, or five numbers from -2 to 2 deviations from the mean."""
    if not attribute.is_continuous:
        return attribute.values
    numbers = (attribute.mean + step * attribute.std for step in _CONTINUOUS_SWEEP)
    return tuple(f"{number:.6g}" for number in numbers)


def _draw_means(
    model: FlatVAE, noise: ImageNoise, features: Features, temperature: float, batch_size: int
) -> Tensor:
    """Mean images uint8 (B,C,H,W), one for each condition."""
    result = _empty(model, len(noise.names))
    for rows in _parts(len(noise.names), batch_size):
        here = features.part(rows)
        with explain_out_of_memory("batch_size", batch_size):
            z = draw_latents(model, noise.part(rows), here, temperature)
            result[rows] = decode(model, z, here)
    return result


def _parts(count: int, batch_size: int) -> list[Tensor]:
    """Row numbers in batches, none of them empty."""
    starts = range(0, count, batch_size)
    return [torch.arange(start, min(start + batch_size, count)) for start in starts]


def _first_noise(
    model: FlatVAE, y: Tensor, seed: int, case_ids: Sequence[str] | None
) -> ImageNoise:
    """Of image 0 of each condition."""
    ids = _name_cases(y, case_ids)
    return draw_noise(model, seed, ids, [0] * len(ids))


def _name_cases(y: Tensor, case_ids: Sequence[str] | None) -> list[str]:
    ids = [str(i) for i in range(len(y))] if case_ids is None else list(case_ids)
    if len(ids) != len(y):
        raise ConfigurationError(
            f"{len(ids)} case ids for {len(y)} conditions: expected one for each"
        )
    return ids


def _check_drawing(temperature: float, batch_size: int) -> None:
    check_positive("temperature", temperature, zero=True)
    check_positive("batch_size", batch_size)


def _empty(model: FlatVAE, *shape: int) -> Tensor:
    contract = model.contract
    image = contract.channels, contract.size, contract.size
    return torch.empty(*shape, *image, dtype=torch.uint8)
