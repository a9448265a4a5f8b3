"""The nodes of `complete` on the bundled posterior, its parameters and its page."""

from __future__ import annotations

import json
import re

import click
import numpy as np
import pytest
from PIL import Image

from condvae.ground.configuration import ConfigurationError, read_config
from condvae.models import find_model
from pipelines.app.hooks import ParameterHooks
from pipelines.completion.nodes import complete_own_pictures, write_page
from pipelines.parameters import CompleteConfig
from pipelines.pipeline_registry import register_pipelines

SAMPLING = {"temperature": 0.7, "batch_size": 3, "paste_observed": True}


@pytest.fixture
def inputs(tmp_path):
    """A transparent PNG, a palette GIF and a turned JPEG with a mask each, and a broken file."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()

    def draw(width, height):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5), dtype=np.uint8))
        return coarse.resize((width, height), Image.Resampling.BICUBIC)

    exif = Image.Exif()
    exif[0x0112] = 8  # to be turned by 90 degrees counter-clockwise
    clear = draw(40, 30).convert("RGBA")
    clear.putalpha(draw(40, 30))
    clear.save(tmp_path / "images/clear.png")
    draw(50, 50).convert("P").save(tmp_path / "images/palette.gif")
    draw(30, 48).save(tmp_path / "images/turned.jpg", exif=exif)
    for name, size in (("clear", (40, 30)), ("palette", (50, 50)), ("turned", (48, 30))):
        mask = Image.new("1", size)
        mask.paste(1, (size[0] // 2, 0, *size))
        mask.save(tmp_path / f"masks/{name}.png")
    (tmp_path / "images/notes.bmp").write_text("no picture")
    return {
        "images": str(tmp_path / "images"),
        "masks": str(tmp_path / "masks"),
        "output": str(tmp_path / "out"),
        "n": 4,
        "unreadable": "skip",
    }


@pytest.fixture
def posterior():
    return {"folder": str(find_model("digits_inpainting"))}


def test_pictures_are_completed_shown_and_repeated(inputs, posterior, tmp_path):
    manifest = complete_own_pictures(posterior, inputs, SAMPLING, seed=3, device="cpu")
    assert [one["name"] for one in manifest["pictures"]] == ["clear", "palette", "turned"]
    assert [one["picture"].rsplit("/", 1)[1] for one in manifest["rejected"]] == ["notes.bmp"]
    assert manifest["settings"]["seed"] == 3
    assert manifest["settings"]["batch_size"] == 3
    assert manifest["model"] == posterior["folder"]
    assert manifest["command"].startswith("kedro")
    for one in manifest["pictures"]:
        # The right half is the hole; it starts where the middle of the crop lies.
        mask = np.asarray(Image.open(tmp_path / "out" / one["name"] / "mask.png"))
        assert (mask[:, :8] == 0).all()
        assert (mask[:, 8:] == 255).all()

    files = write_page(manifest, inputs)
    assert files["names"] == ["clear", "palette", "turned"]
    page = (tmp_path / "out" / files["page"]).read_text()
    assert page.count("data:image/png;base64,") == 3
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "temperature 0.7: not the posterior" in page
    assert "white is the hole, black is observed" in page
    assert "notes.bmp: " in page
    assert manifest["model_sha256"] in page

    again = inputs | {
        "images": None,
        "n": 9,
        "replay": f"{tmp_path}/out/manifest.json",
        "output": f"{tmp_path}/again",
    }
    plain = SAMPLING | {"temperature": 1.0}
    repeated = complete_own_pictures(posterior, again, plain, seed=99, device="cpu")
    assert repeated["replay"]["identical"] == [one["name"] for one in manifest["pictures"]]
    for one in manifest["pictures"]:
        for path in (tmp_path / "out" / one["name"]).iterdir():
            assert path.read_bytes() == (tmp_path / "again" / one["name"] / path.name).read_bytes()
    write_page(repeated, again)
    page = (tmp_path / "again/index.html").read_text()
    assert "the completions of 3 of 3 pictures were made again and are the same" in page


def test_names_and_warnings_in_the_page_are_escaped(inputs, posterior, tmp_path):
    for folder, ending in (("images", "gif"), ("masks", "png")):
        path = tmp_path / folder / f"palette.{ending}"
        path.rename(path.with_name(f"<b>1&2.{ending}"))
    settings = inputs | {"images": f"{tmp_path}/images/<b>1&2.gif"}
    manifest = complete_own_pictures(
        posterior, settings, SAMPLING | {"temperature": 1.0}, seed=0, device="cpu"
    )
    write_page(manifest, settings)
    page = (tmp_path / "out/index.html").read_text()
    assert "&lt;b&gt;1&amp;2" in page
    assert "<b>1" not in page
    assert "not the posterior" not in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "complete.images = None: expected a file or folder"),
        ({"masks": None}, "complete.masks = None: expected a file or folder"),
        ({"images": "nowhere"}, "complete.images = 'nowhere': no such file or folder"),
        ({"masks": "nowhere"}, "complete.masks = 'nowhere': no such file or folder"),
        ({"replay": "nowhere.json"}, "complete.replay = 'nowhere.json': no such file or folder"),
    ],
)
def test_run_that_is_not_told_what_to_complete_is_refused(inputs, tmp_path, change, message):
    config = read_config(CompleteConfig, inputs | change, "complete")
    with pytest.raises(ConfigurationError) as error:
        config.check_inputs(tmp_path)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 1}, "complete.n = 1: a standard deviation needs at least 2 completions"),
        ({"polarity": "black"}, "complete.polarity = 'black': expected one of white_is_hole"),
        ({"small": "pad"}, "complete.small = 'pad': expected one of refuse, enlarge"),
        ({"unreadable": True}, "complete.unreadable = True: expected str"),
        ({"quantiles": [0.5, 2]}, "complete.quantiles: level 2.0, expected in [0, 1]"),
        ({"image": "x"}, "unknown parameter complete.image (did you mean complete.images?)"),
    ],
)
def test_mistakes_in_parameters_are_refused_by_name(inputs, change, message):
    with pytest.raises(ConfigurationError) as error:
        read_config(CompleteConfig, inputs | change, "complete")
    assert message in str(error.value)


class Catalog:
    """Parameters as a run's catalog holds them."""

    def __init__(self, **complete):
        self.complete = complete

    def load(self, name):
        sizes = {"quick": {"completions": 3, "cases_per_bin": 1}}
        evaluation = {**sizes, "full": sizes["quick"]}
        return {"params:complete": self.complete, "params:evaluation": evaluation}[name]


def test_only_the_pipeline_complete_needs_pictures(tmp_path):
    pipelines, hooks = register_pipelines(), ParameterHooks()
    run = {"project_path": str(tmp_path)}
    catalog = Catalog(output="out")
    with pytest.raises(click.ClickException, match=r"complete\.images = None"):
        hooks.before_pipeline_run(run, pipelines["complete"], catalog)
    hooks.before_pipeline_run(run, pipelines["inpaint"], catalog)
    hooks.after_pipeline_run()
    (tmp_path / "images").mkdir()
    told = Catalog(output="out", images="images", masks="images")
    hooks.before_pipeline_run(run, pipelines["complete"], told)
    hooks.after_pipeline_run()


def test_manifest_survives_json(inputs, posterior):
    settings = inputs | {"images": f"{inputs['images']}/palette.gif"}
    manifest = complete_own_pictures(posterior, settings, SAMPLING, seed=0, device="cpu")
    assert json.loads(json.dumps(manifest, allow_nan=False)) == manifest


def test_the_bundled_digits_are_warned_of(inputs, posterior, caplog):
    complete_own_pictures(posterior, inputs | {"n": 2}, SAMPLING, seed=0, device="cpu")
    assert "the bundled model of grey digits, 16 x 16 pixels" in caplog.text
    assert "weights.posterior" in caplog.text
