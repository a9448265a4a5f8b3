from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from condvae.ground.configuration import ConfigurationError
from condvae.models import cache_folder, fetch, find_model
from condvae.models import registry as cards
from condvae.transport.lock import LOCK_FILE, Pin, add_pin, read_pins

OTHER_HASH = hashlib.sha256(b"another file").hexdigest()


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def target(cache):
    return cache / "model.th"


@pytest.fixture
def write_card(tmp_path, monkeypatch, remote):
    """Registers `model`, published on the test's server."""

    def write(**changes):
        entry = {
            "kind": "vae",
            "description": "A test.",
            "host": remote.host,
            "path": "model.th",
            "preset": "cifar10",
            "data_contract": {"channels": 3, "size": 32, "mean": 120.0, "std": 64.0},
            "licence": "MIT",
            **changes,
        }
        package = tmp_path / "package"
        package.mkdir(exist_ok=True)
        (package / "cards.yaml").write_text(yaml.safe_dump({"model": entry}))
        monkeypatch.setattr(cards, "files", lambda _: package)

    write()
    return write


@pytest.fixture
def get(write_card, cache, patience):
    def run(allow_unpinned=False, **options):
        return fetch("model", cache, allow_unpinned, patience=patience, **options)

    return run


def visible(folder):
    return sorted(p.name for p in folder.iterdir() if p.name != ".lock")


def test_first_fetch_of_an_unpinned_model_must_be_allowed(get, remote, cache):
    with pytest.raises(ConfigurationError) as caught:
        get()
    message = str(caught.value)
    assert message.startswith("model: nobody publishes its sha256")
    assert "allow_unpinned=true" in message
    assert str(cache / LOCK_FILE) in message
    assert remote.requests == []
    assert visible(cache) == []


def test_first_fetch_pins_what_came(get, remote, cache, target, caplog):
    with caplog.at_level(logging.WARNING):
        assert get(allow_unpinned=True) == target
    assert target.read_bytes() == remote.content
    assert visible(cache) == ["model.th", LOCK_FILE]
    content = json.loads((cache / LOCK_FILE).read_text())
    assert content["format"] == 1
    pin = content["files"]["model"]
    assert set(pin) == {"sha256", "size", "address", "date"}
    assert pin["sha256"] == remote.sha256
    assert pin["size"] == len(remote.content)
    assert pin["address"] == remote.address
    age = datetime.now(UTC) - datetime.fromisoformat(pin["date"])
    assert -2 < age.total_seconds() < 60
    assert remote.sha256 in caplog.text


def test_second_fetch_reads_the_cache(get, remote, target):
    get(allow_unpinned=True)
    assert get() == target
    assert len(remote.requests) == 1


def test_changed_file_in_the_cache_is_refused_even_when_unpinned_ones_are_allowed(
    get, remote, cache, target
):
    get(allow_unpinned=True)
    target.write_bytes(remote.content[:-1] + b"X")
    for allow in (False, True):
        with pytest.raises(ConfigurationError) as caught:
            get(allow_unpinned=allow)
        message = str(caught.value)
        assert message.startswith(f"model: {target} has sha256 ")
        assert remote.sha256 in message
        assert f"{cache / LOCK_FILE}, pinned 20" in message
        assert f"from {remote.address}" in message
    assert len(remote.requests) == 1
    assert target.exists()


def test_file_that_changed_where_it_is_published_is_refused(get, remote, cache, target):
    get(allow_unpinned=True)
    pinned = remote.sha256
    target.unlink()
    remote.content, remote.etag = remote.content[::-1], '"version two"'
    with pytest.raises(ConfigurationError) as caught:
        get(allow_unpinned=True)
    message = str(caught.value)
    assert pinned in message
    assert remote.sha256 in message
    assert LOCK_FILE in message
    assert "changed where it is published" in message
    assert visible(cache) == [LOCK_FILE]
    assert read_pins(cache)["model"].sha256 == pinned


def test_deleted_file_is_fetched_again_without_permission(get, remote, target):
    get(allow_unpinned=True)
    target.unlink()
    assert get().read_bytes() == remote.content


def test_hash_on_the_card_needs_no_permission_and_no_pin(get, write_card, remote, cache):
    write_card(sha256=remote.sha256)
    get()
    assert visible(cache) == ["model.th"]


def test_wrong_hash_on_the_card(get, write_card, remote, cache):
    write_card(sha256=OTHER_HASH)
    with pytest.raises(ConfigurationError, match=f"expected {OTHER_HASH}.*by the model's card"):
        get()
    assert visible(cache) == []


def test_card_goes_before_the_lock_file(get, write_card, remote):
    get(allow_unpinned=True)
    write_card(sha256=OTHER_HASH)
    with pytest.raises(ConfigurationError, match=f"expected {OTHER_HASH} .the model's card"):
        get()


def test_cut_download_is_continued_by_the_next_fetch(get, remote, cache):
    remote.cuts = [100, 100, 100]
    with pytest.raises(ConfigurationError, match="300 bytes are kept"):
        get(allow_unpinned=True)
    assert visible(cache) == ["model.th.part", "model.th.part.json"]
    assert get(allow_unpinned=True).read_bytes() == remote.content
    assert remote.asked_ranges()[-1] == "bytes=300-"


def test_failure_says_in_one_line_which_file_goes_where(get, write_card, remote, target):
    write_card(megabytes=157)
    remote.statuses = [404]
    with pytest.raises(ConfigurationError) as caught:
        get(allow_unpinned=True)
    message = str(caught.value)
    assert "\n" not in message
    assert "model could not be fetched: " in message
    assert "404" in message
    assert f"get {remote.address} (about 157 MB)" in message
    assert f"put it at {target}" in message
    assert "checked the same way" in message


def test_offline(get, write_card, target):
    write_card(host="http://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match=f"refused.*put it at {target}"):
        get(allow_unpinned=True)


@pytest.fixture
def by_hand(remote, cache, target):
    cache.mkdir()
    target.write_bytes(remote.content)
    return target


def test_file_put_there_by_hand_is_checked_against_the_card(get, write_card, remote, by_hand):
    write_card(sha256=remote.sha256)
    assert get() == by_hand
    by_hand.write_bytes(b"something else")
    with pytest.raises(ConfigurationError, match=r"has sha256 .*expected .*damaged or changed"):
        get()
    assert remote.requests == []


def test_file_put_there_by_hand_is_pinned_once(get, remote, cache, by_hand):
    with pytest.raises(ConfigurationError, match="allow_unpinned=true"):
        get()
    assert get(allow_unpinned=True) == by_hand
    pin = read_pins(cache)["model"]
    assert (pin.sha256, pin.address) == (remote.sha256, "by hand")
    assert get() == by_hand
    by_hand.write_bytes(remote.content[1:])
    with pytest.raises(ConfigurationError, match=r"pinned .* by hand"):
        get(allow_unpinned=True)
    assert remote.requests == []


@pytest.mark.parametrize("size", [100, 700_000, 1_300_000])
def test_file_of_another_size_is_not_pinned(get, write_card, remote, cache, target, size):
    write_card(megabytes=1)
    cache.mkdir()
    target.write_bytes(b"x" * size)
    with pytest.raises(ConfigurationError, match=f"has {size} bytes, expected about 1 MB"):
        get(allow_unpinned=True)
    assert visible(cache) == ["model.th"]  # it is the user's file
    target.write_bytes(b"x" * 1_001_000)
    assert get(allow_unpinned=True) == target


def test_page_of_a_login_portal_is_not_kept(get, write_card, remote, cache):
    write_card(megabytes=1)
    remote.content = b"<html>Please log in</html>"
    with pytest.raises(ConfigurationError, match="not accepted and not kept"):
        get(allow_unpinned=True)
    assert visible(cache) == []


def test_folder_in_the_files_place(get, target):
    target.mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="is not a file"):
        get(allow_unpinned=True)


def test_cache_folder_that_cannot_be_made(get, cache):
    cache.write_bytes(b"a file")
    with pytest.raises(ConfigurationError, match=r"folder .*/cache cannot be used.*CONDVAE_CACHE"):
        get(allow_unpinned=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read .JSONDecodeError"),
        ("[]", "cannot be read .TypeError"),
        ('{"format": 1}', "cannot be read .KeyError"),
        ('{"format": 2, "files": {}}', "format 2, this version reads 1"),
        ('{"format": 1, "files": {"model": {"sha256": 3}}}', r"model\.sha256 = 3: expected str"),
        ('{"format": 1, "files": {"model": {}}}', r"missing parameter .*model\.sha256"),
    ],
)
def test_damaged_lock_file_is_not_taken_for_an_empty_one(get, remote, cache, content, message):
    cache.mkdir()
    (cache / LOCK_FILE).write_text(content)
    with pytest.raises(ConfigurationError, match=message):
        get(allow_unpinned=True)
    assert remote.requests == []
    assert (cache / LOCK_FILE).read_text() == content


def test_pins_of_other_models_stay(get, cache):
    cache.mkdir()
    other = Pin("0" * 64, 5, "https://host/other.th", "2026-01-01T00:00:00+00:00")
    add_pin(cache, "other", other)
    get(allow_unpinned=True)
    assert set(read_pins(cache)) == {"model", "other"}
    assert read_pins(cache)["other"] == other


def _fetch_in_a_process(cache, package, queue):
    cards.files = lambda _: package
    try:
        queue.put(str(fetch("model", cache, True)))
    except Exception as error:
        queue.put(repr(error))


def test_processes_that_fetch_the_same_file_wait_for_each_other(
    write_card, remote, cache, tmp_path
):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    arguments = (cache, tmp_path / "package", queue)
    processes = [context.Process(target=_fetch_in_a_process, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    answers = [queue.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    assert answers == [str(cache / "model.th")] * 3
    assert len(remote.requests) == 1


def test_model_of_the_package_is_its_folder(cache):
    assert fetch("digits", cache) == find_model("digits")
    assert not cache.exists()


def test_unknown_name(cache):
    with pytest.raises(
        ConfigurationError, match=r"pretrained model = 'vdvae': expected one of digits"
    ):
        fetch("vdvae", cache)


def test_known_mismatch_is_said_before_the_fetch(get, write_card, caplog):
    write_card(known_mismatch="reported not to fit")
    with caplog.at_level(logging.WARNING):
        get(allow_unpinned=True)
    assert "model: reported not to fit" in caplog.text


def test_progress_is_a_bar_or_the_callers(get, remote, capsys):
    seen = []
    get(allow_unpinned=True, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(remote.content), len(remote.content))
    assert capsys.readouterr().err == ""


def test_bar_is_shown(get, capsys):
    get(allow_unpinned=True)
    assert "model: 100%" in capsys.readouterr().err


def test_cache_folder_comes_from_argument_environment_or_home(monkeypatch, tmp_path):
    monkeypatch.setenv("CONDVAE_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    assert cache_folder(tmp_path / "there") == tmp_path / "there"
    monkeypatch.delenv("CONDVAE_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "condvae"
