"""Losses of samples, and labels: log-probabilities, independent labels, and other criteria."""

import numpy as np
import pytest
import torch
from skorch import NeuralNet, NeuralNetClassifier
from torch import nn

from sknetsim import GradientFeaturizer, NetworkKernel, UnsupportedNetworkError

from .. import naive

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)).double()
CLASSES = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
LABELS = torch.tensor([[0, 1, 1], [1, 0, 0], [1, 1, 1], [0, 0, 1]] * 2)


class OwnLossClassifier(NeuralNetClassifier):
    """Classifier without skorch's logarithm, as for modules that return log-probabilities."""

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        return NeuralNet.get_loss(self, y_pred, y_true, *args, **kwargs)


class OwnWeight(nn.Module):
    """Product with a parameter that no rule serves, so that its gradients come from vmap."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2, -1]))

    def forward(self, rows):
        return rows * self.weight


def make_module(*endings, outputs=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, outputs)]
    return nn.Sequential(*layers, *endings).double()


def make_net(module, criterion, kind=NeuralNetClassifier, **params):
    return kind(module, criterion=criterion, verbose=0, **params).initialize()


def loss_gram(module, loss, labels):
    """Return the cosine similarity of the gradients of the loss, from a loop over samples."""
    labels = iter(labels)
    J = naive.jacobians(module, X, lambda raw: loss(raw, next(labels)[None]))
    return naive.correlation(J, J, 1e-15)


def kernel_of_outputs(module, select=None):
    """Return K(x, x'), averaged over the outputs, from a loop over samples and outputs."""
    J = naive.jacobians(module, X, select)
    return np.einsum("nop,mop->nm", J, J) / J.shape[1]


# Log-probabilities.


@pytest.mark.parametrize("kind", [NeuralNetClassifier, OwnLossClassifier, NeuralNet])
@pytest.mark.parametrize(
    "ending",
    [[nn.LogSoftmax(dim=1)], [nn.LogSigmoid()], [OwnWeight(), nn.LogSoftmax(dim=1)]],
    ids=["log-softmax", "log-sigmoid", "a parameter without a rule"],
)
def test_log_probabilities_are_compared_unchanged(kind, ending):
    module = make_module(*ending)
    gram = NetworkKernel(make_net(module, nn.NLLLoss, kind), normalize=False)(X)
    np.testing.assert_allclose(gram, kernel_of_outputs(module), rtol=1e-9)


@pytest.mark.parametrize("ending", [[], [OwnWeight()]], ids=["rules", "vmap"])
def test_probabilities_and_their_logarithms_are_compared_alike(ending):
    grams = [
        NetworkKernel(make_net(make_module(*ending, last), nn.NLLLoss))(X)
        for last in (nn.Softmax(dim=1), nn.LogSoftmax(dim=1))
    ]
    np.testing.assert_allclose(*grams, rtol=1e-9)


def test_log_probabilities_of_pixels_are_compared_unchanged():
    module = nn.Sequential(nn.Conv2d(1, 3, 1), nn.LogSoftmax(dim=1)).double()
    images = X.reshape(8, 1, 2, 2)
    gram = NetworkKernel(make_net(module, nn.NLLLoss), normalize=False)(images)
    J = naive.jacobians(module, images)
    np.testing.assert_allclose(gram, np.einsum("nop,mop->nm", J, J) / 12, rtol=1e-9)


def test_log_probabilities_of_classes_with_tiny_probabilities_have_their_own_gradients():
    module = make_module(nn.LogSoftmax(dim=1))
    module[2].weight.data *= 2000
    assert (module(X).exp() == 0).any()
    gram = NetworkKernel(make_net(module, nn.NLLLoss), normalize=False)(X)
    np.testing.assert_allclose(gram, kernel_of_outputs(module), rtol=1e-9)


class Shift(nn.Module):
    """Sum with a constant, like a rounding error."""

    def __init__(self, constant):
        super().__init__()
        self.constant = constant

    def forward(self, rows):
        return rows + self.constant


@pytest.mark.parametrize(
    ("last", "rounding"), [(nn.Softmax(dim=1), -1e-9), (nn.LogSoftmax(dim=1), 1e-9)]
)
def test_rounding_past_0_does_not_turn_probabilities_into_logarithms_or_back(last, rounding):
    module = make_module(last)
    module[2].weight.data *= 100
    rounded = nn.Sequential(*module, Shift(rounding))
    assert (rounded(X) < 0).any()
    assert (rounded(X) > 0).any()
    gram, expected = (
        NetworkKernel(make_net(network, nn.NLLLoss), output="predicted", normalize=False)(X)
        for network in (rounded, module)
    )
    np.testing.assert_allclose(gram, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("kind", [NeuralNetClassifier, OwnLossClassifier])
def test_the_loss_of_log_probabilities_takes_no_second_logarithm(kind):
    module = make_module(nn.LogSoftmax(dim=1))
    net = make_net(module, nn.NLLLoss, kind)
    features = GradientFeaturizer(net, output="loss").fit_transform(X, CLASSES.numpy())
    expected = loss_gram(module, nn.functional.nll_loss, CLASSES)
    np.testing.assert_allclose(features @ features.T, expected, atol=1e-9)


@pytest.mark.parametrize("output", ["all", "predicted", "loss", 0])
def test_logits_are_no_probabilities(output):
    net = make_net(make_module(), nn.NLLLoss)
    message = r"must return probabilities, or log-probabilities, .* NLLLoss; got outputs between -"
    with pytest.raises(UnsupportedNetworkError, match=message + ".*CrossEntropyLoss"):
        NetworkKernel(net, output=output)(X)


@pytest.mark.parametrize("kind", [NeuralNetClassifier, NeuralNet])
def test_logits_are_no_probabilities_of_labels(kind):
    net = make_net(make_module(), nn.BCELoss, kind)
    with pytest.raises(
        UnsupportedNetworkError, match=r"must return probabilities if .* BCELoss; .*BCEWithLogits"
    ):
        NetworkKernel(net)(X)


def test_logits_are_compared_by_a_callable_with_any_criterion():
    module = make_module()
    gram = NetworkKernel(make_net(module, nn.NLLLoss), output=lambda raw: raw)(X)
    np.testing.assert_allclose(gram, NetworkKernel(module)(X), rtol=1e-9)


# Independent labels.

INDEPENDENT = {
    "logits": ([], nn.BCEWithLogitsLoss, nn.functional.binary_cross_entropy_with_logits),
    "probabilities": ([nn.Sigmoid()], nn.BCELoss, nn.functional.binary_cross_entropy),
    "soft margin": (
        [],
        nn.MultiLabelSoftMarginLoss,
        nn.functional.multilabel_soft_margin_loss,
    ),
}
independent = pytest.mark.parametrize(
    ("ending", "criterion", "loss"), INDEPENDENT.values(), ids=INDEPENDENT
)


@independent
@pytest.mark.parametrize("kind", [NeuralNetClassifier, NeuralNet])
def test_the_loss_of_independent_labels_is_compared_at_the_given_labels(
    kind, ending, criterion, loss
):
    module = make_module(*ending)
    net = make_net(module, criterion, kind)
    features = GradientFeaturizer(net, output="loss").fit_transform(X, LABELS.numpy())
    expected = loss_gram(module, loss, LABELS.double())
    np.testing.assert_allclose(features @ features.T, expected, atol=1e-9)


@independent
@pytest.mark.parametrize("kind", [NeuralNetClassifier, NeuralNet])
def test_the_loss_of_independent_labels_is_compared_at_the_predicted_labels(
    kind, ending, criterion, loss
):
    module = make_module(*ending)
    predicted = (make_module()(X) > 0).double()
    expected = loss_gram(module, loss, predicted)
    gram = NetworkKernel(make_net(module, criterion, kind), output="loss")(X)
    np.testing.assert_allclose(gram, expected, atol=1e-9)


def test_weights_of_labels_are_part_of_the_loss():
    weight, module = torch.tensor([1.0, 5, 2]).double(), make_module()
    net = make_net(module, nn.BCEWithLogitsLoss, criterion__pos_weight=weight)
    features = GradientFeaturizer(net, output="loss").fit_transform(X, LABELS.numpy())

    def loss(raw, y):
        return nn.functional.binary_cross_entropy_with_logits(raw, y, pos_weight=weight)

    expected = loss_gram(module, loss, LABELS.double())
    np.testing.assert_allclose(features @ features.T, expected, atol=1e-9)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (CLASSES.numpy(), "must contain a label for each of the 3 outputs .*; got 1 per sample"),
        (1 + LABELS.numpy(), "must contain 0 or 1, or a probability, .*; got numbers from 1 to 2"),
        (2 * LABELS.numpy() - 1, "must contain 0 or 1, .*; got numbers from -1 to 1"),
        (np.where(LABELS.numpy() == 1, np.nan, 0), "`y` must be finite; got NaN"),
    ],
)
def test_independent_labels_are_checked(labels, message):
    net = make_net(make_module(), nn.BCEWithLogitsLoss)
    with pytest.raises(ValueError, match=message):
        GradientFeaturizer(net, output="loss").fit_transform(X, labels)


# Other criteria.


@pytest.mark.parametrize(
    ("criterion", "loss", "ending"),
    [
        (nn.MSELoss, nn.functional.mse_loss, []),
        (nn.SmoothL1Loss, nn.functional.smooth_l1_loss, []),
        (nn.KLDivLoss, lambda raw, y: -(raw * y).sum(), [nn.LogSoftmax(dim=1)]),
    ],
)
def test_a_criterion_of_numbers_compares_a_class_as_ones_and_zeros(criterion, loss, ending):
    module = make_module(*ending)
    predicted = nn.functional.one_hot(module(X).argmax(dim=1), 3).double()
    expected = loss_gram(module, loss, predicted)
    gram = NetworkKernel(make_net(module, criterion), output="loss")(X)
    np.testing.assert_allclose(gram, expected, atol=1e-9)


def test_a_criterion_of_margins_takes_class_numbers():
    module = make_module()
    expected = loss_gram(module, nn.functional.multi_margin_loss, module(X).argmax(dim=1))
    gram = NetworkKernel(make_net(module, nn.MultiMarginLoss), output="loss")(X)
    np.testing.assert_allclose(gram, expected, atol=1e-9)


@pytest.mark.parametrize(
    "criterion", [nn.SoftMarginLoss, nn.HingeEmbeddingLoss, nn.MultiLabelMarginLoss]
)
def test_labels_that_do_not_follow_from_the_outputs_must_be_given(criterion):
    net = make_net(make_module(), criterion)
    with pytest.raises(
        ValueError, match=rf"`y` must be given .* no labels for {criterion.__name__}"
    ):
        NetworkKernel(net, output="loss")(X)


class Focal(nn.Module):
    """Focal loss, a mean over the batch."""

    def forward(self, logits, classes):
        losses = nn.functional.cross_entropy(logits, classes, reduction="none")
        return ((1 - torch.exp(-losses)) ** 2 * losses).mean()


class FocalThatIgnoresReduction(Focal):
    reduction = "mean"


class FocalCrossEntropy(nn.CrossEntropyLoss):
    def forward(self, logits, classes):
        losses = super().forward(logits, classes)
        return ((1 - torch.exp(-losses)) ** 2 * losses).mean()


@pytest.mark.parametrize(
    ("criterion", "problem"),
    [
        (Focal, r"Focal\(\), which has no `reduction`"),
        (FocalThatIgnoresReduction, r"FocalThatIgnoresReduction\(\), which ignores `reduction`"),
        (FocalCrossEntropy, r"FocalCrossEntropy\(\), which ignores `reduction`"),
    ],
)
def test_a_criterion_without_one_loss_per_sample_raises_an_error(criterion, problem):
    net = make_net(make_module(), criterion)
    with pytest.raises(ValueError, match=f"if `output` is 'loss'; got .* {problem}.*`output`"):
        NetworkKernel(net, output="loss")(X)


def test_a_network_that_returns_a_tuple_has_no_loss():
    class Pair(nn.Linear):
        def forward(self, rows):
            return super().forward(rows), rows

    net = make_net(Pair(4, 3).double(), nn.CrossEntropyLoss)
    with pytest.raises(
        UnsupportedNetworkError,
        match=r"because the loss is compared; got a tuple\. Wrap the network",
    ):
        NetworkKernel(net, output="loss")(X)
