"""Importance-weighted bound on log p(x~ | y): the bound of one draw, tightened by many.

References:
    Y. Burda, R. Grosse, R. Salakhutdinov. Importance weighted autoencoders. ICLR 2016.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from condvae.ground.configuration import ConfigurationError, check_positive
from condvae.ground.devices import explain_out_of_memory, plain_inference
from condvae.ground.noise import case_generator
from condvae.posterior.image_posterior import ImagePosterior
from condvae.tasks.observation import Observation
from condvae.vdvae.decoder import LatentGroup

__all__ = ["ImportanceBound", "importance_bound"]

_Activations = dict[int, Tensor]


@dataclass(frozen=True)
class ImportanceBound:
    """Bounds on log p(x~ | y) with several numbers of draws, per case.

    Attributes:
        bound_bits: K -> (B) float64, upper bound on -log2 p(x~ | y), smallest K first. Divide sums
            by sums of `predicted_dimensions`.
        predicted_dimensions: (B), values in x~.
    """

    bound_bits: dict[int, Tensor]
    predicted_dimensions: Tensor


def importance_bound(
    posterior: ImagePosterior,
    pixels: Tensor,
    observation: Observation,
    draws: Sequence[int] = (1, 10, 100),
    *,
    seed: int = 0,
    batch_size: int = 256,
) -> ImportanceBound:
    """Bound log p(x~ | y) with K draws z ~ q(z | x), for several K.

    ``log p(x~ | y) >= E log 1/K sum_k p(x~ | z_k) c(z_k | y) / q(z_k | x)``: the bound of
    `ImagePosterior.bound` for K = 1, in expectation no looser for more, and exact in the limit; the gap
    between two K says how much of the bound is slack of q. max(K) draws are made once and shared:
    the bound for K is the mean over floor(max(K) / K) disjoint groups of K successive draws, and
    draws that fill no group are left out. So K = 1 averages over all draws, and the bound of a
    case never grows from a K to a multiple of it if every K divides max(K), as in the default.

    Draw k of a case depends on (seed, case id, k) only. One case costs max(K) passes of the decoder
    and one of each encoder.

    Args:
        posterior: What is judged.
        pixels: uint8 (B,C,H,W), the whole truths.
        observation: Of the same images.
        draws: Numbers K, each >= 1.
        seed: With case id and k decides a draw.
        batch_size: Pairs of case and draw decoded at a time.

    Raises:
        ConfigurationError: Images that do not fit the contract or another number of them, no K or a
            K that is no whole number >= 1, `batch_size` below 1.
    """
    posterior.contract.check(pixels)
    if len(pixels) != len(observation):
        raise ConfigurationError(f"{len(pixels)} images for {len(observation)} observations")
    if not draws or any(not isinstance(k, int) or k < 1 for k in draws):
        raise ConfigurationError(f"draws = {draws!r}: expected at least one whole number >= 1")
    check_positive("batch_size", batch_size)
    log_weights = torch.empty(len(pixels), max(draws), dtype=torch.float64)
    vae = posterior.model.vae
    for start in range(0, len(pixels), batch_size):
        stop = start + batch_size
        log_weights[start:stop] = _log_weights(
            posterior,
            pixels[start:stop].to(vae.device),
            observation.part(start, stop).to(vae.device, vae.dtype),
            max(draws),
            seed,
            batch_size,
        )
    bits = {k: -_mean_of_groups(log_weights, k) / math.log(2) for k in sorted(set(draws))}
    return ImportanceBound(bits, observation.predicted_dimensions.cpu())


def _mean_of_groups(log_weights: Tensor, k: int) -> Tensor:
    """(B,S) -> (B), log of the mean weight of k successive draws, mean over disjoint groups."""
    groups = log_weights.shape[1] // k
    grouped = log_weights[:, : groups * k].reshape(-1, groups, k)
    return (grouped.logsumexp(dim=2) - math.log(k)).mean(dim=1)


@plain_inference()
def _log_weights(
    posterior: ImagePosterior,
    pixels: Tensor,
    observation: Observation,
    draws: int,
    seed: int,
    batch_size: int,
) -> Tensor:
    """(B, draws) float64 on the CPU for B <= batch_size cases."""
    model, hidden = posterior.model, ~observation.mask[:, 0]
    result = torch.empty(len(pixels), draws, dtype=torch.float64)
    with explain_out_of_memory("sampling.batch_size", batch_size):
        activations = model.vae.encode(pixels)
        features = model.latents.encode(observation.condition)
        pairs = torch.cartesian_prod(torch.arange(len(pixels)), torch.arange(draws)).reshape(-1, 2)
        for pair in torch.split(pairs, batch_size):
            cases, ks = pair[:, 0], pair[:, 1]
            here = cases.to(pixels.device)
            ids = [observation.case_ids[case] for case in cases.tolist()]
            log_ratio, output = _descend(
                posterior,
                {size: a[here] for size, a in activations.items()},
                {size: a[here] for size, a in features.items()},
                _noise(posterior, ids, ks.tolist(), seed),
            )
            nats = model.vae.pixel_nats(output, pixels[here]) * hidden[here]
            result[cases, ks] = (log_ratio - nats.sum(dim=(1, 2), dtype=torch.float64)).cpu()
    return result


def _descend(
    posterior: ImagePosterior, activations: _Activations, features: _Activations, normals: Tensor
) -> tuple[Tensor, Tensor]:
    """Log c(z | y) - log q(z | x) (P) float64 of z drawn from q, and the decoder's output."""
    model, position = posterior.model, 0
    log_ratio = torch.zeros(len(normals), dtype=torch.float64, device=normals.device)

    def from_posterior(group: LatentGroup, h: Tensor) -> Tensor:
        nonlocal position
        count = math.prod(group.latent_shape[1:])
        noise = normals[:, position : position + count].reshape(group.latent_shape)
        position += count
        q = group.block.posterior(h, activations[group.block.resolution])
        c = model.latents.distribution(group, h, features)
        z = q.sample(noise)
        # Summed in float64: there are up to millions of terms, and exp() of the sum is taken.
        difference = (c.log_prob(z) - q.log_prob(z)).flatten(1)
        log_ratio.add_(difference.sum(dim=1, dtype=torch.float64))
        return z

    return log_ratio, model.vae.decoder.descend(from_posterior, len(normals))


def _noise(
    posterior: ImagePosterior, case_ids: Sequence[str], ks: Sequence[int], seed: int
) -> Tensor:
    """Normals (P, all groups), drawn in float32 on the CPU: the same on every device."""
    vae = posterior.model.vae
    normals = torch.empty(len(case_ids), vae.architecture.latent_dimensions, dtype=torch.float32)
    for row, (case_id, k) in enumerate(zip(case_ids, ks, strict=True)):
        generator = case_generator(seed, case_id, f"importance {k}")
        torch.randn(normals.shape[1], generator=generator, out=normals[row])
    return normals.to(vae.device, vae.dtype)
