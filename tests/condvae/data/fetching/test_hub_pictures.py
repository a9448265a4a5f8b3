"""Pictures from a data set on the hub, opened like any others."""

from __future__ import annotations

import io
import logging

import numpy as np
import pytest
from PIL import Image

from condvae.data import DataConfig, prepare_images
from condvae.data.fetching import check_obtainable, provide_pictures
from condvae.ground.configuration import ConfigurationError

ADDRESS = "hf://datasets/lab/pictures"
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
OTHERS = {
    "README.md": b"---\nlicense: cc-by-4.0\n---",
    "pictures.py": b"raise SystemExit",
    "train/.hidden.png": b"no picture",
    "train/metadata.csv": b"a,b",
}


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = {
    f"train/{'ab'[i % 2]}/{i:02d}.{'PNG' if i == 3 else 'png'}": png(p)
    for i, p in enumerate(PIXELS)
}


def config_of(path, **changes):
    shares = {"validation_share": 0.3, "test_share": 0.3}
    given = {"name": "few", "source": "image_folder", "path": path, "image_size": 8, **shares}
    return DataConfig(**given | changes)


@pytest.fixture
def provide(patience):
    def provide(path=f"{ADDRESS}/train", **changes):
        config = config_of(path, **changes)
        return provide_pictures(config, patience=patience, progress=lambda *_: None)

    return provide


@pytest.fixture
def commit(hub):
    def commit(files, **options):
        return hub.commit("lab/pictures", files, kind="datasets", **options)

    return commit


def test_folder_of_pictures_is_prepared(hub, commit, provide, tmp_path, caplog):
    sha = commit(PICTURES | OTHERS | {"test/x.png": b""}, tags=["license:cc-by-4.0"])
    with caplog.at_level(logging.INFO):
        config = provide()
    assert hub.fetched() == sorted(PICTURES)
    assert f"{ADDRESS}/train is commit {sha}, licence: cc-by-4.0" in caplog.text
    images = prepare_images(config, tmp_path / "store")
    np.testing.assert_array_equal(
        images.pixels[..., 0], PIXELS[[*range(0, 12, 2), *range(1, 12, 2)]]
    )
    assert images.class_names == ("a", "b")


def test_another_revision_makes_another_store(hub, commit, provide, tmp_path):
    first = commit(PICTURES | OTHERS)
    one = prepare_images(provide(), tmp_path / "store")
    written = (tmp_path / "store/meta.json").stat().st_mtime_ns
    commit(PICTURES | OTHERS | {"README.md": b"# Words"})
    again = prepare_images(provide(), tmp_path / "store")
    assert again.fingerprint == one.fingerprint
    assert (tmp_path / "store/meta.json").stat().st_mtime_ns == written
    # As large as before, and of the same name.
    commit(PICTURES | {"train/a/00.png": png(PIXELS[0][::-1].copy())})
    assert prepare_images(provide(), tmp_path / "store").fingerprint != one.fingerprint
    back = prepare_images(provide(f"{ADDRESS}@{first}/train"), tmp_path / "store")
    assert back.fingerprint == one.fingerprint


def test_fetching_goes_on_where_it_was_cut(hub, commit, provide, tmp_path):
    commit(PICTURES)
    name = "train/a/02.png"
    hub.cuts[name] = [20, 0, 0]
    with pytest.raises(ConfigurationError, match=f"could not be fetched: .*{name}"):
        provide()
    hub.cuts.clear()
    config = provide()
    assert any(h.get("Range") == "bytes=20-" for _, p, h in hub.requests if p.endswith(name))
    assert len(prepare_images(config, tmp_path / "store").records) == 12


def test_without_a_network_the_copy_is_opened(hub, commit, provide, caplog):
    sha = commit(PICTURES)
    config = provide()
    hub.stop()
    assert provide() == config
    assert f"taking commit {sha}" in caplog.text
    with pytest.raises(ConfigurationError, match="no copy of it"):
        provide(f"{ADDRESS}/test")


def test_half_a_copy_is_not_opened(hub, commit, provide):
    commit(PICTURES)
    hub.cuts["train/a/02.png"] = [20, 0, 0]
    with pytest.raises(ConfigurationError, match="could not be fetched"):
        provide()
    hub.stop()
    with pytest.raises(ConfigurationError, match="no copy of it"):
        provide()


def test_npz_is_one_file(hub, commit, provide, tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, images=PIXELS)
    commit({"sets/few.npz": buffer.getvalue(), "sets/other.npz": b"", **OTHERS})
    config = provide(f"{ADDRESS}/sets/few.npz", source="npz")
    assert hub.fetched() == ["sets/few.npz"]
    images = prepare_images(config, tmp_path / "store")
    np.testing.assert_array_equal(images.pixels[..., 0], PIXELS)
    with pytest.raises(ConfigurationError, match=r"sets/none\.npz is missing"):
        provide(f"{ADDRESS}/sets/none.npz", source="npz")


def test_shards_are_those_of_the_folder_itself(hub, commit, provide, make_tar, tmp_path):
    def shard(numbers):
        return make_tar([(f"{i:02d}.png", png(PIXELS[i])) for i in numbers], compressed=False)

    apart = {"test/2.tar": b"not asked for", "README.md": b""}
    commit({"0.tar": shard(range(7)), "1.tar": shard(range(7, 12)), **apart})
    config = provide(ADDRESS, source="webdataset")
    assert hub.fetched() == ["0.tar", "1.tar"]
    images = prepare_images(config, tmp_path / "store")
    np.testing.assert_array_equal(images.pixels[..., 0], PIXELS)
    commit({"train/0.tar": shard(range(7))})
    with pytest.raises(ConfigurationError, match=r"no files that end in \.tar, outside of sub-f"):
        provide(ADDRESS, source="webdataset")


def test_what_holds_no_pictures_is_refused(commit, provide):
    commit(OTHERS)
    with pytest.raises(ConfigurationError, match=r"no files that end in \.png, \.jpg"):
        provide()


@pytest.mark.parametrize(
    ("path", "source", "message"),
    [
        ("hf://lab/pictures", "image_folder", "expected a data set, hf://datasets/OWNER/NAME"),
        ("hf://datasets/lab", "image_folder", "expected hf://datasets/OWNER/NAME"),
        (ADDRESS, "npz", r"is one file; expected .*/FILE\.npz"),
        (f"{ADDRESS}/0.tar", "webdataset", r"is a folder; expected .*\[/FOLDER\]"),
        (f"{ADDRESS}/a.PNG", "photographs", r"is a folder; expected .*\[/FOLDER\]"),
        (ADDRESS, "cifar10", "'cifar10' is not read from the hub; expected one of image_folder"),
    ],
)
def test_wrong_address_is_refused_before_the_run(path, source, message, tmp_path):
    with pytest.raises(ConfigurationError, match=message):
        check_obtainable(config_of(path, source=source), tmp_path)


def test_good_address_is_accepted_before_the_run_without_asking(hub, tmp_path):
    check_obtainable(config_of(ADDRESS), tmp_path)
    assert hub.requests == []
