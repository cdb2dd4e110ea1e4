"""Predictions of a network, compared with those of skorch."""

import numpy as np
import pytest
import sklearn
import torch
from skorch import NeuralNet, NeuralNetClassifier
from torch import nn

from sknetsim import UnsupportedNetworkError
from sknetsim._gradients.engine import GradientEngine
from sknetsim._gradients.predictions import (
    predict_distributions,
    predict_outputs,
    predict_probabilities,
)
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples

ENDINGS = {
    "logits": (3, nn.CrossEntropyLoss, []),
    "probabilities": (3, nn.NLLLoss, [nn.Softmax(dim=1)]),
    "one probability": (1, nn.BCELoss, [nn.Sigmoid(), nn.Flatten(0)]),
    "one logit": (1, nn.BCEWithLogitsLoss, [nn.Flatten(0)]),
}


def make_net(outputs, criterion, ending, kind=NeuralNetClassifier):
    module = nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.Linear(8, outputs), *ending)
    return kind(module, criterion=criterion, verbose=0).initialize()


def make_engine(net):
    return GradientEngine(resolve_network(net))


@pytest.mark.parametrize("batch_size", [None, 1, 7])
@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_probabilities_equal_those_of_skorch(ending, batch_size):
    net, X = make_net(*ending), torch.randn(30, 4)
    probabilities = predict_probabilities(
        GradientEngine(resolve_network(net), "all", batch_size=batch_size), Samples(X)
    )
    np.testing.assert_allclose(probabilities, net.predict_proba(X), rtol=1e-5)


def test_log_probabilities_give_probabilities():
    net, X = make_net(3, nn.NLLLoss, [nn.LogSoftmax(dim=1)]), torch.randn(30, 4)
    probabilities = predict_probabilities(make_engine(net), Samples(X))
    np.testing.assert_allclose(probabilities, np.exp(net.predict_proba(X)), rtol=1e-5)


INDEPENDENT = {
    "logits": (nn.BCEWithLogitsLoss, []),
    "probabilities": (nn.BCELoss, [nn.Sigmoid()]),
    "soft margin": (nn.MultiLabelSoftMarginLoss, []),
}


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("kind", [NeuralNet, NeuralNetClassifier])
@pytest.mark.parametrize("ending", INDEPENDENT.values(), ids=INDEPENDENT)
def test_each_independent_label_has_its_probability(ending, kind, count):
    net, X = make_net(count, *ending, kind=kind), torch.randn(30, 4)
    outputs = net.forward(X) if ending[1] else net.forward(X).sigmoid()
    np.testing.assert_allclose(
        predict_probabilities(make_engine(net), Samples(X)), outputs, rtol=1e-5
    )
    distributions = predict_distributions(make_engine(net), Samples(X))
    np.testing.assert_allclose(distributions, np.stack([1 - outputs, outputs], 2), rtol=1e-4)


def test_independent_labels_of_pixels_have_probabilities():
    net = NeuralNet(nn.Conv2d(1, 2, 1), criterion=nn.BCEWithLogitsLoss).initialize()
    X = torch.randn(5, 1, 2, 2)
    probabilities = predict_probabilities(make_engine(net), Samples(X))
    np.testing.assert_allclose(probabilities, net.forward(X).sigmoid().flatten(1), rtol=1e-5)


def test_one_independent_label_has_two_classes():
    net, X = make_net(1, nn.BCEWithLogitsLoss, [], kind=NeuralNet), torch.randn(30, 4)
    second = net.forward(X).sigmoid()
    probabilities = predict_probabilities(make_engine(net), Samples(X))
    np.testing.assert_allclose(probabilities, np.hstack([1 - second, second]), rtol=1e-5)


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
    assert sizes == [4, 2, 1, 1, 2, 2, 2, 1]


class ForceField(nn.Module):
    """Network whose outputs are derivatives of another output, with respect to the inputs."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, rows):
        rows = rows.detach().requires_grad_()
        energies = self.layers(rows).sum()
        return torch.autograd.grad(energies, rows, create_graph=True)[0]


class Transformer(nn.Module):
    """Encoder of padded sequences; torch's fast path returns zeros for the padding."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)

    def forward(self, sequences):
        padding = sequences.abs().sum(dim=2) == 0
        return self.encoder(sequences, src_key_padding_mask=padding).flatten(1)


@pytest.mark.parametrize("grad", [True, False])
def test_a_network_may_differentiate_its_outputs_itself(grad):
    module, X = ForceField(), torch.randn(5, 4)
    expected = module(X).detach()
    with torch.set_grad_enabled(grad):
        outputs = predict_outputs(make_engine(module), Samples(X))
    np.testing.assert_allclose(outputs, expected, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_outputs_are_those_whose_gradients_are_compared():
    module, X = Transformer().eval(), torch.randn(5, 3, 4)
    X[1:, 2] = 0
    expected = module(X).detach()
    with torch.no_grad():
        assert not torch.allclose(module(X), expected)
    outputs = predict_outputs(make_engine(module), Samples(X))
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)


def count_samples(monkeypatch, engine, X):
    """Return the numbers of samples of all forward passes."""
    sizes, forward = [], engine.forward

    def record(module, inputs):
        sizes.append(len(inputs))
        return forward(module, inputs)

    monkeypatch.setattr(engine, "forward", record)
    predict_outputs(engine, Samples(X))
    return sizes


def test_a_chunk_keeps_the_graph_within_the_memory_budget(monkeypatch):
    # Autograd saves 40,000 bytes per sample, the output of Tanh, and a chunk has 256 KiB.
    engine = make_engine(nn.Sequential(nn.Linear(4, 10_000), nn.Tanh(), nn.Linear(10_000, 1)))
    with sklearn.config_context(working_memory=1):
        sizes = count_samples(monkeypatch, engine, torch.randn(20, 4))
    assert sizes == [2, 1, 6, 1, 1, 6, 6, 2]


def test_large_weights_do_not_make_chunks_smaller(monkeypatch):
    engine = make_engine(nn.Sequential(nn.Linear(1_000, 1_000), nn.Linear(1_000, 1)))
    with sklearn.config_context(working_memory=8):
        assert count_samples(monkeypatch, engine, torch.randn(300, 1_000)) == [2, 1, 256, 1, 1, 44]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_predictions_that_are_not_finite_raise_an_error(value):
    module = nn.Linear(4, 3)
    module.bias.data[1] = value
    with pytest.raises(UnsupportedNetworkError, match="must return finite outputs; got NaN or inf"):
        predict_outputs(make_engine(module), Samples(torch.randn(5, 4)))


@pytest.mark.parametrize("criterion", [nn.NLLLoss, nn.BCELoss])
def test_predictions_need_probabilities_if_the_criterion_does(criterion):
    net = make_net(3, criterion, [])
    with pytest.raises(UnsupportedNetworkError, match="`estimator` must return probabilities"):
        predict_probabilities(make_engine(net), Samples(torch.randn(5, 4)))


class Centred(nn.Linear):
    """Network that subtracts the mean over the batch."""

    def forward(self, rows):
        outputs = super().forward(rows)
        return outputs - outputs.mean(dim=0)


class Sorted(nn.Linear):
    """Network that sorts the samples of a batch."""

    def forward(self, rows):
        return super().forward(rows).sort(dim=0).values


@pytest.mark.parametrize("mixing", [Centred, Sorted])
def test_predictions_of_a_network_that_mixes_samples_raise_an_error(mixing):
    with pytest.raises(UnsupportedNetworkError, match="that depend only on that sample"):
        predict_outputs(make_engine(mixing(4, 3)), Samples(torch.randn(5, 4)))


def test_a_network_may_change_its_inputs_in_place():
    module, X = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)), torch.randn(5, 4)
    outputs = predict_outputs(make_engine(module), Samples(X))
    np.testing.assert_allclose(outputs, module(X.clone()).detach(), rtol=1e-6)
