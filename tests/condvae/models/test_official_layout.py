from __future__ import annotations

import pytest
import torch

from condvae.ground.configuration import ConfigurationError
from condvae.ground.state_dicts import load_strictly
from condvae.ipa import PartialEncoder
from condvae.models.official_layout import merge_conditional, split_conditional


def states(make_vae):
    vae = make_vae()
    return vae.state_dict(), PartialEncoder(vae, 2).double().state_dict()


def test_merge_names_and_split_back(make_vae):
    vae, partial = states(make_vae)
    merged = merge_conditional(vae, partial)
    assert len(merged) == len(vae) + len(partial)
    assert merged["part_encoder.in_conv.weight"] is partial["encoder.in_conv.weight"]
    assert merged["decoder.dec_blocks.3.part_enc.c4.bias"] is partial["heads.3.c4.bias"]
    back = split_conditional(merged)
    assert list(map(set, back)) == [set(vae), set(partial)]
    for part, own in zip(back, (vae, partial), strict=True):
        assert all(part[key] is own[key] for key in own)


def test_prefix_of_data_parallel_training_is_dropped(make_vae):
    vae, partial = states(make_vae)
    merged = merge_conditional(vae, partial)
    prefixed = {f"module.{key}": value for key, value in merged.items()}
    for with_prefix, without in zip(
        split_conditional(prefixed), split_conditional(merged), strict=True
    ):
        assert with_prefix.keys() == without.keys()
    assert split_conditional({f"module.{k}": v for k, v in vae.items()}) == (vae, {})


def test_load_strictly_loads(make_vae):
    source, target = make_vae(seed=1), make_vae(seed=2)
    load_strictly(target, source.state_dict(), "weights.th")
    for key, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[key])


def test_load_strictly_lists_everything_and_changes_nothing(make_vae):
    target = make_vae(seed=2)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    state = make_vae(seed=1).state_dict()
    del state["decoder.gain"]
    del state["decoder.bias"]
    state["part_encoder.in_conv.bias"] = torch.zeros(1)
    state["encoder.in_conv.weight"] = torch.zeros(16, 3, 3, 3)
    with pytest.raises(ConfigurationError) as error:
        load_strictly(target, state, "weights.th")
    assert str(error.value).splitlines() == [
        "weights.th does not fit the model: 4 entries differ",
        "  missing: decoder.gain",
        "  missing: decoder.bias",
        "  extra: part_encoder.in_conv.bias",
        "  shape: encoder.in_conv.weight is (16, 3, 3, 3), expected (16, 1, 3, 3)",
    ]
    assert all(torch.equal(before[key], value) for key, value in target.state_dict().items())


def test_long_lists_are_cut(make_vae):
    vae = make_vae()
    count = len(vae.state_dict())
    with pytest.raises(ConfigurationError) as error:
        load_strictly(vae, {}, "empty.th")
    lines = str(error.value).splitlines()
    assert lines[0] == f"empty.th does not fit the model: {count} entries differ"
    assert len(lines) == 22
    assert lines[-1] == f"  and {count - 20} more"
