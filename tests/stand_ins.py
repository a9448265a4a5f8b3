"""Tiny stand-ins in the official layouts, for the fixture `stand_ins`."""

from __future__ import annotations

import gzip
import pickle
import struct
from typing import ClassVar

import numpy as np
from PIL import Image

SEED = 0


def random_pixels(*shape, seed=SEED):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


class Python2Pickler(pickle._Pickler):
    """Writes bytes and text as Python 2 wrote its strings."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, value):
        data = value if isinstance(value, bytes) else value.encode("latin1")
        self.write(b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string


def python2_pickle(path, value):
    with path.open("wb") as file:
        Python2Pickler(file, protocol=2).dump(value)
    # The module had another name in the NumPy that the official files were made with.
    path.write_bytes(path.read_bytes().replace(b"numpy._core.multi", b"numpy.core.multi"))


def make_cifar10(folder, per_batch=6):
    """Six batches; returns pictures (N,32,32,3) and labels in their order."""
    folder = folder / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    pixels = random_pixels(6 * per_batch, 32, 32, 3)
    labels = np.random.default_rng(1).integers(0, 10, len(pixels))
    for i, name in enumerate(names):
        rows = slice(i * per_batch, (i + 1) * per_batch)
        batch = {
            "batch_label": f"training batch {i + 1} of 5",
            "labels": labels[rows].tolist(),
            "data": np.ascontiguousarray(pixels[rows].transpose(0, 3, 1, 2)).reshape(per_batch, -1),
            "filenames": [f"picture_{j}.png" for j in range(per_batch)],
        }
        python2_pickle(folder / name, batch)
    return pixels, labels


def make_idx(folder, train=24, test=6, packed=True):
    """Four IDX files; returns pictures (N,28,28) and labels, training pictures first."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = random_pixels(train + test, 28, 28)
    labels = np.arange(train + test, dtype=np.uint8) % 10
    opened = gzip.open if packed else open
    for part, rows in (("train", slice(train)), ("t10k", slice(train, None))):
        for kind, array in (("images-idx3", pixels[rows]), ("labels-idx1", labels[rows])):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            with opened(folder / f"{part}-{kind}-ubyte{'.gz' * packed}", "wb") as file:
                file.write(header + array.tobytes())
    return pixels, labels


def save_pictures(folder, names, pixels):
    for name, picture in zip(names, pixels, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)


def make_imagenet_pictures(folder, size, train=20, valid=5):
    """The withdrawn PNG folders; returns pictures in the order of their names."""
    pixels = random_pixels(train + valid, size, size, 3)
    names = [f"train_{size}x{size}/{i + 1:07d}.png" for i in range(train)]
    names += [f"valid_{size}x{size}/{i + 1:05d}.png" for i in range(valid)]
    save_pictures(folder, names, pixels)
    return pixels


def make_imagenet_batches(folder, size, batches=11, per_batch=2, valid=3):
    """The downsampled npz batches; returns pictures and labels from 0."""
    folder.mkdir(parents=True, exist_ok=True)
    train = batches * per_batch
    pixels = random_pixels(train + valid, size, size, 3)
    labels = np.arange(train + valid) * 30 % 1000
    planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).reshape(len(pixels), -1)
    parts = [
        (f"train_data_batch_{i + 1}", slice(i * per_batch, (i + 1) * per_batch))
        for i in range(batches)
    ]
    for name, rows in [*parts, ("val_data", slice(train, None))]:
        np.savez(
            folder / name, data=planes[rows], labels=labels[rows] + 1, mean=planes.mean(axis=0)
        )
    return pixels, labels


def make_ffhq_pictures(folder, count=20, size=8):
    """PNG files in numbered folders of five; returns pictures in the order of their numbers."""
    pixels = random_pixels(count, size, size, 3)
    names = [f"{i // 5 * 5:05d}/{i:05d}.png" for i in range(count)]
    save_pictures(folder, names, pixels)
    (folder / "LICENSE.txt").write_text("no picture")
    return pixels


def make_ffhq_array(folder, count=20, size=8):
    """The one array that the VDVAE was trained on; returns its pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = random_pixels(count, size, size, 3)
    np.save(folder / "ffhq-256.npy", pixels)
    return pixels


def make_celeba(folder, count=12):
    """Pictures of 178x218, attributes, partition; returns names, attributes and splits."""
    names = [f"{i + 1:06d}.jpg" for i in range(count)]
    # Smooth, so that each JPEG file differs from the others.
    shades = np.linspace(10, 240, count).astype(np.uint8)
    pixels = np.broadcast_to(shades[:, None, None, None], (count, 218, 178, 3))
    save_pictures(folder / "img_align_celeba", names, pixels)
    attributes = random_pixels(count, 40) % 2
    header = " ".join(f"Attribute_{j}" for j in range(40))
    lines = [
        f"{name} " + " ".join(f"{2 * int(value) - 1:2d}" for value in row)
        for name, row in zip(names, attributes, strict=True)
    ]
    (folder / "list_attr_celeba.txt").write_text("\n".join([str(count), header + " ", *lines, ""]))
    codes = [(0, 0, 1, 2)[i % 4] for i in range(count)]
    partition = "".join(f"{name} {code}\n" for name, code in zip(names, codes, strict=True))
    (folder / "list_eval_partition.txt").write_text(partition)
    return names, attributes, [("train", "validation", "test")[code] for code in codes]


def make_edges(folder, name, train=6, val=2, size=16, suffix="png"):
    """Side-by-side pictures; returns left and right halves, training pictures first.

    The official ones are JPEG files, whose pixels are not exactly those that were saved.
    """
    pixels = random_pixels(train + val, size, 2 * size, 3)
    names = [f"train/{i + 1}_AB.{suffix}" for i in range(train)]
    names += [f"val/{i + 1}_AB.{suffix}" for i in range(val)]
    save_pictures(folder / name, names, pixels)
    order = np.argsort(names)  # 10 comes before 2
    return pixels[order, :, :size], pixels[order, :, size:]


XRAY_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
XRAY_LABELS = (
    "Cardiomegaly",
    "Cardiomegaly|Emphysema",
    "No Finding",
    "Hernia",
    "Mass|Nodule|Edema",
)


def make_chest_xray(folder, count=10, size=32):
    """Pictures, table, lists; returns pictures, findings as text and splits."""
    names = [f"{i // 2 + 1:08d}_{i % 2:03d}.png" for i in range(count)]
    pixels = random_pixels(count, size, size)
    save_pictures(folder / "images", names, pixels)
    findings = [XRAY_LABELS[i % len(XRAY_LABELS)] for i in range(count)]
    rows = [
        f"{name},{found},0,{i // 2 + 1},58,M,PA,2682,2749,0.143,0.143,"
        for i, (name, found) in enumerate(zip(names, findings, strict=True))
    ]
    (folder / "Data_Entry_2017_v2020.csv").write_text("\n".join([XRAY_HEADER, *rows, ""]))
    test = set(names[-4:])
    (folder / "train_val_list.txt").write_text("\n".join(n for n in names if n not in test))
    (folder / "test_list.txt").write_text("\n".join(sorted(test)) + "\n")
    return pixels, findings, ["test" if name in test else "train" for name in names]
