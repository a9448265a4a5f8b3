"""`ImagePosterior`: the object users hold. Sample, summarise, bound log p(x~ | y)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from condvae.ground.configuration import ConfigurationError, check_positive
from condvae.ground.devices import explain_out_of_memory, plain_inference
from condvae.ground.images import DataContract, composite, pixels_from_unit_range
from condvae.ground.noise import case_generator
from condvae.ipa.model import ConditionalModel
from condvae.posterior.bounds import BoundTerms, ObservationTerms
from condvae.posterior.summaries import COUNTED_VALUES, GreyLevelCounts, PosteriorSummary
from condvae.tasks.observation import Observation
from condvae.tasks.subject import Subject
from condvae.tasks.task import Task
from condvae.vdvae.decoder import LatentGroup
from condvae.vdvae.model import Noise

__all__ = ["DrawNoise", "ImagePosterior", "noise_by_group"]

DrawNoise = Callable[[Observation, Tensor, Tensor], tuple[Tensor, Tensor]]
"""See `ImagePosterior.draw_noise`, whose arguments these are without the seed."""


def noise_by_group(normals: Tensor) -> Noise:
    """Give out rows of normals (P, all groups) group by group; to be asked once for each, in order."""
    position = 0

    def noise(group: LatentGroup) -> Tensor:
        nonlocal position
        count = math.prod(group.latent_shape[1:])
        position += count
        return normals[:, position - count : position].reshape(group.latent_shape)

    return noise


@dataclass(frozen=True)
class ImagePosterior:
    """The posterior over images given what has been observed.

    Attributes:
        model: Frozen VAE and c(z | y).
        task: Makes observations.
        card: Facts about the weights.
    """

    model: ConditionalModel
    task: Task
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def contract(self) -> DataContract:
        """What the model expects of images."""
        return self.model.vae.contract

    def to(self, device: torch.device | str) -> ImagePosterior:
        """Move the weights; returns self."""
        self.model.vae.to(device)
        if isinstance(self.model.latents, nn.Module):
            self.model.latents.to(device)
        return self

    def observe(
        self,
        pixels: Tensor | None = None,
        mask: Tensor | None = None,
        case_ids: tuple[str, ...] | None = None,
        *,
        labels: Tensor | None = None,
        attributes: Tensor | None = None,
        paired: Tensor | None = None,
    ) -> Observation:
        """Make y from what the task needs: images and masks for inpainting, labels for a class.

        Cases of the same name get the same noise: name them when several calls belong together.

        Args:
            pixels: uint8 (B,C,H,W).
            mask: (B,1,H,W) or (1,1,H,W), 1 = observed.
            case_ids: Names of the cases, "0", "1", ... by default.
            labels: integers (B), -1 = unknown.
            attributes: (B,A) of 1, 0 and -1 = unknown.
            paired: uint8 (B,C,H,W), second pictures such as drawings.

        Raises:
            ConfigurationError: The task needs something that is missing, or cannot use something
                that was given; or images that do not fit the contract.
            ValueError: Masks, labels or attributes with other shapes or values.
        """
        subject = Subject(pixels, mask, labels, attributes, paired)
        return self.task.observe(subject, self.contract, case_ids)

    def sample(
        self,
        observation: Observation,
        n: int,
        *,
        temperature: float | Sequence[float] = 1.0,
        seed: int = 0,
        paste_observed: bool = True,
        batch_size: int = 256,
    ) -> Tensor:
        """Draw completions.

        Completion k of a case depends on (seed, case id, k) and on nothing else: chunking, batching
        and `n` do not matter.

        Args:
            observation: B cases.
            n: S, completions per case.
            temperature: Multiplies the standard deviation of every latent; one number, or one per
                group. The posterior is temperature 1.
            seed: Any integer.
            paste_observed: Copy observed pixels exactly; False shows the model's raw output.
            batch_size: Images decoded at a time.

        Returns:
            uint8 (S,B,C,H,W) on the CPU.

        Raises:
            ConfigurationError: n or batch_size below 1, a negative temperature, a wrong number of
                temperatures.
        """
        check_positive("n", n)
        c = self.contract
        result = torch.empty(n, len(observation), c.channels, c.size, c.size, dtype=torch.uint8)
        for cases, ks, pixels in self.stream(
            observation,
            n,
            temperature=temperature,
            seed=seed,
            paste_observed=paste_observed,
            batch_size=batch_size,
        ):
            result[ks, cases] = pixels
        return result

    def stream(
        self,
        observation: Observation,
        n: int,
        *,
        first: int = 0,
        temperature: float | Sequence[float] = 1.0,
        seed: int = 0,
        paste_observed: bool = True,
        batch_size: int = 256,
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield completions first .. first + n - 1 chunk by chunk; see `sample` for the arguments.

        Yields:
            Case numbers (P), completion numbers (P) and uint8 (P,C,H,W), P <= batch_size. The partial
            encoder runs once per case whatever n is; all completions of a case follow each other.
        """
        yield from self.decode(
            observation,
            n,
            partial(self.draw_noise, seed=seed),
            first=first,
            temperature=temperature,
            paste_observed=paste_observed,
            batch_size=batch_size,
        )

    def decode(
        self,
        observation: Observation,
        n: int,
        draw_noise: DrawNoise,
        *,
        first: int = 0,
        temperature: float | Sequence[float] = 1.0,
        kept: Sequence[Tensor] = (),
        paste_observed: bool = True,
        batch_size: int = 256,
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield what `stream` does, for noise that the caller gives.

        Args:
            observation: B cases.
            n: S, images per case.
            draw_noise: ``(observation, cases, numbers) -> (normals, uniforms)`` like `draw_noise`.
            first: Number of the first image of each case.
            temperature: See `sample`.
            kept: Latents (B,Z,R,R) of the first groups, taken as they are in place of a draw.
            paste_observed: See `sample`.
            batch_size: See `sample`.
        """
        check_positive("n", n)
        check_positive("first", first, zero=True)
        check_positive("batch_size", batch_size)
        t = self.check_temperature(temperature)
        vae = self.model.vae
        observation = observation.to(vae.device, vae.dtype)
        kept = [z.to(vae.device, vae.dtype) for z in kept]
        for start in range(0, len(observation), batch_size):
            part = observation.part(start, start + batch_size)
            with plain_inference(), explain_out_of_memory("sampling.batch_size", batch_size):
                features = self.model.latents.encode(part.condition)
            ks = torch.arange(first, first + n)
            pairs = torch.cartesian_prod(torch.arange(len(part)), ks).reshape(-1, 2)
            for pair in torch.split(pairs, batch_size):
                cases, ks = pair[:, 0], pair[:, 1]
                here = cases.to(vae.device)
                normals, uniforms = draw_noise(part, cases, ks)
                with plain_inference(), explain_out_of_memory("sampling.batch_size", batch_size):
                    parameters = self.model.sample_output(
                        {size: activation[here] for size, activation in features.items()},
                        len(cases),
                        noise_by_group(normals.to(vae.device, vae.dtype)),
                        t,
                        [z[here + start] for z in kept],
                    )
                    x = vae.likelihood.sample(parameters, uniforms.to(vae.device, vae.dtype))
                pixels = pixels_from_unit_range(x)
                if paste_observed:
                    pixels = composite(pixels, part.pixels[here], part.mask[here])
                yield cases + start, ks, pixels.cpu()

    def draw_noise(
        self, observation: Observation, cases: Tensor, ks: Tensor, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Everything random about completions: what (seed, case id, number) decide.

        Always drawn in float32 on the CPU, so that every device and precision sees the same noise.

        Args:
            observation: Names the cases.
            cases: (P), positions in `observation`.
            ks: (P), numbers of the completions.
            seed: Any integer.

        Returns:
            Latent normals (P, all groups) and likelihood uniforms (P,·,H,W), drawn in this order.
        """
        vae, c = self.model.vae, self.contract
        count = vae.architecture.latent_dimensions
        shape = (vae.likelihood.noise_channels, c.size, c.size)
        normals = torch.empty(len(cases), count, dtype=torch.float32)
        uniforms = torch.empty(len(cases), *shape, dtype=torch.float32)
        for row, (case, k) in enumerate(zip(cases.tolist(), ks.tolist(), strict=True)):
            generator = case_generator(seed, observation.case_ids[case], str(k))
            torch.randn(count, generator=generator, out=normals[row])
            torch.rand(shape, generator=generator, out=uniforms[row])
        return normals, uniforms

    def check_temperature(self, value: float | Sequence[float]) -> float | tuple[float, ...]:
        """Return `temperature` as one float or one per group.

        Raises:
            ConfigurationError: A negative value or a wrong number of them.
        """
        groups = len(self.model.vae.architecture.decoder_blocks)
        if isinstance(value, (int, float, np.number)):
            check_positive("temperature", value, zero=True)
            return float(value)
        values = tuple(map(float, value))
        if len(values) != groups:
            raise ConfigurationError(
                f"temperature with {len(values)} values: expected one number or {groups}, one per "
                "latent group"
            )
        for number in values:
            check_positive("temperature", number, zero=True)
        return values

    def summarise(
        self,
        observation: Observation,
        n: int,
        *,
        quantiles: Sequence[float] = (0.05, 0.5, 0.95),
        temperature: float | Sequence[float] = 1.0,
        seed: int = 0,
        paste_observed: bool = True,
        batch_size: int = 256,
    ) -> PosteriorSummary:
        """Mean, standard deviation and quantile maps of n completions, never holding n images.

        Quantiles are exact: counts of the 256 grey levels are kept per value, for as many cases at
        a time as fit into 64 MiB (one at least), whatever n and B are.

        Args:
            observation: B cases.
            n: S, at least 2.
            quantiles: Levels in [0, 1].
            temperature: See `sample`.
            seed: See `sample`; the summary is of exactly the completions `sample` gives.
            paste_observed: See `sample`.
            batch_size: See `sample`.

        Raises:
            ConfigurationError: n below 2 or a level outside [0, 1].
        """
        if n < 2:
            raise ConfigurationError(
                f"n = {n!r}: a standard deviation needs at least 2 completions"
            )
        for level in quantiles:
            if not 0.0 <= level <= 1.0:
                raise ConfigurationError(f"quantile level {level!r}: expected in [0, 1]")
        at_once = max(1, COUNTED_VALUES // self.contract.dimensions)
        parts = []
        for start in range(0, len(observation), at_once):
            part = observation.part(start, start + at_once)
            counts = GreyLevelCounts((len(part), *part.pixels.shape[1:]))
            for cases, _, pixels in self.stream(
                part,
                n,
                temperature=temperature,
                seed=seed,
                paste_observed=paste_observed,
                batch_size=batch_size,
            ):
                counts.add(cases.numpy(), pixels.numpy())
            parts.append(counts.summarise(n, quantiles))
        return PosteriorSummary.joined(parts)

    def bound(
        self, pixels: Tensor, observation: Observation, *, seed: int = 0, batch_size: int = 256
    ) -> BoundTerms:
        """Bound log p(x~ | y) from above in nats, one draw from q per case.

        Args:
            pixels: uint8 (B,C,H,W), the whole truths.
            observation: Of the same images.
            seed: With the case id decides the draw.
            batch_size: Cases at a time.

        Raises:
            ConfigurationError: Images that do not fit the contract, or another number of them.
        """
        self.contract.check(pixels)
        if len(pixels) != len(observation):
            raise ConfigurationError(f"{len(pixels)} images for {len(observation)} observations")
        check_positive("batch_size", batch_size)
        parts = [
            self._bound(pixels[s : s + batch_size], observation.part(s, s + batch_size), seed)
            for s in range(0, len(observation), batch_size)
        ]
        rate, predicted, everything = (torch.cat(terms) for terms in zip(*parts, strict=True))
        return BoundTerms(
            rate,
            predicted,
            everything,
            observation.predicted_dimensions.cpu(),
            self.contract.dimensions,
        )

    @plain_inference()
    def _bound(
        self, pixels: Tensor, observation: Observation, seed: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        vae = self.model.vae
        observation = observation.to(vae.device, vae.dtype)
        pixels = pixels.to(vae.device)
        noise = self._case_noise(observation, seed, "bound")
        rate, output = self.model.rate_nats(pixels, observation.condition, noise)
        nats = vae.pixel_nats(output, pixels)
        hidden = (~observation.mask[:, 0]).to(nats.dtype)
        return (
            rate.double().cpu(),
            (nats * hidden).sum(dim=(1, 2)).double().cpu(),
            nats.sum(dim=(1, 2)).double().cpu(),
        )

    def observation_bound(
        self, observation: Observation, *, draws: int = 1, seed: int = 0, batch_size: int = 256
    ) -> ObservationTerms:
        """Bound log p(y) from below, y = the observed pixels: how expected is what was seen?

        The reverse bound of Harvey et al. 2022, log p(y) >= E_c(z | y)[log p(y | z)] -
        sum_l KL(c(z_l | z_<l, y) || p(z_l | z_<l)). Needs y alone, and a y made of pixels.

        Args:
            observation: B cases.
            draws: Draws of z from c that the terms are averaged over.
            seed: With the case id and the number of the draw decides the draw.
            batch_size: Cases at a time.

        Raises:
            ConfigurationError: draws or batch_size below 1.
        """
        check_positive("draws", draws)
        check_positive("batch_size", batch_size)
        parts = [
            self._observation_bound(observation.part(s, s + batch_size), draws, seed)
            for s in range(0, len(observation), batch_size)
        ]
        rate, observed = (torch.cat(terms) for terms in zip(*parts, strict=True))
        dimensions = self.contract.dimensions - observation.predicted_dimensions.cpu()
        return ObservationTerms(rate, observed, dimensions)

    @plain_inference()
    def _observation_bound(
        self, observation: Observation, draws: int, seed: int
    ) -> tuple[Tensor, Tensor]:
        vae = self.model.vae
        observation = observation.to(vae.device, vae.dtype)
        features = self.model.latents.encode(observation.condition)
        rates, nats = [], []
        for draw in range(draws):
            noise = self._case_noise(observation, seed, f"observation bound {draw}")
            rate, seen = self.model.reverse_terms(
                features, observation.pixels, observation.mask, noise
            )
            rates.append(rate.double())
            nats.append(seen.double())
        return torch.stack(rates).mean(dim=0).cpu(), torch.stack(nats).mean(dim=0).cpu()

    def _case_noise(self, observation: Observation, seed: int, purpose: str) -> Noise:
        """Standard normals of every group, drawn case by case on the CPU."""
        vae = self.model.vae
        generators = [case_generator(seed, case_id, purpose) for case_id in observation.case_ids]

        def noise(group: LatentGroup) -> Tensor:
            draws = [
                torch.randn(group.latent_shape[1:], generator=g, dtype=torch.float32)
                for g in generators
            ]
            return torch.stack(draws).to(vae.device, vae.dtype)

        return noise
