from __future__ import annotations

import hashlib

import pytest

from condvae.ground.configuration import ConfigurationError
from condvae.transport.download import HashMismatchError, download_file
from condvae.transport.lock import LOCK_FILE, read_pins
from condvae.transport.published import PublishedFile, expected_sha256, obtain_file, pin_file

OTHER_MD5 = "0" * 32


@pytest.fixture
def md5(remote):
    return hashlib.md5(remote.content).hexdigest()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "model.th"


@pytest.fixture
def obtain(remote, target, patience):
    def run(address=remote.address, **facts):
        file = PublishedFile("model", address, **facts)
        obtained = obtain_file(file, target, patience=patience, progress=lambda *_: None)
        pin_file(file, target, obtained)
        return obtained.sha256

    return run


def test_download_with_md5(remote, target, patience, md5):
    download_file(remote.address, target, md5=md5, patience=patience)
    assert target.read_bytes() == remote.content


def test_download_with_another_md5_is_not_kept(remote, target, patience, md5):
    with pytest.raises(HashMismatchError, match=f"has md5 {md5}, expected {OTHER_MD5}; nothing"):
        download_file(remote.address, target, md5=OTHER_MD5, patience=patience)
    assert list(target.parent.iterdir()) == []


def test_right_sha256_does_not_excuse_another_md5(remote, target, patience):
    with pytest.raises(HashMismatchError, match="md5"):
        download_file(
            remote.address, target, sha256=remote.sha256, md5=OTHER_MD5, patience=patience
        )
    assert not target.exists()


def test_continued_download_with_another_md5_begins_anew(remote, target, patience, md5):
    first = remote.content[:1000]
    remote.content, whole = b"x" * len(remote.content), remote.content
    remote.cuts = [1000]

    def swap(done, _):
        # The server cheats: other bytes under the same ETag.
        if done == 1000:
            remote.content = whole

    assert first != remote.content[:1000]
    download_file(remote.address, target, md5=md5, patience=patience, progress=swap)
    assert target.read_bytes() == whole
    assert remote.asked_ranges() == [None, "bytes=1000-", None]


def test_md5_stands_in_for_a_missing_sha256_and_is_pinned(obtain, remote, target, md5):
    assert obtain(md5=md5) == remote.sha256
    assert read_pins(target.parent)["model"].sha256 == remote.sha256
    file = PublishedFile("model", None, md5=md5)
    assert expected_sha256(file, target.parent)[0] == remote.sha256


def test_file_there_with_another_md5(obtain, remote, target, md5):
    target.write_bytes(b"other")
    with pytest.raises(ConfigurationError, match=rf"has md5 \w+, expected {md5} \(its card\)"):
        obtain(md5=md5)
    assert remote.requests == []
    assert not (target.parent / LOCK_FILE).exists()


def test_file_without_an_address(obtain, remote, target):
    with pytest.raises(ConfigurationError, match=r"model: .*model\.th is missing and has no addre"):
        obtain(address=None)
    target.write_bytes(remote.content)
    assert obtain(address=None) == remote.sha256
    assert read_pins(target.parent)["model"].address == "by hand"


def test_lock_files_of_other_names(obtain, target, remote):
    obtain(lock_file="other.json")
    assert read_pins(target.parent) == {}
    assert set(read_pins(target.parent, "other.json")) == {"model"}


def test_obtaining_alone_pins_nothing(remote, target, patience):
    file = PublishedFile("model", remote.address)
    obtained = obtain_file(file, target, patience=patience, progress=lambda *_: None)
    assert (obtained.sha256, obtained.origin) == (remote.sha256, remote.address)
    assert read_pins(target.parent) == {}


def test_stated_hash_is_not_pinned(obtain, remote, target):
    obtain(sha256=remote.sha256)
    assert read_pins(target.parent) == {}


def test_size_is_asked_only_where_no_hash_is(obtain, remote, md5):
    assert obtain(md5=md5, megabytes=500) == remote.sha256


def test_page_of_a_login_portal_is_not_kept(obtain, remote, target):
    with pytest.raises(ConfigurationError, match=r"about 500 MB: cut short.* and not kept"):
        obtain(megabytes=500)
    assert not target.exists()
