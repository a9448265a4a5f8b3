"""Great Expectations at the edges of the catalog: suites, Kedro's validator, Data Docs.

A suite is a function from a table to expectations, because some depend on the table (how many
channels it describes, whether it has labels). Great Expectations takes seconds to import, hence
inside the functions.
"""

from __future__ import annotations

import html
import json
import logging
import re
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from kedro.validation.exceptions import CheckFailure, DataValidationError
from pandas.api.types import is_numeric_dtype

from condvae.data.records import SPLITS
from condvae.ground.configuration import ConfigurationError, check_choice
from condvae.ground.files import open_atomic, write_json
from condvae.scores.definitions import METRICS

__all__ = ["ATTRIBUTE", "SUITES", "GXValidator", "write_data_docs"]

log = logging.getLogger(__name__)

METRIC_COLUMNS = (
    *("metric", "bin", "sampler", "value", "standard_error", "low", "high", "level"),
    *("n", "k", "temperature", "extractor", "settings", "seed", "manifest"),
)
MANIFEST_COLUMNS = ("row", "origin", "sha256", "width", "height", "mode", "split", "label")
ATTRIBUTE = "attribute_"  # begins the names of columns that are attributes
LARGEST = sys.float_info.max
RUN_TIME = "%Y%m%dT%H%M%S.%fZ"  # in the names of Great Expectations' folders


def manifest_suite(table: pd.DataFrame) -> list[Any]:
    """Expectations of the image manifest: one row per stored image."""
    from great_expectations import expectations as gxe
    from great_expectations.expectations.row_conditions import Column

    channels = max(1, sum(bool(re.fullmatch(r"mean_\d+", str(name))) for name in table.columns))
    statistics = [f"{kind}_{c}" for kind in ("mean", "std") for c in range(channels)]
    filled = [name for name in MANIFEST_COLUMNS if name != "label"] + statistics
    # Labels are for all images or for none.
    if "label" in table and table["label"].notna().any():
        filled.append("label")
    # Identical images are marked where they are kept, so that they cannot go unnoticed.
    marked = "duplicate_of" in table
    unique = {"row_condition": Column("duplicate_of").is_null()} if marked else {}
    return [
        _columns_present((*MANIFEST_COLUMNS, *statistics)),
        *(gxe.ExpectColumnValuesToNotBeNull(column=name) for name in filled),
        *(gxe.ExpectColumnValuesToBeUnique(column=name) for name in ("row", "origin")),
        gxe.ExpectColumnValuesToBeUnique(column="sha256", **unique),
        gxe.ExpectColumnValuesToMatchRegex(column="sha256", regex="^[0-9a-f]{64}$"),
        _between("width", 1, None),
        _between("height", 1, None),
        gxe.ExpectColumnValuesToBeInSet(column="split", value_set=list(SPLITS)),
        # Some published validation splits are the test split, and stored once, as that.
        gxe.ExpectColumnDistinctValuesToContainSet(column="split", value_set=["train", "test"]),
        _between("label", 0, None),
        *(_between(name, 0, 255) for name in statistics),
    ]


def metrics_suite(table: pd.DataFrame) -> list[Any]:
    """Expectations of the tidy table of metrics: one row per metric, bin and sampler."""
    from great_expectations import expectations as gxe
    from great_expectations.expectations.row_conditions import Column

    return [
        _columns_present(METRIC_COLUMNS),
        *(
            gxe.ExpectColumnValuesToNotBeNull(column=name)
            for name in ("metric", "bin", "sampler", "value", "n")
        ),
        _between("value", -LARGEST, LARGEST),
        _between("standard_error", 0, LARGEST),
        _between("n", 1, None),
        *(
            _between("value", low, high, row_condition=Column("metric") == metric)
            for metric, (low, high) in _tolerated_bounds().items()
        ),
    ]


def _tolerated_bounds() -> dict[str, tuple[float | None, float | None]]:
    """Bounds of the metrics that have some; distances may fall below zero by rounding."""
    return {
        metric: (None if low is None else low - 1e-6, high)
        for metric, (low, high) in ((name, METRICS[name].bounds) for name in METRICS)
        if low is not None or high is not None
    }


def attributes_suite(table: pd.DataFrame) -> list[Any]:
    """Expectations of the table of attributes: one row per image, in words."""
    from great_expectations import expectations as gxe

    named = [str(name) for name in table.columns if str(name).startswith(ATTRIBUTE)]
    return [
        _columns_present(("row", "split", "held_out")),
        *(gxe.ExpectColumnValuesToNotBeNull(column=name) for name in ("row", "split", "held_out")),
        gxe.ExpectColumnValuesToBeUnique(column="row"),
        gxe.ExpectColumnValuesToBeInSet(column="split", value_set=list(SPLITS)),
        gxe.ExpectTableColumnCountToBeBetween(min_value=4),
        # What all images share, or nobody knows, is no condition; nor is a name of its own for each.
        *(
            gxe.ExpectColumnUniqueValueCountToBeBetween(
                column=name,
                min_value=2,
                max_value=None if is_numeric_dtype(table[name]) else max(20, len(table) // 2),
            )
            for name in named
        ),
    ]


SUITES: dict[str, Callable[[pd.DataFrame], list[Any]]] = {
    "manifest": manifest_suite,
    "metrics": metrics_suite,
    "attributes": attributes_suite,
}


class GXValidator:
    """Validator of a catalog entry: ``validator: {class: ..., options: {suite: manifest}}``.

    Attributes:
        suite: Name of the suite, a key of `SUITES`.
    """

    def __init__(self, suite: str) -> None:
        check_choice("suite", suite, SUITES)
        self.suite = suite

    def validate(self, data: pd.DataFrame) -> pd.DataFrame:
        """Return `data` unchanged when it meets the suite.

        Raises:
            DataValidationError: It does not; lists each failed expectation with its column, what
                was observed and some of the offending values.
        """
        import great_expectations as gx

        if not isinstance(data, pd.DataFrame):
            raise DataValidationError(
                f"suite {self.suite!r}: expected a pandas DataFrame, got {type(data).__name__}"
            )
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        asset = context.data_sources.add_pandas("tables").add_dataframe_asset(self.suite)
        batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": data})
        expectations = SUITES[self.suite](data)
        result = batch.validate(gx.ExpectationSuite(self.suite, expectations=expectations))
        if not result.success:
            failures = [_describe_failure(r) for r in result.results if not r.success]
            raise DataValidationError(
                f"the table does not meet suite {self.suite!r}", failures=failures
            )
        return data


def write_data_docs(
    table: pd.DataFrame, suite: str, folder: str | Path, site_name: str
) -> dict[str, Any]:
    """Check a table with a Great Expectations checkpoint and write its Data Docs.

    Everything lies inside `folder`: the file context (`gx/`), the site (`<site_name>/`) and the
    latest result (`<site_name>.json`). Runs add up: the index lists all of them. The pages are made
    to open without a network, see `_make_static`.

    Args:
        table: What to check.
        suite: A key of `SUITES`.
        folder: Made when missing.
        site_name: Letters, digits and underscores; names the site.

    Returns:
        `success`, `statistics` (numbers of expectations), and the paths `index` and `result`,
        relative to `folder`.

    Raises:
        ConfigurationError: Unknown suite.
        OSError: A file cannot be written or read.
    """
    check_choice("suite", suite, SUITES)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        result = _run_checkpoint(table, suite, folder, site_name)
    except (ConfigurationError, OSError):  # a full disk, say: the context is as good as before
        raise
    except Exception as error:  # files that a kill has cut short make the readers fail in any way
        if not (folder / "gx").is_dir():
            raise
        log.warning("%s cannot be used (%s): made anew", folder / "gx", error)
        _discard_settings(folder / "gx")
        result = _run_checkpoint(table, suite, folder, site_name)
    # JSON has no NaN; as text they stay readable.
    described = json.loads(result.describe(), parse_constant=str)
    write_json(folder / f"{site_name}.json", described)
    _make_static(folder / site_name, folder / "gx" / "uncommitted" / "validations", site_name)
    return {
        "success": bool(result.success),
        "statistics": described["validation_results"][0]["statistics"],
        "index": f"{site_name}/index.html",
        "result": f"{site_name}.json",
    }


def _run_checkpoint(table: pd.DataFrame, suite: str, folder: Path, site_name: str) -> Any:
    """Check the table in the file context of `folder`, which is made when missing."""
    import great_expectations as gx

    context = gx.get_context(mode="file", project_root_dir=str(folder))
    context.variables.progress_bars = {"globally": False}
    checkpoint = _build_checkpoint(context, SUITES[suite](table), suite, site_name)
    return checkpoint.run(
        batch_parameters={"dataframe": table}, run_id=gx.RunIdentifier(run_name=site_name)
    )


def _discard_settings(context: Path) -> None:
    """Remove all of a file context but the results of earlier runs."""
    results = context / "uncommitted" / "validations"
    for path in sorted(context.rglob("*"), reverse=True):
        if path.is_file() and (results not in path.parents or path.parent == results):
            path.unlink()


def _columns_present(names: tuple[str, ...]) -> Any:
    from great_expectations import expectations as gxe

    return gxe.ExpectTableColumnsToMatchSet(column_set=list(names), exact_match=False)


def _between(column: str, low: float | None, high: float | None, **options: Any) -> Any:
    from great_expectations import expectations as gxe

    return gxe.ExpectColumnValuesToBeBetween(
        column=column, min_value=low, max_value=high, **options
    )


def _describe_failure(result: Any) -> CheckFailure:
    """Translate one failed expectation into Kedro's words."""
    config, found = result.expectation_config, result.result
    given = {k: v for k, v in config.kwargs.items() if k not in ("batch_id", "column")}
    given.pop("exact_match", None)
    check = f"{config.type}({', '.join(f'{k}={v}' for k, v in given.items())})"
    missing = found.get("details", {}).get("mismatched", {}).get("missing")
    missing = missing or found.get("partial_missing_list")
    if missing:
        check = f"{config.type}: missing {', '.join(map(str, missing))}"
    elif found.get("observed_value") is not None:
        check += f" observed {found['observed_value']}"
    elif not found:  # the expectation could not be evaluated
        check += " not evaluated, does the column exist and hold comparable values?"
    return CheckFailure(
        message=check,
        check=check,
        column=config.kwargs.get("column"),
        failure_count=found.get("unexpected_count", 1),
        failure_examples=found.get("partial_unexpected_list", []),
    )


def _build_checkpoint(context: Any, expectations: list[Any], suite: str, site_name: str) -> Any:
    """Make or renew suite, batch definition, validation and checkpoint in a file context."""
    import great_expectations as gx

    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        # Relative to the context's own folder, so that the project can be moved.
        "store_backend": {
            "class_name": "TupleFilesystemStoreBackend",
            "base_directory": f"../{site_name}/",
        },
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    sites = context.get_site_names()
    if "local_site" in sites:  # the template's, of no use here
        context.delete_data_docs_site("local_site")
    if site_name in sites:
        context.update_data_docs_site(site_name, site)
    else:
        context.add_data_docs_site(site_name, site)
    asset = context.data_sources.add_or_update_pandas(site_name).add_dataframe_asset(suite)
    data = asset.add_batch_definition_whole_dataframe("whole")
    stored = context.suites.add_or_update(gx.ExpectationSuite(suite, expectations=expectations))
    definition = context.validation_definitions.add_or_update(
        gx.ValidationDefinition(name=site_name, data=data, suite=stored)
    )
    action = gx.checkpoint.UpdateDataDocsAction(name="update_data_docs", site_names=[site_name])
    return context.checkpoints.add_or_update(
        gx.Checkpoint(name=site_name, validation_definitions=[definition], actions=[action])
    )


STYLE = """<style>
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: auto; padding: 1rem }
table { border-collapse: collapse; width: 100% }
td, th { border-bottom: 1px solid #8885; padding: .3rem .6rem; text-align: left }
ol.breadcrumb, .nav { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 1rem }
nav[style] { height: auto !important; position: static }
.sticky { position: static !important } .btn-group, .btn, [data-toggle=collapse] { display: none }
.alert { border-left: 4px solid #888; padding: .3rem .8rem; margin-top: 1rem }
.badge { border: 1px solid #8888; border-radius: .3rem; padding: 0 .3rem }
.text-success, .passed { color: #1a7f37 } .text-danger, .failed { color: #c62828 }
.fa-check-circle::before { content: "\\2714" } .fa-times::before { content: "\\2718" }
</style>"""


def _make_static(site: Path, results: Path, site_name: str) -> None:
    """Make the pages of a site readable without a network, and ask no third party for anything.

    Great Expectations' pages take their style and scripts from half a dozen hosts, one of which is
    told an identifier of the project, and fill the table of the index by script. Here remote
    references and the scripts that need them go, a small style comes in, and the index is written
    as plain HTML.
    """
    # Each pattern begins and ends with what Great Expectations' templates write.
    remote = re.compile(
        r"<script\b.*?</script>|<link\b[^>]*https?://[^>]*>|<footer\b.*?</footer>"
        r"|<img\b[^>]*https?://[^>]*>|url\('https?://[^)]*\)|<div class=\"card mb-3\">\s*"
        r"<div class=\"card-header p-2\">\s*<strong>Actions</strong>.*?</div>\s*</div>\s*</div>",
        re.DOTALL,
    )
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        if STYLE not in text:
            text = remote.sub("", text).replace("</head>", f"{STYLE}</head>", 1)
            with open_atomic(page) as file:
                file.write(text.encode())
    with open_atomic(site / "index.html") as file:
        file.write(_render_index(site, results, site_name).encode())


def _render_index(site: Path, results: Path, site_name: str) -> str:
    """List all runs of a site, the latest first."""
    rows = []
    for page in sorted(site.glob("validations/*/*/*/*.html"), key=lambda p: p.parent.name)[::-1]:
        relative = page.relative_to(site / "validations")
        try:
            result = json.loads((results / relative.with_suffix(".json")).read_bytes())
        except (OSError, ValueError):  # of a run that was killed while it wrote
            continue
        counts = result["statistics"]
        status = "passed" if result["success"] else "failed"
        rows.append(
            f'<tr><td class="{status}">{status}</td>'
            f"<td>{counts['successful_expectations']} of {counts['evaluated_expectations']}</td>"
            f'<td><a href="validations/{html.escape(relative.as_posix())}">'
            f"{datetime.strptime(page.parent.name, RUN_TIME):%Y-%m-%d %H:%M:%S}</a></td>"
            f'<td><a href="expectations/{html.escape(relative.parts[0])}.html">'
            f"{html.escape(relative.parts[0])}</a></td></tr>"
        )
    title = f"Data Docs: {html.escape(site_name)}"
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>{STYLE}'
        f"</head><body><h1>{title}</h1><p>Checks by Great Expectations, the latest first.</p>"
        "<table><thead><tr><th>Status</th><th>Expectations met</th><th>Run (UTC)</th>"
        f"<th>Suite</th></tr></thead><tbody>{''.join(rows)}</tbody></table></body></html>\n"
    )
