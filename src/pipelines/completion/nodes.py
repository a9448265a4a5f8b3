"""Nodes that complete one's own pictures."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from tqdm import tqdm

from condvae.completion import (
    check_pictures,
    complete_pictures,
    find_replayed_model,
    read_replay,
    repeat_run,
)
from condvae.completion.inputs import left_aside
from condvae.ground.configuration import read_config
from condvae.ground.devices import resolve_device
from condvae.ground.files import open_atomic
from condvae.models import find_model
from condvae.models.folder import load_posterior
from pipelines.completion.page import PAGE, render_page
from pipelines.evaluation.nodes import BUNDLED_POSTERIOR
from pipelines.parameters import CompleteConfig, SamplingConfig
from pipelines.runs import tracking

log = logging.getLogger(__name__)


class CompletionBar:
    """Shows pictures, completions per second and the time left."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def on_start(self, pictures: int, completions: int) -> None:
        """Open the bar unless there is nothing to do."""
        self._pictures, self._done = pictures, 0
        if pictures:
            self._bar = tracking.progress_bar("completing", completions, unit="completion")

    def on_completions(self, count: int) -> None:
        """Advance."""
        if self._bar is not None:
            self._bar.update(count)

    def on_picture(self) -> None:
        """Count a picture; close the bar after the last."""
        self._done += 1
        if self._bar is not None:
            self._bar.set_postfix_str(f"picture {self._done} of {self._pictures}")
            if self._done == self._pictures:
                self._bar.close()


class _CheckBar:
    """Shows how many pictures are checked."""

    def __call__(self, number: int, count: int) -> None:
        if number == 1:
            self._bar = tracking.progress_bar("checking", count, unit="picture")
        self._bar.update()
        if number == count:
            self._bar.close()


def complete_own_pictures(
    posterior: dict[str, Any],
    complete: dict[str, Any],
    sampling: dict[str, Any],
    seed: int,
    device: str,
) -> dict[str, Any]:
    """Complete every picture that is not done yet, or repeat a run; return the manifest."""
    config = read_config(CompleteConfig, complete, "complete")
    config.check_inputs()
    output = Path(config.output)
    facts = {"command": tracking.command(), **tracking.git_state()}
    if config.replay is not None:
        replay = read_replay(Path(config.replay), output)
        folder = find_replayed_model(replay, (posterior["folder"], replay.model_folder))
        model = load_posterior(folder, resolve_device(device))
        manifest = repeat_run(
            model, replay, output, model=str(folder), facts=facts, progress=CompletionBar()
        )
    else:
        folder = Path(posterior["folder"]).resolve()
        if folder == find_model(BUNDLED_POSTERIOR).resolve():
            log.warning(
                "completing with the bundled model of grey digits, 16 x 16 pixels; for anything "
                "else name a model in weights.posterior"
            )
        model = load_posterior(folder, resolve_device(device))
        settings = config.settings(read_config(SamplingConfig, sampling, "sampling"), seed)
        pictures, rejected = check_pictures(
            Path(str(config.images)),
            Path(str(config.masks)),
            model.contract,
            settings,
            on_check=_CheckBar(),
        )
        manifest = complete_pictures(
            model,
            pictures,
            output,
            settings,
            model=str(folder),
            rejected=rejected,
            facts={**facts, "left_aside": left_aside(Path(str(config.images)))},
            progress=CompletionBar(),
        )
    tracking.log_metrics(
        {
            f"complete/{name}": manifest[name]
            for name in ("completed_now", "completions_per_second")
            if manifest[name] is not None
        }
    )
    return manifest


def write_page(completion_manifest: dict[str, Any], complete: dict[str, Any]) -> dict[str, Any]:
    """Write the page of the results; return its folder, name and the pictures' overviews."""
    folder = Path(complete["output"])
    with open_atomic(folder / PAGE) as file:
        file.write(render_page(completion_manifest, folder).encode())
    log.info("completions: %s", folder / PAGE)
    return {
        "folder": str(folder),
        "page": PAGE,
        "names": [picture["name"] for picture in completion_manifest["pictures"]],
    }
