"""Index lists at full size, against scikit-learn and NumPy's global generator."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from condvae.data.config import OFFICIAL_SOURCES
from condvae.data.splits import COUNTED_SPLITS, assign_official, official_split
from condvae.ground.configuration import ConfigurationError


def legacy_permutation(seed, count):
    np.random.seed(seed)  # noqa: NPY002 - put back by a fixture
    return np.random.permutation(count)  # noqa: NPY002


def check_partition(split, count):
    everything = np.concatenate([split["train"], split["validation"], split["test"]])
    np.testing.assert_array_equal(np.sort(everything), np.arange(count))
    assert all(indices.dtype == np.int64 for indices in split.values())


def test_cifar10_is_scikit_learns_split_of_the_training_pictures():
    split = official_split("cifar10", [50_000, 10_000])
    train, validation = train_test_split(np.arange(50_000), test_size=5000, random_state=11172018)
    np.testing.assert_array_equal(split["train"], train)
    np.testing.assert_array_equal(split["validation"], validation)
    np.testing.assert_array_equal(split["test"], np.arange(50_000, 60_000))
    assert [len(split[name]) for name in ("train", "validation", "test")] == [45_000, 5000, 10_000]
    check_partition(split, 60_000)


@pytest.mark.parametrize("name", ["imagenet32", "imagenet64"])
@pytest.mark.parametrize("train", [1_281_149, 1_281_167])
def test_imagenet_holds_out_the_last_5000_of_seed_42(name, train):
    split = official_split(name, [train, 49_999])
    order = legacy_permutation(42, train)
    np.testing.assert_array_equal(split["train"], order[:-5000])
    np.testing.assert_array_equal(split["validation"], order[-5000:])
    assert (split["test"][0], split["test"][-1]) == (train, train + 49_998)
    check_partition(split, train + 49_999)


def test_ffhq_holds_out_the_last_7000_of_seed_5_for_validation_and_test():
    split = official_split("ffhq", [70_000])
    order = legacy_permutation(5, 70_000)
    np.testing.assert_array_equal(split["train"], order[:63_000])
    np.testing.assert_array_equal(split["validation"], order[63_000:])
    np.testing.assert_array_equal(split["test"], split["validation"])


@pytest.mark.parametrize(("name", "train"), [("edges2shoes", 49_825), ("edges2handbags", 138_567)])
def test_edges_hold_out_the_last_5000_of_seed_42(name, train):
    split = official_split(name, [train, 200])
    order = legacy_permutation(42, train)
    np.testing.assert_array_equal(split["train"], order[:-5000])
    np.testing.assert_array_equal(split["validation"], order[-5000:])
    np.testing.assert_array_equal(split["test"], np.arange(train, train + 200))
    check_partition(split, train + 200)


def test_chest_xrays_keep_the_official_test_pictures():
    split = official_split("chest_xray14", [86_524, 25_596])
    assert [len(split[part]) for part in ("train", "validation", "test")] == [81_524, 5000, 25_596]
    np.testing.assert_array_equal(split["test"], np.arange(86_524, 112_120))
    # Not the last of the list: those would be of a few patients.
    assert len(np.unique(split["validation"] // 1000)) == 87
    check_partition(split, 112_120)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_mnist_keeps_the_official_test_pictures(name):
    split = official_split(name, [60_000, 10_000])
    assert [len(split[part]) for part in ("train", "validation", "test")] == [55_000, 5000, 10_000]
    np.testing.assert_array_equal(split["test"], np.arange(60_000, 70_000))
    # Not simply the last: those would be of a few writers.
    assert not np.array_equal(np.sort(split["validation"]), np.arange(55_000, 60_000))
    check_partition(split, 70_000)


def test_the_global_generator_is_left_alone():
    np.random.seed(1)  # noqa: NPY002
    expected = np.random.rand()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    for name in COUNTED_SPLITS:
        official_split(name, [20] if name == "ffhq" else [20, 3])
    assert np.random.rand() == expected  # noqa: NPY002


@pytest.mark.parametrize(
    ("name", "counts", "held_out"),
    [
        *(("cifar10", [30, 5], 3), ("ffhq", [40], 4), ("imagenet64", [30, 5], 1)),
        *(("mnist", [24, 5], 2), ("edges2shoes", [40, 2], 4), ("chest_xray14", [60, 5], 3)),
    ],
)
def test_a_part_of_a_data_set_holds_out_the_same_share(name, counts, held_out):
    split = official_split(name, counts)
    assert len(split["validation"]) == held_out
    assert len(split["train"]) == counts[0] - held_out


def test_the_only_other_official_split_is_a_list_of_files():
    assert set(OFFICIAL_SOURCES) - set(COUNTED_SPLITS) == {"celeba"}


@pytest.mark.parametrize(
    ("name", "counts", "message"),
    [
        ("cifar", [5, 5], "did you mean 'cifar10'"),
        (
            "cifar10",
            [60_000],
            "official split of cifar10: parts of [60000] pictures; expected 2 parts",
        ),
        ("ffhq", [5, 5], "expected 1 part with pictures"),
        ("mnist", [5, 0], "expected 2 parts with pictures in each"),
        ("ffhq", [1], "official split of ffhq: 1 pictures; expected at least 2"),
    ],
)
def test_mistakes_are_named(name, counts, message):
    with pytest.raises(ConfigurationError) as error:
        official_split(name, counts)
    assert message in str(error.value)


def test_lists_become_one_split_for_each_picture():
    split = assign_official({"train": [3, 0], "validation": [2], "test": [1]}, 4)
    assert [split.name(i) for i in range(4)] == ["train", "test", "validation", "train"]
    assert not split.validation_is_test
    shared = assign_official({"train": [0], "validation": [2, 1], "test": [2, 1]}, 3)
    assert [shared.name(i) for i in range(3)] == ["train", "test", "test"]
    assert shared.validation_is_test


def test_lists_must_cover_every_picture_once():
    with pytest.raises(ConfigurationError, match="pictures of test are in another list too"):
        assign_official({"train": [0, 1], "validation": [2], "test": [1]}, 3)
    with pytest.raises(ConfigurationError, match="2 of 4 pictures are in no list"):
        assign_official({"train": [0], "validation": [2], "test": [2]}, 4)
