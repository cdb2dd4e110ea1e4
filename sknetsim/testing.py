"""Check of a rule against automatic differentiation.

Index legend: n samples; o cotangents; P parameters.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ._gradients.engine import GradientEngine
from ._kernels.jacobian import Jacobian
from ._networks.inputs import Rows, list_tensors
from ._networks.network import resolve_network
from .rules import Block, find_rule, layout_of

__all__ = ["check_rule"]

_COTANGENTS = 3

# Relative to the largest entry, in float64.
_TOLERANCE = 1e-8


def check_rule(layer: nn.Module, X: Any) -> None:
    r"""Compare the rule of a layer with a double loop of ``torch.autograd.grad`` in float64.

    For random cotangents :math:`c_{no}` at its output, the gradients
    :math:`\partial (c_{no} \cdot y(x_n)) / \partial \theta` of each sample by itself, and what
    estimators ask of a rule's blocks: the self-kernels K(x, x), the gram K(x, x'), its traces, and
    weighted sums over the samples. The rule is asked for all parameters, and for each by itself, as
    where the others are frozen. Then the engine uses it on a network that consists of the layer, as
    it would on any.

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
    UnsupportedNetworkError
        If the layer mixes samples, so that no network with it can be looked at.
    ValueError
        If X has several arrays, or fewer than two different samples.

    See Also
    --------
    sknetsim.register_rule : Registers a rule.

    Examples
    --------
    >>> import torch
    >>> from sknetsim.testing import check_rule
    >>> check_rule(torch.nn.Linear(3, 2), torch.randn(4, 3))
    """
    layer, inputs = copy.deepcopy(layer).double().eval(), _checked(X)
    names = tuple(name for name, p in layer._parameters.items() if p is not None)
    rule = find_rule(layer)
    assert names and rule is not None, (
        f"{type(layer).__name__} has no rule for its parameters {list(names)}: decorate one with"
        " register_rule, and name all of them in its `parameters`; a layer without parameters of"
        " its own needs none."
    )
    with torch.no_grad():
        outputs = layer(inputs.clone())
    cotangents = _drawn(len(inputs), _COTANGENTS, *outputs.shape[1:])
    for asked in {names, *((name,) for name in names)}:
        found = _by_rule(rule, layer, inputs, cotangents, asked)
        expected = _by_loop(layer, inputs, cotangents, asked)
        _assert_gradients(found, expected)
        _assert_quantities(found, expected)
    _assert_used(layer, inputs)


def _checked(X: Any) -> Tensor:
    """In float64, of at least two different samples."""
    arrays = list_tensors(Rows(X).take(slice(None)))
    if len(arrays) != 1 or len(arrays[0].unique(dim=0)) < 2:
        raise ValueError(
            f"X has {len(arrays)} arrays of {len(arrays[0])} samples; allowed are two different"
            " samples at least, in one array, for rules know a layer's first argument alone: hand"
            " over others."
        )
    return arrays[0].double() if arrays[0].is_floating_point() else arrays[0]


def _drawn(*shape: int) -> Tensor:
    """The same numbers each time; nobody else's are used up."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _by_rule(
    rule: Callable[..., list[Block]],
    layer: nn.Module,
    inputs: Tensor,
    cotangents: Tensor,
    names: tuple[str, ...],
) -> Jacobian:
    with torch.no_grad():
        blocks = rule(layer, inputs.clone(), cotangents, names)
    found = sorted(name for block in blocks for name, _ in block.layout)
    assert found == sorted(names), (
        f"the rule's blocks are of the parameters {found}, and it was asked for {sorted(names)}:"
        " name each of them in one layout."
    )
    keyed = {tuple(name for name, _ in block.layout): block for block in blocks}
    flat = cotangents.reshape(*cotangents.shape[:2], -1)
    return Jacobian(keyed, layout_of(layer, names), flat[:, :, 0])


def _by_loop(
    layer: nn.Module, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> Tensor:
    """The gradients, of shape (n, o, P)."""
    parameters = [getattr(layer, name).requires_grad_() for name in names]
    rows = []
    for row, own in enumerate(cotangents):
        output = layer(inputs[row : row + 1].clone())[0]
        for cotangent in own:
            gradients = torch.autograd.grad(
                (output * cotangent).sum(), parameters, retain_graph=True, materialize_grads=True
            )
            rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.stack(rows).view(*cotangents.shape[:2], -1)


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
    weights = _drawn(*expected.shape[:2], 2)
    gram = torch.einsum("nop,mqp->nmoq", expected, expected[1:])
    wanted = {
        "gram": gram,
        "self_kernel": torch.einsum("nop,nqp->noq", expected, expected),
        "trace_gram": torch.einsum("nmoo->nm", gram),
        "weighted_sum": torch.einsum("noq,nop->qp", weights, expected),
    }
    for form in (found.for_pairs(), found.for_sums()):
        sums, others = form.weighted_sum(weights), form.rows(slice(1, None))
        given = {
            "gram": form.gram(others),
            "self_kernel": form.self_kernel(),
            "trace_gram": form.trace_gram(others),
            "weighted_sum": torch.cat([sums[name] for name, _ in found.layout], dim=1),
        }
        for name, values in wanted.items():
            difference = float((given[name] - values).abs().max())
            assert difference <= _TOLERANCE * float(values.abs().max()), (
                f"{name} of the rule's blocks is {difference:.3g} from what the gradients give."
            )


def _assert_used(layer: nn.Module, inputs: Tensor) -> None:
    engine = GradientEngine(resolve_network(_Alone(layer)), "sum")
    for _ in engine.jacobians(inputs):
        pass
    assert not engine.refused, (
        f"the engine does not use the rule for {sorted(engine.refused)}: the layer overwrites what"
        " it takes, or puts something else than samples on the first axis."
    )


class _Alone(nn.Module):
    """A network of one layer, whatever shape it puts out."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs.clone())
        return outputs.reshape(len(outputs), -1)
