from __future__ import annotations

import pytest

from condvae.data.fetching.cards import card_named, read_cards
from condvae.ground.configuration import ConfigurationError

FILE = {"name": "set.tar.gz", "address": "https://host/set.tar.gz", "unpack": True}
CARD = {"description": "A test.", "page": "https://host", "licence": "MIT", "files": [FILE]}


def test_there_is_a_card_for_every_published_set():
    assert set(read_cards()) == {
        "mnist",
        "fashion_mnist",
        "cifar10",
        "imagenet32",
        "imagenet64",
        "ffhq",
        "celeba",
        "celebahq",
        "edges2shoes",
        "edges2handbags",
        "chest_xray14",
    }


@pytest.mark.parametrize(
    ("name", "library_class", "attribute"),
    [("mnist", "MNIST", "resources"), ("fashion_mnist", "FashionMNIST", "resources")],
)
def test_idx_files_are_those_of_torchvision(name, library_class, attribute):
    datasets = pytest.importorskip("torchvision.datasets")
    expected = dict(getattr(getattr(datasets, library_class), attribute))
    mirrors = getattr(datasets, library_class).mirrors
    card = card_named(name)
    assert {file.name: file.md5 for file in card.files} == expected
    assert all(file.address.removesuffix(file.name) in mirrors for file in card.files)
    assert not card.is_unpacked


def test_cifar10_is_that_of_torchvision():
    datasets = pytest.importorskip("torchvision.datasets")
    (file,) = card_named("cifar10").files
    found = file.address, file.name, file.md5
    assert found == (datasets.CIFAR10.url, datasets.CIFAR10.filename, datasets.CIFAR10.tgz_md5)
    assert card_named("cifar10").path == datasets.CIFAR10.base_folder


def test_celeba_is_that_of_torchvision():
    datasets = pytest.importorskip("torchvision.datasets")
    published = {name: md5 for _, md5, name in datasets.CelebA.file_list}
    files = card_named("celeba").files
    assert len(files) == 3
    assert all(published[file.name] == file.md5 for file in files)


def test_sets_behind_logins_are_by_hand_and_restricted():
    by_hand = {
        name for name, card in read_cards().items() if any(not f.address for f in card.files)
    }
    assert by_hand == {"imagenet32", "imagenet64", "celeba", "celebahq", "chest_xray14"}
    restricted = {name for name, card in read_cards().items() if card.terms}
    assert restricted == {
        "imagenet32",
        "imagenet64",
        "ffhq",
        "celeba",
        "celebahq",
        "edges2shoes",
    }


def test_chest_xrays_come_in_twelve_archives():
    files = card_named("chest_xray14").files
    archives = [file for file in files if file.unpack]
    assert [file.name for file in archives] == [f"images_{i:03}.tar.gz" for i in range(1, 13)]
    assert len({file.md5 for file in archives}) == 12


def test_ffhq_has_the_size_of_its_array():
    (file,) = card_named("ffhq").files
    assert file.megabytes == pytest.approx(70_000 * 256 * 256 * 3 / 1e6, rel=1e-3)


def test_unknown_name_is_refused_with_those_known():
    with pytest.raises(ConfigurationError, match=r"data set = 'cifar': .*did you mean 'cifar10'"):
        card_named("cifar")


def test_least_card(write_cards):
    write_cards(one=CARD)
    card = card_named("one")
    assert (card.path, card.terms, card.is_unpacked) == (".", None, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": []}, r"one\.files = \[\]: expected at least one"),
        ({"files": [FILE, FILE]}, "each name once"),
        ({"files": [FILE, {**FILE, "name": "SET.tar.gz"}]}, "each name once"),
        ({"path": "/tmp"}, "path = '/tmp': expected a relative path"),
        ({"path": "../x"}, r"path = '\.\./x': expected a relative path"),
        ({"files": [{**FILE, "name": "../x.zip"}]}, r"files\[0\]\.name = '\.\./x\.zip': expected"),
        ({"files": [{**FILE, "name": ".lock"}]}, "expected a plain file name"),
        ({"files": [{"name": "unpacked"}]}, "expected a plain file name"),
        ({"files": [{**FILE, "address": "ftp://x"}]}, "expected http:// or https://"),
        ({"files": [{**FILE, "md5": "abc"}]}, "md5 = 'abc': expected 32 hexadecimal digits"),
        ({"files": [{**FILE, "sha256": "a" * 32}]}, "expected 64 hexadecimal digits"),
        ({"files": [{**FILE, "megabytes": 0}]}, "megabytes = 0"),
        ({"files": [{**FILE, "name": "set.7z"}]}, r"'set\.7z' does not end in \.tar"),
        ({"licence": None}, r"one\.licence = None"),
        ({"adress": "x"}, r"unknown parameter one\.adress"),
    ],
)
def test_wrong_cards_are_refused(write_cards, change, message):
    write_cards(one={**CARD, **change})
    with pytest.raises(ConfigurationError, match=message):
        read_cards()
