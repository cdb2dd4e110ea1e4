"""Rows of each kind that a Pipeline or a network takes, in every estimator.

Each result equals that of the same rows after the steps, which are applied by hand.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from skorch import NeuralNetClassifier
from skorch.helper import DataFrameTransformer, SliceDict
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
    explore,
    featurize,
)

N = 24


def make_table():
    """Return a table with numbers, missing numbers and categories."""
    generator = np.random.default_rng(0)
    age = generator.normal(40, 10, N)
    age[[3, 7]] = np.nan
    city = generator.choice(["Rome", "Oslo", "Bonn"], N)
    return pd.DataFrame({"age": age, "city": city, "income": generator.normal(size=N)})


def make_column_steps():
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = [("numbers", numbers, ["age", "income"]), ("names", OneHotEncoder(), ["city"])]
    return [ColumnTransformer(columns), FunctionTransformer(to_float32)]


def to_float32(values):
    values = values.toarray() if hasattr(values, "toarray") else values
    return np.asarray(values, "float32")


def stack_images(images):
    return np.stack(images).astype("float32").reshape(len(images), -1)


WORDS = ["good", "bad", "long", "short", "film", "actor"]


def make_texts():
    generator = np.random.default_rng(0)
    return [" ".join(generator.choice(WORDS, 5)) for _ in range(N)]


def make_images():
    generator = np.random.default_rng(0)
    return [generator.normal(size=(2, 3)) for _ in range(N)]


class Columns(nn.Module):
    """Network that takes the columns of a table as keyword arguments."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(2, 8), nn.Linear(8, 2)

    def forward(self, age, income):
        return self.head(torch.tanh(self.body(torch.cat([age, income], 1))))


class Embedded(nn.Module):
    """Network that takes numbers and categories."""

    def __init__(self):
        super().__init__()
        self.embed, self.body, self.head = nn.Embedding(3, 2), nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, X, city):
        return self.head(torch.tanh(self.body(torch.cat([X, self.embed(city.flatten())], 1))))


def make_perceptron(width):
    return nn.Sequential(nn.Linear(width, 8), nn.Tanh(), nn.Linear(8, 2))


def make_numbers():
    return make_table()[["age", "income"]].fillna(0).astype("float32")


def split_columns(table):
    return {name: table[[name]].to_numpy() for name in table}


@dataclass(frozen=True)
class Kind:
    """Rows X, steps before a network, and the module; without steps, ``convert`` prepares X."""

    make_rows: Callable
    make_steps: Callable
    make_module: Callable
    convert: Callable = lambda rows: rows
    take: Callable = lambda X, rows: [X[row] for row in rows]


def take_rows(X, rows):
    return X[rows]


def take_table(X, rows):
    return X.iloc[rows]


def make_float_texts():
    return [CountVectorizer(dtype="float32")]


KINDS = {
    "table": Kind(make_table, make_column_steps, lambda: make_perceptron(5), take=take_table),
    "polars table": Kind(
        lambda: pl.DataFrame(make_table().to_dict("list")),
        make_column_steps,
        lambda: make_perceptron(5),
        take=take_rows,
    ),
    "list of texts": Kind(make_texts, make_float_texts, lambda: make_perceptron(len(WORDS))),
    "array of texts": Kind(
        lambda: np.array(make_texts()),
        make_float_texts,
        lambda: make_perceptron(len(WORDS)),
        take=take_rows,
    ),
    "array of objects": Kind(
        lambda: np.array(make_texts(), dtype=object),
        lambda: [TfidfVectorizer(), FunctionTransformer(to_float32)],
        lambda: make_perceptron(len(WORDS)),
        take=take_rows,
    ),
    "column of texts": Kind(
        lambda: pd.Series(make_texts(), index=range(100, 100 + N)),
        make_float_texts,
        lambda: make_perceptron(len(WORDS)),
        take=take_table,
    ),
    "list of images": Kind(
        make_images, lambda: [FunctionTransformer(stack_images)], lambda: make_perceptron(6)
    ),
    "table of numbers and categories": Kind(
        lambda: make_table().assign(city=make_table().city.astype("category")).fillna({"age": 0}),
        lambda: [DataFrameTransformer()],
        Embedded,
        take=take_table,
    ),
    "table of keyword arguments": Kind(
        make_numbers, list, Columns, convert=split_columns, take=take_table
    ),
    "SliceDict": Kind(
        lambda: SliceDict(**split_columns(make_numbers())), list, Columns, take=take_rows
    ),
}


@dataclass(frozen=True)
class Example:
    """Trained Pipeline with its rows, and its network with the prepared rows."""

    kind: Kind
    pipeline: Any
    X: Any
    network: Any
    prepared: Any
    y: np.ndarray


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def example(request):
    return make_example(request.param)


def make_example(kind):
    y = np.arange(N) % 2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = NeuralNetClassifier(
            kind.make_module(), criterion=nn.CrossEntropyLoss, max_epochs=3, lr=0.1, verbose=0,
            train_split=None, iterator_train__shuffle=False,
        )  # fmt: skip
        steps = kind.make_steps()
        X = kind.make_rows()
        pipeline = make_pipeline(*steps, net) if steps else net
        pipeline.fit(X, y)
    prepared = kind.convert(X)
    for step in steps:
        prepared = step.transform(prepared)
    return Example(kind, pipeline, X, net, prepared, y)


def take_prepared(X, rows):
    if isinstance(X, dict):
        return {name: values[rows] for name, values in X.items()}
    return X[rows]


ROWS = [5, 2, 11]

CALLS = {
    "neighbours": lambda net, X, Q, y: NetworkNeighbors(net).fit(X).kneighbors(Q)[0],
    "neighbours of fitted samples": lambda net, X, Q, y: NetworkNeighbors(net).fit(X).kneighbors(),
    "neighbours by features": lambda net, X, Q, y: (
        NetworkNeighbors(net, n_components=8, random_state=0).fit(X).kneighbors(Q)[0]
    ),
    "density": lambda net, X, Q, y: NetworkDensity(net).fit(X).score_samples(Q),
    "density of fitted samples": lambda net, X, Q, y: NetworkDensity(net).fit(X).score_samples(X),
    "power density": lambda net, X, Q, y: (
        NetworkDensity(net, method="power").fit(X).score_samples(Q)
    ),
    "outliers": lambda net, X, Q, y: NetworkDensity(net, contamination=0.2).fit(X).predict(Q),
    "features": lambda net, X, Q, y: (
        GradientFeaturizer(net, n_components=8, random_state=0).fit(X).transform(Q)
    ),
    "queries": lambda net, X, Q, y: (
        ActiveLearningSampler(net, random_state=0).fit(Q).query(X, 4, return_utilities=True)[1]
    ),
    "queries after partial_fit": lambda net, X, Q, y: (
        ActiveLearningSampler(net, strategy="badge", random_state=0)
        .fit(Q)
        .partial_fit(Q)
        .query(X, 4)
    ),
    "label quality": lambda net, X, Q, y: LabelDenoiser(net).fit(X, y).label_quality(X, y),
    "label issues": lambda net, X, Q, y: LabelDenoiser(net).fit(X, y).transform(Q),
    "diagnostics": lambda net, X, Q, y: list(FitDiagnostics(net).fit(X, y).summary().values()),
    "gram": lambda net, X, Q, y: NetworkKernel(net)(X, Q),
    "kernel as a transformer": lambda net, X, Q, y: NetworkKernel(net).fit(X).transform(Q),
    "perceptual kernel": lambda net, X, Q, y: PerceptualKernel(net)(X, Q),
    "contributions": lambda net, X, Q, y: NetworkKernel(net).contributions(Q, Q).similarity,
    "workers": lambda net, X, Q, y: NetworkDensity(net, n_jobs=2).fit(X).score_samples(Q),
}


@pytest.fixture(autouse=True)
def threads():
    """Let workers be threads, which start at once."""
    import joblib

    with joblib.parallel_config("threading"):
        yield


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("frozen", [False, True], ids=["Pipeline", "frozen"])
@pytest.mark.filterwarnings("error:X does not have valid feature names")
def test_raw_rows_give_the_results_of_prepared_rows(example, frozen, call):
    queries = example.kind.take(example.X, ROWS)
    estimator = FrozenEstimator(example.pipeline) if frozen else example.pipeline
    prepared = take_prepared(example.prepared, ROWS)
    expected = call(example.network, to_dense(example.prepared), to_dense(prepared), example.y)
    result = call(estimator, example.X, queries, example.y)
    np.testing.assert_allclose(np.asarray(result), np.asarray(expected), atol=1e-6)


def to_dense(X):
    return X.toarray() if hasattr(X, "toarray") else X


def test_raw_rows_are_written_to_a_store(example, tmp_path):
    featurizer = GradientFeaturizer(example.pipeline, n_components=8, random_state=0)
    featurizer.fit(example.X)
    store = featurize(featurizer, example.X, tmp_path / "store", rows_per_shard=10)
    np.testing.assert_allclose(store[:], featurizer.transform(example.X), atol=1e-4)


def test_raw_rows_are_shown_by_the_explorer(example, tmp_path):
    page = explore(example.pipeline, example.X, example.y, tmp_path / "page.html", n_neighbors=3)
    assert page is None or (tmp_path / "page.html").stat().st_size > 1000


def test_an_untrained_pipeline_is_trained_on_raw_rows(example):
    from sklearn.base import clone

    density = NetworkDensity(clone(example.pipeline)).fit(example.X, example.y)
    assert np.isfinite(density.score_samples(example.X)).all()
