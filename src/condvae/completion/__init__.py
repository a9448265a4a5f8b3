"""One's own pictures, completed: many completions of each, their statistics and their origin."""

from __future__ import annotations

from condvae.completion.config import CompletionSettings
from condvae.completion.inputs import PictureFiles, RejectedPicture, check_pictures, read_input
from condvae.completion.modes import Mode, find_modes
from condvae.completion.replay import Replay, find_replayed_model, read_replay, repeat_run
from condvae.completion.run import CompletionProgress, complete_pictures

__all__ = [
    "CompletionProgress",
    "CompletionSettings",
    "Mode",
    "PictureFiles",
    "RejectedPicture",
    "Replay",
    "check_pictures",
    "complete_pictures",
    "find_modes",
    "find_replayed_model",
    "read_input",
    "read_replay",
    "repeat_run",
]
