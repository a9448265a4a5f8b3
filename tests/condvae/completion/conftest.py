"""Pictures and masks on disk, and the bundled posterior."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from condvae import load_posterior
from condvae.completion import CompletionSettings, check_pictures, complete_pictures, record


@pytest.fixture(scope="session")
def posterior():
    return load_posterior("digits_inpainting")


@pytest.fixture
def real_figures():
    """Ask for this where figures matter."""


@pytest.fixture(autouse=True)
def quick_figures(request, monkeypatch):
    """A grey square in place of figures, which take longer than everything else here."""
    if "real_figures" not in request.fixturenames:
        square = io.BytesIO()
        Image.new("L", (4, 4), 128).save(square, format="png")
        for name in ("plot_deviation", "plot_overview"):
            monkeypatch.setattr(record, name, lambda *_, **__: None)
        monkeypatch.setattr(record, "png_bytes", lambda _: square.getvalue())


@pytest.fixture
def make_picture(tmp_path):
    """A function that saves a smooth picture under `images` and returns its path."""

    def make(name="a.png", size=(32, 32), seed=0, channels=1, **options):
        rng = np.random.default_rng(seed)
        shape = (4, 4) if channels == 1 else (4, 4, 3)
        coarse = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
        path = tmp_path / "images" / name
        path.parent.mkdir(exist_ok=True)
        coarse.resize(size, Image.Resampling.BICUBIC).save(path, **options)
        return path

    return make


@pytest.fixture
def make_mask(tmp_path):
    """A function that saves a mask whose hole, in white, is a box (left, top, right, bottom)."""

    def make(name="mask.png", size=(32, 32), hole=(0, 16, 32, 32)):
        values = np.zeros(size[::-1], dtype=np.uint8)
        left, top, right, bottom = hole
        values[top:bottom, left:right] = 255
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(values).save(path)
        return path

    return make


@pytest.fixture
def complete(tmp_path, posterior):
    """A function that completes what lies under `images` with the mask `mask.png`."""

    def run(output="out", images="images", **settings):
        how = CompletionSettings(**({"n": 3} | settings))
        pictures, rejected = check_pictures(
            tmp_path / images, tmp_path / "mask.png", posterior.contract, how
        )
        return complete_pictures(
            posterior, pictures, tmp_path / output, how, model="digits", rejected=rejected
        )

    return run
