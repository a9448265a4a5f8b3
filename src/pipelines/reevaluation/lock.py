"""One re-evaluation of a project at a time."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from condvae.ground.configuration import ConfigurationError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

__all__ = ["hold"]

POLL_SECONDS = 0.2

log = logging.getLogger(__name__)


def hold(path: Path, wait_seconds: float, command: str) -> IO[str]:
    """Take the lock, waiting for the process that has it; a killed process no longer has it.

    Args:
        path: The lock file; it says who holds it.
        wait_seconds: So long, in seconds; then it is given up.
        command: Of this process, for those who wait.

    Returns:
        The open file. Closing it, or the end of the process, gives the lock back.

    Raises:
        ConfigurationError: Another process had it all the time; the message says which.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+")
    started, waiting = time.monotonic(), False
    while fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() - started >= wait_seconds:
                holder = _read_holder(path)
                file.close()
                raise ConfigurationError(
                    f"another re-evaluation of this project is running ({holder}) and was not done "
                    f"within reevaluate.wait_seconds = {wait_seconds:g}: nothing was done"
                ) from None
            if not waiting:
                log.info("waiting for another re-evaluation: %s", _read_holder(path))
                waiting = True
            time.sleep(POLL_SECONDS)
    file.truncate(0)
    entry = {
        "pid": os.getpid(),
        "host": platform.node(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
    }
    file.write(json.dumps(entry))
    file.flush()
    return file


def _read_holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        return (
            f"process {holder['pid']} on {holder['host']}, since {holder['since']}: "
            f"{holder['command']}"
        )
    except (OSError, ValueError, KeyError, TypeError):  # it has taken the lock this instant
        return "a process that has just begun"
