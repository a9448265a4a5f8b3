"""Models on the hub: fetched whole, checked, resumed, opened again without a network."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest
import torch

from condvae import load_posterior
from condvae.ground.configuration import ConfigurationError
from condvae.models import find_model, resolve_posterior, resolve_vae
from condvae.models.folder import save_posterior, save_vae
from condvae.transport.hub import fetch_hub_files, fetch_hub_model, pin_hub_address
from pipelines.parameters import check
from pipelines.pretrained_weights.nodes import fetch_weights

ADDRESS = "hf://lab/digits"
EXTRAS = {
    "README.md": b"# not needed",
    "modeling.py": b"raise SystemExit",
    "pytorch_model.bin": b"\x80\x04pickle",
    "other/model.safetensors": b"other",
}


def files_of(folder, inside=""):
    names = ("card.json", "model.safetensors")
    return {f"{inside}{name}": (folder / name).read_bytes() for name in names}


@pytest.fixture
def posterior(tmp_path, make_posterior):
    posterior = make_posterior(dtype=torch.float32)
    save_posterior(tmp_path / "made", posterior, {"name": "digits"})
    return posterior


@pytest.fixture
def files(tmp_path, posterior):
    """The two files of a posterior."""
    return files_of(tmp_path / "made")


@pytest.fixture
def fetch(tmp_path, patience):
    def fetch(address=ADDRESS):
        return fetch_hub_model(
            address, tmp_path / "cache", patience=patience, progress=lambda *_: None
        )

    return fetch


def test_posterior_opens_by_its_address(hub, files, posterior, caplog):
    commit = hub.commit("lab/digits", files | EXTRAS, tags=["license:mit", "condvae"])
    with caplog.at_level(logging.INFO):
        loaded = load_posterior(ADDRESS)
    own, theirs = posterior.model.latents.state_dict(), loaded.model.latents.state_dict()
    torch.testing.assert_close(own, theirs, rtol=0, atol=0)
    assert hub.fetched() == ["card.json", "model.safetensors"]
    assert f"{ADDRESS} is commit {commit}, licence: mit" in caplog.text


def test_fetched_folder_holds_the_two_files_alone(hub, files, fetch):
    hub.commit("lab/digits", files | EXTRAS)
    folder = fetch()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert fetch() == folder
    assert len(hub.fetched()) == 2


def test_revision_and_folder_are_taken(hub, files, fetch):
    inside = {f"models/v1.0/{name}": content for name, content in files.items()}
    old = hub.commit("lab/digits", inside | EXTRAS, branch="refs/pr/1")
    hub.commit("lab/digits", EXTRAS)
    for revision in ("refs%2Fpr%2F1", old):
        folder = fetch(f"{ADDRESS}@{revision}/models/v1.0")
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert len(hub.fetched()) == 2  # the branch is that commit, whose files are there
    with pytest.raises(ConfigurationError, match=r"card\.json, model\.safetensors is missing"):
        fetch()


def test_cut_connection_is_continued(hub, files, fetch):
    hub.commit("lab/digits", files)
    hub.cuts["model.safetensors"] = [1000, 0, 500]
    folder = fetch()
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    ranges = [h.get("Range") for _, p, h in hub.requests if p.endswith("model.safetensors")]
    # The hub leads on to where the weights are: two requests each.
    assert ranges[::2] == [None, "bytes=1000-", "bytes=1000-", "bytes=1500-"]


def test_fetch_that_failed_is_continued_by_the_next_call(hub, files, fetch, tmp_path):
    commit = hub.commit("lab/digits", files)
    hub.cuts["model.safetensors"] = [1000, 0, 0, 0]
    with pytest.raises(ConfigurationError, match=r"could not be fetched: .*1000 bytes are kept"):
        fetch()
    assert pin_hub_address(ADDRESS, tmp_path / "cache") == ADDRESS  # nothing is recorded yet
    hub.cuts.clear()
    hub.requests.clear()
    folder = fetch()
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    asked = [h["Range"] for _, p, h in hub.requests if p.endswith("model.safetensors")]
    assert set(asked) == {"bytes=1000-"}
    assert pin_hub_address(ADDRESS, tmp_path / "cache") == f"{ADDRESS}@{commit}"


@pytest.mark.parametrize(
    ("name", "what"), [("model.safetensors", "sha256"), ("card.json", "git object id")]
)
def test_damaged_file_is_refused_and_not_kept(hub, files, fetch, tmp_path, name, what):
    hub.commit("lab/digits", files)
    content = bytearray(files[name])
    content[len(content) // 2] ^= 1
    hub.damaged[name] = bytes(content)
    with pytest.raises(ConfigurationError, match=f"has {what} .*, expected .*nothing was kept"):
        fetch()
    assert not list((tmp_path / "cache").rglob(name))
    hub.damaged.clear()
    assert (fetch() / name).read_bytes() == files[name]


def test_weights_of_another_card_are_refused(hub, files):
    card = json.loads(files["card.json"]) | {"sha256": "0" * 64}
    hub.commit("lab/digits", files | {"card.json": json.dumps(card).encode()})
    with pytest.raises(ConfigurationError, match=r"its card says 000000000000"):
        load_posterior(ADDRESS)


def test_file_that_is_gone_is_fetched_again(hub, files, fetch):
    commit = hub.commit("lab/digits", files)
    address = f"{ADDRESS}@{commit}"
    (fetch(address) / "card.json").unlink()
    hub.requests.clear()
    fetch(address)
    assert hub.fetched() == ["card.json"]


def test_what_the_hub_does_not_have_is_named(hub, files, fetch, tmp_path):
    hub.commit("lab/digits", {"card.json": files["card.json"]})
    for address, message in {
        "hf://lab/unknown": "no such repository on the hub; a private one needs `hf auth login`",
        f"{ADDRESS}@v9": "no revision 'v9'",
        f"{ADDRESS}/none": "no folder 'none'",
        ADDRESS: r"model\.safetensors is missing: not a model folder of condvae",
    }.items():
        with pytest.raises(ConfigurationError, match=message) as caught:
            fetch(address)
        assert str(caught.value).startswith(address)
    hub.gated.add("lab/digits")
    with pytest.raises(ConfigurationError, match="access must be granted"):
        fetch()
    assert hub.fetched() == []
    assert not list((tmp_path / "cache").rglob("card.json"))


def test_files_that_are_listed_but_not_granted_name_the_way(hub, files, fetch, tmp_path):
    hub.commit("lab/digits", files)
    hub.guarded.add("lab/digits")
    with pytest.raises(ConfigurationError, match="access must be granted on the page") as caught:
        fetch()
    assert "the server answers 401" in str(caught.value)
    assert not list((tmp_path / "cache").rglob("card.json"))


@pytest.mark.parametrize("how", ["no network", "HF_HUB_OFFLINE"])
def test_second_opening_needs_no_network(hub, files, fetch, monkeypatch, caplog, how):
    commit = hub.commit("lab/digits", files)
    folder = fetch()
    fetch(f"{ADDRESS}@{commit}")
    hub.requests.clear()
    if how == "no network":
        hub.stop()
    else:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert fetch() == folder
    assert f"taking commit {commit}, which was fetched before" in caplog.text
    caplog.clear()
    assert fetch(f"{ADDRESS}@{commit}") == folder
    assert "cannot be reached" not in caplog.text
    with pytest.raises(ConfigurationError, match=r"cannot be reached \(.+\), and there is no copy"):
        fetch("hf://lab/other")
    assert hub.requests == []


def test_commit_that_was_fetched_is_never_asked_for_again(hub, files, fetch):
    commit = hub.commit("lab/digits", files)
    fetch(f"{ADDRESS}@{commit}")
    hub.requests.clear()
    fetch(f"{ADDRESS}@{commit}")
    assert hub.requests == []


def test_branch_that_moves_on_is_followed(hub, files, fetch, tmp_path, make_posterior):
    first = hub.commit("lab/digits", files)
    folder = fetch()
    hub.commit("lab/digits", files | {"README.md": b"# new"})
    assert fetch() == folder  # none of its files has changed
    assert len(hub.fetched()) == 2
    save_posterior(tmp_path / "new", make_posterior(seed=3, dtype=torch.float32), {})
    second = hub.commit("lab/digits", files_of(tmp_path / "new"))
    assert (fetch() / "card.json").read_bytes() == (tmp_path / "new/card.json").read_bytes()
    assert pin_hub_address(ADDRESS, tmp_path / "cache") == f"{ADDRESS}@{second}"
    assert fetch(f"{ADDRESS}@{first}") == folder


def test_broken_record_is_only_asked_for_again(hub, files, fetch):
    hub.commit("lab/digits", files)
    folder = fetch()
    for record in folder.parent.glob("*.json"):
        record.write_text('{"commit": 3}')
    assert fetch() == folder
    assert len(hub.fetched()) == 2


def test_token_is_sent_to_the_hub_and_to_no_other_host(hub, files, fetch, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.cdn = hub.address.replace("127.0.0.1", "localhost")
    hub.commit("lab/digits", files)
    fetch()
    for _, path, headers in hub.requests:
        sent = {name.lower(): value for name, value in headers.items()}.get("authorization")
        assert sent == (None if path.startswith("/cdn/") else "Bearer hf_secret"), path


def test_listing_that_leads_out_of_its_folder_does_no_harm(hub, tmp_path):
    address, png = "hf://datasets/lab/pictures", (".png",)
    hub.commit("lab/pictures", {"a.png": b"1", "../../../out.png": b"2"}, kind="datasets")
    fetch_hub_files(address, png, tmp_path / "cache", progress=lambda *_: None)
    assert hub.fetched() == ["a.png"]
    for path in ("/out.png", "x\\..\\out.png"):
        hub.commit("lab/pictures", {"a.png": b"1", path: b"2"}, kind="datasets")
        with pytest.raises(ConfigurationError, match="would lie outside"):
            fetch_hub_files(address, png, tmp_path / "cache")
    assert hub.fetched() == ["a.png"]


@pytest.mark.parametrize(
    "address",
    [
        "hf:lab/digits",
        "hf:/lab/digits",
        "hf://digits",
        "hf://lab/",
        "hf://lab/digits/",
        "hf://lab/digits@",
        "hf://lab/digits@a/../b@c",
        "hf://lab/digits@..",
        "hf://lab/digits@a%2F..%2Fb",
        "hf://lab/digits/../x",
        "hf://lab/digits//x",
        "hf://lab/digits/a\\b",
        "hf://la b/digits",
        "hf://lab/di--gits",
        "hf://lab/-digits",
        "hf://spaces/lab/digits",
        "hf://datasets/lab",
        "hf://lab/digits@main\n",
    ],
)
def test_wrong_address_is_refused_with_the_right_form(address):
    with pytest.raises(ConfigurationError) as caught:
        find_model(address)
    assert repr(address) in str(caught.value)
    assert "expected hf://OWNER/NAME[@REVISION][/FOLDER]" in str(caught.value)


def test_data_set_is_no_model():
    with pytest.raises(ConfigurationError, match=r"address of a data set; expected a model"):
        find_model("hf://datasets/lab/digits")


def test_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for find in (find_model, load_posterior, resolve_vae, resolve_posterior):
        with pytest.raises(ConfigurationError, match=r'pip install "condvae\[hub\]"'):
            find(ADDRESS)


def test_frozen_vae_is_recorded_with_its_commit(hub, tmp_path, make_vae):
    save_vae(tmp_path / "vae", make_vae(dtype=torch.float32), {"weights_source": {"run": "f"}})
    commit = hub.commit("lab/digits", files_of(tmp_path / "vae"))
    store = {"name": "digits", "fingerprint": "f" * 64, "channels": 1, "image_size": 16}
    weights = {"vae": ADDRESS, "cache": str(tmp_path / "other")}
    found = fetch_weights(store, weights, {}, {"vae": str(tmp_path / "unused")}, 0)
    assert found["name"] == f"{ADDRESS}@{commit}"
    assert Path(found["folder"]).is_relative_to(tmp_path / "other")
    assert resolve_posterior(ADDRESS, cache=tmp_path / "other") == Path(found["folder"])


def test_parameters_are_checked_without_the_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    parameters = {
        "data": {},
        "weights": {"vae": ADDRESS, "posterior": f"{ADDRESS}@v1"},
        "folders": dict.fromkeys(
            ("images", "features", "evaluation", "vae", "inpaint", "reporting", "data_docs"), "x"
        ),
    }
    check._check_sources(parameters, Path())
    parameters["weights"]["posterior"] = "hf://lab"
    with pytest.raises(ConfigurationError, match="'hf://lab': expected hf://OWNER/NAME"):
        check._check_sources(parameters, Path())
