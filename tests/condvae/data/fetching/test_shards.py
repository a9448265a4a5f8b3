"""Shards that are fetched one at a time, from a server on this machine."""

from __future__ import annotations

import dataclasses
import io
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from condvae.data import DataConfig, prepare_images
from condvae.data.fetching import check_obtainable, provide_pictures
from condvae.data.fetching.shards import list_addresses
from condvae.ground.configuration import ConfigurationError

SHARDS, EACH = 4, 8
PIXELS = np.random.default_rng(0).integers(0, 256, (SHARDS * EACH, 9, 7, 3), dtype=np.uint8)
NAMES = [f"train-{i:02d}.tar" for i in range(SHARDS)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONDVAE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def make_shard(make_tar):
    def make(shard, **replaced):
        members = []
        for i in range(shard * EACH, (shard + 1) * EACH):
            buffer = io.BytesIO()
            Image.fromarray(PIXELS[i]).save(buffer, "PNG")
            content = replaced.get(f"p{i}", buffer.getvalue())
            members += [(f"a/p{i}.png", content), (f"a/p{i}.cls", b"%d" % (i % 2))]
        return make_tar(members, compressed=False)

    return make


@pytest.fixture
def served(site, make_shard):
    site.files = {f"set/{name}": make_shard(i) for i, name in enumerate(NAMES)}
    return site.files


@pytest.fixture
def config(site, served):
    return DataConfig(
        name="s", source="webdataset", path=f"{site.host}/set/train-{{00..03}}.tar", image_size=8,
        channels=3, fit="resize", validation_share=0.3, test_share=0.3, allow_unpinned=True,
    )  # fmt: skip


@pytest.fixture
def provide(patience):
    return lambda config, show=lambda *_: None: provide_pictures(
        config, patience=patience, progress=show
    )


def pins(cache):
    (lock,) = cache.rglob("files.lock.json")
    return json.loads(lock.read_text())["files"]


@pytest.mark.parametrize(
    "change",
    [{}, {"channels": 1}, {"crop": 5}, {"fit": "pad", "image_size": 10}, {"limit": 25}],
    ids=str,
)
def test_the_store_is_that_of_the_shards_themselves(
    config, provide, served, site, tmp_path, cache, change
):
    config = dataclasses.replace(config, **change)
    local = tmp_path / "local"
    local.mkdir()
    for name in NAMES:
        (local / name).write_bytes(served[f"set/{name}"])
    expected = prepare_images(dataclasses.replace(config, path=str(local)), tmp_path / "expected")
    obtained = provide(config)
    found = prepare_images(obtained, tmp_path / "found")
    assert found.images_sha256 == expected.images_sha256
    for one, other in zip(found.records, expected.records, strict=True):
        size = dict.fromkeys(("width", "height"), config.image_size)
        assert one == dataclasses.replace(other, mode=one.mode, **size)
    # Once over the network; nothing is needed for the next run, not even permission.
    assert provide(dataclasses.replace(config, allow_unpinned=False)).path == obtained.path
    assert site.paths() == [f"set/{name}" for name in NAMES]
    assert sorted(pins(cache)) == NAMES


def test_one_fetched_shard_is_on_the_disk_at_a_time(config, provide, cache):
    seen = set()

    def look(done, total):
        (home,) = (cache / "shards").iterdir()
        whole = [path.name for path in home.iterdir() if path.suffix in (".tar", ".part")]
        small = [path.name for path in home.glob("*/*.tar")]
        seen.add((tuple(whole), len(small)))

    provide(config, look)
    # Before the first byte of the next shard the last one is gone.
    assert seen == {(kept, i) for i, name in enumerate(NAMES) for kept in ((), (f"{name}.part",))}
    (home,) = (cache / "shards").iterdir()
    assert {path.name for path in home.iterdir()} == {".lock", "files.lock.json", "8x8x3-resize"}


def test_a_cut_connection_goes_on_where_it_was(config, provide, site):
    site.cuts = [None, 4000]
    provide(config)
    assert site.requests[:4] == [
        *(("set/train-00.tar", None), ("set/train-01.tar", None)),
        *(("set/train-01.tar", "bytes=4000-"), ("set/train-02.tar", None)),
    ]


def test_without_a_network_what_was_done_is_kept(config, provide, site, tmp_path):
    site.cuts = [None, None, 4000, 100]
    site.statuses = [200] * 4 + [503] * 10
    with pytest.raises(ConfigurationError, match=r"train-02\.tar.* 2 of 4 shards are done"):
        provide(config)
    site.statuses, site.requests = [], []
    obtained = provide(config)
    assert site.requests == [("set/train-02.tar", "bytes=4100-"), ("set/train-03.tar", None)]
    assert len(prepare_images(obtained, tmp_path / "store").records) == len(PIXELS)


SCRIPT = """
import json, os, signal, sys
import condvae.data.fetching.shards as shards
from condvae.data import DataConfig
write = shards._shrink
def kill_in_the_third(source, member, whole, config):
    if whole.name == "train-02.tar" and member.name == "a/p20.png":
        os.kill(os.getpid(), signal.SIGKILL)
    return write(source, member, whole, config)
shards._shrink = kill_in_the_third
shards.fetch_shards(DataConfig(**json.loads(sys.argv[1])), progress=lambda *_: None)
"""


def test_a_killed_process_is_continued(config, provide, site, cache, tmp_path):
    values = json.dumps(dataclasses.asdict(config))
    done = subprocess.run([sys.executable, "-c", SCRIPT, values], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert {path.name for path in cache.rglob("*.tar")} == set(NAMES[:3])
    assert sorted(pins(cache)) == NAMES[:2]
    obtained = provide(config)
    assert site.paths() == [f"set/{name}" for name in NAMES]
    assert len(prepare_images(obtained, tmp_path / "store").records) == len(PIXELS)
    assert {pin["address"] for pin in pins(cache).values()} == {
        f"{site.host}/set/{name}" for name in NAMES
    }
    (home,) = (cache / "shards").iterdir()
    assert list(home.glob("*.tar")) == []


def test_nothing_is_accepted_unseen_without_permission(config, provide, site):
    with pytest.raises(ConfigurationError, match=r"train-00\.tar: nobody states.*allow_unpinned"):
        provide(dataclasses.replace(config, allow_unpinned=False))
    assert site.requests == []


def test_a_shard_that_changed_is_refused(config, provide, served, make_shard):
    provide(config)
    served["set/train-02.tar"] = make_shard(1)
    with pytest.raises(
        ConfigurationError, match=r"train-02\.tar.*has changed where it is published"
    ):
        provide(dataclasses.replace(config, image_size=4, allow_unpinned=False))


@pytest.mark.parametrize("damage", ["picture", "cut"])
def test_a_damaged_shard_stops_and_is_not_accepted(
    config, provide, served, make_shard, cache, tmp_path, damage
):
    whole = served["set/train-01.tar"]
    broken = make_shard(1, p9=b"no picture") if damage == "picture" else whole[: len(whole) // 2]
    served["set/train-01.tar"] = broken
    with pytest.raises(ConfigurationError, match=r"train-01\.tar: member 'a/p\d+\.png'"):
        provide(config)
    assert {path.name for path in cache.rglob("*.tar")} == {"train-00.tar"}
    assert sorted(pins(cache)) == ["train-00.tar"]
    served["set/train-01.tar"] = whole
    assert len(prepare_images(provide(config), tmp_path / "store").records) == len(PIXELS)


def test_unreadable_pictures_are_skipped_and_reported(
    config, provide, served, make_shard, tmp_path
):
    served["set/train-01.tar"] = make_shard(1, p9=b"no picture")
    config = dataclasses.replace(config, unreadable="skip")
    store = prepare_images(provide(config), tmp_path / "store")
    assert store.unreadable_skipped == ("train-01.tar/a/p9.png",)
    assert len(store.records) == len(PIXELS) - 1
    with pytest.raises(ConfigurationError, match=r"train-01\.tar: member 'a/p9\.png'"):
        prepare_images(provide(dataclasses.replace(config, unreadable="stop")), tmp_path / "other")


def test_a_picture_that_does_not_fit_is_named(config, provide, cache):
    with pytest.raises(ConfigurationError, match=r"train-00\.tar: member 'a/p0\.png': fit = 'pad'"):
        provide(dataclasses.replace(config, fit="pad"))
    assert list(cache.rglob("*.tar")) == []


def test_a_folder_that_cannot_be_used_is_named(config, provide, cache):
    cache.write_text("a file")
    with pytest.raises(ConfigurationError, match=r"cache/shards/.* cannot be used.*CONDVAE_CACHE"):
        provide(config)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("https://h/p/a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("http://h/a{9..10}b.tar?download=1", ["a9b.tar", "a10b.tar"]),
        ("https://h/p/one.tar", ["one.tar"]),
    ],
)
def test_patterns_are_written_out(pattern, names):
    addresses = list_addresses(pattern)
    assert list(addresses) == names
    for name, address in addresses.items():
        assert address.split("?")[0].rpartition("/")[2] == name
        assert address.split("?")[1:] == pattern.split("?")[1:]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("https://h/a-{3..2}.tar", "{3..2} are not 1 to 100000"),
        ("https://h/a-{0..100000}.tar", "{0..100000} are not"),
        ("https://h/{0..1}/a-{0..1}.tar", "one range in braces"),
        ("https://h/a-{0,1}.tar", "one range in braces"),
        ("https://h/{0..1}/a.tar", "the range must be in the file name"),
        ("https://h/a-{0..1}.zip", "'a-0.zip' is no name of a shard"),
        ("https://h/", "'' is no name of a shard"),
        ("https://h/..%2fa.tar", "is no name of a shard"),
    ],
)
def test_wrong_patterns_are_refused_at_once(pattern, message):
    config = DataConfig(source="webdataset", path=pattern)
    with pytest.raises(ConfigurationError) as error:
        check_obtainable(config)
    assert message in str(error.value)
    assert f"path = {pattern!r}" in str(error.value)


def test_a_good_pattern_is_obtainable(config, site):
    check_obtainable(config)
    assert site.requests == []
