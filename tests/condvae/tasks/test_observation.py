from __future__ import annotations

import dataclasses

import pytest
import torch

from condvae.ground.configuration import ConfigurationError
from condvae.ground.images import DataContract
from condvae.tasks import TASKS, Inpainting, Observation, Subject, task_named

CONTRACT = DataContract(3, 4, 100.0, 50.0)


def observation(make_pixels, batch=3):
    pixels = make_pixels(batch, 3, 4)
    mask = make_pixels(batch, 1, 4, seed=1) > 128
    return Inpainting().observe(
        Subject(pixels, mask), CONTRACT, tuple(f"c{i}" for i in range(batch))
    )


def test_predicted_dimensions_count_values_of_hidden_pixels(make_pixels):
    y = observation(make_pixels)
    expected = [3 * int((~mask).sum()) for mask in y.mask]
    assert y.predicted_dimensions.tolist() == expected
    assert len(set(expected)) > 1


def test_part_keeps_rows_and_names_together(make_pixels):
    y = observation(make_pixels)
    part = y.part(1, 5)
    assert len(part) == 2
    assert part.case_ids == ("c1", "c2")
    assert torch.equal(part.condition, y.condition[1:])
    assert torch.equal(part.pixels, y.pixels[1:])
    assert torch.equal(part.mask, y.mask[1:])


def test_to_changes_the_type_of_the_condition_only(make_pixels):
    y = observation(make_pixels).to(torch.device("cpu"), torch.float64)
    assert y.condition.dtype == torch.float64
    assert y.pixels.dtype == torch.uint8
    assert y.mask.dtype == torch.bool
    assert y.case_ids == ("c0", "c1", "c2")


def test_immutable(make_pixels):
    with pytest.raises(dataclasses.FrozenInstanceError):
        observation(make_pixels).mask = None


def test_one_name_per_case(make_pixels):
    y = observation(make_pixels)
    with pytest.raises(ValueError, match="2 case ids for 3 observations"):
        Observation(y.condition, y.pixels, y.mask, ("a", "b"))


def test_tasks_by_name():
    assert isinstance(task_named("inpainting"), Inpainting)
    assert all(task.name == name for name, task in TASKS.items())
    with pytest.raises(ConfigurationError, match=r"task = 'inpaint': .*did you mean 'inpainting'"):
        task_named("inpaint")
