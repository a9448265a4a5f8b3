from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys

import pytest
import torch

from condvae.ground.files import fingerprint, open_atomic, sha256_of_file, write_json


def test_new_file_in_a_new_folder(tmp_path):
    path = tmp_path / "a" / "b" / "file.bin"
    with open_atomic(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert os.listdir(path.parent) == ["file.bin"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def write_half(path, error):
    with open_atomic(path) as file:
        file.write(b"half of the new")
        raise error


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_old_file_stays_when_the_block_raises(tmp_path, error):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with pytest.raises(type(error)):
        write_half(path, error)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


def test_no_file_when_the_first_write_raises(tmp_path):
    with pytest.raises(RuntimeError, match="stop"):
        write_half(tmp_path / "new", RuntimeError("stop"))
    assert os.listdir(tmp_path) == []


def test_old_file_stays_when_the_disk_is_full_at_the_flush(tmp_path, monkeypatch):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"), open_atomic(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


def test_bytes_are_on_the_disk_before_the_rename(tmp_path, monkeypatch):
    events = []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda d: (events.append("fsync"), fsync(d))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("rename"), replace(a, b))[1])
    with open_atomic(tmp_path / "file") as file:
        file.write(b"x")
    assert events[:2] == ["fsync", "rename"]


@pytest.mark.parametrize("links", [True, False])
def test_file_that_another_writer_has_put_there_meanwhile_is_kept(tmp_path, monkeypatch, links):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    for content in (b"first", b"second"):
        with open_atomic(tmp_path / "a", keep=True) as file:
            file.write(content)
    assert (tmp_path / "a").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["a"]


def test_write_json_round_trip_and_no_nan(tmp_path):
    path = tmp_path / "card.json"
    write_json(path, {"a": [1, None, 0.5]})
    assert json.loads(path.read_text()) == {"a": [1, None, 0.5]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": [1, None, 0.5]}


def test_sha256_of_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert sha256_of_file(path) == hashlib.sha256(b"abc").hexdigest()
    assert sha256_of_file(path).startswith("ba7816bf")


def test_fingerprint_ignores_key_order_only():
    value = {"a": 1, "b": {"c": [1, 2], "d": None}}
    assert fingerprint(value) == fingerprint({"b": {"d": None, "c": [1, 2]}, "a": 1})
    for other in (
        {"a": 2, "b": {"c": [1, 2], "d": None}},
        {"a": 1, "b": {"c": [2, 1], "d": None}},
        {"a": "1", "b": {"c": [1, 2], "d": None}},
    ):
        assert fingerprint(value) != fingerprint(other)
    with pytest.raises(ValueError, match="JSON"):
        fingerprint({"a": float("inf")})


@pytest.fixture
def folder_of_a_killed_writer(tmp_path):
    """A folder with the temporary file of a process that was killed while it wrote."""
    code = (
        "import os, signal, sys; from condvae.ground.files import open_atomic\n"
        "with open_atomic(sys.argv[1]) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "file.bin"], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.read_bytes() == b"half"
    return tmp_path


@pytest.mark.skipif(os.name != "posix", reason="file locks and SIGKILL")
def test_next_writing_removes_what_a_kill_left(folder_of_a_killed_writer):
    with open_atomic(folder_of_a_killed_writer / "other.bin") as file:
        file.write(b"whole")
    assert os.listdir(folder_of_a_killed_writer) == ["other.bin"]


@pytest.mark.skipif(os.name != "posix", reason="file locks")
def test_temporary_file_of_a_living_writer_stays(tmp_path):
    with open_atomic(tmp_path / "file.bin") as file:
        file.write(b"slow")
        file.flush()
        code = "import sys; from condvae.ground.files import write_json; write_json(sys.argv[1], 1)"
        subprocess.run([sys.executable, "-c", code, tmp_path / "other.json"], check=True)
    assert (tmp_path / "file.bin").read_bytes() == b"slow"
    assert (tmp_path / "other.json").read_text() == "1\n"


@pytest.fixture
def small_disk():
    """A system that refuses what would make a file longer than 1 MiB, as a full disk does."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "write",
    [
        lambda file: file.write(bytes(2**21)),
        lambda file: torch.save({"weight": torch.zeros(2**20)}, file),  # in words of its own
    ],
    ids=["bytes", "torch.save"],
)
def test_refusal_of_the_system_leaves_the_old_file_and_names_it(tmp_path, small_disk, write):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="File too large") as caught, open_atomic(path) as file:
        write(file)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["checkpoint.pt"]
