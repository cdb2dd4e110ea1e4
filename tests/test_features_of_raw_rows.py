"""Names of features, columns in another form, and warnings are those of scikit-learn."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
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
)

from .kinds import (
    KINDS,
    ROWS,
    N,
    make_example,
    make_numbers,
    make_perceptron,
    make_table,
    to_dense,
    to_float32,
)

Y = np.arange(N) % 2

ESTIMATORS = {
    "density": lambda net: NetworkDensity(net, method="power"),
    "features": lambda net: GradientFeaturizer(net, n_components=4, random_state=0),
    "kernel": NetworkKernel,
    "perceptual kernel": PerceptualKernel,
    "neighbours": NetworkNeighbors,
    "denoiser": LabelDenoiser,
    "diagnostics": FitDiagnostics,
    "sampler": lambda net: ActiveLearningSampler(net, random_state=0),
}
estimators = pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)

#: Estimators with a method for queries.
QUERIES = {
    "score_samples": lambda fitted, Q: fitted.score_samples(Q),
    "transform": lambda fitted, Q: fitted.transform(Q),
    "query": lambda fitted, Q: fitted.query(Q, 1),
}


def query(fitted, Q):
    """Call the method for queries, if there is one."""
    methods = [call for name, call in QUERIES.items() if hasattr(fitted, name)]
    return to_dense(methods[0](fitted, Q)) if methods else None


@estimators
@pytest.mark.parametrize("kind", KINDS)
def test_names_of_features_are_those_of_a_table_only(make, kind):
    example = make_example(KINDS[kind])
    fitted = make(example.pipeline).fit(example.X, example.y)
    columns = list(getattr(example.X, "columns", []))
    assert list(getattr(fitted, "feature_names_in_", [])) == columns
    assert getattr(fitted, "n_features_in_", 0) == len(columns)


@estimators
@pytest.mark.parametrize("kind", ["list of texts", "column of texts", "SliceDict"])
def test_names_of_an_earlier_fit_are_forgotten(make, kind):
    table, other = make_example(KINDS["table"]), make_example(KINDS[kind])
    fitted = make(table.pipeline).fit(table.X, table.y)
    fitted.set_params(estimator=other.pipeline).fit(other.X, other.y)
    assert not hasattr(fitted, "feature_names_in_") and not hasattr(fitted, "n_features_in_")


@estimators
def test_a_tensor_forgets_the_names_of_an_earlier_fit(make):
    torch.manual_seed(0)
    fitted = make(make_perceptron(2)).fit(make_numbers(), Y)
    assert list(fitted.feature_names_in_) == ["age", "income"]
    fitted.fit(torch.as_tensor(make_numbers().to_numpy()), Y)
    assert not hasattr(fitted, "feature_names_in_") and fitted.n_features_in_ == 2


#: Tables that a ColumnTransformer by name accepts.
ACCEPTED = {
    "other order": lambda table: table[["income", "city", "age"]],
    "another column": lambda table: table.assign(size=1),
    "another column first": lambda table: pd.concat([table[["age"]] * 0, table], axis=1).set_axis(
        ["size", *table], axis=1
    ),
    "polars": lambda table: pl.DataFrame(table.to_dict("list")),
    "another index": lambda table: table.set_index(np.arange(len(table)) + 7),
}


@estimators
@pytest.mark.parametrize("change", ACCEPTED.values(), ids=ACCEPTED)
def test_a_pipeline_by_name_takes_the_tables_that_its_steps_take(make, change):
    example = make_example(KINDS["table"])
    fitted = make(example.pipeline).fit(example.X, example.y)
    queries = example.X.iloc[ROWS]
    np.testing.assert_array_equal(
        np.asarray(example.pipeline.predict(change(queries))), example.pipeline.predict(queries)
    )
    np.testing.assert_equal(query(fitted, change(queries)), query(fitted, queries))


#: Tables that a network of arrays refuses, and the message of scikit-learn.
REFUSED = {
    "other order": (lambda table: table[["income", "age"]], "must be in the same order"),
    "another column": (lambda table: table.assign(size=1), "unseen at fit time:\n- size"),
    "missing column": (lambda table: table[["age"]], "yet now missing:\n- income"),
    "other name": (lambda table: table.rename(columns={"age": "years"}), "missing:\n- age"),
}


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name != "diagnostics"])
@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("has_steps", [False, True], ids=["network", "Pipeline"])
def test_other_columns_raise_the_error_of_scikit_learn(name, case, has_steps):
    (change, message), table = case, make_numbers()
    net = make_scaled() if has_steps else make_perceptron(2)
    fitted = ESTIMATORS[name](net).fit(table, Y)
    with pytest.raises(ValueError, match=message):
        query(fitted, change(table.iloc[ROWS]))


def test_columns_of_keyword_arguments_may_have_another_order():
    example = make_example(KINDS["table of keyword arguments"])
    fitted = NetworkDensity(example.network).fit(example.X)
    queries = example.X.iloc[ROWS]
    expected = fitted.score_samples(queries)
    np.testing.assert_array_equal(fitted.score_samples(queries[["income", "age"]]), expected)
    columns = {name: queries[[name]].to_numpy() for name in ("income", "age")}
    np.testing.assert_array_equal(fitted.score_samples(columns), expected)


def make_scaled():
    """Return a trained Pipeline whose scaler was fitted on a table."""
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        make_perceptron(2), criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0, train_split=None
    )
    steps = StandardScaler(), FunctionTransformer(to_float32)
    return make_pipeline(*steps, net).fit(make_numbers(), Y)


def make_ignoring():
    """Return a trained Pipeline whose encoder warns of unknown categories."""
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        make_perceptron(2), criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0, train_split=None
    )
    encoder = OneHotEncoder(handle_unknown="ignore", drop="first")
    columns = ColumnTransformer([("names", encoder, ["city"])])
    return make_pipeline(columns, FunctionTransformer(to_float32), net).fit(make_table(), Y)


def list_warnings(function, *arguments):
    """Return the texts of all warnings that a function issues."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function(*arguments)
    return [str(warning.message) for warning in caught]


NAMES = "X does not have valid feature names, but StandardScaler was fitted with feature names"


@estimators
@pytest.mark.parametrize("form", [pd.DataFrame.to_numpy, lambda table: table.to_numpy().tolist()])
def test_arrays_for_a_scaler_of_a_table_warn_once_as_in_predict(make, form):
    pipeline, table = make_scaled(), make_numbers()
    X, Q = form(table), form(table.iloc[ROWS])
    assert list_warnings(pipeline.predict, Q) == [NAMES]
    fitted = make(pipeline).fit(table, Y)
    expected = [NAMES] if any(hasattr(fitted, name) for name in QUERIES) else []
    assert list_warnings(query, fitted, Q) == expected
    # Queries do not repeat what fit has said.
    assert list_warnings(fitted.fit, X, Y) == [NAMES]
    assert list_warnings(query, fitted, Q) == list_warnings(query, fitted, table.iloc[ROWS]) == []


@estimators
def test_tables_for_a_scaler_of_a_table_do_not_warn(make):
    pipeline, table = make_scaled(), make_numbers()
    assert list_warnings(make(pipeline).fit, table, Y) == []
    assert list_warnings(query, make(pipeline).fit(table, Y), table.iloc[ROWS]) == []


def test_a_step_of_this_package_does_not_repeat_the_warnings_of_another_step():
    torch.manual_seed(0)
    X = make_numbers()
    scaler = StandardScaler().fit(X)
    features = GradientFeaturizer(make_perceptron(2), n_components=2, random_state=0)
    features.fit(scaler.transform(X))
    net = NeuralNetClassifier(make_perceptron(2), criterion=nn.CrossEntropyLoss).initialize()
    pipeline = FrozenEstimator(make_pipeline(scaler, features, net))
    density = NetworkDensity(pipeline, method="power").fit(X)
    assert list_warnings(density.score_samples, X.to_numpy()) == [NAMES]


def test_each_query_warns_of_its_unknown_categories():
    pipeline, table = make_ignoring(), make_table()
    fitted = NetworkDensity(pipeline, method="power").fit(table)
    queries = table.iloc[ROWS].assign(city="Paris")
    expected = list_warnings(pipeline.predict, queries)
    assert "unknown categories" in expected[0] and len(expected) == 1
    assert list_warnings(fitted.score_samples, queries) == expected
    assert list_warnings(fitted.score_samples, queries) == expected
    assert list_warnings(fitted.score_samples, table) == []


def test_processes_warn_once():
    pipeline, table = make_scaled(), make_numbers()
    fitted = NetworkDensity(pipeline, method="power", n_jobs=2).fit(table)
    assert list_warnings(fitted.score_samples, table.to_numpy()) == [NAMES]


def test_warnings_of_a_step_may_be_errors():
    fitted = NetworkDensity(make_scaled()).fit(make_numbers())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="valid feature names"):
            fitted.score_samples(make_numbers().to_numpy())


def test_gram_matrices_without_fit_warn_once():
    kernel, X = NetworkKernel(make_scaled()), make_numbers().to_numpy()
    assert list_warnings(kernel, X, X[ROWS]) == [NAMES]
    assert list_warnings(kernel, X, X[ROWS]) == [NAMES]
