"""Engine of gradients: the Jacobians of a network by the rules, chunk by chunk.

Index legend: n samples; o outputs (d of them).
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .._kernels.jacobian import Jacobian
from .._networks.batches import Inputs, list_tensors, slice_batch
from .._networks.fingerprint import fingerprint_value
from .._networks.network import Network
from .._networks.samples import Samples
from .._networks.state import lock_networks
from ..exceptions import UnsupportedNetworkError, locate_rows
from .base_engine import BaseEngine
from .capture import bytes_per_sample, check_affordable, compute_cotangents
from .fallback import Fallback
from .graph import describe_graph
from .outputs import Outputs
from .parameters import is_differentiable, list_layout, select_parameters
from .recording import Resolver, Tape, Use, reasons, record_calls
from .recording.served_blocks import compute_served_blocks, is_used_outside
from .verification import (
    are_checked,
    are_verified,
    check_no_mixing,
    check_outputs,
    compute_again,
    find_wrong_parameters,
    is_close,
    make_batches_error,
    make_graph_error,
    select_part,
    select_rows,
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
    refused : dict of str to str
        Names of the parameters that the fallback computes from now on, with the reasons.
    unserved : dict of str to str
        Names of the parameters that the fallback has computed in the latest chunk, with the
        reasons.
    without_rule : set of str
        Names of the parameters of which some call was differentiated without a rule in the latest
        chunk.
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
        super().__init__(network, self.selected, batch_size, device, self.outputs.list_compared)
        self._fallback = Fallback(self.call, self.outputs.select)
        self.refused: dict[str, str] = {}
        self.unserved: dict[str, str] = {}
        self.without_rule: set[str] = set()
        self._resolver = Resolver()
        self._trainable = {n for n, p in network.module.named_parameters() if p.requires_grad}
        self._has_chosen_gradients = self.selected == self._trainable
        self._verified: set[Any] = set()
        self._passed_chunks = 0
        self._is_guarded = False

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
        own = (self.network.module, self.network.criterion, self.network.classifier)
        return fingerprint_value((own, (self.outputs.output, sorted(self.selected))))

    def _measure(self, samples: Samples, factored: bool) -> None:
        with self.batch(samples, samples.measured) as (module, inputs, y), self._guard():
            self._attempt(module, inputs, y, factored, verified=False)

    def _guard(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which the backward pass is checked not to change weights.

        Only the first one is checked, because recording all operations takes time.
        """
        was_guarded, self._is_guarded = self._is_guarded, True
        return contextlib.nullcontext() if was_guarded else self._isolated.restore_weights()

    def _check_first_two(self, samples: Samples) -> None:
        """Check that the network does not mix the first two samples, if chunks are single ones."""
        try:
            samples.take(slice(0, 2))
        except ValueError:
            return  # Items of different shapes cannot form a batch.
        with self.batch(samples, slice(0, 2)) as (module, inputs, y):
            outputs, targets = self._compute_outputs(module, inputs, y)
            check_no_mixing(self.call, self.outputs, module, inputs, targets, outputs)

    def _compute_chunk(self, samples: Samples, chunk: slice, factored: bool) -> Jacobian | None:
        """Return the Jacobians of a chunk; None if the chunk must be computed again.

        That is the case if some parameters are computed by the fallback or by its loop from then
        on, or if the original network is evaluated instead of the copy from then on.
        """
        shared_copy = self._isolated.shared_copy
        count = chunk.stop - chunk.start
        if chunk.start == 0 and count == 1 < len(samples) and not samples.may_be_padded:
            # A single sample does not show whether the network mixes samples.
            self._check_first_two(samples)
        with self.batch(samples, chunk) as (module, inputs, y), self._guard():
            part = select_part(count)
            if part.step > 1 and not self._verified:
                # Some samples of a large first chunk are verified, in a batch of their own, so that
                # wrong rules are refused before the whole chunk is computed.
                some = slice_batch(inputs, part), None if y is None else y[part]
                with locate_rows(range(count)[part]):
                    if self._attempt(module, *some, factored) is None:
                        return None
            jacobian = self._attempt(module, inputs, y, factored)
        if jacobian is None or self._isolated.shared_copy is not shared_copy:
            return None
        self._passed_chunks += count > 1
        return jacobian

    def _attempt(
        self,
        module: nn.Module,
        inputs: Inputs,
        y: Tensor | None,
        factored: bool,
        verified: bool = True,
    ) -> Jacobian | None:
        """Return the Jacobians of a batch, ``factored`` and ``verified`` or not.

        The result is None if the next attempt must compute something differently, because a rule
        or vmap is wrong on this network, or because the outputs depend on the original network.
        """
        if not self._has_chosen_gradients:
            self._choose_gradients(module, inputs, y)
        with record_calls(module, self.selected, inputs) as tape:
            outputs, targets = self._compute_outputs(module, inputs, y)
        if not outputs.requires_grad:
            self._check_graph(module, inputs, y)
        graph = describe_graph(outputs)
        if self._isolated.depends_on_original(graph.uses.keys()):
            return None

        def evaluate(batch: Inputs) -> Tensor:
            rows = torch.arange(len(list_tensors(batch)[0])) % len(outputs)
            return self._compute_outputs(module, batch, None if y is None else y[rows])[0]

        uses, self.unserved = self._resolver.find_uses(tape, self.refused, graph.uses, evaluate)
        unserved = list_layout({name: tape.parameters[name] for name in self.unserved})
        check_affordable(self.outputs.output, outputs, uses, unserved)
        # Few samples are verified in a chunk that is like one of those before.
        moves_samples = self._resolver.graphs.moves_samples(graph)
        varies = moves_samples or is_used_outside(tape, graph.uses)
        is_alike = graph.structure in self._verified and not varies
        try:
            jacobian = self._compute_jacobian(tape, uses, targets, outputs, factored)
            if jacobian is None or (
                verified and not self._verify(tape, targets, jacobian, is_alike)
            ):
                return None
        except RuntimeError as error:
            if ".grad()" not in str(error):
                raise
            # Reentrant checkpoints support backward(), but not autograd.grad. The loop of the
            # fallback calls backward().
            self.refused = dict.fromkeys(self.selected, reasons.CHECKPOINT)
            self._fallback.loop = True
            return None
        self._verified |= {graph.structure} if verified else set()
        jacobian = replace(jacobian, outputs=outputs.detach())
        # Padded samples take more memory in some chunks than in others.
        needed = bytes_per_sample(jacobian, uses)
        self._sample_bytes[factored] = max(self._sample_bytes[factored], needed)
        return jacobian

    def _choose_gradients(self, module: nn.Module, inputs: Inputs, y: Tensor | None) -> None:
        """Choose the parameters that require a gradient while the network is evaluated.

        These are the selected ones, which is faster, unless the network returns other outputs then.
        It may do so if its code depends on whether a tensor requires a gradient.
        """
        self._has_chosen_gradients = True
        first = slice(0, 1)
        target = None if y is None else y[first]
        outputs = []
        for required in (self.selected, self._trainable):
            self._isolated.require_gradients(required)
            # A network may fail without a gradient of some part, for example if it adapts it.
            with contextlib.suppress(RuntimeError, UnsupportedNetworkError):
                row = slice_batch(inputs, first)
                outputs.append(self._compute_outputs(module, row, target)[0])
        if len(outputs) == 2 and is_close(*outputs):
            self._isolated.require_gradients(self.selected)

    def _check_graph(self, module: nn.Module, inputs: Inputs, y: Tensor | None) -> None:
        """Raise an error if outputs without an autograd graph have none for any parameter either.

        Outputs without a graph are right if they do not depend on the selected parameters.
        """
        required = self._isolated.selected
        every = {n for n, p in module.named_parameters() if is_differentiable(p)}
        self._isolated.require_gradients(every)
        try:
            outputs, _ = self._compute_outputs(module, inputs, y)
        finally:
            self._isolated.require_gradients(required)
        if not outputs.requires_grad:
            raise make_graph_error()

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
        self, tape: Tape, uses: list[Use], targets: Tensor | None, outputs: Tensor, factored: bool
    ) -> Jacobian | None:
        """Return the Jacobians of a batch: by the rules, and by the fallback for the rest.

        The result is None if some use cannot be differentiated; its parameters are refused then.
        """
        served = compute_served_blocks(uses, compute_cotangents(outputs, uses), factored=factored)
        self.without_rule = served.without_rule
        if served.failed:
            self.refused |= served.failed
            return None
        blocks, unserved = served.blocks, list(self.unserved)
        if unserved:
            block = self._fallback.block(tape.module, unserved, tape.inputs, targets)
            blocks[tuple(unserved)] = block
        return Jacobian(blocks, list_layout(tape.parameters), outputs)

    def _verify(
        self, tape: Tape, targets: Tensor | None, jacobian: Jacobian, is_alike: bool
    ) -> bool:
        """Return whether the Jacobians are correct; if not, change how they are computed.

        A few samples are verified if the chunk ``is_alike`` an earlier one, else all samples: their
        outputs in each chunk, and their gradients in some. If their gradients are wrong, all are
        verified too, because rounding may change the derivative of a few samples.
        """
        module, inputs = tape.module, tape.inputs
        if len(jacobian) > 1 and is_alike:
            number, outputs = self._passed_chunks + 1, jacobian.outputs
            if not are_checked(len(outputs), number):
                return True
            rows = select_rows(len(outputs), number)
            again = compute_again(self.call, self.outputs, module, inputs, targets, outputs, rows)
            if not are_verified(number) or self._is_loop():
                return True
            if not find_wrong_parameters(tape, replace(jacobian.rows(rows), outputs=again)):
                return True
        if len(jacobian) > 1:
            check_no_mixing(self.call, self.outputs, module, inputs, targets, jacobian.outputs)
            warn_if_probabilities(self.network, jacobian.outputs)
        wrong = self._refuse_wrong(tape, jacobian)
        if wrong and is_alike and self._passed_chunks:
            # Only a few samples of the chunks before, which were alike, have been verified.
            raise make_batches_error(min(wrong))
        return not wrong

    def _is_loop(self) -> bool:
        """Return whether all gradients are computed by the loop, which is their definition."""
        return self._fallback.loop and self.unserved.keys() == self.selected

    def _refuse_wrong(self, tape: Tape, jacobian: Jacobian) -> set[str]:
        """Return the parameters with wrong gradients, and change how these are computed.

        A parameter whose rule is wrong is computed by the fallback from then on. If vmap is wrong,
        the fallback loops over samples from then on.
        """
        if self._is_loop():
            return set()
        wrong = find_wrong_parameters(tape, jacobian)
        served = wrong - self.unserved.keys()
        if not served and self._fallback.loop:
            return set()
        self.refused |= dict.fromkeys(served, reasons.WRONG)
        self._fallback.loop |= bool(wrong) and not served
        return wrong
