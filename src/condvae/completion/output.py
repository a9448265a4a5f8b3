"""The folder of results: usable, and one process's at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import locked

__all__ = ["LOCK", "locked_output"]

LOCK = ".lock"


@contextlib.contextmanager
def locked_output(output: Path) -> Iterator[None]:
    """Make the folder and keep other processes out; the lock ends with the block or the process.

    Raises:
        ConfigurationError: It cannot be made or written, or another process completes into it.
    """
    with contextlib.ExitStack() as held:
        try:
            output.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(output / LOCK))
        except BlockingIOError:
            raise ConfigurationError(
                f"output = {str(output)!r} is in use by another process; wait for it or choose "
                "another output"
            ) from None
        except OSError as error:
            raise ConfigurationError(
                f"output = {str(output)!r}: expected a folder that can be written "
                f"({error.strerror or error})"
            ) from error
        yield
