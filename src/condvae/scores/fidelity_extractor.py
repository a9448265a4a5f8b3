"""The way into torch-fidelity for a feature network."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor

from condvae.ground.configuration import ConfigurationError
from condvae.scores.feature_network import LAYERS, FeatureNetwork

__all__ = ["register_with_torch_fidelity"]


def register_with_torch_fidelity(name: str, network: FeatureNetwork) -> None:
    """Make a copy of the network available as ``calculate_metrics(feature_extractor=name)``.

    Inputs are then data sets of uint8 (C,H,W) tensors and nothing is downloaded. A name registered
    here before is replaced. Do not give torch-fidelity a cache name for such inputs: its cache
    knows extractors by name only and would return the numbers of the replaced network.

    Args:
        name: Name of the extractor, the one in its card.
        network: The network; later changes to it have no effect.

    Raises:
        ConfigurationError: The name is that of an extractor that was not registered here.
    """
    known = FEATURE_EXTRACTORS_REGISTRY.get(name)
    if known is not None and not issubclass(known, _NetworkExtractor):
        raise ConfigurationError(
            f"feature extractor {name!r} is one of torch-fidelity's own: expected another name"
        )
    FEATURE_EXTRACTORS_REGISTRY.pop(name, None)
    frozen = copy.deepcopy(network).eval()
    register_feature_extractor(
        name, type("FeatureNetworkExtractor", (_NetworkExtractor,), {"source": frozen})
    )


class _NetworkExtractor(FeatureExtractorBase):  # type: ignore[misc]  # torch-fidelity has no types
    """A feature network behind torch-fidelity's interface; `source` is set in subclasses."""

    source: FeatureNetwork

    def __init__(self, name: str, features_list: Sequence[str], **_: object) -> None:
        super().__init__(name, features_list)
        self.network = copy.deepcopy(self.source)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return LAYERS

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "logits" if metric == "isc" else "features"

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    @staticmethod
    def get_dummy_input_for_compile() -> Tensor:
        raise NotImplementedError

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """uint8 (B,C,H,W) -> the requested layers, as float64 so that statistics are too."""
        output = self.network(images)
        return tuple(output[layer].double() for layer in self.features_list)
