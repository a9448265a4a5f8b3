from __future__ import annotations

import errno
import json
import os
import shutil

import pytest

from condvae.data.fetching import trees
from condvae.data.fetching.archives import ArchiveError, Limits
from condvae.data.fetching.trees import MARKER, is_whole, unpack_tree
from condvae.ground.files import sha256_of_file


@pytest.fixture
def sources(tmp_path, make_tar, make_zip):
    """Two archives and a list, as they lie before they are unpacked."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "1.tar.gz").write_bytes(make_tar([("images/a.png", b"aa"), ("images/.hidden", b"")]))
    (home / "2.zip").write_bytes(make_zip([("images/b.png", b"bbb")]))
    (home / "list.txt").write_bytes(b"a b")
    return home


@pytest.fixture
def tree(sources):
    return sources / "unpacked"


def hashes(home):
    return {path.name: sha256_of_file(path) for path in home.iterdir() if path.is_file()}


def unpack(home, limits=None):
    archives = [home / "1.tar.gz", home / "2.zip"]
    unpack_tree(
        home / "unpacked",
        archives,
        [home / "list.txt"],
        hashes(home),
        limits=limits,
        progress=lambda *_: None,
    )


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_archives_share_one_tree_and_other_files_lie_beside(sources, tree):
    before = names(sources)
    unpack(sources)
    assert names(tree) == [
        MARKER,
        "images",
        "images/.hidden",
        "images/a.png",
        "images/b.png",
        "list.txt",
    ]
    assert (tree / "images/b.png").read_bytes() == b"bbb"
    assert (tree / "list.txt").read_bytes() == b"a b"
    facts = json.loads((tree / MARKER).read_text())
    assert facts == {"format": 1, "sources": hashes(sources), "files": 3, "bytes": 8}
    assert [n for n in names(sources) if not n.startswith("unpacked")] == before
    assert is_whole(tree, hashes(sources))


def test_files_are_copied_where_they_cannot_be_linked(sources, tree, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    unpack(sources)
    assert (tree / "list.txt").read_bytes() == b"a b"


def test_tree_that_is_not_there(sources, tree):
    assert not is_whole(tree, {})


@pytest.mark.parametrize("content", [None, "", "[]", '{"format": 1}'])
def test_folder_that_was_not_unpacked_here(sources, tree, content):
    tree.mkdir()
    if content is not None:
        (tree / MARKER).write_text(content)
    with pytest.raises(ArchiveError, match=r"has no readable \.complete: not unpacked here; move"):
        is_whole(tree, {})


def test_tree_of_other_archives(sources, tree):
    unpack(sources)
    (sources / "list.txt").unlink()
    (sources / "list.txt").write_bytes(b"other")
    with pytest.raises(ArchiveError, match="from other files than the present ones"):
        is_whole(tree, hashes(sources))


def remove(tree):
    (tree / "images/a.png").unlink()


def shorten(tree):
    (tree / "images/a.png").write_bytes(b"a")


def add(tree):
    (tree / "images/c.png").write_bytes(b"")


@pytest.mark.parametrize("change", [remove, shorten, add])
def test_tree_that_was_changed(sources, tree, change):
    unpack(sources)
    change(tree)
    with pytest.raises(ArchiveError, match="unpacked were 3 of 8: changed since; move it away"):
        is_whole(tree, hashes(sources))


def test_leftovers_of_file_managers_do_not_count(sources, tree):
    unpack(sources)
    (tree / "images" / ".DS_Store").write_bytes(b"x")
    assert is_whole(tree, hashes(sources))


@pytest.mark.parametrize(
    ("name", "reason"),
    [(MARKER, "comes twice"), ("list.txt", "comes twice"), ("images", "comes twice")],
)
def test_names_that_clash_between_archives_and_files(sources, tree, make_zip, name, reason):
    (sources / "2.zip").write_bytes(make_zip([(name, b"evil")]))
    before = names(sources)
    with pytest.raises(ArchiveError, match=reason):
        unpack(sources)
    assert names(sources) == before


def test_limits_hold_for_the_whole_tree(sources, tree):
    before = names(sources)
    with pytest.raises(ArchiveError, match=r"2\.zip: more than 2 members"):
        unpack(sources, Limits(members=2))
    assert names(sources) == before


def test_nothing_is_left_when_the_last_archive_is_cut(sources, tree):
    content = (sources / "2.zip").read_bytes()
    (sources / "2.zip").write_bytes(content[:-30])
    before = names(sources)
    with pytest.raises(ArchiveError, match=r"2\.zip: damaged or cut short"):
        unpack(sources)
    assert names(sources) == before


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["_put", "_measure", "write_json"])
def test_nothing_is_left_after_an_interruption(sources, tree, monkeypatch, step, error):
    def fail(*_):
        raise error

    before = names(sources)
    monkeypatch.setattr(trees, step, fail)
    with pytest.raises(type(error)):
        unpack(sources)
    assert names(sources) == before


def test_leftovers_of_a_killed_run_are_removed(sources, tree):
    unfinished = sources / ".unpacked.unfinished"
    (unfinished / "images").mkdir(parents=True)
    (unfinished / "images" / "a.png").write_bytes(b"half")
    (unfinished / "images" / "foreign.png").write_bytes(b"")
    unpack(sources)
    assert not unfinished.exists()
    assert is_whole(tree, hashes(sources))
    assert "images/foreign.png" not in names(tree)


def test_leftover_that_is_a_link_is_not_followed(sources, tree, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_bytes(b"keep")
    (sources / ".unpacked.unfinished").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic link"):
        unpack(sources)
    assert (tmp_path / "precious" / "file").read_bytes() == b"keep"


def test_marker_is_written_when_the_rest_is_on_the_disk(sources, tree, monkeypatch):
    order = []
    monkeypatch.setattr(os, "sync", lambda: order.append("sync"))
    write = trees.write_json
    monkeypatch.setattr(trees, "write_json", lambda *a: (order.append("marker"), write(*a)))
    rename = os.rename
    monkeypatch.setattr(os, "rename", lambda *a: (order.append("rename"), rename(*a)))
    unpack(sources)
    assert order == ["sync", "marker", "rename"]


def test_tree_survives_without_its_archives(sources, tree):
    unpack(sources)
    known = hashes(sources)
    for path in sources.glob("*.*"):
        if path.is_file():
            path.unlink()
    assert is_whole(tree, known)
    shutil.rmtree(tree)
    assert not is_whole(tree, known)
