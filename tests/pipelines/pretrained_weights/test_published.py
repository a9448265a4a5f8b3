"""`weights.vae` as a published name: fetched once, checked always, used without a network."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
import yaml

from condvae.ground.configuration import ConfigurationError, read_config
from condvae.ground.images import DataContract
from condvae.models import registry as cards
from condvae.models.folder import load_vae
from condvae.models.official_layout import write_official
from condvae.models.presets import PRESETS, Preset
from condvae.training.config import TrainingConfig
from condvae.vdvae import ARCHITECTURES
from pipelines.parameters import WeightsConfig
from pipelines.pretrained_weights.nodes import fetch_weights

CONTRACT = DataContract(3, 16, 110.0, 60.0)
STORE = {
    **{"name": "colour", "fingerprint": "f" * 64, "channels": 3, "image_size": 16},
    **{"training_mean": 80.0, "training_std": 90.0},
}


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def vae(make_vae):
    return make_vae(dtype=torch.float32, channels=3)


@pytest.fixture
def server(tmp_path, monkeypatch, vae):
    """A server on this machine with one official file; `stop()` takes it off the network."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    write_official(tmp_path / "server" / "tiny-model-ema.th", vae.state_dict())
    handler = partial(QuietHandler, directory=str(tmp_path / "server"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()

    def stop():
        if thread.is_alive():
            server.shutdown()
            server.server_close()
            thread.join()

    server.stop = stop
    yield server
    stop()


@pytest.fixture
def publish(tmp_path, monkeypatch, server):
    """Registers `vdvae-tiny`, which is on the server, and its preset."""
    architecture = dataclasses.replace(ARCHITECTURES["tiny16"], channels=3)
    monkeypatch.setitem(ARCHITECTURES, "colour16", architecture)
    preset = Preset("colour16", CONTRACT, TrainingConfig(), None, "a test")
    monkeypatch.setitem(PRESETS, "colour16", preset)

    def write(**changes):
        entry = {
            "kind": "vae",
            "description": "A test.",
            "host": f"http://127.0.0.1:{server.server_port}",
            "path": "tiny-model-ema.th",
            "sha256": None,
            "preset": "colour16",
            "data_contract": dataclasses.asdict(CONTRACT),
            "licence": "MIT",
            **changes,
        }
        package = tmp_path / "package"
        package.mkdir(exist_ok=True)
        (package / "cards.yaml").write_text(yaml.safe_dump({"vdvae-tiny": entry}))
        monkeypatch.setattr(cards, "files", lambda _: package)

    write()
    return write


@pytest.fixture
def get(tmp_path, publish):
    def run(**weights):
        weights = {"vae": "vdvae-tiny", "cache": str(tmp_path / "cache"), **weights}
        folders = {"vae": str(tmp_path / "models" / "vae")}
        return fetch_weights(STORE, weights, {"architecture": "tiny16"}, folders, 0)

    return run


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_first_fetch_must_be_allowed_by_name(get, tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        get()
    assert "vdvae-tiny: nobody publishes its sha256" in str(caught.value)
    assert "weights.allow_unpinned" in str(caught.value)
    assert not (tmp_path / "models").exists()


def test_allowed_once_it_is_there_for_good(get, tmp_path, server, vae):
    first = get(allow_unpinned=True)
    file = tmp_path / "cache" / "tiny-model-ema.th"
    assert first["name"] == "vdvae-tiny"
    assert first["folder"] == str(tmp_path / "models" / "vae" / sha256_of(file)[:12])
    loaded, card = load_vae(first["folder"])
    assert card["preset"] == "colour16"
    assert loaded.contract == CONTRACT
    assert all(torch.equal(value, loaded.state_dict()[k]) for k, value in vae.state_dict().items())
    server.stop()
    # Pinned now: neither the permission nor the network is needed.
    assert get() == first


def test_file_with_another_hash_is_refused(get, publish, tmp_path):
    publish(sha256="0" * 64)
    with pytest.raises(ConfigurationError, match=r"vdvae-tiny: .*the file has changed where it is"):
        get(allow_unpinned=True)
    assert not (tmp_path / "cache" / "tiny-model-ema.th").exists()
    assert not (tmp_path / "models").exists()


def test_file_put_there_by_hand_is_checked_the_same_way(get, server, tmp_path):
    server.stop()
    by_hand = tmp_path / "cache" / "tiny-model-ema.th"
    write_official(by_hand, {"other": torch.zeros(1)})
    whole = (tmp_path / "server" / "tiny-model-ema.th").read_bytes()
    with pytest.raises(ConfigurationError, match="does not fit the model"):
        get(allow_unpinned=True)
    by_hand.write_bytes(whole)
    with pytest.raises(ConfigurationError, match="has sha256"):  # the other one is pinned
        get(allow_unpinned=True)


def test_without_a_network_the_message_says_what_goes_where(get, publish, tmp_path):
    publish(path="elsewhere.th")
    with pytest.raises(ConfigurationError) as caught:
        get(allow_unpinned=True)
    message = str(caught.value)
    assert "vdvae-tiny could not be fetched" in message
    assert f"put it at {tmp_path / 'cache' / 'elsewhere.th'}" in message


def test_known_mismatch_is_shown(get, publish):
    publish(preset="cifar10", known_mismatch="reported to be another model")
    with pytest.raises(ConfigurationError, match="preset cifar10 is reported to be another model"):
        get(allow_unpinned=True)


def test_published_name_brings_its_own_preset():
    weights = {"vae": "vdvae-cifar10-seed1", "preset": "cifar10"}
    with pytest.raises(ConfigurationError, match=r"only for official checkpoints \(\.th\)"):
        read_config(WeightsConfig, weights, "weights")
