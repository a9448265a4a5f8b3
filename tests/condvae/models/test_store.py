import hashlib

import pytest
import yaml

from condvae.ground.configuration import ConfigurationError
from condvae.ground.files import sha256_of_file
from condvae.models import find_model, read_cards
from condvae.models import registry as cards

CONTENT = b"weights of a test"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package folder with one model, ``digits16``, and its card."""
    folder = tmp_path / "package" / "bundled" / "digits16"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(CONTENT)
    entries = {
        "digits16": {
            "kind": "vae",
            "folder": "bundled/digits16",
            "sha256": hashlib.sha256(CONTENT).hexdigest(),
            "description": "A test.",
        }
    }
    write_cards(tmp_path / "package", entries)
    monkeypatch.setattr(cards, "files", lambda _: tmp_path / "package")
    return tmp_path / "package"


def write_cards(package, entries):
    (package / "cards.yaml").write_text(yaml.safe_dump(entries))


def test_a_registered_name_gives_its_folder(package):
    assert find_model("digits16") == package / "bundled" / "digits16"
    assert read_cards()["digits16"].kind == "vae"


def test_a_path_gives_the_folder(package, tmp_path):
    (tmp_path / "mine").mkdir()
    assert find_model(str(tmp_path / "mine")) == tmp_path / "mine"


def test_a_name_goes_before_a_folder_of_that_name(package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits16").mkdir()
    assert find_model("digits16") == package / "bundled" / "digits16"


@pytest.mark.parametrize("name", ["digits17", "no/such/folder"])
def test_the_unknown_is_refused_with_names_and_the_command_that_makes_a_model(package, name):
    write_cards(package, {n: read_cards()["digits16"].__dict__ for n in ("digits16", "another")})
    with pytest.raises(ConfigurationError) as caught:
        find_model(name)
    message = str(caught.value)
    assert f"model {name!r}" in message
    assert "(another, digits16)" in message
    assert "kedro run --pipeline=pretrain" in message


def test_a_file_is_not_a_model_folder(package, tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="nor a model folder"):
        find_model(str(tmp_path / "weights.pt"))


def test_damaged_weights_are_refused_with_both_hashes(package):
    weights = package / "bundled" / "digits16" / "model.safetensors"
    weights.write_bytes(CONTENT[:-1])
    with pytest.raises(ConfigurationError) as caught:
        find_model("digits16")
    message = str(caught.value)
    assert message.startswith(f"digits16: {weights} has sha256 ")
    assert sha256_of_file(weights)[:12] in message
    assert hashlib.sha256(CONTENT).hexdigest()[:12] in message
    assert "damaged" in message


def test_missing_weights_are_refused_with_their_path(package):
    weights = package / "bundled" / "digits16" / "model.safetensors"
    weights.unlink()
    with pytest.raises(ConfigurationError, match=r"digits16: .*model\.safetensors is missing"):
        find_model("digits16")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"license": "x"}, r"unknown parameter digits16\.license"),
        ({"sha256": None}, r"digits16\.sha256 = None: a model of the package needs its hash"),
    ],
)
def test_a_wrong_card_is_refused(package, change, message):
    write_cards(package, {"digits16": {**read_cards()["digits16"].__dict__, **change}})
    with pytest.raises(ConfigurationError, match=message):
        read_cards()


def test_no_cards_at_all_is_no_error(package):
    (package / "cards.yaml").write_text("# none yet\n")
    assert read_cards() == {}


def test_every_model_that_comes_with_the_package_is_whole():
    for name, card in read_cards().items():
        assert card.kind in ("vae", "posterior")
        if card.folder is not None:
            assert find_model(name).is_dir()


def test_published_checkpoint_is_no_model_folder():
    with pytest.raises(ConfigurationError) as caught:
        find_model("vdvae-cifar10-seed1")
    message = str(caught.value)
    assert "fetch('vdvae-cifar10-seed1', allow_unpinned=True)" in message
    assert "preset 'cifar10'" in message
