"""Isolated evaluation of the user's network, which is the same before and after each call.

The network is evaluated on a copy of its modules that shares its weights. If the modules cannot be
copied, or the copy still uses the original network through a closure, the original network is
borrowed instead: it is evaluated under a lock, and its state is restored afterwards.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.hooks import RemovableHandle

from .._kernels.precision import assign, full_precision
from ..exceptions import UnsupportedNetworkError

# Held while a network is borrowed.
_borrow_lock = threading.RLock()

_HALF = (torch.float16, torch.bfloat16)


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that gradients are computed in: float32 for half-precision networks."""
    return torch.float32 if dtype in _HALF else dtype


def check_device(device: Any) -> torch.device:
    """Return a device of this machine, with its index; raise if torch cannot use it."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(
            "`device` must be None (the device of the network), 'cpu' or another device of this"
            f" machine; got {device!r}, which torch cannot use ({str(error).splitlines()[0]}). Use"
            " device=None."
        ) from error


def has_device(device: Any) -> bool:
    """Return whether this machine has a device."""
    try:
        check_device(device)
    except ValueError:
        return False
    return True


@contextlib.contextmanager
def exact_evaluation(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Enable gradients and disable autocast and TF32 inside the block."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(full_precision(device))
        if device.type == "cuda" and not needs_cudnn(module):
            stack.enter_context(assign(torch.backends.cudnn, "enabled", False))
        yield


def needs_cudnn(module: nn.Module) -> bool:
    """Return whether cuDNN makes a network faster and can differentiate it in eval mode.

    Convolutions are slow without it. Its recurrent layers have a backward pass in training mode
    only, so a network with any of them is evaluated without cuDNN.
    """
    layers = list(module.modules())
    recurrent = any(isinstance(layer, nn.RNNBase) for layer in layers)
    return not recurrent and any(isinstance(layer, _ConvNd) for layer in layers)


def make_weight_sharing_copy(
    module: nn.Module, selected: set[str], device: torch.device
) -> nn.Module | None:
    """Return a copy in eval mode whose parameters share the memory of the original ones.

    Only the ``selected`` parameters require a gradient. On another device or in half precision, the
    parameters are copied. Buffers and tensors in plain attributes are always copied.

    Returns
    -------
    shared_copy : Module or None
        None if no copy can be made, or if it contains modules of the original network.
    """
    # deepcopy takes the copies of these objects from the memo instead of copying the objects.
    memo: dict[int, object] = {}
    for name, parameter in module.named_parameters():
        memo[id(parameter)] = nn.Parameter(_share(parameter, device), name in selected)
    for tensor in _plain_tensors(module):
        memo.setdefault(id(tensor), _share(tensor, device).clone())
    try:
        shared_copy = copy.deepcopy(module, memo)
    except Exception:
        return None
    if {id(part) for part in shared_copy.modules()} & {id(part) for part in module.modules()}:
        return None
    for part in shared_copy.modules():
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = _share(buffer, device)
    return shared_copy.eval()


def _share(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor with the same memory, or a copy if its device or dtype must change."""
    shared = tensor.detach()
    if shared.is_inference():
        shared = shared.clone()
    return shared.to(device, working_dtype(tensor.dtype))


def _plain_tensors(module: nn.Module) -> Iterator[Tensor]:
    """Yield the tensors in plain attributes, such as the weight of old-style weight_norm."""
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, Tensor):
                yield value


class IsolatedNetwork:
    """Evaluation of a network on its weight-sharing copy, or else on the network itself.

    Parameters
    ----------
    module : Module
        The original network.
    selected : set of str
        Names of the parameters that require a gradient.
    device : device
        Device of the evaluation.

    Attributes
    ----------
    shared_copy : Module or None
        The weight-sharing copy; None if the original network is borrowed.
    """

    def __init__(self, module: nn.Module, selected: set[str], device: torch.device):
        self.module = module
        self.selected = selected
        self.device = device
        with lock_networks():
            self.shared_copy = make_weight_sharing_copy(module, selected, device)
        self._original_ids = {id(parameter) for parameter in module.parameters()}
        self._was_evaluated = False
        self._is_random = False

    @contextlib.contextmanager
    def borrow(self) -> Iterator[nn.Module]:
        """Yield the module to call, in eval mode.

        In the first evaluation of the copy, the original network is borrowed too, because the copy
        may call modules of the original network. If it does, the original network is evaluated from
        then on.
        """
        with exact_evaluation(self.module, self.device), self._preserve_random_states():
            if self.shared_copy is not None and self._was_evaluated:
                yield self.shared_copy
                return
            self._check_precision()
            selected = self.selected if self.shared_copy is None else None
            with (
                borrow_and_restore(self.module, selected),
                record_called_modules(self.module) as called,
            ):
                yield self.module if self.shared_copy is None else self.shared_copy
            self._was_evaluated = True
            if called:
                self.shared_copy = None

    def depends_on_original(self, outputs: Tensor) -> bool:
        """Return whether outputs of the copy depend on parameters of the original network.

        If they do, the copy is dropped, and the original network is evaluated from then on.
        """
        if self.shared_copy is None or not _depend_on(outputs, self._original_ids):
            return False
        self.shared_copy = None
        return True

    def _check_precision(self) -> None:
        """Raise an error for a half-precision network that cannot be copied."""
        if self.shared_copy is None and is_half(self.module):
            raise UnsupportedNetworkError(
                "`estimator` must be a float32 or float64 network, or one that can be copied and"
                " evaluated in float32; got a half-precision network that cannot be copied. Call"
                " .float() on it first."
            )

    @contextlib.contextmanager
    def _preserve_random_states(self) -> Iterator[None]:
        """Restore the random states after the block, if the network draws random numbers.

        If it draws none, they are not restored, because other threads may use the same generator.
        """
        if self._was_evaluated and not self._is_random:
            yield
            return
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            before = torch.get_rng_state()
            yield
            self._is_random |= self.device.type == "cuda" or not torch.equal(
                before, torch.get_rng_state()
            )


def lock_networks() -> contextlib.AbstractContextManager[bool]:
    """Return the lock inside which no other thread borrows a network."""
    return _borrow_lock


def is_half(module: nn.Module) -> bool:
    """Return whether some parameters are in half precision."""
    return any(parameter.dtype in _HALF for parameter in module.parameters())


@contextlib.contextmanager
def borrow_and_restore(module: nn.Module, selected: set[str] | None) -> Iterator[nn.Module]:
    """Set a network to eval mode inside the block, and restore its state at the end.

    Inside the block, only the ``selected`` parameters require a gradient; None changes nothing in
    this respect. The restored state consists of the modes, attributes, contents of buffers,
    gradients, and hooks of parameters.
    """
    with _borrow_lock, contextlib.ExitStack() as restore:
        for part in module.modules():
            if isinstance(part, torch.jit.ScriptModule):
                restore.callback(setattr, part, "training", part.training)
            else:
                restore.callback(_restore_attributes, part, *_attributes(part))
            part.training = False
        for name, parameter in module.named_parameters():
            restore.callback(setattr, parameter, "grad", parameter.grad)
            parameter.grad = None
            _disable_hooks(parameter, restore)
            if selected is not None:
                restore.callback(parameter.requires_grad_, parameter.requires_grad)
                parameter.requires_grad_(name in selected)
        yield module


def _disable_hooks(parameter: nn.Parameter, restore: contextlib.ExitStack) -> None:
    """Disable the hooks that run once a gradient is accumulated, such as an optimiser's step."""
    hooks: Any = parameter._post_accumulate_grad_hooks
    if hooks is not None:
        restore.callback(setattr, parameter, "_post_accumulate_grad_hooks", hooks)
        parameter._post_accumulate_grad_hooks = type(hooks)()


def _attributes(part: nn.Module) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return a module's attributes, copies of its containers, and its buffers with contents."""
    containers = {
        name: copy.copy(value)
        for name, value in vars(part).items()
        if isinstance(value, list | dict | set) and not name.startswith("_")
    }
    buffers = {
        name: (buffer, None if buffer is None else buffer.detach().clone())
        for name, buffer in part._buffers.items()
    }
    return dict(vars(part)), containers, buffers


def _restore_attributes(
    part: nn.Module, attributes: dict[str, Any], containers: dict[str, Any], buffers: dict[str, Any]
) -> None:
    """Restore what `_attributes` returned for a module."""
    vars(part).clear()
    vars(part).update(attributes)
    for name, saved in containers.items():
        container = attributes[name]
        container.clear()
        container.extend(saved) if isinstance(container, list) else container.update(saved)
    for name, (buffer, contents) in buffers.items():
        part._buffers[name] = buffer
        if buffer is not None and not torch.equal(buffer, contents):
            with torch.no_grad():
                buffer.copy_(contents)


@contextlib.contextmanager
def record_called_modules(module: nn.Module) -> Iterator[list[nn.Module]]:
    """Record the modules of a network that are called inside the block."""
    called: list[nn.Module] = []

    def record(part: nn.Module, args: Any) -> None:
        called.append(part)

    with attach_hooks(module.modules(), lambda part: part.register_forward_pre_hook(record)):
        yield called


@contextlib.contextmanager
def attach_hooks(
    modules: Iterable[nn.Module], register: Callable[[nn.Module], RemovableHandle]
) -> Iterator[None]:
    """Register a hook on each module inside the block, and remove all hooks at the end.

    ScriptModules are skipped, because torch does not support hooks on them.
    """
    with contextlib.ExitStack() as hooks:
        for module in modules:
            if not isinstance(module, torch.jit.ScriptModule):
                hooks.callback(register(module).remove)
        yield


def _depend_on(outputs: Tensor, ids: set[int]) -> bool:
    """Return whether the graph of the outputs leads to parameters with these ids."""
    return any(id(getattr(node, "variable", None)) in ids for node in iterate_graph(outputs))


def iterate_graph(outputs: Tensor) -> Iterator[Any]:
    """Yield the nodes of the autograd graph of the outputs, each once."""
    seen, waiting = set(), [outputs.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting.extend(following for following, _ in node.next_functions)
