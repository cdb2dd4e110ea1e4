"""Report of how the gradients in each parameter of a network are computed, and what that costs."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn

from .._kernels.jacobian import Jacobian
from .._networks.batches import Inputs
from .._networks.network import check_is_network, is_trained, make_samples, resolve_network
from .._networks.samples import Samples
from .._networks.samples.labels import label_samples
from ..exceptions import describe_value, start_call
from .engine import GradientEngine
from .fallback import Fallback
from .recording import Tape, Use

#: Methods, from the quickest to the slowest one, with their names in the table.
METHODS = {
    "none": "no influence",
    "rule": "rule",
    "call": "call by call",
    "vmap": "fallback, vmap",
    "loop": "fallback, loop",
}

# Largest number of rows of a table whose layers are listed one by one, and of any table.
_MOST_LAYERS, _MOST_ROWS = 12, 24

# Parts of the name of a layer that are numbers.
_NUMBERS = re.compile(r"(?<![^.])\d+(?![^.])")

# Largest number of parameter names in a cell.
_MOST_NAMES = 3


@dataclass(frozen=True)
class ParameterCoverage:
    """Way in which the gradients in one parameter are computed.

    `RuleCoverage` contains one for each compared parameter.

    Parameters
    ----------
    name : str
        Name of the parameter.
    n_elements : int
        Number of its elements.
    method : {"none", "rule", "call", "vmap", "loop"}
        "none": the outputs do not depend on the parameter, so its gradient is zero. "rule": the
        rules of functions or layers, mostly in factors. "call": each call of a function with the
        parameter is differentiated again for all samples by ``torch.func``. "vmap": the fallback
        differentiates the whole network for all samples by ``torch.func``. "loop": the fallback
        differentiates the network for one sample at a time. If several methods are used, it is the
        last one of them in this order.
    functions : tuple of str
        Names of the functions, or types of the layers with a rule of their own, whose calls on
        samples use the parameter; empty if no such call is recorded.
    reason : str
        Reason why the fallback computes the gradients, and what to do about it; empty for other
        methods.

    See Also
    --------
    rule_coverage : Function that reports the coverage of a network.

    Examples
    --------
    >>> import torch
    >>> from sknetsim import rule_coverage
    >>> coverage = rule_coverage(torch.nn.Linear(4, 2), torch.randn(10, 4))
    >>> coverage.parameters[0]
    ParameterCoverage(name='weight', n_elements=8, method='rule', functions=('linear',), reason='')
    """

    name: str
    n_elements: int
    method: str
    functions: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True)
class RuleCoverage:
    """Ways in which the gradients in all parameters of a network are computed.

    `rule_coverage` returns this object. ``print`` shows a table of the layers, the largest first,
    and advice for the parameters that the fallback computes.

    Parameters
    ----------
    parameters : tuple of ParameterCoverage
        The compared parameters, in the order of the network.
    fallback_time : float in [0, 1]
        Share of the time of a pass over the samples that the fallback takes.

    See Also
    --------
    rule_coverage : Function that reports the coverage of a network.

    Examples
    --------
    >>> import torch
    >>> from sknetsim import rule_coverage
    >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> coverage = rule_coverage(network, torch.randn(10, 4))
    >>> coverage.shares["rule"], coverage.fallback_time
    (1.0, 0.0)
    """

    parameters: tuple[ParameterCoverage, ...]
    fallback_time: float

    @property
    def n_elements(self) -> int:
        """Number of elements of all parameters."""
        return sum(parameter.n_elements for parameter in self.parameters)

    @property
    def shares(self) -> dict[str, float]:
        """Share of the elements that each method computes, in [0, 1]; the shares sum to 1."""
        counts = dict.fromkeys(METHODS, 0)
        for parameter in self.parameters:
            counts[parameter.method] += parameter.n_elements
        return {method: count / self.n_elements for method, count in counts.items()}

    def __str__(self) -> str:
        shares = [f"{METHODS[m]} {_format_share(s)}" for m, s in self.shares.items() if s]
        lines = [
            f"{len(self.parameters):,} parameters, {self.n_elements:,} elements:"
            f" {'; '.join(shares)}.",
            f"Share of the time that the fallback takes: {_format_share(self.fallback_time)}.",
            "",
            *_format_table(_make_rows(self.parameters)),
        ]
        advice = _give_advice(self.parameters)
        return "\n".join([*lines, "", *advice] if advice else lines)


def rule_coverage(
    estimator: Any,
    X: Any,
    y: Any = None,
    output: Any = "all",
    parameters: Any = None,
    *,
    batch_size: int | None = None,
    device: Any = None,
    input_shape: tuple[int, ...] | None = None,
) -> RuleCoverage:
    """Report which parameters of a network have gradients by rules, and what the others cost.

    Parameters in the fallback are the usual reason why a network is slow. The report names them,
    with the reason and what to do about it. It is computed in two passes over X: the first one
    verifies the network, and the second one is timed. The network does not change.

    Parameters
    ----------
    estimator : skorch net, FrozenEstimator, Pipeline or Module
        The trained network, or any module.
    X : array-like of shape (n_samples, ...)
        Samples, as many as an estimator processes in a chunk or more, because the shares of time
        for few samples differ from those for many.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
        Labels, used if ``output`` is "loss".
    output : {"all", "predicted", "sum", "loss"}, int, list of int or callable, default="all"
        The outputs whose gradients are computed; see `NetworkKernel`.
    parameters : None, str, list of str or Module, default=None
        The parameters of the network that are differentiated; see `NetworkKernel`.
    batch_size : int or None, default=None
        Number of samples per pass. None chooses it to fit scikit-learn's ``working_memory``.
    device : str, device or None, default=None
        Device to compute on. None uses the device of the network.
    input_shape : tuple of int or None, default=None
        Shape that each sample gets before it enters the network. None leaves samples unchanged.

    Returns
    -------
    coverage : RuleCoverage
        The method for each parameter, and the share of time that the fallback takes.

    Raises
    ------
    NotFittedError
        If the network is an untrained skorch net, or None.
    TypeError
        If ``estimator`` is not a network.
    ValueError
        If X has no samples, if X and y differ in their number of samples, or if ``output`` or
        ``parameters`` do not match the network.
    UnsupportedNetworkError
        If the network is not supported, for example because it mixes samples.

    See Also
    --------
    register_rule : Register a rule for a function or a layer.
    sknetsim.testing.check_rule : Test a rule.

    Examples
    --------
    >>> import torch
    >>> from sknetsim import rule_coverage
    >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> print(rule_coverage(network, torch.randn(10, 4)))
    4 parameters, 58 elements: rule 100 %.
    Share of the time that the fallback takes: 0 %.
    <BLANKLINE>
    layer  parameters    elements  share  method  functions
    0      weight, bias        40   69 %  rule    linear
    2      weight, bias        18   31 %  rule    linear
    """
    start_call()
    check_is_network(estimator)
    if not is_trained(estimator):
        raise NotFittedError(
            f"`estimator` must be a trained network; got {describe_value(estimator)}, which is not"
            " trained. Call its fit first, or pass its module."
        )
    samples = make_samples(estimator, X)
    if y is not None:
        samples = label_samples(samples, y)
    network = resolve_network(estimator).with_input_shape(input_shape)
    engine = _ObservedEngine(network, output, parameters, batch_size, device)
    engine.run(samples)
    seconds = engine.run(samples)
    return RuleCoverage(engine.list_parameters(), engine.fallback.seconds / seconds)


class _TimedFallback(Fallback):
    """Fallback that measures its time.

    Attributes
    ----------
    seconds : float
        Time of all blocks.
    """

    seconds = 0.0

    def block(
        self, module: nn.Module, names: list[str], inputs: Inputs, targets: Tensor | None
    ) -> Any:
        """Return the block of the named parameters, and add its time."""
        start = _read_clock()
        block = super().block(module, names, inputs, targets)
        self.seconds += _read_clock() - start
        return block


class _ObservedEngine(GradientEngine):
    """Engine that notes how the gradients of each parameter are computed in all chunks."""

    def __init__(self, *settings: Any):
        super().__init__(*settings)
        self.fallback = self._fallback = _TimedFallback(self.call, self.outputs.select)

    def run(self, samples: Samples) -> float:
        """Compute the gradients of all samples, note how, and return the time."""
        self.fallback.seconds = 0.0
        self._methods: dict[str, set[str]] = defaultdict(set)
        self._functions: dict[str, dict[str, None]] = defaultdict(dict)
        self._reasons: dict[str, str] = {}
        start = _read_clock()
        for _ in self.jacobians(samples):
            pass
        return _read_clock() - start

    def list_parameters(self) -> tuple[ParameterCoverage, ...]:
        """Return the coverage of each parameter, in the order of the network."""
        order = list(METHODS)
        return tuple(
            ParameterCoverage(
                name,
                parameter.numel(),
                max(self._methods[name], key=order.index),
                tuple(self._functions[name]),
                self._reasons.get(name, ""),
            )
            for name, parameter in self.network.module.named_parameters()
            if name in self.selected
        )

    def _compute_jacobian(
        self, tape: Tape, uses: list[Use], targets: Tensor | None, outputs: Tensor, factored: bool
    ) -> Jacobian | None:
        jacobian = super()._compute_jacobian(tape, uses, targets, outputs, factored)
        if jacobian is not None:
            served = {name for key in jacobian.blocks for name in key}
            for name in self.selected:
                self._methods[name].add(self._find_method(name, served))
            self._reasons |= self.unserved
            for use in uses:
                self._note_function(use.parameter_names(), use.call.name)
            for call in tape.calls:
                if not call.derived:
                    self._note_function(call.parameter_names() & self.unserved.keys(), call.name)
        return jacobian

    def _find_method(self, name: str, served: set[str]) -> str:
        if name in self.unserved:
            return "loop" if self.loops else "vmap"
        if name not in served:
            return "none"
        return "call" if name in self.without_rule else "rule"

    def _note_function(self, names: set[str], function: str) -> None:
        for name in names:
            self._functions[name][function] = None


def _read_clock() -> float:
    """Return the time in seconds, after all operations on CUDA devices."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


@dataclass(frozen=True)
class _Row:
    """Row of the table: parameters of one layer, or of several, with one method."""

    layer: str
    names: tuple[str, ...]
    n_elements: int
    share: float
    method: str
    functions: tuple[str, ...]
    n_layers: int

    def format_cells(self) -> list[str]:
        """Return the texts of the cells."""
        layer = self.layer or "(network)"
        return [
            layer if self.n_layers == 1 else f"{layer} ({self.n_layers})",
            _abbreviate(self.names),
            f"{self.n_elements:,}",
            _format_share(self.share),
            METHODS[self.method],
            _abbreviate(self.functions),
        ]


def _make_rows(parameters: Sequence[ParameterCoverage]) -> list[_Row]:
    """Return a row for each layer; layers whose names differ by numbers share one if many."""
    total = sum(parameter.n_elements for parameter in parameters)
    layers: dict[Any, list[ParameterCoverage]] = defaultdict(list)
    for parameter in parameters:
        layer = parameter.name.rpartition(".")[0]
        layers[layer, parameter.method, parameter.functions].append(parameter)
    groups: dict[Any, dict[str, int]] = defaultdict(dict)
    for (layer, method, functions), members in layers.items():
        names = tuple(parameter.name.rpartition(".")[2] for parameter in members)
        pattern = _NUMBERS.sub("*", layer) if len(layers) > _MOST_LAYERS else layer
        counts = groups[pattern, names, method, functions]
        counts[layer] = sum(member.n_elements for member in members)
    rows = []
    for (pattern, names, method, functions), counts in groups.items():
        layer = pattern if len(counts) > 1 else next(iter(counts))
        count = sum(counts.values())
        rows.append(_Row(layer, names, count, count / total, method, functions, len(counts)))
    return sorted(rows, key=lambda row: -row.n_elements)


def _format_table(rows: Sequence[_Row]) -> list[str]:
    """Return the lines of the table."""
    cells = [["layer", "parameters", "elements", "share", "method", "functions"]]
    cells += [row.format_cells() for row in rows[:_MOST_ROWS]]
    rest = rows[_MOST_ROWS:]
    if rest:
        counts = sum(row.n_elements for row in rest), sum(row.share for row in rest)
        layers = sum(row.n_layers for row in rest)
        cells.append([f"... {layers} more", "", f"{counts[0]:,}", _format_share(counts[1]), "", ""])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if column in (2, 3) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]


def _give_advice(parameters: Sequence[ParameterCoverage]) -> list[str]:
    """Return a sentence for each reason why the fallback computes parameters."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for parameter in sorted(parameters, key=lambda parameter: -parameter.n_elements):
        if parameter.reason:
            reasons[parameter.reason].append(parameter.name)
    advice = [
        f"The fallback computes the gradients of {_abbreviate(names)}: {reason}."
        for reason, names in reasons.items()
    ]
    return [*advice, "See docs/layers.md."] if advice else []


def _abbreviate(names: Sequence[str]) -> str:
    """Return the first names, and the number of the others."""
    more = [f"{len(names) - _MOST_NAMES} more"] if len(names) > _MOST_NAMES else []
    return ", ".join([*names[:_MOST_NAMES], *more])


def _format_share(share: float) -> str:
    """Return a share in percent; a share that is not 0 is at least "< 1 %"."""
    return "< 1 %" if 0 < share < 0.01 else f"{share:.0%}".replace("%", " %")
