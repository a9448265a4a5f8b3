"""What is written for each picture, what is left alone, and what a killed run leaves."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from condvae import load_posterior, save_posterior
from condvae.completion import check_pictures, complete_pictures, record, run
from condvae.completion.config import CompletionSettings
from condvae.completion.output import locked_output
from condvae.completion.record import check_folder, read_record
from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import sha256_of_file
from condvae.ground.images import to_nchw
from condvae.tasks import ClassLabel

# A five, as the model knows it: enlarged from scikit-learn's.
DIGIT = np.array(
    Image.fromarray(np.rint(load_digits().images[5] * (255 / 16)).astype(np.uint8)).resize(
        (16, 16), Image.Resampling.BICUBIC
    )
)


@pytest.fixture
def two(make_picture, make_mask):
    """Two pictures and one mask."""
    make_picture("a.png", (40, 32))
    make_picture("b.png", (40, 32), seed=1)
    make_mask(size=(40, 32), hole=(4, 16, 36, 32))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_of_a_picture(two, complete, posterior, tmp_path):
    manifest = complete(seed=5, quantiles=(0.0, 0.4, 1.0))
    folder = tmp_path / "out" / "a"
    record = json.loads((folder / "record.json").read_text())
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("input.png", "observed.png", "mask.png", "mean.png", "standard_deviation.png"),
        *("overview.png", "completions.npz", "record.json", "mode_1.png"),
        *(f"completion_0{k}.png" for k in range(3)),
        *(f"quantile_{level}.png" for level in ("00", "40", "100")),
    }
    assert record["files"] == {
        name: sha256_of_file(folder / name) for name in names - {"record.json"}
    }
    assert manifest["pictures"][0]["record_sha256"] == sha256_of_file(folder / "record.json")
    assert record["sampled_from"] == "the posterior (temperature 1)"
    with np.load(folder / "completions.npz", allow_pickle=False) as archive:
        arrays = dict(archive)
    for k in range(3):
        picture = Image.open(folder / f"completion_0{k}.png")
        np.testing.assert_array_equal(np.asarray(picture), arrays["samples"][k, ..., 0])
        assert picture.text == {
            "Software": "condvae",
            "case_id": record["case_id"],
            "model_sha256": posterior.card["sha256"],
            "seed": "5",
            "temperature": "1",
            "n": "3",
            "content": f"completion {k}",
        }
    # Every picture says where it is from.
    for name in names:
        if name.endswith(".png"):
            text = Image.open(folder / name).text
            assert (text["seed"], text["model_sha256"]) == ("5", posterior.card["sha256"])
    mask = np.asarray(Image.open(folder / "mask.png")) == 0
    np.testing.assert_array_equal(mask, arrays["mask"])
    given = np.asarray(Image.open(folder / "input.png"))[..., None]
    assert (arrays["samples"][:, mask] == given[mask]).all()
    assert (arrays["standard_deviation"][mask] == 0).all()
    assert len(np.unique(arrays["samples"][:, ~mask], axis=0)) == 3


def test_statistics_are_those_of_the_posterior(two, complete, posterior, tmp_path):
    levels = (0.0, 0.05, 1 / 3, 0.34, 0.5, 0.67, 0.95, 1.0)
    complete(n=6, seed=2, quantiles=levels)
    record = json.loads((tmp_path / "out/a/record.json").read_text())
    with np.load(tmp_path / "out/a/completions.npz") as arrays:
        pixels = to_nchw(torch.from_numpy(arrays["observed"])[None])
        mask = torch.from_numpy(arrays["mask"])[None, None]
        y = posterior.observe(pixels, mask, (record["case_id"],))
        drawn = posterior.sample(y, 6, seed=2)[:, 0].permute(0, 2, 3, 1)
        np.testing.assert_array_equal(arrays["samples"], drawn)
        summary = posterior.summarise(y, 6, seed=2, quantiles=levels)
        expected = [summary.quantiles[level][0].permute(1, 2, 0).numpy() for level in levels]
        np.testing.assert_array_equal(arrays["quantiles"], np.stack(expected))
        np.testing.assert_array_equal(arrays["quantile_levels"], levels)
        for name in ("mean", "standard_deviation"):
            np.testing.assert_array_equal(
                arrays[name], getattr(summary, name)[0].permute(1, 2, 0).numpy()
            )


def test_results_do_not_depend_on_other_pictures_or_names(two, complete, make_picture, tmp_path):
    complete("both")
    alone = tmp_path / "alone"
    alone.mkdir()
    (tmp_path / "images/b.png").rename(alone / "b.png")
    complete("single", images="alone")
    assert contents(tmp_path / "both/b") == contents(tmp_path / "single/b")
    a, b = (np.load(tmp_path / f"both/{name}/completions.npz")["samples"] for name in "ab")
    assert not np.array_equal(a, b)


def test_a_second_run_does_nothing(two, complete, posterior, tmp_path, monkeypatch):
    first = complete()
    assert [one["status"] for one in first["pictures"]] == ["completed", "completed"]
    assert first["completed_now"] == 2
    before = {name: contents(tmp_path / "out" / name) for name in "ab"}

    def refuse(*_, **__):
        raise AssertionError("sampled again")

    monkeypatch.setattr(type(posterior), "stream", refuse)
    # How much is decoded at a time decides nothing.
    second = complete(batch_size=2)
    assert [one["status"] for one in second["pictures"]] == ["done before", "done before"]
    assert (second["completed_now"], second["completions_per_second"]) == (0, None)
    assert {name: contents(tmp_path / "out" / name) for name in "ab"} == before
    for mine, theirs in zip(first["pictures"], second["pictures"], strict=True):
        assert mine | {"status": ""} == theirs | {"status": ""}


@pytest.mark.parametrize(
    "change",
    [
        {"n": 4},
        {"seed": 1},
        {"temperature": 0.5},
        {"guidance": 0.5},
        {"guidance": 0.5, "guidance_rule": "extrapolation"},
        {"quantiles": (0.5,)},
        {"paste_observed": False},
    ],
)
def test_other_settings_replace_what_was_there(make_picture, make_mask, complete, change, tmp_path):
    make_picture()
    make_mask()
    complete()
    before = contents(tmp_path / "out/a")
    manifest = complete(**change)
    assert manifest["completed_now"] == 1
    after = contents(tmp_path / "out/a")
    assert before["record.json"] != after["record.json"]
    assert ("completion_03.png" in after) == (change == {"n": 4})
    assert ("quantile_95.png" in after) == ("quantiles" not in change)
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == ["a"]


def test_changed_picture_is_made_anew(two, complete, make_picture):
    complete()
    make_picture("b.png", (40, 32), seed=2)
    assert [one["status"] for one in complete()["pictures"]] == ["done before", "completed"]


def test_lost_file_is_made_anew(two, complete, tmp_path):
    complete()
    (tmp_path / "out/b/mean.png").unlink()
    assert [one["status"] for one in complete()["pictures"]] == ["done before", "completed"]


def test_killed_run_leaves_whole_folders_and_goes_on(two, complete, tmp_path, monkeypatch):
    real = record.open_atomic
    written = []

    def fails(path):
        written.append(path.name)
        if path.parent.name.startswith(".b") and path.name == "mean.png":
            raise KeyboardInterrupt
        return real(path)

    monkeypatch.setattr(record, "open_atomic", fails)
    with pytest.raises(KeyboardInterrupt):
        complete()
    assert "mean.png" in written
    assert read_record(tmp_path / "out/a") is not None
    assert not (tmp_path / "out/b").exists()
    assert not (tmp_path / "out/manifest.json").exists()
    monkeypatch.undo()
    finished = complete()
    assert [one["status"] for one in finished["pictures"]] == ["done before", "completed"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *(".lock", "a", "b", "manifest.json")
    ]


def test_what_others_wrote_is_never_replaced(two, complete, posterior, tmp_path, monkeypatch):
    folder = tmp_path / "out/b"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("years of work")
    monkeypatch.setattr(type(posterior), "stream", None)  # refused before anything is sampled
    with pytest.raises(ConfigurationError, match=r"b: exists and holds no readable record\.json"):
        complete()
    monkeypatch.undo()
    assert contents(folder) == {"thesis.txt": b"years of work"}
    (folder / "thesis.txt").unlink()
    folder.rmdir()
    complete()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"also holds notes\.txt, not written by this"):
        complete(n=4)
    assert (folder / "notes.txt").read_text() == "mine"
    check_folder(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("broken", r"b\.png: cannot be read as an image"),
        ("small", r"b\.png: picture of 12 x 12 pixels .* expected a short side of 16 at least"),
        ("mask size", r"mask\.png: mask of 41 x 32 pixels .*; expected 40 x 32 as b\.png"),
        ("mask values", r"mask\.png: not two-valued"),
        ("mask shows all", r"mask\.png: every pixel is observed"),
        ("no mask", r"masks = '.*mask\.png': no such file or folder"),
    ],
)
def test_mistakes_stop_before_anything_is_written(
    two, complete, make_picture, make_mask, tmp_path, mistake, message
):
    match mistake:
        case "broken":
            (tmp_path / "images/b.png").write_bytes(b"no picture")
        case "small":
            make_picture("b.png", (12, 12))
        case "mask size":
            make_mask(size=(41, 32))
        case "mask values":
            Image.fromarray(np.resize(np.arange(9, dtype=np.uint8), (32, 40))).save(
                tmp_path / "mask.png"
            )
        case "mask shows all":
            make_mask(size=(40, 32), hole=(0, 0, 0, 0))
        case "no mask":
            (tmp_path / "mask.png").unlink()
    with pytest.raises(ConfigurationError, match=message):
        complete()
    assert not (tmp_path / "out").exists()


def test_run_goes_on_without_unreadable_pictures_when_told(two, complete, tmp_path, caplog):
    (tmp_path / "images/a.png").write_bytes(b"no picture")
    manifest = complete(unreadable="skip")
    assert [one["name"] for one in manifest["pictures"]] == ["b"]
    (left_out,) = manifest["rejected"]
    assert left_out["picture"] == str(tmp_path / "images/a.png")
    assert "cannot be read as an image" in left_out["reason"]
    assert f"skipped: {tmp_path / 'images/a.png'}" in caplog.text
    assert json.loads((tmp_path / "out/manifest.json").read_text()) == manifest
    assert not (tmp_path / "out/a").exists()


def test_other_temperatures_are_stamped(real_figures, make_mask, complete, tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(DIGIT).save(tmp_path / "images/a.png")
    make_mask(size=(16, 16), hole=(0, 8, 16, 16))
    manifest = complete(temperature=0.7)
    stamp = "temperature 0.7: not the posterior"
    record = json.loads((tmp_path / "out/a/record.json").read_text())
    assert manifest["sampled_from"] == record["sampled_from"] == stamp
    assert Image.open(tmp_path / "out/a/completion_00.png").text["Comment"] == stamp
    red = (np.asarray(Image.open(tmp_path / "out/a/overview.png")) == (0xB3, 0x26, 0x1E)).all(-1)
    assert red.sum() > 500
    complete("posterior")
    plain = np.asarray(Image.open(tmp_path / "posterior/a/overview.png"))
    assert not (plain == (0xB3, 0x26, 0x1E)).all(-1).any()


def test_unusual_input_is_warned_of(make_mask, complete, posterior, tmp_path, caplog):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    Image.fromarray(noise).save(tmp_path / "images/a.png")
    make_mask(size=(16, 16), hole=(0, 8, 16, 16))
    (entry,) = complete()["pictures"]
    assert "look unlike the training data" in entry["input_check"]
    assert entry["warnings"] == [entry["input_check"]]
    assert "a: observed pixels look unlike the training data" in caplog.text


def test_missing_reference_is_said(make_picture, make_mask, posterior, tmp_path):
    make_picture()
    mask = make_mask()
    card = {key: value for key, value in posterior.card.items() if key != "input_reference"}
    unchecked = dataclasses.replace(posterior, card=card)
    settings = run.CompletionSettings(n=2)
    pictures, _ = check_pictures(tmp_path / "images", mask, posterior.contract, settings)
    manifest = complete_pictures(unchecked, pictures, tmp_path / "out", settings, model="digits")
    (entry,) = manifest["pictures"]
    assert entry["input_check"].startswith("input not checked: ")
    assert entry["warnings"] == []
    unsaved = dataclasses.replace(posterior, card={})
    with pytest.raises(ConfigurationError, match="never saved"):
        complete_pictures(unsaved, pictures, tmp_path / "none", settings, model="digits")


def test_pictures_are_checked_again_when_the_card_gains_a_reference(
    make_picture, make_mask, posterior, tmp_path
):
    make_picture()
    settings = run.CompletionSettings(n=2)
    pictures, _ = check_pictures(tmp_path / "images", make_mask(), posterior.contract, settings)
    card = {key: value for key, value in posterior.card.items() if key != "input_reference"}
    checks = []
    for model in (dataclasses.replace(posterior, card=card), posterior, posterior):
        manifest = complete_pictures(model, pictures, tmp_path / "out", settings, model="digits")
        checks.append((manifest["completed_now"], manifest["pictures"][0]["input_check"]))
    assert [count for count, _ in checks] == [1, 1, 0]
    assert checks[0][1].startswith("input not checked: ")
    assert "bits per observed value" in checks[1][1]
    assert checks[2] == (0, checks[1][1])


def test_output_that_cannot_be_used_is_refused_before_sampling(
    two, complete, posterior, tmp_path, monkeypatch
):
    monkeypatch.setattr(type(posterior), "stream", None)
    (tmp_path / "file").write_text("mine")
    for output in ("file", "file/below"):
        with pytest.raises(ConfigurationError, match=r"expected a folder that can be written"):
            complete(output)
    assert (tmp_path / "file").read_text() == "mine"
    with (
        locked_output(tmp_path / "out"),
        pytest.raises(ConfigurationError, match=r"out' is in use by another process"),
    ):
        complete()
    monkeypatch.undo()
    assert complete()["completed_now"] == 2


def test_completions_without_pasting_say_so(two, complete, tmp_path, monkeypatch):
    notes = []
    monkeypatch.setattr(record, "plot_overview", lambda *_, note, **__: notes.append(note))
    complete(paste_observed=False)
    said = "drawn by the model: not exactly those given"
    kept = json.loads((tmp_path / "out/a/record.json").read_text())
    assert kept["observed_pixels"] == said
    for name in ("completion_00.png", "mean.png", "overview.png"):
        assert Image.open(tmp_path / "out/a" / name).text["observed_pixels"] == said
    assert notes[0][-1] == f"Observed pixels of the completions are {said}."
    with np.load(tmp_path / "out/a/completions.npz") as arrays:
        seen = arrays["mask"]
        assert (arrays["samples"][:, seen] != arrays["observed"][seen]).any()


def test_colour_model_of_five_bits(make_posterior, make_picture, make_mask, tmp_path):
    made = make_posterior(dtype=torch.float32, channels=3, bits=5)
    save_posterior(tmp_path / "model", made, {})
    model = load_posterior(tmp_path / "model")
    assert (model.contract.channels, model.contract.bits) == (3, 5)
    make_picture("colour.png", (40, 32), channels=3)
    make_picture("grey.png", (40, 32))
    mask = make_mask(size=(40, 32), hole=(4, 16, 36, 32))
    settings = run.CompletionSettings(n=3)
    pictures, _ = check_pictures(tmp_path / "images", mask, model.contract, settings)
    complete_pictures(model, pictures, tmp_path / "out", settings, model="random")
    for name in ("colour", "grey"):
        with np.load(tmp_path / "out" / name / "completions.npz") as arrays:
            samples, seen = arrays["samples"], arrays["mask"]
            expected = arrays["observed"]
            np.testing.assert_allclose(arrays["mean"], samples.mean(axis=0), rtol=1e-6)
        assert samples.shape == (3, 16, 16, 3)
        given = np.asarray(Image.open(tmp_path / "out" / name / "input.png"))
        np.testing.assert_array_equal(given[seen], expected[seen])
        assert (samples[:, seen] == given[seen]).all()
        kept = json.loads((tmp_path / "out" / name / "record.json").read_text())
        pixels = to_nchw(torch.from_numpy(given.copy())[None])
        y = made.observe(pixels, torch.from_numpy(seen)[None, None], (kept["case_id"],))
        drawn = made.sample(y, 3, seed=settings.seed)[:, 0].permute(0, 2, 3, 1)
        np.testing.assert_array_equal(samples, drawn)
        assert len(np.unique(samples[:, ~seen], axis=0)) == 3


def test_progress_counts_what_is_left(two, complete, posterior, make_picture, tmp_path):
    complete(n=5)
    make_picture("c.png", (40, 32), seed=3)
    settings = run.CompletionSettings(n=5, batch_size=2)
    pictures, _ = check_pictures(
        tmp_path / "images", tmp_path / "mask.png", posterior.contract, settings
    )
    heard = []

    class Progress:
        def on_start(self, pictures, completions):
            heard.append((pictures, completions))

        def on_completions(self, count):
            heard.append(count)

        def on_picture(self):
            heard.append("picture")

    complete_pictures(
        posterior, pictures, tmp_path / "out", settings, model="digits", progress=Progress()
    )
    assert heard == [(1, 5), 2, 2, 1, "picture"]


def test_a_model_of_another_task_is_refused(posterior, tmp_path):
    other = dataclasses.replace(posterior, task=ClassLabel(10))
    with pytest.raises(ConfigurationError, match="task 'class_label': pictures are completed by a"):
        complete_pictures(other, [], tmp_path / "out", CompletionSettings(), model="m")
    assert not (tmp_path / "out").exists()
