"""Similarity losses beside a skorch net's own."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sknetsim.losses._losses import (
    ContrastiveSimilarityLoss,
    GroupSimilarityLoss,
    PairSimilarityLoss,
)
from sknetsim.training import SimilarityTrainingMixin

ROWS = 40


class Classifier(SimilarityTrainingMixin, NeuralNetClassifier):
    """As users write it."""


class Regressor(SimilarityTrainingMixin, NeuralNetRegressor):
    """As users write it."""


class Perceptron(nn.Sequential):
    """Made anew by each training."""

    def __init__(self, outputs=2):
        super().__init__(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, outputs))


def classifier(**params):
    settings = {"lr": 0.1, "max_epochs": 3, "batch_size": 16, "train_split": None, "verbose": 0}
    criterion = {"criterion": nn.CrossEntropyLoss, "similarity__output": "predicted"}
    return Classifier(Perceptron, **{**settings, **criterion, **params})


def data():
    X = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(np.int64)


def trained(**params):
    torch.manual_seed(0)
    return classifier(**params).fit(*data())


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.module_.parameters()])


@pytest.mark.parametrize("loss", [GroupSimilarityLoss, ContrastiveSimilarityLoss])
def test_history_holds_the_term_and_the_mean_similarities(loss):
    history = trained(similarity=loss, similarity__weight=0.5).history
    for epoch in history:
        batches = [batch["same_similarity"] for batch in epoch["batches"]]
        assert epoch["same_similarity"] == pytest.approx(np.mean(batches))
        other = epoch["other_similarity"] if loss is ContrastiveSimilarityLoss else 0
        expected = 0.5 * (other - epoch["same_similarity"])
        assert epoch["similarity_loss"] == pytest.approx(expected)


@pytest.mark.parametrize(("weight", "raised"), [(1.0, True), (-1.0, False)])
def test_training_with_a_weight_moves_the_similarity(weight, raised):
    found, plain = (
        trained(max_epochs=20, similarity__weight=w).history[-1]["same_similarity"]
        for w in (weight, 0.0)
    )
    assert (found > plain) == raised


def test_a_weight_of_zero_only_looks_on():
    torch.manual_seed(0)
    plain = NeuralNetClassifier(
        Perceptron, criterion=nn.CrossEntropyLoss, lr=0.1, max_epochs=3, batch_size=16,
        train_split=None, verbose=0,
    ).fit(*data())  # fmt: skip
    torch.testing.assert_close(weights(trained(similarity__weight=0.0)), weights(plain))


def test_a_schedule_scales_the_term_by_epoch():
    history = trained(similarity_schedule=lambda epoch: 0.5**epoch).history
    found = [-epoch["similarity_loss"] / epoch["same_similarity"] for epoch in history]
    np.testing.assert_allclose(found, [1, 0.5, 0.25], rtol=1e-5)


@pytest.mark.parametrize("loss", [PairSimilarityLoss, GroupSimilarityLoss])
def test_a_sample_and_its_changed_copy_are_pairs_and_groups_alike(loss):
    history = trained(similarity=loss, similarity_augment=lambda X: -X).history
    expected = trained(similarity=PairSimilarityLoss, similarity_augment=lambda X: -X).history
    np.testing.assert_allclose(
        history[:, "same_similarity"], expected[:, "same_similarity"], rtol=1e-4
    )


def test_a_search_over_the_weight_trains_by_each():
    search = GridSearchCV(classifier(), {"similarity__weight": [0.0, 0.3]}, cv=2, refit=False)
    scores = search.fit(*data()).cv_results_["mean_test_score"]
    assert np.isfinite(scores).all()


def test_nets_are_cloned_with_what_was_set_and_pickled_trained():
    net = trained(similarity__weight=0.25)
    assert clone(net).get_params()["similarity__weight"] == 0.25
    twin = pickle.loads(pickle.dumps(net))
    torch.testing.assert_close(weights(twin), weights(net))
    assert twin.similarity_.weight == 0.25


def test_validation_losses_are_without_the_term():
    net = trained(similarity__weight=100.0)
    X, y = (torch.as_tensor(values) for values in data())
    step = net.validation_step((X, y))
    assert step["loss"] == pytest.approx(nn.functional.cross_entropy(net.module_(X), y).item())


def test_a_batch_without_pairs_is_trained_on_as_it_is():
    history = trained(batch_size=1).history
    assert "similarity_loss" not in history[-1]


def test_numbers_are_no_groups():
    X, y = data()
    net = Regressor(Perceptron(1), train_split=None, verbose=0)
    with pytest.raises(ValueError, match="allowed without it are classes"):
        net.fit(X, y.astype(np.float32)[:, None])


class Binary(SimilarityTrainingMixin, NeuralNetBinaryClassifier):
    """As users write it."""


def test_two_classes_with_one_output_are_groups():
    X, y = data()
    net = Binary(Perceptron(1), max_epochs=1, train_split=None, verbose=0)
    assert "same_similarity" in net.fit(X, y.astype(np.float32)).history[-1]


def test_pairs_must_be_said():
    with pytest.raises(ValueError, match="similarity_augment is None"):
        trained(similarity=PairSimilarityLoss)


def test_parameters_of_a_trained_net_can_be_set():
    net = trained(similarity__weight=0.1)
    before = weights(net)
    net.set_params(similarity__weight=0.7, similarity_schedule=lambda epoch: 0.0)
    assert net.similarity_.weight == 0.7 and torch.equal(weights(net), before)
    net.set_params(similarity=ContrastiveSimilarityLoss)
    assert isinstance(net.similarity_, ContrastiveSimilarityLoss)
    assert net.partial_fit(*data()).history[-1]["similarity_loss"] == 0


@pytest.mark.parametrize("similarity", [GroupSimilarityLoss(0.3), "pair"])
def test_a_made_loss_takes_no_parameters(similarity):
    with pytest.raises(ValueError, match="hand over the class"):
        trained(similarity=similarity, similarity__weight=0.5)


class Product(nn.Module):
    """Takes two inputs by name."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, a, b):
        return torch.tanh(self.first(a)) * self.second(b)


def test_copies_of_named_inputs_are_joined_by_name():
    X, y = data()
    found = []
    for names in (("a", "b"), ("b", "a")):
        torch.manual_seed(0)
        net = classifier(similarity_augment=lambda X, names=names: {n: X[n] * 0.5 for n in names})
        net.set_params(module=Product, similarity=GroupSimilarityLoss)
        net.fit({"a": X, "b": -X[:, ::-1].copy()}, y)
        found.append(net.history[-1]["same_similarity"])
    assert found[0] == found[1]
