"""Engine of gradients: the Jacobians of a network by the rules, chunk by chunk.

Index legend: n samples; o outputs (d of them).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from .._kernels.blocks import Block, add_blocks
from .._kernels.jacobian import Jacobian
from .._networks.batches import Inputs, slice_batch
from .._networks.fingerprint import fingerprint_value
from .._networks.isolation import lock_networks
from .._networks.network import Network
from .._networks.samples import Samples
from ..exceptions import locate_rows
from ..rules import find_rule
from .base_engine import BaseEngine
from .capture import LayerCall, bytes_per_sample, check_affordable, compute_cotangents, record_calls
from .fallback import Fallback
from .outputs import Outputs
from .parameters import Plan, make_plan, select_parameters
from .verification import (
    Schedule,
    check_no_mixing,
    check_outputs,
    find_wrong_parameters,
    warn_if_probabilities,
)


class GradientEngine(BaseEngine):
    """Source of the gradients of a network's outputs in its parameters.

    Parameters
    ----------
    network : Network
        The network.
    output : str, int, list of int or callable
        Compared outputs, see `Outputs`.
    parameters : None, str, list of str or Module
        Parameters that the outputs are differentiated in, see `select_parameters`.
    batch_size : int or None
        Samples per chunk; None derives it from the memory budget.
    device : str, device or None
        Device of the evaluation; None for the device of the network.

    Attributes
    ----------
    selected : set of str
        Names of the parameters.
    refused : set of str
        Names of the parameters for which a rule is wrong on this network.
    """

    def __init__(
        self,
        network: Network,
        output: Any = "all",
        parameters: Any = None,
        batch_size: int | None = None,
        device: Any = None,
    ):
        self.outputs = Outputs(output, network)
        self._parameters = parameters
        with lock_networks():
            self.selected = select_parameters(network.module, parameters)
        super().__init__(network, self.selected, batch_size, device)
        self._fallback = Fallback(network, self.outputs.select)
        self.refused: set[str] = set()
        self._plans: dict[tuple[nn.Module, int], Plan] = {}
        self._schedule = Schedule()

    def __reduce__(self) -> tuple[Any, ...]:
        # Only the parameters are pickled; a copy verifies the network again.
        chosen = (self.outputs.output, self._parameters, self.batch_size, self.device)
        return type(self), (self.network, *chosen)

    @property
    def loops(self) -> bool:
        """True if the gradients of parameters without a rule need a loop over samples."""
        return self._fallback.loop

    def identity(self) -> str:
        """Return the fingerprint of the network, the outputs and the parameters."""
        network = self.network
        compared = (self.outputs.output, sorted(self.selected))
        return fingerprint_value(
            ((network.module, network.criterion, network.classifier), compared)
        )

    def _measure(self, samples: Samples, labels: Tensor | None) -> None:
        with self.batch(samples, labels, slice(0, 1)) as (module, inputs, y):
            self._attempt(module, inputs, y, False)

    def _check_first_two(self, samples: Samples, labels: Tensor | None) -> None:
        """Check that the network does not mix the first two samples, if chunks are single ones."""
        both = slice(0, 2)
        try:
            samples.take(both)
        except ValueError:
            return  # Items of different shapes cannot form a batch.
        with self.batch(samples, labels, both) as (module, inputs, y):
            outputs, targets = self._compute_outputs(module, inputs, y)
            check_no_mixing(self.network, self.outputs, module, inputs, targets, outputs)

    def _compute_chunk(
        self, samples: Samples, labels: Tensor | None, chunk: slice, factored: bool
    ) -> Jacobian | None:
        """Return the Jacobians of a chunk; None if the chunk must be computed again.

        That is the case if some parameters are computed by the fallback or by its loop from then
        on, or if the original network is evaluated instead of the copy from then on.
        """
        shared_copy = self._isolated.shared_copy
        count = chunk.stop - chunk.start
        if chunk.start == 0 and count == 1 < len(samples):
            # A single sample does not show whether the network mixes samples.
            self._check_first_two(samples, labels)
        with self.batch(samples, labels, chunk) as (module, inputs, y):
            is_checked = self._schedule.is_due(count, chunk.stop == len(samples))
            part = self._schedule.select_part(count)
            if is_checked and part.step > 1:
                # Some samples of a large chunk are checked, in a batch of their own.
                some = slice_batch(inputs, part), None if y is None else y[part]
                with locate_rows(range(count)[part]):
                    if self._attempt(module, *some, True) is None:
                        return None
                is_checked = False
            jacobian = self._attempt(module, inputs, y, is_checked)
            if jacobian is not None and not factored:
                jacobian = jacobian.for_sums()
        return jacobian if self._isolated.shared_copy is shared_copy else None

    def _attempt(
        self, module: nn.Module, inputs: Inputs, y: Tensor | None, checked: bool
    ) -> Jacobian | None:
        """Return the Jacobians of a batch, verified if ``checked``.

        The result is None if the next attempt must compute something differently, because a rule
        or vmap is wrong on this network, or because the outputs depend on the original network.
        """
        plan = self._get_plan(module)
        with record_calls(list(plan.groups)) as calls:
            outputs, targets = self._compute_outputs(module, inputs, y)
        if self._isolated.depends_on_original(outputs):
            return None
        check_affordable(self.outputs.output, outputs, calls, plan.unserved_elements)
        misfits = {call.layer for call in calls if not call.fits(len(outputs))}
        if misfits:
            self.refused |= {name for layer in misfits for name in plan.served_names(layer)}
            return None
        jacobian = self._compute_jacobian(module, plan, calls, inputs, targets, outputs)
        if jacobian is None:
            return None
        if checked and not self._verify(module, plan, inputs, targets, jacobian):
            return None
        jacobian = replace(jacobian, outputs=outputs.detach())
        self._sample_bytes = self._sample_bytes or bytes_per_sample(jacobian.for_sums(), calls)
        return jacobian

    def _get_plan(self, module: nn.Module) -> Plan:
        """Return the plan for a module, made again if more rules have been refused."""
        key = module, len(self.refused)
        if key not in self._plans:
            self._plans[key] = make_plan(module, self.selected, self.refused)
        return self._plans[key]

    def _compute_outputs(
        self, module: nn.Module, inputs: Inputs, y: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the outputs (n, d), and the targets, which are constant for each sample."""
        raw = self.forward(module, inputs)
        targets = self.outputs.targets(raw, y)
        outputs = self.outputs.select(raw, targets)
        check_outputs(outputs, inputs)
        return outputs.to(self.dtype), targets

    def _compute_jacobian(
        self,
        module: nn.Module,
        plan: Plan,
        calls: list[LayerCall],
        inputs: Inputs,
        targets: Tensor | None,
        outputs: Tensor,
    ) -> Jacobian | None:
        """Return the Jacobians; None if the network supports `backward` only."""
        try:
            cotangents = compute_cotangents(outputs, calls)
        except RuntimeError as error:
            if ".grad()" not in str(error):
                raise
            # Reentrant checkpoints support backward(), but not autograd.grad. The loop of the
            # fallback calls backward().
            self.refused, self._fallback.loop = set(self.selected), True
            return None
        blocks = blocks_by_rules(plan, calls, cotangents)
        if plan.unserved:
            block = self._fallback.block(module, plan.unserved, inputs, targets)
            blocks[tuple(plan.unserved)] = block
        return Jacobian(blocks, plan.layout, outputs)

    def _verify(
        self,
        module: nn.Module,
        plan: Plan,
        inputs: Inputs,
        targets: Tensor | None,
        jacobian: Jacobian,
    ) -> bool:
        """Return whether the Jacobians are correct; if not, change how they are computed.

        A parameter whose rule is wrong is computed by the fallback from then on. If vmap is wrong,
        the fallback loops over samples from then on. The loop is the definition, so it is right.
        """
        if len(jacobian) > 1:
            check_no_mixing(self.network, self.outputs, module, inputs, targets, jacobian.outputs)
            warn_if_probabilities(self.network, jacobian.outputs)
        wrong: set[str] = set()
        if not (self._fallback.loop and set(plan.unserved) == self.selected):
            wrong = find_wrong_parameters(module, self.selected, jacobian)
        served = wrong - set(plan.unserved)
        if wrong and not served and self._fallback.loop:
            wrong = set()
        self._schedule.record(len(jacobian), wrong)
        self.refused |= served
        self._fallback.loop |= bool(wrong) and not served
        return not wrong


def _cast(call: LayerCall, cotangent: Tensor, graph: bool) -> tuple[Tensor, Tensor]:
    """Return inputs and cotangents in the dtype of the layer.

    They have another dtype if the network enables autocast itself.
    """
    dtype = next(parameter.dtype for parameter in call.layer.parameters(recurse=False))
    inputs = call.inputs if graph else call.inputs.detach()
    floating = inputs.is_floating_point()
    return (inputs.to(dtype) if floating else inputs), cotangent.to(dtype)


def blocks_by_rules(
    plan: Plan, calls: list[LayerCall], cotangents: list[Tensor | None], graph: bool = False
) -> dict[tuple[str, ...], Block]:
    """Return the block of each group of served parameters, by the names of its parameters.

    Parameters
    ----------
    plan : Plan
        Groups of parameters that the rules serve.
    calls : list of LayerCall
        Calls of the served layers.
    cotangents : list of (Tensor of shape (n, d, ...) or None)
        Cotangents at each call; None for zero.
    graph : bool
        Whether the inputs keep their autograd graph; cotangents always keep theirs.
    """
    # A layer may be called several times, and a tied parameter belongs to several layers:
    # J_o(x_n) = sum over calls of the rule at (inputs_n, c[n,o]).
    parts: dict[tuple[str, ...], list[Block]] = defaultdict(list)
    for call, cotangent in zip(calls, cotangents, strict=True):
        if cotangent is None:
            continue
        rule = find_rule(call.layer)
        assert rule is not None
        for group in plan.groups[call.layer]:
            for block in rule(call.layer, *_cast(call, cotangent, graph), group):
                named = tuple((plan.names[call.layer, name], shape) for name, shape in block.layout)
                parts[tuple(name for name, _ in named)].append(replace(block, layout=named))
    return {key: add_blocks(blocks) for key, blocks in parts.items()}
