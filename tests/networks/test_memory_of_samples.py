"""The memory of X, which the steps of a Pipeline and the network never get."""

import copy

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from skorch import NeuralNetRegressor
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from sknetsim import (
    ActiveLearningSampler,
    GradientFeaturizer,
    LabelDenoiser,
    NetworkDensity,
    NetworkKernel,
    NetworkNeighbors,
    PerceptualKernel,
    UnsupportedNetworkError,
)
from sknetsim._networks.samples import Samples
from sknetsim._networks.samples.arrays import copy_arrays, map_arrays

X = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32) + 3
y = X[:, :2]


def make_net():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    return FrozenEstimator(NeuralNetRegressor(module).initialize())


def double_in_place(X):
    X *= 2
    return X


def double_values_in_place(X):
    X.data *= 2
    return X.toarray()


def double_table_in_place(X):
    X.iloc[:, :] *= 2
    return X.to_numpy()


def double_first_in_place(X):
    X[0][:] *= 2
    return X[0]


def double_named_in_place(X):
    X["x"][:] *= 2
    return X.pop("x")


CHANGING = {
    "array": (X, double_in_place),
    "Fortran order": (np.asfortranarray(X), double_in_place),
    "view": (np.hstack([X, X])[:, :4], double_in_place),
    "tensor": (torch.from_numpy(X.copy()), double_in_place),
    "tensor with a graph": (torch.from_numpy(X.copy()).requires_grad_() * 1, double_in_place),
    "sparse": (sp.csr_array(X), double_values_in_place),
    "table": (pd.DataFrame(X), double_table_in_place),
    "tuple": ((torch.from_numpy(X.copy()),), double_first_in_place),
    "tuple of arrays": ((X.copy(),), double_first_in_place),
    "dict": ({"x": torch.from_numpy(X.copy())}, double_named_in_place),
}
changing = pytest.mark.parametrize(("form", "step"), CHANGING.values(), ids=CHANGING)


def to_array(form):
    """Return a copy of the values of X in a form."""
    if isinstance(form, dict | tuple):
        form = form["x"] if isinstance(form, dict) else form[0]
    form = form.detach() if isinstance(form, torch.Tensor) else form
    return np.asarray(form.toarray() if sp.issparse(form) else form).copy()


@changing
def test_steps_that_change_x_in_place_change_a_copy(form, step):
    before = to_array(form)
    net = make_net()
    kernel = NetworkKernel(make_pipeline(FunctionTransformer(step), net))
    expected = NetworkKernel(net)(2 * before)
    for _ in range(2):
        np.testing.assert_allclose(kernel(form), expected, atol=1e-6)
    np.testing.assert_array_equal(to_array(form), before)


ESTIMATORS = {
    "density": (NetworkDensity(method="power", dimension=2.0), "score_samples"),
    "neighbours": (NetworkNeighbors(n_neighbors=3), "kneighbors"),
    "kernel": (NetworkKernel(), "transform"),
    "activations": (PerceptualKernel(), "transform"),
    "features": (GradientFeaturizer(), "transform"),
    "landmarks": (GradientFeaturizer(n_components=4, random_state=0), "transform"),
    "sampler": (ActiveLearningSampler(strategy="lcmd", random_state=0), "query"),
    "denoiser": (LabelDenoiser(), "predict"),
}


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize(("estimator", "method"), ESTIMATORS.values(), ids=ESTIMATORS)
def test_a_scaler_without_copy_gives_the_results_of_one_with_copy(estimator, method, n_jobs):
    net, given = make_net(), X.copy()

    def compute(copied):
        scaler = StandardScaler(copy=copied)
        scaler.fit(X.copy())
        pipeline = make_pipeline(scaler, net)
        fitted = estimator.set_params(estimator=pipeline, n_jobs=n_jobs).fit(given, y)
        return [getattr(fitted, method)(given) for _ in range(2)]

    with joblib.parallel_config("threading"):
        np.testing.assert_array_equal(np.array(compute(False)), np.array(compute(True)))
    np.testing.assert_array_equal(given, X)


def test_an_untrained_pipeline_that_changes_x_is_trained_on_a_copy():
    def fit(copied):
        torch.manual_seed(0)
        net = NeuralNetRegressor(nn.Linear(4, 2), max_epochs=2, train_split=None, verbose=0)
        pipeline = make_pipeline(StandardScaler(copy=copied), net)
        given = X.copy()
        fitted = NetworkKernel(pipeline).fit(given, y)
        np.testing.assert_array_equal(given, X)
        return fitted.transform(given)

    np.testing.assert_array_equal(fit(False), fit(True))


def test_steps_must_return_one_row_per_sample():
    pipeline = make_pipeline(FunctionTransformer(lambda X: X[:3]), make_net())
    with pytest.raises(UnsupportedNetworkError, match="one row per sample; got 3 rows for"):
        NetworkKernel(pipeline)(X)


class Views(Dataset):
    """Dataset whose items are views of one tensor, or of one array."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


ADDRESSES = []


class Recording(nn.Module):
    """A network that records the address of its input."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        ADDRESSES.append(x.untyped_storage().data_ptr())
        return self.layer(x.reshape(len(x), 4))


def list_arrays(form):
    """Return the arrays that X consists of."""
    if isinstance(form, Views):
        return [form.rows]
    if isinstance(form, TensorDataset):
        return list(form.tensors)
    arrays = []
    map_arrays(arrays.append, form)
    return arrays


def get_address(array):
    """Return the address of the memory of an array."""
    if isinstance(array, torch.Tensor):
        return array.untyped_storage().data_ptr()
    array = array.to_numpy() if hasattr(array, "to_numpy") else array
    return (array if array.base is None else array.base).__array_interface__["data"][0]


FORMS = {
    "array": X,
    "tensor": torch.from_numpy(X),
    "table": pd.DataFrame(X),
    "dict": {"x": torch.from_numpy(X)},
    "tuple": (X,),
    "dataset": TensorDataset(torch.from_numpy(X)),
    "views of a tensor": Views(torch.from_numpy(X)),
    "views of an array": Views(X),
}


@pytest.mark.parametrize("batch_size", [1, 5, None])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_network_gets_no_memory_of_x(form, batch_size):
    addresses = {get_address(array) for array in list_arrays(form)}
    ADDRESSES.clear()
    for kernel in (NetworkKernel(Recording()), PerceptualKernel(Recording())):
        kernel.set_params(batch_size=batch_size).fit(form).transform(form)
    assert ADDRESSES
    assert addresses.isdisjoint(ADDRESSES)


@pytest.mark.parametrize("form", [X, torch.from_numpy(X)], ids=["array", "tensor"])
def test_the_network_gets_no_memory_of_reshaped_x(form):
    ADDRESSES.clear()
    NetworkKernel(Recording(), input_shape=(2, 2)).fit(form).transform(form)
    assert ADDRESSES
    assert get_address(form) not in ADDRESSES


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    "take",
    [
        lambda samples: samples.take(slice(0, 1)),
        lambda samples: samples.take(slice(None)),
        lambda samples: samples.at([2]),
        lambda samples: samples.select([1, 2]).take(slice(None)),
        lambda samples: samples.part(slice(2, 5)).take(slice(None)),
    ],
    ids=["take", "all", "at", "select", "part"],
)
def test_batches_may_be_changed(form, take):
    batch = take(Samples(form))
    map_arrays(lambda tensor: tensor.zero_(), batch)
    np.testing.assert_array_equal(np.array(X), X)
    for array in list_arrays(form):
        assert np.all(np.asarray(array) != 0)


@changing
def test_copied_arrays_have_their_own_memory_and_type(form, step):
    before = to_array(form)
    copied = copy_arrays(form)
    assert type(copied) is type(form)
    step(copied)
    np.testing.assert_array_equal(to_array(form), before)


def test_a_dataset_is_not_copied():
    dataset = Views(torch.from_numpy(X))
    assert copy_arrays(dataset) is dataset


def test_items_of_a_dataset_lose_their_autograd_graph():
    rows = torch.from_numpy(X).requires_grad_() * 1
    assert not Samples(Views(rows)).take(slice(None)).requires_grad
    expected = NetworkKernel(make_net())(X)
    np.testing.assert_allclose(NetworkKernel(copy.deepcopy(make_net()))(Views(rows)), expected)
