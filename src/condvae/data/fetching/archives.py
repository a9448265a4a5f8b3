"""Unpack tar, zip and gz so that nothing leaves its folder, fills the disk or goes missing unnoticed.

Nothing is taken from an archive but names and bytes: no links, no devices, no owners, no modes. An
archive is read once, front to back; whatever is wrong with it shows while it is unpacked, so the
folder is to be thrown away when that fails.
"""

from __future__ import annotations

import contextlib
import gzip
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from condvae.data.fetching.names import ArchiveError, NameBook, checked_path
from condvae.transport.download import Progress

__all__ = ["SUFFIXES", "ArchiveError", "Limits", "Unpacker"]

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip", ".gz")
CHUNK = 1 << 20
# The headers of a member are read at once; no honest one comes near this.
LARGEST_READ = 1 << 24
# Small archives of text or empty pictures may shrink more than the ratio allows.
ALWAYS_ALLOWED_BYTES = 1 << 24
TAR_BLOCK = 512
ENCRYPTED = 1


@dataclass(frozen=True)
class Limits:
    """How much may come out of the archives of one data set.

    Attributes:
        total_bytes: Of all of them.
        members: Files and folders of all of them.
        ratio: Bytes that come out of one archive for each byte of it, beyond the first 16 MiB.
            Pictures hardly shrink; deflate cannot go beyond about 1000.
    """

    total_bytes: int = 500 * 10**9
    members: int = 1_000_000
    ratio: float = 100.0


class Unpacker:
    """Writes the members of archives into one folder; names and limits hold for all of them together.

    Attributes:
        names: The names taken so far.
        bytes: Bytes that came out so far.
    """

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        self.names = NameBook()
        self.bytes = 0
        self._folder = folder
        self._limits = limits or Limits()
        self._members = 0

    def unpack(self, archive: Path, progress: Progress | None = None) -> None:
        """Write all members of one archive.

        Args:
            archive: Its name ends in one of `SUFFIXES`.
            progress: Called with bytes read and bytes of the archive.

        Raises:
            ArchiveError: It is damaged or cut, or holds what must not be unpacked.
            OSError: The disk is full, say.
        """
        meter = _Meter(self, archive, self._limits, progress)
        with _errors_of(archive), archive.open("rb") as file:
            meter.file = file
            if not archive.stat().st_size:  # gzip takes nothing for an empty file
                raise ArchiveError("cut short to nothing")
            if archive.name.endswith((".tar.gz", ".tgz")):
                with gzip.GzipFile(fileobj=file) as plain:
                    self._unpack_tar(plain, meter)
            elif archive.name.endswith(".tar"):
                self._unpack_tar(file, meter)
            elif archive.name.endswith(".zip"):
                self._unpack_zip(file, meter)
            elif archive.name.endswith(".gz"):
                with gzip.GzipFile(fileobj=file) as plain:
                    path = self._admit(archive.name.removesuffix(".gz"))
                    self._write(path, _Counted(plain, meter))
            else:
                raise ArchiveError(f"expected a name that ends in {', '.join(SUFFIXES)}")

    def _unpack_tar(self, file: Any, meter: _Meter) -> None:
        stream = _OnePass(_Counted(file, meter))
        # The mode without a compression: tarfile then reads nothing but what it is given here.
        with tarfile.open(fileobj=stream, mode="r:") as tar:  # type: ignore[call-overload]
            while (member := tar.next()) is not None:
                tar.members = []  # it would remember every one
                if not (member.isreg() or member.isdir()) or member.issparse():
                    raise ArchiveError(f"member {member.name!r}: {_kind_of(member)}")
                path = self._admit(member.name, is_folder=member.isdir())
                # The interpreter's own judgement, beside the stricter one above.
                tarfile.data_filter(member, str(self._folder))
                source = tar.extractfile(member)
                if source is not None:
                    self._write(path, source)
        stream.check_end()

    def _unpack_zip(self, file: IO[bytes], meter: _Meter) -> None:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            meter.check(sum(member.file_size for member in members))
            for member in members:
                mode = member.external_attr >> 16
                if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise ArchiveError(f"member {member.filename!r}: a link or a special file")
                if member.flag_bits & ENCRYPTED:
                    raise ArchiveError(f"member {member.filename!r}: encrypted")
                # zipfile cuts names at a NUL.
                path = self._admit(member.orig_filename, is_folder=member.is_dir())
                if not member.is_dir():
                    with archive.open(member) as source:
                        self._write(path, _Counted(source, meter))

    def _admit(self, name: str, *, is_folder: bool = False) -> PurePosixPath:
        """Check a member's name and count it; make its folder."""
        path = checked_path(name)
        self._members += 1
        if self._members > self._limits.members:
            raise ArchiveError(f"more than {self._limits.members} members")
        if path.parts:
            self.names.add(path, is_folder=is_folder)
        elif not is_folder:
            raise ArchiveError(f"member {name!r}: a file without a name")
        target = self._folder / path
        (target if is_folder else target.parent).mkdir(parents=True, exist_ok=True)
        return path

    def _write(self, path: PurePosixPath, source: Any) -> None:
        with (self._folder / path).open("xb") as file:
            while data := source.read(CHUNK):
                file.write(data)


class _Meter:
    """Counts what comes out of one archive."""

    def __init__(
        self, unpacker: Unpacker, archive: Path, limits: Limits, progress: Progress | None
    ) -> None:
        self.file: IO[bytes] | None = None
        self._unpacker = unpacker
        self._size = archive.stat().st_size
        self._before = unpacker.bytes
        self._limits = limits
        self._largest = max(ALWAYS_ALLOWED_BYTES, limits.ratio * self._size)
        self._progress = progress

    def add(self, count: int) -> None:
        """Count some more bytes."""
        self._unpacker.bytes += count
        self.check(self._unpacker.bytes - self._before)
        if self._progress is not None and self.file is not None:
            self._progress(self.file.tell(), self._size)

    def check(self, count: int) -> None:
        """Raise when `count` bytes are too many for this archive."""
        if count > self._largest:
            raise ArchiveError(
                f"{self._size} bytes become more than {self._largest:.0f}: not an honest archive"
            )
        if self._before + count > self._limits.total_bytes:
            raise ArchiveError(f"more than {self._limits.total_bytes} bytes in all")


class _Counted:
    """A file whose reads are counted."""

    def __init__(self, file: Any, meter: _Meter) -> None:
        self._file = file
        self._meter = meter

    def read(self, count: int) -> bytes:
        data: bytes = self._file.read(count)
        self._meter.add(len(data))
        return data


class _OnePass:
    """What tarfile reads from: front to back only, in pieces of reasonable size.

    tarfile takes a damaged header, and a cut between two members, for the end of the archive; this
    remembers what it saw last.
    """

    def __init__(self, file: _Counted) -> None:
        self._file = file
        self._position = 0
        self._last = b""

    def tell(self) -> int:
        return self._position

    def read(self, count: int) -> bytes:
        if not 0 <= count <= LARGEST_READ:
            raise ArchiveError(f"a header of {count} bytes at byte {self._position}")
        pieces: list[bytes] = []
        while count and (data := self._file.read(count)):
            pieces.append(data)
            count -= len(data)
        self._last = b"".join(pieces)
        self._position += len(self._last)
        return self._last

    def seek(self, position: int) -> None:
        if position < self._position:
            raise ArchiveError(f"leads back to byte {position}")
        while self._position < position:
            if not self.read(min(CHUNK, position - self._position)):
                raise ArchiveError("cut short")

    def check_end(self) -> None:
        """Raise unless the archive ends as archives do: with zeros, down to the last byte."""
        if self._last != bytes(TAR_BLOCK):
            raise ArchiveError(f"cut short or damaged at byte {self._position}")
        while data := self.read(CHUNK):  # to the end, where gzip has its checksum
            if data.strip(b"\0"):
                raise ArchiveError(f"something follows its end, at byte {self._position}")


def _kind_of(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return f"a link to {member.linkname!r}"
    return "a sparse file" if member.issparse() else "a device or another special file"


@contextlib.contextmanager
def _errors_of(archive: Path) -> Iterator[None]:
    """Name the archive in the errors of all the libraries that read it."""
    try:
        yield
    except ArchiveError as error:
        raise ArchiveError(f"{archive}: {error}") from error
    except _DAMAGED as error:
        raise ArchiveError(f"{archive}: damaged or cut short ({error})") from error


_DAMAGED = (
    EOFError,
    OverflowError,  # tarfile and zipfile: absurd numbers in headers
    RuntimeError,  # zipfile: a compression it does not know; tarfile: headers of headers of headers
    ValueError,
    struct.error,
    gzip.BadGzipFile,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
