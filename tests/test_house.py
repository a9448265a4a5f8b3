"""Rules that hold for the whole tree: style, types, who may import whom, what the registry holds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "src", "tests", "benchmarks"],
        ["ruff", "format", "--check", "src", "tests", "benchmarks"],
        ["mypy"],
    ],
    ids=["ruff", "format", "mypy"],
)
def test_checker_is_satisfied(command):
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_imports_keep_their_direction():
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_pipeline_folders_lie_where_kedro_create_would_not_put_them():
    # `kedro pipeline create` writes to <package>/pipelines; here the package itself is `pipelines`.
    assert not (ROOT / "src" / "pipelines" / "pipelines").exists()


def test_telemetry_is_off():
    assert yaml.safe_load((ROOT / ".telemetry").read_text()) == {"consent": False}


def test_no_module_says_nothing_by_its_name():
    names = {"utils.py", "helpers.py", "common.py", "misc.py"}
    assert not [p for p in (ROOT / "src").rglob("*.py") if p.name in names]


def test_architecture_page_names_what_is_there():
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`(src/[\w/.]+)`", page))
    assert len(named) > 30
    assert not [name for name in named if not (ROOT / name).exists()]
    rooms = {path.parent.name for path in (ROOT / "src" / "condvae").glob("*/__init__.py")}
    assert not [room for room in rooms if not re.search(rf"^ .*\b{room}\b.*  ", page, re.M)]


def test_no_module_lies_outside_a_room():
    # Kedro asks for three of them by name; the others make packages.
    loose = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").glob("*/*.py")}
    assert loose == {
        "condvae/__init__.py",
        *(
            f"pipelines/{name}.py"
            for name in ("__init__", "__main__", "cli", "settings", "pipeline_registry")
        ),
    }


def test_registry_holds_the_documented_pipelines():
    from pipelines.pipeline_registry import register_pipelines

    registered = register_pipelines()
    assert {"inpaint", "pretrain", "evaluate", "__default__"} <= set(registered)
    assert {"attributes", "attributes_ladder"} <= set(registered)
    assert registered["__default__"] == registered["inpaint"]
    for task in ("super_resolve", "colorize", "edges_to_photo", "label_to_image"):
        assert registered[task] == registered["inpaint"]
    names = {node.name for node in registered["inpaint"].nodes}
    assert names == {
        "prepare_images_node",
        "document_manifest_node",
        "fetch_weights_node",
        "train_partial_encoder_node",
        "build_manifest_node",
        "train_features_node",
        "evaluate_samplers_node",
        "record_scores_node",
        "collect_facts_node",
        "draw_figures_node",
        "write_report_node",
        "register_posterior_node",
    }
    assert "train_partial_encoder_node" not in {n.name for n in registered["evaluate"].nodes}
    for pipeline in registered.values():
        assert all(re.fullmatch(r"[a-z]+(_[a-z]+)+_node", node.name) for node in pipeline.nodes)


def test_every_dataset_of_the_catalog_is_used_and_every_output_is_kept():
    from pipelines.pipeline_registry import register_pipelines

    catalog = set(yaml.safe_load((ROOT / "conf/base/catalog.yml").read_text()))
    registered = register_pipelines().values()
    used = set().union(*(pipeline.datasets() for pipeline in registered))
    used = {name for name in used if not name.startswith("params:")}
    assert catalog <= used
    # Pictures pass through memory; everything else survives the run.
    assert used - catalog == {"report_figures"}


def test_every_parameter_reaches_a_node():
    from pipelines.pipeline_registry import register_pipelines

    registered = register_pipelines().values()
    used = set().union(*(pipeline.inputs() for pipeline in registered))
    used = {name.removeprefix("params:").split(".")[0] for name in used if "params:" in name}
    sections = set()
    for path in (ROOT / "conf/base/parameters").glob("*.yml"):
        sections |= set(yaml.safe_load(path.read_text()))
    # They replace other parameters before any node runs; the hooks read them.
    assert sections == used | {"recipe", "tasks"}
