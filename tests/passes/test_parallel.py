"""Passes by joblib's workers: the same results, errors and warnings as with one worker."""

import contextlib
import logging
import os
import signal
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch import NeuralNetRegressor
from torch import nn
from torch.utils.data import TensorDataset

from sknetsim import (
    FitDiagnostics,
    GradientFeaturizer,
    LabelDenoiser,
    NetworkDensity,
    NetworkKernel,
    NetworkNeighbors,
    PerceptualKernel,
    SoftmaxOutputWarning,
    UnsupportedNetworkError,
    ZeroGradientWarning,
    featurize,
)
from sknetsim._networks.samples import Samples
from sknetsim._passes import parallel
from sknetsim._passes.parallel import (
    map_samples,
    relative_slice,
    run_tasks,
    split_evenly,
)

SAMPLES = 60


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("dask.distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
    )
    with cluster, distributed.Client(cluster) as client:
        yield client


@pytest.fixture(params=["loky", "threading", "dask"])
def backend(request):
    if request.param == "dask":
        # Other tests may have killed workers.
        request.getfixturevalue("cluster").wait_for_workers(2)
    with joblib.parallel_config(backend=request.param, n_jobs=2):
        yield request.param


@pytest.fixture
def X():
    return np.random.default_rng(0).standard_normal((SAMPLES, 5))


def perceptron(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2), *layers).double()


def labels(X):
    return np.stack([X[:, 0] > 0, X[:, 1]], axis=1)


def make_trained_net(network):
    return NeuralNetRegressor(network).initialize()


def concatenate(arrays):
    return np.concatenate(list(arrays))


QUANTITIES = {
    "exact features": lambda net, X: GradientFeaturizer(net).fit_transform(X),
    "landmarks": lambda net, X: GradientFeaturizer(
        net, n_components=9, random_state=0
    ).fit_transform(X),
    "sketch": lambda net, X: GradientFeaturizer(
        net, n_components=50, method="sketch", random_state=0
    ).fit_transform(X),
    "features at labels": lambda net, X: GradientFeaturizer(
        make_trained_net(net), output="loss"
    ).fit_transform(X, labels(X)),
    "gram at labels": lambda net, X: NetworkKernel(make_trained_net(net), output="loss")(
        X, X[:9], y_X=labels(X), y_Y=labels(X[:9])
    ),
    "density at labels": lambda net, X: (
        NetworkDensity(make_trained_net(net), output="loss")
        .fit(X[:40], labels(X[:40]))
        .score_samples(X, labels(X))
    ),
    "soft density": lambda net, X: NetworkDensity(net).fit(X[:40]).score_samples(X),
    "count": lambda net, X: NetworkDensity(net, method="power").fit(X[:40]).score_samples(X),
    "count of the fitted": lambda net, X: (
        NetworkDensity(net, method="threshold", threshold=0.3).fit(X).neighbor_count(X)
    ),
    "reliability": lambda net, X: NetworkDensity(net).fit(X).reliability(X, absolute=True),
    "gram": lambda net, X: NetworkKernel(net)(X),
    "gram, more columns": lambda net, X: NetworkKernel(net)(X[:3], X),
    "gram, more rows": lambda net, X: NetworkKernel(net)(X, X[:3]),
    "rotation": lambda net, X: NetworkKernel(net, metric="rotation")(X),
    "neighbors": lambda net, X: NetworkNeighbors(net).fit(X).kneighbors()[1],
    "neighbors of queries": lambda net, X: NetworkNeighbors(net).fit(X).kneighbors(X[:9])[1],
    "re-ranked neighbors": lambda net, X: (
        NetworkNeighbors(net, n_components=9, n_candidates=20, random_state=0)
        .fit(X)
        .kneighbors(X[:30])[0]
    ),
    "within a radius": lambda net, X: concatenate(
        NetworkNeighbors(net, radius=1).fit(X).radius_neighbors()[1]
    ),
    "means": lambda net, X: LabelDenoiser(net).fit(X, labels(X)).predict(X),
    "factors": lambda net, X: (
        LabelDenoiser(net, method="power").fit(X, labels(X)).denoising().variance_factor
    ),
    "fit": lambda net, X: FitDiagnostics(net).fit(X, labels(X)).label_noise_,
    "activities": lambda net, X: PerceptualKernel(net)(X),
    "rows of features": lambda net, X: (
        NetworkNeighbors("features").fit(GradientFeaturizer(net).fit_transform(X)).kneighbors()[1]
    ),
}


@pytest.mark.parametrize("name", QUANTITIES)
def test_results_are_those_of_one_worker(backend, X, name):
    with joblib.parallel_config(backend="sequential"):
        expected = QUANTITIES[name](perceptron(), X)
    np.testing.assert_allclose(QUANTITIES[name](perceptron(), X), expected, atol=1e-9)


FORMS = {
    "single precision": lambda X, folder: X.astype(np.float32),
    "tensor": lambda X, folder: torch.as_tensor(X),
    "tuple": lambda X, folder: (torch.as_tensor(X),),
    "dataset": lambda X, folder: TensorDataset(torch.as_tensor(X), torch.zeros(len(X))),
    "store": lambda X, folder: featurize(
        GradientFeaturizer(perceptron()).fit(X), X, folder / "store", rows_per_shard=7
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_samples_in_any_form_are_distributed(backend, X, tmp_path, form):
    rows = FORMS[form](X, tmp_path)
    network = "features" if form == "store" else perceptron()
    density, neighbors = NetworkDensity(network), NetworkNeighbors(network)
    with joblib.parallel_config(backend="sequential"):
        expected = density.fit(rows).score_samples(rows)
        nearest = neighbors.fit(rows).kneighbors()[1]
    np.testing.assert_allclose(density.fit(rows).score_samples(rows), expected, atol=1e-6)
    np.testing.assert_array_equal(neighbors.fit(rows).kneighbors()[1], nearest)


def test_more_workers_than_samples_give_the_same_similarities(X):
    with joblib.parallel_config(backend="threading"):
        gram = NetworkKernel(perceptron(), n_jobs=4)(X[:3])
    np.testing.assert_allclose(gram, NetworkKernel(perceptron())(X[:3]), atol=1e-9)


class Watched(nn.Module):
    """Network that records the processes that evaluate and load it, and their threads."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.network = Path(folder), perceptron()

    def forward(self, X):
        thread = f"evaluated-{os.getpid()}-{torch.get_num_threads()}"
        (self.folder / thread).touch()
        return self.network(X)

    def __setstate__(self, state):
        super().__setstate__(state)
        copied = sys._getframe(1).f_code.co_name == "_reconstruct"
        with (self.folder / f"loaded-{os.getpid()}").open("a") as log:
            log.write("" if copied else "once ")


def read_records(folder, what):
    return [path.name.split("-")[1:] for path in folder.glob(f"{what}-*")]


def test_workers_load_the_network_once_and_divide_the_threads(backend, X, tmp_path):
    network = Watched(tmp_path)
    expected = GradientFeaturizer(network).fit(X)
    for path in tmp_path.iterdir():
        path.unlink()
    expected.transform(X)
    processes = {process for process, _ in read_records(tmp_path, "evaluated")}
    threads = {int(count) for _, count in read_records(tmp_path, "evaluated")}
    assert (str(os.getpid()) in processes) == (backend == "threading")
    assert 2 * max(threads) <= max(2, os.cpu_count())
    loads = sum(len(path.read_text().split()) for path in tmp_path.glob("loaded-*"))
    assert 1 <= loads <= 2


def test_zero_gradients_are_reported_once(backend, X):
    network = nn.Sequential(nn.ReLU(), nn.Linear(5, 1, bias=False)).double()
    X = np.where(np.arange(SAMPLES)[:, None] % 10 == 0, -1, np.abs(X))
    density = NetworkDensity(network)
    with pytest.warns(ZeroGradientWarning) as caught:
        density.fit(X)
        NetworkKernel(network)(X)
        NetworkKernel(network)(X[:30], X)
    numbers = [str(warning.message).split(" samples")[0] for warning in caught]
    assert numbers == ["6 of 60", "6 of 60", "3 of 30"]


def test_warnings_of_workers_are_issued_once(backend, X):
    with pytest.warns(SoftmaxOutputWarning) as caught:
        NetworkKernel(perceptron(nn.Softmax(dim=1)), n_jobs=2)(X)
    assert [warning.filename for warning in caught] == [__file__]


def test_one_progress_bar_shows_all_workers(X, capsys):
    NetworkDensity(perceptron(), n_jobs=2, verbose=1).fit(X).score_samples(X)
    NetworkKernel(perceptron(), n_jobs=2, verbose=1)(X)
    shown = capsys.readouterr().err
    assert shown.count("60/60") >= 2 and "3.60k/3.60k" in shown


class Failing(nn.Module):
    """Network that raises an error for a sample that contains 7."""

    def __init__(self):
        super().__init__()
        self.network = perceptron()

    def forward(self, X):
        if (X == 7).any():
            raise ZeroDivisionError("seven")
        return self.network(X)


# An error and a killed worker end the processes of joblib, so these tests come after the others.
def test_errors_of_workers_are_raised(backend, X):
    X[33] = 7
    with pytest.raises(ZeroDivisionError, match="seven"):
        NetworkKernel(Failing())(X)


class Unpicklable(Failing):
    """Network that cannot be pickled."""

    def __reduce_ex__(self, protocol):
        raise TypeError("not this one")


def test_networks_that_cannot_be_pickled_raise_an_error_with_the_cure(X):
    with pytest.raises(TypeError, match=r"cannot be pickled; .*not this one.* Set n_jobs=1"):
        NetworkKernel(Unpicklable(), n_jobs=2)(X)


def test_parametrized_networks_cannot_be_pickled(X):
    network = torch.nn.utils.parametrizations.spectral_norm(nn.Linear(5, 2).double())
    with pytest.raises(TypeError, match="Set n_jobs=1"):
        NetworkKernel(network, n_jobs=2)(X)


class Centred(nn.Module):
    """Network that mixes its samples."""

    def __init__(self):
        super().__init__()
        self.network = perceptron()

    def forward(self, X):
        return self.network(X - X.mean(dim=0))


@pytest.mark.parametrize("count", [2, 3, 8])
def test_networks_that_mix_samples_raise_an_error_for_any_number_of_samples(X, count):
    with joblib.parallel_config(backend="threading"), pytest.raises(UnsupportedNetworkError):
        NetworkKernel(Centred(), n_jobs=4)(X[:count])


def test_steps_that_mix_samples_raise_an_error(X):
    steps = FunctionTransformer(lambda rows: rows - rows.mean(axis=0))
    pipeline = make_pipeline(steps, make_trained_net(perceptron()))
    with (
        joblib.parallel_config(backend="threading"),
        pytest.raises(UnsupportedNetworkError, match="must transform each sample independently"),
    ):
        NetworkKernel(pipeline, n_jobs=2)(X)
    with (
        joblib.parallel_config(backend="threading"),
        pytest.raises(UnsupportedNetworkError, match="must transform each sample independently"),
    ):
        NetworkKernel(pipeline, n_jobs=2)(X[:1], X)


def test_the_number_of_threads_is_restored_after_an_error(X):
    torch.set_num_threads(2)
    X[33] = 7
    with joblib.parallel_config(backend="threading"), pytest.raises(ZeroDivisionError) as kept:
        NetworkKernel(Failing(), n_jobs=2)(X)
    assert torch.get_num_threads() == 2 and kept.value is not None


def test_only_a_few_tasks_per_worker_are_made_in_advance(X):
    source, started = GradientFeaturizer(perceptron(), n_jobs=2).fit(X)._make_source(), []
    pieces = [slice(row, row + 2) for row in range(0, SAMPLES, 2)]

    def tasks():
        for piece in pieces:
            started.append(piece)
            yield (X[piece],)

    with joblib.parallel_config(backend="threading"):
        reports = run_tasks(count_rows, (source,), tasks(), 2)
        next(reports)
        reports.close()
    assert len(started) == 8


def count_rows(source, rows):
    return len(rows)


def test_workers_free_a_network_that_is_not_used(X, monkeypatch):
    monkeypatch.setattr(parallel, "_KEPT_SECONDS", 0.05)
    monkeypatch.setattr(parallel, "_shared_cache", parallel._SharedCache())
    with joblib.parallel_config(backend="threading"):
        NetworkKernel(perceptron(), n_jobs=2)(X)
    deadline = time.monotonic() + 10
    while len(parallel._shared_cache) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(parallel._shared_cache) == 0


class Mortal(nn.Module):
    """Network that kills the first worker that evaluates it."""

    def __init__(self, mark):
        super().__init__()
        self.mark, self.home, self.network = Path(mark), os.getpid(), perceptron()

    def forward(self, X):
        if os.getpid() != self.home:
            with contextlib.suppress(FileNotFoundError):
                self.mark.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
        return self.network(X)


@pytest.mark.parametrize("backend", ["loky", "dask"], indirect=True)
def test_the_tasks_of_a_killed_worker_are_repeated(backend, X, tmp_path):
    expected = NetworkDensity(perceptron()).fit(X).score_samples(X)
    density = NetworkDensity(Mortal(tmp_path / "mark")).fit(X)
    (tmp_path / "mark").touch()
    np.testing.assert_allclose(density.fit(X).score_samples(X), expected, atol=1e-9)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("backend", ["loky", "dask"], indirect=True)
def test_a_store_is_complete_if_a_worker_is_killed(backend, X, tmp_path):
    featurizer = GradientFeaturizer(Mortal(tmp_path / "mark")).fit(X)
    (tmp_path / "mark").touch()
    store = featurize(featurizer, X, tmp_path / "store", rows_per_shard=7)
    expected = GradientFeaturizer(perceptron()).fit(X).transform(X)
    np.testing.assert_allclose(store, expected, atol=1e-6)
    assert not (tmp_path / "mark").exists()


class Deadly(Mortal):
    """Network that kills each worker that evaluates it."""

    def forward(self, X):
        if os.getpid() != self.home:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.network(X)


def test_a_network_that_kills_each_worker_raises_an_error(X, tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "_LOSSES", 1)
    with pytest.raises(Exception, match="unexpectedly terminated"):
        NetworkKernel(Deadly(tmp_path / "mark"), n_jobs=2)(X)


@pytest.mark.parametrize("bad", [0, 1.5, "two"], ids=str)
def test_invalid_numbers_of_workers_raise_an_error(X, bad):
    with pytest.raises(ValueError, match="n_jobs"):
        NetworkDensity(perceptron(), n_jobs=bad).fit(X)


@pytest.mark.parametrize("count", [1, 2, 7, 60, 99])
def test_slices_have_nearly_equal_lengths(count):
    parts = split_evenly(SAMPLES, count)
    lengths = [part.stop - part.start for part in parts]
    assert sum(lengths) == SAMPLES and len(parts) == min(count, SAMPLES // 2)
    assert min(lengths) >= 2 and max(lengths) - min(lengths) <= 1


class Doubling:
    """Source of the values of samples, for passes without a network."""

    def __init__(self, n_jobs):
        self.n_jobs = n_jobs

    def check_samples_independent(self, X):
        pass


def add_and_double(source, X, aligned, fixed, verbose):
    return 2 * (X.take(slice(0, len(X))).numpy() + aligned[:, None]) + fixed


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("pieces", [None, [slice(0, 7), slice(9, 20)]], ids=["all", "some"])
def test_mapped_pieces_are_in_order_with_the_aligned_rows(X, n_jobs, pieces):
    aligned, fixed = np.arange(SAMPLES), 3.0
    with joblib.parallel_config(backend="threading"):
        results = list(
            map_samples(
                add_and_double, Doubling(n_jobs), Samples(X), (aligned,), (fixed,), 0, pieces
            )
        )
    expected = 2 * (X + aligned[:, None]) + fixed
    rows = [row for piece, _ in results for row in range(SAMPLES)[piece]]
    assert rows == [row for piece in pieces or [slice(None)] for row in range(SAMPLES)[piece]]
    for piece, result in results:
        np.testing.assert_allclose(result, expected[piece])


def test_a_relative_slice_selects_the_same_rows():
    rows = list(range(20))
    part, whole = slice(7, 9), slice(5, 12)
    assert rows[whole][relative_slice(part, whole)] == rows[part]
