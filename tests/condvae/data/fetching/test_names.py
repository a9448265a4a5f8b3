from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from condvae.data.fetching.names import ArchiveError, NameBook, checked_path


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a", "a"),
        ("a/b.png", "a/b.png"),
        ("./a//b/", "a/b"),
        ("a/./b", "a/b"),
        ("..a/b..", "..a/b.."),
        ("Ä ö/猫.png", "Ä ö/猫.png"),
        ("./", "."),
        ("a" * 255, "a" * 255),
        ("/".join("abcdefgh" * 4), "/".join("abcdefgh" * 4)),
    ],
)
def test_names_that_stay_below(name, path):
    assert checked_path(name) == PurePosixPath(path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/passwd", "an absolute path"),
        ("//host/share", "an absolute path"),
        ("C:/Windows/x", "an absolute path"),
        ("c:x", "an absolute path"),
        ("..", "leads out"),
        ("../x", "leads out"),
        ("a/../../x", "leads out"),
        ("a/..", "leads out"),
        (r"..\x", "does not belong"),
        (r"a\b", "does not belong"),
        ("a\0b", "does not belong"),
        ("a\nb", "does not belong"),
        ("a\x1b[31m", "does not belong"),
        ("a\udcff", "does not belong"),
        ("a" * 256, "too long"),
        ("ä" * 128, "too long"),  # 256 bytes
        ("a/" * 33, "too deep"),
        ("a/" * 600, "a name of 1200 characters"),
    ],
)
def test_names_that_do_not(name, reason):
    with pytest.raises(ArchiveError, match=reason):
        checked_path(name)


def take(*names):
    book = NameBook()
    for name in names:
        book.add(PurePosixPath(name), is_folder=name.endswith("/"))


@pytest.mark.parametrize(
    "names",
    [
        ("a", "b", "c/a", "d/a"),
        ("a/", "a/", "a/b", "a/", "a/c/"),
        ("a/b", "a/"),
        ("a/b/c", "a/b/d"),
    ],
)
def test_names_taken_once(names):
    take(*names)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("a", "a"), "'a' comes twice"),
        (("c/a", "b", "c/a"), "'c/a' comes twice"),
        (("a", "a/"), "'a' comes twice"),
        (("a/", "a"), "'a' comes twice"),
        (("a", "a/b"), "'a' comes twice"),
        (("a", "A"), "'a' and 'A' are one"),
        (("a/b", "A/c"), "'a' and 'A' are one"),
        (("Straße", "STRASSE"), "are one"),
        (("\u00e4", "a\u0308"), "are one"),
    ],
)
def test_names_taken_twice(names, reason):
    with pytest.raises(ArchiveError, match=reason):
        take(*names)
