"""A hierarchical VAE with linear layers: its exact posterior given any part of x is known.

z ~ N(0, P), x = W z + noise. Every layer is a 1x1 convolution on 1x1 images with D channels, inside
the library's own decoder, trunk, objective and sampling loop, which run unchanged.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from condvae.ipa import ConditionalModel, PartialEncoder, forward_kl, run_trunk
from condvae.ipa.heads import GaussianHead
from condvae.vdvae.decoder import Decoder, DecoderBlock, OutputNet


class LinearGaussian:
    """The model and everything known about it.

    Attributes:
        loadings: W (D, latents).
        prior: P (latents, latents).
        noise: Standard deviation of x given z.
        groups: Slices of the latents, one per group.
        seen: Number of observed values; they come first.
    """

    def __init__(self, loadings, prior, noise, sizes, seen):
        self.loadings, self.prior, self.noise, self.seen = loadings, prior, noise, seen
        ends = np.cumsum(sizes)
        self.groups = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]

    def covariance(self):
        """Of x (D,D)."""
        return self.loadings @ self.prior @ self.loadings.T + self.noise**2 * np.eye(
            len(self.loadings)
        )

    def posterior(self, rows):
        """Gain and covariance of p(z | the first `rows` values of x)."""
        part = self.loadings[:rows]
        covariance = np.linalg.inv(np.linalg.inv(self.prior) + part.T @ part / self.noise**2)
        return covariance @ part.T / self.noise**2, covariance

    def conditional(self, gain, covariance, group):
        """z_group given z above and the values: (latents) weights, (values) weights, covariance."""
        above = slice(0, group.start)
        regression = covariance[group, above] @ np.linalg.inv(covariance[above, above])
        weights = np.zeros((group.stop - group.start, len(covariance)))
        weights[:, above] = regression
        rest = covariance[group, group] - regression @ covariance[above, group]
        return weights, gain[group] - regression @ gain[above], rest

    def draw(self, rng, n):
        """Latents (n, latents) and images (n, D)."""
        z = rng.multivariate_normal(np.zeros(len(self.prior)), self.prior, size=n)
        return z, z @ self.loadings.T + self.noise * rng.normal(size=(n, len(self.loadings)))

    def vae(self):
        """The stand-in for a `VDVAE`: what `run_trunk` and `ConditionalModel` use of it."""
        d, latents = self.loadings.shape
        no_values = np.zeros((latents, 0))
        blocks = []
        for group in self.groups:
            q = self.conditional(*self.posterior(d), group)
            p = self.conditional(no_values, self.prior, group)
            blocks.append(_LinearBlock(group, latents, q, p))
        decoder = _LinearDecoder(blocks, latents, self.loadings)
        return SimpleNamespace(
            decoder=decoder, encode=lambda x: {1: x[:, :, None, None]}, pixel_nats=self._seen_nats
        )

    def _seen_nats(self, output, seen):
        """-log p(the seen values given z) up to a constant: (B,1,1) for values (B,seen,1,1)."""
        rows = torch.from_numpy(np.ascontiguousarray(self.loadings[: self.seen]))
        error = seen - torch.einsum("dz,bzhw->bdhw", rows, output)
        return 0.5 * error.square().sum(dim=1) / self.noise**2

    def train(self):
        """Minimise the expected forward KL exactly; return the conditional model.

        Its expectation over x and z involves first and second moments only, because all means are
        linear. A batch with exactly these moments therefore has the same minimum as the population.
        """
        d, latents = self.loadings.shape
        points = np.sqrt(d + latents) * np.concatenate([np.eye(d + latents), -np.eye(d + latents)])
        x = torch.from_numpy(points[:, :d] @ np.linalg.cholesky(self.covariance()).T)

        def noise(group):
            draws = torch.from_numpy(points[:, d:][:, self.groups[group.index]])
            return draws.reshape(group.latent_shape)

        vae, partial = self.vae(), _LinearPartialEncoder(self.groups, latents, self.seen)
        trunk = run_trunk(vae, x, noise)
        condition = x[:, : self.seen, None, None]
        return _minimise(
            ConditionalModel(vae, partial),
            lambda: forward_kl(trunk, partial, condition).sum(dim=1).mean(),
        )

    def train_reverse(self):
        """The same for IPA-R: the expected bound on -log p(y), y drawn from the model."""
        latents = len(self.prior)
        n = self.seen + latents
        points = np.sqrt(n) * np.concatenate([np.eye(n), -np.eye(n)])
        root = np.linalg.cholesky(self.covariance()[: self.seen, : self.seen])
        y = torch.from_numpy(points[:, : self.seen] @ root.T)[:, :, None, None]
        mask = torch.ones(len(y), 1, 1, 1, dtype=torch.bool)
        model = ConditionalModel(self.vae(), _LinearPartialEncoder(self.groups, latents, self.seen))

        def noise(group):
            draws = torch.from_numpy(points[:, self.seen :][:, self.groups[group.index]])
            return draws.reshape(group.latent_shape)

        def loss():
            rates, nats = model.reverse_terms(model.latents.encode(y), y, mask, noise)
            return (rates.sum(dim=1) + nats).mean()

        return _minimise(model, loss)

    @torch.no_grad()
    def sample(self, model, y, draws, temperature, seed):
        """Draw images (S,N,D) from the trained model, observed values drawn anew like the others."""
        generator = torch.Generator().manual_seed(seed)
        n = len(y)
        features = model.latents.encode(torch.from_numpy(y)[:, :, None, None])
        expanded = {size: value.repeat(draws, 1, 1, 1) for size, value in features.items()}

        def noise(group):
            return torch.randn(group.latent_shape, generator=generator, dtype=torch.float64)

        means = model.sample_output(expanded, draws * n, noise, temperature)[:, :, 0, 0]
        images = means + self.noise * torch.randn(
            means.shape, generator=generator, dtype=torch.float64
        )
        return images.reshape(draws, n, -1).numpy()

    @torch.no_grad()
    def moments(self, model, y, temperature=1.0):
        """Mean (N,D) and covariance (D,D) of W z under c(z | y), read off the sampling loop exactly."""

        def output(noise_row):
            features = model.latents.encode(torch.from_numpy(y)[:, :, None, None])

            def noise(group):
                row = torch.from_numpy(noise_row[self.groups[group.index]])
                return row.reshape(1, -1, 1, 1).expand(group.latent_shape)

            return model.sample_output(features, len(y), noise, temperature)[:, :, 0, 0].numpy()

        mean = output(np.zeros(len(self.prior)))
        columns = np.stack([(output(unit) - mean)[0] for unit in np.eye(len(self.prior))])
        return mean, columns.T @ columns


def _minimise(model, loss):
    """Fit the conditional part; returns the model."""
    optimizer = torch.optim.LBFGS(
        model.latents.parameters(),
        max_iter=1000,
        tolerance_grad=1e-9,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    return model


def _linear(weights, bias):
    """A 1x1 convolution with given weights (out, in) and bias (out)."""
    layer = nn.Conv2d(weights.shape[1], weights.shape[0], 1).double()
    layer.weight.data = torch.from_numpy(np.ascontiguousarray(weights))[:, :, None, None].double()
    layer.bias.data = torch.from_numpy(np.asarray(bias)).double()
    return layer


class _LinearBlock(DecoderBlock):
    """A latent group whose hidden state is the list of the latents drawn so far."""

    def __init__(self, group, latents, q, p):
        nn.Module.__init__(self)
        self.resolution, self.mixin, self.width = 1, None, latents
        self.link, self.latent_std, self.unpool = slice(None), "exp", None
        self.latent_channels = z = group.stop - group.start
        zeros = np.zeros((z, latents + q[1].shape[1]))
        self.enc = _linear(np.concatenate([np.hstack(q[:2]), zeros]), _bias(z, q[2]))
        prior = np.concatenate([p[0], np.zeros((z + latents, latents))])
        self.prior = _linear(prior, np.concatenate([_bias(z, p[2]), np.zeros(latents)]))
        self.z_proj = _linear(np.eye(latents)[:, group], np.zeros(latents))
        self.resnet = nn.Identity()


def _bias(z, covariance):
    """Mean and log-std offsets of a group; its posterior and prior must be diagonal."""
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-12)
    return np.concatenate([np.zeros(z), 0.5 * np.log(np.diag(covariance))])


class _LinearDecoder(Decoder):
    def __init__(self, blocks, latents, loadings):
        nn.Module.__init__(self)
        self.architecture = SimpleNamespace(image_size=1)
        self.dec_blocks = nn.ModuleList(blocks)
        self.bias_xs = nn.ParameterList([torch.zeros(1, latents, 1, 1, dtype=torch.float64)])
        self.out_net = OutputNet(latents, len(loadings))
        self.out_net.out_conv = _linear(loadings, np.zeros(len(loadings)))
        self.gain = nn.Parameter(torch.ones(1, latents, 1, 1, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(1, latents, 1, 1, dtype=torch.float64))


class _LinearHead(GaussianHead):
    """Mean linear in the latents above and y, log-std a learned constant."""

    def __init__(self, z, inputs):
        nn.Module.__init__(self)
        self.link, self.latent_std = slice(None), "exp"
        self.mean = _linear(np.zeros((z, inputs)), np.zeros(z))
        self.log_std = nn.Parameter(torch.zeros(1, z, 1, 1, dtype=torch.float64))

    def forward(self, inputs):
        mean = self.mean(inputs)
        return torch.cat([mean, self.log_std.expand_as(mean)], dim=1)


class _Features(nn.Module):
    def forward(self, condition):
        return {1: condition}


class _LinearPartialEncoder(PartialEncoder):
    def __init__(self, groups, latents, seen):
        nn.Module.__init__(self)
        self.condition_channels = seen
        self.head_kind = "absolute"
        self.encoder = _Features()
        self.heads = nn.ModuleList(_LinearHead(g.stop - g.start, latents + seen) for g in groups)
        self.flows = nn.ModuleDict()
