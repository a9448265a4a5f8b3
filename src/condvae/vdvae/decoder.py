"""The top-down network and its one loop over the latent groups."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condvae.ground.distributions import DiagonalGaussian
from condvae.ground.likelihoods import LogisticMixture
from condvae.vdvae.architecture import Architecture, DecoderBlockSpec
from condvae.vdvae.blocks import LEAK, Block, convolution, scale_weight

__all__ = ["ChooseLatent", "Decoder", "DecoderBlock", "LatentGroup"]


class DecoderBlock(nn.Module):
    """One latent group: its posterior head, its prior, and how z enters the hidden state."""

    def __init__(self, architecture: Architecture, spec: DecoderBlockSpec, n_blocks: int) -> None:
        super().__init__()
        self.resolution = spec.resolution
        self.mixin = spec.mixin
        self.latent_channels = z = architecture.latent_channels
        self.latent_std = architecture.latent_std
        self.width = width = architecture.width_at(spec.resolution)
        middle = int(width * architecture.bottleneck)
        self.link = architecture.linked_channels(spec)
        size, activation = spec.resolution, architecture.activation
        self.enc = Block(2 * width, middle, 2 * z, size, activation=activation)
        self.prior = Block(
            width, middle, 2 * z + width, size, zero_last=True, activation=activation
        )
        self.z_proj = convolution(z, width, 1)
        scale_weight(self.z_proj, math.sqrt(1.0 / n_blocks))
        self.resnet = Block(width, middle, width, size, residual=True, activation=activation)
        scale_weight(self.resnet.c4, math.sqrt(1.0 / n_blocks))
        self.unpool: nn.Conv2d | None = None
        if architecture.is_efficient and spec.mixin is not None:
            self.unpool = convolution(architecture.width_at(spec.mixin), width, 1)

    def posterior(self, h: Tensor, activations: Tensor) -> DiagonalGaussian:
        """q(z | z above, x) from the hidden state and the encoder's activations at this resolution."""
        parameters: Tensor = self.enc(torch.cat([h, activations[:, self.link]], dim=1))
        return DiagonalGaussian.from_parameters(parameters, self.latent_std)

    def enlarge(self, above: Tensor) -> Tensor:
        """Last hidden state of the resolution that is mixed in -> (B,width,R,R)."""
        assert self.mixin is not None
        if self.unpool is not None:
            above = F.leaky_relu(self.unpool(above), LEAK)
        return F.interpolate(above[:, : self.width], scale_factor=self.resolution // self.mixin)


class LatentGroup:
    """A visit of the loop to one group: what a chooser of latents may look at.

    Attributes:
        index: Position of the group, 0 = top.
        block: The group's weights.
        h: Hidden state (B,width,R,R), before the prior's skip output is added.
    """

    __slots__ = ("_prior_output", "block", "h", "index")

    def __init__(self, index: int, block: DecoderBlock, h: Tensor) -> None:
        self.index = index
        self.block = block
        self.h = h
        self._prior_output: Tensor | None = None

    @property
    def prior_output(self) -> Tensor:
        """The prior block's output, computed once and only when somebody asks."""
        if self._prior_output is None:
            self._prior_output = self.block.prior(self.h)
        return self._prior_output

    @property
    def prior(self) -> DiagonalGaussian:
        """p(z | z above)."""
        z = self.block.latent_channels
        return DiagonalGaussian.from_parameters(
            self.prior_output[:, : 2 * z], self.block.latent_std
        )

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(B,Z,R,R)."""
        batch, _, height, width = self.h.shape
        return (batch, self.block.latent_channels, height, width)

    def next_hidden(self, z: Tensor) -> Tensor:
        """The hidden state after the prior's skip output and z have been added."""
        h = self.h + self.prior_output[:, 2 * self.block.latent_channels :]
        out: Tensor = self.block.resnet(h + self.block.z_proj(z))
        return out


ChooseLatent = Callable[[LatentGroup, Tensor], Tensor]


class OutputNet(nn.Module):
    """The 1x1 convolution that turns the last hidden state into likelihood parameters."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.out_conv = convolution(width, outputs, 1)


class Decoder(nn.Module):
    """Top-down network of VDVAE.

    Args:
        architecture: Gives groups and widths.
        likelihood: Gives the number of output channels.
    """

    def __init__(self, architecture: Architecture, likelihood: LogisticMixture) -> None:
        super().__init__()
        self.architecture = architecture
        specs = architecture.decoder_blocks
        self.dec_blocks = nn.ModuleList(DecoderBlock(architecture, s, len(specs)) for s in specs)
        resolutions = sorted({spec.resolution for spec in specs})
        self.bias_xs = nn.ParameterList(
            nn.Parameter(torch.zeros(1, architecture.width_at(r), r, r))
            for r in resolutions
            if r <= architecture.bias_up_to
        )
        width = architecture.width_at(architecture.image_size)
        self.out_net = OutputNet(width, likelihood.parameter_channels)
        self.gain = nn.Parameter(torch.ones(1, width, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, width, 1, 1))

    def descend(
        self,
        choose_z: ChooseLatent,
        batch_size: int,
        *,
        output: bool = True,
        groups: int | None = None,
    ) -> Tensor:
        """Go through all groups from the top; `choose_z` decides every latent.

        Sampling, training, scoring, fixing some groups and parity checks are callers of this loop.

        Args:
            choose_z: ``(group, h) -> z`` with z of shape ``group.latent_shape``; `h` is ``group.h``.
            batch_size: B.
            output: False skips everything after the last latent, whose value is then not used
                (training a conditional distribution needs nothing below it).
            groups: Without `output`, go through so many groups only; None = all.

        Returns:
            (B,width,H,W), the decoder's output before the likelihood's convolution; an empty tensor
            when `output` is false.
        """
        hidden: dict[int, Tensor] = {bias.shape[2]: bias for bias in self.bias_xs}
        reference = self.gain
        last = (groups or len(self.dec_blocks)) - 1
        for index, block in enumerate(self.dec_blocks):
            assert isinstance(block, DecoderBlock)
            size = block.resolution
            h = hidden.get(size)
            if h is None:
                h = reference.new_zeros(batch_size, block.width, size, size)
            elif h.shape[0] != batch_size:
                h = h.expand(batch_size, -1, -1, -1)
            if block.mixin is not None:
                h = h + block.enlarge(hidden[block.mixin])
            group = LatentGroup(index, block, h)
            z = choose_z(group, h)
            if index == last and not output:
                return reference.new_empty(0)
            hidden[size] = group.next_hidden(z)
        return hidden[self.architecture.image_size] * self.gain + self.bias

    def likelihood_parameters(self, output: Tensor) -> Tensor:
        """(B,width,H,W) from `descend` -> parameters of the pixel likelihood."""
        parameters: Tensor = self.out_net.out_conv(output)
        return parameters
