"""Kedro's configuration, with `conf/local` over every environment."""

from __future__ import annotations

import warnings
from typing import Any

from kedro.config import MissingConfigException, OmegaConfigLoader
from omegaconf import OmegaConf

__all__ = ["ConfigLoader"]

# What Kedro asks of OmegaConf is not for a user to mend, and hides the line that is.
warnings.filterwarnings("ignore", r"\s*register_new_resolver", UserWarning)


class ConfigLoader(OmegaConfigLoader):
    """Reads `conf/base`, over it the environment of the run, over it `conf/local`.

    Kedro's own reads `conf/local` only where no environment is named; what someone has set there for
    good would be lost with ``--env``. Values of the command line stay the last word.
    """

    def __getitem__(self, key: str) -> dict[str, Any]:
        """Read and merge the files of a kind: ``parameters``, ``mlflow``, ``catalog``, ...

        Raises:
            MissingConfigException: No such files, or no such environment.
        """
        if key in self or self.env in (None, "", self.default_run_env):
            return dict(super().__getitem__(key))
        try:
            found = dict(super().__getitem__(key))
        except MissingConfigException:
            # All but credentials have a file in `conf/base`: else the environment is not there.
            if key != "credentials" or not self._read_local(key):
                raise
            found = {}
        local = self._read_local(key)
        if self.merge_strategy.get(key) == "soft":
            merged: Any = OmegaConf.to_container(OmegaConf.merge(found, local))
            return dict(merged)
        return {**found, **local}

    def _read_local(self, key: str) -> dict[str, Any]:
        """The files of `conf/local` alone: Kedro reads no other ones where it is the base too."""
        before = self.base_env, self.env
        self.base_env = self.env = self.default_run_env
        try:
            return dict(super().__getitem__(key))
        except MissingConfigException:  # a packaged project has no `conf/local`
            return {}
        finally:
            self.base_env, self.env = before
