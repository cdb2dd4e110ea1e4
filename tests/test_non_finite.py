"""NaN and infinity in X, which the network takes or not, and errors that name the row of X."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn
from torch.utils.data import TensorDataset

from sknetsim import (
    ActiveLearningSampler,
    FeatureStore,
    FitDiagnostics,
    GradientFeaturizer,
    LabelDenoiser,
    NetworkDensity,
    NetworkKernel,
    NetworkNeighbors,
    PerceptualKernel,
    UnsupportedNetworkError,
    featurize,
)
from sknetsim._networks.fingerprint import digest_samples
from sknetsim._networks.samples import Samples

from . import naive


def make_inner():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3))


class Imputing(nn.Module):
    """A network that takes NaN for a missing value."""

    def __init__(self):
        super().__init__()
        self.inner = make_inner()

    def forward(self, x):
        return self.inner(torch.cat([x.nan_to_num(), x.isnan().to(x.dtype)], 1))


class Logarithm(nn.Module):
    """A network whose outputs are NaN at samples with a negative first value."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        return self.layer(x) + x[:, :1].log()


X = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
X[5, 1] = X[7, 0] = X[7, 2] = np.nan
#: The same samples in a form that the inner network takes.
FINITE = np.hstack([np.nan_to_num(X), np.isnan(X)]).astype(np.float32)
y = np.arange(12) % 3
network = nn.Linear(4, 3)

FORMS = {
    "array": X,
    "float64": X.astype(np.float64),
    "list": X.tolist(),
    "objects": X.astype(object),
    "tensor": torch.from_numpy(X),
    "pandas": pd.DataFrame(X, columns=list("abcd")),
    "nullable pandas": pd.DataFrame(X, columns=list("abcd")).convert_dtypes(),
    "dict": {"x": X},
    "tuple": (torch.from_numpy(X),),
    "dataset": TensorDataset(torch.from_numpy(X), torch.zeros(12)),
}
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def make_net(module):
    """Return a net that needs no training."""
    return FrozenEstimator(NeuralNetRegressor(module).initialize())


@forms
def test_a_network_may_impute_nan(form):
    J = naive.jacobians(make_inner(), torch.from_numpy(FINITE))
    expected = naive.correlation(J, J, np.finfo(np.float32).eps)
    kernel = NetworkKernel(Imputing()).fit(form)
    np.testing.assert_allclose(kernel.transform(form), expected, atol=1e-5)


def test_a_network_may_take_a_mask_with_minus_infinity():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embedding = nn.Embedding(11, 8)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, words, mask):
            h = self.embedding(words)
            return self.attention(h, h, h, key_padding_mask=mask)[0][:, 0]

    words = torch.randint(0, 11, (6, 5), generator=torch.Generator().manual_seed(0))
    is_padding = torch.arange(5) >= torch.tensor([5, 2, 3, 5, 4, 1])[:, None]
    mask = torch.zeros(6, 5).masked_fill(is_padding, -torch.inf)
    expected = NetworkKernel(Attention())((words, is_padding))
    np.testing.assert_allclose(NetworkKernel(Attention())((words, mask)), expected, atol=1e-6)
    batches = NetworkKernel(Attention(), batch_size=2).fit((words, mask))
    np.testing.assert_allclose(batches.transform((words, mask)), expected, atol=1e-6)


METHODS = {
    "density": (NetworkDensity(method="power", dimension=2.0), "score_samples"),
    "outliers": (NetworkDensity(), "predict"),
    "neighbours": (NetworkNeighbors(n_neighbors=3), "kneighbors"),
    "features": (GradientFeaturizer(), "transform"),
    "landmarks": (GradientFeaturizer(n_components=4, random_state=0), "transform"),
    "sketch": (GradientFeaturizer(n_components=4, method="sketch", random_state=0), "transform"),
    "metric": (NetworkKernel(metric="rotation"), "transform"),
    "activations": (PerceptualKernel(), "transform"),
    "sampler": (ActiveLearningSampler(strategy="lcmd", random_state=0), "query"),
}


@pytest.mark.parametrize(("estimator", "method"), METHODS.values(), ids=METHODS)
def test_all_estimators_compute_with_a_network_that_imputes(estimator, method):
    def compute(module, samples):
        fitted = estimator.set_params(estimator=module).fit(samples)
        return getattr(fitted, method)(samples)

    actual, expected = compute(Imputing(), X), compute(make_inner(), FINITE)
    for one, other in zip(np.atleast_1d(actual), np.atleast_1d(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(
    ("estimator", "method"),
    [(LabelDenoiser(), "label_quality"), (FitDiagnostics(), None)],
    ids=["denoiser", "diagnostics"],
)
def test_estimators_of_labels_compute_with_a_network_that_imputes(estimator, method):
    def compute(module, samples):
        net = NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss).initialize()
        fitted = estimator.set_params(estimator=FrozenEstimator(net)).fit(samples, y)
        return fitted.overfit_ if method is None else fitted.label_quality(samples, y)

    np.testing.assert_allclose(compute(Imputing(), X), compute(make_inner(), FINITE), atol=1e-4)


def test_a_store_of_features_may_be_computed_from_nan(tmp_path):
    featurizer = GradientFeaturizer(Imputing(), n_components=4, random_state=0).fit(X)
    store = featurize(featurizer, X, tmp_path / "store", rows_per_shard=5)
    np.testing.assert_allclose(store[:], featurizer.transform(X), atol=1e-6)
    again = featurize(featurizer, X.copy(), tmp_path / "store", rows_per_shard=5)
    assert isinstance(again, FeatureStore)


def test_the_steps_of_a_pipeline_may_impute():
    net = make_net(network)
    imputer = SimpleImputer().fit(X)
    expected = NetworkKernel(network).fit(imputer.transform(X)).transform(imputer.transform(X))
    kernel = NetworkKernel(make_pipeline(imputer, net), n_jobs=2).fit(X)
    with joblib.parallel_config("threading"):
        np.testing.assert_allclose(kernel.transform(X), expected, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda **settings: NeuralNetRegressor(Imputing, **settings),
        lambda **settings: make_pipeline(
            SimpleImputer(),
            NeuralNetRegressor(
                nn.Linear, module__in_features=4, module__out_features=3, **settings
            ),
        ),
    ],
    ids=["net", "pipeline"],
)
def test_a_network_that_imputes_may_be_trained_in_fit(make):
    torch.manual_seed(0)
    net = make(max_epochs=2, train_split=None, verbose=0)
    labels = np.eye(3, dtype=np.float32)[y]
    fitted = NetworkKernel(net).fit(X, labels)
    expected = NetworkKernel(FrozenEstimator(fitted.estimator_)).fit(X).transform(X)
    np.testing.assert_array_equal(fitted.transform(X), expected)
    np.testing.assert_allclose(np.diag(expected), 1, atol=1e-5)


def test_workers_may_get_steps_that_return_nan():
    pipeline = make_pipeline(FunctionTransformer(), make_net(Imputing()))
    expected = NetworkKernel(Imputing())(X)
    kernel = NetworkKernel(pipeline, n_jobs=2).fit(X)
    with joblib.parallel_config("threading"):
        np.testing.assert_allclose(kernel.transform(X), expected, atol=1e-6)


QUERIES = {
    "kernel": lambda fitted, samples: NetworkKernel(network)(samples),
    "transform": lambda fitted, samples: fitted.transform(samples),
    "density": lambda fitted, samples: NetworkDensity(network).fit(X[:4]).score_samples(samples),
    "neighbours": lambda fitted, samples: (
        NetworkNeighbors(network, n_neighbors=1).fit(X[:4]).kneighbors(samples)
    ),
    "features": lambda fitted, samples: GradientFeaturizer(network).fit(X[:4]).transform(samples),
    "sampler": lambda fitted, samples: ActiveLearningSampler(network).fit(X[:4]).query(samples),
    "fit": lambda fitted, samples: NetworkDensity(network).fit(samples),
}


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
@pytest.mark.parametrize("name", ["array", "tensor", "pandas", "tuple", "dataset"])
def test_an_error_of_outputs_names_the_row_and_nan_in_it(name, query):
    fitted = NetworkKernel(network).fit(X[:4])
    if name in ("tuple", "dataset"):
        fitted = NetworkKernel(network).fit((torch.from_numpy(X[:4]),))
    with pytest.raises(UnsupportedNetworkError, match=r"first in row 5, where X contains NaN\."):
        query(fitted, FORMS[name])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 7])
def test_rows_are_those_of_x_in_later_chunks(batch_size):
    samples = torch.ones(9, 4)
    samples[7, 0] = -1.0
    with pytest.raises(UnsupportedNetworkError, match=r"first in row 7, where X is finite\. Check"):
        NetworkKernel(Logarithm(), batch_size=batch_size)(samples)


@pytest.mark.parametrize("row", [101, 128, 199])
def test_rows_are_those_of_x_in_a_large_first_chunk(row):
    """Some samples of a large first chunk are verified in a batch of their own."""
    samples = torch.ones(200, 4)
    samples[row, 0] = -1.0
    with pytest.raises(UnsupportedNetworkError, match=f"first in row {row}, where"):
        NetworkKernel(Logarithm())(samples)


@pytest.mark.parametrize(
    "form", [np.asarray, torch.as_tensor, TensorDataset], ids=["array", "tensor", "Dataset"]
)
def test_rows_are_those_of_x_in_the_parts_of_workers(form):
    samples = torch.ones(16, 4)
    samples[13, 0] = -1.0
    X = form(samples.numpy()) if form is np.asarray else form(samples)
    with (
        joblib.parallel_config("threading"),
        pytest.raises(UnsupportedNetworkError, match="first in row 13, where"),
    ):
        NetworkKernel(Logarithm(), n_jobs=2)(X)


def test_rows_are_those_of_x_after_the_steps_of_a_pipeline():
    pipeline = make_pipeline(FunctionTransformer(), make_net(network))
    with pytest.raises(UnsupportedNetworkError, match=r"row 5, where X after the steps .* NaN"):
        NetworkKernel(pipeline, batch_size=2)(X)


def test_nan_may_come_from_the_steps_of_a_pipeline():
    samples = np.ones((6, 4), np.float32)
    samples[4, 2] = 0
    pipeline = make_pipeline(FunctionTransformer(np.log), make_net(network))
    with pytest.raises(UnsupportedNetworkError, match=r"row 4, where X after the steps.*infin"):
        NetworkKernel(pipeline)(samples)


def test_rows_are_those_of_x_if_landmarks_are_drawn():
    samples = np.ones((40, 4), np.float32)
    samples[17, 0] = -1.0
    with pytest.raises(UnsupportedNetworkError, match="first in row 17, where"):
        GradientFeaturizer(Logarithm(), n_components=30, random_state=0).fit(samples)


def test_the_count_of_samples_with_bad_outputs_is_given():
    with pytest.raises(UnsupportedNetworkError, match="NaN or infinity at 2 of 12 samples"):
        NetworkKernel(network)(X)


def test_infinity_may_come_from_the_cast_to_the_dtype_of_the_network():
    samples = np.ones((4, 4))
    samples[2, 3] = 1e300
    with pytest.raises(UnsupportedNetworkError, match="row 2, where X contains infinity in fl"):
        NetworkKernel(network)(samples)


@pytest.mark.parametrize("batch_size", [2, 8])
def test_an_error_of_gradients_names_the_row(batch_size):
    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3, bias=False)

        def forward(self, x):
            return self.layer(x).norm(dim=1, keepdim=True).sqrt()

    samples = torch.ones(8, 4)
    samples[5] = 0
    with pytest.raises(UnsupportedNetworkError, match=r"finite gradients.*first in row 5, where X"):
        NetworkKernel(Norm(), batch_size=batch_size)(samples)


def test_more_labelled_samples_are_tried_with_their_own_rows():
    sampler = ActiveLearningSampler(network).fit(X[:4])
    with pytest.raises(UnsupportedNetworkError, match=r"first in row 1, where X contains NaN"):
        sampler.partial_fit(X[4:])
    assert sampler.n_labelled_ == 4
    sampler = ActiveLearningSampler(Imputing(), random_state=0).fit(X[:4]).partial_fit(X[4:])
    expected = ActiveLearningSampler(Imputing(), random_state=0).fit(X)
    np.testing.assert_array_equal(sampler.query(X, 3), expected.query(X, 3))


def test_an_error_of_activations_names_the_row_and_nan_in_it():
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(UnsupportedNetworkError, match=r"activation.*row 5, where X contains NaN"):
        PerceptualKernel(network)(X)


def test_an_error_of_a_worker_can_be_pickled():
    with pytest.raises(UnsupportedNetworkError) as caught:
        NetworkKernel(network)(X)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


ALL = [
    ActiveLearningSampler,
    FitDiagnostics,
    GradientFeaturizer,
    LabelDenoiser,
    NetworkDensity,
    NetworkKernel,
    NetworkNeighbors,
    PerceptualKernel,
]


@pytest.mark.parametrize("kind", ALL)
def test_a_given_network_decides_whether_nan_is_allowed(kind):
    assert get_tags(kind(network)).input_tags.allow_nan
    assert get_tags(kind(NeuralNetClassifier(nn.Linear))).input_tags.allow_nan
    assert not get_tags(kind()).input_tags.allow_nan
    assert not get_tags(kind("features")).input_tags.allow_nan


@pytest.mark.parametrize("name", ["array", "tensor", "pandas"])
@pytest.mark.parametrize("kind", ALL)
def test_the_default_network_takes_no_nan(kind, name):
    with pytest.raises(ValueError, match=r"X.*NaN"):
        kind().fit(FORMS[name], y)


@pytest.mark.parametrize("name", ["array", "tensor", "dataset"])
def test_features_must_be_finite(name):
    with pytest.raises(ValueError, match=r"X.*NaN"):
        NetworkDensity("features").fit(FORMS[name])
    fitted = NetworkDensity("features").fit(np.eye(4))
    with pytest.raises(ValueError, match=r"X.*NaN"):
        fitted.score_samples(FORMS[name])


def test_digests_do_not_depend_on_the_bits_of_nan():
    bits = np.array([[0x7FC00000], [0xFFC00000], [0x7FC00001], [0x7F800000]], np.uint32)
    first, second, third, infinity = digest_samples(Samples(bits.view(np.float32)), torch.float32)
    assert first == second == third != infinity
    double = np.array([[np.nan], [np.inf]])
    assert digest_samples(Samples(double), torch.float32) == [first, infinity]


def test_leave_one_out_finds_samples_with_nan():
    density = NetworkDensity(Imputing(), method="power", dimension=2.0).fit(X)
    expected = NetworkDensity(make_inner(), method="power", dimension=2.0).fit(FINITE)
    np.testing.assert_allclose(density.score_samples(X), expected.score_samples(FINITE), atol=1e-5)
