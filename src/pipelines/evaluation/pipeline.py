"""Wiring of the evaluation."""

from __future__ import annotations

from functools import partial

from kedro.pipeline import Pipeline, node, pipeline

from pipelines.evaluation.nodes import (
    build_manifest,
    collect_facts,
    evaluate_samplers,
    find_posterior,
    train_features,
)


def create_pipeline(size: str = "quick") -> Pipeline:
    """Cases, features, scores and facts.

    Args:
        size: Which manifest of the parameters `evaluation`: ``quick`` or ``full``.
    """
    return pipeline(
        [
            node(
                partial(build_manifest, size=size),
                ["image_store", "params:evaluation", "params:masks", "params:folders"],
                "evaluation_manifest",
                name="build_manifest_node",
            ),
            node(
                train_features,
                ["image_store", "params:evaluation", "params:folders", "params:device"],
                "feature_network",
                name="train_features_node",
            ),
            node(
                evaluate_samplers,
                [
                    "image_store",
                    "posterior",
                    "evaluation_manifest",
                    "feature_network",
                    "params:sampling",
                    "params:evaluation",
                    "params:device",
                ],
                [
                    "metrics",
                    "metrics_csv",
                    "comparisons",
                    "cases",
                    "examples",
                    "evaluation_facts",
                ],
                name="evaluate_samplers_node",
            ),
            node(
                collect_facts,
                [
                    "image_store",
                    "posterior",
                    "feature_network",
                    "evaluation_facts",
                    "params:device",
                ],
                "run_facts",
                name="collect_facts_node",
            ),
        ]
    )


def create_stored_posterior_pipeline() -> Pipeline:
    """Take a posterior that exists in place of one trained in the same run."""
    return pipeline(
        [
            node(
                find_posterior,
                ["params:weights", "params:folders"],
                ["posterior", "training_history"],
                name="find_posterior_node",
            )
        ]
    )
