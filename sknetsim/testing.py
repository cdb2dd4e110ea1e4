"""For authors of layers: whether a rule is right.

Index legend: n samples; o cotangents; P parameters.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ._gradients import GradientEngine
from ._inputs import Rows, tensors
from ._jacobian import Jacobian
from ._layouts import Layout
from ._network import resolve
from .rules import find_rule, layout_of

__all__ = ["check_rule"]

_COTANGENTS = 3
# Relative to the largest entry, in float64.
_TOLERANCE = 1e-8


def check_rule(layer: nn.Module, X: Any) -> None:
    r"""Compare the rule of a layer with a double loop of ``torch.autograd.grad`` in float64.

    For random cotangents :math:`c_{no}` at its output, the gradients
    :math:`\partial (c_{no} \cdot y(x_n)) / \partial \theta` of each sample by itself, and what
    estimators ask of a rule's blocks: the self-kernels K(x, x), the gram K(x, x'), its traces, and
    weighted sums over the samples. Then the engine uses the rule on a network that consists of the
    layer, as it would on any.

    Parameters
    ----------
    layer : Module
        A layer with a rule. A copy of it is looked at, in eval mode.
    X : array-like or Tensor of shape (n_samples, ...)
        What the layer takes: a few samples, different ones.

    Raises
    ------
    AssertionError
        If the layer has no rule, the rule gives other gradients than autograd (the parameter and
        the sample are named), its blocks something else than these gradients do, or the engine does
        not use it.

    See Also
    --------
    sknetsim.register_rule : Registers a rule.

    Examples
    --------
    >>> import torch
    >>> from sknetsim.testing import check_rule
    >>> check_rule(torch.nn.Linear(3, 2), torch.randn(4, 3))
    """
    layer = copy.deepcopy(layer).double().eval()
    (inputs,) = tensors(Rows(X).take(slice(None)))
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    names = tuple(name for name, p in layer._parameters.items() if p is not None)
    layout = layout_of(layer, names)
    with torch.no_grad():
        outputs = layer(inputs)
    generator = torch.Generator().manual_seed(0)
    shape = (len(inputs), _COTANGENTS, *outputs.shape[1:])
    cotangents = torch.randn(shape, generator=generator, dtype=torch.float64)
    found = _by_rule(layer, inputs, cotangents, names, layout)
    expected = _by_loop(layer, inputs, cotangents, names)
    _assert_gradients(found, expected)
    _assert_quantities(found, expected)
    _assert_used(layer, inputs)


def _by_rule(
    layer: nn.Module, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...], layout: Layout
) -> Jacobian:
    rule = find_rule(layer)
    assert rule is not None, (
        f"{type(layer).__name__} has no rule for its parameters {list(names)}: decorate one with"
        " register_rule, and name all of them in its `parameters`."
    )
    with torch.no_grad():
        blocks = rule(layer, inputs, cotangents, names)
    found = sorted(name for block in blocks for name, _ in block.layout)
    assert found == sorted(names), (
        f"the rule's blocks are of the parameters {found}, and it was asked for {sorted(names)}:"
        " name each of them in one layout."
    )
    keyed = {tuple(name for name, _ in block.layout): block for block in blocks}
    return Jacobian(keyed, layout, cotangents.flatten(2)[:, :, 0])


def _by_loop(
    layer: nn.Module, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> Tensor:
    """The gradients, of shape (n, o, P)."""
    parameters = [getattr(layer, name).requires_grad_() for name in names]
    rows = []
    for row, own in enumerate(cotangents):
        output = layer(inputs[row : row + 1])[0]
        for cotangent in own:
            gradients = torch.autograd.grad(
                (output * cotangent).sum(), parameters, retain_graph=True, allow_unused=True
            )
            rows.append(_flat(parameters, gradients))
    return torch.stack(rows).view(*cotangents.shape[:2], -1)


def _flat(parameters: list[Tensor], gradients: tuple[Tensor | None, ...]) -> Tensor:
    return torch.cat(
        [
            torch.zeros_like(parameter).flatten() if gradient is None else gradient.flatten()
            for parameter, gradient in zip(parameters, gradients, strict=True)
        ]
    )


def _assert_gradients(found: Jacobian, expected: Tensor) -> None:
    given = found.materialize()
    sizes = [shape.numel() for _, shape in found.layout]
    for (name, _), one, other in zip(
        found.layout, given.split(sizes, dim=2), expected.split(sizes, dim=2), strict=True
    ):
        difference = (one - other).abs().flatten(1).max(dim=1).values
        worst, size = int(difference.argmax()), float(other.abs().max())
        assert difference[worst] <= _TOLERANCE * max(size, 1e-30), (
            f"the rule's gradient of {name!r} is {float(difference[worst]):.3g} from autograd's in"
            f" sample {worst}, whose largest entries are {size:.3g}."
        )


def _assert_quantities(found: Jacobian, expected: Tensor) -> None:
    """What blocks make of themselves, in either form, against the gradients written out."""
    weights = torch.randn(*expected.shape[:2], 2, dtype=torch.float64)
    gram = torch.einsum("nop,mqp->nmoq", expected, expected)
    wanted = {
        "gram": gram,
        "self_kernel": torch.einsum("nop,nqp->noq", expected, expected),
        "trace_gram": torch.einsum("nmoo->nm", gram),
        "weighted_sum": torch.einsum("noq,nop->qp", weights, expected),
    }
    for form in (found.for_pairs(), found.for_sums()):
        sums = form.weighted_sum(weights)
        given = {
            "gram": form.gram(form),
            "self_kernel": form.self_kernel(),
            "trace_gram": form.trace_gram(form),
            "weighted_sum": torch.cat([sums[name] for name, _ in found.layout], dim=1),
        }
        for name, values in wanted.items():
            difference = float((given[name] - values).abs().max())
            assert difference <= _TOLERANCE * float(values.abs().max()), (
                f"{name} of the rule's blocks is {difference:.3g} from what the gradients give."
            )


def _assert_used(layer: nn.Module, inputs: Tensor) -> None:
    network = nn.Sequential(layer, nn.Flatten())
    engine = GradientEngine(resolve(network), "sum")
    for _ in engine.jacobians(inputs):
        pass
    assert not engine.refused, (
        f"the engine does not use the rule for {sorted(engine.refused)}: the layer puts something"
        " else than samples on the first axis, or is called in a way that rules do not know."
    )
