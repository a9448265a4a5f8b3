"""Champion or challenger, on tables of scores whose differences are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from condvae.ground.configuration import ConfigurationError
from condvae.models.folder import save_posterior
from condvae.tasks import SuperResolution
from pipelines.parameters import RegistryConfig
from pipelines.runs.promotion import choose_alias
from pipelines.runs.registered_posterior import RegisteredPosterior

ENERGY, BOUND = "energy_score_pixels", "bound_bits_per_unobserved_dim"
N = 60


def make_table(shifts, noise=0.0, sampler="ipa", seed=0):
    """Scores per case: what depends on the case alone, plus a shift and noise of this version."""
    of_cases, own = np.random.default_rng(0), np.random.default_rng(seed)
    parts = []
    for metric, shift in shifts.items():
        weight = np.full(N, 50.0 if metric == BOUND else 1.0)
        values = of_cases.uniform(10, 20, N) + shift + noise * own.standard_normal(N)
        parts.append(
            pd.DataFrame(
                {
                    "case_id": [f"case{i:03d}" for i in range(N)],
                    "image_id": np.arange(N),
                    "image_sha256": [f"sha{i}" for i in range(N)],
                    "bin": np.where(np.arange(N) % 2, "20_40", "0_20"),
                    "observed_share": 0.2,
                    "sampler": sampler,
                    "metric": metric,
                    "value": values * weight,
                    "weight": weight,
                }
            )
        )
    return pd.concat(parts)


@pytest.fixture
def make_version(tmp_path, make_posterior):
    folder = tmp_path / "posterior"
    save_posterior(folder, make_posterior(width=8), {})

    def make(number, table, *, manifest="a" * 64, folder=folder):
        path = None
        if table is not None:
            path = tmp_path / f"{number}.parquet"
            table.to_parquet(path, index=False)
        return RegisteredPosterior(
            *("name", number, folder, "b" * 64, manifest, {}, path, None, None, None, 1.0)
        )

    return make


@pytest.fixture
def champion(make_version):
    return make_version("1", make_table({ENERGY: 0.0, BOUND: 0.0}))


def test_first_version_is_champion_whatever_the_rule(make_version):
    for promote in ("paired", "never", "always"):
        chosen = choose_alias(make_version("1", None), None, RegistryConfig(promote=promote))
        assert chosen.alias == "champion"


def test_better_in_every_metric_takes_the_champions_place(make_version, champion):
    candidate = make_version("2", make_table({ENERGY: -1.0, BOUND: -2.0}, noise=0.1, seed=1))
    alias, reason = choose_alias(candidate, champion, RegistryConfig())
    assert alias == "champion"
    # Pooled differences: means, which the weights leave as they are.
    own = np.random.default_rng(1)
    energy, bound = (shift + 0.1 * own.standard_normal(N).mean() for shift in (-1.0, -2.0))
    assert f"{ENERGY} {energy:+.4g} [" in reason
    assert f"{BOUND} {bound:+.4g} [" in reason
    assert reason.startswith("better than version 1")


@pytest.mark.parametrize(
    ("shifts", "noise"),
    [
        ({ENERGY: 0.0, BOUND: 0.0}, 0.0),  # the same scores
        ({ENERGY: -1.0, BOUND: 1.0}, 0.1),  # a trade
        ({ENERGY: -1.0, BOUND: 0.0}, 0.0),  # no better in the second
        ({ENERGY: 1.0, BOUND: 1.0}, 0.1),  # worse
        ({ENERGY: -0.05, BOUND: -0.05}, 5.0),  # better perhaps: standard error 0.65
    ],
)
def test_anything_else_is_a_challenger(make_version, champion, shifts, noise):
    candidate = make_version("2", make_table(shifts, noise, seed=1))
    alias, reason = choose_alias(candidate, champion, RegistryConfig())
    assert alias == "challenger"
    assert reason.startswith("not shown to be better than version 1")


def test_a_trial_gives_way_to_a_model_that_is_none(make_version, tmp_path, make_posterior):
    save_posterior(tmp_path / "trial", make_posterior(width=8), {"vae_shortcomings": ["bad"]})
    table = make_table({ENERGY: 0.0, BOUND: 0.0})
    trial = make_version("1", table, folder=tmp_path / "trial")
    # Whatever its scores, and on whatever cases they are.
    other = make_version("2", None, manifest="c" * 64)
    assert choose_alias(other, trial, RegistryConfig()) == (
        *("champion", "version 1 is a trial and gives way: its VAE: bad"),
    )
    assert choose_alias(other, trial, RegistryConfig(promote="never")).alias == "challenger"
    # Two trials are compared like any two models.
    again = make_version("3", table, folder=tmp_path / "trial")
    assert choose_alias(again, trial, RegistryConfig()).alias == "challenger"


def test_only_the_metrics_of_the_rule_count(make_version, champion):
    candidate = make_version("2", make_table({ENERGY: -1.0, BOUND: 1.0}, 0.1, seed=1))
    rule = RegistryConfig(metrics=(ENERGY,))
    assert choose_alias(candidate, champion, rule).alias == "champion"
    assert choose_alias(candidate, champion, RegistryConfig(promote="never")).alias == "challenger"
    worse = make_version("3", make_table({ENERGY: 9.0, BOUND: 9.0}))
    assert choose_alias(worse, champion, RegistryConfig(promote="always")).alias == "champion"


def test_other_cases_cannot_make_a_champion(make_version, champion, tmp_path, make_posterior):
    better = make_table({ENERGY: -1.0, BOUND: -1.0})

    def refusal(candidate, present=champion):
        alias, reason = choose_alias(candidate, present, RegistryConfig())
        assert alias == "challenger"
        return reason

    reason = refusal(make_version("2", better, manifest="c" * 64))
    assert "manifest aaaaaaaaaaaa..." in reason
    assert "this one on cccccccccccc..." in reason
    assert "version 2 has not been evaluated yet" in refusal(make_version("2", None))
    never = make_version("1", None, manifest=None)
    assert "version 1 has not been evaluated yet" in refusal(make_version("2", better), never)
    energy_only = better[better["metric"] == ENERGY]
    assert f"version 2 has no scores {BOUND} of ipa" in refusal(make_version("2", energy_only))
    prior = better.assign(sampler="prior")
    assert "has no scores" in refusal(make_version("2", prior))
    moved = better.assign(image_sha256="other")
    assert "differ in image_sha256" in refusal(make_version("2", moved))
    # The cases of a task without masks are the same whatever its options.
    posterior = make_posterior(width=8)
    object.__setattr__(posterior, "task", SuperResolution(factor=2))
    save_posterior(tmp_path / "other", posterior, {})
    reason = refusal(make_version("2", better, folder=tmp_path / "other"))
    assert "it is for {'task': 'inpainting'}" in reason


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"promote": "sometimes"}, "promote = 'sometimes'"),
        ({"metrics": ()}, "metrics = \\[\\]"),
        ({"metrics": ("posterior_mean_rmse",)}, "metrics = 'posterior_mean_rmse'"),
        ({"level": 1.0}, "level = 1.0"),
    ],
)
def test_wrong_rules_are_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        RegistryConfig(**changes)
