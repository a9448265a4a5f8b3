"""An unfinished download: the bytes that are there, and which remote file they are part of."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from condvae.ground.files import write_json

__all__ = ["PartFile", "git_id_of_file", "md5_of_file", "validator_of"]


class PartFile:
    """``NAME.part`` and ``NAME.part.json`` beside the file they will become.

    Attributes:
        path: The unfinished file.
        size: Bytes that are there.
        total: Bytes of the whole file, 0 while unknown.
        validator: What tells this version of the remote file from others; empty when the server
            gives nothing: then the part cannot be continued.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self.facts = target.with_name(f"{target.name}.part.json")
        self.validator = ""
        self.total = 0
        self.size = self.path.stat().st_size if self.path.is_file() else 0

    def open_for(self, address: str) -> int:
        """Bytes that may be kept for a download of `address`; whatever may not is removed."""
        try:
            facts: Any = json.loads(self.facts.read_text())
            self.validator, self.total = str(facts["validator"]), int(facts["total"])
            self.size = self.path.stat().st_size
            usable = facts["address"] == address and self.validator and self.size <= self.total
        except (OSError, ValueError, KeyError, TypeError):
            usable = False
        if not usable:
            self.discard()
        return self.size

    def begin(self, address: str, validator: str, total: int) -> None:
        """Start an empty part. The old bytes go first: new facts must never describe them."""
        self.discard()
        self.target.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.facts, {"address": address, "validator": validator, "total": total})
        self.validator, self.total = validator, total

    def continues(self, headers: Mapping[str, str]) -> bool:
        """Whether an answer to a range request carries the missing rest of this very file."""
        span = headers.get("Content-Range", "").strip()
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", span)
        expected = (self.size, self.total - 1, self.total)
        return (
            match is not None
            and tuple(map(int, match.groups())) == expected
            and validator_of(headers) == self.validator
        )

    def appending(self) -> IO[bytes]:
        """The part, open for more bytes; unbuffered, so that `size` is what is in the file."""
        return self.path.open("ab", buffering=0)

    def digest(self) -> Any:
        """A sha256 object that has seen the bytes that are there."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256")

    def discard(self) -> None:
        """Remove the part."""
        self.path.unlink(missing_ok=True)
        self.facts.unlink(missing_ok=True)
        self.validator, self.total, self.size = "", 0, 0

    def finish(self) -> None:
        """Put the part, whole and on the disk, in its target's place."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        os.chmod(self.path, 0o644)
        os.replace(self.path, self.target)
        self.facts.unlink(missing_ok=True)


def md5_of_file(path: Path) -> str:
    """Return the hexadecimal md5 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def git_id_of_file(path: Path) -> str:
    """Return the hexadecimal id that git gives to a file's bytes: a sha1 with its size in front."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: digest).hexdigest()


def validator_of(headers: Mapping[str, str]) -> str:
    """A strong ETag, else the date of the last change, else nothing."""
    etag = headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return headers.get("Last-Modified", "")
