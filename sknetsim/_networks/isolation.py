"""Isolated evaluation of the user's network, which is the same before and after each call.

The network is evaluated on a copy of its modules that shares its weights. If the modules cannot be
copied, or the copy still uses the original network through a closure, the original network is
borrowed instead: it is evaluated under a lock, and its state is restored afterwards.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .._kernels.precision import HALF, SinglePrecision, exact_evaluation
from ..exceptions import UnsupportedNetworkError
from .sharing import consists_of_torch_layers, make_weight_sharing_copy
from .state import (
    HOOKS,
    ModuleState,
    Writes,
    is_inside_vmap,
    lock_networks,
    restore_memory,
    restore_random_states,
)


def check_device(device: Any) -> torch.device:
    """Return a device of this machine, with its index; raise if torch cannot use it."""
    try:
        tensor = torch.zeros(1, device=device)
        tensor.cpu()  # Fails on the meta device, whose tensors have no data.
        return tensor.device
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise ValueError(
            "`device` must be None (the device of the network), 'cpu' or another device of this"
            f" machine; got {device!r}, which torch cannot use ({str(error).splitlines()[0]}). Use"
            " device=None."
        ) from error


def has_device(device: Any) -> bool:
    """Return whether this machine has a device."""
    with contextlib.suppress(ValueError):
        check_device(device)
        return True
    return False


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
        self._names = dict(module.named_parameters()).keys()
        # The copy is set to eval mode, in which the network may make new layers.
        with lock_networks(), restore_random_states(device):
            self.shared_copy = make_weight_sharing_copy(module, selected, device)
        if self.shared_copy is not None:
            self._keep(self.shared_copy)
            self.require_gradients(selected)
        self._original_ids = {id(parameter) for parameter in module.parameters()}
        if self.shared_copy is not None:
            self._original_ids |= {id(tensor) for tensor, _ in self._others}
        self._was_evaluated = False
        self._is_random = False
        self._casts = SinglePrecision() if is_half(module) else contextlib.nullcontext()

    def _keep(self, module: nn.Module) -> None:
        """Record the state of the evaluated module, which is restored after each call."""
        self._evaluated = module
        self._is_plain = consists_of_torch_layers(module)
        self._state = ModuleState(module, left_out=HOOKS)
        if changed := sorted(dict(module.named_parameters()).keys() ^ self._names):
            raise UnsupportedNetworkError(
                "`estimator` must have the same parameters in train mode and in eval mode; got a"
                f" {type(self.module).__name__} whose eval() adds or removes {changed[0]!r}. Call"
                " its eval() first."
            )
        self._parameters = list(module.parameters())
        self._memory = [parameter.data for parameter in self._parameters]
        parameters = {id(parameter) for parameter in self._parameters}
        self._others = [(t, t.data) for t in self._state.tensors if id(t) not in parameters]

    def require_gradients(self, selected: set[str]) -> None:
        """Let only the ``selected`` parameters of the evaluated module require a gradient."""
        self.selected = selected
        module = self.module if self.shared_copy is None else self.shared_copy
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in selected)

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
            with (
                borrow_and_restore(self.module, None if self.shared_copy else self.selected),
                record_called_modules(self.module) as called,
            ):
                if self.shared_copy is None:
                    self._keep(self.module)
                yield self.module if self.shared_copy is None else self.shared_copy
            self._was_evaluated = True
            if called:
                self.shared_copy = None

    def call(self, call: Callable[[], Any]) -> Any:
        """Return the result of calling the borrowed module, and restore what the call changes."""
        guard = contextlib.nullcontext() if self._is_plain else self.restore_weights()
        # The forward pass may disable gradients and not enable them again.
        with guard, self._casts, torch.enable_grad():
            return call()

    @contextlib.contextmanager
    def restore_weights(self) -> Iterator[None]:
        """Restore what code of the network changes inside the block; raise if it changes weights.

        Gradients that it has accumulated in the parameters are removed.
        """
        writes = Writes([*self._parameters, *(tensor for tensor, _ in self._others)])
        try:
            # Inside vmap, recording is slow. The network has been called outside of it before.
            with contextlib.nullcontext() if is_inside_vmap() else writes:
                yield
        finally:
            changes_weights = self._restore(writes)
        if changes_weights:
            raise _make_writes_error(self.module)

    def _restore(self, writes: Writes) -> bool:
        """Restore the state after a call, and return whether it has changed the parameters.

        The graph of the outputs may contain a buffer that the call has written into. A tensor with
        the former values takes its place in the module.
        """
        parameters = {id(parameter) for parameter in self._parameters}
        changed = self._state.has_changed()
        if changed:
            changed = {id(p) for p in self._evaluated.parameters()} != parameters
            self._state.restore()
        for tensor, contents in writes.saved:
            if id(tensor) in parameters:
                tensor.data.copy_(contents)
                changed = True
            else:
                self._replace(tensor, contents)
        for tensor, data in list(self._others):
            if tensor.data_ptr() != data.data_ptr():
                self._replace(tensor, data)
        for parameter, data in zip(self._parameters, self._memory, strict=True):
            changed |= restore_memory(parameter, data)
            parameter.grad = None
        return changed

    def _replace(self, tensor: Tensor, other: Tensor) -> None:
        """Put another tensor in the place of a buffer or plain tensor of the evaluated module."""
        other.requires_grad_(tensor.requires_grad and tensor.is_leaf)
        self._state.replace(tensor, other)
        self._others = [(t, d) if t is not tensor else (other, other.data) for t, d in self._others]

    def depends_on_original(self, parameters: AbstractSet[int]) -> bool:
        """Return whether some of the parameters, given by their ids, are of the original network.

        If outputs of the copy depend on such parameters, the copy is dropped, and the original
        network is evaluated from then on.
        """
        if self.shared_copy is None or not self._original_ids & parameters:
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
        with restore_random_states(self.device) as has_drawn:
            yield
            self._is_random |= has_drawn()


@contextlib.contextmanager
def refuse_writes(module: nn.Module) -> Iterator[None]:
    """Restore parameters that code inside the block writes into, and raise an error."""
    writes = Writes(module.parameters())
    try:
        with writes:
            yield
    finally:
        writes.restore()
    if writes.saved:
        raise _make_writes_error(module)


def _make_writes_error(module: nn.Module) -> UnsupportedNetworkError:
    return UnsupportedNetworkError(
        "`estimator` must not change its own weights when it is evaluated; got a"
        f" {type(module).__name__} that does. Its weights have been restored. Change them before,"
        " or compute other weights from them, for example by torch.nn.utils.parametrize."
    )


def is_half(module: nn.Module) -> bool:
    """Return whether some parameters are in half precision."""
    return any(parameter.dtype in HALF for parameter in module.parameters())


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


@contextlib.contextmanager
def borrow_and_restore(module: nn.Module, selected: set[str] | None) -> Iterator[nn.Module]:
    """Set a network to eval mode inside the block, and restore its state at the end.

    Inside the block, only the ``selected`` parameters require a gradient. None changes nothing in
    this respect, and sets the modes without calling the network's own ``eval``, which may change
    weights. The restored state consists of the modes, attributes, hooks, contents of buffers and
    plain tensors, memory of the parameters, gradients, and hooks of parameters.
    """
    with lock_networks(), contextlib.ExitStack() as restore:
        state = ModuleState(module)
        parameters = {id(parameter) for parameter in module.parameters()}
        for tensor in state.tensors:
            if id(tensor) not in parameters:
                restore.callback(_restore_contents, tensor, tensor.data, tensor.detach().clone())
        restore.callback(state.restore)
        for part in module.modules():
            if isinstance(part, torch.jit.ScriptModule):
                restore.callback(setattr, part, "training", part.training)
        for name, parameter in module.named_parameters():
            restore.callback(setattr, parameter, "grad", parameter.grad)
            parameter.grad = None
            _disable_hooks(parameter, restore)
            restore.callback(restore_memory, parameter, parameter.data)
            if selected is not None:
                restore.callback(parameter.requires_grad_, parameter.requires_grad)
                parameter.requires_grad_(name in selected)
        if selected is None:
            for part in module.modules():
                part.training = False
        else:
            writes = Writes(module.parameters())
            restore.callback(writes.restore)
            with writes:
                module.eval()
        yield module


def _restore_contents(tensor: Tensor, data: Tensor, contents: Tensor) -> None:
    """Restore the memory of a tensor, and its contents if they have changed."""
    restore_memory(tensor, data)
    if not torch.equal(tensor, contents):
        tensor.data.copy_(contents)


def _disable_hooks(parameter: nn.Parameter, restore: contextlib.ExitStack) -> None:
    """Disable the hooks that change a gradient, or run once it is accumulated (an optimiser)."""
    restore.callback(setattr, parameter, "_backward_hooks", parameter._backward_hooks)
    parameter._backward_hooks = None
    hooks: Any = parameter._post_accumulate_grad_hooks
    if hooks is not None:
        restore.callback(setattr, parameter, "_post_accumulate_grad_hooks", hooks)
        parameter._post_accumulate_grad_hooks = type(hooks)()
