from __future__ import annotations

import hashlib

import pytest
from torchvision.datasets import CIFAR10, MNIST, CelebA, FashionMNIST

from condvae.data.formats.checksums import OFFICIAL_MD5, note_unofficial


def test_the_sums_are_those_of_torchvision():
    batches = dict(map(tuple, CIFAR10.train_list + CIFAR10.test_list))
    assert OFFICIAL_MD5["cifar10"] == batches
    assert OFFICIAL_MD5["mnist"] == dict(MNIST.resources)
    assert OFFICIAL_MD5["fashion_mnist"] == dict(FashionMNIST.resources)
    lists = {name: md5 for _, md5, name in CelebA.file_list}
    assert OFFICIAL_MD5["celeba"].items() <= lists.items()


def test_only_a_changed_file_with_a_published_sum_is_named(tmp_path, monkeypatch):
    for name in ("same", "changed", "unknown"):
        (tmp_path / name).write_text(name)
    sums = {"same": hashlib.md5(b"same").hexdigest(), "changed": "0" * 32}
    monkeypatch.setitem(OFFICIAL_MD5, "mine", sums)
    assert note_unofficial("mine", tmp_path, ["same", "changed", "unknown"]) == ["changed"]
    with pytest.raises(KeyError):
        note_unofficial("other", tmp_path, [])
