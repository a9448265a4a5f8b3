from __future__ import annotations

import errno
import hashlib
import itertools
import json
import re
import socket
import time
from dataclasses import replace

import pytest

from condvae.transport import download
from condvae.transport.download import DownloadError, HashMismatchError, download_file
from condvae.transport.part import PartFile

OTHER_HASH = hashlib.sha256(b"another file").hexdigest()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "cache" / "model.th"


@pytest.fixture
def get(remote, target, patience):
    def run(**options):
        options = {"patience": patience, **options}
        return download_file(options.pop("address", remote.address), target, **options)

    return run


def leftovers(target):
    return sorted(p.name for p in target.parent.iterdir() if p != target)


def assert_whole(remote, target, done=None):
    assert target.read_bytes() == remote.content
    assert leftovers(target) == []
    if done is not None:
        assert (done.sha256, done.size) == (remote.sha256, len(remote.content))


def cut_for_good(get, remote, patience, at):
    """A first call whose only attempt is cut after `at` bytes."""
    remote.cuts = [at]
    with pytest.raises(DownloadError):
        get(patience=replace(patience, attempts=1, least_bytes_per_second=1e9))
    remote.requests.clear()
    remote.served = 0


def test_whole_file_with_progress(get, remote, target):
    seen = []
    done = get(sha256=remote.sha256, progress=lambda there, total: seen.append((there, total)))
    assert_whole(remote, target, done)
    assert len(remote.requests) == 1
    assert "Range" not in remote.requests[0]
    assert remote.requests[0]["Accept-Encoding"] == "identity"
    assert {total for _, total in seen} == {len(remote.content)}
    there = [n for n, _ in seen]
    assert there == sorted(there)
    assert (there[0], there[-1]) == (0, len(remote.content))


def test_empty_file(get, remote, target):
    remote.content = b""
    assert_whole(remote, target, get())


def test_old_file_is_replaced_only_by_a_whole_one(get, remote, target):
    target.parent.mkdir()
    target.write_bytes(b"old")
    with pytest.raises(HashMismatchError):
        get(sha256=OTHER_HASH)
    assert target.read_bytes() == b"old"
    get()
    assert_whole(remote, target)


@pytest.mark.parametrize("by_date", [False, True])
def test_cut_connection_is_continued_in_the_same_call(get, remote, target, by_date):
    if by_date:
        remote.etag, remote.date = None, 1_600_000_000
    remote.cuts = [100_000, 150_000]
    done = get(sha256=remote.sha256)
    assert_whole(remote, target, done)
    assert remote.asked_ranges() == [None, "bytes=100000-", "bytes=250000-"]
    assert remote.requests[1]["If-Range"] == remote.validator
    assert remote.served == len(remote.content)


def test_cut_download_is_continued_by_the_next_call(get, remote, target, patience):
    cut_for_good(get, remote, patience, 123_456)
    assert leftovers(target) == ["model.th.part", "model.th.part.json"]
    done = get()
    assert_whole(remote, target, done)
    assert remote.asked_ranges() == ["bytes=123456-"]
    assert remote.served == len(remote.content) - 123_456


def test_whole_part_left_by_a_kill_before_the_rename_needs_no_request(get, remote, target):
    part = PartFile(target)
    part.begin(remote.address, remote.etag, len(remote.content))
    part.path.write_bytes(remote.content)
    assert_whole(remote, target, get(sha256=remote.sha256))
    assert remote.requests == []


def test_progress_that_is_slow_but_steady_may_be_cut_more_often_than_the_attempts(
    get, remote, target
):
    remote.cuts = [30_000] * 9
    assert_whole(remote, target, get())
    assert len(remote.requests) == 10


def test_giving_up_names_the_reason_and_what_is_kept(get, remote, target, patience):
    remote.cuts = [50, 50, 50]
    with pytest.raises(DownloadError) as caught:
        get()
    message = str(caught.value)
    assert message.startswith(f"{remote.address}: ")
    assert "IncompleteRead" in message
    assert "(3 attempts; 150 bytes are kept, the same call goes on from there)" in message
    assert not target.exists()
    assert len(remote.requests) == 3


def test_nothing_is_said_to_be_kept_that_cannot_be_continued(get, remote):
    remote.etag = None
    remote.cuts = [50, 50, 50]
    with pytest.raises(DownloadError, match=r"\(3 attempts\)"):
        get()


def test_server_that_ignores_ranges_sends_the_file_anew(get, remote, target):
    remote.ranges = False
    remote.cuts = [100_000]
    assert_whole(remote, target, get(sha256=remote.sha256))
    assert remote.asked_ranges() == [None, "bytes=100000-"]
    assert remote.served == 100_000 + len(remote.content)


def test_without_etag_and_date_nothing_is_continued(get, remote, target):
    remote.etag = None
    remote.cuts = [100_000]
    assert_whole(remote, target, get(sha256=remote.sha256))
    assert remote.asked_ranges() == [None, None]


def test_weak_etag_is_no_reason_to_continue(get, remote, target):
    remote.etag = 'W/"about the same"'
    remote.cuts = [100_000]
    assert_whole(remote, target, get())
    assert remote.asked_ranges() == [None, None]


@pytest.mark.parametrize("honours_if_range", [True, False])
@pytest.mark.parametrize("longer", [True, False])
def test_changed_file_is_not_glued_to_the_old_part(
    get, remote, target, patience, honours_if_range, longer
):
    cut_for_good(get, remote, patience, 100_000)
    remote.content = remote.content[::-1] + (b"more" if longer else b"")
    remote.etag = '"version two"'
    remote.honours_if_range = honours_if_range
    assert_whole(remote, target, get())


@pytest.mark.parametrize("change", ["length", "etag"])
def test_either_of_length_and_etag_is_enough_to_notice_a_change(
    get, remote, target, patience, change
):
    cut_for_good(get, remote, patience, 100_000)
    remote.content = remote.content[::-1] + (b"more" if change == "length" else b"")
    remote.etag = '"version two"' if change == "etag" else remote.etag
    remote.honours_if_range = False
    assert_whole(remote, target, get())
    assert remote.asked_ranges() == ["bytes=100000-", None]


def test_file_that_became_shorter_than_the_part(get, remote, target, patience):
    cut_for_good(get, remote, patience, 100_000)
    remote.content, remote.honours_if_range = remote.content[:5000], False
    assert_whole(remote, target, get())


def test_part_of_another_address_is_not_continued(get, remote, target):
    part = PartFile(target)
    part.begin("http://elsewhere/model.th", remote.etag, len(remote.content))
    part.path.write_bytes(b"x" * 1000)
    assert_whole(remote, target, get())
    assert remote.asked_ranges() == [None]


@pytest.mark.parametrize("facts", [None, "{", "[]", '{"address": "x"}', "too long"])
def test_part_without_usable_facts_is_not_continued(get, remote, target, facts):
    target.parent.mkdir()
    part = PartFile(target)
    part.path.write_bytes(b"x" * 1000)
    if facts == "too long":
        facts = json.dumps({"address": remote.address, "validator": remote.etag, "total": 999})
    if facts is not None:
        part.facts.write_text(facts)
    assert_whole(remote, target, get())
    assert remote.asked_ranges() == [None]


def test_wrong_hash_keeps_nothing_and_names_both(get, remote, target):
    with pytest.raises(HashMismatchError) as caught:
        get(sha256=OTHER_HASH)
    assert remote.sha256 in str(caught.value)
    assert OTHER_HASH in str(caught.value)
    assert list(target.parent.iterdir()) == []
    assert len(remote.requests) == 1


def test_hash_covers_the_part_that_was_there_before(get, remote, target, patience):
    cut_for_good(get, remote, patience, 100_000)
    part = PartFile(target).path
    data = bytearray(part.read_bytes())
    data[50_000] ^= 1
    part.write_bytes(data)
    # The damaged beginning is thrown away and the file fetched once more from the start.
    assert_whole(remote, target, get(sha256=remote.sha256))
    assert remote.asked_ranges() == ["bytes=100000-", None]


@pytest.mark.parametrize("status", [404, 403, 410])
def test_refusal_is_final(get, remote, target, status):
    remote.statuses = [status]
    with pytest.raises(DownloadError, match=f"{remote.address}: the server answers {status} "):
        get()
    assert len(remote.requests) == 1
    assert list(target.parent.glob("*")) == []


@pytest.mark.parametrize("status", [500, 503, 429])
def test_trouble_of_the_server_is_waited_for(get, remote, target, status):
    remote.statuses = [status, status]
    assert_whole(remote, target, get())
    assert len(remote.requests) == 3


def test_pauses_double_and_have_a_limit(get, remote, patience, monkeypatch):
    pauses = []
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    remote.statuses = [503] * 9
    with pytest.raises(DownloadError, match=r"503 .*\(9 attempts\)"):
        get(patience=replace(patience, attempts=9, pause_seconds=1.0))
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


@pytest.mark.parametrize(("asked", "pause"), [("7", 7), ("600", 60), ("soon", 1), (None, 1)])
def test_a_pause_that_the_server_asks_for_is_made(get, remote, patience, monkeypatch, asked, pause):
    pauses = []
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    remote.statuses, remote.retry_after = [429], asked
    get(patience=replace(patience, pause_seconds=1.0))
    assert pauses == [pause]


def test_trouble_in_between_does_not_lose_the_part(get, remote, target, patience):
    cut_for_good(get, remote, patience, 100_000)
    remote.statuses = [503]
    assert_whole(remote, target, get())
    assert remote.asked_ranges() == ["bytes=100000-"] * 2


def test_redirect_is_followed_also_for_the_rest(get, remote, target):
    remote.location = f"{remote.host}/elsewhere.th"
    remote.cuts = [100_000]
    assert_whole(remote, target, get(sha256=remote.sha256))
    assert remote.asked_ranges() == [None, None, "bytes=100000-", "bytes=100000-"]


def test_redirect_in_a_circle_is_final(get, remote, target):
    remote.location = remote.address
    with pytest.raises(DownloadError, match="30 redirects"):
        get()


def test_redirect_away_from_encryption_is_refused(monkeypatch, tmp_path, remote):
    class Response:
        status_code, url = 200, "http://somewhere/model.th"
        history = ()

    with pytest.raises(DownloadError, match=r"leads to http://somewhere/model\.th, which is not"):
        download._check_answer("https://host/model.th", Response(), PartFile(tmp_path / "model.th"))


def test_slow_drip_is_given_up_in_time_and_goes_on_from_there(get, remote, target, patience):
    remote.drip = 0.01
    start = time.monotonic()
    with pytest.raises(
        DownloadError, match=r"only \d+ bytes per second over 0\.[23]\d* s"
    ) as caught:
        get()
    assert time.monotonic() - start < 5
    kept = int(re.search(r"(\d+) bytes are kept", str(caught.value))[1])
    assert 3 < kept < 500
    asked = [int(r.removeprefix("bytes=").removesuffix("-")) for r in remote.asked_ranges()[1:]]
    assert len(asked) == 2
    assert 0 < asked[0] < asked[1] < kept
    remote.drip = None
    assert_whole(remote, target, get(sha256=remote.sha256))
    assert remote.asked_ranges()[-1] == f"bytes={kept}-"


def test_silence_is_given_up(get, remote, patience):
    remote.drip = 5.0
    with pytest.raises(DownloadError, match=r"[Rr]ead timed out"):
        get(patience=replace(patience, silence_seconds=0.2, attempts=1))


def test_unreachable_server(get, target, patience):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(DownloadError, match=r"ConnectionError: .*refused.* \(3 attempts\)"):
        get(address=f"http://127.0.0.1:{port}/model.th")
    assert not target.exists()


@pytest.mark.parametrize("address", ["model.th", "ftp://host/model.th"])
def test_address_of_another_kind_is_final(get, address):
    with pytest.raises(DownloadError, match=address):
        get(address=address)


def test_answer_without_a_length_is_refused(get, remote, target):
    remote.states_length = False
    with pytest.raises(DownloadError, match="does not say how long the file is"):
        get()
    assert list(target.parent.glob("*")) == []


def test_encoded_answer_is_refused(get, remote, target):
    remote.encoding = "gzip"
    with pytest.raises(DownloadError, match="sent as 'gzip'"):
        get()
    assert not target.exists()


class FullDisk:
    """A file that takes some bytes and then none."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, data):
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = self.file.write(data[: self.room])  # a nearly full disk takes a part
        self.room -= taken
        return taken


@pytest.mark.parametrize("room", [0, 100_001])
def test_full_disk_is_said_and_leaves_nothing(get, remote, target, monkeypatch, room):
    appending = PartFile.appending
    monkeypatch.setattr(PartFile, "appending", lambda self: FullDisk(appending(self), room))
    with pytest.raises(DownloadError) as caught:
        get()
    message = str(caught.value)
    assert message.startswith(f"{target.parent} is full: {len(remote.content)} bytes are needed, ")
    assert "was removed" in message
    assert list(target.parent.iterdir()) == []
    assert len(remote.requests) == 1
    monkeypatch.undo()
    assert_whole(remote, target, get())


def test_disk_that_is_full_only_when_flushed(get, target, monkeypatch):
    def refuse(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("condvae.transport.part.os.fsync", refuse)
    with pytest.raises(DownloadError, match="is full"):
        get()
    assert list(target.parent.iterdir()) == []


def test_disk_that_takes_little_at_a_time_gets_every_byte(get, remote, target, monkeypatch):
    class Reluctant(FullDisk):
        def write(self, data):
            return self.file.write(data[: next(sizes)])

    sizes = itertools.cycle([1000, 7, 50_000])
    appending = PartFile.appending
    monkeypatch.setattr(PartFile, "appending", lambda self: Reluctant(appending(self), 0))
    assert_whole(remote, target, get(sha256=remote.sha256))


def test_folder_that_cannot_be_made(get, target):
    target.parent.write_bytes(b"a file")
    with pytest.raises(DownloadError, match="cannot be used"):
        get()
