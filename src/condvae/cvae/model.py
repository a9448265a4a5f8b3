"""The flat conditional VAE: q(z | x, y), p(x | z, y) and a learned p(z | y) over one vector z.

References:
    K. Sohn, H. Lee, X. Yan. Learning structured output representation using deep conditional
    generative models. NeurIPS 2015.
    T. De. Improving conditional VAE with approximation using normalizing flows. arXiv 2511.08946,
    2025.
    Y. Burda, R. Grosse, R. Salakhutdinov. Importance weighted autoencoders. ICLR 2016.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from condvae.cvae.conditions import ConditionEncoder
from condvae.cvae.config import CvaeConfig
from condvae.cvae.likelihood import make_likelihood
from condvae.cvae.networks import ImageDecoder, ImageEncoder
from condvae.ground.attributes import Attribute
from condvae.ground.configuration import ConfigurationError, check_positive
from condvae.ground.devices import plain_inference
from condvae.ground.distributions import DiagonalGaussian
from condvae.ground.images import DataContract, encoder_input
from condvae.ground.noise import case_generator
from condvae.priors.vector import make_prior

__all__ = ["ElboTerms", "FlatVAE", "new_cvae"]

# Draws that one generator gives: making a generator takes longer than a few draws from it.
DRAWS_PER_BLOCK = 16
# Priors that are Gaussians of z for every y.
_GAUSSIAN_PRIORS = ("standard", "gaussian")


@dataclass(frozen=True)
class ElboTerms:
    """Terms of the bound log p(x | y) >= -(distortion + rate), one draw z ~ q(z | x, y), per image.

    Attributes:
        rate_nats: (B,), KL(q || p(z | y)), or an unbiased estimate of it.
        distortion_nats: (B,), -log p(x | z, y) summed over channels and pixels.
    """

    rate_nats: Tensor
    distortion_nats: Tensor

    @property
    def negative_elbo_nats(self) -> Tensor:
        """(B,), upper bound on -log p(x | y)."""
        return self.rate_nats + self.distortion_nats


class FlatVAE(nn.Module):
    """Attributes in, images out.

    Networks see images as ``(x - mean) / std`` of the contract; likelihoods are of 8-bit pixels. A
    model that nobody has trained has random weights, see `new_cvae`.

    Args:
        config: Shapes and kinds.
        attributes: What y (B,A) is made of.
        contract: Channels, size, mean and std of the images; 8 bits.

    Attributes:
        conditions: Features of y for encoder and decoder; None where neither sees y.
        prior: p(z | features of y).
        prior_conditions: Features of y for the prior alone, so that it can be trained on its own;
            None where the prior does not depend on y.
        likelihood: Of pixels.

    Raises:
        ConfigurationError: Images of 5 bits or smaller than 8 pixels.
    """

    def __init__(
        self, config: CvaeConfig, attributes: Sequence[Attribute], contract: DataContract
    ) -> None:
        super().__init__()
        if contract.bits != 8:
            raise ConfigurationError(f"bits = {contract.bits!r}: a flat VAE has 8-bit likelihoods")
        self.config, self.attributes, self.contract = config, tuple(attributes), contract
        z, e, shape = config.latents, config.features, (contract.size, config.width)
        self.likelihood = make_likelihood(config, contract)
        sees = config.encoder_sees_y or config.decoder_sees_y
        self.conditions = ConditionEncoder(attributes, e) if sees else None
        self.encoder = ImageEncoder(
            contract.channels, *shape, e if config.encoder_sees_y else 0, 2 * z
        )
        self.decoder = ImageDecoder(
            z,
            *shape,
            e if config.decoder_sees_y else 0,
            self.likelihood.parameter_channels,
        )
        # Last, so that the first weights of the rest are the same whatever the prior is.
        self.prior = make_prior(
            config.prior,
            z,
            e,
            layers=config.prior_layers,
            hidden=config.prior_hidden,
            components=config.prior_components,
        )
        has_weights = any(True for _ in self.prior.parameters())
        self.prior_conditions = ConditionEncoder(attributes, e) if has_weights else None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.stem.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.encoder.stem.weight.dtype

    def encode(self, pixels: Tensor, y: Tensor) -> DiagonalGaussian:
        """q(z | x, y) with mean and log-std (B,Z).

        Args:
            pixels: uint8 (B,C,H,W).
            y: (B,A), nan = unknown.
        """
        self.contract.check(pixels)
        x = encoder_input(pixels, self.contract, self.dtype)
        features = self._features(y) if self.config.encoder_sees_y else None
        return DiagonalGaussian.from_parameters(self.encoder(x, features))

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        """Parameters (B,P,H,W) of p(x | z, y), float32 at least, of z (B,Z) and y (B,A)."""
        features = self._features(y) if self.config.decoder_sees_y else None
        parameters: Tensor = self.decoder(z.to(self.dtype), features)
        return parameters.to(torch.promote_types(parameters.dtype, torch.float32))

    def prior_context(self, y: Tensor) -> Tensor:
        """Features (B,E) of y (B,A) as `prior` takes them; zeros where it depends on no y."""
        if self.prior_conditions is None:
            return torch.zeros(len(y), self.config.features, dtype=self.dtype, device=y.device)
        context: Tensor = self.prior_conditions(y)
        return context

    def pixel_log_prob(
        self, parameters: Tensor, pixels: Tensor, uniform: Tensor | None = None
    ) -> Tensor:
        """Nats (B,) of log p(x | parameters); `uniform` (B,C,H,W) where `needs_uniform`."""
        return self.likelihood.log_prob(parameters, pixels, uniform)

    def mean_image(self, parameters: Tensor) -> Tensor:
        """uint8 (B,C,H,W), the likelihood's mean."""
        return self.likelihood.mean_image(parameters)

    def sample_image(self, parameters: Tensor, uniform: Tensor) -> Tensor:
        """Draw uint8 (B,C,H,W) with uniforms (B, `likelihood.noise_channels`, H, W) in [0, 1)."""
        return self.likelihood.sample_image(parameters, uniform)

    @property
    def needs_uniform(self) -> bool:
        """Whether `elbo` and `pixel_log_prob` need uniform noise: the likelihood is continuous."""
        return self.likelihood.needs_uniform

    def elbo(
        self,
        pixels: Tensor,
        y: Tensor,
        noise: Tensor,
        uniform: Tensor | None = None,
        *,
        standard_prior: bool = False,
        fit_variance: bool = False,
    ) -> ElboTerms:
        """Terms of the evidence lower bound of log p(x | y).

        Args:
            pixels: uint8 (B,C,H,W).
            y: (B,A), nan = unknown.
            noise: Standard normal (B,Z), gives the draw from q.
            uniform: (B,C,H,W) in [0, 1), where `needs_uniform`.
            standard_prior: Take N(0, I) for p(z | y): the first of two stages.
            fit_variance: For training only, see `GaussianPixels.log_prob`.
        """
        q = self.encode(pixels, y)
        z = q.sample(noise.to(q.mean.dtype))
        rate = self._standard_rate(q) if standard_prior else self.rate(q, z, y)
        log_prob = self.likelihood.log_prob(
            self.decode(z, y), pixels, uniform, fit_variance=fit_variance
        )
        return ElboTerms(rate, -log_prob)

    def rate(self, q: DiagonalGaussian, z: Tensor, y: Tensor) -> Tensor:
        """KL(q || p(z | y)) (B,) in nats: closed form for Gaussian priors, else estimated from `z`.

        The estimate is the entropy of q, which is known, and the prior's density of the one draw z.
        """
        context = self.prior_context(y)
        if self.config.prior in _GAUSSIAN_PRIORS:
            # Two points tell a map from noise that is linear.
            mean = self.prior.from_base(torch.zeros_like(z), context)
            std = self.prior.from_base(torch.ones_like(z), context) - mean
            return DiagonalGaussian(mean, std.log()).kl_from(q).sum(dim=1)
        entropy = (q.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(dim=1)
        return -entropy - self.prior.log_prob(z, context)

    @plain_inference()
    def log_prob(
        self,
        pixels: Tensor,
        y: Tensor,
        draws: int,
        *,
        seed: int = 0,
        case_ids: Sequence[str] | None = None,
        batch_size: int = 256,
    ) -> Tensor:
        """Importance-weighted bound on log p(x | y), in expectation tighter with every draw.

        ``E log 1/K sum_k p(x | z_k, y) p(z_k | y) / q(z_k | x, y)``, K draws from q; weights are
        summed as they come. Draw k of an image depends on (seed, case id, k) only, and the std of the
        pixels is the one kept in training: an image scores the same alone and in any batch.

        Args:
            pixels: uint8 (B,C,H,W).
            y: (B,A), nan = unknown.
            draws: K.
            seed: With case id and k decides a draw, and the noise that dequantises an image.
            case_ids: B of them; None = the sha256 of each image's pixels.
            batch_size: Pairs of image and draw decoded at a time, 16 at least.

        Returns:
            (B,) float64 on the CPU, nats of 8-bit images; see `bits_per_dim`.
        """
        check_positive("draws", draws)
        check_positive("batch_size", batch_size)
        self.contract.check(pixels)
        if case_ids is None:
            case_ids = [
                hashlib.sha256(image.cpu().numpy().tobytes()).hexdigest() for image in pixels
            ]
        if not len(pixels) == len(y) == len(case_ids):
            raise ConfigurationError(
                f"{len(pixels)} images, {len(y)} conditions and {len(case_ids)} case ids: expected "
                "as many of each"
            )
        result = torch.empty(len(pixels), dtype=torch.float64)
        step = max(1, batch_size // DRAWS_PER_BLOCK)
        for start in range(0, len(pixels), step):
            part = slice(start, start + step)
            result[part] = self._log_prob(
                pixels[part].to(self.device), y[part].to(self.device), draws, seed, case_ids[part]
            ).cpu()
        return result

    def bits_per_dim(self, log_prob: Tensor) -> Tensor:
        """Nats of log p -> bits per dimension, any shape."""
        return -log_prob / (self.contract.dimensions * math.log(2))

    def _log_prob(
        self, pixels: Tensor, y: Tensor, draws: int, seed: int, case_ids: Sequence[str]
    ) -> Tensor:
        """(B,) float64, every image with a block of draws at a time."""
        q, context = self.encode(pixels, y), self.prior_context(y)
        shape = self.contract.channels, self.contract.size, self.contract.size
        uniform = None
        if self.needs_uniform:  # one for all draws: p(x + u | y) is what is estimated
            uniform = self._gather(torch.rand, shape, seed, case_ids, "dequantisation")
        total = torch.full((len(pixels),), -math.inf, dtype=torch.float64, device=pixels.device)
        for start in range(0, draws, DRAWS_PER_BLOCK):
            k = min(DRAWS_PER_BLOCK, draws - start)
            size = (DRAWS_PER_BLOCK, self.config.latents)
            noise = self._gather(torch.randn, size, seed, case_ids, f"importance {start}")[:, :k]

            def repeat(values: Tensor, k: int = k) -> Tensor:
                return values.repeat_interleave(k, dim=0)

            density = DiagonalGaussian(repeat(q.mean), repeat(q.log_std))
            z = density.sample(noise.flatten(0, 1))
            log_weight = self.prior.log_prob(z, repeat(context)).double()
            log_weight -= density.log_prob(z).sum(dim=1, dtype=torch.float64)
            log_weight += self.pixel_log_prob(
                self.decode(z, repeat(y)),
                repeat(pixels),
                None if uniform is None else repeat(uniform),
            )
            total = torch.logaddexp(total, log_weight.reshape(-1, k).logsumexp(dim=1))
        return total - math.log(draws)

    def _gather(
        self, draw: object, shape: Sequence[int], seed: int, case_ids: Sequence[str], purpose: str
    ) -> Tensor:
        """Noise (B, *shape), drawn in float32 on the CPU: the same on every device."""
        assert callable(draw)
        rows = [draw(shape, generator=case_generator(seed, i, purpose)) for i in case_ids]
        return torch.stack(rows).to(self.device, self.dtype)

    def _features(self, y: Tensor) -> Tensor:
        assert self.conditions is not None
        features: Tensor = self.conditions(y)
        return features

    @staticmethod
    def _standard_rate(q: DiagonalGaussian) -> Tensor:
        standard = DiagonalGaussian(torch.zeros_like(q.mean), torch.zeros_like(q.mean))
        return standard.kl_from(q).sum(dim=1)


def new_cvae(
    config: CvaeConfig, attributes: Sequence[Attribute], contract: DataContract, seed: int
) -> FlatVAE:
    """Build a randomly initialised model; the global generator is left as it was.

    Args:
        config: Shapes and kinds.
        attributes: What y is made of.
        contract: Of the images.
        seed: Of the initial weights; those of encoder and decoder are the same for every prior.
    """
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also reseed every GPU.
        torch.default_generator.manual_seed(seed)
        return FlatVAE(config, attributes, contract)
