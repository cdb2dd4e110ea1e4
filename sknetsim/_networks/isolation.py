"""The user's network is a guest: it is studied on a copy of its structure that shares its weights.

Where the structure cannot be copied, or the copy still reaches the original through a closure, the
network itself is lent, under a lock, and put back as it was.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .._kernels.precision import full_precision
from ..exceptions import UnsupportedNetworkError

_lending = threading.RLock()

_HALF = (torch.float16, torch.bfloat16)


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that gradients are computed in: float32 for half-precision networks."""
    return torch.float32 if dtype in _HALF else dtype


def check_device(device: Any) -> torch.device:
    """A device of this machine; any other is refused."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(
            f"device is {device!r}, which torch cannot use here ({str(error).splitlines()[0]});"
            " allowed are None (where the network is), 'cpu' and devices of this machine."
        ) from error


def has_device(device: Any) -> bool:
    """Whether this machine can compute there."""
    try:
        check_device(device)
    except ValueError:
        return False
    return True


@contextlib.contextmanager
def exact_evaluation(device: torch.device) -> Iterator[None]:
    """Gradients on, autocast and TF32 off, whatever the caller has set."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(full_precision(device))
        if device.type == "cuda":
            # cuDNN's recurrent layers refuse a backward pass in eval mode.
            stack.enter_context(torch.backends.cudnn.flags(enabled=False, allow_tf32=False))
        yield


def make_weight_sharing_copy(
    module: nn.Module, selected: set[str], device: torch.device
) -> nn.Module | None:
    """A copy in eval mode whose parameters share the guest's memory; None where none can be made.

    Only the ``selected`` parameters require a gradient.
    """
    memo: dict[int, object] = {}
    for name, parameter in module.named_parameters():
        memo[id(parameter)] = nn.Parameter(_shared(parameter, device), name in selected)
    for tensor in _plain_tensors(module):
        memo.setdefault(id(tensor), _shared(tensor, device).clone())
    try:
        twin = copy.deepcopy(module, memo)
    except Exception:
        return None
    if {id(part) for part in twin.modules()} & {id(part) for part in module.modules()}:
        return None
    for part in twin.modules():
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = _shared(buffer, device)
    return twin.eval()


def _shared(tensor: Tensor, device: torch.device) -> Tensor:
    shared = tensor.detach()
    if shared.is_inference():
        shared = shared.clone()
    return shared.to(device, working_dtype(tensor.dtype))


def _plain_tensors(module: nn.Module) -> Iterator[Tensor]:
    """Tensors kept as plain attributes (old-style weight_norm keeps its weight so)."""
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, Tensor):
                yield value


class IsolatedNetwork:
    """Where a network is evaluated: on its shadow, or on itself.

    Parameters
    ----------
    module : Module
        The guest.
    selected : set of str
        Names of the parameters that require a gradient.
    device : device
        Where to compute.

    Attributes
    ----------
    shadow : Module or None
        The shadow; None where the guest itself is lent.
    """

    def __init__(self, module: nn.Module, selected: set[str], device: torch.device):
        self.module = module
        self.selected = selected
        self.device = device
        with lock_networks():
            self.shared_copy = make_weight_sharing_copy(module, selected, device)
        self._guests = {id(parameter) for parameter in module.parameters()}
        self._tried = False
        self._draws = False

    @contextlib.contextmanager
    def borrow(self) -> Iterator[nn.Module]:
        """The module to call; the first time the guest is lent too, in case it is reached."""
        with exact_evaluation(self.device), self._random_states():
            if self.shared_copy is not None and self._tried:
                yield self.shared_copy
                return
            self._refuse_half()
            selected = self.selected if self.shared_copy is None else None
            with (
                borrow_and_restore(self.module, selected),
                record_called_modules(self.module) as called,
            ):
                yield self.module if self.shared_copy is None else self.shared_copy
            self._tried = True
            if called:
                self.shared_copy = None

    def depends_on_original(self, outputs: Tensor) -> bool:
        """Give the shadow up where its outputs depend on the guest's own parameters."""
        if self.shared_copy is None or not _reaches(outputs, self._guests):
            return False
        self.shared_copy = None
        return True

    def _refuse_half(self) -> None:
        if self.shared_copy is None and is_half(self.module):
            raise UnsupportedNetworkError(
                "estimator is a half-precision network that cannot be copied, so that it cannot be"
                " evaluated in float32; allowed are float32 and float64: call .float() on it first."
            )

    @contextlib.contextmanager
    def _random_states(self) -> Iterator[None]:
        """Put back where the network draws: other threads draw from the same generator."""
        if self._tried and not self._draws:
            yield
            return
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            before = torch.get_rng_state()
            yield
            self._draws |= self.device.type == "cuda" or not torch.equal(
                before, torch.get_rng_state()
            )


def lock_networks() -> contextlib.AbstractContextManager[bool]:
    """No guest is lent meanwhile."""
    return _lending


def is_half(module: nn.Module) -> bool:
    """Whether some parameters are in half precision."""
    return any(parameter.dtype in _HALF for parameter in module.parameters())


@contextlib.contextmanager
def borrow_and_restore(module: nn.Module, selected: set[str] | None) -> Iterator[nn.Module]:
    """The guest itself, in eval mode, put back as it was at the end.

    Only the ``selected`` parameters require a gradient; None leaves that as it is.
    """
    with _lending, contextlib.ExitStack() as restore:
        for part in module.modules():
            if isinstance(part, torch.jit.ScriptModule):
                restore.callback(setattr, part, "training", part.training)
            else:
                restore.callback(_restore_attributes, part, *_attributes(part))
            part.training = False
        for name, parameter in module.named_parameters():
            restore.callback(setattr, parameter, "grad", parameter.grad)
            parameter.grad = None
            _still_hooks(parameter, restore)
            if selected is not None:
                restore.callback(parameter.requires_grad_, parameter.requires_grad)
                parameter.requires_grad_(name in selected)
        yield module


def _still_hooks(parameter: nn.Parameter, restore: contextlib.ExitStack) -> None:
    """Hold back what acts on a gradient once it is there, such as an optimiser's step."""
    hooks: Any = parameter._post_accumulate_grad_hooks
    if hooks is not None:
        restore.callback(setattr, parameter, "_post_accumulate_grad_hooks", hooks)
        parameter._post_accumulate_grad_hooks = type(hooks)()


def _attributes(part: nn.Module) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A module's attributes, copies of its containers, and its buffers with their contents."""
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
    """The parts of a network that are called meanwhile."""
    called: list[nn.Module] = []
    handles = [
        part.register_forward_pre_hook(lambda part, args: called.append(part))
        for part in module.modules()
        if not isinstance(part, torch.jit.ScriptModule)
    ]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()


def _reaches(outputs: Tensor, guests: set[int]) -> bool:
    """Whether the graph of some outputs leads to parameters with these ids."""
    return any(id(getattr(node, "variable", None)) in guests for node in iterate_graph(outputs))


def iterate_graph(outputs: Tensor) -> Iterator[Any]:
    """The nodes that some outputs come from."""
    seen, waiting = set(), [outputs.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting.extend(following for following, _ in node.next_functions)
