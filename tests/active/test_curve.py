"""The loop of training, querying and labelling, and the curves that it returns."""

from typing import ClassVar

import numpy as np
import pandas
import pytest
import torch
from sklearn import config_context
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn
from torch.utils.data import TensorDataset

from sknetsim import ActiveLearningCurve, ActiveLearningSampler, active_learning_curve

LOOP = {"n_initial": 5, "n_queries": 4, "n_rounds": 3, "seeds": [3, 8]}


class Perceptron(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1))


def regressor():
    return NeuralNetRegressor(Perceptron, max_epochs=3, train_split=None, verbose=0)


def make_data(count=60):
    X = np.random.RandomState(0).normal(size=(count, 2)).astype("float32")
    return X, X[:, :1] * X[:, 1:]


class First(BaseEstimator):
    """Sampler that chooses the first samples of the pool, and records its input."""

    seen: ClassVar[list] = []

    def __init__(self, estimator=None, random_state=None):
        self.estimator = estimator
        self.random_state = random_state

    def fit(self, X, y):
        self.labelled_ = X, y
        return self

    def query(self, X, n_queries):
        First.seen.append((self.labelled_, X, self.estimator.initialized_, self.random_state))
        return np.arange(n_queries)


def run_loop(sampler=None, **changed):
    sampler = ActiveLearningSampler(strategy="lcmd") if sampler is None else sampler
    return active_learning_curve(regressor(), sampler, *make_data(), **{**LOOP, **changed})


def test_there_is_a_score_for_each_seed_and_round():
    curve = run_loop()
    assert curve.n_labelled.tolist() == [5, 9, 13, 17]
    assert curve.scores.shape == (2, 4)
    assert np.isfinite(curve.scores).all()
    assert curve.query_times.shape == (2, 3)
    assert curve.seeds == (3, 8)


def test_each_sample_is_labelled_once_and_none_of_the_test_samples():
    curve = run_loop(n_queries=40, n_rounds=1)
    assert curve.indices.shape == (2, 45)
    for row in curve.indices:
        assert len(set(row.tolist())) == 45 == len(make_data()[0]) - 15


def test_samplers_start_with_the_same_samples_and_scores():
    first, second = run_loop(), run_loop(ActiveLearningSampler(strategy="random"))
    assert (first.indices[:, :5] == second.indices[:, :5]).all()
    np.testing.assert_array_equal(first.scores[:, 0], second.scores[:, 0])
    assert (first.indices != second.indices).any()


def test_equal_seeds_give_equal_curves():
    first, second = run_loop(), run_loop()
    np.testing.assert_array_equal(first.scores, second.scores)
    np.testing.assert_array_equal(first.indices, second.indices)


@pytest.mark.slow
def test_processes_do_not_change_the_scores():
    np.testing.assert_array_equal(run_loop(n_jobs=2).scores, run_loop().scores)


def test_seeds_start_from_different_weights():
    # All samples are equal, so that only the networks differ.
    X, y = np.repeat(make_data(1)[0], 20, axis=0), np.repeat(make_data(1)[1], 20, axis=0)
    curve = active_learning_curve(
        regressor(), First(), X, y, n_initial=2, n_queries=1, n_rounds=0, seeds=[0, 1],
        scoring=lambda net, X, y: float(net.predict(X)[0, 0]),
    )  # fmt: skip
    assert curve.scores[0, 0] != curve.scores[1, 0]


def test_the_sampler_gets_the_labelled_samples_the_pool_and_the_trained_network():
    First.seen.clear()
    curve = run_loop(First(), seeds=[3])
    X, y = make_data()
    for number, ((X_labelled, y_labelled), X_pool, trained, seed) in enumerate(First.seen):
        labelled = curve.indices[0, : 5 + 4 * number]
        np.testing.assert_array_equal(X_labelled, X[labelled])
        np.testing.assert_array_equal(y_labelled, y[labelled])
        np.testing.assert_array_equal(X_pool[:4], X[curve.indices[0, 5 + 4 * number :][:4]])
        assert len(X_pool) == 45 - len(labelled)
        assert trained
        assert seed == 3
    assert len(First.seen) == 3


def test_network_sampler_and_random_state_are_unchanged():
    net, sampler = regressor(), ActiveLearningSampler(strategy="random")
    state = torch.random.get_rng_state()
    active_learning_curve(net, sampler, *make_data(), **LOOP)
    assert not hasattr(net, "module_")
    assert sampler.estimator is None
    assert not hasattr(sampler, "estimator_")
    assert torch.equal(torch.random.get_rng_state(), state)


def test_scoring_is_that_of_scikit_learn():
    X, y = make_data()
    net = NeuralNetClassifier(
        nn.Sequential(nn.Linear(2, 2)), criterion=nn.CrossEntropyLoss, verbose=0, max_epochs=1
    )
    net.set_params(train_split=None)
    labels = (y[:, 0] > 0).astype(int)
    sampler = ActiveLearningSampler(strategy="badge")
    accuracy, likelihood = (
        active_learning_curve(net, sampler, X, labels, scoring=scoring, **LOOP).scores
        for scoring in (None, "neg_log_loss")
    )
    assert ((accuracy >= 0) & (accuracy <= 1)).all()
    assert (likelihood < 0).all()


FORMS = {
    "tensors": lambda X, y: (torch.tensor(X), y),
    "datasets": lambda X, y: (TensorDataset(torch.tensor(X), torch.tensor(y)), y),
}


@pytest.mark.parametrize("form", FORMS)
def test_tensors_and_datasets_give_the_same_choices(form):
    X, y = FORMS[form](*make_data())
    sampler = ActiveLearningSampler(strategy="lcmd")
    curve = active_learning_curve(
        regressor(), sampler, X, y, scoring=lambda net, X, y: -np.mean((net.predict(X) - y) ** 2),
        **LOOP,
    )  # fmt: skip
    assert (curve.indices == run_loop().indices).all()


def test_frames_are_indexed_by_position():
    X, y = make_data()
    frame = pandas.DataFrame(X, columns=["a", "b"], index=range(100, 160))
    sampler = ActiveLearningSampler(strategy="random")

    class ArrayRegressor(NeuralNetRegressor):
        def get_dataset(self, X, y=None):
            return super().get_dataset(np.asarray(X), y)

    net = ArrayRegressor(Perceptron, max_epochs=1, train_split=None, verbose=0)
    assert active_learning_curve(net, sampler, frame, y, **LOOP).scores.shape == (2, 4)


def run_on(X, y, net=None, **changed):
    sampler = ActiveLearningSampler(strategy="lcmd")
    loop = {**LOOP, "n_rounds": 1, **changed}
    return active_learning_curve(regressor() if net is None else net, sampler, X, y, **loop)


LABELS = {
    "flat": lambda y: y[:, 0],
    "float64": lambda y: y.astype(float),
    "Series": lambda y: pandas.Series(y[:, 0], index=range(7, 67)),
    "objects": lambda y: y[:, 0].astype(object),
    "DataFrame": lambda y: pandas.DataFrame(y, index=range(7, 67)),
    "list": lambda y: y[:, 0].tolist(),
    "tensor": lambda y: torch.tensor(y[:, 0]),
}


@pytest.mark.parametrize("convert", LABELS.values(), ids=LABELS)
def test_labels_of_each_form_give_the_same_curve(convert):
    X, y = make_data()
    curve, expected = run_on(X, convert(y)), run_on(X, y)
    np.testing.assert_array_equal(curve.indices, expected.indices)
    np.testing.assert_allclose(curve.scores, expected.scores, rtol=1e-5)


TABLES = {
    "float64": lambda X: X.astype(float),
    "list": lambda X: X.tolist(),
    "DataFrame": lambda X: pandas.DataFrame(X.astype(float), index=range(7, 67)),
    "DataFrame of objects": lambda X: pandas.DataFrame(X, columns=["a", "b"]).astype(object),
    "float64 tensor": lambda X: torch.tensor(X).double(),
}


@pytest.mark.parametrize("convert", TABLES.values(), ids=TABLES)
def test_inputs_of_each_form_give_the_same_curve(convert):
    X, y = make_data()
    curve, expected = run_on(convert(X), y), run_on(X, y)
    np.testing.assert_array_equal(curve.indices, expected.indices)
    np.testing.assert_allclose(curve.scores, expected.scores, rtol=1e-5)


def test_columns_of_integers_and_booleans_are_numbers():
    X, y = make_data()
    X = np.column_stack([np.round(3 * X[:, 0]), X[:, 1] > 0]).astype(np.float32)
    table = pandas.DataFrame({"a": X[:, 0].astype(int), "b": X[:, 1].astype(bool)})
    for converted in (X.astype(int), table):
        np.testing.assert_allclose(run_on(converted, y).scores, run_on(X, y).scores, rtol=1e-5)


def test_steps_of_a_pipeline_get_float64_and_the_score_too():
    X, y = make_data()
    net = make_pipeline(StandardScaler(), regressor())
    curve, expected = run_on(X.astype(float), y[:, 0], net), run_on(X, y, net)
    np.testing.assert_array_equal(curve.indices, expected.indices)
    np.testing.assert_allclose(curve.scores, expected.scores, rtol=1e-3)


def test_steps_may_return_tables():
    X, y = make_data()
    net = make_pipeline(StandardScaler(), regressor())
    with config_context(transform_output="pandas"):
        curve = run_on(X, y, net)
    np.testing.assert_allclose(curve.scores, run_on(X, y, net).scores, rtol=1e-3)


CLASSES = {
    "int32": lambda y: y.astype(np.int32),
    "booleans": lambda y: y.astype(bool),
    "column": lambda y: y[:, None],
    "whole numbers": lambda y: y.astype(float),
}


@pytest.mark.parametrize("scoring", [None, "accuracy", "neg_log_loss"])
@pytest.mark.parametrize("convert", CLASSES.values(), ids=CLASSES)
def test_classes_of_each_form_give_the_same_scores(convert, scoring):
    X, y = make_data()
    y = (y[:, 0] > 0).astype(np.int64)
    module = nn.Sequential(nn.Linear(2, 2))
    net = make_pipeline(
        StandardScaler(),
        NeuralNetClassifier(
            module, criterion=nn.CrossEntropyLoss, train_split=None, max_epochs=2, verbose=0
        ),
    )
    if scoring == "neg_log_loss":
        net = net.set_params(neuralnetclassifier__predict_nonlinearity="auto")
    curve, expected = (run_on(X, labels, net, scoring=scoring) for labels in (convert(y), y))
    np.testing.assert_allclose(curve.scores, expected.scores, rtol=1e-5)


NAMES = np.array(["a", "b"] * 30)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (NAMES, "contain numbers.*got dtype <U1"),
        (pandas.Series(NAMES), "contain numbers.*got dtype <U1"),
        (pandas.Categorical(NAMES), "contain numbers.*got dtype <U1"),
        ([None, *range(59)], "types NoneType, int"),
        ([np.nan, *range(59)], "be finite"),
    ],
    ids=["names", "Series", "Categorical", "None", "NaN"],
)
def test_labels_that_are_not_numbers_raise_an_error(y, message):
    with pytest.raises(ValueError, match=f"`y` must .*{message}"):
        run_on(make_data()[0], y, scoring="r2")


def test_labels_that_do_not_fit_the_outputs_raise_an_error():
    X, y = make_data()
    with pytest.raises(ValueError, match=r"`y` must have labels of shape \(1,\)"):
        run_on(X, np.column_stack([y, y]))


def make_curve(scores, seeds=None):
    scores = np.array(scores, dtype=float)
    seeds = tuple(range(len(scores))) if seeds is None else seeds
    counts = 5 + np.arange(scores.shape[1])
    indices = np.zeros((len(scores), int(counts[-1])), dtype=int)
    return ActiveLearningCurve(counts, scores, scores[:, 1:], indices, seeds)


def test_the_area_does_not_include_the_initial_score():
    np.testing.assert_allclose(make_curve([[9, 1, 2, 3], [9, 3, 4, 5]]).area(), [2, 4])


def test_the_difference_is_paired_and_has_students_interval():
    from scipy import stats

    first = make_curve([[0, 1.0], [0, 2.5], [0, 3.2]])
    second = make_curve([[0, 0.5], [0, 1.0], [0, 2.0]])
    mean, half = first.difference(second)
    interval = stats.ttest_rel(first.area(), second.area()).confidence_interval(0.95)
    np.testing.assert_allclose([mean - half, mean + half], interval)


def test_a_single_seed_has_no_interval():
    mean, half = make_curve([[0, 1.0]]).difference(make_curve([[0, 0.5]]))
    assert mean == 0.5
    assert np.isnan(half)


def test_curves_of_different_seeds_cannot_be_compared():
    with pytest.raises(
        ValueError, match=r"`other` must be a curve of the same seeds, \(0,\); got \(1,\)"
    ):
        make_curve([[0, 1]], seeds=(0,)).difference(make_curve([[0, 1]], seeds=(1,)))


def test_the_frame_has_one_row_per_seed_and_round():
    frame = make_curve([[1, 2], [3, 4]], seeds=(7, 9)).to_frame()
    assert frame.to_dict("list") == {
        "seed": [7, 7, 9, 9],
        "n_labelled": [5, 6, 5, 6],
        "score": [1, 2, 3, 4],
    }


@pytest.mark.parametrize(
    "changed", [{"n_rounds": 11}, {"n_initial": 50}, {"test_size": 0.8}], ids=str
)
def test_more_labels_than_samples_raise_an_error(changed):
    with pytest.raises(ValueError, match=r"must be at most \d+ .*; got \d+"):
        run_loop(**changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"test_size": 1.0}, "test_size"),
        ({"test_size": -1}, "test_size"),
        ({"n_initial": 0}, "n_initial"),
        ({"n_queries": 0}, "n_queries"),
        ({"n_rounds": -1}, "n_rounds"),
        ({"seeds": []}, "seeds"),
    ],
    ids=str,
)
def test_numbers_out_of_range_raise_an_error(changed, message):
    with pytest.raises(ValueError, match=message):
        run_loop(**changed)


@pytest.mark.parametrize("count", [25, 90])
def test_labels_of_another_length_raise_an_error(count):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        active_learning_curve(regressor(), First(), make_data()[0], make_data(count)[1], **LOOP)


def test_missing_labels_raise_an_error():
    with pytest.raises(ValueError, match=r"`y` must be the labels of X; got None\. Pass one"):
        active_learning_curve(regressor(), First(), make_data()[0], None, **LOOP)


@pytest.mark.parametrize(
    "fixed",
    [
        FrozenEstimator(regressor().initialize()),
        make_pipeline(FrozenEstimator(regressor())),
        nn.Linear(2, 1),
        make_pipeline(nn.Linear(2, 1)),
        LinearRegression(),
        None,
    ],
    ids=["frozen", "frozen in a Pipeline", "module", "module in a Pipeline", "other", "None"],
)
def test_networks_that_fit_does_not_train_raise_an_error(fixed):
    with pytest.raises(ValueError, match=r"`estimator` must be a skorch net, .* trains anew; got"):
        active_learning_curve(fixed, First(), *make_data(), **LOOP)


def test_curves_of_different_numbers_cannot_be_compared():
    with pytest.raises(
        ValueError, match=r"same numbers of labelled samples, \[5, 6\]; got \[5, 6, 7\]"
    ):
        make_curve([[0, 1]]).difference(make_curve([[0, 1, 2]]))


def test_dicts_are_indexed_array_by_array():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def forward(self, first, second):
            return self.layer(first + second)

    X, y = make_data()
    net = NeuralNetRegressor(Sum, max_epochs=1, train_split=None, verbose=0)
    both = {"first": X, "second": X}
    curve = active_learning_curve(net, ActiveLearningSampler(strategy="lcmd"), both, y, **LOOP)
    assert curve.scores.shape == (2, 4)
