"""Evaluation of tasks that show something else than pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from condvae.evaluation import (
    Calibrator,
    PosteriorSource,
    compare_case_tables,
    list_case_scores,
    list_signatures,
    score_cases,
    tabulate,
)
from condvae.evaluation import calibrator as calibrating
from condvae.evaluation.bins import group_cases
from condvae.ipa import ConditionalModel, PartialEncoder
from condvae.posterior.image_posterior import ImagePosterior
from condvae.tasks import ClassLabel, Combination, Glimpses, SideInformation, SuperResolution

N, ROWS = 5, [9, 3, 12, 3, 0]
KNOWN = SideInformation(labels=np.arange(20) % 5)
FACTS = {"k": 3, "temperature": 1.0, "seed": 0, "manifest": "m", "extractors": {"features": "toy"}}


@pytest.fixture
def cases(make_case):
    """Of images 9, 3, 12, 3 and 0; nothing is observed."""
    return [make_case(i, image, 0, size=16) for i, image in enumerate(ROWS)]


@pytest.fixture
def truths(make_pixels):
    return make_pixels(batch=20)[ROWS]


@pytest.fixture
def make_source(make_vae, cases, truths):
    def make(task, draws=None):
        vae = make_vae().requires_grad_(False)
        partial = PartialEncoder(vae, task.condition_channels(vae.contract)).double()
        posterior = ImagePosterior(ConditionalModel(vae, partial), task)
        settings = (3, 1.0, 2, 4, draws, "tiny", KNOWN)
        return PosteriorSource(posterior, cases, truths, *settings)

    return make


def test_a_case_is_observed_by_the_row_of_its_image(make_source):
    source = make_source(ClassLabel(5), ())
    assert source.observe(0, 5).condition[:, :, 0, 0].argmax(dim=1).tolist() == [4, 3, 2, 3, 0]
    assert source.observe(1, 3).condition[:, :, 5, 9].argmax(dim=1).tolist() == [3, 2]
    changed = SideInformation(labels=np.roll(KNOWN.labels, 1))
    moved = PosteriorSource(
        source.posterior, source.cases, source.truths, 3, 1.0, 2, 4, (), "tiny", changed
    )
    assert moved.observe(0, 5).condition[:, :, 0, 0].argmax(dim=1).tolist() == [3, 2, 1, 2, 4]
    terms, _ = source.bound(0, 5)
    assert torch.equal(terms.predicted_nats, terms.all_nats)
    assert source.draw(0, 2).shape == (3, 2, 1, 16, 16)


def test_without_observed_pixels_there_are_no_bins(cases, make_case):
    assert list(group_cases(cases)) == ["pooled"]
    seen = [*cases, make_case(9, 17, 12, size=16)]
    assert list(group_cases(seen)) == ["0_20", "60_80", "pooled"]


@pytest.mark.parametrize("task", [SuperResolution(4), ClassLabel(5)], ids=lambda task: task.name)
def test_scores_and_tables(
    task, make_source, cases, truths, extractors, make_calibrator, array_source
):
    source = make_source(task)
    calibrator = make_calibrator(cases, truths)
    score = score_cases(source, cases, truths, None, extractors, calibrator=calibrator, task=task)
    rows = tabulate({"ipa": score}, cases, FACTS, level=0.9)
    assert {row["bin"] for row in rows} == {"pooled"}
    found = {row["metric"]: row["value"] for row in rows}
    assert "observed_error" not in found
    assert ("consistency_rmse" in found) == (task.name == "super_resolution")
    columns = {k: np.array(v) for k, v in list_case_scores({"ipa": score}, cases).items()}
    compared = compare_case_tables(
        columns, columns, sampler_a="ipa", sampler_b="ipa", level=0.9, seed=0
    )
    assert {row["bin"] for row in compared} == {"pooled"}
    if task.name == "super_resolution":
        drawn = source.draw(0, N).numpy().astype(float)
        gaps = (drawn - truths.numpy()).reshape(3, N, 1, 4, 4, 4, 4).mean(axis=(4, 6))
        np.testing.assert_allclose(found["consistency_rmse"], np.sqrt((gaps**2).mean()), rtol=1e-5)
        same = array_source(truths.expand(3, -1, -1, -1, -1))
        exact = score_cases(same, cases, truths, None, extractors, calibrator=calibrator, task=task)
        assert not exact.values["consistency_rmse"].any()


def test_what_y_does_not_say_is_not_counted(
    make_case, truths, extractors, make_calibrator, array_source
):
    shown = [make_case(i, image, 4, size=16) for i, image in enumerate(ROWS)]
    changed = truths.clone()
    changed[:, :, 8:] = 0  # below the blocks that are seen
    changed[:, :, 4:8] = changed[:, :, 4:8] // 2
    task = Glimpses(factor=4, reach=1)
    score = score_cases(
        array_source(changed.expand(2, -1, -1, -1, -1)),
        *(shown, truths, None, extractors),
        calibrator=make_calibrator(shown, truths),
        task=task,
    )
    np.testing.assert_array_equal(score.weights["consistency_rmse"], 8)  # two rows of four blocks
    blocks = [x[:, 0, 4:8].reshape(N, 4, 4, 4).double().mean(dim=(1, 3)) for x in (truths, changed)]
    expected = (blocks[0] - blocks[1]).square().sum(dim=1)
    np.testing.assert_allclose(score.values["consistency_rmse"], expected, rtol=1e-5)


def test_signatures_are_taken_by_row(make_pixels):
    images = make_pixels(batch=20).permute(0, 2, 3, 1).numpy()
    rows = np.array([5, 0, 7])
    found = list_signatures(ClassLabel(5), images, rows, KNOWN, batch_size=2)
    assert found.argmax(axis=1).tolist() == [0, 0, 2]
    small = list_signatures(SuperResolution(8), images, rows, KNOWN)
    expected = images[rows].reshape(3, 2, 8, 2, 8).mean(axis=(2, 4)).reshape(3, 4)
    np.testing.assert_allclose(small, expected, rtol=1e-5)
    both = Combination({"super_resolution": {"factor": 8}, "class_label": {"classes": 5}})
    assert list_signatures(both, images, rows, KNOWN).shape == (3, 4 + 6)


def test_references_of_a_class_are_several_images_of_it(
    make_case, make_pixels, network, monkeypatch
):
    n, m = 30, 24
    cases = [make_case(i, 20 + i, 0) for i in range(n)]
    truths, bank = make_pixels(n, 1, 10, seed=1), make_pixels(m, 1, 10, seed=2)
    of_cases, of_bank = (np.eye(2, dtype=np.float32)[np.arange(k) % 2] for k in (n, m))
    found = []
    original = calibrating.nearest_references

    def remember(*observed, **settings):
        found.append(original(*observed, **settings))
        return found[-1]

    monkeypatch.setattr(calibrating, "nearest_references", remember)
    for seed, values in ((5, 2**22), (5, 2 * m), (6, 2**22)):
        monkeypatch.setattr(calibrating, "VALUES_AT_ONCE", values)
        Calibrator(cases, truths, bank, network, seed, (of_cases, of_bank))
    whole, *blocks, other = found
    assert len(blocks) == n // 2
    np.testing.assert_array_equal(np.concatenate(blocks), whole)
    np.testing.assert_array_equal(whole % 2, np.arange(n) % 2)
    # 15 choices among 12 images of a class, that of a case always the same for a seed.
    assert all(len(set(whole[k::2])) > 5 for k in (0, 1))
    assert (whole != other).any()


def test_references_are_nearest_in_what_y_says(make_case, make_pixels, network, monkeypatch):
    cases = [make_case(i, 20 + i, 0) for i in range(4)]
    truths, bank = make_pixels(4, 1, 10, seed=1), make_pixels(6, 1, 10, seed=2)
    of_cases = np.array([[0.0], [1.0], [2.0], [1.1]], np.float32)
    of_bank = np.array([[5.0], [2.2], [0.9], [-1.0], [7.0], [0.1]], np.float32)
    seen = []
    original = calibrating.rank_pixels

    def remember(view, **settings):
        seen.append((view.references, view.other_references))
        return original(view, **settings)

    monkeypatch.setattr(calibrating, "rank_pixels", remember)
    for values in (2**22, 6):  # all at once, and one by one
        monkeypatch.setattr(calibrating, "VALUES_AT_ONCE", values)
        calibrator = Calibrator(cases, truths, bank, network, 5, (of_cases, of_bank))
        drawn = make_pixels(8 * 4, 1, 10, seed=3).reshape(8, 4, -1).numpy()
        rng = np.random.default_rng(0)
        features = rng.random((8, 4, 4), np.float32), rng.random((4, 4), np.float32)
        ranks, _, gaps = calibrator.rank(0, drawn, *features, None)
        np.testing.assert_array_equal(seen[-1][0], bank[[5, 2, 1, 2]].flatten(1))
        assert (np.abs(gaps).sum(axis=1) > 0).sum() >= 2
        assert "tarp_y_pixels" in ranks
