import numpy as np

from condvae.evaluation.chunks import ChunkFolder


def test_saved_arrays_come_back(tmp_path):
    folder = ChunkFolder(tmp_path / "made" / "here")
    arrays = {"values/a": np.arange(3.0), "b": np.array([[1, 2]], np.uint8)}
    assert folder.load(0, 3) is None
    folder.save(0, 3, arrays)
    found = folder.load(0, 3)
    assert list(found) == list(arrays)
    for name, value in arrays.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype
    assert folder.load(3, 6) is None
    assert [path.name for path in folder.folder.iterdir()] == ["000000-000003.npz"]


def test_damaged_results_are_made_again(tmp_path, caplog):
    folder = ChunkFolder(tmp_path)
    folder.save(0, 2, {"a": np.arange(1000.0)})
    path = tmp_path / "000000-000002.npz"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (whole[:-30], whole[:100], b"", bytes(flipped)):
        path.write_bytes(damaged)
        assert folder.load(0, 2) is None
    assert "scored again" in caplog.text
    path.write_bytes(whole)
    np.testing.assert_array_equal(folder.load(0, 2)["a"], np.arange(1000.0))


def test_no_damage_stops_an_evaluation(tmp_path):
    folder = ChunkFolder(tmp_path)
    folder.save(0, 2, {"a": np.arange(3.0)})
    path = tmp_path / "000000-000002.npz"
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(bytes(damaged))
        folder.load(0, 2)


def test_without_a_folder_nothing_is_kept():
    folder = ChunkFolder(None)
    folder.save(0, 1, {"a": np.zeros(1)})
    assert folder.load(0, 1) is None


def test_only_cases_that_were_saved_are_counted(tmp_path):
    first, again = ChunkFolder(tmp_path), ChunkFolder(tmp_path)
    first.save(0, 3, {"a": np.zeros(3)})
    assert again.load(0, 3) is not None
    again.save(3, 5, {"a": np.zeros(2)})
    assert (first.cases_saved, again.cases_saved) == (3, 2)
