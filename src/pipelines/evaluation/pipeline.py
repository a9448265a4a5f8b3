"""Wiring of the evaluation."""

from __future__ import annotations

from functools import partial

from kedro.pipeline import Pipeline, node, pipeline

from pipelines.evaluation.model_card import record_scores_node
from pipelines.evaluation.nodes import (
    build_manifest,
    collect_facts,
    evaluate_samplers,
    find_posterior,
    score_samples,
    train_features,
    write_exchange,
)

_JUDGED_BY = [
    "image_store",
    "posterior",
    "evaluation_manifest",
    "feature_network",
    "params:sampling",
    "params:evaluation",
    "params:task",
]
_OUTPUTS = [
    "metrics",
    "metrics_csv",
    "comparisons",
    "cases",
    "examples",
    "extremes",
    "calibration",
    "evaluation_facts",
]


def create_pipeline(size: str = "quick") -> Pipeline:
    """Cases, features, scores and facts; the scores also on the posterior's card.

    Args:
        size: Which manifest of the parameters `evaluation`: ``quick`` or ``full``.
    """
    samplers = node(
        evaluate_samplers,
        [*_JUDGED_BY, "params:folders", "params:device"],
        _OUTPUTS,
        name="evaluate_samplers_node",
    )
    card = node(
        record_scores_node,
        [
            "image_store",
            "posterior",
            "evaluation_manifest",
            "metrics",
            "calibration",
            "params:folders",
            "evaluation_facts",
        ],
        "model_card",
        name="record_scores_node",
    )
    return create_manifest_pipeline(size) + _features() + pipeline([samplers, card]) + _facts()


def create_score_pipeline() -> Pipeline:
    """The same for completions of another system; `score.size` says which manifest."""
    samples = node(
        score_samples,
        [*_JUDGED_BY, "params:score", "params:folders", "params:device"],
        _OUTPUTS,
        name="score_samples_node",
    )
    return create_manifest_pipeline(None) + _features() + pipeline([samples]) + _facts()


def create_export_pipeline() -> Pipeline:
    """Cases of the manifest `score.size` as files for another system."""
    export = node(
        write_exchange,
        ["image_store", "evaluation_manifest", "params:task", "params:folders"],
        "exchange",
        name="write_exchange_node",
    )
    return create_manifest_pipeline(None) + pipeline([export])


def create_manifest_pipeline(size: str | None) -> Pipeline:
    """The cases; `size` None takes the parameter `score.size`."""
    inputs = [
        *("image_store", "params:evaluation", "params:masks", "params:task", "params:folders")
    ]
    name = "build_manifest_node"
    if size is not None:
        build = node(partial(build_manifest, size=size), inputs, "evaluation_manifest", name=name)
    else:
        build = node(
            build_manifest, [*inputs, "params:score.size"], "evaluation_manifest", name=name
        )
    return pipeline([build])


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


def _features() -> Pipeline:
    """The feature network."""
    return pipeline(
        [
            node(
                train_features,
                [
                    *("image_store", "params:evaluation", "params:folders", "params:device"),
                    "params:task",
                ],
                "feature_network",
                name="train_features_node",
            )
        ]
    )


def _facts() -> Pipeline:
    """What the report says about the run."""
    return pipeline(
        [
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
            )
        ]
    )
