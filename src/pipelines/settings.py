"""Kedro settings of the project."""

from pathlib import Path

from pipelines.app.config_loader import ConfigLoader
from pipelines.app.hooks import ParameterHooks, TrackingHooks
from pipelines.app.session import Session
from pipelines.parameters.own import own_folder
from pipelines.reevaluation.hooks import ReevaluationHooks, VerdictHooks

_CHECKOUT = Path(__file__).resolve().parents[2]
# A packaged application has no checkout around it: then paths start where it is run.
ROOT = _CHECKOUT if (_CHECKOUT / "pyproject.toml").is_file() else Path.cwd()


def _resolve_root(path: str = "") -> str:
    """``${root:mlruns/mlflow.db}`` -> absolute path, whatever folder a session starts in."""
    return str(ROOT / path)


HOOKS = (ParameterHooks(), TrackingHooks(), VerdictHooks(), ReevaluationHooks())
SESSION_CLASS = Session

CONFIG_LOADER_CLASS = ConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    # Environments change single parameters; without this a section given twice would be replaced whole.
    "merge_strategy": {"parameters": "soft", "mlflow": "soft"},
    "config_patterns": {"mlflow": ["mlflow*", "mlflow*/**", "**/mlflow*"]},
    "custom_resolvers": {"root": _resolve_root, "own_folder": own_folder},
}
