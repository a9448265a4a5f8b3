from __future__ import annotations

import pandas as pd

from pipelines.registration.nodes import register_posterior


def test_registry_is_left_alone_when_the_parameters_say_so(monkeypatch):
    def fail(*_arguments, **_named):
        raise AssertionError("registered")

    monkeypatch.setattr("pipelines.registration.nodes.register", fail)
    nothing = ({}, {}, {}, pd.DataFrame(), {}, {}, {}, {})
    found = register_posterior(*nothing, {"register": False}, {}, "tuned")
    assert found == {"registered": False}
