from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys

import pytest

from condvae.data.fetching import check_licence, fetch_dataset
from condvae.data.fetching.store import LOCK_FILE
from condvae.data.fetching.trees import MARKER
from condvae.ground.configuration import ConfigurationError
from condvae.transport.lock import read_pins

PICTURES = [(f"top/{i}.png", hashlib.sha256(bytes([i])).digest() * 400) for i in range(20)]
LIST = b"0.png train\n1.png test\n"
OTHER = "0" * 64


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def archive(make_tar):
    return make_tar(PICTURES)


@pytest.fixture
def register(site, archive, write_cards):
    """Registers `faces`: an archive and a list on the server; arguments change the card."""
    site.files = {"faces.tar.gz": archive, "list.txt": LIST}

    def write(archive_facts=None, list_facts=None, **changes):
        first = {"name": "faces.tar.gz", "address": f"{site.host}/faces.tar.gz", "unpack": True}
        second = {"name": "list.txt", "address": f"{site.host}/list.txt"}
        first |= {"sha256": sha256(archive)} if archive_facts is None else archive_facts
        second |= {"md5": md5(LIST)} if list_facts is None else list_facts
        card = {
            "description": "A test.",
            "page": "https://host/faces",
            "licence": "MIT",
            "files": [first, second],
        }
        write_cards(faces=card | changes)

    write()
    return write


@pytest.fixture
def home(tmp_path):
    return tmp_path / "raw" / "faces"


@pytest.fixture
def fetch(register, home, patience):
    def run(**options):
        options = {"patience": patience, "progress": lambda *_: None} | options
        return fetch_dataset("faces", home.parent, **options)

    return run


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


WHOLE = ["faces.tar.gz", LOCK_FILE, "list.txt", "unpacked"]


def assert_whole(path, home):
    assert path == home / "unpacked"
    assert visible(home) == WHOLE
    assert {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*.png")} == dict(
        PICTURES
    )
    assert (path / "list.txt").read_bytes() == LIST


def test_whole_data_set(fetch, home, site):
    assert_whole(fetch(), home)
    assert site.paths() == ["faces.tar.gz", "list.txt"]


def test_second_call_asks_nobody_and_reads_no_archive(fetch, home, site):
    fetch()
    (home / "faces.tar.gz").unlink()
    assert fetch() == home / "unpacked"
    assert len(site.requests) == 2


def test_path_inside_what_was_unpacked(fetch, register, home):
    register(path="top")
    assert fetch() == home / "unpacked" / "top"


def test_files_that_are_not_unpacked(fetch, register, home, site):
    register(
        files=[{"name": "list.txt", "address": f"{site.host}/list.txt", "sha256": sha256(LIST)}],
        path="list.txt",
    )
    assert fetch() == home / "list.txt"
    assert visible(home) == ["list.txt"]
    (home / "list.txt").write_bytes(b"damaged")
    with pytest.raises(ConfigurationError, match="has sha256"):
        fetch()


def test_cut_download_is_resumed_in_one_call(fetch, home, site):
    site.cuts = [1000]
    assert_whole(fetch(), home)
    assert site.requests[:2] == [("faces.tar.gz", None), ("faces.tar.gz", "bytes=1000-")]


def test_cut_download_is_resumed_by_the_next_call(fetch, home, site):
    site.cuts = [1000, 500]
    with pytest.raises(ConfigurationError, match=r"faces could not be fetched: .*1500 bytes are k"):
        fetch()
    assert visible(home) == ["faces.tar.gz.part", "faces.tar.gz.part.json"]
    assert_whole(fetch(), home)
    assert site.requests[2] == ("faces.tar.gz", "bytes=1500-")


def test_redirect(fetch, home, site):
    site.redirects["faces.tar.gz"] = f"{site.host}/elsewhere"
    site.files["elsewhere"] = site.files.pop("faces.tar.gz")
    assert_whole(fetch(), home)
    assert site.paths()[:2] == ["faces.tar.gz", "elsewhere"]


def test_missing_on_the_server_says_which_files_go_where(fetch, home, site, archive):
    del site.files["list.txt"]
    with pytest.raises(ConfigurationError) as caught:
        fetch()
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"faces could not be fetched: {site.host}/list.txt: the server ans")
    assert "404" in lines[0]
    assert "from https://host/faces" in lines[0]
    assert lines[1:] == [f"  {site.host}/list.txt (md5 {md5(LIST)}) -> {home / 'list.txt'}"]
    assert visible(home) == ["faces.tar.gz"]


def test_offline_message_lists_every_file(fetch, register, home, archive):
    address = "http://127.0.0.1:1/"
    register(
        {"address": f"{address}faces.tar.gz", "sha256": sha256(archive), "megabytes": 0.25},
        {"address": f"{address}list.txt"},
    )
    with pytest.raises(ConfigurationError) as caught:
        fetch(allow_unpinned=True)
    lines = str(caught.value).splitlines()
    assert "refused" in lines[0]
    assert "they are checked the same way" in lines[0]
    assert lines[1:] == [
        f"  {address}faces.tar.gz (about 0.25 MB, sha256 {sha256(archive)}) -> "
        f"{home / 'faces.tar.gz'}",
        f"  {address}list.txt (no hash is published) -> {home / 'list.txt'}",
    ]


def test_size_says_nothing_beside_a_hash(fetch, register, home, archive):
    register({"address": None, "md5": md5(archive), "megabytes": 500})
    put_by_hand(home, archive)
    assert_whole(fetch(), home)


def test_page_of_a_login_portal_is_not_kept(fetch, register, home, site):
    register({"address": f"{site.host}/faces.tar.gz", "megabytes": 500})
    with pytest.raises(ConfigurationError, match=r"about 500 MB.* and not kept"):
        fetch(allow_unpinned=True)
    assert visible(home) == []


@pytest.mark.parametrize("facts", [{"sha256": OTHER}, {"md5": OTHER[:32]}])
def test_wrong_hash_is_not_kept(fetch, register, home, facts):
    register(facts)
    with pytest.raises(
        ConfigurationError,
        match=r"expected 0+; nothing was kept\. Stated by the data set's card: the file has changed",
    ):
        fetch()
    assert visible(home) == []


def test_md5_is_pinned_as_sha256(fetch, home):
    fetch()
    pins = read_pins(home, LOCK_FILE)
    assert {name: pin.sha256 for name, pin in pins.items()} == {"faces/list.txt": sha256(LIST)}


def test_unpinned_files_need_permission_once(fetch, register, home, site, archive):
    register({})
    with pytest.raises(ConfigurationError) as caught:
        fetch()
    assert "a hash of faces.tar.gz, so" in str(caught.value)
    assert "data.allow_unpinned: true" in str(caught.value)
    assert site.requests == []
    assert_whole(fetch(allow_unpinned=True), home)
    assert read_pins(home, LOCK_FILE)["faces/faces.tar.gz"].sha256 == sha256(archive)
    assert_whole(fetch(), home)


def test_pinned_archive_that_changed_is_refused(fetch, register, home, site, make_tar):
    register({})
    fetch(allow_unpinned=True)
    site.files["faces.tar.gz"] = make_tar([("evil.png", b"")])
    (home / "faces.tar.gz").unlink()
    (home / "unpacked").rename(home / "old")
    with pytest.raises(ConfigurationError, match="the file has changed where it is published"):
        fetch(allow_unpinned=True)
    assert not (home / "unpacked").exists()


def put_by_hand(home, archive, listed=LIST):
    home.mkdir(parents=True)
    (home / "faces.tar.gz").write_bytes(archive)
    (home / "list.txt").write_bytes(listed)


def test_files_put_there_by_hand_are_used(fetch, home, site, archive):
    put_by_hand(home, archive)
    assert_whole(fetch(), home)
    assert site.requests == []


def test_file_put_there_by_hand_beside_one_that_is_fetched(fetch, home, site, archive):
    put_by_hand(home, archive)
    (home / "list.txt").unlink()
    assert_whole(fetch(), home)
    assert site.paths() == ["list.txt"]


@pytest.mark.parametrize(
    ("cut", "listed", "message"),
    [
        (100, LIST, r"faces\.tar\.gz has sha256 .*\(the data set's card\): damaged or changed"),
        (None, b"other", f"has md5 {md5(b'other')}, expected {md5(LIST)} .*damaged or changed"),
    ],
)
def test_wrong_file_put_there_by_hand_is_refused(fetch, home, site, archive, cut, listed, message):
    put_by_hand(home, archive[:cut], listed)
    with pytest.raises(ConfigurationError, match=message):
        fetch()
    assert not (home / "unpacked").exists()
    assert (home / "list.txt").read_bytes() == listed  # it is the user's file
    assert site.requests == []


def test_set_that_takes_a_person_says_so_before_anything_is_fetched(
    fetch, register, home, site, archive
):
    register({"address": None, "md5": md5(archive), "megabytes": 0.26})
    with pytest.raises(ConfigurationError) as caught:
        fetch()
    lines = str(caught.value).splitlines()
    assert "not all of them can be fetched without a person" in lines[0]
    assert "get these files from https://host/faces" in lines[0]
    assert lines[1:] == [
        f"  faces.tar.gz (about 0.26 MB, md5 {md5(archive)}) -> {home / 'faces.tar.gz'}",
        f"  {site.host}/list.txt (md5 {md5(LIST)}) -> {home / 'list.txt'}",
    ]
    assert site.requests == []
    (home / "faces.tar.gz").write_bytes(archive)
    assert_whole(fetch(), home)


TERMS = {"licence": "CC BY-NC 4.0", "terms": "Non-commercial use."}


def test_restricted_set_shows_its_licence_and_asks(fetch, register, home, site):
    register(**TERMS)
    with pytest.raises(ConfigurationError) as caught:
        fetch()
    assert str(caught.value) == (
        "faces is restricted; licence: CC BY-NC 4.0. Non-commercial use. (https://host/faces). Set "
        "data.accept_licence: true (accept_licence=True) if your use is within these terms"
    )
    assert site.requests == []
    assert not home.exists()


def test_restricted_set_is_refused_when_it_is_there_too(fetch, register, home):
    register(**TERMS)
    fetch(accept_licence=True)
    with pytest.raises(ConfigurationError, match="is restricted"):
        fetch()


def test_licence_is_shown_in_the_log(fetch, register, caplog):
    with caplog.at_level(logging.INFO):
        fetch()
        register(**TERMS)
        check_licence("faces", True)
    assert "faces: licence: MIT (https://host/faces)" in caplog.text
    assert "faces: terms accepted; licence: CC BY-NC 4.0. Non-commercial use." in caplog.text


def test_evil_archive_with_the_right_hash(fetch, register, home, site, make_tar, tmp_path):
    evil = make_tar([*PICTURES, ("../../../evil", b"evil")])
    site.files["faces.tar.gz"] = evil
    register({"sha256": sha256(evil)})
    with pytest.raises(ConfigurationError, match=r"leads out of its folder\. Nothing was unpacked"):
        fetch()
    assert visible(home) == ["faces.tar.gz", "list.txt"]
    assert not list(tmp_path.rglob("evil"))


def test_cut_archive_that_nobody_states_a_hash_of_is_not_pinned(
    fetch, register, home, site, archive
):
    register({})
    site.files["faces.tar.gz"] = archive[: len(archive) // 2]
    with pytest.raises(ConfigurationError, match="damaged or cut short"):
        fetch(allow_unpinned=True)
    assert visible(home) == ["faces.tar.gz", "list.txt"]
    site.files["faces.tar.gz"] = archive
    (home / "faces.tar.gz").unlink()
    assert_whole(fetch(allow_unpinned=True), home)


def test_folder_in_the_tree_s_place(fetch, home):
    (home / "unpacked").mkdir(parents=True)
    (home / "unpacked" / "mine.png").write_bytes(b"mine")
    with pytest.raises(ConfigurationError, match="not unpacked here; move it away"):
        fetch()
    assert (home / "unpacked" / "mine.png").read_bytes() == b"mine"


def test_tree_that_lost_a_picture(fetch, home):
    path = fetch()
    (path / "top" / "3.png").unlink()
    with pytest.raises(ConfigurationError, match="holds 20 files"):
        fetch()


def test_folder_that_cannot_be_used(fetch, home):
    home.parent.mkdir()
    home.write_bytes(b"a file")
    with pytest.raises(ConfigurationError, match=r"faces: folder .*/faces cannot be used"):
        fetch()


def test_disk_full_while_unpacking(fetch, home, monkeypatch):
    def fail():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "sync", fail)
    with pytest.raises(ConfigurationError, match=r"cannot be used \(No space left on device\)"):
        fetch()
    assert visible(home) == ["faces.tar.gz", "list.txt"]


def test_bars_are_shown(fetch, capsys):
    fetch(progress=None)
    shown = capsys.readouterr().err
    assert "faces/faces.tar.gz: 100%" in shown
    assert "unpacking faces.tar.gz: 100%" in shown


KILLED = """
import os, sys
from condvae.data.fetching import archives, cards, fetch_dataset, trees
from pathlib import Path

package, folder, step = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
cards.files = lambda _: package
count = 0


def killed_after(function, calls):
    def wrapper(*arguments):
        global count
        count += 1
        if count > calls:
            os._exit(9)
        return function(*arguments)
    return wrapper


if step == "members":
    archives.Unpacker._write = killed_after(archives.Unpacker._write, 7)
elif step == "marker":
    trees.write_json = killed_after(trees.write_json, 0)
elif step == "rename":
    os.rename = killed_after(os.rename, 0)
fetch_dataset("faces", folder, progress=lambda *_: None)
"""


@pytest.mark.parametrize("step", ["members", "marker", "rename"])
def test_killed_while_unpacking(fetch, home, tmp_path, archive, step):
    put_by_hand(home, archive)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "package"), str(home.parent), step]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    assert not (home / "unpacked").exists()
    half = home / ".unpacked.unfinished"
    assert len(list(half.rglob("*.png"))) == (7 if step == "members" else 20)
    assert (half / MARKER).exists() == (step == "rename")
    path = fetch()
    assert not half.exists()
    assert_whole(path, home)
