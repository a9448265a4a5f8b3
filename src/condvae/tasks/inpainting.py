"""Inpainting: some pixels are seen, the rest are to be predicted."""

from __future__ import annotations

import torch
from torch import Tensor

from condvae.images import DataContract, encoder_input
from condvae.tasks.observation import Observation

__all__ = ["Inpainting"]


class Inpainting:
    """y = (normalised pixels where observed and 0 elsewhere, mask).

    The zero fill comes after normalisation, so that it means the data set's average grey, and all
    colours of a pixel share one mask channel (Harvey et al. 2022).
    """

    name = "inpainting"

    def condition_channels(self, contract: DataContract) -> int:
        """Image channels and the mask."""
        return contract.channels + 1

    def observe(
        self,
        pixels: Tensor,
        mask: Tensor,
        contract: DataContract,
        case_ids: tuple[str, ...] | None = None,
    ) -> Observation:
        """Make y.

        Args:
            pixels: uint8 (B,C,H,W); values at unobserved places are not looked at.
            mask: (B,1,H,W) or (1,1,H,W), bool or 0/1 numbers, 1 = observed.
            contract: Of the model that will take y.
            case_ids: Names of the cases, "0", "1", ... by default.

        Raises:
            ConfigurationError: Images do not fit the contract.
            ValueError: The mask has another size or other values than 0 and 1.
        """
        contract.check(pixels)
        batch, _, height, width = pixels.shape
        if (
            mask.ndim != 4
            or mask.shape[0] not in (1, batch)
            or mask.shape[1:] != (1, height, width)
        ):
            raise ValueError(
                f"mask of shape {tuple(mask.shape)}: expected ({batch} or 1, 1, {height}, {width})"
            )
        if mask.dtype != torch.bool:
            values = torch.unique(mask).tolist()
            if any(value not in (0, 1) for value in values):
                raise ValueError(
                    f"mask with values {values[:5]}: expected 0 (hole) and 1 (observed)"
                )
            mask = mask.bool()
        mask = mask.to(pixels.device).expand(batch, -1, -1, -1)
        visible = encoder_input(pixels, contract) * mask
        return Observation(
            condition=torch.cat([visible, mask.to(visible.dtype)], dim=1),
            pixels=pixels * mask,
            mask=mask,
            case_ids=case_ids or tuple(str(i) for i in range(batch)),
        )
