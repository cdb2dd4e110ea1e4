"""Samples in each form that a network takes."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from skorch.helper import SliceDict
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from sknetsim import (
    ActiveLearningSampler,
    GradientFeaturizer,
    NetworkDensity,
    NetworkKernel,
    NetworkNeighbors,
    PerceptualKernel,
)
from sknetsim._networks.batches import list_tensors
from sknetsim._networks.fingerprint import digest_samples
from sknetsim._networks.samples import RawSamples, Samples
from sknetsim._passes.chunks import Chunk

from ..cases import Forked


class Items(Dataset):
    """Dataset of samples without labels."""

    def __init__(self, X):
        self.X = X

    def __len__(self):
        return len(self.X)

    def __getitem__(self, index):
        return self.X[index]


class Stream(IterableDataset):
    """Dataset without a length."""

    def __iter__(self):
        return iter(torch.ones(3, 4))


def memory_mapped(X):
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file.name, X)
        return np.load(file.name, mmap_mode="r")


X = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
FORMS = {
    "array": X,
    "float64": X.astype(np.float64),
    "list": X.tolist(),
    "fortran": np.asfortranarray(X),
    "reversed view": X[::-1].copy()[::-1],
    "read-only": np.lib.stride_tricks.as_strided(X, writeable=False),
    "big-endian": X.astype(">f4"),
    "memory-mapped": memory_mapped(X),
    "tensor": torch.from_numpy(X),
    "tensor with gradient": torch.from_numpy(X).requires_grad_(),
    "pandas": pd.DataFrame(X, columns=list("abcd")),
    "polars": pl.DataFrame(X, schema=list("abcd")),
    "dataset of pairs": TensorDataset(torch.from_numpy(X), torch.zeros(9)),
    "dataset of rows": Items(X),
}
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


@forms
def test_all_forms_give_the_same_kernel(network, form):
    np.testing.assert_allclose(NetworkKernel(network)(form), NetworkKernel(network)(X), atol=1e-6)


@forms
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_all_forms_give_the_same_estimates(network, form):
    expected = NetworkDensity(network, method="power", dimension=2.0).fit(X).score_samples(X)
    scores = NetworkDensity(network, method="power", dimension=2.0).fit(form).score_samples(form)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    features = GradientFeaturizer(network).fit(form).transform(form)
    np.testing.assert_allclose(features, GradientFeaturizer(network).fit_transform(X), atol=1e-6)


def test_integers_are_cast_if_the_network_takes_no_integers(network):
    whole = np.random.default_rng(0).integers(0, 5, size=(6, 4))
    expected = NetworkKernel(network)(whole.astype(np.float32))
    np.testing.assert_allclose(NetworkKernel(network)(whole), expected, atol=1e-6)
    np.testing.assert_allclose(
        NetworkKernel(network)(whole > 2), NetworkKernel(network)((whole > 2) * 1.0)
    )


def test_several_inputs_are_passed_by_name_or_by_position():
    forked = Forked()
    numbers, words = torch.randn(7, 4), torch.randint(0, 6, (7, 3))
    expected = NetworkKernel(forked)((numbers, words))
    by_name = {"numbers": numbers, "words": words}
    np.testing.assert_allclose(NetworkKernel(forked)(by_name), expected)
    arrays = SliceDict(numbers=numbers.numpy(), words=words.numpy())
    np.testing.assert_allclose(NetworkKernel(forked)(arrays), expected, atol=1e-6)
    neighbors = NetworkNeighbors(forked, n_neighbors=1).fit(by_name)
    assert neighbors.kneighbors(by_name)[1][:, 0].tolist() == list(range(7))
    pairs = Items([((numbers[i], words[i]), 0) for i in range(7)])
    np.testing.assert_allclose(NetworkKernel(forked)(pairs), expected, atol=1e-6)


def test_images_keep_their_shape(network):
    images = np.random.default_rng(0).normal(size=(6, 1, 8, 8)).astype(np.float32)
    convolution = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2))
    density = NetworkDensity(convolution).fit(images)
    assert density.score_samples(images[:2]).shape == (2,)
    with pytest.raises(
        ValueError,
        match=r"must have samples of shape \(1, 8, 8\).*got samples of shape \(1, 7, 8\)",
    ):
        density.score_samples(images[:, :, 1:])


BAD = {
    "NaN": (np.array([[1.0, np.nan, 0, 0]] * 3), ValueError, "NaN"),
    # Some hidden unit is inf - inf; one infinity alone would saturate tanh.
    "infinite": (np.array([[1.0, np.inf, -np.inf, 0]] * 3), ValueError, "infinity"),
    "NaN in a tensor": (
        torch.tensor([[1.0, 0, 0, 0], [torch.nan] * 4]),
        ValueError,
        "first in row 1",
    ),
    "empty": (np.ones((0, 4)), ValueError, r"0 sample"),
    "empty tensor": (torch.ones(0, 4), ValueError, "at least 1 sample; got 0 samples"),
    "strings": (np.array([["a"] * 4] * 3), ValueError, "convert|dtype"),
    "complex": (
        torch.ones(3, 4, dtype=torch.complex64),
        ValueError,
        "must contain floating-point, integer or boolean numbers; got torch.complex64",
    ),
    "one dimension": (np.ones(4), ValueError, "Expected 2D array"),
    "fewer features": (
        X[:, :3],
        ValueError,
        r"samples of shape \(3,\).*`estimator` fails.*Reshape or convert",
    ),
    "unknown name": (
        {"rows": torch.ones(3, 4)},
        ValueError,
        "keyword arguments .'input'.; got also 'rows'",
    ),
    "different lengths": (
        (torch.ones(3, 4), torch.ones(2, 4)),
        ValueError,
        "one row per sample; got lengths .2, 3.",
    ),
    "shuffled loader": (
        DataLoader(TensorDataset(torch.ones(3, 4)), shuffle=True),
        TypeError,
        "Pass the `dataset` of a loader instead",
    ),
    "stream": (Stream(), TypeError, "`X` must be .*Dataset with a length; got a Stream"),
}


ESTIMATORS = [
    ActiveLearningSampler(),
    NetworkDensity(),
    NetworkKernel(),
    NetworkNeighbors(),
    PerceptualKernel(),
    GradientFeaturizer(),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: type(estimator).__name__)
@pytest.mark.parametrize(("bad", "error", "message"), BAD.values(), ids=BAD)
def test_invalid_samples_raise_an_error(network, estimator, bad, error, message):
    with pytest.raises(error, match=message):
        estimator.set_params(estimator=network).fit(bad)


def test_queries_must_have_as_many_features_as_the_fitted_samples(network):
    density = NetworkDensity(network).fit(X)
    with pytest.raises(ValueError, match="X has 3 features, but NetworkDensity is expecting 4"):
        density.score_samples(X[:, :3])
    with pytest.raises(ValueError, match=r"got samples of shape \(3,\)"):
        density.score_samples(torch.from_numpy(X[:, :3]))


def test_labels_must_be_as_many_as_samples(network):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        NetworkDensity(network).fit(X, np.zeros(3))


def test_different_rows_have_different_digests_after_the_cast():
    rows = np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 1.0]])
    first, second, third = digest_samples(Samples(rows), torch.float32)
    assert first == second != third
    assert digest_samples(Samples(rows.astype(np.float32)), torch.float32)[0] == first
    assert len(digest_samples(Samples(np.ones((5000, 1))), torch.float64)) == 5000


def test_digests_are_computed_from_the_inputs_of_the_network():
    whole = np.array([[1, 0], [2, 3]])
    expected = digest_samples(Samples(whole.astype(float)), torch.float32)
    assert digest_samples(Samples(whole), torch.float32) == expected
    assert digest_samples(Samples(whole * -1 * -1.0), torch.float32) == expected
    assert digest_samples(Samples(np.array([[1, -0.0], [2, 3]])), torch.float32) == expected


BAD_FEATURES = {
    "long": (3 * np.eye(2), "length up to 3"),
    "images": (torch.zeros(2, 1, 3), r"X.* got rows of shape \(1, 3\)"),
    "dict": ({"rows": torch.zeros(2, 3)}, r"X.* got several arrays"),
}


@pytest.mark.parametrize(("bad", "message"), BAD_FEATURES.values(), ids=BAD_FEATURES)
def test_invalid_features_raise_an_error(bad, message):
    with pytest.raises(ValueError, match=message):
        NetworkNeighbors("features").fit(bad)


def test_queries_may_have_another_form_than_the_fitted_samples(network):
    density = NetworkDensity(network).fit(Items(X))
    expected = NetworkDensity(network).fit(X).score_samples(X)
    np.testing.assert_allclose(density.score_samples(X), expected, atol=1e-5)


def test_items_of_different_shapes_need_batch_size_one():
    words = [torch.randint(0, 7, (length,)) for length in (3, 5, 4)]
    bag = nn.Sequential(nn.Embedding(7, 4), nn.AdaptiveAvgPool2d((1, 4)), nn.Flatten())
    with pytest.raises(ValueError, match=r"must have items of one shape.*set batch_size=1"):
        NetworkDensity(bag).fit(Items(words))
    density = NetworkDensity(bag, batch_size=1, method="power", dimension=2.0).fit(Items(words))
    np.testing.assert_allclose(
        density.neighbor_count(Items(words)),
        (NetworkKernel(bag, batch_size=1)(Items(words)).clip(0) ** 2).sum(axis=1),
        atol=1e-6,
    )


def test_landmarks_may_differ_in_shape():
    words = [torch.randint(0, 7, (length,)) for length in (3, 5, 4, 6, 2)]
    bag = nn.Sequential(nn.Embedding(7, 4), nn.AdaptiveAvgPool2d((1, 4)), nn.Flatten())
    featurizer = GradientFeaturizer(bag, batch_size=1, n_components=5, random_state=0)
    features = featurizer.fit_transform(Items(words))
    expected = NetworkKernel(bag, batch_size=1)(Items(words))
    np.testing.assert_allclose(features @ features.T, expected, atol=1e-4)


def test_an_item_with_zeros_appended_has_another_digest():
    words = [torch.tensor([1, 2]), torch.tensor([1, 2, 0])]
    assert len(set(digest_samples(Samples(Items(words)), torch.float32))) == 2


def test_samples_may_be_single_numbers():
    """A tensor with one axis contains several samples, not one."""
    network = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2))
    words = torch.tensor([0, 3, 1, 3])
    kernel = NetworkKernel(network).fit(words)
    np.testing.assert_array_equal(kernel.transform(words), NetworkKernel(network)(words[:, None]))


PAIRS = {
    "arrays": (np.ones((2, 3)), np.zeros((1, 3))),
    "tensors": (torch.ones(2, 3), torch.zeros(1, 3)),
    "a tensor and an array": (torch.ones(2, 3), np.zeros((1, 3))),
    "an array and a tensor": (np.ones((2, 3)), torch.zeros(1, 3)),
    "dicts": ({"a": np.ones((2, 3))}, {"a": np.zeros((1, 3))}),
    "tuples": ((torch.ones(2, 3),), (torch.zeros(1, 3),)),
    "datasets": (TensorDataset(torch.ones(2, 3)), TensorDataset(torch.zeros(1, 3))),
}


@pytest.mark.parametrize(("first", "second"), PAIRS.values(), ids=PAIRS)
def test_samples_are_concatenated_in_order(first, second):
    (samples,) = list_tensors(Samples(first).append(Samples(second)).take(slice(None)))
    assert samples.tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    "compute",
    [
        lambda network, X, Y: (
            NetworkDensity(network, method="power", dimension=3).fit(X).score_samples(Y)
        ),
        lambda network, X, Y: NetworkKernel(network).fit(X).transform(Y),
        lambda network, X, Y: NetworkKernel(network)(X, Y),
    ],
    ids=["density", "fitted kernel", "kernel"],
)
def test_each_pair_of_an_array_with_itself_is_computed_once(network, compute, monkeypatch):
    pairs, cosines = [], Chunk.cosines

    def count(self, other):
        pairs.append((self.rows, other.rows))
        return cosines(self, other)

    monkeypatch.setattr(Chunk, "cosines", count)
    monkeypatch.setattr("sknetsim._passes.pairs._TILE_SAMPLES", 4)
    compute(network, X, X)
    once = len(pairs)
    compute(network, X, X.copy())
    assert (once, len(pairs) - once) == (6, 9)


@pytest.mark.parametrize("make", [Samples, RawSamples, lambda X: Samples(Items(X))])
def test_labels_stay_with_their_samples(make):
    samples = make(X).with_labels(torch.arange(len(X)))
    for part, rows in ((samples.select([5, 2]), [5, 2]), (samples.part(slice(3, 5)), [3, 4])):
        for other in (part, pickle.loads(pickle.dumps(part)), part.select([0, 1])):
            assert other.labels.tolist() == rows


def test_samples_are_the_same_if_their_labels_are():
    samples, first, second = Samples(X), torch.zeros(len(X)), torch.ones(len(X))
    assert samples.with_labels(first).is_same(samples.with_labels(first.clone()))
    assert not samples.with_labels(first).is_same(samples.with_labels(second))
    assert not samples.with_labels(first).is_same(samples)
