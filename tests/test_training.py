"""Similarity losses in the training of a skorch net."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sknetsim.losses import (
    ContrastiveSimilarityLoss,
    GroupSimilarityLoss,
    PairSimilarityLoss,
)
from sknetsim.training import SimilarityTrainingMixin

ROWS = 40


class Classifier(SimilarityTrainingMixin, NeuralNetClassifier):
    """Net as users define it."""


class Regressor(SimilarityTrainingMixin, NeuralNetRegressor):
    """Net as users define it."""


class Perceptron(nn.Sequential):
    """Network that each training creates anew."""

    def __init__(self, outputs=2):
        super().__init__(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, outputs))


def make_classifier(**params):
    settings = {"lr": 0.1, "max_epochs": 3, "batch_size": 16, "train_split": None, "verbose": 0}
    criterion = {"criterion": nn.CrossEntropyLoss, "similarity__output": "predicted"}
    return Classifier(Perceptron, **{**settings, **criterion, **params})


def make_data():
    X = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(np.int64)


def train_classifier(**params):
    torch.manual_seed(0)
    return make_classifier(**params).fit(*make_data())


def flatten_weights(net):
    return torch.cat([p.detach().flatten() for p in net.module_.parameters()])


@pytest.mark.parametrize("loss", [GroupSimilarityLoss, ContrastiveSimilarityLoss])
def test_the_history_has_the_term_and_the_mean_similarities(loss):
    history = train_classifier(similarity=loss, similarity__weight=0.5).history
    for epoch in history:
        batches = [batch["same_similarity"] for batch in epoch["batches"]]
        assert epoch["same_similarity"] == pytest.approx(np.mean(batches))
        other = epoch["other_similarity"] if loss is ContrastiveSimilarityLoss else 0
        expected = 0.5 * (other - epoch["same_similarity"])
        assert epoch["similarity_loss"] == pytest.approx(expected)


@pytest.mark.parametrize(("weight", "raised"), [(1.0, True), (-1.0, False)])
def test_the_sign_of_the_weight_raises_or_lowers_the_similarity(weight, raised):
    changed, plain = (
        train_classifier(max_epochs=20, similarity__weight=w).history[-1]["same_similarity"]
        for w in (weight, 0.0)
    )
    assert (changed > plain) == raised


def test_a_weight_of_zero_does_not_change_the_training():
    torch.manual_seed(0)
    plain = NeuralNetClassifier(
        Perceptron, criterion=nn.CrossEntropyLoss, lr=0.1, max_epochs=3, batch_size=16,
        train_split=None, verbose=0,
    ).fit(*make_data())  # fmt: skip
    torch.testing.assert_close(
        flatten_weights(train_classifier(similarity__weight=0.0)), flatten_weights(plain)
    )


def test_a_schedule_scales_the_term_by_epoch():
    history = train_classifier(similarity_schedule=lambda epoch: 0.5**epoch).history
    factors = [-epoch["similarity_loss"] / epoch["same_similarity"] for epoch in history]
    np.testing.assert_allclose(factors, [1, 0.5, 0.25], rtol=1e-5)


@pytest.mark.parametrize("loss", [PairSimilarityLoss, GroupSimilarityLoss])
def test_changed_copies_give_the_same_similarity_as_pairs_and_as_groups(loss):
    history = train_classifier(similarity=loss, similarity_augment=lambda X: -X).history
    expected = train_classifier(
        similarity=PairSimilarityLoss, similarity_augment=lambda X: -X
    ).history
    np.testing.assert_allclose(
        history[:, "same_similarity"], expected[:, "same_similarity"], rtol=1e-4
    )


def test_a_grid_search_over_the_weight_trains_with_each_weight():
    search = GridSearchCV(make_classifier(), {"similarity__weight": [0.0, 0.3]}, cv=2, refit=False)
    scores = search.fit(*make_data()).cv_results_["mean_test_score"]
    assert np.isfinite(scores).all()


def test_clones_keep_parameters_and_pickles_keep_the_training():
    net = train_classifier(similarity__weight=0.25)
    assert clone(net).get_params()["similarity__weight"] == 0.25
    twin = pickle.loads(pickle.dumps(net))
    torch.testing.assert_close(flatten_weights(twin), flatten_weights(net))
    assert twin.similarity_.weight == 0.25


def test_validation_losses_do_not_include_the_term():
    net = train_classifier(similarity__weight=100.0)
    X, y = (torch.as_tensor(values) for values in make_data())
    step = net.validation_step((X, y))
    assert step["loss"] == pytest.approx(nn.functional.cross_entropy(net.module_(X), y).item())


def test_a_batch_without_pairs_has_no_similarity_loss():
    history = train_classifier(batch_size=1).history
    assert "similarity_loss" not in history[-1]


def test_labels_of_regression_cannot_be_groups():
    X, y = make_data()
    net = Regressor(Perceptron(1), train_split=None, verbose=0)
    with pytest.raises(
        ValueError,
        match=r"`similarity_augment` must be a function .* got None with y of shape \(\d+, 1\)",
    ):
        net.fit(X, y.astype(np.float32)[:, None])


class Binary(SimilarityTrainingMixin, NeuralNetBinaryClassifier):
    """Net as users define it."""


def test_two_classes_with_one_output_are_groups():
    X, y = make_data()
    net = Binary(Perceptron(1), max_epochs=1, train_split=None, verbose=0)
    assert "same_similarity" in net.fit(X, y.astype(np.float32)).history[-1]


def test_a_loss_of_pairs_needs_changed_copies():
    with pytest.raises(ValueError, match=r"`similarity_augment` must be a function .* got None"):
        train_classifier(similarity=PairSimilarityLoss)


def test_similarity_parameters_of_a_trained_net_can_be_set():
    net = train_classifier(similarity__weight=0.1)
    before = flatten_weights(net)
    net.set_params(similarity__weight=0.7, similarity_schedule=lambda epoch: 0.0)
    assert net.similarity_.weight == 0.7 and torch.equal(flatten_weights(net), before)
    net.set_params(similarity=ContrastiveSimilarityLoss)
    assert isinstance(net.similarity_, ContrastiveSimilarityLoss)
    assert net.partial_fit(*make_data()).history[-1]["similarity_loss"] == 0


@pytest.mark.parametrize("similarity", [GroupSimilarityLoss(0.3), "pair"])
def test_a_loss_instance_with_parameters_raises_an_error(similarity):
    with pytest.raises(ValueError, match=r"`similarity` must be a class .* Pass the class"):
        train_classifier(similarity=similarity, similarity__weight=0.5)


class Product(nn.Module):
    """Network with two named inputs."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, a, b):
        return torch.tanh(self.first(a)) * self.second(b)


def test_changed_copies_of_named_inputs_are_concatenated_by_name():
    X, y = make_data()
    similarities = []
    for names in (("a", "b"), ("b", "a")):
        torch.manual_seed(0)
        net = make_classifier(
            similarity_augment=lambda X, names=names: {n: X[n] * 0.5 for n in names}
        )
        net.set_params(module=Product, similarity=GroupSimilarityLoss)
        net.fit({"a": X, "b": -X[:, ::-1].copy()}, y)
        similarities.append(net.history[-1]["same_similarity"])
    assert similarities[0] == similarities[1]
