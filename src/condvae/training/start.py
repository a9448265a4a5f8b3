"""How a run starts: five rungs, the first that holds is taken (the habit of big_vision).

1. its own newest checkpoint: go on from it;
2. ``start.resume``: another run's newest checkpoint, with optimiser, averages and step;
3. ``start.load``: all trained weights of a model, everything else fresh;
4. ``start.load_part``: those of its weights that fit, the rest as initialised;
5. scratch: the chosen initialisation.

What rungs 2 to 4 start from is part of the run's identity, so that runs never mix. It is written into
the run's folder when the run begins; after that the same command goes on with its own checkpoints even
when the source has moved on, is gone, or has been overwritten by this run's own result.
"""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import fingerprint
from condvae.training.state import MARKER, CheckpointFolder

__all__ = [
    "Source",
    "Start",
    "StartConfig",
    "Startable",
    "begin_run",
    "check_start",
    "find_start",
    "trained_on",
    "was_started_from",
]

NAMES_SHOWN = 6

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StartConfig:
    """Where a run starts that has no checkpoint of its own; at most one is given, none = scratch.

    Attributes:
        resume: Training folder of another run (it holds ``run.json`` and ``checkpoint-*.pt``).
        load: Model folder or registered name; all of its trained weights are taken.
        load_part: The same; what fits by name and shape is taken.
    """

    resume: str | None = None
    load: str | None = None
    load_part: str | None = None

    def __post_init__(self) -> None:
        given = [f"{rung} = {getattr(self, rung)!r}" for rung in _RUNGS if getattr(self, rung)]
        if len(given) > 1:
            raise ConfigurationError(f"{', '.join(given)}: expected at most one of them")

    @property
    def chosen(self) -> tuple[str, str | None]:
        """The rung and its folder or name; ``scratch`` and None when nothing is given."""
        for rung in _RUNGS:
            path: str | None = getattr(self, rung)
            if path:
                return rung, path
        return "scratch", None


_RUNGS = ("resume", "load", "load_part")


@dataclass(frozen=True)
class Source:
    """A model whose trained weights are offered as a start.

    Attributes:
        card: Of the model folder; `sha256` says which weights they are.
        weights: Under the names of the module to be trained.
        differences: What makes it another kind of model than the one to be trained, in words. Any
            is an error for ``load`` and no obstacle to ``load_part``.
    """

    card: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    differences: tuple[str, ...] = ()

    @property
    def made_by(self) -> str | None:
        """Fingerprint of the run that made the model, None where the card does not say."""
        source = self.card.get("weights_source")
        return source.get("run") if isinstance(source, Mapping) else None


@dataclass
class Start:
    """How a run starts, decided before its folder is known; `begin_run` uses it up.

    Attributes:
        rung: ``resume``, ``load``, ``load_part`` or ``scratch``.
        path: Folder or name as given; None for ``scratch``.
        identity: All that decides the run's outcome; ``start`` in it says what the run starts from
            and on which data that was trained, see `trained_on`.
        state: ``resume``: the other run's checkpoint.
        source: ``load``, ``load_part``: the model. With neither, a run that has begun before goes on.
    """

    rung: str = "scratch"
    path: str | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] | None = None
    source: Source | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of the identity."""
        return fingerprint(dict(self.identity))

    @property
    def parameter(self) -> str:
        """The parameter and its value, for messages."""
        return f"start.{self.rung} = {self.path!r}"


class Startable(Protocol):
    """A run that has not begun."""

    step: int

    @property
    def name(self) -> str:
        """Of the training, for the log."""
        ...

    @property
    def module(self) -> nn.Module:
        """Its parameters that require gradients are trained."""
        ...

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        ...

    def take(self, weights: Mapping[str, Tensor]) -> None:
        """Let these trainable parameters, and their averages, begin with these values."""
        ...


def find_start(
    config: StartConfig,
    identity: Mapping[str, Any],
    runs: Path,
    open_source: Callable[[str], Source],
    *,
    shared: Sequence[str] = (),
) -> Start:
    """Decide what a run starts from where it has no checkpoint of its own, and so which run it is.

    Args:
        config: What was asked for.
        identity: All else that decides the outcome, as a JSON value.
        runs: Folder that holds a folder per run; the same command's earlier run is looked for there.
        open_source: Opens the model that ``load`` or ``load_part`` names.
        shared: Keys of `identity` in which a run that is resumed must agree.

    Raises:
        ConfigurationError: The source cannot be read and the run has not begun; or another run that
            was for another model. The message names the parameter.
    """
    rung, path = config.chosen
    if path is None:
        return Start(rung, None, {**identity, "start": {"rung": rung}})
    try:
        if rung == "resume":
            found = _open_run(path, identity, shared)
        else:
            source = open_source(path)
            facts = {
                "rung": rung,
                "sha256": source.card["sha256"],
                "trained_on": trained_on(source.card),
            }
            found = Start(rung, path, {**identity, "start": facts}, source=source)
        problem = None
    except ConfigurationError as error:
        found, problem = None, ConfigurationError(f"start.{rung} = {path!r}: {error}")
    for begun in _begun_runs(runs, identity, rung, path):
        if found is None or _has_moved_on(begun, found):
            return begun
    if found is None:
        assert problem is not None
        raise problem
    return found


def trained_on(card: Mapping[str, Any]) -> list[dict[str, str | None]]:
    """The data that the weights of a model have seen: its own, then those of what it started from.

    Args:
        card: Of a model folder.

    Returns:
        ``name`` and ``fingerprint`` of each; None where they are not known.
    """
    source = card.get("weights_source")
    source = source if isinstance(source, Mapping) else {}
    own = {"name": card.get("name"), "fingerprint": source.get("data")}
    return _join([own] if any(own.values()) else [], source.get("start"))


def was_started_from(runs: Path, path: str) -> bool:
    """Whether a run in the folder `runs` once started from the folder or name `path`."""
    return any(marker.get("source") == path for _, marker in _markers(runs))


def check_start(start: Start, module: nn.Module, steps: int, section: str) -> None:
    """Refuse a source that does not fit, before anything is written.

    Args:
        start: From `find_start`.
        module: What will be trained.
        steps: Updates of the run in all.
        section: Parameters that set `steps`, for the message.

    Raises:
        ConfigurationError: ``resume`` and ``load``: another model, or entries that are missing, extra
            or mis-shaped. ``resume``: a run that has done `steps` already. ``load_part``: nothing fits.
    """
    # Here, because presets of VAEs hold training configurations.
    from condvae.ground.state_dicts import refuse_differences

    own = _trainable(module)
    if start.state is not None:
        refuse_differences(own, start.state["trainable"], start.parameter)
        if start.state["step"] >= steps:
            raise ConfigurationError(
                f"{start.parameter} has done {start.state['step']} steps, this run ends at {steps}: "
                f"raise {section}.steps"
            )
    elif start.rung == "load" and start.source is not None:
        if start.source.differences:
            raise ConfigurationError(
                f"{start.parameter}: {'; '.join(start.source.differences)} (start.load_part takes "
                "what fits)"
            )
        refuse_differences(own, start.source.weights, start.parameter)
    elif start.source is not None and not _fitting(own, start.source.weights):
        raise ConfigurationError(
            f"{start.parameter}: none of its {len(start.source.weights)} tensors fits the model by "
            "name and shape"
        )


def begin_run(run: Startable, folder: CheckpointFolder, start: Start) -> None:
    """Put a run where it starts and log which rung that is; `start` holds no tensors afterwards.

    Args:
        run: Has its initial weights.
        folder: The run's own.
        start: From `find_start`, checked by `check_start`.

    Raises:
        ConfigurationError: The run has begun before, but neither its checkpoints nor its source can be
            read any more.
    """
    own = folder.load_latest()
    # As large as the model several times: not to be kept while it trains.
    state, source, start.state, start.source = start.state, start.source, None, None
    if own is not None:
        run.load(own)
        how = f"its own checkpoint {folder.path_of(run.step)}"
    elif state is not None:
        run.load({**state, "restarts": []})  # at this run's own learning rate
        how = f"the run in {start.path}: weights, averages and optimiser (start.resume)"
    elif source is not None:
        fitting = _fitting(_trainable(run.module), source.weights)
        run.take(fitting)
        how = _describe_load(start, source, fitting)
    elif start.rung == "scratch":
        how = "scratch"
    else:
        raise ConfigurationError(
            f"{start.parameter} cannot be read any more, and neither can a checkpoint in "
            f"{folder.folder}"
        )
    log.info("%s starts at step %d from %s", run.name, run.step, how)


def _open_run(path: str, identity: Mapping[str, Any], shared: Sequence[str]) -> Start:
    """Another run's newest readable checkpoint."""
    folder = Path(path)
    marker = _read_marker(folder / MARKER)
    if marker is None:
        raise ConfigurationError(
            f"not the folder of a training run ({MARKER} is missing or damaged); expected one like "
            "data/06_models/inpaint/training/0123456789ab"
        )
    other = marker.get("identity", {})
    for key in shared:
        for name, theirs, own in _differences(key, other.get(key, "unknown"), identity[key]):
            raise ConfigurationError(f"that run has {name} {theirs!r}, this one {own!r}")
    state = CheckpointFolder(folder, marker["fingerprint"]).load_latest()
    if state is None:
        raise ConfigurationError("no checkpoint there can be read")
    facts = {
        "rung": "resume",
        "run": marker["fingerprint"],
        "step": state["step"],
        "trained_on": _join([{"name": None, "fingerprint": other.get("data")}], other.get("start")),
    }
    return Start("resume", path, {**identity, "start": facts}, state=state)


def _differences(key: str, theirs: Any, own: Any) -> list[tuple[str, Any, Any]]:
    """What differs between two JSON values, field by field where both have fields."""
    if isinstance(theirs, Mapping) and isinstance(own, Mapping):
        # Facts leave out what was not there from the beginning, where it is as it was then.
        fields = [
            (f"{key}.{k}", theirs.get(k, "unknown"), own.get(k, "unstated"))
            for k in {**own, **theirs}
        ]
        return [field for field in fields if field[1] != field[2]]
    return [(key, theirs, own)] if theirs != own else []


def _join(seen: list[dict[str, Any]], start: object) -> list[dict[str, Any]]:
    """Data in `seen` and in another run's facts of its start, each once."""
    before = start.get("trained_on", []) if isinstance(start, Mapping) else []
    return seen + [data for data in before if data not in seen]


def _begun_runs(runs: Path, identity: Mapping[str, Any], rung: str, path: str) -> list[Start]:
    """Runs that the same command began before and that have a checkpoint, the latest first."""
    begun = []
    for file, marker in _markers(runs):
        theirs = dict(marker.get("identity", {}))
        facts = theirs.pop("start", {})
        # Through JSON, which makes lists of tuples.
        same = fingerprint(theirs) == fingerprint(dict(identity))
        if same and facts.get("rung") == rung and marker.get("source") == path:
            start = Start(rung, path, marker["identity"])
            # Whether it can be read is seen when it is needed: checkpoints are large.
            if any(map(zipfile.is_zipfile, file.parent.glob("checkpoint-*.pt"))):
                begun.append((file.stat().st_mtime, start))
    return [start for _, start in sorted(begun, key=lambda pair: pair[0], reverse=True)]


def _has_moved_on(begun: Start, found: Start) -> bool:
    """Whether what lies at the source now comes from what `begun` started from, not from elsewhere."""
    if found.source is not None:  # the model folder that this run itself writes
        return found.source.made_by == begun.fingerprint
    run: object = found.identity["start"]["run"]
    return bool(begun.identity["start"]["run"] == run)


def _markers(runs: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Files and contents of all runs' markers."""
    found = ((file, _read_marker(file)) for file in sorted(runs.glob(f"*/{MARKER}")))
    return [(file, marker) for file, marker in found if marker is not None]


def _read_marker(file: Path) -> dict[str, Any] | None:
    """Content of a run's marker, None when it is none."""
    try:
        marker = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) and "fingerprint" in marker else None


def _trainable(module: nn.Module) -> dict[str, Tensor]:
    return {n: p for n, p in module.named_parameters() if p.requires_grad}


def _fitting(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of `weights` that `own` has under the same name in the same shape."""
    return {n: v for n, v in weights.items() if n in own and own[n].shape == v.shape}


def _describe_load(start: Start, source: Source, fitting: Mapping[str, Tensor]) -> str:
    """What was taken and what was left out, in one line."""
    text = f"the weights of {start.path}, sha256 {source.card['sha256'][:12]} (start.{start.rung})"
    left_out = [name for name in source.weights if name not in fitting]
    if start.rung == "load_part":
        text += f": {len(fitting)} tensors taken, {len(left_out)} left out"
    if left_out:
        more = f" and {len(left_out) - NAMES_SHOWN} more" if len(left_out) > NAMES_SHOWN else ""
        text += f" ({', '.join(left_out[:NAMES_SHOWN])}{more})"
    return "; ".join([text, *source.differences])
