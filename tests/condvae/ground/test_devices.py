import pytest
import torch

from condvae.ground.configuration import ConfigurationError
from condvae.ground.devices import (
    autocast,
    explain_out_of_memory,
    resolve_device,
    warn_of_slow_precision,
)


def test_the_processor_can_always_be_had():
    assert resolve_device("cpu") == torch.device("cpu")


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert resolve_device("auto").type == "cpu"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "", "mps"])
def test_unknown_devices_are_refused(name):
    with pytest.raises(ConfigurationError, match="expected auto, cpu, cuda or cuda:N"):
        resolve_device(name)


@pytest.mark.parametrize(("name", "count"), [("cuda", 0), ("cuda:2", 2)])
def test_a_gpu_that_is_not_there_is_refused(monkeypatch, name, count):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(ConfigurationError, match=f"'{name}'.*has {count} CUDA devices"):
        resolve_device(name)


def test_autocast_sets_the_precision_of_products_only_when_asked():
    a = torch.ones(2, 2)
    with autocast("float32", a.device):
        assert (a @ a).dtype == torch.float32
    with autocast("bfloat16", a.device):
        assert (a @ a).dtype == torch.bfloat16


def test_running_out_of_memory_names_the_parameter_and_its_value():
    with (
        pytest.raises(ConfigurationError, match=r"out of memory with sampling.batch_size = 256; l"),
        explain_out_of_memory("sampling.batch_size", 256),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_other_errors_pass_through():
    with pytest.raises(KeyError), explain_out_of_memory("x", 1):
        raise KeyError


@pytest.mark.parametrize(
    ("found", "device", "precision", "warned"),
    [
        ({"avx2": True, "avx512_f": True}, "cpu", "bfloat16", True),
        ({"neon": True, "bf16": False}, "cpu", "bfloat16", True),
        ({"avx512_bf16": True}, "cpu", "bfloat16", False),
        ({"amx_bf16": True}, "cpu", "bfloat16", False),
        ({"bf16": True}, "cpu", "bfloat16", False),
        ({}, "cpu", "float32", False),
        ({}, "cuda", "bfloat16", False),
    ],
)
def test_a_processor_without_bfloat16_units_is_named(
    monkeypatch, caplog, found, device, precision, warned
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    warn_of_slow_precision(precision, torch.device(device), "training.precision")
    assert ("training.precision = bfloat16: this processor has no units" in caplog.text) == warned


@pytest.mark.parametrize("units", [True, False])
def test_an_older_pytorch_is_asked_what_it_knows(monkeypatch, caplog, units):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: units)
    warn_of_slow_precision("bfloat16", torch.device("cpu"), "training.precision")
    assert bool(caplog.records) != units
