"""The loop of training, querying and labelling."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
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


def data(count=60):
    X = np.random.RandomState(0).normal(size=(count, 2)).astype("float32")
    return X, X[:, :1] * X[:, 1:]


class First(BaseEstimator):
    """Takes the first samples of the pool, and notes what it was given."""

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


def curve(sampler=None, **changed):
    sampler = ActiveLearningSampler(strategy="lcmd") if sampler is None else sampler
    return active_learning_curve(regressor(), sampler, *data(), **{**LOOP, **changed})


def test_there_is_a_score_for_each_seed_and_round():
    found = curve()
    assert found.n_labelled.tolist() == [5, 9, 13, 17]
    assert found.scores.shape == (2, 4)
    assert np.isfinite(found.scores).all()
    assert found.query_times.shape == (2, 3)
    assert found.seeds == (3, 8)


def test_each_sample_is_labelled_once_and_none_of_the_test_samples():
    found = curve(n_queries=40, n_rounds=1)
    assert found.indices.shape == (2, 45)
    for row in found.indices:
        assert len(set(row.tolist())) == 45 == len(data()[0]) - 15


def test_samplers_start_from_the_same_samples_and_scores():
    first, second = curve(), curve(ActiveLearningSampler(strategy="random"))
    assert (first.indices[:, :5] == second.indices[:, :5]).all()
    np.testing.assert_array_equal(first.scores[:, 0], second.scores[:, 0])
    assert (first.indices != second.indices).any()


def test_a_run_can_be_repeated():
    first, second = curve(), curve()
    np.testing.assert_array_equal(first.scores, second.scores)
    np.testing.assert_array_equal(first.indices, second.indices)


@pytest.mark.slow
def test_processes_change_nothing():
    np.testing.assert_array_equal(curve(n_jobs=2).scores, curve().scores)


def test_seeds_begin_from_other_weights():
    # One sample for all seeds, so that networks alone differ.
    X, y = np.repeat(data(1)[0], 20, axis=0), np.repeat(data(1)[1], 20, axis=0)
    found = active_learning_curve(
        regressor(), First(), X, y, n_initial=2, n_queries=1, n_rounds=0, seeds=[0, 1],
        scoring=lambda net, X, y: float(net.predict(X)[0, 0]),
    )  # fmt: skip
    assert found.scores[0, 0] != found.scores[1, 0]


def test_the_sampler_sees_what_is_labelled_the_pool_and_the_trained_network():
    First.seen.clear()
    found = curve(First(), seeds=[3])
    X, y = data()
    for number, ((X_labelled, y_labelled), X_pool, trained, seed) in enumerate(First.seen):
        labelled = found.indices[0, : 5 + 4 * number]
        np.testing.assert_array_equal(X_labelled, X[labelled])
        np.testing.assert_array_equal(y_labelled, y[labelled])
        np.testing.assert_array_equal(X_pool[:4], X[found.indices[0, 5 + 4 * number :][:4]])
        assert len(X_pool) == 45 - len(labelled)
        assert trained
        assert seed == 3
    assert len(First.seen) == 3


def test_neither_network_nor_sampler_nor_random_state_is_touched():
    net, sampler = regressor(), ActiveLearningSampler(strategy="random")
    state = torch.random.get_rng_state()
    active_learning_curve(net, sampler, *data(), **LOOP)
    assert not hasattr(net, "module_")
    assert sampler.estimator is None
    assert not hasattr(sampler, "estimator_")
    assert torch.equal(torch.random.get_rng_state(), state)


def test_scoring_is_scikit_learns():
    X, y = data()
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
def test_samples_in_other_forms(form):
    X, y = FORMS[form](*data())
    sampler = ActiveLearningSampler(strategy="lcmd")
    found = active_learning_curve(
        regressor(), sampler, X, y, scoring=lambda net, X, y: -np.mean((net.predict(X) - y) ** 2),
        **LOOP,
    )  # fmt: skip
    assert (found.indices == curve().indices).all()


def test_frames_are_indexed_by_position():
    import pandas

    X, y = data()
    frame = pandas.DataFrame(X, columns=["a", "b"], index=range(100, 160))
    sampler = ActiveLearningSampler(strategy="random")

    class Taking(NeuralNetRegressor):
        def get_dataset(self, X, y=None):
            return super().get_dataset(np.asarray(X), y)

    net = Taking(Perceptron, max_epochs=1, train_split=None, verbose=0)
    assert active_learning_curve(net, sampler, frame, y, **LOOP).scores.shape == (2, 4)


def made(scores, seeds=None):
    scores = np.array(scores, dtype=float)
    seeds = tuple(range(len(scores))) if seeds is None else seeds
    counts = 5 + np.arange(scores.shape[1])
    indices = np.zeros((len(scores), int(counts[-1])), dtype=int)
    return ActiveLearningCurve(counts, scores, scores[:, 1:], indices, seeds)


def test_the_area_leaves_the_initial_score_out():
    np.testing.assert_allclose(made([[9, 1, 2, 3], [9, 3, 4, 5]]).area(), [2, 4])


def test_the_difference_is_paired_with_students_interval():
    from scipy import stats

    first = made([[0, 1.0], [0, 2.5], [0, 3.2]])
    second = made([[0, 0.5], [0, 1.0], [0, 2.0]])
    mean, half = first.difference(second)
    interval = stats.ttest_rel(first.area(), second.area()).confidence_interval(0.95)
    np.testing.assert_allclose([mean - half, mean + half], interval)


def test_one_seed_has_no_interval():
    mean, half = made([[0, 1.0]]).difference(made([[0, 0.5]]))
    assert mean == 0.5
    assert np.isnan(half)


def test_curves_of_other_seeds_are_not_compared():
    with pytest.raises(
        ValueError, match=r"`other` must be a curve of the same seeds, \(0,\); got \(1,\)"
    ):
        made([[0, 1]], seeds=(0,)).difference(made([[0, 1]], seeds=(1,)))


def test_the_frame_has_a_row_for_each_seed_and_round():
    frame = made([[1, 2], [3, 4]], seeds=(7, 9)).to_frame()
    assert frame.to_dict("list") == {
        "seed": [7, 7, 9, 9],
        "n_labelled": [5, 6, 5, 6],
        "score": [1, 2, 3, 4],
    }


@pytest.mark.parametrize(
    "changed", [{"n_rounds": 11}, {"n_initial": 50}, {"test_size": 0.8}], ids=str
)
def test_more_labels_than_samples_are_refused(changed):
    with pytest.raises(ValueError, match=r"must be at most \d+ .*; got \d+"):
        curve(**changed)


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
def test_settings_out_of_range_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        curve(**changed)


@pytest.mark.parametrize("count", [25, 90])
def test_labels_of_another_length_are_refused(count):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        active_learning_curve(regressor(), First(), data()[0], data(count)[1], **LOOP)


def test_labels_are_needed():
    with pytest.raises((TypeError, ValueError), match=r"at least 1 dimension|Singleton"):
        active_learning_curve(regressor(), First(), data()[0], None, **LOOP)


@pytest.mark.parametrize("fixed", [FrozenEstimator(regressor().initialize()), nn.Linear(2, 1)])
def test_networks_that_stay_as_they_are_are_refused(fixed):
    with pytest.raises(ValueError, match=r"`estimator` must be a skorch net, .* trains anew; got"):
        active_learning_curve(fixed, First(), *data(), **LOOP)


def test_curves_of_other_numbers_are_not_compared():
    with pytest.raises(
        ValueError, match=r"same numbers of labelled samples, \[5, 6\]; got \[5, 6, 7\]"
    ):
        made([[0, 1]]).difference(made([[0, 1, 2]]))


def test_tuples_and_dicts_are_indexed_array_by_array():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def forward(self, first, second):
            return self.layer(first + second)

    X, y = data()
    net = NeuralNetRegressor(Sum, max_epochs=1, train_split=None, verbose=0)
    both = {"first": X, "second": X}
    found = active_learning_curve(net, ActiveLearningSampler(strategy="lcmd"), both, y, **LOOP)
    assert found.scores.shape == (2, 4)
