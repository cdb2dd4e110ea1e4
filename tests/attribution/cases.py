"""Networks with labels of each kind, and their losses and margins as functions of logits."""

import skorch
import torch
from torch import nn
from torch.nn import functional

SAMPLES, QUERIES, FEATURES = 12, 4, 3


def make_module(outputs, *ending):
    """Return a small float64 perceptron."""
    torch.manual_seed(0)
    layers = nn.Linear(FEATURES, 5), nn.Tanh(), nn.Linear(5, outputs), *ending
    return nn.Sequential(*layers).double()


def wrap(kind, module, criterion, **settings):
    """Return a skorch net with a module."""
    return kind(module, criterion=criterion, device="cpu", **settings).initialize()


def get_logits(case, module, x):
    """Return the outputs of one sample before a final softmax or sigmoid."""
    layers = module[:-1] if case.ending else module
    return layers(x[None])[0]


class Case:
    """Network with labels, and its loss.

    Parameters
    ----------
    outputs : int
        Number of outputs.
    draw : callable
        Function of a number of samples that returns labels.
    loss : callable
        Function of the logits and the label of one sample.
    make : callable or None
        Function that returns a skorch net from a module; None for the module itself.
    ending : Module or None
        Last layer, behind the logits.
    has_margin : bool
        Whether labels are classes, or 0 and 1.
    """

    def __init__(self, outputs, draw, loss, make=None, ending=None, has_margin=True):
        self.outputs, self.draw, self.loss, self.make = outputs, draw, loss, make
        self.ending, self.has_margin = ending, has_margin

    def build(self):
        """Return the module, the estimator, samples, labels, queries and their labels."""
        module = make_module(self.outputs, *([self.ending] if self.ending else []))
        generator = torch.Generator().manual_seed(1)
        X = torch.randn(SAMPLES + QUERIES, FEATURES, generator=generator, dtype=torch.float64)
        y = self.draw(len(X), generator)
        estimator = self.make(module) if self.make else module
        return module, estimator, X[:SAMPLES], y[:SAMPLES], X[SAMPLES:], y[SAMPLES:]


def _draw_classes(count):
    return lambda n, generator: torch.arange(n) * 7 % count


def _draw_numbers(*shape):
    return lambda n, g: torch.randn(n, *shape, generator=g, dtype=torch.float64)


def _draw_indicators(n, generator):
    return (torch.rand(n, 2, generator=generator) > 0.5).double()


def _cross_entropy(z, y, **settings):
    return functional.cross_entropy(z[None], y[None], **settings)


_WEIGHTS = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)


def _weighted_cross_entropy(z, y):
    settings = {"weight": _WEIGHTS, "label_smoothing": 0.1, "reduction": "none"}
    return functional.cross_entropy(z[None], y[None], **settings)[0]


def _binary(z, y):
    return functional.binary_cross_entropy_with_logits(z, y.double().expand(z.shape))


def _poisson(z, y):
    return functional.poisson_nll_loss(z, y.double().expand(z.shape))


def _huber(z, y):
    return functional.huber_loss(z, y.double().expand(z.shape))


def _divergence(z, y):
    return functional.kl_div(z.log_softmax(dim=0), y, reduction="none").mean()


def _squares(z, y):
    return functional.mse_loss(z, y.double().expand(z.shape))


CASES = {
    "module of classes": Case(3, _draw_classes(3), _cross_entropy),
    "module of numbers": Case(1, _draw_numbers(), _squares, has_margin=False),
    "cross-entropy": Case(
        3,
        _draw_classes(3),
        _cross_entropy,
        lambda module: wrap(skorch.NeuralNetClassifier, module, nn.CrossEntropyLoss),
    ),
    "weighted and smoothed": Case(
        3,
        _draw_classes(3),
        _weighted_cross_entropy,
        lambda module: wrap(
            skorch.NeuralNetClassifier,
            module,
            nn.CrossEntropyLoss,
            criterion__weight=_WEIGHTS,
            criterion__label_smoothing=0.1,
        ),
    ),
    "softmax": Case(
        3,
        _draw_classes(3),
        _cross_entropy,
        lambda module: wrap(skorch.NeuralNetClassifier, module, nn.NLLLoss),
        nn.Softmax(dim=1),
    ),
    "distributions": Case(
        3,
        lambda n, g: torch.rand(n, 3, generator=g, dtype=torch.float64).softmax(dim=1),
        _divergence,
        lambda module: wrap(skorch.NeuralNetRegressor, module, nn.KLDivLoss),
        nn.LogSoftmax(dim=1),
        has_margin=False,
    ),
    "one logit": Case(
        1,
        _draw_classes(2),
        _binary,
        lambda module: wrap(skorch.NeuralNetBinaryClassifier, module, nn.BCEWithLogitsLoss),
    ),
    "sigmoids": Case(
        2,
        _draw_indicators,
        _binary,
        lambda module: wrap(skorch.NeuralNet, module, nn.BCELoss),
        nn.Sigmoid(),
    ),
    "columns": Case(
        2,
        _draw_numbers(2),
        _squares,
        lambda module: wrap(skorch.NeuralNetRegressor, module, nn.MSELoss),
        has_margin=False,
    ),
    "counts": Case(
        1,
        _draw_classes(4),
        _poisson,
        lambda module: wrap(skorch.NeuralNetRegressor, module, nn.PoissonNLLLoss),
        has_margin=False,
    ),
    "huber": Case(
        1,
        _draw_numbers(1),
        _huber,
        lambda module: wrap(skorch.NeuralNetRegressor, module, nn.HuberLoss),
        has_margin=False,
    ),
}
