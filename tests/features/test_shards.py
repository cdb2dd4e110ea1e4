"""Shards of a feature store: complete files, their digests, and errors."""

import dataclasses
import errno

import numpy as np
import pytest

from sknetsim._features.manifest import Manifest, check_same_manifest, read_manifest
from sknetsim._features.shards import open_for_writing
from sknetsim.exceptions import FeatureStoreError

MANIFEST = Manifest(
    network="n",
    featurizer="f",
    data="d",
    n_samples=7,
    n_features=2,
    dtype="float32",
    rows_per_shard=3,
    versions={"torch": "2"},
)
FEATURES = np.arange(14, dtype=np.float32).reshape(7, 2)


def write_all(folder, manifest=MANIFEST):
    with open_for_writing(folder, manifest) as shards:
        for shard in shards.missing:
            shards.write(shard, FEATURES[manifest.rows(shard)])
    return shards


def test_shards_cover_all_rows_once():
    rows = [MANIFEST.rows(shard) for shard in range(MANIFEST.n_shards)]
    assert [(part.start, part.stop) for part in rows] == [(0, 3), (3, 6), (6, 7)]
    assert [MANIFEST.shape(shard) for shard in range(3)] == [(3, 2), (3, 2), (1, 2)]
    assert [MANIFEST.nbytes(shard) for shard in range(3)] == [24, 24, 8]


def test_written_shards_are_read_as_they_were(tmp_path):
    shards = write_all(tmp_path / "store")
    assert shards.missing == []
    actual = np.concatenate([shards.read(shard) for shard in range(3)])
    np.testing.assert_array_equal(actual, FEATURES)


def test_a_store_is_continued_with_its_missing_shards(tmp_path):
    with open_for_writing(tmp_path, MANIFEST) as shards:
        shards.write(1, FEATURES[3:6])
    (tmp_path / ".manifest.json.unfinished").touch()
    with open_for_writing(tmp_path, MANIFEST) as shards:
        assert shards.missing == [0, 2]
    assert not (tmp_path / ".manifest.json.unfinished").exists()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("network", "x", r"features of another network \(n, not x\)"),
        ("featurizer", "x", r"another featurizer.* \(f, not x\)"),
        ("data", "x", r"features of other data \(d, not x\)"),
        ("n_samples", 8, r"another number of samples \(7, not 8\)"),
        ("n_features", 3, r"another number of features \(2, not 3\)"),
        ("dtype", "float16", r"another dtype \(float32, not float16\)"),
        ("rows_per_shard", 4, r"another number of rows per shard \(3, not 4\)"),
    ],
)
def test_a_difference_is_described_with_the_value_of_the_store_first(
    tmp_path, field, value, message
):
    write_all(tmp_path)
    requested = dataclasses.replace(MANIFEST, **{field: value})
    with pytest.raises(FeatureStoreError, match=message):
        check_same_manifest(tmp_path, requested, read_manifest(tmp_path))


def test_other_versions_are_no_difference(tmp_path):
    requested = dataclasses.replace(MANIFEST, versions={})
    check_same_manifest(tmp_path, requested, MANIFEST)
    assert requested.key == MANIFEST.key


def test_a_shard_of_another_store_is_recognised_by_its_digest(tmp_path):
    write_all(tmp_path / "one")
    write_all(tmp_path / "two", dataclasses.replace(MANIFEST, data="x"))
    names = [
        sorted(path.name for path in (tmp_path / store).glob("*.npy")) for store in ("one", "two")
    ]
    assert all(first != second for first, second in zip(*names, strict=True))


@pytest.mark.parametrize(
    "values", [{"n_samples": 0}, {"n_features": "2"}, {"dtype": "int8"}], ids=str
)
def test_impossible_manifests_raise_an_error(values):
    with pytest.raises(ValueError, match="must be"):
        dataclasses.replace(MANIFEST, **values)


@pytest.mark.parametrize(
    ("code", "cure"), [(errno.ENOSPC, "Free some space"), (errno.EIO, "Remove the cause")]
)
def test_an_error_while_writing_says_how_to_continue(tmp_path, monkeypatch, code, cure):
    def fail(path, content):
        raise OSError(code, "failed")

    with open_for_writing(tmp_path, MANIFEST) as shards:
        monkeypatch.setattr("sknetsim._features.shards._write", fail)
        message = rf"rows 3 to 6 \(failed\); 0 of 3 shards .* {cure}, and call featurize again"
        with pytest.raises(OSError, match=message) as caught:
            shards.write(1, FEATURES[3:6])
    assert caught.value.errno == code and not list(tmp_path.glob("*.npy*"))
