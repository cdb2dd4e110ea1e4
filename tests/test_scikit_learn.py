"""Conventions of scikit-learn beyond its own checks."""

import inspect
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from numpydoc.validate import validate
from sklearn.model_selection import GridSearchCV
from sklearn.utils import estimator_html_repr, get_tags

import sknetsim
from sknetsim import (
    ActiveLearningSampler,
    GradientFeaturizer,
    NetworkDensity,
    NetworkKernel,
    NetworkNeighbors,
    PerceptualKernel,
    displays,
    losses,
)

from .cases import NETWORKS, build

ESTIMATORS = [
    ActiveLearningSampler,
    GradientFeaturizer,
    NetworkDensity,
    NetworkKernel,
    NetworkNeighbors,
    PerceptualKernel,
]
estimators = pytest.mark.parametrize("kind", ESTIMATORS, ids=lambda kind: kind.__name__)
# Not required: extended summaries, sections without content, and examples of methods, because
# there is one for the class.
IGNORED = {"ES01", "SA01", "SA04", "EX01", "GL08", "RT02", "YD01"}


@pytest.fixture(scope="module")
def data():
    network, X = build(NETWORKS[0], n_samples=12)
    return network, X.numpy()


def list_documented():
    """Yield the names of all public classes and functions, and of their public methods."""
    for module in (sknetsim, displays, losses):
        for name in module.__all__:
            yield f"{module.__name__}.{name}"
            yield from list_methods(module, name)


def list_methods(module, name):
    value = getattr(module, name)
    if inspect.isclass(value) and not issubclass(value, Warning | Exception):
        for method, member in inspect.getmembers(value):
            ours = getattr(member, "__module__", "") or ""
            if not method.startswith("_") and ours.startswith("sknetsim."):
                yield f"{module.__name__}.{name}.{method}"


@pytest.mark.parametrize("name", sorted(set(list_documented())))
def test_docstrings_follow_numpydoc(name):
    value = sknetsim
    for part in name.split(".")[1:]:
        value = getattr(value, part)
    if inspect.isclass(value) and issubclass(value, Warning | Exception):
        assert value.__doc__
        return
    errors = [error for error in validate(name)["errors"] if error[0] not in IGNORED]
    assert errors == []


TAGS = {
    GradientFeaturizer: "transformer_tags",
    NetworkKernel: "transformer_tags",
    NetworkNeighbors: "transformer_tags",
    PerceptualKernel: "transformer_tags",
}


@estimators
def test_tags_describe_the_kind_of_estimator(kind):
    tags = get_tags(kind())
    assert (tags.estimator_type == "outlier_detector") == (kind is NetworkDensity)
    assert (getattr(tags, TAGS[kind]) is not None) if kind in TAGS else True
    assert not tags.input_tags.pairwise


@estimators
def test_a_notebook_shows_the_estimator_and_its_parameters(data, kind):
    network, X = data
    page = estimator_html_repr(kind(network, random_state=12345).fit(X))
    assert kind.__name__ in page
    assert "12345" in page


FRAMES = {"pandas": pd.DataFrame, "polars": pl.DataFrame}


@pytest.mark.parametrize(("library", "frame"), FRAMES.items(), ids=FRAMES)
@pytest.mark.parametrize("kind", [GradientFeaturizer, NetworkKernel, PerceptualKernel])
def test_set_output_names_the_columns(data, library, frame, kind):
    network, X = data
    params = {"n_components": 3, "random_state": 0} if kind is GradientFeaturizer else {}
    estimator = kind(network, **params)
    plain = estimator.fit(X).transform(X)
    table = estimator.set_output(transform=library).transform(X)
    assert isinstance(table, frame)
    assert list(table.columns) == list(estimator.get_feature_names_out())
    np.testing.assert_array_equal(table.to_numpy(), plain)


def test_a_sparse_graph_cannot_become_a_table(data):
    network, X = data
    neighbors = NetworkNeighbors(network, n_neighbors=2).set_output(transform="pandas").fit(X)
    with pytest.raises(ValueError, match="sparse matrix"):
        neighbors.transform(X)


def test_a_notebook_does_not_score_samples(data, monkeypatch):
    network, X = data
    fitted = NetworkDensity(network).fit(X)
    monkeypatch.setattr(NetworkDensity, "_log_density", None)
    assert "NetworkDensity" in estimator_html_repr(fitted)


def test_outliers_of_a_table_are_predicted_without_warnings(data):
    network, X = data
    table = pd.DataFrame(X, columns=[f"column {index}" for index in range(X.shape[1])])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NetworkDensity(network).fit(table).predict(table)


@estimators
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_column_names_of_a_table_are_stored_and_checked(data, kind, frame):
    network, X = data
    names = [f"column {index}" for index in range(X.shape[1])]
    fitted = kind(network).fit(frame(dict(zip(names, X.T, strict=True))))
    assert list(fitted.feature_names_in_) == names
    assert fitted.n_features_in_ == len(names)
    renamed = frame(dict(zip(names[::-1], X.T, strict=True)))
    with pytest.raises(ValueError, match="feature names should match"):
        methods = ("transform", "score_samples", "query")
        next(getattr(fitted, name) for name in methods if hasattr(fitted, name))(renamed)


@estimators
def test_estimators_work_with_metadata_routing(data, kind):
    network, X = data
    with sklearn.config_context(enable_metadata_routing=True):
        fitted = kind(network).fit(X, np.zeros(len(X)))
        assert fitted.get_metadata_routing() is not None


def test_a_grid_search_works_with_metadata_routing(data):
    network, X = data
    density = NetworkDensity(network, method="threshold", dimension=3.0)
    search = GridSearchCV(density, {"threshold": [0.1, 0.5]}, cv=2)
    expected = search.fit(X).cv_results_["mean_test_score"]
    with sklearn.config_context(enable_metadata_routing=True):
        actual = search.fit(X).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(actual, expected)


def test_a_grid_search_can_compare_methods(data):
    network, X = data
    grid = [
        {"method": ["soft"]},
        {"method": ["threshold"], "threshold": [0.3, 0.6]},
        {"method": ["power"], "alpha": [2.0, 8.0]},
    ]
    search = GridSearchCV(NetworkDensity(network, dimension=3.0), grid, cv=3).fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.method in ("soft", "threshold", "power")


@pytest.mark.parametrize("seed", [0, 1, None])
def test_cross_validated_densities_do_not_depend_on_the_seed(data, seed):
    network, X = data

    def scores(random_state):
        density = NetworkDensity(network, method="power", random_state=random_state)
        return GridSearchCV(density, {"alpha": [1, 4, 16]}, cv=3).fit(X).cv_results_

    np.testing.assert_array_equal(scores(seed)["mean_test_score"], scores(3)["mean_test_score"])
