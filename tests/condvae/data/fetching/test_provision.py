from __future__ import annotations

import dataclasses
import io
import logging
import struct

import numpy as np
import pytest
from PIL import Image

from condvae.data import DataConfig, prepare_images
from condvae.data.fetching import check_obtainable, provide_pictures
from condvae.ground.configuration import ConfigurationError
from pipelines.data_preparation.nodes import prepare_images_node

TRAIN, VAL = 12, 3
PAIRS = np.random.default_rng(0).integers(0, 256, (TRAIN + VAL, 8, 16, 3), dtype=np.uint8)
NAMES = [f"train/{i:02d}_AB.png" for i in range(TRAIN)] + [f"val/{i}_AB.png" for i in range(VAL)]
CARD = {"description": "A test.", "page": "https://host/page", "licence": "MIT"}


@pytest.fixture
def archive(make_tar):
    members = []
    for name, pixels in zip(NAMES, PAIRS, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        members.append((f"edges2shoes/{name}", buffer.getvalue()))
    return make_tar(members)


@pytest.fixture
def register(site, archive, write_cards):
    """Registers `edges2shoes` with the archive on the server; arguments change the card."""
    site.files = {"edges2shoes.tar.gz": archive}

    def write(address=f"{site.host}/edges2shoes.tar.gz", **changes):
        file = {"name": "edges2shoes.tar.gz", "address": address, "unpack": True}
        card = CARD | {"path": "edges2shoes", "files": [file]} | changes
        write_cards(edges2shoes=card)

    write()
    return write


@pytest.fixture
def data(register, tmp_path):
    return {
        "name": "shoes",
        "source": "edges2shoes",
        "path": str(tmp_path / "raw" / "edges2shoes"),
        "image_size": 8,
        "channels": 3,
        "split": "official",
        "allow_unpinned": True,
    }


@pytest.fixture
def home(data, tmp_path):
    return tmp_path / "raw" / "edges2shoes"


def write_own_files(folder):
    for name, pixels in zip(NAMES, PAIRS, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)


def test_the_node_fetches_once_and_then_has_it(data, home, site, tmp_path):
    folders = {"images": str(tmp_path / "stores")}
    store, manifest = prepare_images_node(data, folders)
    assert store["count"] == TRAIN + VAL
    assert sorted(manifest["origin"]) == NAMES
    assert set(manifest.loc[manifest["split"] == "test", "origin"]) == set(NAMES[TRAIN:])
    pixels = np.load(tmp_path / "stores" / "shoes" / "images.npy")
    np.testing.assert_array_equal(pixels, PAIRS[:, :, 8:])
    # Neither the network, the archive nor the permission are needed again.
    (home / "edges2shoes.tar.gz").unlink()
    again, _ = prepare_images_node(data | {"allow_unpinned": False}, folders)
    assert again == store
    assert site.paths() == ["edges2shoes.tar.gz"]


def test_consents_change_nothing_that_is_prepared(data, home, tmp_path):
    write_own_files(home)
    config = DataConfig(**data)
    first = prepare_images(config, tmp_path / "store")
    stamp = (tmp_path / "store" / "meta.json").stat().st_mtime_ns
    other = dataclasses.replace(config, accept_licence=True, allow_unpinned=False)
    assert prepare_images(other, tmp_path / "store").fingerprint == first.fingerprint
    assert (tmp_path / "store" / "meta.json").stat().st_mtime_ns == stamp
    assert prepare_images(other, tmp_path / "new").fingerprint == first.fingerprint


def test_own_files_are_taken_and_the_licence_is_shown(data, home, site, caplog):
    write_own_files(home)
    config = DataConfig(**data)
    with caplog.at_level(logging.INFO):
        assert provide_pictures(config) == config
    assert "edges2shoes: licence: MIT (https://host/page)" in caplog.text
    assert site.requests == []


def test_own_files_that_are_damaged_are_not_replaced(data, home, site):
    write_own_files(home)
    for path in (home / "val").iterdir():
        path.unlink()
    config = DataConfig(**data)
    assert provide_pictures(config) == config
    assert site.requests == []


def test_an_empty_folder_is_filled(data, home, patience):
    home.mkdir(parents=True)
    found = provide_pictures(DataConfig(**data), patience=patience, progress=lambda *_: None)
    assert found.path == str(home / "unpacked" / "edges2shoes")


def test_a_cut_download_goes_on(data, home, site, archive, patience):
    def provide():
        return provide_pictures(DataConfig(**data), patience=patience, progress=lambda *_: None)

    site.cuts = [len(archive) // 2]
    site.statuses = [200, *[503] * 10]
    with pytest.raises(ConfigurationError, match="edges2shoes could not be fetched"):
        provide()
    site.statuses = []
    assert provide().path == str(home / "unpacked" / "edges2shoes")
    assert site.requests[-1] == ("edges2shoes.tar.gz", f"bytes={len(archive) // 2}-")


def test_archives_placed_by_hand_are_unpacked(data, home, register, archive, site):
    register(address=None)
    home.mkdir(parents=True)
    (home / "edges2shoes.tar.gz").write_bytes(archive)
    found = provide_pictures(DataConfig(**data), progress=lambda *_: None)
    assert found.path == str(home / "unpacked" / "edges2shoes")
    assert site.requests == []


def test_files_that_need_no_unpacking_are_used_where_they_lie(write_cards, tmp_path, site):
    def idx(array):
        header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
        return header + array.tobytes()

    for part, count in (("train", 20), ("t10k", 4)):
        pixels = np.arange(count * 784).reshape(count, 28, 28).astype(np.uint8)
        site.files[f"{part}-images-idx3-ubyte"] = idx(pixels)
        site.files[f"{part}-labels-idx1-ubyte"] = idx(np.arange(count, dtype=np.uint8) % 10)
    files = [{"name": name, "address": f"{site.host}/{name}"} for name in site.files]
    write_cards(mnist=CARD | {"files": files})
    home = tmp_path / "mnist"
    config = DataConfig(source="mnist", path=str(home), image_size=28, allow_unpinned=True)
    assert provide_pictures(config, progress=lambda *_: None) == config
    assert provide_pictures(config) == config
    assert len(site.requests) == 4
    # One that is gone is fetched again, and must be what it was.
    (home / "t10k-labels-idx1-ubyte").unlink()
    assert provide_pictures(config, progress=lambda *_: None) == config
    assert site.requests[4:] == [("t10k-labels-idx1-ubyte", None)]


def test_a_set_for_hands_is_refused_in_one_line(data, register, home, tmp_path):
    register(address=None)
    with pytest.raises(ConfigurationError) as error:
        check_obtainable(DataConfig(**data), tmp_path)
    assert "\n" not in str(error.value)
    assert "put edges2shoes.tar.gz from https://host/page there" in str(error.value)
    with pytest.raises(ConfigurationError, match="cannot be fetched without a person"):
        provide_pictures(DataConfig(**data))
    assert not home.exists()


def test_many_files_for_hands_are_counted(tmp_path):
    config = DataConfig(source="chest_xray14", path="raw/chest_xray14")
    with pytest.raises(ConfigurationError, match=r"test_list\.txt and 12 more from https://nihcc"):
        check_obtainable(config, tmp_path)


def test_terms_come_before_everything_else(data, home, register, site):
    register(terms="Research only.")
    write_own_files(home)
    for check in (check_obtainable, provide_pictures):
        with pytest.raises(
            ConfigurationError, match=r"Research only\. .*data\.accept_licence: true"
        ):
            check(DataConfig(**data))
    agreed = DataConfig(**data, accept_licence=True)
    check_obtainable(agreed)
    assert provide_pictures(agreed) == agreed


def test_a_path_of_another_name_is_not_fetched_to(data, tmp_path, site):
    config = DataConfig(**data | {"path": "raw/shose"})
    with pytest.raises(ConfigurationError, match=r"'raw/shose': no such .*ends in 'edges2shoes'"):
        check_obtainable(config, tmp_path)
    with pytest.raises(ConfigurationError, match="no such file or folder"):
        provide_pictures(config)
    assert site.requests == []


def test_paths_start_at_the_base(tmp_path):
    (tmp_path / "own.npz").touch()
    config = DataConfig(source="npz", path="own.npz")
    check_obtainable(config, tmp_path)
    with pytest.raises(ConfigurationError, match=r"data\.path = 'own\.npz': no such file"):
        check_obtainable(config, tmp_path / "elsewhere")
    check_obtainable(DataConfig(), tmp_path)
