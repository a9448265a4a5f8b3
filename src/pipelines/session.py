"""A Kedro session whose hooks can ask which pipelines it runs."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from kedro.framework.session import KedroSession

__all__ = ["Session", "requested_pipelines"]

_requested: ContextVar[tuple[str, ...]] = ContextVar("requested_pipelines", default=())


def requested_pipelines() -> tuple[str, ...]:
    """Names of the pipelines that the running session was asked for; () for the default."""
    return _requested.get()


class Session(KedroSession):
    """Says what it runs before the configuration is read: parameters and paths depend on it."""

    def run(
        self,
        pipeline_name: str | None = None,
        pipeline_names: list[str] | None = None,
        *arguments: Any,
        **options: Any,
    ) -> dict[str, Any]:
        """Run pipelines; arguments as for `KedroSession.run`."""
        names = [pipeline_name] if pipeline_name else pipeline_names
        token = _requested.set(tuple(names or ()))
        try:
            return super().run(pipeline_name, pipeline_names, *arguments, **options)
        finally:
            _requested.reset(token)
