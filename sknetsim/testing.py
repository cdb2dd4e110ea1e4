"""Check of a rule against automatic differentiation.

Index legend: n, m samples; o, q cotangents; v vectors of weights; p parameters, flattened.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ._gradients.engine import GradientEngine
from ._kernels.jacobian import Jacobian
from ._networks.batches import list_tensors
from ._networks.network import resolve_network
from ._networks.samples import Samples
from .rules import Block, find_rule, layout_of

__all__ = ["check_rule"]

# Number of random cotangents per sample, in place of the outputs of a network.
_COTANGENTS = 3

# Largest acceptable difference in float64, relative to the largest entry.
_TOLERANCE = 1e-8


def check_rule(layer: nn.Module, X: Any) -> None:
    r"""Compare the rule of a layer with a double loop of ``torch.autograd.grad`` in float64.

    With random cotangents :math:`c_{no}` at the layer's output, the check compares the gradients
    :math:`\partial (c_{no} \cdot y(x_n)) / \partial \theta`. The loop computes them for each sample
    on its own. The check also compares what estimators compute from the blocks of a rule: the
    self-kernels K(x, x), the gram K(x, x'), its traces, and weighted sums over the samples. The
    rule is called for all parameters together, and for each parameter on its own, as in a network
    whose other parameters are frozen. Finally, the check runs the gradient engine on a network that
    consists of the layer, and requires that the engine uses the rule.

    Parameters
    ----------
    layer : Module
        A layer with a rule. The check uses a copy of it in eval mode.
    X : array-like or Tensor of shape (n_samples, ...)
        Inputs of the layer: a few samples, of which at least two are different.

    Raises
    ------
    AssertionError
        If the layer has no rule; if the gradients of the rule differ from those of autograd (the
        message names the parameter and the sample); if the blocks of the rule compute something
        else than their gradients imply; or if the engine does not use the rule.
    UnsupportedNetworkError
        If the layer mixes samples, so that no network with this layer is supported.
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
    layer, inputs = copy.deepcopy(layer).double().eval(), _check_inputs(X)
    names = tuple(name for name, p in layer._parameters.items() if p is not None)
    rule = find_rule(layer)
    assert names and rule is not None, (
        f"`layer` must have a rule for its parameters; got a {type(layer).__name__} with parameters"
        f" {list(names)} and no rule. Decorate a rule with register_rule, and name all of these"
        " parameters in its `parameters`. A layer without parameters of its own needs no rule."
    )
    with torch.no_grad():
        outputs = layer(inputs.clone())
    cotangents = _draw(len(inputs), _COTANGENTS, *outputs.shape[1:])
    for requested in {names, *((name,) for name in names)}:
        jacobian = _compute_by_rule(rule, layer, inputs, cotangents, requested)
        expected = _compute_by_loop(layer, inputs, cotangents, requested)
        _assert_gradients(jacobian, expected)
        _assert_quantities(jacobian, expected)
    _assert_used(layer, inputs)


def _check_inputs(X: Any) -> Tensor:
    """Return X as a tensor, in float64 if it is floating point."""
    arrays = list_tensors(Samples(X).take(slice(None)))
    if len(arrays) != 1 or len(arrays[0].unique(dim=0)) < 2:
        raise ValueError(
            "`X` must be one array of at least two different samples; got"
            f" {len(arrays)} array(s) of {len(arrays[0])} sample(s). Pass other samples, and only"
            " the first argument of the layer, because rules receive no others."
        )
    return arrays[0].double() if arrays[0].is_floating_point() else arrays[0]


def _draw(*shape: int) -> Tensor:
    """Return the same random numbers in each call; global random states do not change."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _compute_by_rule(
    rule: Callable[..., list[Block]],
    layer: nn.Module,
    inputs: Tensor,
    cotangents: Tensor,
    names: tuple[str, ...],
) -> Jacobian:
    """Return the blocks of the rule as the Jacobian of a network."""
    with torch.no_grad():
        blocks = rule(layer, inputs.clone(), cotangents, names)
    returned = sorted(name for block in blocks for name, _ in block.layout)
    assert returned == sorted(names), (
        f"The layouts of the rule's blocks must contain each of {sorted(names)} once; got"
        f" {returned}. Return blocks for the requested `names` only."
    )
    keyed = {tuple(name for name, _ in block.layout): block for block in blocks}
    flat = cotangents.reshape(*cotangents.shape[:2], -1)
    # A Jacobian only needs the shape (n, o), the dtype and the device of its outputs.
    return Jacobian(keyed, layout_of(layer, names), flat[:, :, 0])


def _compute_by_loop(
    layer: nn.Module, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> Tensor:
    """Return the gradients by autograd, sample by sample, of shape (n, o, p)."""
    parameters = [getattr(layer, name).requires_grad_() for name in names]
    rows = []
    for index, cotangents_of_sample in enumerate(cotangents):
        output = layer(inputs[index : index + 1].clone())[0]
        for cotangent in cotangents_of_sample:
            gradients = torch.autograd.grad(
                (output * cotangent).sum(), parameters, retain_graph=True, materialize_grads=True
            )
            rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.stack(rows).view(*cotangents.shape[:2], -1)


def _assert_gradients(jacobian: Jacobian, expected: Tensor) -> None:
    """Compare the gradients of each parameter with the expected ones, of shape (n, o, p)."""
    sizes = [shape.numel() for _, shape in jacobian.layout]
    by_rule = jacobian.materialize().split(sizes, dim=2)
    by_loop = expected.split(sizes, dim=2)
    for (name, _), gradients, others in zip(jacobian.layout, by_rule, by_loop, strict=True):
        difference = (gradients - others).abs().flatten(1).max(dim=1).values
        worst, largest = int(difference.argmax()), float(others.abs().max())
        assert difference[worst] <= _TOLERANCE * max(largest, 1e-30), (
            f"The rule's gradient of {name!r} must equal that of autograd; got a difference of"
            f" {float(difference[worst]):.3g} in sample {worst} (the largest entry of any sample is"
            f" {largest:.3g}). Compare this gradient with the formula of the layer."
        )


def _assert_quantities(jacobian: Jacobian, expected: Tensor) -> None:
    """Compare the results of the blocks, in their two forms, with formulas on the gradients.

    The expected gradients have shape (n, o, p).
    """
    weights = _draw(*expected.shape[:2], 2)
    # K[n,m,o,q] of all samples with all but the first
    gram = torch.einsum("nop,mqp->nmoq", expected, expected[1:])
    by_formula = {
        "gram": gram,
        "self_kernel": torch.einsum("nop,nqp->noq", expected, expected),
        "trace_gram": torch.einsum("nmoo->nm", gram),
        "weighted_sum": torch.einsum("nov,nop->vp", weights, expected),
    }
    for form in (jacobian.for_pairs(), jacobian.for_sums()):
        sums, others = form.weighted_sum(weights), form.rows(slice(1, None))
        by_blocks = {
            "gram": form.gram(others),
            "self_kernel": form.self_kernel(),
            "trace_gram": form.trace_gram(others),
            "weighted_sum": torch.cat([sums[name] for name, _ in jacobian.layout], dim=1),
        }
        for name, values in by_formula.items():
            difference = float((by_blocks[name] - values).abs().max())
            assert difference <= _TOLERANCE * float(values.abs().max()), (
                f"{name} of the rule's blocks must be that of their gradients; got a difference"
                f" of {difference:.3g}. Correct this method of the block, or return a DenseBlock."
            )


def _assert_used(layer: nn.Module, inputs: Tensor) -> None:
    """Check that the engine uses the rule in a network of this layer."""
    engine = GradientEngine(resolve_network(_SingleLayer(layer)), "sum")
    for _ in engine.jacobians(Samples(inputs)):
        pass
    assert not engine.refused, (
        f"The engine must use the rule; got gradients of {sorted(engine.refused)} without it. The"
        " layer overwrites its input, or the first axis of its input or output is not that of the"
        " samples. Do not register a rule for this layer."
    )


class _SingleLayer(nn.Module):
    """Network of one layer, with outputs of any shape flattened to (n, d)."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs.clone())
        return outputs.reshape(len(outputs), -1)
