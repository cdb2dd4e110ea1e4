"""Predictions of a network, compared with those of skorch."""

import numpy as np
import pytest
import sklearn
import torch
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim._gradients.engine import GradientEngine
from sknetsim._gradients.predictions import predict_probabilities
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples

ENDINGS = {
    "logits": (3, nn.CrossEntropyLoss, []),
    "probabilities": (3, nn.NLLLoss, [nn.Softmax(dim=1)]),
    "one probability": (1, nn.BCELoss, [nn.Sigmoid(), nn.Flatten(0)]),
    "one logit": (1, nn.BCEWithLogitsLoss, [nn.Flatten(0)]),
}


def make_net(outputs, criterion, ending):
    module = nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.Linear(8, outputs), *ending)
    return NeuralNetClassifier(module, criterion=criterion, verbose=0).initialize()


@pytest.mark.parametrize("batch_size", [None, 1, 7])
@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_probabilities_equal_those_of_skorch(ending, batch_size):
    net, X = make_net(*ending), torch.randn(30, 4)
    probabilities = predict_probabilities(
        GradientEngine(resolve_network(net), "all", batch_size=batch_size), Samples(X)
    )
    np.testing.assert_allclose(probabilities, net.predict_proba(X), rtol=1e-5)


def test_probabilities_of_large_logits_are_finite():
    net, X = make_net(*ENDINGS["logits"]), 1e4 * torch.randn(30, 4)
    probabilities = predict_probabilities(GradientEngine(resolve_network(net), "all"), Samples(X))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_outputs_for_each_pixel_raise_an_error():
    net = NeuralNetClassifier(nn.Conv2d(1, 3, 1), criterion=nn.CrossEntropyLoss).initialize()
    with pytest.raises(ValueError, match=r"outputs of shape \(3, 2, 2\)"):
        predict_probabilities(
            GradientEngine(resolve_network(net)), Samples(torch.randn(5, 1, 2, 2))
        )


def test_many_classes_need_no_more_memory_than_a_forward_pass():
    net = NeuralNetClassifier(nn.Linear(4, 5_000), criterion=nn.CrossEntropyLoss).initialize()
    with sklearn.config_context(working_memory=1):
        probabilities = predict_probabilities(
            GradientEngine(resolve_network(net)), Samples(torch.randn(9, 4))
        )
    assert probabilities.shape == (9, 5_000)


def test_the_chunk_is_halved_if_memory_is_exhausted(monkeypatch):
    net, X = make_net(*ENDINGS["logits"]), torch.randn(9, 4)
    expected, sizes = net.predict_proba(X), []

    def forward(module, inputs):
        sizes.append(len(inputs))
        if len(inputs) > 2:
            raise torch.OutOfMemoryError
        return module(inputs)

    engine = GradientEngine(resolve_network(net), batch_size=4)
    monkeypatch.setattr(engine, "forward", forward)
    np.testing.assert_allclose(predict_probabilities(engine, Samples(X)), expected, rtol=1e-5)
    assert sizes == [4, 2, 2, 2, 2, 1]
