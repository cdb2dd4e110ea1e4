"""Query strategy of scikit-activeml: choice, utilities, training and errors."""

import pickle

import numpy as np
import pandas as pd
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


def make_data(labelled=12, count=40):
    generator = np.random.RandomState(0)
    X = generator.normal(size=(count, 4)).astype("float32")
    y = generator.randint(3, size=count).astype(float)
    y[labelled:] = np.nan
    return X, y


def make_classifier():
    settings = {"max_epochs": 2, "train_split": None, "verbose": 0}
    return SkorchClassifier(
        Perceptron, criterion=nn.CrossEntropyLoss, neural_net_param_dict=settings,
        classes=[0, 1, 2], random_state=0,
    )  # fmt: skip


def make_strategy(name="lcmd", estimator=None, **params):
    return to_skactiveml(ActiveLearningSampler(estimator, strategy=name, random_state=0), **params)


def make_net():
    return NeuralNetClassifier(
        Perceptron, criterion=nn.CrossEntropyLoss, max_epochs=2, train_split=None, verbose=0
    )


def test_the_adapter_is_a_strategy_of_scikit_activeml():
    assert isinstance(make_strategy(), SingleAnnotatorPoolQueryStrategy)


@pytest.mark.parametrize("name", ["maxdet", "badge", "density", "margin", "random", "typicality"])
def test_samples_without_a_label_are_chosen(name):
    indices = make_strategy(name).query(*make_data(), clf=make_classifier(), batch_size=5)
    assert len(set(indices.tolist())) == 5
    assert (indices >= 12).all()


@pytest.mark.parametrize("model", [None, make_classifier()], ids=["sampler", "classifier"])
def test_the_features_of_samples_are_counted(model):
    strategy = make_strategy(estimator=make_net())
    strategy.query(*make_data(), clf=model)
    assert strategy.n_features_in_ == 4


def test_utilities_of_all_samples_are_returned():
    indices, utilities = make_strategy().query(
        *make_data(), clf=make_classifier(), batch_size=3, return_utilities=True
    )
    assert utilities.shape == (3, 40)
    for number, row in enumerate(utilities):
        known = {*range(12), *indices[:number].tolist()}
        assert set(np.flatnonzero(np.isnan(row))) == known


def test_the_strategy_chooses_what_the_sampler_chooses():
    X, y = make_data()
    fitted = make_classifier().fit(X, y)
    expected = (
        ActiveLearningSampler(fitted.neural_net_, strategy="lcmd", random_state=0)
        .fit(X[:12])
        .query(X[12:], 5)
    )
    indices = make_strategy().query(X, y, clf=fitted, fit_clf=False, batch_size=5)
    assert (indices - 12).tolist() == expected.tolist()


@pytest.mark.filterwarnings("error::sknetsim.UntrainedNetworkWarning")
def test_the_net_of_a_trained_classifier_counts_as_trained():
    """The adapter makes a new net, with the criterion of the classifier, around the module."""
    X, y = make_data()
    fitted = make_classifier().fit(X, y)
    assert len(make_strategy().query(X, y, clf=fitted, fit_clf=False, batch_size=2)) == 2


def test_candidates_may_be_positions_or_samples():
    X, y = make_data()
    fitted = make_classifier().fit(X, y)
    options = {"clf": fitted, "fit_clf": False, "batch_size": 3}
    positions = make_strategy().query(X, y, candidates=np.arange(20, 40), **options)
    samples = make_strategy().query(X, y, candidates=X[20:40], **options)
    assert positions.tolist() == (samples + 20).tolist()


@pytest.mark.parametrize("convert", [list, tuple, pd.Series, np.array])
def test_positions_of_candidates_may_have_any_form(convert):
    X, y = make_data()
    strategy = make_strategy(estimator=make_net().fit(X[:12], y[:12].astype(int)))
    expected = strategy.query(X, y, candidates=np.arange(20, 40), batch_size=3)
    chosen = strategy.query(X, y, candidates=convert(range(20, 40)), batch_size=3)
    assert chosen.tolist() == expected.tolist()


def test_candidates_that_are_samples_have_one_utility_each():
    X, y = make_data()
    _, utilities = make_strategy().query(
        X, y, clf=make_classifier(), candidates=X[20:], return_utilities=True
    )
    assert utilities.shape == (1, 20)


def test_a_clone_of_the_classifier_is_trained():
    model = make_classifier()
    make_strategy().query(*make_data(), clf=model)
    assert not hasattr(model, "neural_net_")


def test_a_regressor_is_passed_as_reg():
    X, y = make_data()
    settings = {"max_epochs": 2, "train_split": None, "verbose": 0, "module__outputs": 1}
    model = SkorchRegressor(
        Perceptron, criterion=nn.MSELoss, neural_net_param_dict=settings, random_state=0
    )
    assert len(make_strategy("maxdet").query(X, y, reg=model, batch_size=4)) == 4


@pytest.mark.parametrize(
    "estimator",
    [
        None,
        make_net(),
        NeuralNetRegressor(
            Perceptron, module__outputs=1, max_epochs=1, train_split=None, verbose=0
        ),
    ],
    ids=["default", "classifier", "regressor"],
)
def test_the_network_of_the_sampler_is_trained_without_a_model(estimator):
    strategy = make_strategy("maxdet", estimator)
    assert len(strategy.query(*make_data(), batch_size=4)) == 4
    assert not hasattr(strategy.sampler, "estimator_")


def test_a_trained_network_is_not_trained_again():
    X, y = make_data()
    trained = make_net().fit(X[:12], y[:12].astype(int))
    before = [parameter.clone() for parameter in trained.module_.parameters()]
    make_strategy("badge", trained).query(X, y, batch_size=4)
    assert all(map(torch.equal, before, trained.module_.parameters()))


def test_the_strategy_works_in_a_wrapper_of_scikit_activeml():
    X, y = make_data()
    wrapped = SubSamplingWrapper(make_strategy(), max_candidates=10, random_state=0)
    indices = wrapped.query(X, y, clf=make_classifier(), batch_size=3)
    assert (np.asarray(indices) >= 12).all()


def test_a_loop_of_queries_labels_all_samples():
    X, y = make_data(count=20)
    hidden = np.random.RandomState(1).randint(3, size=20)
    for _ in range(2):
        y[make_strategy().query(X, y, clf=make_classifier(), batch_size=4)] = hidden[0]
    assert not np.isnan(y).any()


def test_the_missing_label_can_be_changed():
    X, y = make_data()
    labels = np.where(np.isnan(y), -1, y).astype(int)
    model = make_classifier().set_params(missing_label=-1)
    indices = make_strategy(missing_label=-1).query(X, labels, clf=model, batch_size=3)
    assert (indices >= 12).all()


def test_the_seed_of_the_strategy_overrides_that_of_the_sampler():
    X, y = make_data()
    first, again, other = (
        make_strategy("random", make_net().initialize(), random_state=seed)
        .query(X, y, batch_size=9)
        .tolist()
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_clones_and_pickles_choose_the_same_samples():
    X, y = make_data()
    trained = make_strategy("lcmd", make_net().fit(X[:12], y[:12].astype(int)))
    expected = trained.query(X, y, batch_size=4).tolist()
    assert clone(trained).query(X, y, batch_size=4).tolist() == expected
    assert pickle.loads(pickle.dumps(trained)).query(X, y, batch_size=4).tolist() == expected


def test_labels_may_be_strings():
    X, _ = make_data()
    y = np.where(np.arange(40) < 12, np.array(["cat", "dog", "eel"])[np.arange(40) % 3], None)
    model = make_classifier().set_params(classes=["cat", "dog", "eel"], missing_label=None)
    indices = make_strategy("badge", missing_label=None).query(X, y, clf=model, batch_size=3)
    assert (indices >= 12).all()


@pytest.mark.parametrize("estimator", [nn.Linear(4, 3), "features"], ids=["module", "features"])
def test_networks_may_be_modules_or_features(estimator):
    X, y = make_data()
    indices = make_strategy("lcmd", estimator).query(0.1 * X, y, batch_size=3)
    assert (indices >= 12).all()


def test_the_parameters_of_the_criterion_are_kept():
    X, y = make_data()
    model = make_classifier()
    weight = torch.tensor([1.0, 100.0, 1.0])
    model.neural_net_param_dict["criterion__weight"] = weight
    scores = []
    for kept in (model, make_classifier()):
        fitted = kept.fit(X, y)
        with torch.no_grad():
            # Both networks are the most certain of the class whose weight differs.
            fitted.neural_net_.module_[-1].bias.copy_(torch.tensor([0.0, 9.0, 0.0]))
        options = {"clf": fitted, "fit_clf": False, "return_utilities": True}
        scores.append(make_strategy("badge").query(X, y, **options)[1][0, 12:])
    assert scores[0].max() > 100 * scores[1].max()


def test_a_model_without_a_network_raises_an_error():
    from skactiveml.classifier import ParzenWindowClassifier

    with pytest.raises(
        TypeError,
        match=r"must be a trained SkorchClassifier .*; got a ParzenWindowClassifier without",
    ):
        make_strategy().query(*make_data(), clf=ParzenWindowClassifier(classes=[0, 1, 2]))


def test_labels_that_are_all_missing_raise_an_error():
    X, y = make_data(labelled=0)
    with pytest.raises(ValueError, match="`y` must have at least one label"):
        make_strategy(estimator=make_net().initialize()).query(X, y)


class Imputing(nn.Module):
    """A network that takes NaN for 0."""

    def __init__(self):
        super().__init__()
        self.inner = Perceptron()

    def forward(self, x):
        return self.inner(x.nan_to_num())


def test_a_network_may_impute_nan():
    X, y = make_data()
    X[[3, 20], 1] = np.nan
    torch.manual_seed(0)
    network = Imputing()
    expected = make_strategy(estimator=network.inner).query(np.nan_to_num(X), y, batch_size=3)
    chosen = make_strategy(estimator=network).query(X, y, batch_size=3)
    np.testing.assert_array_equal(chosen, expected)


def test_the_default_network_takes_no_nan():
    X, y = make_data()
    X[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"X contains NaN"):
        make_strategy(estimator=None).query(X, y)
