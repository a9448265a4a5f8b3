"""The nodes of `attributes` and `attributes_ladder`, run in memory with the environment `test`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipelines.parameters.overlay import override
from pipelines.pipeline_registry import register_pipelines
from pipelines.runs import tracking

CONF = Path(__file__).resolve().parents[3] / "conf"


def read_parameters(folder):
    """Parameters of the environment `test`, with results in a folder."""
    parameters = {}
    for path in [*sorted((CONF / "base/parameters").glob("*.yml")), CONF / "test/parameters.yml"]:
        text = path.read_text().replace("${globals:data}", str(folder))
        parameters = override(parameters, yaml.safe_load(text.replace("${own_folder:}", "inpaint")))
    return parameters | {"device": "cpu"}


@pytest.fixture(scope="session")
def run_nodes():
    """Runs a pipeline; returns all values by name and, under ``logged``, the MLflow metrics."""

    def run(name, folder, changes=None):
        parameters = override(read_parameters(folder), changes or {})
        values = {f"params:{key}": value for key, value in parameters.items()}
        logged = {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tracking, "log_metrics", lambda found, step=0: logged.update(found))
            for node in register_pipelines()[name].nodes:
                if node.name != "document_manifest_node":  # Data Docs take seconds
                    values |= node.run({key: values[key] for key in node.inputs})
        return values | {"logged": logged}

    return run
