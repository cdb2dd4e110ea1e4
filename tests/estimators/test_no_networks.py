"""Values of ``estimator`` that are no network."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
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

NO_NETWORKS = {
    "name": ("abc", "got 'abc'"),
    "number": (3, "got an int"),
    "truth value": (True, "got a bool"),
    "array": (np.ones((4, 3)), "got a ndarray"),
    "classifier": (LogisticRegression(), "got a LogisticRegression"),
    "fitted step": (StandardScaler().fit(np.eye(3)), "got a StandardScaler"),
    "pipeline": (make_pipeline(StandardScaler(), LogisticRegression()), "a Pipeline around a Log"),
    "frozen classifier": (FrozenEstimator(LogisticRegression()), "a FrozenEstimator around a Log"),
    "class of modules": (nn.Linear, "got the class Linear, not an instance"),
    "class of nets": (NeuralNetClassifier, "the class NeuralNetClassifier, not an instance"),
    "optimiser": (torch.optim.SGD([torch.ones(1)], 0.1), "got a SGD"),
    "weights": (nn.Linear(3, 2).state_dict(), "got an OrderedDict"),
    "parameter": (nn.Parameter(torch.ones(3)), "got a Parameter"),
    "list": ([nn.Linear(3, 2)], "got a list"),
    "function": (torch.relu, "got a builtin_function_or_method"),
}
ESTIMATORS = [
    *(NetworkKernel, PerceptualKernel, NetworkDensity, NetworkNeighbors, GradientFeaturizer),
    *(LabelDenoiser, FitDiagnostics, ActiveLearningSampler),
]


@pytest.mark.parametrize(("value", "message"), NO_NETWORKS.values(), ids=NO_NETWORKS)
@pytest.mark.parametrize("kind", ESTIMATORS)
def test_a_value_that_is_no_network_is_named(value, message, kind):
    X, y = np.random.default_rng(0).normal(size=(8, 3)), np.arange(8) % 2
    calls = [lambda: kind(value).fit(X, y)]
    if kind in (NetworkKernel, PerceptualKernel):
        calls.append(lambda: kind(value)(X))
    for call in calls:
        with pytest.raises(TypeError, match=f"`estimator` must be a skorch net.*{message}"):
            call()
