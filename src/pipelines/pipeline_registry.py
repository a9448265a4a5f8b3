"""The registered pipelines: named sums of the small ones."""

from __future__ import annotations

from kedro.pipeline import Pipeline

from pipelines import (
    anomaly,
    attributes,
    attributes_ladder,
    comparison,
    completion,
    conditional_training,
    data_preparation,
    evaluation,
    pretrained_weights,
    pretraining,
    reevaluation,
    registration,
    reporting,
    verification,
)
from pipelines.parameters.overlay import TASK_PIPELINES

__all__ = ["register_pipelines"]


def register_pipelines() -> dict[str, Pipeline]:
    """Return pipelines by name; `inpaint` is the default.

    `inpaint` prepares data, takes a pretrained VAE, trains the partial encoder, evaluates it on the
    quick manifest, writes the report and registers the posterior. `super_resolve`, `colorize`,
    `edges_to_photo` and `label_to_image` are the same with parameters and folders of their own.
    `evaluate` scores the last posterior on the full manifest.
    `export` writes a manifest's cases for another system, `score` judges what it made of them.
    `pretrain` trains an unconditional VAE. `verify` compares the score of a VAE with its card.
    `compare` sets runs of MLflow against one of them, case by case.
    `anomaly` says how well foreign images are told by what is seen of them.
    `complete` completes one's own pictures with a posterior that exists.
    `reevaluate` judges the registered champion again, and pictures that have arrived.
    `attributes` trains and judges a flat conditional VAE, attributes in, images out;
    `attributes_ladder` says what each of its ingredients is worth.
    """
    data = data_preparation.create_pipeline()
    weights = pretrained_weights.create_pipeline()
    training = conditional_training.create_pipeline()
    report = reporting.create_pipeline()
    inpaint = data + weights + training + evaluation.create_pipeline("quick") + report
    inpaint += registration.create_pipeline()
    stored = evaluation.create_stored_posterior_pipeline()
    evaluate = data + stored + evaluation.create_pipeline("full") + report
    score = data + stored + evaluation.create_score_pipeline() + report
    return {
        "data_preparation": data,
        "pretrained_weights": weights,
        "conditional_training": training,
        "evaluation": evaluation.create_pipeline("quick"),
        "reporting": report,
        "pretrain": data + pretraining.create_pipeline(),
        "evaluate": evaluate,
        "export": data + evaluation.create_export_pipeline(),
        "score": score,
        "anomaly": data + stored + anomaly.create_pipeline(),
        "compare": comparison.create_pipeline(),
        "attributes": data + attributes.create_pipeline(),
        "attributes_ladder": data + attributes_ladder.create_pipeline(),
        "complete": stored + completion.create_pipeline(),
        "reevaluate": data + reevaluation.create_pipeline(),
        "verify": data + weights + verification.create_pipeline(),
        **dict.fromkeys(TASK_PIPELINES, inpaint),
        "inpaint": inpaint,
        "__default__": inpaint,
    }
