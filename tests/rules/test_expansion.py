"""The rule of functions that repeat a parameter."""

import pytest
import torch

from sknetsim.testing import check_rule

from .loops import Calling, draw_inputs, is_covered

#: Functions of the input, of shape (n, 2, 3), and of a parameter of a shape.
EXPANSIONS = {
    "new first axis": (lambda X, w: w.expand(len(X), 2, 3), (2, 3)),
    "first axis of length 1": (lambda X, w: w.expand(len(X), -1, -1), (1, 2, 3)),
    "two axes of length 1": (lambda X, w: w.expand(len(X), 4, -1), (1, 1, 3)),
    "sizes in a list": (lambda X, w: w.expand([len(X), 2, 3]), (3,)),
    "samples last": (lambda X, w: w.expand(3, len(X)).T, (3, 1)),
    "a number": (lambda X, w: w.expand(len(X), 2), ()),
    "expand_as": (lambda X, w: w.expand_as(X), (3,)),
    "expand_as of the same number of axes": (lambda X, w: w.expand_as(X), (1, 2, 1)),
    "broadcast_to": (lambda X, w: torch.broadcast_to(w, X.shape), (2, 1)),
    "method broadcast_to": (lambda X, w: w.broadcast_to(X.shape), (1, 2, 3)),
    "repeat": (lambda X, w: w.repeat(len(X), 1, 1), (1, 2, 3)),
    "repeat along a new axis": (lambda X, w: w.repeat(len(X), 2, 1), (2, 3)),
    "repeat along its own axes": (lambda X, w: w.repeat(len(X), 2, 3), (1, 2, 3)),
    "repeat of several rows": (lambda X, w: w.repeat(len(X), 1).view(len(X), 2, 3), (2, 3)),
    "repeat of a vector": (lambda X, w: w.repeat(len(X)).view(len(X), -1), (3,)),
    "tile": (lambda X, w: torch.tile(w, (len(X), 1, 2)), (1, 2, 3)),
    "method tile": (lambda X, w: w.tile(len(X), 2, 1), (2, 3)),
}


@pytest.mark.parametrize(("function", "shape"), EXPANSIONS.values(), ids=EXPANSIONS)
def test_gradients_are_cotangents_summed_over_repetitions(function, shape):
    layer, X = Calling(function, shape), draw_inputs(4, 2, 3)
    assert is_covered(layer, X)
    check_rule(layer, X)


def test_the_gradient_of_a_repeated_number_adds_all_cotangents():
    """Entries 0, 2, 4 of [a, b, a, b, a, b] are repetitions of a."""
    layer = Calling(lambda X, w: w.repeat(len(X), 3) * X, (2,))
    X = torch.arange(12.0).view(2, 6)
    layer(X)[1].sum().backward()
    assert torch.equal(layer.weights[0].grad, torch.tensor([6.0 + 8 + 10, 7 + 9 + 11]))
