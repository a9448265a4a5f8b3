"""Whether a new posterior takes the champion's place: paired differences on the same cases."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from condvae.evaluation import compare_case_tables
from condvae.evaluation.bins import POOLED
from condvae.ground.configuration import ConfigurationError
from condvae.models.folder import read_card
from condvae.scores.definitions import METRICS
from pipelines.parameters.registry import RegistryConfig
from pipelines.runs.registered_posterior import RegisteredPosterior

__all__ = ["CHALLENGER", "CHAMPION", "Choice", "choose_alias"]

CHAMPION, CHALLENGER = "champion", "challenger"
# The trained posterior among the samplers of an evaluation.
SAMPLER = "ipa"


class Choice(NamedTuple):
    """An alias and why it was chosen."""

    alias: str
    reason: str


def choose_alias(
    candidate: RegisteredPosterior, champion: RegisteredPosterior | None, rule: RegistryConfig
) -> Choice:
    """Say whether a version is to be the champion or a challenger.

    Args:
        candidate: The new version.
        champion: The present one; None where there is none.
        rule: See `RegistryConfig`. ``paired`` needs both to be for the same task and evaluated on the
            same manifest, and the interval of each of `metrics`, pooled over all cases, to lie on the
            candidate's side of zero. A champion that is a trial gives way to a model that is none.
    """
    if champion is None:
        return Choice(CHAMPION, "the first registered under this name")
    if rule.promote != "paired":
        alias = CHAMPION if rule.promote == "always" else CHALLENGER
        return Choice(alias, f"registry.promote = {rule.promote}")
    trial = champion.shortcomings
    if trial and not candidate.shortcomings:
        said = "; ".join(trial)
        return Choice(CHAMPION, f"version {champion.version} is a trial and gives way: {said}")
    obstacle = _obstacle(candidate, champion)
    if obstacle:
        return Choice(CHALLENGER, f"not comparable with version {champion.version}: {obstacle}")
    try:
        better, differences = _compare(candidate, champion, rule)
    except ConfigurationError as error:
        return Choice(CHALLENGER, f"not comparable with version {champion.version}: {error}")
    words = "better than" if better else "not shown to be better than"
    return Choice(
        CHAMPION if better else CHALLENGER,
        f"{words} version {champion.version}, paired difference with its {100 * rule.level:g} % "
        f"interval: {differences}",
    )


def _obstacle(candidate: RegisteredPosterior, champion: RegisteredPosterior) -> str | None:
    tasks = []
    for version in (candidate, champion):
        card = read_card(version.folder, "posterior")
        tasks.append({key: card[key] for key in ("task", "task_options") if card.get(key)})
        if version.cases is None or version.manifest_sha256 is None:
            return f"version {version.version} has not been evaluated yet"
    if tasks[0] != tasks[1]:
        return f"it is for {tasks[1]}, this one for {tasks[0]}"
    hashes = [str(version.manifest_sha256) for version in (candidate, champion)]
    if hashes[0] != hashes[1]:
        return (
            f"it was evaluated on the manifest {hashes[1][:12]}..., this one on {hashes[0][:12]}..."
        )
    return None


def _compare(
    candidate: RegisteredPosterior, champion: RegisteredPosterior, rule: RegistryConfig
) -> tuple[bool, str]:
    """Whether the candidate is better in every metric, and the differences in words."""
    columns = []
    for version in (candidate, champion):
        table = pd.read_parquet(str(version.cases))
        chosen = table[(table["sampler"] == SAMPLER) & table["metric"].isin(rule.metrics)]
        columns.append({str(name): chosen[name].to_numpy() for name in chosen})
        missing = sorted(set(rule.metrics) - set(chosen["metric"]))
        if missing:
            raise ConfigurationError(
                f"version {version.version} has no scores {', '.join(missing)} of {SAMPLER}"
            )
    found = compare_case_tables(
        *columns, sampler_a=SAMPLER, sampler_b=SAMPLER, level=rule.level, seed=0
    )
    pooled = {row["metric"]: row for row in found if row["bin"] == POOLED}
    better, words = True, []
    for metric in rule.metrics:
        low, high = pooled[metric]["low"], pooled[metric]["high"]
        better &= bool(high < 0 if METRICS[metric].better == "lower" else low > 0)
        words.append(f"{metric} {pooled[metric]['difference']:+.4g} [{low:+.4g}, {high:+.4g}]")
    return better, "; ".join(words)
