"""What a classifier predicts, against skorch."""

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim._gradients import GradientEngine
from sknetsim._network import resolve
from sknetsim._predictions import probabilities

ENDINGS = {
    "logits": (3, nn.CrossEntropyLoss, []),
    "probabilities": (3, nn.NLLLoss, [nn.Softmax(dim=1)]),
    "one logit": (1, nn.BCEWithLogitsLoss, [nn.Flatten(0)]),
}


def trained(outputs, criterion, ending):
    module = nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.Linear(8, outputs), *ending)
    return NeuralNetClassifier(module, criterion=criterion, verbose=0).initialize()


@pytest.mark.parametrize("batch_size", [None, 1, 7])
@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_probabilities_are_those_of_skorch(ending, batch_size):
    net, X = trained(*ending), torch.randn(30, 4)
    found = probabilities(GradientEngine(resolve(net), "all", batch_size=batch_size), X)
    np.testing.assert_allclose(found, net.predict_proba(X), rtol=1e-5)


def test_sure_predictions_stay_finite():
    net, X = trained(*ENDINGS["logits"]), 1e4 * torch.randn(30, 4)
    found = probabilities(GradientEngine(resolve(net), "all"), X)
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_nothing_is_recorded_for_gradients():
    engine = GradientEngine(resolve(trained(*ENDINGS["logits"])), "all")
    assert not any(logits.requires_grad for logits in engine.predictions(torch.randn(9, 4)))
