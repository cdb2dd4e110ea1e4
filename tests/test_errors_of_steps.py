"""Errors of the steps before a network name the step, in every estimator."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim import (
    ActiveLearningSampler,
    FitDiagnostics,
    GradientFeaturizer,
    LabelDenoiser,
    NetworkDensity,
    NetworkKernel,
    NetworkNeighbors,
    PerceptualKernel,
    featurize,
)

N = 12
Y = np.arange(N) % 2


class Cast(TransformerMixin, BaseEstimator):
    """Step without fitted attributes that raises the errors of a function."""

    def __init__(self, function=None):
        self.function = function

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        X = X if self.function is None else self.function(X)
        return np.asarray(X.toarray() if hasattr(X, "toarray") else X, "float32")


def make_table():
    generator = np.random.default_rng(0)
    return pd.DataFrame({"age": generator.normal(size=N), "city": ["Oslo", "Rome"] * (N // 2)})


def make_pipeline(*steps, width):
    module = nn.Sequential(nn.Linear(width, 4), nn.Tanh(), nn.Linear(4, 2))
    net = NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0, train_split=None
    )
    return Pipeline([*steps, ("net", net)])


def make_column_pipeline():
    columns = [("numbers", StandardScaler(), ["age"]), ("names", OneHotEncoder(), ["city"])]
    return make_pipeline(("encode", ColumnTransformer(columns)), ("cast", Cast()), width=3)


@pytest.fixture(scope="module")
def pipeline():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make_column_pipeline().fit(make_table(), Y)


def encode_unknown_city():
    return make_table().assign(city="Paris")


FIT = {
    "sampler": lambda net, X: ActiveLearningSampler(net).fit(X),
    "diagnostics": lambda net, X: FitDiagnostics(net).fit(X, Y),
    "featurizer": lambda net, X: GradientFeaturizer(net).fit(X),
    "denoiser": lambda net, X: LabelDenoiser(net).fit(X, Y),
    "density": lambda net, X: NetworkDensity(net).fit(X),
    "density of features": lambda net, X: NetworkDensity(net, n_components=2).fit(X),
    "kernel": lambda net, X: NetworkKernel(net).fit(X),
    "gram": lambda net, X: NetworkKernel(net)(X),
    "neighbours": lambda net, X: NetworkNeighbors(net).fit(X),
    "perceptual kernel": lambda net, X: PerceptualKernel(net).fit(X),
}

QUERY = {
    "sampler": lambda net, X, Q: ActiveLearningSampler(net, random_state=0).fit(X).query(Q, 2),
    "partial_fit": lambda net, X, Q: ActiveLearningSampler(net).fit(X).partial_fit(Q).query(X, 2),
    "featurizer": lambda net, X, Q: GradientFeaturizer(net).fit(X).transform(Q),
    "denoiser": lambda net, X, Q: LabelDenoiser(net).fit(X, Y).transform(Q),
    "label quality": lambda net, X, Q: LabelDenoiser(net).fit(X, Y).label_quality(Q, Y),
    "density": lambda net, X, Q: NetworkDensity(net).fit(X).score_samples(Q),
    "reliability": lambda net, X, Q: NetworkDensity(net).fit(X).reliability(Q),
    "kernel": lambda net, X, Q: NetworkKernel(net).fit(X).transform(Q),
    "contributions": lambda net, X, Q: NetworkKernel(net).contributions(X, Q),
    "neighbours": lambda net, X, Q: NetworkNeighbors(net).fit(X).kneighbors(Q),
    "workers": lambda net, X, Q: NetworkNeighbors(net, n_jobs=2).fit(X).kneighbors(Q),
    "perceptual kernel": lambda net, X, Q: PerceptualKernel(net).fit(X).transform(Q),
}

UNKNOWN_CITY = (
    r"`X` must be accepted by the step 'encode' \(ColumnTransformer\) of the Pipeline in"
    r" `estimator`; got its ValueError: Found unknown categories \['Paris'\] in column 0 during"
    r" transform\. Correct X, or let the step accept it\."
)


@pytest.mark.parametrize("call", FIT.values(), ids=FIT)
@pytest.mark.parametrize("wrap", [lambda net: net, FrozenEstimator], ids=["Pipeline", "frozen"])
def test_fit_names_the_step(pipeline, wrap, call):
    with pytest.raises(ValueError, match=UNKNOWN_CITY):
        call(wrap(pipeline), encode_unknown_city())


@pytest.mark.parametrize("call", QUERY.values(), ids=QUERY)
def test_queries_name_the_step(pipeline, call):
    import joblib

    with joblib.parallel_config("threading"), pytest.raises(ValueError, match=UNKNOWN_CITY):
        call(pipeline, make_table(), encode_unknown_city())


def test_a_feature_store_names_the_step(pipeline, tmp_path):
    featurizer = GradientFeaturizer(pipeline).fit(make_table())
    with pytest.raises(ValueError, match=UNKNOWN_CITY):
        featurize(featurizer, encode_unknown_city(), tmp_path / "store")


def test_the_error_of_the_step_is_the_cause(pipeline):
    with pytest.raises(ValueError, match="'encode'") as caught:
        NetworkDensity(pipeline).fit(encode_unknown_city())
    assert str(caught.value.__cause__) == (
        "Found unknown categories ['Paris'] in column 0 during transform"
    )


def make_numbers():
    return make_table()[["age"]].assign(income=np.linspace(-1, 1, N))


#: A step, rows that it is fitted to, bad rows, and the error that the step raises.
BAD_INPUT = {
    "text": (
        StandardScaler(),
        lambda: make_numbers().to_numpy(),
        lambda: make_table().to_numpy(),
        (ValueError, "'Oslo'"),
    ),
    "other columns": (StandardScaler(), make_numbers, make_table, (ValueError, "- city")),
    "missing column": (
        ColumnTransformer([("scale", StandardScaler(), ["income", "age"])]),
        make_numbers,
        lambda: make_numbers()[["age"]],
        (ValueError, "columns are missing: {'income'}"),
    ),
    "numbers instead of texts": (
        CountVectorizer(),
        lambda: ["good film", "bad film"] * (N // 2),
        lambda: [1] * N,
        (AttributeError, "'int' object has no attribute 'lower'"),
    ),
    "missing number": (
        TruncatedSVD(2),
        make_numbers,
        lambda: make_numbers().assign(age=np.nan),
        (ValueError, "contains NaN"),
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT.values(), ids=BAD_INPUT)
def test_each_kind_of_bad_input_names_the_step(case):
    step, make_rows, make_bad_rows, (kind, message) = case
    pipeline = make_pipeline(("first", clone(step)), ("cast", Cast()), width=2)
    pipeline[:-1].fit(make_rows())
    pipeline[-1].initialize()
    with pytest.raises(kind, match="step 'first'") as caught:
        NetworkKernel(FrozenEstimator(pipeline))(make_bad_rows())
    assert message in str(caught.value)


def raise_error(error):
    raise error


#: Errors of a step, and the types of the errors that name the step.
ERRORS = {
    ValueError("broken"): ValueError,
    UnicodeDecodeError("utf-8", b"a", 0, 1, "broken"): ValueError,
    KeyError("broken"): ValueError,
    IndexError("broken"): ValueError,
    TypeError("broken"): TypeError,
    AttributeError("broken"): AttributeError,
    NotImplementedError("broken"): RuntimeError,
    FileNotFoundError("broken"): OSError,
    Exception("broken"): ValueError,
}


@pytest.mark.parametrize(
    ("error", "kind"), ERRORS.items(), ids=[type(error).__name__ for error in ERRORS]
)
def test_an_error_of_a_step_keeps_its_type(error, kind):
    pipeline = make_pipeline(("cast", Cast()), width=1).fit(make_numbers()[["age"]], Y)
    pipeline[0].function = lambda X: raise_error(error)
    with pytest.raises(kind, match="step 'cast'") as caught:
        NetworkKernel(pipeline)(make_numbers())
    assert type(caught.value) is kind
    assert caught.value.__cause__ is error


UNCHANGED = [MemoryError(), torch.OutOfMemoryError("full"), NotFittedError("fit"), UserWarning("a")]


@pytest.mark.parametrize("error", UNCHANGED, ids=lambda error: type(error).__name__)
def test_an_error_that_does_not_depend_on_the_input_is_unchanged(error):
    pipeline = make_pipeline(("cast", Cast()), width=1).fit(make_numbers()[["age"]], Y)
    pipeline[0].function = lambda X: raise_error(error)
    with pytest.raises(type(error)) as caught:
        NetworkKernel(pipeline)(make_numbers())
    assert caught.value is error


def test_an_error_in_the_training_of_a_pipeline_names_the_step():
    pipeline = make_pipeline(("scale", StandardScaler()), ("cast", Cast()), width=2)
    message = r"step 'scale' \(StandardScaler\).*'Oslo'"
    with pytest.raises(ValueError, match=message) as caught:
        NetworkDensity(pipeline).fit(make_table(), Y)
    assert "could not convert" in str(caught.value.__cause__)


def test_an_error_in_the_training_of_the_network_names_no_step():
    pipeline = make_pipeline(("scale", StandardScaler()), ("cast", Cast()), width=3)
    with pytest.raises(RuntimeError, match=r"^mat1 and mat2 shapes cannot be multiplied"):
        NetworkDensity(pipeline).fit(make_numbers(), Y)
