"""Wiring of the completion of one's own pictures."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node, pipeline

from pipelines.completion.nodes import complete_own_pictures, write_page

__all__ = ["create_pipeline"]


def create_pipeline() -> Pipeline:
    """Complete the pictures, then write the page that shows them."""
    return pipeline(
        [
            node(
                complete_own_pictures,
                [
                    "posterior",
                    "params:complete",
                    "params:sampling",
                    "params:seed",
                    "params:device",
                ],
                "completion_manifest",
                name="complete_own_pictures_node",
            ),
            node(
                write_page,
                ["completion_manifest", "params:complete"],
                "completion_page",
                name="write_completion_page_node",
            ),
        ]
    )
