from __future__ import annotations

import hashlib
import json
import os
import stat

import pytest

from condvae.files import fingerprint, open_atomic, sha256_of_file, write_json


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
