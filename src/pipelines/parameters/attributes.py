"""Parameters of `attributes` and `attributes_ladder`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from condvae.cvae.config import TRAININGS, CvaeConfig
from condvae.cvae.evaluation import EvaluationSettings
from condvae.data.attributes import ALL
from condvae.ground.configuration import (
    ConfigurationError,
    check_choice,
    check_positive,
    read_config,
)
from condvae.training import TrainingConfig
from pipelines.parameters.overlay import override

__all__ = ["AttributeClassifierConfig", "AttributesConfig", "LadderConfig", "Rung"]


@dataclass(frozen=True)
class AttributeClassifierConfig:
    """The network that reads attributes off images, the judge of samples.

    Attributes:
        features: Feature count D, 1 to 32.
        epochs: Passes over the training images.
    """

    features: int = 32
    epochs: int = 20

    def __post_init__(self) -> None:
        if not 1 <= self.features <= 32:
            raise ConfigurationError(f"features = {self.features!r}: expected 1 to 32")
        check_positive("epochs", self.epochs)


@dataclass(frozen=True)
class AttributesConfig:
    """What y is made of, and how a model of p(x | y) is judged and shown.

    Attributes:
        conditions: Names of attributes, see `condvae.data.attributes.gather_attributes`; None = what
            the data set offers, see `pipelines.attributes.choices.choose_conditions`.
        csv: File of attributes, None for none.
        hold_out: Combinations of values whose images are not trained on; None = chosen by counts, see
            `pipelines.attributes.choices.choose_hold_out`.
        classifier: The judge.
        evaluation: How it judges.
        shown: Images in a row of the pictures.
    """

    conditions: tuple[str, ...] | None = None
    csv: str | None = None
    hold_out: tuple[dict[str, Any], ...] | None = None
    classifier: AttributeClassifierConfig = field(default_factory=AttributeClassifierConfig)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    shown: int = 10

    def __post_init__(self) -> None:
        check_positive("shown", self.shown)
        names = [name.partition(":")[0] for name in self.conditions or (ALL,)]
        if self.conditions == () or len(set(names)) < len(names):
            raise ConfigurationError(
                f"conditions = {list(self.conditions or ())!r}: expected at least one name, each once"
            )
        for combination in self.hold_out or ():
            if len(combination) < 2:
                raise ConfigurationError(
                    f"hold_out = {combination!r}: expected values of at least two attributes"
                )
            for name in () if ALL in names else combination:
                check_choice("hold_out: attribute", name, names)

    def check_inputs(self, project: Path = Path()) -> None:
        """Refuse a run whose file of attributes is not there.

        Args:
            project: Folder that relative paths start at.

        Raises:
            ConfigurationError: No such file.
        """
        if self.csv is not None and not (project / self.csv).is_file():
            raise ConfigurationError(f"attributes.csv = {self.csv!r}: no such file")


@dataclass(frozen=True)
class Rung:
    """A model of the ladder and how it is trained.

    Attributes:
        name: Of the rung.
        stage: ``joint`` or ``two_stage``.
        config: The model.
    """

    name: str
    stage: str
    config: CvaeConfig

    @property
    def label(self) -> str:
        """``spline/two_stage``."""
        return f"{self.name}/{self.stage}"


@dataclass(frozen=True)
class LadderConfig:
    """Models that are compared, and how.

    Attributes:
        rungs: Which of `definitions`, from the lowest.
        definitions: Rung -> values that replace those of `cvae`.
        trainings: Each rung is trained in these ways; one whose prior has nothing to train in a
            second stage jointly only, and one that says `training` itself in that way only.
        seeds: Runs of each rung, with the seeds `seed`, `seed` + 1 and so on; at least 2.
        steps: Updates of each run in all.
        prior_steps: How many of them are the second stage's, where there is one.
        evaluation: How each is judged.
        contributions: What is gained -> two labels of rungs (``gaussian/joint``), before and after.
        shown: Samples of each rung that are shown.
    """

    rungs: tuple[str, ...]
    definitions: dict[str, dict[str, Any]]
    trainings: tuple[str, ...] = TRAININGS
    seeds: int = 3
    steps: int = 1000
    prior_steps: int = 400
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    contributions: dict[str, tuple[str, str]] = field(default_factory=dict)
    shown: int = 10

    def __post_init__(self) -> None:
        if not self.rungs or len(set(self.rungs)) < len(self.rungs):
            raise ConfigurationError(
                f"rungs = {list(self.rungs)!r}: expected at least one name, each once"
            )
        for name in self.rungs:
            check_choice("rungs", name, self.definitions)
        if not self.trainings:
            raise ConfigurationError("trainings = []: expected joint, two_stage or both")
        for name in self.trainings:
            check_choice("trainings", name, TRAININGS)
        if self.seeds < 2:
            raise ConfigurationError(f"seeds = {self.seeds!r}: a standard error needs at least 2")
        check_positive("prior_steps", self.prior_steps)
        check_positive("shown", self.shown)
        if self.steps <= self.prior_steps:
            raise ConfigurationError(
                f"steps = {self.steps!r}: expected more than prior_steps = {self.prior_steps}"
            )
        for gain, labels in self.contributions.items():
            for label in labels:
                name, _, stage = label.partition("/")
                check_choice(f"contributions.{gain}: rung", name, self.definitions)
                check_choice(f"contributions.{gain}: training", stage, TRAININGS)

    def list_rungs(self, cvae: Mapping[str, Any]) -> list[Rung]:
        """Put every rung together.

        Args:
            cvae: The section `cvae`, which `definitions` change.

        Raises:
            ConfigurationError: A definition with an unknown or wrong value; names it.
        """
        found = []
        for name in self.rungs:
            own = self.definitions[name]
            config = read_config(CvaeConfig, override(cvae, own), f"ladder.definitions.{name}")
            stages = self.trainings
            if config.prior == "standard":
                stages = ("joint",)
            elif "training" in own:
                stages = (config.training,)
            found += [Rung(name, stage, replace(config, training=stage)) for stage in stages]
        return found

    def split_steps(
        self, rung: Rung, training: TrainingConfig, prior_training: TrainingConfig
    ) -> tuple[TrainingConfig, TrainingConfig]:
        """Give every rung the same number of updates, in one stage or in two."""
        second = self.prior_steps if rung.stage == "two_stage" else 0
        return (
            replace(training, steps=self.steps - second),
            replace(prior_training, steps=self.prior_steps),
        )
