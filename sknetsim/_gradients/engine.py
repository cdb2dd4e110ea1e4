"""The engine: network + rules -> Jacobians in blocks of factors, chunk by chunk.

Index legend: n samples; o outputs (d of them).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from .._kernels.blocks import Block, add_blocks
from .._kernels.jacobian import Jacobian
from .._networks.batches import Inputs, list_tensors, slice_batch
from .._networks.fingerprint import fingerprint_value
from .._networks.isolation import lock_networks
from .._networks.network import Network
from .._networks.samples import Samples
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
    """Gradients of a network's outputs in its parameters.

    Parameters
    ----------
    network : Network
        The network.
    output : str, int, list of int or callable
        Which outputs, see `Outputs`.
    parameters : None, str, list of str or Module
        Which parameters, see `select_parameters`.
    batch_size : int or None
        Samples per chunk; None derives it from the memory budget.
    device : str, device or None
        Where to compute; None: where the network is.

    Attributes
    ----------
    selected : set of str
        Names of the parameters.
    refused : set of str
        Those for which a rule was found to be wrong on this network.
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
        self._checks = Schedule()

    def __reduce__(self) -> tuple[Any, ...]:
        """As it was made: what it finds out about a network, it finds out again."""
        chosen = (self.outputs.output, self._parameters, self.batch_size, self.device)
        return type(self), (self.network, *chosen)

    @property
    def loops(self) -> bool:
        """Whether parameters without a rule need a loop over samples."""
        return self._fallback.loop

    def identity(self) -> str:
        """A fingerprint of the network's bytes, and of what is compared of it."""
        network = self.network
        compared = (self.outputs.output, sorted(self.selected))
        return fingerprint_value(
            ((network.module, network.criterion, network.classifier), compared)
        )

    def _measure(self, rows: Samples, labels: Tensor | None) -> None:
        with self.batch(rows, labels, slice(0, 1)) as (module, inputs, y):
            self._attempt(module, inputs, y, False)

    def _refuse_mixing(self, rows: Samples, labels: Tensor | None) -> None:
        """Look at two samples together, where chunks hold one."""
        both = slice(0, 2)
        try:
            rows.take(both)
        except ValueError:
            return  # Items of different shapes are never in one batch.
        with self.batch(rows, labels, both) as (module, inputs, y):
            outputs, targets = self._outputs(module, inputs, y)
            check_no_mixing(self.network, self.outputs, module, inputs, targets, outputs)

    def _chunk(
        self, rows: Samples, labels: Tensor | None, chunk: slice, factored: bool
    ) -> Jacobian | None:
        """Jacobians of some rows; None where parameters have been moved to another way."""
        shadow = self._isolated.shared_copy
        samples = chunk.stop - chunk.start
        if chunk.start == 0 and samples == 1 < len(rows):
            self._refuse_mixing(rows, labels)
        with self.batch(rows, labels, chunk) as (module, inputs, y):
            due = self._checks.due(samples, chunk.stop == len(rows))
            part = self._checks.part(samples)
            if due and part.step > 1:
                sampled = slice_batch(inputs, part), None if y is None else y[part]
                if self._attempt(module, *sampled, True) is None:
                    return None
                due = False
            jacobian = self._attempt(module, inputs, y, due)
            if jacobian is not None and not factored:
                jacobian = jacobian.for_sums()
        return jacobian if self._isolated.shared_copy is shadow else None

    def _attempt(
        self, module: nn.Module, inputs: Inputs, y: Tensor | None, checked: bool
    ) -> Jacobian | None:
        """Jacobians of a batch, verified where asked for; None where another way must be taken."""
        plan = self._plan(module)
        with record_calls(list(plan.groups)) as uses:
            outputs, targets = self._outputs(module, inputs, y)
        if self._isolated.depends_on_original(outputs):
            return None
        check_affordable(self.outputs.output, outputs, uses, plan.unserved_elements)
        misfits = {use.layer for use in uses if not use.fits(len(outputs))}
        if misfits:
            self.refused |= {name for layer in misfits for name in plan.served(layer)}
            return None
        jacobian = self._jacobian(module, plan, uses, inputs, targets, outputs)
        if jacobian is None:
            return None
        if checked and not self._verified(module, plan, inputs, targets, jacobian):
            return None
        jacobian = replace(jacobian, outputs=outputs.detach())
        self._row_bytes = self._row_bytes or bytes_per_sample(jacobian.for_sums(), uses)
        return jacobian

    def _plan(self, module: nn.Module) -> Plan:
        """The plan, made again where more parameters have been refused."""
        key = module, len(self.refused)
        if key not in self._plans:
            self._plans[key] = make_plan(module, self.selected, self.refused)
        return self._plans[key]

    def _outputs(
        self, module: nn.Module, inputs: Inputs, y: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Outputs (n, d), and what is fixed per sample."""
        raw = self.forward(module, inputs)
        targets = self.outputs.targets(raw, y)
        outputs = self.outputs.select(raw, targets)
        check_outputs(outputs, len(list_tensors(inputs)[0]))
        return outputs.to(self.dtype), targets

    def _jacobian(
        self,
        module: nn.Module,
        plan: Plan,
        uses: list[LayerCall],
        inputs: Inputs,
        targets: Tensor | None,
        outputs: Tensor,
    ) -> Jacobian | None:
        try:
            found = compute_cotangents(outputs, uses)
        except RuntimeError as error:
            if ".grad()" not in str(error):
                raise
            # Reentrant checkpoints allow backward() alone.
            self.refused, self._fallback.loop = set(self.selected), True
            return None
        blocks = blocks_by_rules(plan, uses, found)
        if plan.unserved:
            block = self._fallback.block(module, plan.unserved, inputs, targets)
            blocks[tuple(plan.unserved)] = block
        return Jacobian(blocks, plan.layout, outputs)

    def _verified(
        self,
        module: nn.Module,
        plan: Plan,
        inputs: Inputs,
        targets: Tensor | None,
        jacobian: Jacobian,
    ) -> bool:
        """Whether a Jacobian may be used; where not, its parameters are sent another way.

        Rules give way to the fallback, vmap to the loop; the loop is the definition itself.
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
        self._checks.record(len(jacobian), wrong)
        self.refused |= served
        self._fallback.loop |= bool(wrong) and not served
        return not wrong


def _of_one_dtype(use: LayerCall, cotangent: Tensor, graph: bool) -> tuple[Tensor, Tensor]:
    """Inputs and cotangents in the layer's dtype, also where the network has its own autocast."""
    dtype = next(parameter.dtype for parameter in use.layer.parameters(recurse=False))
    inputs = use.inputs if graph else use.inputs.detach()
    floating = inputs.is_floating_point()
    return (inputs.to(dtype) if floating else inputs), cotangent.to(dtype)


def blocks_by_rules(
    plan: Plan, uses: list[LayerCall], found: list[Tensor | None], graph: bool = False
) -> dict[tuple[str, ...], Block]:
    """The blocks of all uses of the served layers, summed for each group of parameters.

    With the graph that the inputs have, where asked for; cotangents keep theirs.
    """
    parts: dict[tuple[str, ...], list[Block]] = defaultdict(list)
    for use, cotangent in zip(uses, found, strict=True):
        if cotangent is None:
            continue
        rule = find_rule(use.layer)
        assert rule is not None
        for group in plan.groups[use.layer]:
            for block in rule(use.layer, *_of_one_dtype(use, cotangent, graph), group):
                named = tuple((plan.names[use.layer, name], shape) for name, shape in block.layout)
                parts[tuple(name for name, _ in named)].append(replace(block, layout=named))
    return {key: add_blocks(blocks) for key, blocks in parts.items()}
