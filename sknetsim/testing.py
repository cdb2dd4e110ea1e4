"""Check of a rule against automatic differentiation.

Index legend: n, m samples; o, q cotangents; v vectors of weights; p parameters, flattened.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ._gradients.engine import GradientEngine
from ._gradients.parameters import list_layout
from ._kernels.jacobian import Jacobian
from ._networks.batches import find_tensors, list_tensors
from ._networks.network import resolve_network
from ._networks.samples import Samples
from .rules import Block, Entry, find_function_rule, find_rule, has_rule

__all__ = ["check_rule"]

# Number of random cotangents per sample, in place of the outputs of a network.
_COTANGENTS = 3

# Largest acceptable difference in float64, relative to the largest entry.
_TOLERANCE = 1e-8


def check_rule(target: Any, X: Any, /, **arguments: Any) -> None:
    r"""Compare the rule of a layer or function with a double loop of ``torch.autograd.grad``.

    With random cotangents :math:`c_{no}` at the output, the check compares the gradients
    :math:`\partial (c_{no} \cdot y(x_n)) / \partial \theta`, in float64. The loop computes them for
    each sample on its own. The check also compares what estimators compute from the blocks of a
    rule: the self-kernels K(x, x), the gram K(x, x'), its traces, and weighted sums over the
    samples. The gradients are computed for all parameters together, and for each parameter on its
    own, as in a network whose other parameters are frozen.

    The rule of a function, or of a type of layer, is called directly. Then the check runs the
    gradient engine on a network that consists of the layer, and requires that the engine uses
    rules for all of its parameters. A layer without a rule of its own has only this second check.

    Parameters
    ----------
    target : Module or function of torch
        A layer, or a function with a rule. The check uses a copy of a layer in eval mode.
    X : array-like or Tensor of shape (n_samples, ...)
        Inputs of the layer: a few samples, of which at least two are different. For a function,
        they are the first argument of the rule that is not among ``arguments``.
    **arguments : Tensor or object
        The other arguments of a function, by their names in the rule. The parameters are tensors.
        A layer has none.

    Raises
    ------
    AssertionError
        If the function has no rule; if the gradients of the rule differ from those of autograd (the
        message names the parameter and the sample); if the blocks of the rule compute something
        else than their gradients imply; or if the engine computes the gradients of some parameters
        without rules.
    UnsupportedNetworkError
        If the layer mixes samples, so that no network with this layer is supported.
    ValueError
        If X has several arrays, or fewer than two different samples.

    See Also
    --------
    sknetsim.register_rule : Registers a rule.

    Notes
    -----
    If a layer returns several tensors, the check uses the first one.

    Examples
    --------
    >>> import torch
    >>> from sknetsim.testing import check_rule
    >>> X = torch.randn(4, 3)
    >>> check_rule(torch.nn.Linear(3, 2), X)
    >>> check_rule(torch.nn.functional.linear, X, weight=torch.randn(2, 3), bias=torch.randn(2))
    """
    inputs = _check_inputs(X)
    layer = _make_layer(target, arguments)
    names = tuple(name for name, _ in layer.named_parameters())
    assert names, (
        f"`target` must have parameters; got {target} without any. A layer without parameters needs"
        " no rule."
    )
    with torch.no_grad():
        outputs = _compute_output(layer, inputs)
    cotangents = _draw(len(inputs), _COTANGENTS, *outputs.shape[1:])
    expected = _compute_by_loop(layer, inputs, cotangents)
    rule = _find_own_rule(layer)
    own = tuple(name for name in names if name in layer._parameters)
    if rule is not None:
        for requested in _list_requests(own):
            jacobian = _compute_by_rule(rule, layer, inputs, cotangents, requested)
            _assert_equal(jacobian, [expected[name] for name in requested])
    for requested in [names] if rule else _list_requests(names):
        jacobian = _compute_by_engine(layer, inputs, cotangents, requested)
        _assert_equal(jacobian, [expected[name] for name in requested])


def _list_requests(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return all names together, and each on its own."""
    return list(dict.fromkeys([names, *((name,) for name in names)]))


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


def _make_layer(target: Any, arguments: Mapping[str, Any]) -> nn.Module:
    """Return a layer of float64 parameters: a copy, or one that calls a function."""
    if isinstance(target, nn.Module):
        if arguments:
            raise TypeError(
                f"`arguments` must be those of a function; got {sorted(arguments)} for a layer."
                " Pass the layer and X only."
            )
        return copy.deepcopy(target).requires_grad_().double().eval()
    entry = find_function_rule(target)
    assert entry is not None, (
        f"`target` must be a layer or a function with a rule; got {target!r} without a rule."
        " Decorate a rule with register_rule."
    )
    return _FunctionLayer(target, entry, arguments).double().eval()


class _FunctionLayer(nn.Module):
    """Layer that calls a function on its input and on parameters."""

    def __init__(self, function: Callable[..., Any], entry: Entry, arguments: Mapping[str, Any]):
        super().__init__()
        self._function, self._entry = function, entry
        missing = [name for name in entry.arguments if name not in arguments]
        if not missing or not entry.parameters & arguments.keys():
            raise TypeError(
                "`arguments` must contain parameters of the function, among"
                f" {sorted(entry.parameters)}, and leave out an argument for X, among"
                f" {list(entry.arguments)}; got {sorted(arguments)}. Pass them by these names."
            )
        self._input = missing[0]
        self._options: dict[str, Any] = {}
        for name, value in arguments.items():
            if not isinstance(value, Tensor):
                self._options[name] = value
            elif name in entry.parameters:
                self.register_parameter(name, nn.Parameter(value.detach().clone()))
            else:
                self.register_buffer(name, value.detach().clone())

    def forward(self, inputs: Tensor) -> Any:
        tensors = {self._input: inputs, **self._buffers, **self._parameters}
        # Some functions of torch take tensors by position only, and options by name only.
        first = list(itertools.takewhile(lambda name: name in tensors, self._entry.arguments))
        named = {name: value for name, value in tensors.items() if name not in first}
        return self._function(*(tensors[name] for name in first), **named, **self._options)

    def apply_rule(self, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...]) -> list[Block]:
        """Return the blocks of the function's rule, for batches of one sample."""
        tensors = {**self._buffers, **self._parameters, self._input: inputs[:, None]}
        arguments = {**self._options, **tensors}
        blocks = self._entry.rule(arguments, cotangents[:, :, None], names)
        assert blocks is not NotImplemented, (
            "The rule must return blocks for the arguments; got NotImplemented for"
            f" {sorted(arguments)}. Extend the rule, or pass arguments that it covers."
        )
        return blocks


def _find_own_rule(layer: nn.Module) -> Callable[..., list[Block]] | None:
    """Return a function of (inputs, cotangents, names); None for a layer without its own rule."""
    if isinstance(layer, _FunctionLayer):
        return layer.apply_rule
    rule = find_rule(layer)
    assert rule is not None or not has_rule(type(layer)), (
        f"The rule of {type(layer).__name__} must apply to `target`; got a layer whose parameters"
        f" are {list(layer._parameters)}, or whose method `forward` was replaced. Name all of these"
        " parameters in the `parameters` of register_rule."
    )
    return None if rule is None else functools.partial(rule, layer)


def _draw(*shape: int) -> Tensor:
    """Return the same random numbers in each call; global random states do not change."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _compute_output(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Return the first tensor that a layer returns; the layer may overwrite its input."""
    return find_tensors(layer(inputs.clone()))[0]


def _compute_by_rule(
    rule: Callable[..., list[Block]],
    layer: nn.Module,
    inputs: Tensor,
    cotangents: Tensor,
    names: tuple[str, ...],
) -> Jacobian:
    """Return the blocks of the rule as the Jacobian of a network."""
    with torch.no_grad():
        blocks = rule(inputs.clone(), cotangents, names)
    returned = sorted(name for block in blocks for name, _ in block.layout)
    assert returned == sorted(names), (
        f"The layouts of the rule's blocks must contain each of {sorted(names)} once; got"
        f" {returned}. Return blocks for the requested `names` only."
    )
    keyed = {tuple(name for name, _ in block.layout): block for block in blocks}
    flat = cotangents.reshape(*cotangents.shape[:2], -1)
    # A Jacobian only needs the shape (n, o), the dtype and the device of its outputs.
    parameters = {name: p for name, p in layer.named_parameters() if name in names}
    return Jacobian(keyed, list_layout(parameters), flat[:, :, 0])


class _Contraction(nn.Module):
    """Network with the outputs c_no . y(x_n), of one layer y."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor, cotangents: Tensor) -> Tensor:
        outputs = _compute_output(self.layer, inputs)
        flat = cotangents.reshape(*cotangents.shape[:2], -1)
        return (outputs.reshape(len(outputs), 1, -1) * flat).sum(dim=2)


def _compute_by_engine(
    layer: nn.Module, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> Jacobian:
    """Return the Jacobian of a network of the layer, whose outputs are c_no . y(x_n)."""
    network = resolve_network(_Contraction(layer))
    engine = GradientEngine(network, "all", [f"layer.{name}" for name in names], len(inputs))
    ((_, jacobian),) = engine.jacobians(Samples((inputs, cotangents)), factored=True)
    others = [name.removeprefix("layer.") for name in engine.unserved]
    assert not others, (
        f"The engine must compute all gradients by rules; got those of {others} without rules. Call"
        " register_rule for the functions that the layer calls with these parameters, or for the"
        " layer. If they have rules, correct those. No rule is used for a layer that overwrites its"
        " input, or whose own rule gets an input or output without the samples on the first axis."
    )
    return jacobian


def _compute_by_loop(layer: nn.Module, inputs: Tensor, cotangents: Tensor) -> dict[str, Tensor]:
    """Return the gradients of each parameter by autograd, sample by sample, of shape (n, o, p)."""
    parameters = dict(layer.named_parameters())
    rows: dict[str, list[Tensor]] = {name: [] for name in parameters}
    for index, cotangents_of_sample in enumerate(cotangents):
        output = _compute_output(layer, inputs[index : index + 1])[0]
        for cotangent in cotangents_of_sample:
            gradients = torch.autograd.grad(
                (output * cotangent).sum(),
                list(parameters.values()),
                retain_graph=True,
                materialize_grads=True,
            )
            for name, gradient in zip(rows, gradients, strict=True):
                rows[name].append(gradient.flatten())
    shape = cotangents.shape[:2]
    return {name: torch.stack(row).unflatten(0, shape) for name, row in rows.items()}


def _assert_equal(jacobian: Jacobian, expected: list[Tensor]) -> None:
    """Compare a Jacobian with the expected gradients (n, o, p) of each parameter."""
    _assert_gradients(jacobian, expected)
    _assert_quantities(jacobian, torch.cat(expected, dim=2))


def _assert_gradients(jacobian: Jacobian, expected: list[Tensor]) -> None:
    """Compare the gradients of each parameter with the expected ones, of shape (n, o, p)."""
    sizes = [shape.numel() for _, shape in jacobian.layout]
    by_rule = jacobian.materialize().split(sizes, dim=2)
    for (name, _), gradients, others in zip(jacobian.layout, by_rule, expected, strict=True):
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
