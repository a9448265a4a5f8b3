"""Preparation that is interrupted, by every means, and goes on."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from condvae.data import DataConfig, prepare_images
from condvae.data.formats.files import FileSource
from condvae.ground.configuration import ConfigurationError

FILES = ("images.npy", "records.json", "meta.json")
COUNT = 50


@pytest.fixture(autouse=True)
def often_committed(monkeypatch):
    monkeypatch.setattr("condvae.data.unfinished.COMMIT_ROWS", 7)


@pytest.fixture
def config(tmp_path):
    """Pictures with duplicates and broken files among them, so that counts differ everywhere."""
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 6, 6, 3), dtype=np.uint8)
    images[[20, 33]] = images[[4, 4]]
    for i, pixels in enumerate(images):
        path = tmp_path / "raw" / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
        if i in (6, 7, 30, COUNT - 1):
            path.write_text("no picture")
    return DataConfig(
        name="pictures", source="image_folder", path=str(tmp_path / "raw"), image_size=6,
        channels=3, unreadable="skip", validation_share=0.3, test_share=0.3,
    )  # fmt: skip


@pytest.fixture
def undisturbed(config, tmp_path):
    prepare_images(config, tmp_path / "undisturbed")
    return {name: (tmp_path / "undisturbed" / name).read_bytes() for name in FILES}


def interrupt_after(monkeypatch, pictures):
    """Make the source raise after so many pictures; returns the indices it is asked for."""
    asked = []
    read = FileSource.read

    def cut_off(self, chosen):
        asked.extend(chosen)
        for done, image in enumerate(read(self, chosen)):
            if done == pictures:
                raise KeyboardInterrupt
            yield image

    monkeypatch.setattr(FileSource, "read", cut_off)
    return asked


@pytest.mark.parametrize("pictures", [0, 5, 8, 20, 40])
def test_the_next_run_reads_only_what_is_left(config, tmp_path, monkeypatch, undisturbed, pictures):
    folder = tmp_path / "store"
    with monkeypatch.context() as patch:
        interrupt_after(patch, pictures)
        with pytest.raises(KeyboardInterrupt):
            prepare_images(config, folder)
    assert not (folder / "images.npy").exists()
    with monkeypatch.context() as patch:
        asked = interrupt_after(patch, 1000)
        prepare_images(config, folder)
    assert {name: (folder / name).read_bytes() for name in FILES} == undisturbed
    assert {path.name for path in folder.iterdir()} == set(FILES)
    # A line of the journal for seven rows; duplicates and broken files are no rows.
    done = COUNT - len(asked)
    assert pictures - 9 <= done <= pictures + 3
    assert asked == list(range(done, COUNT))


@pytest.mark.parametrize(
    "damage", ["half a line", "more rows", "fewer rows", "no journal", "no array", "not a journal"]
)
def test_what_a_crash_may_leave_is_repaired(config, tmp_path, monkeypatch, undisturbed, damage):
    folder = tmp_path / "store"
    with monkeypatch.context() as patch:
        interrupt_after(patch, 30)
        with pytest.raises(KeyboardInterrupt):
            prepare_images(config, folder)
    journal, array = folder / ".unfinished/journal.jsonl", folder / ".unfinished/images.npy"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) > 3
    if damage == "half a line":
        journal.write_bytes(b"".join(lines[:-1]) + lines[-1][:-9])
    elif damage == "more rows":
        array.write_bytes(array.read_bytes() + b"x" * 1000)
    elif damage == "fewer rows":
        os.truncate(array, 128 + 3 * 108)
    elif damage == "no journal":
        journal.unlink()
    elif damage == "no array":
        array.unlink()
    else:
        journal.write_bytes(b"\xff\xfe\n" + b"".join(lines[1:]))
    prepare_images(config, folder)
    assert {name: (folder / name).read_bytes() for name in FILES} == undisturbed
    assert {path.name for path in folder.iterdir()} == set(FILES)


@pytest.mark.parametrize("change", ["config", "source"])
def test_what_another_run_left_is_thrown_away(config, tmp_path, monkeypatch, change):
    folder = tmp_path / "store"
    with monkeypatch.context() as patch:
        interrupt_after(patch, 30)
        with pytest.raises(KeyboardInterrupt):
            prepare_images(config, folder)
    if change == "config":
        config = dataclasses.replace(config, seed=1)
    else:
        (tmp_path / "raw" / "00.png").write_bytes((tmp_path / "raw" / "01.png").read_bytes())
    with monkeypatch.context() as patch:
        asked = interrupt_after(patch, 1000)
        store = prepare_images(config, folder)
    assert asked == list(range(COUNT))
    assert store.fingerprint == prepare_images(config, tmp_path / "fresh").fingerprint


def test_a_subset_goes_on_too(config, tmp_path, monkeypatch):
    config = dataclasses.replace(config, limit=35)
    expected = prepare_images(config, tmp_path / "fresh").fingerprint
    with monkeypatch.context() as patch:
        interrupt_after(patch, 20)
        with pytest.raises(KeyboardInterrupt):
            prepare_images(config, tmp_path / "store")
    calls = []
    store = prepare_images(config, tmp_path / "store", lambda *call: calls.append(call))
    assert store.fingerprint == expected
    assert calls[0][0] > 10
    assert {total for _, total in calls} == {35}


def test_an_error_leaves_nothing(config, tmp_path):
    with pytest.raises(ConfigurationError, match=r"06\.png"):
        prepare_images(dataclasses.replace(config, unreadable="stop"), tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []


def test_an_error_leaves_what_was_there_before(config, tmp_path, undisturbed):
    (tmp_path / "raw" / "00.png").write_text("broken since")
    with pytest.raises(ConfigurationError, match=r"00\.png"):
        prepare_images(dataclasses.replace(config, unreadable="stop"), tmp_path / "undisturbed")
    found = {path.name: path.read_bytes() for path in (tmp_path / "undisturbed").iterdir()}
    assert found == undisturbed


SCRIPT = """
import json, os, signal, sys
from condvae.data import DataConfig, prepare_images
import condvae.data.unfinished
condvae.data.unfinished.COMMIT_ROWS = 7
config = DataConfig(**json.loads(sys.argv[1]))
left = int(sys.argv[3])
def show(done, total):
    if done >= left:
        if sys.argv[4] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        print("waiting", flush=True)
        sys.stdin.read()
prepare_images(config, sys.argv[2], show)
"""


def start(config, folder, pictures, then):
    values = json.dumps(dataclasses.asdict(config))
    command = [sys.executable, "-c", SCRIPT, values, str(folder), str(pictures), then]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_killed_process_is_continued(config, tmp_path, monkeypatch, undisturbed):
    process = start(config, tmp_path / "store", 25, "kill")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    asked = interrupt_after(monkeypatch, 1000)
    prepare_images(config, tmp_path / "store")
    assert len(asked) < COUNT - 10
    assert {name: (tmp_path / "store" / name).read_bytes() for name in FILES} == undisturbed


@pytest.mark.parametrize("end", ["kill", "finish"])
def test_second_process_waits_and_takes_what_the_first_has_made(
    config, tmp_path, monkeypatch, caplog, end
):
    pytest.importorskip("fcntl")
    process = start(config, tmp_path / "store", 25, "wait")
    assert process.stdout.readline() == "waiting\n"
    asked, found = interrupt_after(monkeypatch, 1000), []
    other = threading.Thread(
        target=lambda: found.append(prepare_images(config, tmp_path / "store"))
    )
    with caplog.at_level(logging.INFO):
        other.start()
        while "waiting for another process" not in caplog.text:
            time.sleep(0.01)
    if end == "kill":
        process.kill()
    process.communicate("\n" if end == "finish" else None, timeout=60)
    other.join(timeout=60)
    assert len(found[0].records) == COUNT - 6
    assert (len(asked) == 0) == (end == "finish")
