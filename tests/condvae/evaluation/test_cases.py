from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from condvae.evaluation.cases import (
    EvaluationCase,
    build_cases,
    build_cases_of_every_image,
    read_cases,
    write_cases,
)
from condvae.ground.configuration import ConfigurationError
from condvae.masks.kinds import bin_of
from condvae.masks.sampling import MaskConfig


def sha(row):
    return hashlib.sha256(str(row).encode()).hexdigest()


def build(rows, per_bin, seed=0, **options):
    rows = list(rows)
    hashes = [sha(row) for row in rows]
    return build_cases(rows, hashes, 12, MaskConfig(), per_bin=per_bin, seed=seed, **options)


def fields(case):
    return dataclasses.asdict(case) | {"mask": case.mask.tolist()}


def test_every_bin_has_as_many_cases_and_the_bins_alternate():
    cases = build(range(100, 140), 8)
    assert [case.bin for case in cases] == [0, 1, 2, 3, 4] * 8
    for case in cases:
        assert bin_of(case.observed_share) == case.bin
        assert case.observed_share == case.mask.sum() / 144
        assert case.image_sha256 == sha(case.image_id)
        assert not case.mask.flags.writeable


def test_images_are_not_replaced_while_they_last():
    assert len({case.image_id for case in build(range(100), 20)}) == 100
    few = build(range(30), 20)  # 100 cases
    uses = np.bincount([case.image_id for case in few], minlength=30)
    assert set(uses) == {3, 4}
    for index in range(5):
        assert len({case.image_id for case in few if case.bin == index}) == 20
    fewest = build(range(7), 20)
    assert set(np.bincount([case.image_id for case in fewest])) == {14, 15}


def test_images_are_chosen_at_random():
    # The first rows of a file sorted by class would be one class.
    rows = [case.image_id for case in build(range(1000), 10)]
    assert max(rows) > 800
    assert rows != sorted(rows)
    assert rows != [case.image_id for case in build(range(1000), 10, seed=1)]


def build_all(rows, masks_per_image, seed=0):
    rows = list(rows)
    hashes = [sha(row) for row in rows]
    settings = {"masks_per_image": masks_per_image, "seed": seed}
    return build_cases_of_every_image(rows, hashes, 12, MaskConfig(), **settings)


@pytest.mark.parametrize("masks", [1, 3, 5])
def test_every_image_comes_behind_masks_of_different_bins(masks):
    cases = build_all(range(50, 87), masks)
    assert len(cases) == 37 * masks
    counts = np.bincount([case.bin for case in cases])
    assert len(counts) == 5
    assert counts.max() - counts.min() <= 1
    for row in range(50, 87):
        own = [case for case in cases if case.image_id == row]
        assert len(own) == masks == len({case.bin for case in own})
        assert {case.image_sha256 for case in own} == {sha(row)}
    assert [case.image_id for case in cases] != sorted(case.image_id for case in cases)
    assert fields(cases[4]) == fields(build_all(range(50, 87), masks)[4])
    assert fields(cases[4]) != fields(build_all(range(50, 87), masks, seed=1)[4])


def test_without_masks_all_cases_are_in_the_first_bin_and_as_many():
    hidden = MaskConfig(kinds={"blank": 1.0}, stratified=False)
    rows = list(range(30))
    hashes = [sha(row) for row in rows]
    cases = build_cases(rows, hashes, 12, hidden, per_bin=6, seed=0)
    assert sorted(case.image_id for case in cases) == rows
    assert {(case.bin, case.mask.any()) for case in cases} == {(0, False)}
    every = build_cases_of_every_image(rows, hashes, 12, hidden, masks_per_image=3, seed=0)
    assert sorted(case.image_id for case in every) == rows
    with pytest.raises(ConfigurationError, match="none of them reaches the bin 20_40"):
        build_cases(rows, hashes, 12, MaskConfig({"blank": 1.0}), per_bin=6, seed=0)


def test_bins_that_unstratified_masks_do_not_reach_are_left_out():
    halves = MaskConfig(kinds={"half": 1.0, "blank": 2.0}, stratified=False)
    rows = list(range(50))
    cases = build_cases(rows, [sha(row) for row in rows], 12, halves, per_bin=3, seed=0)
    assert [case.bin for case in cases] == [0, 2] * 7 + [0]
    assert len({case.image_id for case in cases}) == 15


@pytest.mark.parametrize("masks", [0, 6])
def test_an_image_cannot_have_more_masks_than_bins(masks):
    with pytest.raises(ConfigurationError, match=f"masks_per_image = {masks}: expected 1 to 5"):
        build_all(range(4), masks)


def test_ids_are_stable_and_different():
    cases = build(range(20), 3)
    assert [case.case_id for case in cases[:2]] == ["q-00000", "q-00001"]
    assert len({case.case_id for case in cases}) == 15
    assert build(range(20), 3, prefix="full")[12].case_id == "full-00012"
    assert len({case.seed for case in cases}) == 15
    assert [fields(case) for case in cases] == [fields(case) for case in build(range(20), 3)]


def test_cases_come_back_from_the_file(tmp_path):
    cases = build(range(20), 4)
    path = tmp_path / "sub" / "cases.jsonl"
    found = write_cases(path, cases)
    assert found == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [fields(c) for c in read_cases(path, found)] == [fields(c) for c in cases]
    assert write_cases(tmp_path / "again.jsonl", read_cases(path)) == found
    header = json.loads(path.read_text().splitlines()[0])
    assert header == {"format": "condvae-evaluation-cases", "version": 1, "size": 12, "count": 20}
    with pytest.raises(ConfigurationError, match=f"sha256 is {found}, expected 00"):
        read_cases(path, "00")


def edit(**changes):
    def change(lines):
        record = json.loads(lines[2]) | changes
        lines[2] = json.dumps({k: v for k, v in record.items() if v is not None})
        return lines

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit(seed=None), "line 3: .*expected the keys"),
        (edit(extra=1), "line 3: .*extra.*expected the keys"),
        (edit(image_id="4"), "line 3: image_id = '4': expected int"),
        (edit(seed=True), "line 3: seed = True: expected int"),
        (edit(image_id=-1), "line 3: .*image_id -1"),
        (edit(image_sha256="abc"), "line 3: .*expected 64 hexadecimal digits"),
        (edit(mask=[3, 4]), "line 3: run lengths add up to 7"),
        (edit(mask=[0, 144]), "line 3: .*hides nothing"),
        (edit(bin=4), "line 3: .*bin 4 for an observed share"),
        (edit(case_id="q-00000"), "line 3: case_id 'q-00000' was used before"),
        (edit(case_id=""), "line 3: case_id is empty"),
        (lambda lines: [*lines[:2], "{", *lines[3:]], "line 3: not JSON"),
        (lambda lines: [*lines[:2], "[]", *lines[3:]], "line 3: list: expected the keys"),
        (lambda lines: lines[:-1], "4 cases, line 1 announces 5"),
        (lambda lines: lines[1:], "line 1: .*expected the keys"),
        (lambda lines: [], "line 1: not JSON"),
        (
            lambda lines: [lines[0].replace('"version":1', '"version":2'), *lines[1:]],
            "version 2: expected 'condvae-evaluation-cases' version 1",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path, change, message):
    path = tmp_path / "cases.jsonl"
    write_cases(path, build(range(20), 1))
    lines = change(path.read_text().splitlines())
    path.write_text("".join(line + "\n" for line in lines))
    with pytest.raises(ConfigurationError, match=message) as error:
        read_cases(path)
    assert "cases.jsonl" in str(error.value)


def test_what_cannot_be_written_is_refused(tmp_path):
    cases = build(range(20), 1)
    with pytest.raises(ConfigurationError, match="case ids repeat"):
        write_cases(tmp_path / "a", [cases[0], cases[0]])
    with pytest.raises(ConfigurationError, match="expected one square size"):
        write_cases(tmp_path / "a", [])
    other = EvaluationCase("x", 0, sha(0), np.zeros((4, 4), dtype=bool), 0, 0)
    with pytest.raises(ConfigurationError, match="expected one square size"):
        write_cases(tmp_path / "a", [*cases, other])
    assert not (tmp_path / "a").exists()


def test_bad_image_lists_are_refused():
    for rows, hashes in (([], []), ([1, 1], [sha(1)] * 2), ([1, 2], [sha(1)])):
        with pytest.raises(ConfigurationError, match="all different, and a hash for each"):
            build_cases(rows, hashes, 12, MaskConfig(), per_bin=1, seed=0)
    with pytest.raises(ConfigurationError, match="per_bin = 0"):
        build(range(3), 0)
