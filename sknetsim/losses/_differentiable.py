"""Jacobians of the user's own network, with their autograd graph, for the similarity losses.

Index legend: n samples; o outputs (d of them).
"""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .._gradients.capture import compute_cotangents
from .._gradients.engine import GradientEngine
from .._gradients.fallback import Fallback
from .._gradients.graph import describe_graph, iterate_graph
from .._gradients.outputs import Outputs
from .._gradients.parameters import list_layout
from .._gradients.recording import Resolver, Tape, reasons, record_calls
from .._gradients.recording.served_blocks import compute_served_blocks, is_used_outside
from .._gradients.verification import find_wrong_parameters
from .._kernels.jacobian import Jacobian
from .._kernels.precision import exact_evaluation
from .._networks.batches import Inputs, list_tensors, map_tensors, slice_batch
from .._networks.isolation import borrow_and_restore, is_half, refuse_writes
from .._networks.network import Network, resolve_network
from .._networks.samples import Samples
from ..exceptions import UnsupportedNetworkError
from ._second_derivatives import (
    ReplacedFunctions,
    describe_failing_layer,
    differentiate,
    record_parts,
)

# Number of samples on which a network is verified.
_VERIFICATION_SAMPLES = 8


@dataclass(frozen=True)
class _Verification:
    """Result of verifying a network: the rules that give its correct gradients.

    Attributes
    ----------
    module : weak reference to Module
        The network.
    structure : list
        Its layers, see `_list_layers`.
    sample_shapes : list of Size
        Shapes of a sample's tensors.
    has_several_samples : bool
        Whether the verified batch had more than one sample.
    selected : set of str
        Names of the parameters that are differentiated.
    refused : dict of str to str
        Names of the parameters that the fallback computes, with the reasons.
    loop : bool
        Whether parameters without a rule need a loop over samples.
    resolver : Resolver
        Search for the axes of the samples.
    """

    module: weakref.ref[nn.Module]
    structure: list[Any]
    sample_shapes: list[torch.Size]
    has_several_samples: bool
    selected: set[str]
    refused: dict[str, str]
    loop: bool
    resolver: Resolver

    def applies_to(self, module: nn.Module, inputs: Inputs) -> bool:
        """Return whether the network is still the verified one, apart from its weights.

        A verification on one sample applies only to batches of one sample, because it cannot
        detect that the network mixes samples.
        """
        is_same = self.module() is module and self.structure == _list_layers(module)
        is_same = is_same and self.sample_shapes == _list_sample_shapes(inputs)
        return is_same and (self.has_several_samples or len(list_tensors(inputs)[0]) == 1)


class DifferentiableEngine:
    """Jacobians of a batch that can be differentiated with respect to the network's parameters.

    The user's own network is evaluated, in eval mode; its mode is restored afterwards. Only a weak
    reference to it is kept.

    Parameters
    ----------
    output : str, int, list of int or callable
        Outputs whose gradients are compared, see `Outputs`.
    parameters : None, str, list of str or Module
        Parameters that are differentiated, see `select_parameters`.
    """

    def __init__(self, output: Any, parameters: Any):
        self.output = output
        self.parameters = parameters
        self._verification: _Verification | None = None
        self._structures: set[Any] = set()
        self._n_batches = 0

    def jacobian(self, estimator: Any, inputs: Inputs) -> Jacobian:
        """Return the Jacobians of a skorch net or a module at a batch.

        Parameters
        ----------
        estimator : skorch net or Module
            The network.
        inputs : Tensor, or dict or tuple of Tensor, of n samples
            The batch.

        Returns
        -------
        jacobian : Jacobian
            J(x) with its autograd graph, if gradients are enabled.
        """
        network = resolve_network(estimator)
        inputs = _convert_inputs(network, inputs)
        verification = self._verify(network, inputs)
        outputs = Outputs(self.output, network)
        with borrow_in_eval_mode(network.module) as module:
            jacobian = self._compute_verified(network, outputs, verification, module, inputs)
        if torch.is_grad_enabled():
            return jacobian
        return replace(jacobian, outputs=jacobian.outputs.detach())

    def _compute_verified(
        self,
        network: Network,
        outputs: Outputs,
        verification: _Verification,
        module: nn.Module,
        inputs: Inputs,
    ) -> Jacobian:
        """Return the Jacobians of a batch, which is verified if it is unlike earlier ones.

        Parameters with wrong gradients are computed by the fallback from then on.
        """
        jacobian, tape, structure = _compute_jacobian(
            network, outputs, verification, module, inputs
        )
        if structure in self._structures:
            return jacobian
        wrong = find_wrong_parameters(tape, jacobian)
        if not wrong:
            self._structures |= {structure} - {None}
            return jacobian
        if wrong <= verification.refused.keys():
            raise UnsupportedNetworkError(
                "`network` must treat all batches in the same way; got a network whose gradients"
                f" of {min(wrong)!r} are correct in some batches and wrong in others. Make one loss"
                " object for each form of batch."
            )
        refused = verification.refused | dict.fromkeys(wrong, reasons.WRONG)
        self._verification = replace(verification, refused=refused)
        return self._compute_verified(network, outputs, self._verification, module, inputs)

    def _verify(self, network: Network, inputs: Inputs) -> _Verification:
        """Return the verification of a network; repeat it if it is due or no longer applies.

        It is due at the first, second, fourth, eighth ... batch, because a network may treat
        batches differently: it may sort them, or mix their samples.
        """
        self._n_batches += 1
        verification = self._verification
        is_due = self._n_batches & (self._n_batches - 1) == 0
        if is_due or verification is None or not verification.applies_to(network.module, inputs):
            _check_precision(network.module)
            first = slice_batch(inputs, slice(0, _VERIFICATION_SAMPLES))
            verification = _verify_network(network, self.output, self.parameters, first)
            check_second_derivatives(network, verification, self.output, first)
            self._verification = verification
        return verification


def _convert_inputs(network: Network, inputs: Any) -> Inputs:
    """Return the tensors on the network's device, floating-point ones in its dtype."""
    if not isinstance(inputs, Tensor | Mapping | tuple | list):
        raise TypeError(
            "`inputs` must be a tensor, or a dict or tuple of tensors, in the form that the network"
            f" takes; got {type(inputs).__name__}. Use torch.as_tensor to convert it."
        )
    if len(list_tensors(inputs)[0]) == 0:
        raise ValueError("`inputs` must have at least one sample; got 0. Skip empty batches.")

    def convert(tensor: Tensor) -> Tensor:
        dtype = network.dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.to(network.device, dtype)

    return map_tensors(convert, inputs)


def _verify_network(
    network: Network, output: Any, parameters: Any, inputs: Inputs
) -> _Verification:
    """Return the rules that give the gradients of autograd, according to `GradientEngine`."""
    engine = GradientEngine(network, output, parameters)
    samples = Samples(map_tensors(lambda tensor: tensor.detach().cpu(), inputs))
    for _ in engine.jacobians(samples):
        pass
    return _Verification(
        module=weakref.ref(network.module),
        structure=_list_layers(network.module),
        sample_shapes=_list_sample_shapes(inputs),
        has_several_samples=len(list_tensors(inputs)[0]) > 1,
        selected=engine.selected,
        refused=engine.refused,
        loop=engine.loops,
        resolver=Resolver(),
    )


def _list_layers(module: nn.Module) -> list[Any]:
    """Return each layer's name, type, and parameters with their names, dtypes and training."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [
        (
            name,
            type(layer),
            "forward" in vars(layer),
            [(names[id(p)], p.requires_grad, p.dtype) for p in layer.parameters(recurse=False)],
        )
        for name, layer in module.named_modules()
    ]


def _list_sample_shapes(inputs: Inputs) -> list[torch.Size]:
    """Return the shape of one sample in each tensor."""
    return [tensor.shape[1:] for tensor in list_tensors(inputs)]


def _check_precision(module: nn.Module) -> None:
    if is_half(module):
        raise UnsupportedNetworkError(
            "`network` must have float32 or float64 parameters; got half precision, whose second"
            " derivatives vanish or overflow. Call network.float() first; autocast is supported."
        )


def _check_no_weight_norm(outputs: Tensor, selected: set[int]) -> None:
    """Raise an error if torch normalises weights that depend on parameters with selected ids.

    The second derivative of ``torch._weight_norm`` is wrong. Calls in compiled code cannot be
    replaced.
    """
    nodes = [node for node, _ in iterate_graph(outputs.grad_fn) if "WeightNorm" in node.name()]
    behind = itertools.chain.from_iterable(map(iterate_graph, nodes))
    if any(id(getattr(node, "variable", None)) in selected for node, _ in behind):
        raise UnsupportedNetworkError(
            "`network` must have correct second derivatives; got weight_norm in compiled code, for"
            " which torch computes wrong ones. Remove weight_norm, or pass the module as it was"
            " before torch.jit."
        )


@contextlib.contextmanager
def borrow_in_eval_mode(module: nn.Module) -> Iterator[nn.Module]:
    """Set the network to eval mode inside the block, with second derivatives for all layers.

    Fused attention and cuDNN's recurrent layers have no second derivatives, so other
    implementations are used. Hooks on parameters are disabled inside the block, because they would
    change the compared gradients.
    """
    device = next(module.parameters()).device
    with contextlib.ExitStack() as stack:
        stack.enter_context(exact_evaluation(module, device))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(borrow_and_restore(module, None))
        stack.enter_context(ReplacedFunctions())
        yield module


def _compute_jacobian(
    network: Network,
    outputs: Outputs,
    verification: _Verification,
    module: nn.Module,
    inputs: Inputs,
) -> tuple[Jacobian, Tape, Any]:
    """Return J(x) with its graph: by the rules, and by the fallback for other parameters.

    The other results are the recorded forward pass, and the structure of its graph. The latter is
    None if rules that are correct for one batch may be wrong for another one with the same
    structure.
    """

    def call(function: Callable[..., Any], inputs: Inputs) -> Any:
        # The network may change its inputs in place, so each pass gets a copy.
        with refuse_writes(module):
            return network.call(function, map_tensors(torch.clone, inputs))

    def evaluate(batch: Inputs) -> tuple[Tensor, Tensor | None]:
        """Return the outputs and the targets."""
        raw = call(module, batch)
        targets = outputs.targets(raw, None)
        return outputs.select(raw, targets).to(network.dtype), targets

    with record_calls(module, verification.selected, inputs) as tape:
        selected, targets = evaluate(inputs)
    graph = describe_graph(selected)
    uses, unserved = verification.resolver.find_uses(
        tape, verification.refused, graph.uses, lambda batch: evaluate(batch)[0]
    )
    cotangents = compute_cotangents(selected, uses, graph=True)
    blocks = compute_served_blocks(uses, cotangents, graph=True).blocks
    if unserved:
        fallback = Fallback(call, outputs.select, graph=True)
        fallback.loop = verification.loop
        blocks[tuple(unserved)] = fallback.block(module, list(unserved), inputs, targets)
    moves_samples = verification.resolver.graphs.moves_samples(graph)
    varies = moves_samples or is_used_outside(tape, graph.uses)
    jacobian = Jacobian(blocks, list_layout(tape.parameters), selected)
    return jacobian, tape, None if varies else graph.structure


def check_second_derivatives(
    network: Network, verification: _Verification, output: Any, inputs: Inputs
) -> None:
    """Differentiate the Jacobian of one sample; raise an error with the layer that fails."""
    first, outputs = slice_batch(inputs, slice(0, 1)), Outputs(output, network)
    with borrow_in_eval_mode(network.module) as module, record_parts(module) as calls:
        trainable = [p for p in module.parameters() if p.requires_grad]
        try:
            jacobian, tape, _ = _compute_jacobian(network, outputs, verification, module, first)
            _check_no_weight_norm(jacobian.outputs, {id(p) for p in tape.parameters.values()})
            differentiate(jacobian.self_kernel().sum(), trainable)
        except RuntimeError as error:
            raise UnsupportedNetworkError(
                "`network` must have layers that can be differentiated twice; got"
                f" {describe_failing_layer(module, calls)} that cannot"
                f" ({str(error).splitlines()[0]}). Replace that layer."
            ) from error
