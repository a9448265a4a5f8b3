"""Wiring of the re-evaluation."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node, pipeline

from pipelines.evaluation.nodes import train_features
from pipelines.reevaluation.nodes import (
    conclude,
    evaluate_champion,
    inspect_arrivals,
    measure_arrivals,
    open_champion,
)
from pipelines.reevaluation.page import write_page

__all__ = ["create_pipeline"]

_FOUND = [
    *("reevaluation_inputs", "reevaluation_scores", "reevaluation_arrivals"),
    "reevaluation_drift",
]
_DRAWN_WITH = ["params:sampling", "params:evaluation", "params:folders", "params:device"]


def create_pipeline() -> Pipeline:
    """Open the champion, score it, look at what has arrived, conclude, and write the page."""
    return pipeline(
        [
            node(
                open_champion,
                [
                    *("image_store", "params:reevaluate", "params:data", "params:task"),
                    *("params:masks", *_DRAWN_WITH),
                ],
                "reevaluation_inputs",
                name="open_champion_node",
            ),
            node(
                train_features,
                [
                    *("image_store", "params:evaluation", "params:folders", "params:device"),
                    "params:task",
                ],
                "feature_network",
                name="train_features_node",
            ),
            node(
                evaluate_champion,
                [
                    *("reevaluation_inputs", "image_store", "feature_network"),
                    *("params:reevaluate", *_DRAWN_WITH),
                ],
                "reevaluation_scores",
                name="evaluate_champion_node",
            ),
            node(
                inspect_arrivals,
                ["reevaluation_inputs", "image_store", "params:reevaluate"],
                "reevaluation_arrivals",
                name="inspect_arrivals_node",
            ),
            node(
                measure_arrivals,
                [
                    *("reevaluation_inputs", "reevaluation_arrivals", "image_store"),
                    *("feature_network", "params:reevaluate", "params:masks", *_DRAWN_WITH),
                ],
                "reevaluation_drift",
                name="measure_arrivals_node",
            ),
            node(conclude, _FOUND, "reevaluation_verdict", name="conclude_reevaluation_node"),
            node(
                write_page,
                ["reevaluation_verdict", *_FOUND, "params:reevaluate"],
                "reevaluation_page",
                name="write_reevaluation_page_node",
            ),
        ]
    )
