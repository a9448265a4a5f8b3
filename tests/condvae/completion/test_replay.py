from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from condvae.completion import find_replayed_model, read_replay, repeat_run, run
from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import sha256_of_file
from condvae.models import find_model
from condvae.models.folder import save_posterior


@pytest.fixture
def finished(tmp_path, make_picture, make_mask, complete):
    """A run over two pictures with settings of its own."""
    make_picture("a.png", (40, 32))
    make_picture("b.png", (40, 32), seed=1)
    make_mask(size=(40, 32), hole=(4, 16, 36, 32))
    complete(n=4, seed=7, temperature=0.8, quantiles=(0.25,), batch_size=3)
    return tmp_path / "out/manifest.json"


def test_repetition_has_the_same_bytes(finished, posterior, tmp_path):
    replay = read_replay(finished, tmp_path / "again")
    manifest = repeat_run(posterior, replay, tmp_path / "again", model="digits")
    for name in "ab":
        files = {path.name: path.read_bytes() for path in (tmp_path / "out" / name).iterdir()}
        again = {path.name: path.read_bytes() for path in (tmp_path / "again" / name).iterdir()}
        assert len(files) == 14
        assert again == files
    assert manifest["replay"] == {
        "manifest": str(finished),
        "sha256": sha256_of_file(finished),
        "identical": ["a", "b"],
        "differing": [],
        "figures_differing": [],
        "not_repeated": [],
    }
    original = json.loads(finished.read_text())
    assert manifest["settings"] == original["settings"]
    assert manifest["settings"]["batch_size"] == 3
    assert json.loads((tmp_path / "again/manifest.json").read_text()) == manifest


def test_results_that_differ_are_named(finished, posterior, tmp_path, caplog):
    replay = read_replay(finished, tmp_path / "again")
    arrays = replay.arrays_sha256 | {"b": "0" * 64}
    figures = replay.figures_sha256 | {"a": "0" * 64}
    manifest = repeat_run(
        posterior,
        dataclasses.replace(replay, arrays_sha256=arrays, figures_sha256=figures),
        tmp_path / "again",
        model="digits",
    )
    assert manifest["replay"]["identical"] == ["a"]
    assert manifest["replay"]["differing"] == ["b"]
    assert manifest["replay"]["figures_differing"] == ["a"]
    assert "completions of 1 of 2 pictures made now are bit for bit" in caplog.text
    assert "b: not the same" in caplog.text


def test_results_that_were_there_are_not_called_repeated(finished, posterior, tmp_path, caplog):
    output = tmp_path / "again"
    repeat_run(posterior, read_replay(finished, output), output, model="digits")
    shutil.rmtree(output / "b")
    manifest = repeat_run(posterior, read_replay(finished, output), output, model="digits")
    assert manifest["replay"]["identical"] == ["b"]
    assert manifest["replay"]["not_repeated"] == ["a"]
    assert "a: not repeated" in caplog.text
    manifest = repeat_run(posterior, read_replay(finished, output), output, model="digits")
    assert manifest["replay"]["identical"] == []
    assert manifest["replay"]["not_repeated"] == ["a", "b"]


def test_another_device_or_compression_changes_no_verdict(
    finished, posterior, tmp_path, monkeypatch
):
    versions = {"matplotlib": "0"}
    monkeypatch.setattr(run, "_versions", lambda: versions)
    monkeypatch.setattr(np, "savez_compressed", np.savez)
    output = tmp_path / "again"
    manifest = repeat_run(posterior, read_replay(finished, output), output, model="digits")
    assert manifest["replay"]["identical"] == ["a", "b"]
    assert manifest["replay"]["figures_differing"] == []
    files = [path / "a/completions.npz" for path in (tmp_path / "out", output)]
    assert sha256_of_file(files[0]) != sha256_of_file(files[1])
    monkeypatch.undo()
    shutil.rmtree(output / "b")
    pictures = repeat_run(posterior, read_replay(finished, output), output, model="digits")
    made = [one["made_with"] for one in pictures["pictures"]]
    assert made[0]["versions"] == versions
    assert {"torch", "matplotlib"} <= set(made[1]["versions"])
    assert made[1]["device"] == "cpu"
    assert made[1]["threads"] == torch.get_num_threads()


def test_files_that_changed_are_named(finished, make_picture, tmp_path):
    (tmp_path / "images/a.png").unlink()
    before = sha256_of_file(tmp_path / "images/b.png")
    changed = make_picture("b.png", (40, 32), seed=2)
    with pytest.raises(ConfigurationError) as error:
        read_replay(finished, tmp_path / "again")
    assert str(error.value).splitlines() == [
        f"{finished}: 2 files are not what they were; nothing was written",
        f"  {tmp_path / 'images/a.png'}: No such file or directory",
        f"  {changed}: sha256 {sha256_of_file(changed)[:12]}..., the manifest says "
        f"{before[:12]}...",
    ]
    assert not (tmp_path / "again").exists()


def test_own_folder_is_refused(finished, tmp_path):
    with pytest.raises(ConfigurationError, match="the folder of the manifest to replay"):
        read_replay(finished, tmp_path / "again/../out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "format None, this version reads 2"),
        ('{"format": 9}', "format 9, this version reads 2"),
        ('{"format": 2}', r"no manifest of completions \(KeyError\('settings'\)\)"),
        ('{"format": 2, "settings": {"m": 3}}', r"unknown parameter settings\.m"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ConfigurationError, match=message):
        read_replay(tmp_path / "manifest.json", tmp_path / "again")


def test_model_is_found_by_its_sha256(finished, make_posterior, posterior, tmp_path):
    replay = read_replay(finished, tmp_path / "again")
    other, bundled = tmp_path / "other", find_model("digits_inpainting")
    card = save_posterior(other, make_posterior(), {})
    assert find_replayed_model(replay, (str(other), str(bundled))) == bundled.resolve()
    with pytest.raises(ConfigurationError) as error:
        find_replayed_model(replay, (str(other), str(tmp_path / "none")))
    message = str(error.value)
    assert f"its model, sha256 {posterior.card['sha256'][:12]}..., is not there" in message
    assert f"{other}: sha256 {card['sha256'][:12]}..." in message
    assert "none is not a model folder" in message
    wrong = dataclasses.replace(posterior, card=card)
    with pytest.raises(ConfigurationError, match=r"was made with"):
        repeat_run(wrong, replay, tmp_path / "again", model="other")
