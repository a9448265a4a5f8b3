"""Increasing functions of one variable that flows are made of, with zero parameters the identity."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["BINS", "BOUND", "UNIVARIATES", "Univariate"]

BINS = 8
# Slopes of affine functions and at a spline's knots stay between this and its inverse, ratios of a
# spline's bins too. At 0.1 a float32 round trip errs by less than 0.002 whatever the parameters are; at
# 0.02 it may end in nan.
SMALLEST_SLOPE = 0.1
# Splines act on [-BOUND, BOUND] and leave the rest as it is: inputs are to be standardised.
BOUND = 5.0


@dataclass(frozen=True)
class Univariate:
    """A family of increasing functions, applied element by element.

    Attributes:
        parameters: P, numbers per element; all zero = the identity.
        apply: ``(u, parameters (...,P)) -> (v, log dv/du)``, shapes of `u`.
        invert: ``(v, parameters (...,P)) -> u``.
    """

    parameters: int
    apply: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    invert: Callable[[Tensor, Tensor], Tensor]


def _affine(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Shift and log slope."""
    shift, log_slope = parameters.unbind(dim=-1)
    return shift, log_slope / (1.0 + log_slope.abs() / -math.log(SMALLEST_SLOPE))


def _apply_affine(u: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
    shift, log_slope = _affine(parameters)
    return u * torch.exp(log_slope) + shift, log_slope


def _invert_affine(v: Tensor, parameters: Tensor) -> Tensor:
    shift, log_slope = _affine(parameters)
    return (v - shift) * torch.exp(-log_slope)


def _spline(parameters: Tensor) -> Any:
    """Monotonic rational-quadratic spline (Durkan, Bekasov, Murray, Papamakarios 2019)."""
    from zuko.transforms import MonotonicRQSTransform

    widths, heights, slopes = torch.tensor_split(parameters, (BINS, 2 * BINS), dim=-1)
    return MonotonicRQSTransform(widths, heights, slopes, bound=BOUND, slope=SMALLEST_SLOPE)


def _apply_spline(u: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
    v, log_slope = _spline(parameters).call_and_ladj(u)
    return v, log_slope


def _invert_spline(v: Tensor, parameters: Tensor) -> Tensor:
    u: Tensor = _spline(parameters).inv(v)
    return u


def _apply_additive(u: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
    return u + parameters.squeeze(dim=-1), torch.zeros_like(u)


def _invert_additive(v: Tensor, parameters: Tensor) -> Tensor:
    return v - parameters.squeeze(dim=-1)


UNIVARIATES = {
    "affine": Univariate(2, _apply_affine, _invert_affine),
    "spline": Univariate(3 * BINS - 1, _apply_spline, _invert_spline),
    "additive": Univariate(1, _apply_additive, _invert_additive),
}
