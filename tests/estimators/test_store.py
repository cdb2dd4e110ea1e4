"""Feature stores: reading, writing, errors, interrupted writes and a full disk."""

import errno
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from filelock import FileLock
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from skorch import NeuralNetRegressor
from torch import nn
from torch.utils.data import TensorDataset

from sknetsim import (
    ActiveLearningSampler,
    FeatureStore,
    FeatureStoreError,
    GradientFeaturizer,
    LabelDenoiser,
    NetworkDensity,
    NetworkKernel,
    NetworkNeighbors,
    UnsupportedNetworkError,
    ZeroGradientWarning,
    featurize,
)
from sknetsim._features.shards import open_for_writing

SAMPLES, FEATURES = 103, 8


@pytest.fixture
def featurizer(X):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    return GradientFeaturizer(network, n_components=FEATURES, random_state=0).fit(X)


@pytest.fixture
def X():
    return np.random.default_rng(0).standard_normal((SAMPLES, 3)).astype(np.float32)


@pytest.fixture
def store(featurizer, X, tmp_path):
    return featurize(featurizer, X, tmp_path / "store", rows_per_shard=10)


def files(folder):
    return sorted(folder.glob("*.npy"))


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-6), ("float16", 5e-4)])
def test_a_store_contains_the_features_of_transform(featurizer, X, tmp_path, dtype, error):
    written = featurize(featurizer, X, tmp_path, dtype=dtype, rows_per_shard=10)
    assert (written.shape, written.dtype, len(written)) == ((SAMPLES, FEATURES), dtype, SAMPLES)
    np.testing.assert_allclose(written, featurizer.transform(X), atol=error)


ROWS = [
    slice(None),
    slice(7, 45),
    slice(40, 3, -7),
    3,
    -1,
    [5, 99, 5, -2],
    np.array([[1, 50], [20, 102]]),
    [],
    np.array([100, 3], dtype=np.int8),
    range(8, 12),
    np.arange(SAMPLES) % 3 == 0,
]


@pytest.mark.parametrize("rows", ROWS, ids=range(len(ROWS)))
def test_rows_are_selected_as_in_numpy(store, rows):
    expected = np.asarray(store)[np.array(rows, dtype=int) if len(np.shape(rows)) else rows]
    if isinstance(rows, np.ndarray) and rows.dtype == bool:
        expected = np.asarray(store)[rows]
    np.testing.assert_array_equal(store[rows], expected)


@pytest.mark.parametrize("rows", [[SAMPLES], -SAMPLES - 1, [0.5], [True, False], "first"], ids=str)
def test_invalid_rows_raise_an_error(store, rows):
    with pytest.raises(IndexError, match=f"between -{SAMPLES} and {SAMPLES - 1}; got"):
        store[rows]


def test_numpy_can_load_the_shards(store):
    np.testing.assert_array_equal(
        np.concatenate([np.load(path) for path in files(store.folder)]), store
    )


def as_memory_map(X, folder):
    np.save(folder / "X.npy", X)
    return np.load(folder / "X.npy", mmap_mode="r")


def as_hdf5(X, folder):
    h5py = pytest.importorskip("h5py")
    return h5py.File(folder / "X.h5", "w").create_dataset("X", data=X)


def as_zarr(X, folder):
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(store=folder / "X.zarr", shape=X.shape, chunks=(17, 3), dtype=X.dtype)
    array[:] = X
    return array


FORMS = {
    "tensor": lambda X, folder: torch.as_tensor(X),
    "memory map": as_memory_map,
    "zarr": as_zarr,
    "hdf5": as_hdf5,
    "dataset": lambda X, folder: TensorDataset(torch.as_tensor(X), torch.zeros(len(X))),
    "tuple": lambda X, folder: (X,),
}


@pytest.mark.parametrize("form", FORMS)
def test_any_form_of_X_is_featurized(featurizer, X, tmp_path, form):
    rows = FORMS[form](X, tmp_path)
    written = featurize(clone(featurizer).fit(rows), rows, tmp_path / "store", rows_per_shard=10)
    np.testing.assert_allclose(written, featurizer.transform(X), atol=1e-6)


def test_the_steps_of_a_pipeline_are_applied_shard_by_shard(X, tmp_path):
    torch.manual_seed(0)
    net = NeuralNetRegressor(nn.Linear, module__in_features=3, module__out_features=1, verbose=0)
    pipeline = make_pipeline(StandardScaler(), net).fit(X, X[:, :1])
    featurizer = GradientFeaturizer(pipeline).fit(X)
    written = featurize(featurizer, X, tmp_path / "store", rows_per_shard=10)
    np.testing.assert_allclose(written, featurizer.transform(X), atol=1e-6)
    other = make_pipeline(StandardScaler(with_mean=False).fit(X), net)
    with pytest.raises(FeatureStoreError, match="features of other data"):
        featurize(GradientFeaturizer(other).fit(X), X, tmp_path / "store", rows_per_shard=10)


def test_zero_gradients_are_reported_once_for_all_shards(X, tmp_path):
    network = nn.Sequential(nn.ReLU(), nn.Linear(3, 1, bias=False))
    X = np.where(np.arange(SAMPLES)[:, None] % 10 == 0, -1, np.abs(X)).astype(np.float32)
    with pytest.warns(ZeroGradientWarning) as caught:
        featurizer = GradientFeaturizer(network).fit(X)
        featurize(featurizer, X, tmp_path, rows_per_shard=10)
    assert ["11 of 103" in str(warning.message) for warning in caught] == [True]


# Interrupted stores, and stores of something else.


def test_only_missing_shards_are_computed(featurizer, X, store):
    expected = store[:]
    files(store.folder)[4].unlink()
    before = {path: path.stat().st_mtime_ns for path in files(store.folder)}
    with pytest.raises(FeatureStoreError, match="unfinished: 1 of 11 shards are missing"):
        FeatureStore(store.folder)
    written = featurize(featurizer, X, store.folder, rows_per_shard=10)
    np.testing.assert_allclose(written, expected, atol=1e-6)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def make_other_network(featurizer, X):
    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    return {"featurizer": GradientFeaturizer(network, n_components=FEATURES).fit(X)}


def alter(X):
    X = X.copy()
    X[77, 1] += 1
    return X


OTHERS = {
    "another network": make_other_network,
    "another featurizer": lambda featurizer, X: {
        "featurizer": clone(featurizer).set_params(random_state=1).fit(X)
    },
    "other data": lambda featurizer, X: {"X": alter(X)},
    "another number of samples": lambda featurizer, X: {"X": X[:-1]},
    "another number of features": lambda featurizer, X: {
        "featurizer": clone(featurizer).set_params(n_components=5).fit(X)
    },
    "another dtype": lambda featurizer, X: {"dtype": "float16"},
    "another number of rows per shard": lambda featurizer, X: {"rows_per_shard": 11},
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_store_of_something_else_raises_an_error(featurizer, X, store, other):
    wanted = {"featurizer": featurizer, "X": X, "rows_per_shard": 10}
    wanted |= OTHERS[other](featurizer, X)
    with pytest.raises(FeatureStoreError, match=other):
        featurize(folder=store.folder, **wanted)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def spoil_header(path):
    path.write_bytes(b"\0" + path.read_bytes()[1:])


def replace(path):
    np.save(path, np.zeros((3, FEATURES), np.float32))


DAMAGES = {
    truncate: "it is truncated to 408 of 448 bytes",
    flip: "its bytes are not those that were written",
    spoil_header: "it cannot be read",
    replace: r"it contains float32 of shape \(3, 8\)",
    lambda path: path.write_bytes(b""): "it is truncated to 0 of 448 bytes",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=range(len(DAMAGES)))
def test_a_damaged_shard_raises_an_error_with_the_reason(store, damage):
    damage(files(store.folder)[2])
    assert store[:20].shape == (20, FEATURES)
    with pytest.raises(FeatureStoreError, match=f"shard '00000002.*{DAMAGES[damage]}"):
        store[25]
    with pytest.raises(FeatureStoreError, match="shard '00000002"):
        NetworkDensity("features").fit(store)


SPOILT = ["", "{}", '{"network": 1', "[]"]


@pytest.mark.parametrize("content", SPOILT)
def test_a_damaged_manifest_raises_an_error(store, content):
    (store.folder / "manifest.json").write_text(content)
    with pytest.raises(FeatureStoreError, match="damaged manifest"):
        FeatureStore(store.folder)


@pytest.mark.parametrize(
    ("name", "value"), [("rows_per_shard", 0), ("n_samples", "x"), ("dtype", 1)]
)
def test_invalid_values_in_a_manifest_raise_an_error(store, name, value):
    path = store.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(FeatureStoreError, match="damaged manifest"):
        FeatureStore(store.folder)


def test_another_format_raises_an_error(store):
    path = store.folder / "manifest.json"
    values = json.loads(path.read_text()) | {"format": 1}
    del values["digest"]
    path.write_text(json.dumps(values))
    with pytest.raises(FeatureStoreError, match="must have format 2; got 1"):
        FeatureStore(store.folder)


def test_no_flipped_bit_changes_a_manifest(store):
    path = store.folder / "manifest.json"
    content, unnoticed = path.read_bytes(), []
    for position in range(len(content)):
        path.write_bytes(flip_bit(content, position, position % 8))
        try:
            unnoticed.append(FeatureStore(store.folder).manifest == store.manifest)
        except FeatureStoreError as error:
            assert "damaged manifest" in str(error)
    assert all(unnoticed)


def flip_bit(content, position, bit):
    damaged = bytearray(content)
    damaged[position] ^= 1 << bit
    return bytes(damaged)


def test_no_flipped_bit_changes_a_shard(store):
    path, expected = files(store.folder)[0], store[:10]
    content, unnoticed = path.read_bytes(), []
    for position in range(len(content)):
        path.write_bytes(flip_bit(content, position, position % 8))
        try:
            unnoticed.append(np.array_equal(FeatureStore(store.folder)[:10], expected))
        except FeatureStoreError as error:
            assert "damaged shard '00000000" in str(error)
    assert all(unnoticed)


def test_a_deleted_manifest_is_written_anew(featurizer, X, store):
    before = {path: path.stat().st_mtime_ns for path in files(store.folder)}
    (store.folder / "manifest.json").unlink()
    written = featurize(featurizer, X, store.folder, rows_per_shard=10)
    assert written.manifest == store.manifest
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_shards_of_other_data_under_a_new_manifest_raise_an_error(featurizer, X, store):
    (store.folder / "manifest.json").unlink()
    written = featurize(featurizer, alter(X), store.folder, rows_per_shard=10)
    with pytest.raises(FeatureStoreError, match="not those that were written for this store"):
        written[0]


def test_a_missing_shard_of_an_open_store_raises_an_error(store):
    files(store.folder)[2].unlink()
    with pytest.raises(FeatureStoreError, match="got none with the name '00000002-"):
        store[25]
    with pytest.raises(FeatureStoreError, match="unfinished: 1 of 11 shards are missing"):
        FeatureStore(store.folder)


# Moved and read-only stores.


def test_a_moved_store_can_be_opened_and_resumed(featurizer, X, store, tmp_path):
    expected = store[:]
    moved = store.folder.rename(tmp_path / "moved")
    np.testing.assert_array_equal(FeatureStore(moved), expected)
    assert featurize(featurizer, X, moved, rows_per_shard=10).folder == moved


def test_an_open_store_that_was_moved_raises_an_error(store, tmp_path):
    store.folder.rename(tmp_path / "moved")
    with pytest.raises(FeatureStoreError, match="which was moved, renamed or deleted"):
        store[3]
    with pytest.raises(FeatureStoreError, match=r"which is no folder.*if it was moved, its new"):
        FeatureStore(store.folder)


def test_a_pickle_of_a_moved_store_raises_an_error_until_it_is_linked(store, tmp_path):
    data, expected = pickle.dumps(NetworkDensity("features").fit(store)), store[:]
    moved = store.folder.rename(tmp_path / "moved")
    with pytest.raises(FeatureStoreError, match="moved, renamed or deleted, or is on another mac"):
        pickle.loads(data)
    store.folder.symlink_to(moved)
    scores = NetworkDensity("features").fit(expected).score_samples(expected)
    np.testing.assert_allclose(pickle.loads(data).score_samples(expected), scores, atol=1e-6)


@pytest.fixture
def read_only(monkeypatch):
    """Any attempt to write fails, as in a read-only file system, also for the superuser."""

    def refuse(path, flags, *args, **kwargs):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return open_file(path, flags, *args, **kwargs)

    def refuse_folder(path, *args, **kwargs):
        if not os.path.isdir(path):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        raise FileExistsError(errno.EEXIST, "File exists", str(path))

    open_file = os.open
    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "mkdir", refuse_folder)


def test_a_complete_store_opens_in_a_read_only_folder(featurizer, X, store, read_only):
    expected = featurizer.transform(X)
    np.testing.assert_allclose(FeatureStore(store.folder), expected, atol=1e-6)
    (store.folder / ".lock").unlink(missing_ok=True)
    written = featurize(featurizer, X, store.folder, rows_per_shard=10)
    np.testing.assert_allclose(written, expected, atol=1e-6)
    assert not (store.folder / ".lock").exists()


def test_an_unfinished_store_in_a_read_only_folder_raises_an_error(featurizer, X, store, read_only):
    files(store.folder)[0].unlink()
    with pytest.raises(OSError, match="can write to; got 'Read-only file system'") as caught:
        featurize(featurizer, X, store.folder, rows_per_shard=10)
    assert caught.value.errno == errno.EROFS


def test_a_new_store_in_a_read_only_folder_raises_an_error(featurizer, X, tmp_path, read_only):
    with pytest.raises(OSError, match="Choose another folder, or change its permissions"):
        featurize(featurizer, X, tmp_path / "new", rows_per_shard=10)


def test_another_writer_does_not_stop_the_opening_of_a_complete_store(featurizer, X, store):
    with FileLock(store.folder / ".lock"):
        assert featurize(featurizer, X, store.folder, rows_per_shard=10).shape == store.shape


# A store in another process, with a class that is pickled by value.


PROGRAM = """
import sys
import joblib, numpy as np, sknetsim
store = sknetsim.featurize(joblib.load("featurizer"), np.load("X.npy"), "store", rows_per_shard=10)
np.save("features.npy", store)
"""


@pytest.mark.slow
def test_another_program_continues_a_store_with_a_loaded_featurizer(X, tmp_path):
    class Local(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, X):
            return self.layer(X).tanh()

    featurizer = GradientFeaturizer(Local(), n_components=4, random_state=0).fit(X)
    files(featurize(featurizer, X, tmp_path / "store", rows_per_shard=10).folder)[3].unlink()
    joblib.dump(featurizer, tmp_path / "featurizer")
    np.save(tmp_path / "X.npy", X)
    command = [sys.executable, "-W", "error::UserWarning", "-c", PROGRAM]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    np.testing.assert_allclose(
        np.load(tmp_path / "features.npy"), featurizer.transform(X), atol=1e-6
    )


def test_a_shard_of_another_store_raises_an_error(featurizer, X, store, tmp_path):
    other = featurize(featurizer, alter(X), tmp_path / "other", rows_per_shard=10)
    for path in files(store.folder)[:1]:
        path.unlink()
    shutil.copy(files(other.folder)[0], store.folder)
    with pytest.raises(FeatureStoreError, match="not those that were written for this store"):
        FeatureStore(store.folder)[0]


def test_other_files_beside_the_shards_are_ignored(store):
    (store.folder / "features-all.npy").touch()
    assert FeatureStore(store.folder)[:].shape == store.shape


def test_only_one_program_can_write_at_a_time(featurizer, X, store):
    files(store.folder)[0].unlink()
    with (
        open_for_writing(store.folder, store.manifest),
        pytest.raises(FeatureStoreError, match="is being written by another program"),
    ):
        featurize(featurizer, X, store.folder, rows_per_shard=10)
    featurize(featurizer, X, store.folder, rows_per_shard=10)


def test_an_error_releases_the_lock_even_if_its_traceback_is_kept(featurizer, X, store):
    with pytest.raises(KeyError) as kept, open_for_writing(store.folder, store.manifest):
        raise KeyError("stopped")
    with open_for_writing(store.folder, store.manifest) as shards:
        assert shards.missing == []
    assert kept.value is not None


class Centred(nn.Module):
    """Network that mixes its samples."""

    def __init__(self):
        super().__init__()
        self.network = nn.Linear(3, 1)

    def forward(self, X):
        return self.network(X - X.mean(dim=0))


def test_networks_that_mix_samples_raise_an_error_even_row_by_row(X, tmp_path):
    featurizer = GradientFeaturizer(Centred()).fit(X[:1])
    with pytest.raises(UnsupportedNetworkError):
        featurize(featurizer, X, tmp_path, rows_per_shard=1)


def test_steps_that_mix_samples_raise_an_error(X):
    net = NeuralNetRegressor(nn.Linear, module__in_features=3, module__out_features=1, verbose=0)
    steps = FunctionTransformer(lambda rows: rows - rows.mean(axis=0))
    featurizer = GradientFeaturizer(make_pipeline(steps, net).fit(X, X[:, :1]))
    with pytest.raises(
        UnsupportedNetworkError,
        match="got steps whose result for a sample on its own differs from that",
    ):
        featurizer.fit(X)


@pytest.mark.parametrize("folder", [None, 3], ids=str)
def test_invalid_folders_raise_an_error(featurizer, X, folder):
    with pytest.raises(TypeError, match=f"`folder` must be a name or a path; got {folder}. Pass"):
        featurize(featurizer, X, folder)


@pytest.mark.parametrize(
    "other", [nn.Linear(3, 1), NetworkKernel(), NetworkDensity("features")], ids=range(3)
)
def test_other_estimators_than_featurizers_raise_an_error(X, tmp_path, other):
    with pytest.raises(TypeError, match="`featurizer` must be a fitted GradientFeaturizer; got a"):
        featurize(other, X, tmp_path)


def test_an_unfitted_featurizer_raises_an_error(X, tmp_path):
    with pytest.raises(NotFittedError):
        featurize(GradientFeaturizer(nn.Linear(3, 1)), X, tmp_path)


def test_scikit_learn_can_split_a_store(store):
    actual = cross_val_score(NetworkDensity("features"), store, cv=3)
    expected = cross_val_score(NetworkDensity("features"), store[:], cv=3)
    np.testing.assert_allclose(actual, expected, atol=1e-9)
    np.testing.assert_array_equal(store[3:9, 2], store[:][3:9, 2])


def test_folders_with_other_files_raise_an_error(featurizer, X, tmp_path):
    (tmp_path / "photo.png").touch()
    (tmp_path / ".thesis.unfinished").touch()
    with pytest.raises(FeatureStoreError, match="is a file or contains other files"):
        featurize(featurizer, X, tmp_path)
    with pytest.raises(FeatureStoreError, match="is a file or contains other files"):
        featurize(featurizer, X, tmp_path / "photo.png")
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(FeatureStoreError, match=r"no manifest\.json"):
        FeatureStore(tmp_path)


BAD = {
    "dtype": ({"dtype": "float64"}, "`dtype` must be one of 'float32', 'float16'; got 'float64'"),
    "no rows": ({"rows_per_shard": 0}, "`rows_per_shard` must be .*; got 0"),
    "truth": ({"rows_per_shard": True}, "`rows_per_shard` must be .*; got True"),
    "half a row": ({"rows_per_shard": 2.5}, r"`rows_per_shard` must be .*; got 2\.5"),
    "other width": ({"X": np.zeros((4, 2), np.float32)}, "3 features"),
    "not finite": ({"X": np.full((4, 3), np.nan, np.float32)}, "NaN"),
}


@pytest.mark.parametrize("bad", BAD)
def test_invalid_input_leaves_no_folder(featurizer, X, tmp_path, bad):
    wanted, message = BAD[bad]
    with pytest.raises(ValueError, match=message):
        featurize(**{"featurizer": featurizer, "X": X, "folder": tmp_path / "new"} | wanted)
    assert not (tmp_path / "new").exists()


def test_a_pickle_contains_only_the_path_of_the_folder(store):
    density = NetworkDensity("features").fit(store)
    twin = pickle.loads(pickle.dumps(density))
    np.testing.assert_array_equal(twin.score_samples(store), density.score_samples(store))
    assert len(pickle.dumps(store)) < 2000


def test_a_pickle_of_a_replaced_store_raises_an_error(featurizer, X, store):
    kept = pickle.dumps(store)
    for path in store.folder.iterdir():
        path.unlink()
    featurize(featurizer, alter(X), store.folder, rows_per_shard=10)
    with pytest.raises(FeatureStoreError, match="features of other data"):
        pickle.loads(kept)


# A full disk.


def test_a_store_beyond_the_free_disk_raises_an_error_at_once(featurizer, X, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 2**10})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match="has 0 MiB left; it needs 0 MiB more") as caught:
        featurize(featurizer, X, tmp_path)
    assert caught.value.errno == errno.ENOSPC


def test_finished_shards_stay_if_the_disk_fills_up(featurizer, X, tmp_path, monkeypatch):
    room = 3

    def write(path, content):
        nonlocal room
        room -= 1
        path.write_bytes(content if room >= -1 else content[:50])
        if room < -1:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("sknetsim._features.shards._write", write)
        with pytest.raises(OSError, match=r"rows 30 to 40 .*No space.*3 of 11 shards are finished"):
            featurize(featurizer, X, tmp_path, rows_per_shard=10)
    assert len(files(tmp_path)) == 3 and not list(tmp_path.glob(".*.unfinished"))
    before = {path: path.stat().st_mtime_ns for path in files(tmp_path)}
    written = featurize(featurizer, X, tmp_path, rows_per_shard=10)
    np.testing.assert_allclose(written, featurizer.transform(X), atol=1e-6)
    assert {path: path.stat().st_mtime_ns for path in before} == before


# Killed programs.


@dataclass(frozen=True)
class Slow:
    """Slow projection, which logs each start."""

    projection: Any
    log: str

    def transform(self, source, X, verbose=0):
        with open(self.log, "a") as log:
            log.write("started\n")
        time.sleep(0.005)
        return self.projection.transform(source, X, verbose)


def write_store(featurizer, X, folder):
    torch.set_num_threads(1)
    featurize(featurizer, X, folder, rows_per_shard=1)


def test_killed_programs_lose_only_the_shard_in_progress(featurizer, X, tmp_path):
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["tests.estimators.test_store"])
    log, folder, delays = tmp_path / "log", tmp_path / "store", np.random.default_rng()
    expected = featurizer.transform(X)
    featurizer._projection = Slow(featurizer._projection, str(log))
    kills, finished = 0, {}
    while kills < 20:
        process = server.Process(target=write_store, args=(featurizer, X, folder))
        process.start()
        process.join(delays.uniform(0.01, 0.15))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
        present = {path: path.stat().st_mtime_ns for path in files(folder)}
        assert finished.items() <= present.items()
        finished = present
    np.testing.assert_allclose(
        featurize(featurizer, X, folder, rows_per_shard=1), expected, atol=1e-6
    )
    assert len(log.read_text().split()) <= len(files(folder)) + kills
    assert not list(folder.glob(".*.unfinished"))


# Estimators.


def fit_and_call(estimator, X, y):
    if isinstance(estimator, ActiveLearningSampler):
        return estimator.fit(X[:20], y[:20]).query(X, n_queries=5)
    if isinstance(estimator, NetworkNeighbors):
        return estimator.fit(X).kneighbors()[0]
    if isinstance(estimator, LabelDenoiser):
        return estimator.fit(X, y).transform(X)
    if isinstance(estimator, NetworkKernel):
        return estimator(X)
    if isinstance(estimator, GradientFeaturizer):
        return estimator.fit_transform(X)
    return estimator.fit(X).score_samples(X)


ESTIMATORS = {
    "soft density": NetworkDensity("features"),
    "threshold density": NetworkDensity("features", method="threshold", threshold=0.5),
    "power density": NetworkDensity("features", method="power"),
    "density by fewer features": NetworkDensity("features", n_components=4, random_state=0),
    "neighbors": NetworkNeighbors("features"),
    "re-ranked neighbors": NetworkNeighbors(
        "features", n_components=4, n_candidates=9, random_state=0
    ),
    "kernel": NetworkKernel("features"),
    "fewer features": GradientFeaturizer("features", n_components=4, random_state=0),
    "denoiser": LabelDenoiser("features"),
    "sampler": ActiveLearningSampler("features", strategy="maxdet", random_state=0),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_give_the_same_results_for_a_store_as_for_an_array(store, name):
    y = np.random.default_rng(1).standard_normal(SAMPLES)
    actual = fit_and_call(clone(ESTIMATORS[name]), store, y)
    np.testing.assert_allclose(
        actual, fit_and_call(clone(ESTIMATORS[name]), store[:], y), atol=1e-6
    )


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_never_read_all_of_a_store(store, monkeypatch, name):
    y, read = np.random.default_rng(1).standard_normal(SAMPLES), []
    take = FeatureStore.__getitem__
    monkeypatch.setattr("sknetsim._features.source.FeatureSource._CHUNK_SAMPLES", 16)
    monkeypatch.setattr("sknetsim._networks.samples.samples._CHECKED_SAMPLES", 16)
    monkeypatch.setattr("sknetsim._networks.fingerprint._DIGESTED_SAMPLES", 16)
    monkeypatch.setattr("sknetsim.estimators.density._DIMENSION_ROWS", 16)
    monkeypatch.setattr("sknetsim._features.nystroem._LEAST_CANDIDATES", 16)
    monkeypatch.setattr(FeatureStore, "__array__", None)

    def record(self, rows):
        features = take(self, rows)
        read.append(len(np.atleast_2d(features)))
        return features

    monkeypatch.setattr(FeatureStore, "__getitem__", record)
    fit_and_call(clone(ESTIMATORS[name]), store, y)
    assert max(read) <= 50
