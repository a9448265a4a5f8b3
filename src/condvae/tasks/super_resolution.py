"""Super-resolution: an image of fewer pixels is seen."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from condvae.ground.configuration import ConfigurationError, check_choice
from condvae.ground.files import fingerprint
from condvae.ground.images import DataContract, pixels_from_unit_range
from condvae.tasks.subject import Subject
from condvae.tasks.task import Task, normalise

__all__ = ["CustomDownsampling", "Downsampling", "SuperResolution"]

KERNELS = ("box", "bicubic")


class Downsampling(Task):
    """y = an image of fewer pixels, each repeated to the size of the full one, then normalised."""

    @abstractmethod
    def reduce(self, levels: Tensor) -> Tensor:
        """Map grey levels float (B,C,H,W) to (B,C,h,w), linearly; h and w divide H and W."""

    def condition_channels(self, contract: DataContract) -> int:
        """Those of the image."""
        return contract.channels

    def condition(self, subject: Subject, contract: DataContract) -> Tensor:
        """The small image as an image of full size: float32 (B,C,H,W)."""
        return normalise(self._enlarged(subject), contract)

    def measure(self, pixels: Tensor, mask: Tensor) -> Tensor:
        """The small image: float32 (B,C*h*w)."""
        del mask
        return self.reduce(pixels.float()).flatten(1)

    def signature(self, subject: Subject, contract: DataContract) -> Tensor:
        """The small image."""
        del contract
        assert subject.pixels is not None
        return self.reduce(subject.pixels.float()).flatten(1)

    def picture(self, subject: Subject, contract: DataContract) -> Tensor:
        """The small image, enlarged."""
        del contract
        return pixels_from_unit_range(self._enlarged(subject) / 127.5 - 1)

    def _enlarged(self, subject: Subject) -> Tensor:
        pixels = subject.pixels
        assert pixels is not None
        small = self.reduce(pixels.float())
        if small.ndim != 4 or any(a % b for a, b in zip(pixels.shape, small.shape, strict=True)):
            raise ValueError(
                f"a small image of shape {tuple(small.shape)} for {tuple(pixels.shape)}: expected "
                "sides that divide those of the image"
            )
        return interpolate(small, size=pixels.shape[2:], mode="nearest")


@dataclass(frozen=True)
class SuperResolution(Downsampling):
    """Super-resolution by a whole factor.

    Attributes:
        factor: How many pixels become one along each side; divides the side.
        kernel: ``box`` averages the pixels of each block, ``bicubic`` weighs them by the cubic kernel
            of that width, as image programs do. Values are not rounded.
    """

    factor: int = 4
    kernel: str = "box"

    name = "super_resolution"

    def __post_init__(self) -> None:
        if self.factor < 2:
            raise ConfigurationError(f"factor = {self.factor!r}: expected 2 or more")
        check_choice("kernel", self.kernel, KERNELS)

    def condition_channels(self, contract: DataContract) -> int:
        """Those of the image.

        Raises:
            ConfigurationError: The factor does not divide the side.
        """
        if contract.size % self.factor:
            raise ConfigurationError(
                f"factor = {self.factor!r}: expected a divisor of the image side {contract.size}"
            )
        return super().condition_channels(contract)

    def reduce(self, levels: Tensor) -> Tensor:
        """Block averages or bicubic samples, (B,C,H/factor,W/factor)."""
        if self.kernel == "box":
            return avg_pool2d(levels, self.factor)
        size = [side // self.factor for side in levels.shape[2:]]
        return interpolate(levels, size=size, mode="bicubic", antialias=True)


class CustomDownsampling(Downsampling):
    """Any other linear map to fewer pixels; given again when a saved model is loaded.

    Args:
        function: As `Downsampling.reduce`, or a matrix (h,H) that is applied to rows and columns.
    """

    name = "custom_downsampling"

    def __init__(self, function: Callable[[Tensor], Tensor] | Tensor) -> None:
        self._function = function

    @property
    def options(self) -> dict[str, Any]:
        """Hash of the matrix, or name of the function: what tells models of other maps apart."""
        if isinstance(self._function, torch.Tensor):
            return {"matrix_sha256": fingerprint(self._function.tolist())}
        kind = type(self._function).__qualname__
        return {"function": getattr(self._function, "__qualname__", kind)}

    def reduce(self, levels: Tensor) -> Tensor:
        """What was given, applied."""
        if isinstance(self._function, torch.Tensor):
            matrix = self._function.to(levels)
            return matrix @ levels @ matrix.T
        return self._function(levels)
