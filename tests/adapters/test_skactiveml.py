"""Samplers inside scikit-activeml."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sknetsim import ActiveLearningSampler

pytest.importorskip("skactiveml", reason="scikit-activeml is not installed (it needs numpy 2.1)")

from skactiveml.base import SingleAnnotatorPoolQueryStrategy
from skactiveml.classifier import SkorchClassifier
from skactiveml.pool import SubSamplingWrapper
from skactiveml.regressor import SkorchRegressor

from sknetsim.adapters import to_skactiveml


class Perceptron(nn.Sequential):
    def __init__(self, outputs=3):
        super().__init__(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, outputs))


def data(labelled=12, count=40):
    generator = np.random.RandomState(0)
    X = generator.normal(size=(count, 4)).astype("float32")
    y = generator.randint(3, size=count).astype(float)
    y[labelled:] = np.nan
    return X, y


def classifier():
    settings = {"max_epochs": 2, "train_split": None, "verbose": 0}
    return SkorchClassifier(
        Perceptron, criterion=nn.CrossEntropyLoss, neural_net_param_dict=settings,
        classes=[0, 1, 2], random_state=0,
    )  # fmt: skip


def strategy(name="lcmd", estimator=None, **params):
    return to_skactiveml(ActiveLearningSampler(estimator, strategy=name, random_state=0), **params)


def net():
    return NeuralNetClassifier(
        Perceptron, criterion=nn.CrossEntropyLoss, max_epochs=2, train_split=None, verbose=0
    )


def test_it_is_one_of_their_strategies():
    assert isinstance(strategy(), SingleAnnotatorPoolQueryStrategy)


@pytest.mark.parametrize("name", ["maxdet", "badge", "density", "margin", "random", "typicality"])
def test_samples_without_a_label_are_chosen(name):
    indices = strategy(name).query(*data(), clf=classifier(), batch_size=5)
    assert len(set(indices.tolist())) == 5
    assert (indices >= 12).all()


def test_utilities_are_of_all_samples():
    indices, utilities = strategy().query(
        *data(), clf=classifier(), batch_size=3, return_utilities=True
    )
    assert utilities.shape == (3, 40)
    for number, row in enumerate(utilities):
        known = {*range(12), *indices[:number].tolist()}
        assert set(np.flatnonzero(np.isnan(row))) == known


def test_the_choice_is_that_of_the_sampler():
    X, y = data()
    fitted = classifier().fit(X, y)
    expected = (
        ActiveLearningSampler(fitted.neural_net_, strategy="lcmd", random_state=0)
        .fit(X[:12])
        .query(X[12:], 5)
    )
    found = strategy().query(X, y, clf=fitted, fit_clf=False, batch_size=5)
    assert (found - 12).tolist() == expected.tolist()


def test_candidates_are_positions_or_samples():
    X, y = data()
    fitted = classifier().fit(X, y)
    asked = {"clf": fitted, "fit_clf": False, "batch_size": 3}
    positions = strategy().query(X, y, candidates=np.arange(20, 40), **asked)
    samples = strategy().query(X, y, candidates=X[20:40], **asked)
    assert positions.tolist() == (samples + 20).tolist()


def test_utilities_of_candidates_that_are_samples_are_theirs_alone():
    X, y = data()
    _, utilities = strategy().query(
        X, y, clf=classifier(), candidates=X[20:], return_utilities=True
    )
    assert utilities.shape == (1, 20)


def test_a_classifier_is_trained_on_a_clone():
    model = classifier()
    strategy().query(*data(), clf=model)
    assert not hasattr(model, "neural_net_")


def test_regressors_are_given_as_reg():
    X, y = data()
    settings = {"max_epochs": 2, "train_split": None, "verbose": 0, "module__outputs": 1}
    model = SkorchRegressor(
        Perceptron, criterion=nn.MSELoss, neural_net_param_dict=settings, random_state=0
    )
    assert len(strategy("maxdet").query(X, y, reg=model, batch_size=4)) == 4


@pytest.mark.parametrize(
    "estimator",
    [
        None,
        net(),
        NeuralNetRegressor(
            Perceptron, module__outputs=1, max_epochs=1, train_split=None, verbose=0
        ),
    ],
    ids=["default", "classifier", "regressor"],
)
def test_without_a_model_the_samplers_own_network_is_trained(estimator):
    asked = strategy("maxdet", estimator)
    assert len(asked.query(*data(), batch_size=4)) == 4
    assert not hasattr(asked.sampler, "estimator_")


def test_a_trained_network_is_used_as_it_is():
    X, y = data()
    trained = net().fit(X[:12], y[:12].astype(int))
    before = [parameter.clone() for parameter in trained.module_.parameters()]
    strategy("badge", trained).query(X, y, batch_size=4)
    assert all(map(torch.equal, before, trained.module_.parameters()))


def test_it_works_inside_their_wrappers():
    X, y = data()
    wrapped = SubSamplingWrapper(strategy(), max_candidates=10, random_state=0)
    indices = wrapped.query(X, y, clf=classifier(), batch_size=3)
    assert (np.asarray(indices) >= 12).all()


def test_a_loop_labels_all():
    X, y = data(count=20)
    hidden = np.random.RandomState(1).randint(3, size=20)
    for _ in range(2):
        y[strategy().query(X, y, clf=classifier(), batch_size=4)] = hidden[0]
    assert not np.isnan(y).any()


def test_another_missing_label():
    X, y = data()
    labels = np.where(np.isnan(y), -1, y).astype(int)
    model = classifier().set_params(missing_label=-1)
    found = strategy(missing_label=-1).query(X, labels, clf=model, batch_size=3)
    assert (found >= 12).all()


def test_a_seed_of_its_own_comes_before_the_samplers():
    X, y = data()
    first, again, other = (
        strategy("random", net().initialize(), random_state=seed).query(X, y, batch_size=9).tolist()
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_it_can_be_cloned_and_pickled():
    X, y = data()
    trained = strategy("lcmd", net().fit(X[:12], y[:12].astype(int)))
    expected = trained.query(X, y, batch_size=4).tolist()
    assert clone(trained).query(X, y, batch_size=4).tolist() == expected
    assert pickle.loads(pickle.dumps(trained)).query(X, y, batch_size=4).tolist() == expected


def test_labels_may_be_words():
    X, _ = data()
    y = np.where(np.arange(40) < 12, np.array(["cat", "dog", "eel"])[np.arange(40) % 3], None)
    model = classifier().set_params(classes=["cat", "dog", "eel"], missing_label=None)
    found = strategy("badge", missing_label=None).query(X, y, clf=model, batch_size=3)
    assert (found >= 12).all()


@pytest.mark.parametrize("estimator", [nn.Linear(4, 3), "features"], ids=["module", "features"])
def test_networks_that_are_no_skorch_nets(estimator):
    X, y = data()
    found = strategy("lcmd", estimator).query(0.1 * X, y, batch_size=3)
    assert (found >= 12).all()


def test_the_criterions_parameters_are_kept():
    X, y = data()
    model = classifier()
    weight = torch.tensor([1.0, 100.0, 1.0])
    model.neural_net_param_dict["criterion__weight"] = weight
    scores = []
    for kept in (model, classifier()):
        fitted = kept.fit(X, y)
        with torch.no_grad():
            # Both are surest of the class whose weight differs.
            fitted.neural_net_.module_[-1].bias.copy_(torch.tensor([0.0, 9.0, 0.0]))
        asked = {"clf": fitted, "fit_clf": False, "return_utilities": True}
        scores.append(strategy("badge").query(X, y, **asked)[1][0, 12:])
    assert scores[0].max() > 100 * scores[1].max()


def test_a_model_without_a_network_is_refused():
    from skactiveml.classifier import ParzenWindowClassifier

    with pytest.raises(TypeError, match="clf or reg is a ParzenWindowClassifier without"):
        strategy().query(*data(), clf=ParzenWindowClassifier(classes=[0, 1, 2]))


def test_no_label_at_all_is_refused():
    X, y = data(labelled=0)
    with pytest.raises(ValueError, match="y has no labels"):
        strategy(estimator=net().initialize()).query(X, y)
