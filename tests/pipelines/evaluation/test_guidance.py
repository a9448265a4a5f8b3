"""A guided evaluation scores the guided posterior, and keeps its scores apart from the others."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from condvae.conditional import UnconditionalLatents
from condvae.data.store import SideInformation
from condvae.guidance import GuidedLatents
from pipelines.evaluation import judging
from pipelines.parameters import SamplingConfig


def sources(make_posterior, monkeypatch, guidance):
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
        SamplingConfig(guidance=guidance),
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
