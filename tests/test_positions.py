"""Estimators on raw rows in each position that scikit-learn offers.

Each result equals that of the network of the Pipeline with the rows after its steps.
"""

import pickle
import warnings

import numpy as np
import pytest
import sklearn
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.svm import SVC
from skorch.helper import SliceDict

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
    take_prepared,
    to_dense,
)

pytestmark = pytest.mark.usefixtures("threads")


def make_features(net):
    return GradientFeaturizer(net, n_components=4, random_state=0)


def make_density(net, **params):
    return NetworkDensity(net, method="power", dimension=3.0, **params)


def make_classifier(net):
    return make_pipeline(make_features(net), LogisticRegression())


def get_scores(search):
    return search.cv_results_["mean_test_score"]


def search_estimators(net, X):
    grid = {"estimator": [FrozenEstimator(net)], "output": ["all", "predicted"]}
    return GridSearchCV(make_density(None), grid, cv=2, error_score="raise").fit(X)


POSITIONS = {
    "last step": lambda net, X, Q, y: (
        make_pipeline("passthrough", make_density(net)).fit(X).score_samples(Q)
    ),
    "features before a classifier": lambda net, X, Q, y: (
        make_classifier(net).fit(X, y).predict_proba(Q)
    ),
    "kernel before a classifier": lambda net, X, Q, y: (
        make_pipeline(NetworkKernel(net), LogisticRegression()).fit(X, y).predict_proba(Q)
    ),
    "kernel before a support vector machine": lambda net, X, Q, y: (
        make_pipeline(NetworkKernel(net), SVC(kernel="precomputed")).fit(X, y).decision_function(Q)
    ),
    "perceptual kernel before a classifier": lambda net, X, Q, y: (
        make_pipeline(PerceptualKernel(net), LogisticRegression()).fit(X, y).predict_proba(Q)
    ),
    "denoised labels before a classifier": lambda net, X, Q, y: (
        make_pipeline(LabelDenoiser(net), LogisticRegression()).fit(X, y).predict_proba(Q)
    ),
    "neighbours before a classifier": lambda net, X, Q, y: (
        make_pipeline(NetworkNeighbors(net), KNeighborsClassifier(3, metric="precomputed"))
        .fit(X, y)
        .predict_proba(Q)
    ),
    "search over parameters": lambda net, X, Q, y: get_scores(
        GridSearchCV(make_density(net), {"alpha": [1.0, 8.0]}, cv=2, error_score="raise").fit(X)
    ),
    "search over parameters of a step": lambda net, X, Q, y: (
        GridSearchCV(
            make_classifier(net),
            {"gradientfeaturizer__n_components": [2, 4]},
            scoring="neg_log_loss",
            cv=2,
        )
        .fit(X, y)
        .predict_proba(Q)
    ),
    "search over estimators": lambda net, X, Q, y: search_estimators(
        net, X
    ).best_estimator_.score_samples(Q),
    "search by two jobs": lambda net, X, Q, y: get_scores(
        GridSearchCV(make_density(net), {"alpha": [1.0, 8.0]}, cv=2, n_jobs=2).fit(X)
    ),
    "search with workers": lambda net, X, Q, y: get_scores(
        GridSearchCV(make_density(net, n_jobs=2), {"alpha": [1.0, 8.0]}, cv=2).fit(X)
    ),
    # With metadata routing, scikit-learn 1.6 does not take params=None.
    "cross_val_score": lambda net, X, Q, y: cross_val_score(
        make_density(net), X, cv=2, n_jobs=2, params={}
    ),
    "cross_val_predict": lambda net, X, Q, y: cross_val_predict(
        make_classifier(net), X, y, cv=2, method="predict_proba", params={}
    ),
    "cross_val_predict of outliers": lambda net, X, Q, y: cross_val_predict(
        make_density(net), X, cv=2, method="decision_function", params={}
    ),
    "cross_validate": lambda net, X, Q, y: cross_validate(
        make_classifier(net), X, y, cv=2, scoring="neg_log_loss", params={}
    )["test_score"],
    "kernel of a support vector machine": lambda net, X, Q, y: (
        SVC(kernel=NetworkKernel(net)).fit(X, y).decision_function(Q)
    ),
    "CalibratedClassifierCV of a support vector machine": lambda net, X, Q, y: (
        CalibratedClassifierCV(SVC(kernel=PerceptualKernel(net)), cv=2).fit(X, y).predict_proba(Q)
    ),
    "FeatureUnion": lambda net, X, Q, y: (
        FeatureUnion([("features", make_features(net)), ("kernel", NetworkKernel(net))])
        .fit(X)
        .transform(Q)
    ),
    "CalibratedClassifierCV": lambda net, X, Q, y: (
        CalibratedClassifierCV(make_classifier(net), cv=2).fit(X, y).predict_proba(Q)
    ),
    "VotingClassifier": lambda net, X, Q, y: (
        VotingClassifier([("features", make_classifier(net))], voting="soft")
        .fit(X, y)
        .predict_proba(Q)
    ),
    "StackingClassifier": lambda net, X, Q, y: (
        StackingClassifier([("features", make_classifier(net))], cv=2).fit(X, y).predict_proba(Q)
    ),
}


# Positions that slice the rows, all by one function of scikit-learn. "cross_validate" stands for
# them on the kinds of rows outside `SLICED_KINDS`.
SLICING = {
    "search over parameters",
    "search over parameters of a step",
    "search over estimators",
    "search by two jobs",
    "search with workers",
    "cross_val_score",
    "cross_val_predict",
    "cross_val_predict of outliers",
    "CalibratedClassifierCV of a support vector machine",
    "CalibratedClassifierCV",
    "StackingClassifier",
}
SLICED_KINDS = {"table", "list of texts", "SliceDict"}
PAIRS = [
    (kind, name)
    for kind in KINDS
    if not kind.startswith("array of")
    for name in POSITIONS
    if name not in SLICING or kind in SLICED_KINDS
]


def compare(example, call):
    """Compare a call on raw rows with the same call on the rows after the steps."""
    queries = example.kind.take(example.X, ROWS)
    prepared = to_dense(example.prepared)
    # scikit-learn takes the number of keys of a dict for the number of samples.
    prepared = SliceDict(**prepared) if isinstance(prepared, dict) else prepared
    expected = call(example.network, prepared, take_prepared(prepared, ROWS), example.y)
    result = call(example.pipeline, example.X, queries, example.y)
    np.testing.assert_allclose(np.asarray(result), np.asarray(expected), atol=1e-5)


@pytest.mark.parametrize(("example", "name"), PAIRS, indirect=["example"], scope="module")
def test_raw_rows_give_the_results_of_prepared_rows_in_each_position(example, name):
    if name.startswith("CalibratedClassifierCV") and isinstance(example.prepared, dict):
        pytest.skip("scikit-learn takes the number of keys of a dict for the number of samples")
    compare(example, POSITIONS[name])


@pytest.mark.parametrize("call", POSITIONS.values(), ids=POSITIONS)
def test_positions_work_with_metadata_routing(call):
    example = make_example(KINDS["list of texts"])
    with sklearn.config_context(enable_metadata_routing=True):
        compare(example, call)


def test_processes_get_raw_rows():
    import joblib

    with joblib.parallel_config("loky"):
        compare(make_example(KINDS["table"]), POSITIONS["search by two jobs"])


def copy(estimator):
    return pickle.loads(pickle.dumps(estimator))


COPIES = {
    "density": lambda net, X, Q, y: copy(make_density(net).fit(X)).score_samples(Q),
    "features": lambda net, X, Q, y: copy(make_features(net).fit(X)).transform(Q),
    "kernel": lambda net, X, Q, y: copy(NetworkKernel(net).fit(X)).transform(Q),
    "perceptual kernel": lambda net, X, Q, y: copy(PerceptualKernel(net).fit(X)).transform(Q),
    "neighbours": lambda net, X, Q, y: copy(NetworkNeighbors(net).fit(X)).kneighbors(Q)[0],
    "denoiser": lambda net, X, Q, y: copy(LabelDenoiser(net).fit(X, y)).transform(Q),
    "sampler": lambda net, X, Q, y: copy(ActiveLearningSampler(net, random_state=0).fit(Q)).query(
        X, 3
    ),
    "diagnostics": lambda net, X, Q, y: list(
        copy(FitDiagnostics(net).fit(X, y)).summary().values()
    ),
    "pipeline": lambda net, X, Q, y: copy(make_classifier(net).fit(X, y)).predict_proba(Q),
}


@pytest.mark.parametrize("call", COPIES.values(), ids=COPIES)
def test_a_pickle_of_an_estimator_that_was_fitted_on_raw_rows_is_loaded(example, call):
    compare(example, call)


TRANSFORMERS = {
    "features": make_features,
    "kernel": NetworkKernel,
    "perceptual kernel": PerceptualKernel,
}
transformers = pytest.mark.parametrize("make", TRANSFORMERS.values(), ids=TRANSFORMERS)


class Zeros(TransformerMixin, BaseEstimator):
    """Transformer whose output has the index that scikit-learn gives it."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.zeros((len(ROWS), 1))

    def get_feature_names_out(self, input_features=None):
        return np.array(["zero"])


@transformers
@pytest.mark.parametrize("library", ["pandas", "polars", "default"])
def test_set_output_on_raw_rows_keeps_values_names_and_index(example, make, library):
    queries = example.kind.take(example.X, ROWS)
    fitted = make(example.pipeline).fit(example.X)
    values = fitted.transform(queries)
    output = fitted.set_output(transform=library).transform(queries)
    np.testing.assert_array_equal(np.asarray(output), values)
    if library == "default":
        assert isinstance(output, np.ndarray)
        return
    assert list(output.columns) == list(fitted.get_feature_names_out())
    if library == "pandas":
        expected = Zeros().set_output(transform="pandas").transform(queries)
        assert list(output.index) == list(expected.index)


TABLES = ["table", "polars table"]


@pytest.mark.parametrize("name", TABLES)
def test_a_column_transformer_passes_columns_to_an_estimator(name):
    example = make_example(KINDS[name])
    features = make_features(example.pipeline)
    columns = ["age", "city", "income"]
    union = ColumnTransformer([("ours", features, columns)], remainder="passthrough")
    extended = example.X.to_dict("list") if name == "table" else example.X.to_dict(as_series=False)
    extended = type(example.X)({"size": np.arange(N), **extended})
    result = union.fit_transform(extended)
    expected = clone(features).fit(example.X).transform(example.X)
    np.testing.assert_allclose(result[:, :-1], expected, atol=1e-6)
    assert union.get_feature_names_out().tolist() == [
        *(
            f"ours__{column}"
            for column in union.named_transformers_["ours"].get_feature_names_out()
        ),
        "remainder__size",
    ]


class Failing:
    """Function of the outputs that fails."""

    def __call__(self, outputs):
        raise ValueError("this output fails")


@pytest.mark.parametrize("error_score", [np.nan, "raise"])
def test_a_failing_candidate_of_a_search_loses_only_itself(example, error_score):
    grid = {"output": ["all", Failing()]}
    search = GridSearchCV(make_density(example.pipeline), grid, cv=2, error_score=error_score)
    if error_score == "raise":
        with pytest.raises(ValueError, match="this output fails"):
            search.fit(example.X)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search.fit(example.X)
    scores = get_scores(search)
    assert np.isfinite(scores[0]) and np.isnan(scores[1])
    assert search.best_params_ == {"output": "all"}
    assert sum("this output fails" in str(warning.message) for warning in caught) == 1


def test_a_step_that_fails_in_a_search_is_named_in_its_warning():
    example = make_example(KINDS["table"])
    bad = copy(example.pipeline)
    bad[:-1].fit(example.X.assign(city="Paris"))
    grid = {"estimator": [FrozenEstimator(example.pipeline), FrozenEstimator(bad)]}
    search = GridSearchCV(make_density(None), grid, cv=2)
    with pytest.warns(FitFailedWarning, match="Found unknown categories") as caught:
        search.fit(example.X)
    assert "step 'columntransformer' (ColumnTransformer)" in str(caught[0].message)
    assert np.isfinite(get_scores(search)).tolist() == [True, False]


def test_self_training_takes_only_numbers_and_raises_the_error_of_scikit_learn():
    example = make_example(KINDS["table"])
    with pytest.raises(ValueError, match=r"^could not convert string to float"):
        SelfTrainingClassifier(make_classifier(example.pipeline)).fit(example.X, example.y)
