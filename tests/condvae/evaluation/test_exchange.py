import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from condvae.evaluation.cases import read_cases, write_cases
from condvae.evaluation.exchange import MANIFEST, FileSource, export_cases
from condvae.ground.configuration import ConfigurationError

SIZE, COMPLETIONS = 10, 3


@pytest.fixture
def cases(make_case):
    return [make_case(i, image, rows) for i, (image, rows) in enumerate([(7, 2), (8, 5), (7, 0)])]


def pictures(count, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, SIZE, SIZE, channels), dtype=np.uint8)


@pytest.fixture(params=[1, 3])
def samples(request):
    return pictures(COMPLETIONS * 3, request.param).reshape(
        COMPLETIONS, 3, SIZE, SIZE, request.param
    )


def open_source(path, cases, size, channels, **manifest):
    folder = path if path.is_dir() else path.parent
    sha256 = write_cases(folder / MANIFEST, cases)
    return FileSource(path, cases, size, channels, sha256=sha256, **manifest)


def write_folder(folder, cases, samples):
    for n, case in enumerate(cases):
        (folder / case.case_id).mkdir(parents=True)
        for k, completion in enumerate(samples[:, n]):
            squeezed = completion[..., 0] if completion.shape[-1] == 1 else completion
            Image.fromarray(squeezed).save(folder / case.case_id / f"{k}.png")


@pytest.mark.parametrize("channels", [1, 3])
def test_an_export_holds_what_is_observed_and_nothing_of_the_truth(tmp_path, cases, channels):
    truths = np.maximum(pictures(3, channels), 1)
    sha256 = export_cases(tmp_path, cases, truths)
    again = read_cases(tmp_path / MANIFEST, sha256)
    assert [case.case_id for case in again] == [case.case_id for case in cases]
    for case, truth in zip(cases, truths, strict=True):
        seen = np.asarray(Image.open(tmp_path / case.case_id / "observed.png"))
        mask = np.asarray(Image.open(tmp_path / case.case_id / "mask.png"))
        np.testing.assert_array_equal(mask, np.where(case.mask, 0, 255))
        expected = truth[..., 0] if channels == 1 else truth
        np.testing.assert_array_equal(seen[case.mask], expected[case.mask])
        assert not seen[~case.mask].any()
    assert "3 cases of 10 x 10 pixels" in (tmp_path / "README.txt").read_text()


def test_files_and_array_give_the_same_completions(tmp_path, cases, samples):
    write_folder(tmp_path / "folder", cases, samples)
    # In the array, cases may come in any order and with others among them.
    order = [2, 0, 1]
    extra = np.concatenate([samples[:, order], samples[:, :1]], axis=1)
    names = [cases[i].case_id for i in order] + ["another"]
    np.savez(tmp_path / "array.npz", samples=extra, case_ids=names)
    channels = samples.shape[-1]
    for path in (tmp_path / "folder", tmp_path / "array.npz"):
        source = open_source(path, cases, SIZE, channels)
        assert source.completions == COMPLETIONS
        assert source.bound(0, 3) is None
        for start, stop in ((0, 3), (1, 3), (2, 3)):
            drawn = source.draw(start, stop)
            assert drawn.dtype == torch.uint8
            expected = np.moveaxis(samples[:, start:stop], -1, 2)
            np.testing.assert_array_equal(drawn.numpy(), expected)


def test_completions_on_another_scale_are_refused(tmp_path, cases, samples, caplog):
    ids = [case.case_id for case in cases]
    np.savez(tmp_path / "ones.npz", samples=samples // 128, case_ids=ids)
    write_folder(tmp_path / "ones", cases, samples // 128)
    for name in ("ones.npz", "ones"):
        with pytest.raises(ConfigurationError, match=rf"{name}: no value above 1"):
            open_source(tmp_path / name, cases, SIZE, samples.shape[-1])
    np.savez(
        tmp_path / "equal.npz",
        samples=np.broadcast_to(samples[:1, :1], samples.shape),
        case_ids=ids,
    )
    open_source(tmp_path / "equal.npz", cases, SIZE, samples.shape[-1])
    assert "all 9 pictures are equal" in caplog.text


def test_the_identity_follows_the_completions(tmp_path, cases, samples):
    write_folder(tmp_path / "a", cases, samples)
    write_folder(tmp_path / "b", cases, samples)
    changed = samples.copy()
    changed[1, 2, 0, 0] ^= 255
    write_folder(tmp_path / "c", cases, changed)
    found = [open_source(tmp_path / n, cases, SIZE, samples.shape[-1]).identity for n in "abc"]
    assert found[0] == found[1] != found[2]


def test_grey_pictures_serve_as_colour_ones_and_grey_colours_as_grey(tmp_path, cases):
    grey = pictures(COMPLETIONS * 3).reshape(COMPLETIONS, 3, SIZE, SIZE, 1)
    write_folder(tmp_path / "grey", cases, grey)
    write_folder(tmp_path / "colour", cases, np.repeat(grey, 3, axis=-1))
    as_colour = open_source(tmp_path / "grey", cases, SIZE, 3).draw(0, 3)
    as_grey = open_source(tmp_path / "colour", cases, SIZE, 1).draw(0, 3)
    assert (as_colour == as_grey).all()
    assert (as_colour.shape[2], as_grey.shape[2]) == (3, 1)


@pytest.mark.parametrize("kind", ["folder", "beside", "array", "elsewhere"])
def test_completions_of_another_manifest_are_refused(tmp_path, cases, samples, kind):
    # The same ids behind another mask: nothing in the completions themselves tells.
    others = [dataclasses.replace(cases[0], mask=np.roll(cases[0].mask, 1, axis=0)), *cases[1:]]
    path = tmp_path / ("a" if kind == "folder" else "a.npz")
    folder = path if kind == "folder" else tmp_path
    expected = write_cases(tmp_path / "expected.jsonl", cases)
    other = write_cases(tmp_path / "other.jsonl", others)
    extra = {"manifest": np.array(other)} if kind == "array" else {}
    if kind == "folder":
        write_folder(path, cases, samples)
    else:
        np.savez(path, samples=samples, case_ids=[case.case_id for case in cases], **extra)

    def open_with(sha256, manifest=None):
        return FileSource(path, cases, SIZE, samples.shape[-1], sha256=sha256, manifest=manifest)

    if kind != "array":
        with pytest.raises(ConfigurationError, match="nothing says for which cases"):
            open_with(expected)
    manifest = tmp_path / "other.jsonl" if kind == "elsewhere" else None
    if kind in ("folder", "beside"):
        write_cases(folder / MANIFEST, others)
    with pytest.raises(ConfigurationError, match=f"{other}.*{expected}. Export the cases again"):
        open_with(expected, manifest)
    assert open_with(other, manifest).completions == COMPLETIONS
    # A path that is given counts before all else.
    assert open_with(expected, tmp_path / "expected.jsonl").completions == COMPLETIONS


def test_an_export_needs_a_picture_of_every_case(tmp_path, cases):
    with pytest.raises(ValueError, match="shorter"):
        export_cases(tmp_path, cases, pictures(2))


def remove_case(folder, cases):
    for file in (folder / cases[1].case_id).iterdir():
        file.unlink()


def remove_first(folder, cases):
    (folder / cases[1].case_id / "0.png").unlink()


def remove_last(folder, cases):
    (folder / cases[1].case_id / f"{COMPLETIONS - 1}.png").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_case, "no completions of 1 of 3 cases: q-1; expected <case_id>/0.png"),
        (remove_first, r"q-1: completions \[1, 2\]; expected 0.png, 1.png, ... without gaps"),
        (remove_last, r"2 to 3 completions per case \(fewest: q-1\)"),
    ],
)
def test_missing_completions_are_named(tmp_path, cases, samples, damage, message):
    write_folder(tmp_path, cases, samples)
    damage(tmp_path, cases)
    with pytest.raises(ConfigurationError, match=message):
        open_source(tmp_path, cases, SIZE, samples.shape[-1])


def test_pictures_of_another_size_or_with_colours_are_named(tmp_path, cases):
    grey = pictures(COMPLETIONS * 3).reshape(COMPLETIONS, 3, SIZE, SIZE, 1)
    write_folder(tmp_path, cases, grey)
    source = open_source(tmp_path, cases, SIZE, 1)
    Image.new("L", (SIZE, SIZE + 1)).save(tmp_path / "q-0" / "1.png")
    with pytest.raises(ConfigurationError, match=r"1.png: picture of shape \(11, 10, 1\)"):
        source.draw(0, 1)
    Image.new("RGB", (SIZE, SIZE), (1, 2, 3)).save(tmp_path / "q-0" / "1.png")
    with pytest.raises(ConfigurationError, match=r"1.png: picture of shape \(10, 10, 3\)"):
        source.draw(0, 1)


NAMES = ["q-0", "q-1", "q-2"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"case_ids": NAMES}, r"^\S+a\.npz: no array samples; expected"),
        ({"samples": np.zeros((2, 3, SIZE, SIZE, 1)), "case_ids": NAMES}, "samples are float64"),
        ({"samples": np.zeros((2, 3, 9, 9, 1), np.uint8), "case_ids": NAMES}, r"\(2, 3, 9, 9, 1\)"),
        (
            {"samples": np.zeros((2, 2, SIZE, SIZE, 1), np.uint8), "case_ids": NAMES[:2]},
            "no completions of 1 of 3 cases: q-2",
        ),
        (
            {"samples": np.zeros((2, 3, SIZE, SIZE, 1), np.uint8), "case_ids": ["q-0"] * 3},
            "case_ids repeat",
        ),
        (
            {"samples": np.zeros((1, 3, SIZE, SIZE, 1), np.uint8), "case_ids": NAMES},
            "1 completion per case",
        ),
    ],
)
def test_unusable_arrays_are_named(tmp_path, cases, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ConfigurationError, match=message):
        open_source(tmp_path / "a.npz", cases, SIZE, 1)


def test_what_is_no_array_file_is_named(tmp_path, cases):
    with pytest.raises(ConfigurationError, match="no such file or folder"):
        open_source(tmp_path / "missing", cases, SIZE, 1)
    for content in (b"", b"text", b"PK\x03\x04 cut"):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"cannot be read as an \.npz file"):
            open_source(tmp_path / "a.npz", cases, SIZE, 1)
    np.save(tmp_path / "b.npy", np.zeros(3))
    with pytest.raises(ConfigurationError, match=r"cannot be read as an \.npz file"):
        open_source(tmp_path / "b.npy", cases, SIZE, 1)
