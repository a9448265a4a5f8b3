from __future__ import annotations

import pandas as pd
import pytest

from condvae.configuration import ConfigurationError
from condvae.pretrained import find_model
from condvae.tasks import Inpainting
from pipelines.posteriors import open_posterior
from pipelines.registration.nodes import register_posterior


def test_registry_is_left_alone_when_the_parameters_say_so(monkeypatch):
    def fail(*_arguments, **_named):
        raise AssertionError("registered")

    monkeypatch.setattr("pipelines.registration.nodes.register", fail)
    nothing = ({}, {}, {}, pd.DataFrame(), {}, {}, {}, {})
    found = register_posterior(*nothing, {"register": False}, {}, "tuned")
    assert found == {"registered": False}


def test_weights_of_another_run_are_not_registered_as_this_ones():
    """Two commands at once write to the same folder of a posterior."""
    folder = find_model("digits_inpainting")
    posterior = {"folder": str(folder), "sha256": "f" * 64, "task": "inpainting"}
    nothing = ({"name": "x"}, posterior, {}, pd.DataFrame(), {}, {}, {}, {})
    message = "another run has replaced them"
    with pytest.raises(ConfigurationError, match=message):
        register_posterior(*nothing, {}, {}, "tuned")
    with pytest.raises(ConfigurationError, match=message):
        open_posterior(posterior, Inpainting(), {}, "cpu")
