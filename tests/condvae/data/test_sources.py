from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from condvae.data import DataConfig
from condvae.data.sources import open_source
from condvae.ground.configuration import ConfigurationError


def open_npz(path):
    return open_source(DataConfig(source="npz", path=str(path)))


def open_folder(path, **options):
    return open_source(DataConfig(source="image_folder", path=str(path), **options))


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def save_picture(path, colour=(1, 2, 3), mode="RGB", size=(4, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


class TestDigits:
    def test_pixels_are_scaled_to_8_bits(self):
        source = open_source(DataConfig())
        raw = load_digits()
        assert source.count == 1797
        assert source.class_names == tuple("0123456789")
        levels = [round(v * 255 / 16) for v in range(17)]
        images = list(source.read([0, 1796]))
        for i, image in zip([0, 1796], images, strict=True):
            np.testing.assert_array_equal(
                image.pixels, np.vectorize(levels.__getitem__)(raw.images[i].astype(int))
            )
            assert image.label == raw.target[i]
            assert image.origin == f"digits[{i}]"


class TestNpz:
    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    @pytest.mark.parametrize("shape", [(7, 4, 5), (7, 4, 5, 1), (7, 4, 5, 3)])
    def test_chosen_rows_are_read(self, tmp_path, save, shape):
        images = random_images(*shape)
        save(tmp_path / "a.npz", images=images, labels=np.arange(7, dtype=np.uint8))
        source = open_npz(tmp_path / "a.npz")
        assert source.count == 7
        assert source.class_names == tuple("0123456")
        read = list(source.read([1, 2, 6]))
        assert [image.label for image in read] == [1, 2, 6]
        assert [image.origin for image in read] == ["images[1]", "images[2]", "images[6]"]
        np.testing.assert_array_equal([image.pixels for image in read], images[[1, 2, 6]])

    def test_labels_and_class_names_are_optional(self, tmp_path):
        np.savez(tmp_path / "a.npz", images=random_images(2, 4, 4))
        source = open_npz(tmp_path / "a.npz")
        assert source.class_names == ()
        assert next(source.read([0])).label is None
        np.savez(
            tmp_path / "b.npz", images=random_images(2, 4, 4), labels=[0, 1], classes=["x", "y"]
        )
        assert open_npz(tmp_path / "b.npz").class_names == ("x", "y")

    def test_attributes_and_their_names_are_optional(self, tmp_path):
        images, attributes = random_images(3, 4, 4), [[1, 0], [0, 0], [0, 1]]
        np.savez(tmp_path / "a.npz", images=images, attributes=attributes)
        source = open_npz(tmp_path / "a.npz")
        assert source.attribute_names == ("0", "1")
        read = [image.attributes for image in source.read([0, 2])]
        assert [row.tolist() for row in read] == [[1, 0], [0, 1]]
        assert read[0].dtype == np.uint8
        truths = np.array(attributes, bool)
        np.savez(tmp_path / "b.npz", images=images, attributes=truths, attribute_names=["x", "y"])
        assert open_npz(tmp_path / "b.npz").attribute_names == ("x", "y")
        np.savez(tmp_path / "c.npz", images=images)
        assert open_npz(tmp_path / "c.npz").attribute_names == ()
        assert next(open_npz(tmp_path / "c.npz").read([0])).attributes is None

    def test_the_identity_follows_the_content(self, tmp_path):
        np.savez(tmp_path / "a.npz", images=random_images(2, 4, 4))
        before = open_npz(tmp_path / "a.npz").identity()
        assert open_npz(tmp_path / "a.npz").identity() == before
        np.savez(tmp_path / "a.npz", images=random_images(2, 4, 4) // 2)
        assert open_npz(tmp_path / "a.npz").identity() != before

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"pictures": random_images(2, 4, 4)}, "no array 'images'; found pictures"),
            ({"images": random_images(2, 4, 4) / 255}, "type float64 and shape (2, 4, 4)"),
            ({"images": random_images(2, 4)}, "shape (2, 4); expected uint8 and (N, H, W)"),
            ({"images": random_images(2, 3, 4, 4)}, "shape (2, 3, 4, 4)"),
            ({"images": random_images(0, 4, 4)}, "shape (0, 4, 4)"),
            ({"images": random_images(2, 4, 4), "labels": [1]}, "shape (1,); expected integers"),
            ({"images": random_images(2, 4, 4), "labels": [0.5, 1]}, "type float64"),
            ({"images": random_images(2, 4, 4), "labels": [-1, 1]}, "label -1; expected >= 0"),
            (
                {"images": random_images(2, 4, 4), "labels": [0, 2], "classes": ["x", "y"]},
                "the labels go up to 2",
            ),
            (
                {"images": random_images(2, 4, 4), "attributes": [1, 0]},
                "'attributes' has shape (2,); expected (2, A)",
            ),
            (
                {"images": random_images(2, 4, 4), "attributes": [[1], [-1]]},
                "values [-1, 1]; expected 0 and 1",
            ),
            ({"images": random_images(2, 4, 4), "attributes": [[1.0], [0.0]]}, "type float64"),
            (
                {
                    "images": random_images(2, 4, 4),
                    "attributes": [[1, 0], [0, 1]],
                    "attribute_names": ["x", "x"],
                },
                "names ['x', 'x']; expected 2 different ones",
            ),
            (
                {"images": np.asfortranarray(random_images(2, 4, 4))},
                "Fortran order",
            ),
            (
                {"images": random_images(2, 4, 4), "labels": np.array([{}, {}], object)},
                "not a readable npz file",
            ),
        ],
    )
    def test_unsuitable_arrays_are_refused(self, tmp_path, arrays, message):
        path = tmp_path / "bad.npz"
        np.savez(path, **arrays)
        with pytest.raises(ConfigurationError) as error:
            open_npz(path)
        assert message in str(error.value)
        assert str(path) in str(error.value)

    def test_missing_and_broken_files_are_named(self, tmp_path):
        with pytest.raises(ConfigurationError, match=r"none\.npz'.*no such npz file"):
            open_npz(tmp_path / "none.npz")
        (tmp_path / "text.npz").write_text("hello")
        with pytest.raises(ConfigurationError, match=r"text\.npz: not a readable npz file"):
            open_npz(tmp_path / "text.npz")

    def test_an_array_that_ends_early_is_refused(self, tmp_path):
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, random_images(3, 4, 4))
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("images.npy", buffer.getvalue()[:-10])
        with pytest.raises(ConfigurationError, match=r"array 'images' ends early"):
            list(open_npz(tmp_path / "a.npz").read([0, 1, 2]))


class TestFolder:
    def test_files_are_found_recursively_and_sorted(self, tmp_path):
        for name in ("b.JPG", "a/z.png", "a/b/c.webp", ".hidden/x.png", "a/._z.png"):
            save_picture(tmp_path / name)
        (tmp_path / "notes.txt").write_text("no picture")
        source = open_folder(tmp_path)
        assert [i.origin for i in source.read(range(source.count))] == [
            "a/b/c.webp",
            "a/z.png",
            "b.JPG",
        ]
        assert source.class_names == ()

    def test_sub_folders_become_classes(self, tmp_path):
        for name in ("dog/1.png", "cat/1.png", "dog/2.png"):
            save_picture(tmp_path / name)
        source = open_folder(tmp_path)
        assert source.class_names == ("cat", "dog")
        assert [(i.origin, i.label) for i in source.read([0, 1, 2])] == [
            ("cat/1.png", 0),
            ("dog/1.png", 1),
            ("dog/2.png", 1),
        ]

    @pytest.mark.parametrize("extra", ["top.png", "cat/deeper/1.png"])
    def test_other_layouts_have_no_classes(self, tmp_path, extra):
        for name in ("dog/1.png", "cat/1.png", extra):
            save_picture(tmp_path / name)
        source = open_folder(tmp_path)
        assert source.class_names == ()
        assert next(source.read([0])).label is None

    def test_one_sub_folder_is_no_classification(self, tmp_path):
        save_picture(tmp_path / "all" / "1.png")
        assert open_folder(tmp_path).class_names == ()

    def test_the_identity_follows_the_listing(self, tmp_path):
        save_picture(tmp_path / "1.png")
        before = open_folder(tmp_path).identity()
        assert open_folder(tmp_path).identity() == before
        save_picture(tmp_path / "2.png")
        assert open_folder(tmp_path).identity() != before

    def test_missing_and_empty_folders_are_named(self, tmp_path):
        with pytest.raises(ConfigurationError, match=r"nowhere'.*no such folder"):
            open_folder(tmp_path / "nowhere")
        with pytest.raises(ConfigurationError, match=r"no images found; expected files ending in"):
            open_folder(tmp_path)

    def test_an_unreadable_picture_stops_or_is_skipped(self, tmp_path, caplog):
        save_picture(tmp_path / "a.png")
        save_picture(tmp_path / "c.png")
        whole = (tmp_path / "a.png").read_bytes()
        (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ConfigurationError, match=r"b\.png: cannot be read"):
            list(open_folder(tmp_path).read([0, 1, 2]))
        source = open_folder(tmp_path, unreadable="skip")
        assert [i.origin for i in source.read([0, 1, 2])] == ["a.png", "c.png"]
        assert source.unreadable == ["b.png"]
        assert "b.png" in caplog.text
