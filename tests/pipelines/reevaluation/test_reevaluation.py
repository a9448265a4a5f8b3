from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from condvae.data.foreign import make_foreign
from condvae.evaluation import case_scores as scoring
from condvae.models.folder import WEIGHTS
from pipelines.evaluation import judging as bench_judging
from pipelines.reevaluation import judging, nodes


def write_pictures(folder, pixels):
    folder.mkdir()
    for number, picture in enumerate(pixels):
        Image.fromarray(picture[..., 0]).save(folder / f"{number:03d}.png")
    return str(folder)


@pytest.fixture
def arrived(prepared):
    """60 pictures that the data set holds out and no test uses as its reference."""
    return prepared.images.pixels[prepared.images.indices("validation")[:60]]


def messages(verdict, kind="reasons"):
    return " ".join(found["message"] for found in verdict[kind])


def test_first_evaluation_of_a_bundled_model_becomes_the_baseline(evaluated):
    verdict = evaluated.verdict
    assert verdict["verdict"] == "ok"
    assert "registered without an evaluation" in messages(verdict, "notes")
    assert "the model's card has no scores" in messages(verdict, "notes")
    assert evaluated.registry.champion.facts["k"] == 9


def test_unchanged_model_is_ok(project):
    verdict = project.run()
    assert (verdict["verdict"], verdict["reasons"]) == ("ok", [])
    comparison = project.scores["comparisons"][0]
    assert comparison["equal"]
    for change in comparison["scores"]:
        assert abs(change["difference"]) < 1e-4 * abs(change["before"])
    assert "up to rounding" in project.page()


def test_champion_that_has_lost_its_place_meanwhile_is_compared_with_itself(project, monkeypatch):
    def promote_another(inputs):
        old = project.registry.champion
        project.registry.earlier = {old.version: old}
        project.registry.champion = replace(old, version="2", cases=None, manifest=None)

    monkeypatch.setattr(nodes, "announce", promote_another)
    assert project.run()["verdict"] == "ok"
    assert project.verdict["champion"]["version"] == "1"
    assert project.scores["comparisons"][0]["equal"]


def test_same_inputs_have_the_same_verdict_at_once(project, monkeypatch):
    project.know_scores()
    first = project.run()
    # That of the champion's first evaluation.
    assert first == project.first

    def refuse(*arguments, **options):
        raise AssertionError("judged again")

    monkeypatch.setattr(judging, "judge_samplers", refuse)
    assert project.run() == first
    with pytest.raises(AssertionError, match="judged again"):
        project.run(tolerance=0.02)


def test_tampered_weights_are_invalid_and_their_hash_is_named(project):
    path = project.registry.champion.folder / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    verdict = project.run()
    assert (verdict["verdict"], project.about()) == ("invalid", {"weights"})
    from condvae.ground.files import sha256_of_file

    assert sha256_of_file(path) in messages(verdict)
    assert project.registry.champion.posterior_sha256 in messages(verdict)
    assert project.scores["comparisons"] == []
    assert "nothing to judge by" in project.page()


def test_weights_and_card_changed_together_are_invalid_by_the_registry(project):
    champion = project.registry.champion
    project.registry.champion = replace(champion, posterior_sha256="0" * 64)
    assert project.run()["verdict"] == "invalid"
    assert f"the registry says {'0' * 64}" in messages(project.verdict)


def test_tampered_manifest_is_invalid(project):
    path = project.registry.champion.manifest
    path.write_bytes(path.read_bytes().replace(b'"seed":', b'"seed": ', 1))
    assert project.run()["verdict"] == "invalid"
    assert project.about() == {"manifest"}
    assert project.registry.champion.manifest_sha256 in messages(project.verdict)


def test_lost_files_of_the_evaluation_are_invalid(project):
    project.registry.champion = replace(project.registry.champion, cases=None)
    assert project.run()["verdict"] == "invalid"
    assert "lost files of its evaluation: cases" in messages(project.verdict)


@pytest.mark.parametrize("where", ["sampling", "registry"])
def test_lowered_temperature_is_degraded_by_calibration(project, where):
    if where == "sampling":
        project.sampling = {"temperature": 0.5}
    else:
        project.registry.champion = replace(project.registry.champion, temperature=0.5)
        project.sampling = {"temperature": 0.5}
    verdict = project.run()
    assert verdict["verdict"] == "degraded"
    assert {"calibration", "temperature"} <= project.about()
    assert "too narrow" in messages(verdict)
    assert "temperature 0.5, the evaluation at registration was at 1" in messages(verdict)


def test_other_versions_are_noted_and_raise_no_alarm(project):
    environment = {**project.registry.champion.environment, "torch": "1.0"}
    project.registry.champion = replace(project.registry.champion, environment=environment)
    assert project.run()["verdict"] == "ok"
    assert "torch 1.0 then" in messages(project.verdict, "notes")


def test_pictures_like_those_of_the_data_set_are_ok(project, arrived, tmp_path):
    project.know_scores()
    verdict = project.run(new_data=write_pictures(tmp_path / "new", arrived))
    assert verdict["verdict"] == "ok", messages(verdict)
    assert project.drift["drift"]["pictures"] == len(arrived)
    assert project.drift["scores"]["metrics"]


def cut_photographs(count):
    """Grey patches of photographs, uint8 (N,16,16,1): another data set."""
    photograph = load_sample_image("china.jpg").mean(axis=2).astype(np.uint8)
    corners = np.random.default_rng(0).integers(0, 400, (count, 2))
    return np.stack([photograph[y : y + 16, x : x + 16, None] for y, x in corners])


@pytest.mark.parametrize("kind", ["rotated", "noise", "photographs"])
def test_other_pictures_have_drifted(project, arrived, tmp_path, kind):
    project.know_scores()
    photographs = kind == "photographs"
    foreign = cut_photographs(60) if photographs else make_foreign(kind, arrived, 0)
    verdict = project.run(new_data=write_pictures(tmp_path / "new", foreign))
    assert verdict["verdict"] == "drifted"
    assert "features" in project.about()
    if kind != "rotated":
        assert "input check" in project.about()
    assert project.page().count("<figure>") == 8


def test_bad_files_are_quarantined_and_stay_where_they_are(project, arrived, tmp_path):
    project.know_scores()
    folder = write_pictures(tmp_path / "new", arrived[:25])
    bad = tmp_path / "new" / "bad.png"
    bad.write_bytes(b"no picture")
    verdict = project.run(new_data=folder)
    assert verdict["verdict"] == "ok"
    assert "1 of 26 files" in messages(verdict, "notes")
    place = project.folder / "reevaluate" / "quarantine" / verdict["key"][:16]
    assert (place / "files" / "bad.png").read_bytes() == bad.read_bytes() == b"no picture"
    listed = json.loads((place / "quarantine.json").read_text())["files"]
    assert [entry["file"] for entry in listed] == ["bad.png"]
    assert "bad.png" in project.page()


def test_an_empty_folder_is_said_and_a_folder_of_rubbish_is_invalid(project, tmp_path):
    project.know_scores()
    folder = tmp_path / "new"
    folder.mkdir()
    assert project.run(new_data=str(folder))["verdict"] == "ok"
    assert "nothing has arrived" in messages(project.verdict, "notes")
    (folder / "a.png").write_bytes(b"")
    assert project.run(new_data=str(folder))["verdict"] == "invalid"
    assert "none of the 1 files" in messages(project.verdict)


def test_a_killed_run_goes_on_where_it_was(project, monkeypatch):
    monkeypatch.setattr(scoring, "VALUES_AT_ONCE", 9 * 256 * 20)  # 20 cases at a time
    drawn = []
    score = bench_judging.ev.PosteriorSource.draw

    def draw(source, start, stop):
        if len(drawn) == 1:
            raise KeyboardInterrupt
        drawn.append((start, stop))
        return score(source, start, stop)

    monkeypatch.setattr(bench_judging.ev.PosteriorSource, "draw", draw)
    with pytest.raises(KeyboardInterrupt):
        project.run()

    def draw_rest(source, start, stop):
        drawn.append((start, stop))
        return score(source, start, stop)

    monkeypatch.setattr(bench_judging.ev.PosteriorSource, "draw", draw_rest)
    assert project.run()["verdict"] == "ok"
    assert drawn == [(0, 20), (20, 40), (40, 50)]


def test_arrivals_are_chosen_by_content(prepared, tmp_path):
    from pipelines.reevaluation.arrivals import list_arrivals, read_arrivals

    pixels = prepared.images.pixels[:3]
    folder = tmp_path / "new"
    write_pictures(folder, [*pixels, pixels[0], pixels[1][:5, :5]])
    colours = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(colours).save(folder / "colours.png")
    Image.fromarray(np.repeat(pixels[2], 3, axis=-1) // 2).save(folder / "grey_as_colours.png")
    (folder / ".hidden.png").write_bytes(b"")
    names = list(list_arrivals(folder))
    found = read_arrivals(folder, names, prepared.images)
    assert found.names == ("000.png", "001.png", "002.png", "grey_as_colours.png")
    assert list(found.rejected) == ["003.png", "004.png", "colours.png"]
    assert "identical" in found.rejected["003.png"]
    assert "5 pixels on the short side" in found.rejected["004.png"]
    assert "has colours" in found.rejected["colours.png"]
    assert (found.pixels[:3] == pixels).all()
    assert found.known == 3
