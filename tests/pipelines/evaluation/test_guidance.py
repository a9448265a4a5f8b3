"""A guided evaluation scores the guided posterior, and keeps its scores apart from the others."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from condvae.data.store import SideInformation
from condvae.ipa import UnconditionalLatents
from condvae.posterior.guidance import GuidedLatents
from pipelines.evaluation import judging
from pipelines.evaluation.nodes import collect_facts
from pipelines.parameters import SamplingConfig


def sources(make_posterior, monkeypatch, guidance, rule="product"):
    posterior = make_posterior()
    found = {}
    monkeypatch.setattr(judging, "open_posterior", lambda *_: posterior)
    monkeypatch.setattr(
        judging, "judge_source", lambda bench, name, source, heat: found.update({name: source})
    )
    bench = SimpleNamespace(
        task=posterior.task,
        image_store={},
        settings=SimpleNamespace(seed=0),
        cases=(),
        truths=torch.empty(0, 1, 16, 16),
        images=SimpleNamespace(side_information=SideInformation()),
    )
    judging.judge_samplers(
        bench,
        ["ipa", "prior"],
        {"folder": "x", "sha256": "f" * 64},
        SamplingConfig(guidance=guidance, guidance_rule=rule),
        completions=2,
        bound_draws=(1,),
        device="cpu",
    )
    return posterior, found


def test_posterior_is_guided_and_the_prior_is_not(make_posterior, monkeypatch):
    plain, unguided = sources(make_posterior, monkeypatch, 1.0)
    assert unguided["ipa"].posterior is plain
    _, guided = sources(make_posterior, monkeypatch, 0.5)
    assert isinstance(guided["ipa"].posterior.model.latents, GuidedLatents)
    assert guided["ipa"].posterior.card["guidance"] == 0.5
    assert isinstance(guided["prior"].posterior.model.latents, UnconditionalLatents)
    assert guided["ipa"].identity != unguided["ipa"].identity


def test_scores_of_the_rules_are_kept_apart(make_posterior, monkeypatch):
    _, product = sources(make_posterior, monkeypatch, 0.5)
    _, extrapolation = sources(make_posterior, monkeypatch, 0.5, "extrapolation")
    assert extrapolation["ipa"].posterior.model.latents.rule == "extrapolation"
    assert extrapolation["ipa"].identity != product["ipa"].identity


@pytest.mark.parametrize(
    "said", [{}, {"guidance": 0.5}, {"guidance": 0.5, "guidance_rule": "extrapolation"}]
)
def test_report_says_what_was_guided(said):
    network = dict.fromkeys(
        ("task", "extractor", "features", "accuracy", "held_out", "images", "epochs", "sha256")
    )
    store = dict.fromkeys(("name", "count", "channels", "image_size", "fingerprint"))
    names = ("seed", "temperature", "manifest", "k", "ours", "resizers", "extractor_hashes")
    facts = {**dict.fromkeys((*names, "seconds", "seconds_per_case")), **said}
    found = collect_facts(store, {}, network, facts, "cpu")
    assert {key: value for key, value in found.items() if "guidance" in key} == said
