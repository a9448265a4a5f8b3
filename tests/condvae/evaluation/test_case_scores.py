"""Scores per case against an independent computation from the completions themselves."""

import dataclasses
from itertools import permutations

import numpy as np
import pytest
import torch
from PIL import Image

from condvae.calibration import assess_classes
from condvae.evaluation import ChunkFolder, FileSource, PosteriorSource, draw_examples, score_cases
from condvae.evaluation import case_scores as scoring
from condvae.evaluation.cases import write_cases
from condvae.evaluation.exchange import MANIFEST
from condvae.ground.configuration import ConfigurationError
from condvae.posterior.importance import importance_bound
from condvae.scores.extraction import extract_features
from condvae.scores.perceptual import perceptual_embedding

COMPLETIONS = 4
MAPS = ("block1", "block2", "block3")
LABELS = np.array([0, 2, 1, 1, 0])
LIKELIHOOD = {
    *("bound_bits_per_unobserved_dim", "negative_elbo_nats_per_dim"),
    *("bound_1_bits_per_unobserved_dim", "bound_10_bits_per_unobserved_dim"),
}


@pytest.fixture
def cases(make_case):
    # Cases 0 and 3 show the same image; hidden rows differ. Nothing is observed of the last.
    shown = [(7, 2), (8, 5), (9, 8), (7, 12), (11, 0)]
    return [make_case(i, image, rows, size=16) for i, (image, rows) in enumerate(shown)]


@pytest.fixture
def truths(make_pixels):
    pixels = make_pixels(batch=5)
    pixels[3] = pixels[0]
    return pixels


@pytest.fixture
def source(make_posterior, cases, truths):
    posterior = make_posterior()
    return PosteriorSource(posterior, cases, truths, COMPLETIONS, 1.0, 2, 4, (1, 10), "tiny")


@pytest.fixture
def score(source, cases, truths, extractors, make_calibrator):
    def call(source=source, *, labels=LABELS, extractors=extractors, **settings):
        settings = {"calibrator": make_calibrator(cases, truths), **settings}
        return score_cases(source, cases, truths, labels, extractors, **settings)

    return call


@pytest.fixture
def small_chunks(monkeypatch):
    """Two cases at a time: three chunks."""
    monkeypatch.setattr(scoring, "VALUES_AT_ONCE", 2 * COMPLETIONS * 256)


def assert_same(found, expected, *, but=(), rtol=0.0):
    found, expected = found.arrays(), expected.arrays()
    assert set(found) - set(but) == set(expected) - set(but)
    for name in set(expected) - set(but):
        np.testing.assert_allclose(found[name], expected[name], rtol=rtol, err_msg=name)


def paste(raw, truths, cases):
    pasted = raw.numpy().copy()
    for n, case in enumerate(cases):
        pasted[:, n][..., case.mask] = truths[n].numpy()[:, case.mask]
    return pasted


def hidden_values(pixels, case):
    """(..., C,H,W) -> (..., V) float64, the values behind the mask."""
    return pixels[..., ~case.mask].reshape(*pixels.shape[:-3], -1).astype(np.float64)


def energy(drawn, truth):
    """(S,V), (V) by its definition."""
    to_truth = np.mean([np.linalg.norm(x - truth) for x in drawn])
    return to_truth - np.mean([np.linalg.norm(x - y) for x, y in permutations(drawn, 2)]) / 2


def crps(drawn, truth):
    """(S,V), (V) -> (V) by its definition."""
    pairs = [np.abs(x - y) for x, y in permutations(drawn, 2)]
    return np.abs(drawn - truth).mean(axis=0) - np.mean(pairs, axis=0) / 2


def covered(drawn, truth, level):
    """Expected number of truths inside: each place a tie leaves open is tried on a fine grid."""
    fractions = (np.arange(2000) + 0.5) / 2000
    below, equal = (drawn < truth).sum(axis=0), (drawn == truth).sum(axis=0)
    places = (below + (equal + 1) * fractions[:, None]) / (len(drawn) + 1)
    return (np.abs(places - 0.5) < level / 2).mean(axis=0).sum()


def test_pixel_scores_follow_from_the_pasted_completions(score, source, cases, truths):
    found = score()
    drawn = paste(source.draw(0, 5), truths, cases)
    normals = np.random.default_rng(0).standard_normal((128, 256))
    for n, case in enumerate(cases):
        x, truth = hidden_values(drawn[:, n], case), hidden_values(truths[n].numpy(), case)
        directions = normals[:, ~case.mask.flatten()]
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        expected = {
            "energy_score_pixels": energy(x, truth),
            "sliced_energy_score_pixels": crps(x @ directions.T, directions @ truth).mean(),
            "crps_per_unobserved_dim": crps(x, truth).sum(),
            "posterior_mean_rmse": np.square(x.mean(axis=0) - truth).sum(),
            "sample_rmse": np.square(x - truth).sum(axis=1).mean(),
        }
        for name, value in expected.items():
            assert found.values[name][n] == pytest.approx(value), name
        for name, level in (
            *(("coverage_50", 0.5), ("coverage_80", 0.8)),
            *(("posterior_coverage", 0.9), ("coverage_95", 0.95)),
        ):
            assert found.values[name][n] == pytest.approx(covered(x, truth, level), rel=2e-3), name
            assert found.weights[name][n] == truth.size
        for name in ("crps_per_unobserved_dim", "posterior_mean_rmse", "sample_rmse"):
            assert found.weights[name][n] == truth.size


def test_feature_scores_follow_from_the_pasted_completions(score, source, cases, truths, network):
    found = score()
    drawn = torch.from_numpy(paste(source.draw(0, 5), truths, cases))
    layers = (*MAPS, "features", "logits")
    true = extract_features(network, truths, layers=layers)
    per_draw = [extract_features(network, d, layers=layers) for d in drawn]
    embedded = [perceptual_embedding({m: d[m] for m in MAPS}) for d in per_draw]
    truth = perceptual_embedding({m: true[m] for m in MAPS})

    def distance(a, b):
        return np.square(a.astype(np.float64) - b).sum(axis=1)

    best = np.min([distance(e, truth) for e in embedded], axis=0)
    pairs = np.mean([distance(a, b) for a, b in permutations(embedded, 2)], axis=0)
    features = np.stack([d["features"] for d in per_draw]).astype(np.float64)
    spread = [energy(features[:, n], true["features"][n]) for n in range(5)]
    classes = np.stack([d["logits"].argmax(axis=1) for d in per_draw])
    values = found.values
    mean = torch.from_numpy(drawn.double().numpy().mean(axis=0).round().astype(np.uint8))
    centre_maps = extract_features(network, mean, layers=MAPS)
    centre = perceptual_embedding(centre_maps)
    near = np.exp(-np.stack([distance(e, truth) for e in embedded]) / (2 * scoring.FWV_SIGMA**2))
    varied = (near * np.stack([distance(e, centre) for e in embedded])).sum(axis=0)
    np.testing.assert_allclose(values["faithfulness_weighted_variance"], varied, rtol=1e-4)
    np.testing.assert_allclose(values["perceptual_best_of_k"], best, rtol=1e-5)
    np.testing.assert_allclose(values["perceptual_diversity"], pairs, rtol=1e-5)
    np.testing.assert_allclose(values["energy_score_features"], spread, rtol=1e-4)
    np.testing.assert_allclose(found.features, per_draw[0]["features"], rtol=1e-6)
    np.testing.assert_allclose(found.truth_features, true["features"], rtol=1e-6)
    assert len(np.unique(classes)) > 1
    np.testing.assert_array_equal(found.predictions, classes.T)
    np.testing.assert_array_equal(values["class_agreement"], (classes == LABELS).mean(axis=0))


def test_each_score_comes_from_its_own_extractor(score, make_network, make_extractors, extractors):
    other = make_network()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    expected = score()
    changed = {
        "fidelity": {"energy_score_features"},
        "perceptual": {
            *("perceptual_best_of_k", "perceptual_diversity", "faithfulness_weighted_variance")
        },
    }
    for name, own in changed.items():
        theirs = getattr(make_extractors(other), name)
        found = score(extractors=dataclasses.replace(extractors, **{name: theirs}))
        differing = {m for m in expected.values if (found.values[m] != expected.values[m]).any()}
        assert differing == own
        assert (found.features != expected.features).any() == (name == "fidelity")
        for statistic, ranks in expected.ranks.items():
            np.testing.assert_array_equal(found.ranks[statistic], ranks)


def test_class_scores_are_those_of_the_class_calibration(score, array_source, make_pixels):
    drawn = make_pixels(batch=6 * 5, seed=8).reshape(6, 5, 1, 16, 16)
    found = score(array_source(drawn))
    assert len(np.unique(found.predictions)) > 1
    expected = assess_classes(found.predictions.T, LABELS, 3, seed=0, simulations=1)
    assert found.values["class_nll"].mean() == pytest.approx(expected.nll.value)
    assert found.values["class_brier"].mean() == pytest.approx(expected.brier.value)


def test_ranks_follow_from_the_pasted_completions(score, source, cases, truths):
    found = score().ranks
    drawn = paste(source.draw(0, 5), truths, cases)
    for n, case in enumerate(cases):
        means = hidden_values(drawn[:, n], case).mean(axis=1)
        truth = hidden_values(truths[n].numpy(), case).mean()
        assert truth not in means
        assert found["hole_mean"][n] == (means < truth).sum()
    families = {name.rstrip("0123456789") for name in found}
    assert families == {
        *("pixel_", "projection_", "feature_projection_", "hole_mean", "class_probability"),
        *("tarp_y_pixels", "tarp_other_pixels", "tarp_y_features", "tarp_other_features"),
    }
    for name, ranks in found.items():
        assert ranks.shape == (5,), name
        assert ranks.min() >= 0, name
        assert ranks.max() <= COMPLETIONS, name


def test_the_error_on_observed_pixels_is_that_of_raw_completions(score, source, cases, truths):
    found = score()
    raw = source.draw(0, 5).numpy().astype(np.float64)
    for n, case in enumerate(cases):
        errors = np.abs(raw[:, n] - truths[n].numpy())[..., case.mask]
        assert found.weights["observed_error"][n] == case.mask.sum()
        expected = errors.sum() / COMPLETIONS
        assert found.values["observed_error"][n] == pytest.approx(expected, rel=1e-12)
    assert found.values["observed_error"][:4].min() > 0
    assert found.values["observed_error"][4] == 0


def test_garbage_on_observed_pixels_changes_their_error_only(
    score, source, cases, truths, array_source
):
    raw = source.draw(0, 5)
    garbage = raw.clone()
    for n, case in enumerate(cases):
        garbage[:, n, :, torch.tensor(case.mask)] ^= 255
    clean, dirty = score(array_source(raw)), score(array_source(garbage))
    assert_same(dirty, clean, but=["values/observed_error"])
    name = "observed_error"
    assert (dirty.values[name][:4] != clean.values[name][:4]).all()
    assert dirty.values[name][4] == clean.values[name][4]


def test_likelihood_scores_are_those_of_the_bounds(score, source, truths, cases):
    found = score()
    one = source.posterior.bound(truths, source.observe(0, len(cases)), seed=2)
    many = importance_bound(
        source.posterior, truths, source.observe(0, len(cases)), (1, 10), seed=2
    )
    expected = {
        "bound_bits_per_unobserved_dim": one.bound_bits,
        "negative_elbo_nats_per_dim": one.negative_elbo_nats_per_dim,
        "bound_1_bits_per_unobserved_dim": many.bound_bits[1],
        "bound_10_bits_per_unobserved_dim": many.bound_bits[10],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found.values[name], values.numpy(), err_msg=name)
        if name != "negative_elbo_nats_per_dim":
            hidden = [(~case.mask).sum() for case in cases]
            np.testing.assert_array_equal(found.weights[name], hidden)
    assert set(expected) == LIKELIHOOD
    assert all(v.dtype == np.float64 and v.shape == (5,) for v in found.values.values())
    assert all(w.dtype == np.float64 and w.shape == (5,) for w in found.weights.values())


def test_a_source_without_likelihood_lacks_these_scores_only(score, source):
    without = score(dataclasses.replace(source, bound_draws=None))
    assert set(score().values) - set(without.values) == LIKELIHOOD
    one = score(dataclasses.replace(source, bound_draws=()))
    assert set(one.values) - set(without.values) == {
        *("bound_bits_per_unobserved_dim", "negative_elbo_nats_per_dim")
    }


def test_neither_batch_size_nor_chunks_change_a_score(score, source, monkeypatch):
    expected = score()
    for batch_size, cases_at_once in ((1, 5), (100, 1), (7, 3)):
        monkeypatch.setattr(scoring, "VALUES_AT_ONCE", cases_at_once * COMPLETIONS * 256)
        found = score(dataclasses.replace(source, batch_size=batch_size))
        assert_same(found, expected, rtol=1e-6)
        for name, ranks in expected.ranks.items():
            np.testing.assert_array_equal(found.ranks[name], ranks, err_msg=name)


def test_scores_depend_on_the_seed(score, source):
    first, second = score(), score(dataclasses.replace(source, seed=3))
    for name in ("bound_bits_per_unobserved_dim", "energy_score_pixels", "perceptual_best_of_k"):
        assert not np.allclose(first.values[name], second.values[name])


def test_cases_of_one_image_get_draws_of_their_own(score):
    found = score()
    name = "bound_bits_per_unobserved_dim"
    assert found.values[name][0] != found.values[name][3]
    np.testing.assert_array_equal(found.truth_features[0], found.truth_features[3])


def test_without_labels_there_are_no_class_scores(score):
    found = score(labels=None)
    assert not [name for name in found.values if name.startswith("class_")]
    assert "class_probability" not in found.ranks
    assert found.predictions.shape == (5, 0)
    assert_same(
        score(),
        found,
        but=[
            *("values/class_agreement", "values/class_nll", "values/class_brier"),
            *("ranks/class_probability", "predictions"),
        ],
    )


class Interruption(Exception):
    pass


def test_an_interrupted_evaluation_goes_on_where_it_stopped(
    score, source, array_source, small_chunks, tmp_path
):
    completions = source.draw(0, 5)
    whole = array_source(completions)
    expected = score(whole)
    assert whole.drawn == [(0, 2), (2, 4), (4, 5)]
    done = []

    def stop_after_two(count):
        done.append(count)
        if len(done) == 2:
            raise Interruption

    first, second = array_source(completions), array_source(completions)
    folder = ChunkFolder(tmp_path / "scores")
    with pytest.raises(Interruption):
        score(first, folder=folder, progress=stop_after_two)
    assert first.drawn == [(0, 2), (2, 4)]
    done.clear()
    resumed = score(second, folder=folder, progress=done.append)
    assert second.drawn == [(4, 5)]
    assert done == [2, 2, 1]
    assert_same(resumed, expected)
    assert [a.dtype for a in resumed.arrays().values()] == [
        a.dtype for a in expected.arrays().values()
    ]
    third = array_source(completions)
    assert_same(score(third, folder=folder), expected)
    assert third.drawn == []


def test_a_damaged_chunk_is_scored_again(score, source, array_source, small_chunks, tmp_path):
    completions = source.draw(0, 5)
    folder = ChunkFolder(tmp_path)
    expected = score(array_source(completions), folder=folder)
    damaged = tmp_path / "000002-000004.npz"
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    again = array_source(completions)
    assert_same(score(again, folder=folder), expected)
    assert again.drawn == [(2, 4)]
    assert damaged.read_bytes() == content


def test_completions_from_files_get_the_scores_of_the_posterior(score, source, cases, tmp_path):
    expected = score()
    completions = np.moveaxis(source.draw(0, 5).numpy(), 2, -1)
    np.savez(tmp_path / "samples.npz", samples=completions, case_ids=[c.case_id for c in cases])
    for n, case in enumerate(cases):
        (tmp_path / "pictures" / case.case_id).mkdir(parents=True)
        for k in range(COMPLETIONS):
            picture = Image.fromarray(completions[k, n, :, :, 0])
            picture.save(tmp_path / "pictures" / case.case_id / f"{k}.png")
    sha256 = write_cases(tmp_path / MANIFEST, cases)
    lacking = {f"{kind}/{name}" for kind in ("values", "weights") for name in LIKELIHOOD}
    for path in ("samples.npz", "pictures"):
        found = score(
            FileSource(tmp_path / path, cases, 16, 1, sha256=sha256, manifest=tmp_path / MANIFEST)
        )
        assert_same(found, expected, but=lacking)
        assert not LIKELIHOOD & set(found.values)


@pytest.mark.parametrize("count", [0, 4])
def test_as_many_truths_as_cases_are_needed(
    source, cases, truths, extractors, make_calibrator, count
):
    with pytest.raises(ConfigurationError, match=f"5 truths for {count} cases"):
        score_cases(
            source,
            cases[:count],
            truths,
            None,
            extractors,
            calibrator=make_calibrator(cases, truths),
        )


def test_examples_are_the_pasted_completions_of_these_cases(source, cases, truths):
    chosen = [3, 1]
    examples = draw_examples(source, cases, truths, chosen, kept=2)
    drawn = np.moveaxis(paste(source.draw(0, 5), truths, cases), 2, -1)[:, chosen]
    assert examples.completions.shape == (2, 2, 16, 16, 1)
    np.testing.assert_array_equal(examples.completions, drawn[:2])
    # The maps are over all completions, not only over those that are kept.
    drawn = drawn.astype(np.float64)
    np.testing.assert_allclose(examples.mean, drawn.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(
        examples.standard_deviation, drawn.std(axis=0, ddof=1), rtol=1e-6, atol=1e-6
    )
    assert examples.mean.dtype == examples.standard_deviation.dtype == np.float32
    mask = cases[1].mask
    assert (examples.completions[:, 1, :, :, 0][:, mask] == truths[1, 0].numpy()[mask]).all()
    assert (examples.standard_deviation[1, :, :, 0][mask] == 0).all()


def test_no_more_examples_than_completions_and_none_of_no_case(source, cases, truths):
    assert len(draw_examples(source, cases, truths, [0], kept=8).completions) == COMPLETIONS
    nothing = draw_examples(source, cases, truths, [])
    assert nothing.completions.shape == (COMPLETIONS, 0, 16, 16, 1)
    assert nothing.mean.shape == nothing.standard_deviation.shape == (0, 16, 16, 1)
