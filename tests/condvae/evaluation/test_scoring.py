import numpy as np
import pytest
import torch

from condvae.evaluation import scoring
from condvae.evaluation.scoring import MAPS, score_sampler
from condvae.metrics.extraction import extract_features
from condvae.metrics.perceptual import perceptual_embedding

COMPLETIONS = 3
LABELS = np.array([0, 2, 1, 1, 0])


@pytest.fixture
def cases(make_case):
    # Cases 0 and 3 show the same image; hidden rows differ.
    shown = [(7, 2), (8, 5), (9, 8), (7, 12), (11, 0)]
    return [make_case(i, image, rows, size=16) for i, (image, rows) in enumerate(shown)]


@pytest.fixture
def truths(make_pixels):
    pixels = make_pixels(batch=5)
    pixels[3] = pixels[0]
    return pixels


@pytest.fixture
def sampler(make_posterior):
    return make_posterior()


@pytest.fixture
def score(sampler, cases, truths, network):
    def call(*, labels=LABELS, **changes):
        settings = {"completions": COMPLETIONS, "temperature": 1.0, "seed": 2, "batch_size": 4}
        return score_sampler(sampler, cases, truths, labels, network, **{**settings, **changes})

    return call


@pytest.fixture
def observation(sampler, cases, truths):
    masks = torch.from_numpy(np.stack([case.mask for case in cases]))[:, None]
    return sampler.observe(truths, masks, tuple(f"{c.case_id}/{c.seed}" for c in cases))


def assert_same(found, expected):
    assert list(found.values) == list(expected.values)
    for name, values in expected.values.items():
        np.testing.assert_allclose(found.values[name], values, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(found.features, expected.features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.truth_features, expected.truth_features, rtol=1e-4, atol=1e-5)


def test_scores_do_not_depend_on_the_batch_size(score):
    expected, _ = score(batch_size=100)
    for batch_size in (1, 2, 7):
        assert_same(score(batch_size=batch_size)[0], expected)


def test_scores_do_not_depend_on_how_many_are_embedded_at_once(score, monkeypatch):
    expected, _ = score()
    for number in (1, 2 * COMPLETIONS):  # one case and two cases at a time
        monkeypatch.setattr(scoring, "EMBEDDED_AT_ONCE", number)
        assert_same(score()[0], expected)


def test_scores_depend_on_the_seed(score):
    first, second = score(seed=2)[0], score(seed=3)[0]
    for name in ("bound_bits", "perceptual_best_of_k"):
        assert not np.allclose(first.values[name], second.values[name])


def test_cases_of_one_image_get_draws_of_their_own(score):
    scores, _ = score()
    assert scores.values["bound_bits"][0] != scores.values["bound_bits"][3]
    np.testing.assert_array_equal(scores.truth_features[0], scores.truth_features[3])


def test_every_score_follows_from_the_drawn_completions(
    score, sampler, observation, truths, network
):
    scores, _ = score()
    drawn = sampler.sample(observation, COMPLETIONS, seed=2)
    layers = (*MAPS, "features", "logits")
    true = extract_features(network, truths, layers=layers)
    per_draw = [extract_features(network, d, layers=layers) for d in drawn]
    embedded = [perceptual_embedding({m: d[m] for m in MAPS}) for d in per_draw]
    truth = perceptual_embedding({m: true[m] for m in MAPS})

    def distance(a, b):
        return np.square(a.astype(np.float64) - b).sum(axis=1)

    best = np.min([distance(e, truth) for e in embedded], axis=0)
    pairs = [distance(embedded[i], embedded[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    agreement = np.mean([d["logits"].argmax(1) == LABELS for d in per_draw], axis=0)
    values = scores.values
    np.testing.assert_allclose(values["perceptual_best_of_k"], best, rtol=1e-4)
    np.testing.assert_allclose(values["perceptual_diversity"], np.mean(pairs, axis=0), rtol=1e-4)
    np.testing.assert_array_equal(values["class_agreement"], agreement)
    np.testing.assert_allclose(scores.features, per_draw[0]["features"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scores.truth_features, true["features"], rtol=1e-4, atol=1e-6)


def test_likelihood_scores_are_those_of_the_bound(score, sampler, observation, truths, cases):
    scores, _ = score()
    bound = sampler.bound(truths, observation, seed=2)
    np.testing.assert_allclose(scores.values["bound_bits"], bound.bound_bits.numpy())
    np.testing.assert_allclose(
        scores.values["negative_elbo_nats_per_dim"], bound.negative_elbo_nats_per_dim.numpy()
    )
    np.testing.assert_array_equal(
        scores.predicted_dimensions, [(~case.mask).sum() for case in cases]
    )
    assert all(v.dtype == np.float64 and v.shape == (5,) for v in scores.values.values())


def test_without_labels_there_is_no_agreement(score):
    assert "class_agreement" not in score(labels=None)[0].values


@pytest.mark.parametrize("paste", [True, False])
def test_kept_examples_are_the_completions_of_these_cases(score, sampler, observation, paste):
    keep = [3, 1]
    _, examples = score(keep=keep, kept_completions=2, paste_observed=paste)
    settings = {"seed": 2, "paste_observed": paste}
    drawn = sampler.sample(observation, COMPLETIONS, **settings)[:, keep]
    assert examples.completions.shape == (2, 2, 16, 16, 1)
    np.testing.assert_array_equal(examples.completions, np.moveaxis(drawn[:2].numpy(), 2, -1))
    # The maps are over all completions, not only over those that are kept.
    all_drawn = np.moveaxis(drawn.numpy(), 2, -1).astype(np.float64)
    np.testing.assert_allclose(examples.mean, all_drawn.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(
        examples.standard_deviation, all_drawn.std(axis=0, ddof=1), atol=1e-2
    )
    assert examples.mean.dtype == examples.standard_deviation.dtype == np.float32


def test_pasted_examples_show_the_observed_pixels(score, cases, truths):
    _, examples = score(keep=[1])
    mask = cases[1].mask
    shown = examples.completions[:, 0, :, :, 0]
    assert (shown[:, mask] == truths[1, 0].numpy()[mask]).all()
    assert (examples.standard_deviation[0, :, :, 0][mask] == 0).all()


def test_no_more_examples_than_completions(score):
    assert score(keep=[0], kept_completions=8)[1].completions.shape[0] == COMPLETIONS


def test_nothing_kept_gives_empty_examples(score):
    _, examples = score()
    assert examples.completions.shape == (COMPLETIONS, 0, 16, 16, 1)
    assert examples.completions.dtype == np.uint8
    assert examples.mean.shape == examples.standard_deviation.shape == (0, 16, 16, 1)


def test_progress_counts_every_case_once(score, monkeypatch):
    monkeypatch.setattr(scoring, "EMBEDDED_AT_ONCE", 2 * COMPLETIONS)
    done = []
    score(progress=done.append)
    assert done == [2, 2, 1]
