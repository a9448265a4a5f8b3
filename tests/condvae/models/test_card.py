"""The model card says what card.json says, whatever characters that has."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch
import yaml
from markdown_it import MarkdownIt

from condvae import load_posterior
from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import write_json
from condvae.models.card import record_scores, write_model_card
from condvae.models.folder import read_card, save_posterior, save_vae

EVIL = 'a|b `c` ``d`` *e* _f_ <script>alert(1)</script> [g](http://h) & "i"\n# j\n---\nk: l \\'
SCORES = {
    "manifest": "m" * 64,
    "cases": 50,
    "completions": 8,
    "temperature": 1.0,
    "seed": 3,
    "level": 0.9,
    "data": {"name": "digits", "fingerprint": "f" * 64},
    "metrics": [
        {
            "metric": "crps_per_unobserved_dim",
            **{"value": 12.34567, "low": 11.0, "high": 13.5, "standard_error": 0.7},
            **{"n": 50, "extractor": "pixels"},
        },
        {
            "metric": "unknown_metric",
            **{"value": 0.5, "low": None, "high": None, "standard_error": None},
            **{"n": 10, "extractor": "net|x"},
        },
    ],
    "calibration": {"words": ["too narrow"], "summary": "too narrow: pixel_1 rejects.", "n": 50},
}


@pytest.fixture
def save(tmp_path, make_posterior):
    """Saves a posterior and returns its folder."""

    def save(seed=0, **facts):
        save_posterior(tmp_path / "model", make_posterior(seed=seed, dtype=torch.float32), facts)
        return tmp_path / "model"

    return save


def read_page(folder):
    """Front matter, and cells of the tables of the page with their words as a reader sees them."""
    text = (folder / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    rows, texts = [], []
    for before, token in pairwise(tokens):
        if before.type == "tr_open":
            rows.append([])
        if token.type == "inline":
            words = "".join(child.content for child in token.children)
            texts.append((before.type, before.tag, words))
            if before.type in ("td_open", "th_open"):
                rows[-1].append(words)
    assert not any(token.type.startswith("html") for token in tokens)
    return yaml.safe_load(front), rows, texts


def test_page_says_what_the_card_says(save):
    source = {"command": "kedro run", "data": "f" * 64, "seed": 0, "training": {"steps": 9}}
    folder = save(
        name="digits",
        vae="hf://lab/vae@1",
        weights_source=source,
        data={"fingerprint": "f" * 64, "source": "digits", "images": {"train": 7, "test": 2}},
        licences={"data": "CC BY 4.0"},
    )
    card = read_card(folder)
    page = write_model_card(folder)
    assert page == folder / "README.md"
    front, rows, texts = read_page(folder)
    assert front == {
        "library_name": "condvae",
        "license": "unknown",
        "pipeline_tag": "image-to-image",
        "tags": ["condvae", "variational-autoencoder", "posterior-sampling", "inpainting"],
    }
    for row in (
        ["name", "digits"],
        ["fingerprint", "f" * 64],
        ["images for train", "7"],
        ["images for test", "2"],
        ["training.steps", "9"],
        ["command", "kedro run"],
        ["model.safetensors", card["sha256"]],
    ):
        assert row in rows
    words = [text for _, _, text in texts]
    assert "digits: posterior for inpainting" in words
    assert any("(hf://lab/vae@1)" in text for text in words)
    assert "The training data: CC BY 4.0" in words
    assert "These weights: Not stated." in words
    assert any(text.startswith("Calibration was not measured") for text in words)
    assert "load_posterior" in page.read_text()


def test_markup_in_a_card_is_shown_as_words(save):
    folder = save(
        name=EVIL,
        vae=EVIL,
        licence=EVIL,
        weights_source={"command": EVIL, EVIL: 1},
        data={"source": EVIL},
        scores={EVIL: {**SCORES, "calibration": {"summary": EVIL}}},
    )
    write_model_card(folder)
    front, rows, texts = read_page(folder)
    assert front["license"] == "other"
    assert set(front) == {"library_name", "license", "license_name", "pipeline_tag", "tags"}
    seen = " ".join(EVIL.split())
    for row in (["name", seen], ["command", seen], ["source", seen], [seen, "1"]):
        assert row in rows
    assert [tag for kind, tag, _ in texts if kind == "heading_open"] == ["h1"] + 7 * ["h2"]
    words = [text for _, _, text in texts]
    assert f"{seen}: posterior for inpainting" in words
    assert f"These weights: {seen}" in words
    assert f"Calibration, evaluation {seen}: {seen}" in words


@pytest.mark.parametrize(
    ("licence", "front"),
    [
        ("apache-2.0", {"license": "apache-2.0"}),
        ("MIT", {"license": "mit"}),
        ("as the data: ask", {"license": "other", "license_name": "as-the-data-ask"}),
    ],
)
def test_licence_is_stated_once(save, licence, front):
    folder = save()
    sha256 = read_card(folder)["sha256"]
    write_model_card(folder, licence)
    write_model_card(folder)
    found = read_page(folder)[0]
    assert {key: found[key] for key in found if key.startswith("license")} == front
    assert read_card(folder)["licence"] == licence
    assert read_card(folder)["sha256"] == sha256


def test_scores_come_to_card_and_page_and_leave_the_weights_alone(save):
    folder = save(name="digits")
    weights, before = (folder / "model.safetensors").read_bytes(), read_card(folder)
    record_scores(folder, before["sha256"], "quick", SCORES)
    record_scores(folder, before["sha256"], "full", SCORES | {"cases": 500})
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    record_scores(folder, before["sha256"], "quick", SCORES)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert first["model.safetensors"] == weights
    # A training that is called again after a kill writes the card with its scores first.
    card = json.loads(first["card.json"])
    write_json(folder / "card.json", {"scores": card.pop("scores"), **card})
    record_scores(folder, before["sha256"], "quick", SCORES)
    assert (folder / "card.json").read_bytes() == first["card.json"]
    scores = {"quick": SCORES, "full": SCORES | {"cases": 500}}
    assert json.loads(first["card.json"]) == before | {"scores": scores}
    assert load_posterior(folder).card["scores"] == scores
    _, rows, texts = read_page(folder)
    row = ["crps_per_unobserved_dim ↓", "12.35", "11 to 13.5", "50", "pixels"]
    assert rows.count(row) == 2
    assert ["unknown_metric", "0.5", "–", "10", "net|x"] in rows
    words = [text for _, _, text in texts]
    assert "Calibration, evaluation quick: too narrow: pixel_1 rejects." in words
    assert any("500 cases, 8 completions" in text and "m" * 64 in text for text in words)
    assert any("Intervals hold 90 %" in text for text in words)


def test_scores_of_other_weights_are_refused(save):
    folder = save()
    card = read_card(folder)
    with pytest.raises(ConfigurationError, match="another run has replaced them"):
        record_scores(folder, "0" * 64, "quick", SCORES)
    assert read_card(folder) == card


def test_number_that_json_does_not_have_leaves_the_card_as_it_was(save):
    folder = save()
    card = read_card(folder)
    with pytest.raises(ValueError, match="not JSON compliant"):
        record_scores(folder, card["sha256"], "quick", SCORES | {"level": float("nan")})
    assert read_card(folder) == card


def test_vae_has_a_page_too(tmp_path, make_vae):
    facts = {
        "name": "digits",
        **{"test_bits_per_dim": 1.7346, "test_bits_per_dim_standard_error": 0.01, "test_images": 9},
    }
    save_vae(tmp_path, make_vae(), facts)
    write_model_card(tmp_path)
    front, _, texts = read_page(tmp_path)
    assert front["pipeline_tag"] == "unconditional-image-generation"
    words = [text for _, _, text in texts]
    assert "digits: unconditional VAE" in words
    assert "1.7346 bits per dim (standard error 0.0100) on 9 test images." in words
