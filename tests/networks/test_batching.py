"""Nets of skorch that read rows, form batches, or evaluate their module in a way of their own.

The reference evaluates the bare module on the inputs that the net gives it.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from skorch import NeuralNetClassifier
from skorch.dataset import Dataset
from torch import nn
from torch.utils.data import DataLoader

from sknetsim import ActiveLearningSampler, NetworkDensity, NetworkKernel, NetworkNeighbors
from sknetsim.exceptions import UnsupportedNetworkError

from ..kinds import Bag, Columns, Items, make_perceptron, make_sentences, pad, pad_batch

X = np.random.default_rng(0).normal(size=(12, 2)).astype("float32")
Y = np.arange(12) % 2
SENTENCES = make_sentences()[:12]


def change(inputs):
    return 2 * inputs - 1


class ChangedDataset(Dataset):
    def transform(self, X, y):
        x, y = super().transform(X, y)
        return change(x), y


class ChangedBatches(DataLoader):
    def __iter__(self):
        for inputs, labels in super().__iter__():
            yield change(inputs), labels


class OwnIterator:
    """Iterator that is no loader, with batches of a size of its own."""

    def __init__(self, dataset, batch_size=None):
        self.dataset = dataset

    def __iter__(self):
        for start in range(0, len(self.dataset), 5):
            rows = [self.dataset[i] for i in range(start, min(start + 5, len(self.dataset)))]
            inputs, labels = zip(*rows, strict=True)
            yield change(torch.tensor(np.array(inputs))), torch.stack(labels)


class OwnGetDataset(NeuralNetClassifier):
    def get_dataset(self, X, y=None):
        dataset = super().get_dataset(X, y)
        return Items([(change(x), y) for x, y in (dataset[i] for i in range(len(dataset)))])


class OwnGetIterator(NeuralNetClassifier):
    def get_iterator(self, dataset, training=False):
        return super().get_iterator(dataset, training) if training else OwnIterator(dataset)


class OwnInfer(NeuralNetClassifier):
    def infer(self, x, **parameters):
        return super().infer(change(x), **parameters)


def change_batch(pairs):
    inputs, labels = torch.utils.data.default_collate(pairs)
    return change(inputs), labels


def make_net(module=None, kind=NeuralNetClassifier, **params):
    module = make_perceptron(2) if module is None else module
    settings = {"criterion": nn.CrossEntropyLoss, "train_split": None, "verbose": 0}
    net = kind(module, **settings, **params).initialize()
    net.history.new_epoch()
    return net


NETS = {
    "dataset": lambda: make_net(dataset=ChangedDataset),
    "get_dataset": lambda: make_net(kind=OwnGetDataset),
    "collate_fn": lambda: make_net(iterator_valid__collate_fn=change_batch),
    "loader": lambda: make_net(iterator_valid=ChangedBatches),
    "iterator": lambda: make_net(iterator_valid=OwnIterator),
    "get_iterator": lambda: make_net(kind=OwnGetIterator),
    "infer": lambda: make_net(kind=OwnInfer),
}


@pytest.fixture(params=NETS.values(), ids=NETS)
def net(request):
    return request.param()


def test_the_network_gets_the_inputs_of_the_net(net):
    expected = NetworkKernel(net.module_)(change(X))
    np.testing.assert_allclose(NetworkKernel(net)(X), expected, atol=1e-6)


def test_workers_get_the_inputs_of_the_net(net):
    expected = NetworkDensity(net.module_).fit(change(X)).score_samples(change(X))
    density = NetworkDensity(net, n_jobs=2).fit(X)
    np.testing.assert_allclose(density.score_samples(X), expected, atol=1e-6)


def test_a_dataset_passes_through_get_dataset():
    net = make_net(kind=OwnGetDataset)
    expected = NetworkKernel(net.module_)(change(X))
    result = NetworkKernel(net)(Items([(torch.tensor(x), 0) for x in X]))
    np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["evaluation_step", "forward_iter"])
def test_other_methods_of_the_net_cannot_be_followed(name):
    kind = type("OwnNet", (NeuralNetClassifier,), {name: lambda self, *args, **kwargs: None})
    with pytest.raises(UnsupportedNetworkError, match=f"a method {name} of its own"):
        NetworkKernel(make_net(kind=kind))(X)


def test_an_own_infer_gets_the_columns_of_a_table():
    class Joined(NeuralNetClassifier):
        def infer(self, x, **parameters):
            return self.module_(torch.cat([x["age"], x["income"]], 1))

    net = make_net(kind=Joined)
    result = NetworkKernel(net)(pd.DataFrame(X, columns=["age", "income"]))
    np.testing.assert_allclose(result, NetworkKernel(net.module_)(X), atol=1e-6)


# Padding


class UnmaskedBag(Bag):
    def forward(self, words):
        return self.head(self.embed(words).mean(1))


def make_padding_net(module, collate=pad_batch):
    return make_net(module, iterator_valid__collate_fn=collate)


@pytest.mark.parametrize("batch_size", [None, 1, 5])
def test_padding_does_not_change_similarities(batch_size):
    net = make_padding_net(Bag())
    expected = NetworkKernel(net.module_)(pad(SENTENCES))
    kernel = NetworkKernel(net, batch_size=batch_size)
    np.testing.assert_allclose(kernel(SENTENCES), expected, atol=1e-6)


def test_a_fitted_sample_is_known_with_another_padding():
    """A density leaves out the fitted sample that equals a query, also if it is shorter alone."""
    net = make_padding_net(Bag())
    density = NetworkDensity(net).fit(SENTENCES)
    expected = density.score_samples(SENTENCES)
    alone = [density.score_samples(SENTENCES[i : i + 1])[0] for i in range(12)]
    np.testing.assert_allclose(alone, expected, atol=1e-6)


def test_networks_that_depend_on_the_padding_raise_an_error():
    with pytest.raises(UnsupportedNetworkError, match="do not depend on its padding; got diff"):
        NetworkKernel(make_padding_net(UnmaskedBag()))(SENTENCES)


def test_without_other_samples_nothing_is_padded():
    net = make_padding_net(UnmaskedBag())
    gram = NetworkKernel(net, batch_size=1)(SENTENCES)
    expected = [NetworkKernel(net.module_)([SENTENCES[0]], [words])[0, 0] for words in SENTENCES]
    np.testing.assert_allclose(gram[0], expected, atol=1e-6)


def reverse_batch(pairs):
    return pad_batch(pairs[::-1])


def test_batches_in_another_order_raise_an_error():
    with pytest.raises(UnsupportedNetworkError, match="and keep their order"):
        NetworkKernel(make_padding_net(Bag(), reverse_batch))(SENTENCES)


def make_time_first(pairs):
    words, labels = pad_batch(pairs)
    return words.T, labels


def pack_batch(pairs):
    words = [torch.tensor(x) for x, _ in pairs]
    return nn.utils.rnn.pack_sequence(words, enforce_sorted=False), torch.zeros(len(pairs))


@pytest.mark.parametrize(
    ("collate", "message"),
    [
        (make_time_first, "have the samples on their first axis; got tensors of the shapes"),
        (pack_batch, "padded tensors.*got a PackedSequence"),
        (lambda pairs: pad_batch(pairs)[0], r"batches \(X, y\).*; got a Tensor"),
    ],
    ids=["time first", "packed", "without labels"],
)
def test_batches_without_samples_on_the_first_axis_raise_an_error(collate, message):
    with pytest.raises(ValueError, match=message):
        NetworkKernel(make_padding_net(Bag(), collate))(SENTENCES)


# Names of arguments


def decorate(forward):
    return lambda *args, **kwargs: forward(*args, **kwargs)


class Decorated(Columns):
    forward = decorate(Columns.forward)


class WithPart(Columns):
    """Network with a part of the name under which a skorch net keeps its module."""

    def __init__(self):
        super().__init__()
        self.module = nn.Linear(1, 1)


TABLE = pd.DataFrame(X, columns=["age", "income"])


@pytest.mark.parametrize(
    "network",
    [
        Columns(), WithPart(), nn.DataParallel(Columns()), make_net(nn.DataParallel(Columns())),
        make_net(Decorated()), make_net(Columns),
    ],
    ids=["module", "with a part", "parallel", "net of parallel", "decorated", "class"],
)  # fmt: skip
def test_the_columns_of_a_table_are_arguments(network):
    result = NetworkKernel(network)(TABLE)
    columns = {name: TABLE[[name]].to_numpy() for name in TABLE}
    np.testing.assert_allclose(result, NetworkKernel(network)(columns), atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (TABLE.assign(city=1), r"\('age', 'income'\); got also 'city'"),
        (TABLE[["age"]], r"\('age', 'income'\); got no 'income'"),
        ([{"age": 1.0}], "got no 'income'"),
        ({"age": X[:, :1], "town": X[:, 1:]}, "got also 'town'"),
    ],
    ids=["table", "missing column", "list of dicts", "dict"],
)
def test_other_columns_than_the_arguments_raise_an_error(rows, message):
    with pytest.raises(ValueError, match=message):
        NetworkNeighbors(Columns()).fit(rows)


def test_a_table_with_a_column_of_the_name_of_the_only_argument_is_an_array():
    table = pd.DataFrame(X, columns=["input", "other"])
    module = make_perceptron(2)
    np.testing.assert_allclose(NetworkKernel(module)(table), NetworkKernel(module)(X))


TEXT_COLUMNS = {
    "strings": ["Oslo"] * 12,
    "categories": pd.Categorical(["a", "b"] * 6),
    "dates": pd.date_range("2020-01-01", periods=12),
}


@pytest.mark.parametrize("column", TEXT_COLUMNS.values(), ids=TEXT_COLUMNS)
@pytest.mark.parametrize("network", [make_perceptron(2), Columns()], ids=["array", "arguments"])
def test_errors_name_the_column_without_numbers(network, column):
    with pytest.raises(ValueError, match=r"must contain floating-point.* in 'income'"):
        NetworkNeighbors(network).fit(TABLE.assign(income=column))


def test_numbers_of_several_dtypes_are_numbers():
    table = pd.DataFrame(
        {"age": pd.array([1, 2, 3] * 4, dtype="Int64"), "income": [True, False] * 6}
    )
    module = make_perceptron(2)
    expected = NetworkKernel(module)(table.astype("float64").to_numpy())
    np.testing.assert_allclose(NetworkKernel(module)(table), expected)


def test_columns_in_another_order_are_not_compared():
    kernel = NetworkKernel(make_perceptron(2))
    with pytest.raises(ValueError, match="`Y` must have the columns of the samples that it is"):
        kernel(TABLE, TABLE[["income", "age"]])


# Samples that are added in another form

FORMS = {
    "array": lambda rows: rows,
    "tensor": torch.tensor,
    "tensor with a gradient": lambda rows: torch.tensor(rows, requires_grad=True),
    "list": list,
    "Dataset": lambda rows: Items([(torch.tensor(row), 0) for row in rows]),
    "table": pd.DataFrame,
}


@pytest.mark.parametrize("added", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("first", FORMS.values(), ids=FORMS)
def test_samples_of_another_form_are_added(first, added):
    network = make_perceptron(2)
    expected = ActiveLearningSampler(network, strategy="maxdet").fit(X[:8]).score_samples(X[8:])
    sampler = ActiveLearningSampler(network, strategy="maxdet").fit(first(X[:4]))
    scores = sampler.partial_fit(added(X[4:8])).score_samples(X[8:])
    np.testing.assert_allclose(scores, expected, rtol=1e-3)
