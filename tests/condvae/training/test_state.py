import logging
import threading
import time

import pytest
import torch

from condvae.ground.configuration import ConfigurationError
from condvae.training.state import CheckpointFolder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_state_comes_back(tmp_path):
    folder = CheckpointFolder(tmp_path, "a")
    for step in (5, 10, 15):
        folder.save(step, {"value": torch.tensor(float(step)), "plain": {"list": [1, 2.5, "x"]}})
    state = CheckpointFolder(tmp_path, "a").load_latest()
    assert state["step"] == 15
    assert float(state["value"]) == 15.0
    assert state["plain"] == {"list": [1, 2.5, "x"]}


def test_two_are_kept_and_the_newest_is_told_by_number_not_by_name(tmp_path):
    folder = CheckpointFolder(tmp_path, "a")
    (tmp_path / "checkpoint-5.pt").write_bytes(b"")  # sorts after 000000010 as text
    for step in (10, 20):
        folder.save(step, {})
    assert names(tmp_path) == ["checkpoint-000000010.pt", "checkpoint-000000020.pt", "run.json"]


def test_a_run_that_goes_back_leaves_nothing_later(tmp_path):
    folder = CheckpointFolder(tmp_path, "a")
    for step in (10, 20):
        folder.save(step, {"attempt": 1})
    assert folder.load_latest(before=20)["step"] == 10
    assert folder.load_latest(before=10) is None
    folder.save(10, {"attempt": 2})
    assert names(tmp_path) == ["checkpoint-000000010.pt", "run.json"]
    assert folder.load_latest()["attempt"] == 2


def test_nothing_to_load_in_a_new_folder(tmp_path):
    assert CheckpointFolder(tmp_path / "new" / "run", "a").load_latest() is None
    assert names(tmp_path / "new" / "run") == ["run.json"]


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_damaged_file_is_named_and_passed_over(tmp_path, caplog, damage):
    folder = CheckpointFolder(tmp_path, "a")
    for step in (1, 2):
        folder.save(step, {"value": torch.zeros(1000)})
    newest = tmp_path / "checkpoint-000000002.pt"
    content = newest.read_bytes()
    parts = {"truncated": content[: len(content) // 2], "empty": b"", "text": b"no checkpoint"}
    newest.write_bytes(parts[damage])
    with caplog.at_level(logging.WARNING):
        assert folder.load_latest()["step"] == 1
    assert str(newest) in caplog.text
    assert "older" in caplog.text


def test_a_checkpoint_of_another_run_or_format_is_passed_over(tmp_path, caplog):
    CheckpointFolder(tmp_path / "other", "b").save(9, {})
    folder = CheckpointFolder(tmp_path / "mine", "a")
    folder.save(3, {})
    (tmp_path / "other" / "checkpoint-000000009.pt").rename(
        tmp_path / "mine" / "checkpoint-000000009.pt"
    )
    torch.save(
        {"format": 99, "fingerprint": "a", "step": 8}, tmp_path / "mine" / "checkpoint-000000008.pt"
    )
    assert folder.load_latest()["step"] == 3
    assert caplog.text.count("written by another version or run") == 2


def test_code_in_a_checkpoint_is_not_run(tmp_path, caplog):
    folder = CheckpointFolder(tmp_path, "a")
    torch.save(
        {"format": 1, "fingerprint": "a", "step": 1, "call": print},
        tmp_path / "checkpoint-000000001.pt",
    )
    assert folder.load_latest() is None
    assert "cannot be used" in caplog.text


def test_the_folder_of_another_run_is_refused_and_left_alone(tmp_path):
    CheckpointFolder(tmp_path, "a" * 64).save(1, {})
    (tmp_path / ".checkpoint-000000002.pt.x.tmp").write_bytes(b"half")
    before = names(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        CheckpointFolder(tmp_path, "b" * 64)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "a" * 12 in message
    assert "b" * 12 in message
    assert "Use another folder" in message
    assert names(tmp_path) == before


def test_what_a_killed_write_left_is_removed(tmp_path):
    CheckpointFolder(tmp_path, "a").save(1, {})
    (tmp_path / ".checkpoint-000000002.pt.abc.tmp").write_bytes(b"half")
    folder = CheckpointFolder(tmp_path, "a")
    with folder.locked():
        assert folder.load_latest()["step"] == 1
    assert names(tmp_path) == ["checkpoint-000000001.pt", "lock", "run.json"]


def test_what_a_kill_before_the_removal_left_is_removed(tmp_path):
    CheckpointFolder(tmp_path, "a").save(1, {})
    oldest = (tmp_path / "checkpoint-000000001.pt").read_bytes()
    for step in (2, 3):
        CheckpointFolder(tmp_path, "a").save(step, {})
    (tmp_path / "checkpoint-000000001.pt").write_bytes(oldest)
    with CheckpointFolder(tmp_path, "a").locked():
        pass
    checkpoints = ["checkpoint-000000002.pt", "checkpoint-000000003.pt"]
    assert names(tmp_path) == [*checkpoints, "lock", "run.json"]


def test_second_process_waits_until_the_first_is_done(tmp_path, caplog):
    events = []

    def wait():
        with CheckpointFolder(tmp_path, "f" * 64).locked():
            events.append("second")

    other = threading.Thread(target=wait)
    with caplog.at_level(logging.INFO), CheckpointFolder(tmp_path, "f" * 64).locked():
        other.start()
        while "waiting for another process" not in caplog.text:
            time.sleep(0.01)
        events.append("first")
    other.join(timeout=30)
    assert events == ["first", "second"]


def test_flipped_bit_is_noticed(tmp_path, caplog):
    folder = CheckpointFolder(tmp_path, "f" * 64)
    folder.save(1, {"weights": torch.zeros(100)})
    folder.save(2, {"weights": torch.ones(100)})
    path = tmp_path / "checkpoint-000000002.pt"
    content = bytearray(path.read_bytes())
    place = content.index(torch.ones(100).numpy().tobytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))
    state = folder.load_latest()
    assert state["step"] == 1
    assert "is damaged" in caplog.text
