"""X that is no set of samples: errors that name X and say what to pass."""

import types

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from sknetsim import (
    ActiveLearningSampler,
    GradientFeaturizer,
    NetworkDensity,
    NetworkKernel,
    NetworkNeighbors,
    PerceptualKernel,
    UnsupportedNetworkError,
)
from sknetsim._networks.isolation import check_device


class Items(Dataset):
    """Dataset of the given items."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


network = nn.Linear(4, 2)
X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)

AXES = "must have the samples on its first axis; got a {} without axes"
NUMBERS = r"must contain floating-point, integer or boolean numbers; got {}"
SHAPE = r"must contain rows of one shape; got .*Pad them, or pass a Dataset.*batch_size=1"
REFUSED = {
    "none": (None, "`X` must be given; got None"),
    "none in a dict": ({"input": None}, "`X` must be given; got None"),
    "number": (3.0, AXES.format("float")),
    "0-d array": (np.array(3.0), AXES.format("ndarray")),
    "0-d tensor": (torch.tensor(3.0), AXES.format("Tensor")),
    "0-d tensor in a tuple": ((torch.tensor(3.0),), AXES.format("Tensor")),
    "text": ("abc", AXES.format("str")),
    "set": ({1, 2}, AXES.format("set")),
    "texts": (["a", "b"], NUMBERS.format("(dtype|<U1)")),
    "table of texts": (np.array([["1", "2"]]), NUMBERS.format("(dtype|<U1)")),
    "texts in a dict": ({"input": ["a", "b"]}, NUMBERS.format("<U1")),
    "objects": (np.array([["a", 1]], dtype=object), NUMBERS.format("object")),
    "dates": (np.array([["2020-01-01"]], dtype="M8[D]"), NUMBERS.format("datetime64")),
    "ragged ids": ([[1, 2], [3]], SHAPE),
    "ragged arrays": ([np.ones(2), np.ones(3)], SHAPE),
    "ragged tensors": ([torch.ones(2), torch.ones(3)], SHAPE),
    "ragged objects": (np.array([[1, 2], [3]], dtype=object), SHAPE),
    "ragged inside": ([[[1, 2], [3]], [[1, 2], [4]]], SHAPE),
    "ragged in a dict": ({"input": [[1, 2], [3]]}, SHAPE),
    "ragged in a tuple": (([[1, 2], [3]],), SHAPE),
    "nested tensor": (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), SHAPE),
    "sparse tensor": (torch.eye(4).to_sparse(), r"dense tensor; got .*sparse.*X\.to_dense\(\)"),
    "compressed tensor": (torch.eye(4).to_sparse_csr(), r"dense tensor; got .*X\.to_dense\(\)"),
    "quantized tensor": (
        torch.quantize_per_tensor(torch.eye(4), 0.1, 0, torch.qint8),
        NUMBERS.format("torch.qint8"),
    ),
    "masked array": (np.ma.masked_greater(np.eye(4), 0.5), r"no masked values; .*X\.filled"),
    "masked array in a dict": ({"input": np.ma.masked_greater(np.eye(4), 0.5)}, "no masked values"),
    "generator": ((row for row in np.eye(4)), AXES.format("generator")),
    "dicts": ([{"x": 1}, {"x": 2}], "names of the arguments .* \\('input'\\); got also 'x'"),
    "meta device": (torch.ones(6, 4, device="meta"), "must contain data; got .* meta device"),
    "dataset of texts": (Items(["a", "b"]), NUMBERS.format("a str")),
    "dataset of objects": (Items([object()] * 2), "items are tensors, arrays or numbers.*no batch"),
    "dataset of complex numbers": (
        Items([torch.ones(4, dtype=torch.complex64)] * 2),
        NUMBERS.format("torch.complex64"),
    ),
}
refused = pytest.mark.parametrize(("bad", "message"), REFUSED.values(), ids=REFUSED)


@refused
def test_fit_says_why_x_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        NetworkKernel(network).fit(bad)


@refused
def test_the_kernel_says_why_x_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        NetworkKernel(network)(bad)


QUERIES = {
    "density": lambda bad: NetworkDensity(network).fit(X).score_samples(bad),
    "kernel": lambda bad: NetworkKernel(network).fit(X).transform(bad),
    "activations": lambda bad: PerceptualKernel(network).fit(X).transform(bad),
    "features": lambda bad: GradientFeaturizer(network).fit(X).transform(bad),
    "sampler": lambda bad: ActiveLearningSampler(network).fit(X).query(bad),
    "more samples": lambda bad: ActiveLearningSampler(network).fit(X).partial_fit(bad),
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
@pytest.mark.parametrize("name", ["none", "0-d array", "ragged ids", "texts", "meta device"])
def test_queries_say_why_x_is_refused(query, name):
    bad, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        query(bad)


def test_neighbours_of_the_fitted_samples_need_no_x():
    neighbors = NetworkNeighbors(network, n_neighbors=1).fit(X)
    assert neighbors.kneighbors(None)[1].shape == (6, 1)


def test_a_learner_must_have_samples():
    learner = types.SimpleNamespace(estimator=network, X_training=None)
    with pytest.raises(ValueError, match="`X_training`; got None"):
        ActiveLearningSampler()(learner, X)


LISTS = {
    "tensors": [torch.from_numpy(row) for row in X],
    "tensors with gradient": [torch.from_numpy(row).requires_grad_() for row in X],
    "arrays": list(X),
    "lists": X.tolist(),
    "objects": np.array([*X.tolist(), None], dtype=object)[:-1],
}


@pytest.mark.parametrize("rows", LISTS.values(), ids=LISTS)
def test_a_list_of_rows_of_one_shape_is_one_array(rows):
    expected = NetworkKernel(network)(X)
    np.testing.assert_allclose(NetworkKernel(network)(rows), expected, atol=1e-6)
    fitted = NetworkKernel(network).fit(rows)
    np.testing.assert_allclose(fitted.transform(rows), expected, atol=1e-6)
    fitted = NetworkKernel(network).fit((rows,))
    np.testing.assert_allclose(fitted.transform({"input": rows}), expected, atol=1e-6)


def test_a_masked_array_without_masked_values_is_an_array():
    expected = NetworkKernel(network)(X)
    np.testing.assert_array_equal(NetworkKernel(network)(np.ma.masked_array(X)), expected)


def test_a_list_of_images_as_tensors_is_one_tensor():
    convolution = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(18, 2))
    images = torch.randn(4, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    expected = NetworkKernel(convolution)(images)
    fitted = NetworkKernel(convolution).fit(list(images))
    np.testing.assert_array_equal(fitted.transform(list(images)), expected)


def make_convolution():
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    return nn.Sequential(nn.Conv2d(1, 8, 3), *pooled)


IMAGE = np.random.default_rng(0).normal(size=(1, 28, 28)).astype(np.float32)


@pytest.mark.parametrize("form", [np.asarray, torch.as_tensor], ids=["array", "tensor"])
def test_a_single_image_is_no_batch(form):
    image = form(IMAGE)
    one = r"X\[None\], of shape \(1, len\(X\), 28, 28\)"
    with pytest.raises(UnsupportedNetworkError, match=f"first axis of X .* the samples.*{one}"):
        NetworkKernel(make_convolution()).fit(image)
    with pytest.raises(UnsupportedNetworkError, match=one):
        NetworkKernel(make_convolution())(image)
    fitted = NetworkKernel(make_convolution()).fit(image[None])
    with pytest.raises(ValueError, match=r"first axis.*X\[None\], of shape \(1, 1, 28, 28\)"):
        fitted.transform(image)
    with pytest.raises(ValueError, match=r"samples of shape \(28,\).*X\.reshape\(1, 1, 28, 28\)"):
        fitted.transform(image[0])
    assert fitted.transform(image[None]).shape == (1, 1)


def test_a_single_image_that_a_network_takes_without_batch_is_no_batch():
    with pytest.raises(UnsupportedNetworkError, match=r"8 rows for 1 samples.*as X\[None\]"):
        NetworkKernel(nn.Conv2d(1, 8, 3)).fit(IMAGE)


def test_a_single_tensor_of_features_is_no_batch():
    fitted = NetworkKernel(network).fit(torch.from_numpy(X))
    with pytest.raises(ValueError, match=r"X\[None\], of shape \(1, 4\)"):
        fitted.transform(torch.from_numpy(X[0]))


@pytest.mark.parametrize("device", ["meta", torch.device("meta"), "cuda:99", "nowhere"], ids=str)
def test_a_device_must_hold_data(device):
    with pytest.raises(ValueError, match="`device` must be None"):
        NetworkKernel(network, device=device).fit(X)
    with pytest.raises(ValueError, match="`device` must be None"):
        check_device(device)


META = {
    "all": nn.Linear(4, 2, device="meta"),
    "a layer": nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2, device="meta")),
    "buffers": nn.Sequential(network, nn.BatchNorm1d(2, affine=False, device="meta")),
}


@pytest.mark.parametrize("module", META.values(), ids=META)
@pytest.mark.parametrize("kind", [NetworkKernel, PerceptualKernel, NetworkDensity])
def test_a_network_must_hold_data(kind, module):
    with pytest.raises(UnsupportedNetworkError, match="meta device, which have no data"):
        kind(module).fit(X)


@pytest.mark.parametrize("output", [[0, 0], [0, -2], (1, 1), [-1, np.int64(1)]], ids=str)
@pytest.mark.parametrize("kind", [NetworkKernel, NetworkDensity, GradientFeaturizer])
def test_an_output_may_be_named_once(kind, output):
    with pytest.raises(ValueError, match=r"`output` must contain each output .* at most once"):
        kind(network, output=output).fit(X)


def test_outputs_may_be_named_in_any_order():
    expected = NetworkKernel(network)(X)
    np.testing.assert_allclose(NetworkKernel(network, output=[-1, 0])(X), expected, atol=1e-6)
