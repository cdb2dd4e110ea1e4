"""Most helpful and most harmful samples on the page."""

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sknetsim import TrainingInfluence, explore
from sknetsim.displays.explorer._influence import _choose_landmarks, _leave_itself_out

from .pages import read_data


def test_the_page_shows_the_influence_without_the_sample_itself(images, tmp_path):
    network, X, y = images
    data = read_data(explore(network, X, y, tmp_path / "page.html", n_neighbors=4))["influence"]
    values = TrainingInfluence(network).fit(X, y).influence(X)
    np.fill_diagonal(values, np.nan)
    order = np.argsort(values, axis=1)  # NaN is last.
    helpful, harmful = (one["samples"] for one in data["lists"])
    assert helpful == order[:, -2:-6:-1].tolist()
    assert harmful == order[:, :4].tolist()
    for one in data["lists"]:
        expected = np.take_along_axis(values, np.array(one["samples"]), axis=1)
        np.testing.assert_allclose(one["values"], expected, rtol=1e-2)
    assert "exactly" in data["note"]


def test_the_influence_on_numbers_is_that_on_the_loss(tmp_path):
    X = np.random.default_rng(0).normal(size=(12, 2))
    network, y = nn.Linear(2, 1).double(), X[:, 0]
    data = read_data(explore(network, X, y, tmp_path / "page.html", n_neighbors=1))["influence"]
    values = TrainingInfluence(network).fit(X, y).influence(X, y)
    np.fill_diagonal(values, -np.inf)
    assert [row[0] for row in data["lists"][0]["samples"]] == values.argmax(axis=1).tolist()
    assert "loss" in data["lists"][0]["heading"] and "nats" not in data["note"]


@pytest.mark.parametrize(
    ("count", "outputs", "landmarks"),
    [(222, 9, None), (223, 9, 64), (2_000, 1, None), (2_001, 1, 576), (9_000, 9, 41)],
)
def test_landmarks_are_chosen_for_many_samples(count, outputs, landmarks):
    assert _choose_landmarks(count, outputs) == landmarks


@pytest.mark.parametrize(("count", "outputs"), [(100_000, 9), (300, 999)])
def test_too_many_samples_or_outputs_have_no_landmarks(count, outputs):
    assert _choose_landmarks(count, outputs) == 0


def test_the_number_of_landmarks_is_on_the_page(images, tmp_path, monkeypatch):
    monkeypatch.setattr("sknetsim.displays.explorer._influence._EXACT_COMBINATIONS", 10)
    monkeypatch.setattr("sknetsim.displays.explorer._influence._LANDMARK_COMBINATIONS", 50)
    data = read_data(explore(*images, tmp_path / "page.html", random_state=0))["influence"]
    assert "with 25 landmarks" in data["note"] and len(data["lists"]) == 2


class SumOfLosses(nn.Module):
    """Criterion without a reduction."""

    def forward(self, outputs, y):
        return nn.functional.cross_entropy(outputs, y, reduction="sum")


class LossWithMore(nn.CrossEntropyLoss):
    """Criterion with an argument that only its net passes."""

    def forward(self, outputs, y, more):
        return super().forward(outputs, y) + more


def make_net(kind, outputs, criterion):
    return kind(nn.Linear(15, outputs), criterion=criterion, device="cpu").initialize()


CLASSES = np.arange(12) % 2
NUMBERS = np.linspace(0, 1, 12, dtype="float32")


REFUSED = {
    "features": ("features", CLASSES, "features have no loss"),
    "names": (nn.Linear(15, 2), ["a", "b"] * 6, "the order of the names"),
    "curvature": (make_net(NeuralNetRegressor, 1, nn.L1Loss), NUMBERS, "a second derivative"),
    "reduction": (make_net(NeuralNetClassifier, 2, SumOfLosses), CLASSES, "has no `reduction`"),
    "arguments": (make_net(NeuralNetClassifier, 2, LossWithMore), CLASSES, "argument: 'more'"),
    "outputs": (nn.Linear(15, 900), CLASSES, "12 samples with 899 outputs are too many"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore:The NeuralNet")
def test_the_page_says_why_there_is_no_influence(name, tmp_path):
    estimator, y, reason = REFUSED[name]
    settings = {} if estimator == "features" else {"output": "predicted"}
    X = torch.rand(12, 15)
    X = X / X.norm(dim=1, keepdim=True)
    data = read_data(explore(estimator, X, y, tmp_path / "page.html", n_neighbors=2, **settings))
    assert data["influence"]["lists"] == []
    assert reason in data["influence"]["note"]


def test_there_is_no_influence_without_labels(images, tmp_path):
    network, X, _ = images
    assert read_data(explore(network, X, path=tmp_path / "page.html"))["influence"] is None


def test_a_sample_that_is_not_in_its_list_leaves_the_last_one_out():
    indices, values = np.array([[0, 1, 2], [2, 0, 3]]), np.array([[3.0, 2, 1], [6, 5, 4]])
    kept, kept_values = _leave_itself_out(indices, values)
    assert kept.tolist() == [[1, 2], [2, 0]] and kept_values.tolist() == [[2, 1], [6, 5]]
