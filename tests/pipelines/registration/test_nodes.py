from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest

from condvae.ground.configuration import ConfigurationError
from condvae.models.folder import save_posterior
from pipelines.registration.nodes import register_posterior


def test_registry_is_left_alone_when_the_parameters_say_so(monkeypatch):
    def fail(*_arguments, **_named):
        raise AssertionError("registered")

    monkeypatch.setattr("pipelines.registration.nodes.register", fail)
    nothing = ({}, {}, pd.DataFrame(), {}, {}, {}, {})
    found = register_posterior(*nothing, {"register": False})
    assert found == {"registered": False}


def test_what_is_registered_is_what_was_trained_and_evaluated(
    monkeypatch, tmp_path, make_posterior
):
    registered = SimpleNamespace(name="n", version="1", aliases=(), reason="")
    seen = {}

    def register(folder, **named):
        seen.update(named, folder=folder)
        return registered

    monkeypatch.setattr("pipelines.registration.nodes.register", register)
    card = save_posterior(tmp_path, make_posterior(width=8), {"name": "few", "recipe": "published"})
    posterior = {"folder": str(tmp_path), "sha256": card["sha256"], "task": "inpainting"}
    facts = {"temperature": 0.7, "guidance": 0.5, "posterior_sha256": card["sha256"]}
    manifest = {"path": "cases.jsonl", "sha256": "m", "size": "quick"}

    def run(facts):
        return register_posterior(
            *(posterior, manifest, pd.DataFrame(), {}, facts, {}, {}, {"register": True})
        )

    assert run(facts)["alias"] == "none"
    assert (seen["data"], seen["tags"]["recipe"]) == ("few", "published")
    assert (seen["temperature"], seen["guidance"]) == (0.7, 0.5)
    seen.clear()
    with pytest.raises(ConfigurationError, match="another run has replaced them"):
        register_posterior(
            *({**posterior, "sha256": "f" * 64}, manifest, pd.DataFrame(), {}),
            *({**facts, "posterior_sha256": "f" * 64}, {}, {}, {"register": True}),
        )
    assert not seen
    with pytest.raises(ConfigurationError, match="scores are of the posterior 0000"):
        run({**facts, "posterior_sha256": "0" * 64})
    assert not seen
