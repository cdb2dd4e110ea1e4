"""ActiveLearningSampler with independent labels, log-probabilities, and several tensors."""

import numpy as np
import pytest
import torch
from skorch import NeuralNet, NeuralNetClassifier
from torch import nn

from sknetsim import ActiveLearningSampler, UnsupportedNetworkError
from sknetsim.active.strategies import STRATEGIES

from .test_sampler import CLASSIFIERS_ONLY, make_samples

POOL = make_samples(20)
classifiers_only = pytest.mark.parametrize("strategy", sorted(CLASSIFIERS_ONLY))
any_net = pytest.mark.parametrize("kind", [NeuralNet, NeuralNetClassifier])


def make_module(*endings, outputs=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, outputs)]
    return nn.Sequential(*layers, *endings)


def make_net(module, criterion, kind=NeuralNetClassifier):
    return kind(module, criterion=criterion, verbose=0).initialize()


def score(strategy, net, output="all", pool=POOL):
    sampler = ActiveLearningSampler(net, output, strategy=strategy, n_components=None)
    return sampler.fit(make_samples(5, seed=1)).score_samples(pool)


def squared_length(network, loss):
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    return sum(float((gradient**2).sum()) for gradient in gradients)


# Independent labels.


def score_labels(strategy, module):
    """Return the utilities by their definitions, in a loop over samples and labels."""
    scores = []
    for row in torch.tensor(POOL):
        logits = module(row[None])[0]
        probabilities = logits.sigmoid().tolist()
        if strategy == "margin":
            scores.append(-min(abs(2 * p - 1) for p in probabilities))
        elif strategy == "entropy":
            scores.append(-sum(q * np.log(q) for p in probabilities for q in (p, 1 - p)))
        else:
            predicted = torch.tensor([float(p > 0.5) for p in probabilities])
            loss = nn.functional.binary_cross_entropy_with_logits(logits, predicted)
            scores.append(squared_length(module, loss))
    return scores


@classifiers_only
@any_net
@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_utilities_of_independent_labels_follow_their_definition(strategy, kind, outputs):
    module = make_module(outputs=outputs)
    utilities = score(strategy, make_net(module, nn.BCEWithLogitsLoss, kind))
    np.testing.assert_allclose(utilities, score_labels(strategy, module), rtol=1e-4)


@classifiers_only
@any_net
def test_a_last_sigmoid_of_independent_labels_does_not_matter(strategy, kind):
    expected = score(strategy, make_net(make_module(), nn.BCEWithLogitsLoss, kind))
    utilities = score(strategy, make_net(make_module(nn.Sigmoid()), nn.BCELoss, kind))
    np.testing.assert_allclose(utilities, expected, rtol=1e-4)


@classifiers_only
def test_the_soft_margin_of_labels_is_their_cross_entropy(strategy):
    expected = score(strategy, make_net(make_module(), nn.BCEWithLogitsLoss))
    utilities = score(strategy, make_net(make_module(), nn.MultiLabelSoftMarginLoss))
    np.testing.assert_allclose(utilities, expected, rtol=1e-4)


@classifiers_only
@pytest.mark.filterwarnings("ignore::sknetsim.ZeroGradientWarning")
def test_utilities_of_certain_labels_are_finite(strategy):
    module = make_module()
    module[2].weight.data *= 1000
    assert np.isfinite(score(strategy, make_net(module, nn.BCEWithLogitsLoss))).all()


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_every_strategy_chooses_samples_with_independent_labels(strategy):
    net = make_net(make_module(), nn.BCEWithLogitsLoss)
    sampler = ActiveLearningSampler(net, strategy=strategy, random_state=0)
    assert len(set(sampler.fit(make_samples(5, seed=1)).query(POOL, 4))) == 4


@classifiers_only
@pytest.mark.parametrize(
    "criterion", [nn.SoftMarginLoss, nn.HingeEmbeddingLoss, nn.MultiLabelMarginLoss]
)
def test_a_criterion_of_other_labels_raises_an_error(strategy, criterion):
    with pytest.raises(
        ValueError, match=f"NeuralNetClassifier with the criterion {criterion.__name__}. Wrap"
    ):
        score(strategy, make_net(make_module(), criterion))


# Log-probabilities.


class OwnLossClassifier(NeuralNetClassifier):
    """Classifier without skorch's logarithm, as for modules that return log-probabilities."""

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        return NeuralNet.get_loss(self, y_pred, y_true, *args, **kwargs)


@classifiers_only
@pytest.mark.parametrize("kind", [NeuralNetClassifier, OwnLossClassifier])
def test_a_last_log_softmax_does_not_matter(strategy, kind):
    expected = score(strategy, make_net(make_module(), nn.CrossEntropyLoss))
    utilities = score(strategy, make_net(make_module(nn.LogSoftmax(dim=1)), nn.NLLLoss, kind))
    np.testing.assert_allclose(utilities, expected, rtol=1e-4)


@classifiers_only
@pytest.mark.parametrize("criterion", [nn.NLLLoss, nn.BCELoss])
def test_logits_are_refused_if_the_criterion_takes_probabilities(strategy, criterion):
    with pytest.raises(UnsupportedNetworkError, match="`estimator` must return probabilities"):
        score(strategy, make_net(make_module(), criterion))


# Networks that return several tensors.


class Several(nn.Module):
    """Network that returns its logits and a hidden layer, in a container."""

    def __init__(self, container):
        super().__init__()
        self.layers, self.container = make_module(), container

    def forward(self, rows):
        return self.container((self.layers(rows), self.layers[:2](rows)))


SEVERAL = {
    "tuple": (tuple, lambda raw: raw[0]),
    "dict": (
        lambda values: dict(zip(("logits", "hidden"), values, strict=True)),
        lambda raw: raw["logits"],
    ),
    "list": (list, lambda raw: raw[0]),
}
several = pytest.mark.parametrize(("container", "select"), SEVERAL.values(), ids=SEVERAL)


@classifiers_only
@several
@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss, nn.BCEWithLogitsLoss])
def test_a_callable_selects_the_logits_of_a_network_that_returns_several_tensors(
    strategy, container, select, criterion
):
    expected = score(strategy, make_net(make_module(), criterion))
    utilities = score(strategy, make_net(Several(container), criterion), select)
    np.testing.assert_allclose(utilities, expected, rtol=1e-5)


@pytest.mark.parametrize("strategy", ["badge", "kcenter", "margin"])
@several
def test_several_tensors_need_a_callable(strategy, container, select):
    net = make_net(Several(container), nn.CrossEntropyLoss)
    with pytest.raises(
        UnsupportedNetworkError, match=r"must return one tensor .* Set `output` to a callable"
    ):
        score(strategy, net)


@classifiers_only
def test_a_callable_must_select_one_tensor(strategy):
    net = make_net(Several(tuple), nn.CrossEntropyLoss)
    with pytest.raises(UnsupportedNetworkError, match=r"`output` must return one tensor .* tuple"):
        score(strategy, net, lambda raw: raw)


@classifiers_only
def test_a_callable_does_not_change_the_probabilities_of_a_network_with_one_output(strategy):
    net = make_net(make_module(), nn.CrossEntropyLoss)
    np.testing.assert_array_equal(score(strategy, net, lambda raw: raw**3), score(strategy, net))


@classifiers_only
def test_an_invalid_output_raises_an_error_for_every_strategy(strategy):
    net = make_net(make_module(), nn.CrossEntropyLoss)
    with pytest.raises(ValueError, match=r"`output` must be 'all', .*; got 'logits'"):
        score(strategy, net, "logits")


# Criteria.


class Focal(nn.Module):
    """Focal loss."""

    def __init__(self, reduced=True):
        super().__init__()
        self.reduced = reduced

    def forward(self, logits, classes):
        losses = nn.functional.cross_entropy(logits, classes, reduction="none")
        losses = (1 - torch.exp(-losses)) ** 2 * losses
        return losses.mean() if self.reduced else losses


class FocalThatIgnoresReduction(Focal):
    reduction = "mean"


@pytest.mark.parametrize("criterion", [Focal, FocalThatIgnoresReduction])
def test_badge_needs_a_criterion_that_returns_one_loss_per_sample(criterion):
    net = make_net(make_module(), criterion)
    message = rf"if `strategy` is 'badge'; got the criterion {criterion.__name__}\(\), which"
    with pytest.raises(ValueError, match=message + ".* `reduction`.* set another `strategy`"):
        score("badge", net)


@pytest.mark.parametrize("strategy", ["margin", "entropy", "lcmd"])
def test_other_strategies_work_with_a_criterion_without_reduction(strategy):
    sampler = ActiveLearningSampler(make_net(make_module(), Focal), strategy=strategy)
    assert sampler.fit(make_samples(5, seed=1)).query(POOL, 3).shape == (3,)


# Outputs that are not finite.


class Root(nn.Module):
    """Network whose outputs are NaN if the first feature is negative."""

    def __init__(self):
        super().__init__()
        self.layers = make_module()

    def forward(self, rows):
        return self.layers(rows) + rows[:, :1].sqrt()


EVALUATED = sorted(set(STRATEGIES) - {"random"})


@pytest.mark.parametrize("strategy", EVALUATED)
def test_outputs_that_are_not_finite_are_refused_by_every_strategy(strategy):
    X, pool = np.abs(make_samples(5)), np.abs(make_samples(9, seed=1))
    pool[4, 0] = -1
    net = make_net(Root(), nn.CrossEntropyLoss)
    sampler = ActiveLearningSampler(net, strategy=strategy, random_state=0).fit(X)
    for method in ("query", "score_samples"):
        if hasattr(sampler, method):
            with pytest.raises(UnsupportedNetworkError, match="must return finite outputs; got"):
                getattr(sampler, method)(pool)


@pytest.mark.parametrize("strategy", EVALUATED)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_every_strategy(strategy, value):
    net = make_net(make_module(), nn.CrossEntropyLoss)
    net.module_[2].bias.data[1] = value
    with pytest.raises(UnsupportedNetworkError, match="must return finite outputs; got NaN or inf"):
        ActiveLearningSampler(net, strategy=strategy).fit(make_samples(5))


def test_random_choice_does_not_evaluate_the_network():
    net = make_net(make_module(), nn.CrossEntropyLoss)
    net.module_[2].bias.data[1] = np.nan
    sampler = ActiveLearningSampler(net, strategy="random").fit(make_samples(5))
    assert sampler.query(POOL, 3).shape == (3,)


class Centred(nn.Linear):
    """Network that subtracts the mean over the batch."""

    def forward(self, rows):
        outputs = super().forward(rows)
        return outputs - outputs.mean(dim=0)


@pytest.mark.parametrize("strategy", EVALUATED)
def test_a_network_that_mixes_samples_is_refused_by_every_strategy(strategy):
    sampler = ActiveLearningSampler(make_net(Centred(4, 3), nn.CrossEntropyLoss), strategy=strategy)
    with pytest.raises(UnsupportedNetworkError, match="that depend only on that sample"):
        sampler.fit(make_samples(5, seed=1)).query(POOL, 3)
