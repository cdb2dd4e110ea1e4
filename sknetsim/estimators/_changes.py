"""Detection of changes of a network, and of the steps before it, after `fit`.

Sums, landmarks and features of the fitted samples are computed in `fit`. They must not be combined
with gradients of the same network after further training.
"""

from __future__ import annotations

import functools
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from .._gradients.base_engine import BaseEngine
from .._networks.batches import find_tensors
from .._networks.fingerprint import fingerprint_value
from .._networks.network import list_steps, resolve_network
from .._networks.persistence import get_versions
from .._networks.samples import Samples
from .._networks.state import lock_networks
from ..exceptions import ChangedNetworkError

# Integers of the size of each element: the words that are summed.
_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.int64}

# Number of sums of a large tensor. It is prime, so that rows that change places are noticed.
_SUMS = 1021

# Larger tensors are summed on their own, because a copy of them would take memory and time.
_LARGE = 2**14

# Attributes that every module has. They contain tensors and modules, which are compared separately,
# and hooks, of which only some are compared.
_BOOKKEEPING = frozenset(vars(nn.Module()))

# Hooks that may change activations and gradients.
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")

# Types of values that are compared by ``==``.
_PLAIN = frozenset({str, bytes, int, float, complex, bool, type(None), type, torch.dtype})

# Longer containers, such as vocabularies, are compared by identity.
_SEARCHED = 100

# Containers and objects inside each other, beyond which values are compared by identity.
_DEPTH = 6


class FittedNetwork:
    """Contents of a network in `fit`, with which its later contents are compared.

    The parameters and buffers are digested in one pass over their memory, which takes less time
    than an evaluation of the network. Everything else that belongs to a network (attributes, hooks,
    types of its layers) may change without an effect, for example a counter or a hook that records
    activations. If something of that kind has changed, the outputs for one sample are compared.

    Parameters
    ----------
    fitted : BaseSimilarity
        The estimator, with its trained network.
    source : BaseEngine
        Engine of the network.
    """

    def __init__(self, fitted: Any, source: BaseEngine):
        module, surroundings = source.network.module, _list_surroundings(fitted, source)
        self._compared = _list_compared(fitted, source)
        with lock_networks():
            self._contents = digest_tensors(module)
            self._attributes: Any = _list_attributes(module)
        self._surroundings = fingerprint_value(surroundings)
        self._parts: Any = _list_parts(surroundings)
        self._versions = get_versions()
        self._sample: Samples | None = None
        self._outputs: list[Tensor] = []

    @classmethod
    def of(cls, fitted: Any, source: Any) -> FittedNetwork | None:
        """Return the contents of the network, or None for features, which have no network."""
        return cls(fitted, source) if isinstance(source, BaseEngine) else None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without identities of objects, which a copy does not share."""
        return vars(self) | {"_attributes": None, "_parts": None}

    def record_outputs(self, source: Any, samples: Samples) -> None:
        """Evaluate the network on the first sample, to compare later outputs with."""
        self._sample = samples.select([0])
        self._outputs = list(_iterate_outputs(source, self._sample))

    def has_same_contents(self, module: nn.Module) -> bool:
        """Return whether all parameters and buffers are as in `fit`."""
        with lock_networks():
            return digest_tensors(module) == self._contents

    def check(self, fitted: Any, source: Any) -> None:
        """Raise an error if the network, or what is compared of it, has changed."""
        change = self._find_change(fitted, source)
        if change is not None:
            raise ChangedNetworkError(
                "`estimator` must be as it was in fit, because its gradients are compared with"
                f" those from fit; got a network that has changed since fit: {change}. Call fit"
                " again, or fit with a copy of the network: copy.deepcopy(net)."
            )
        self.check_compared(fitted, source)

    def check_compared(self, fitted: Any, source: Any) -> None:
        """Raise an error if other outputs, or gradients of other parameters, are compared."""
        compared = _list_compared(fitted, source)
        # The fingerprint of a function contains its code, which other versions of Python alter.
        is_comparable = self._versions == get_versions() or not callable(
            getattr(fitted, "output", None)
        )
        for name, before in self._compared.items():
            if compared[name] != before and (is_comparable or name != "output"):
                cause = f"`{name}`"
                if name == "parameters":
                    cause += ", or requires_grad of a parameter of the network,"
                raise ChangedNetworkError(
                    f"`{name}` must select the gradients that it selected in fit; got others,"
                    f" because {cause} has changed since fit. Call fit again."
                )

    def _find_change(self, fitted: Any, source: BaseEngine) -> str | None:
        """Return the name of what has changed, or None.

        What differs without an effect is remembered, so that it is not examined again.
        """
        module, surroundings = source.network.module, _list_surroundings(fitted, source)
        if not self.has_same_contents(module):
            return "other parameters or buffers"
        parts, attributes = _list_parts(surroundings), _list_attributes(module)
        if parts != self._parts:
            # The fingerprint contains code, which differs between versions of Python.
            is_comparable = self._versions == get_versions()
            if is_comparable and fingerprint_value(surroundings) != self._surroundings:
                return "another criterion, or other steps before the network"
            self._parts = parts
        if attributes != self._attributes:
            if not self._has_same_outputs(source):
                return "other layers, attributes or hooks"
            self._attributes = attributes
        return None

    def _has_same_outputs(self, source: BaseEngine) -> bool:
        """Return whether the outputs for the first fitted sample are as in `fit`."""
        assert self._sample is not None
        outputs = list(_iterate_outputs(source, self._sample))
        return len(outputs) == len(self._outputs) and all(
            now.shape == before.shape and _is_close(now, before)
            for now, before in zip(outputs, self._outputs, strict=True)
        )


def refuse_changes(fit: Callable[..., Any]) -> Callable[..., Any]:
    """Return a `fit` method that raises an error if the network changes while it runs.

    The estimator is then not fitted.
    """

    @functools.wraps(fit)
    def checked_fit(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = vars(self).get("_fitted_network")
        try:
            result = fit(self, *args, **kwargs)
        except Exception as error:
            # The change may be the cause of the error, for example of gradients that are not equal.
            _check_fit(self, before, error)
            raise
        _check_fit(self, before)
        return result

    return checked_fit


def _check_fit(fitted: Any, before: FittedNetwork | None, cause: Exception | None = None) -> None:
    """Raise an error if a network has changed since its contents were recorded in this `fit`."""
    network = vars(fitted).get("_fitted_network")
    if network in (None, before):
        return
    if network.has_same_contents(resolve_network(fitted.estimator_).module):
        return
    for name in vars(fitted).keys() - fitted.get_params(deep=False).keys():
        delattr(fitted, name)
    raise ChangedNetworkError(
        "`estimator` must not change while fit runs; got a network whose parameters or buffers have"
        " changed meanwhile, for example in another thread. Train it before fit, or fit with a copy"
        " of the network: copy.deepcopy(net)."
    ) from cause


def _list_compared(fitted: Any, source: BaseEngine) -> dict[str, Any]:
    """Return what determines the gradients of a network, by the names of parameters."""
    output = getattr(fitted, "output", None)
    return {
        "output": fingerprint_value(output) if callable(output) else _list_parts(output),
        "input_shape": _list_parts(fitted.input_shape),
        "parameters": sorted(getattr(source, "selected", ())),
    }


def _list_surroundings(fitted: Any, source: BaseEngine) -> tuple[Any, ...]:
    """Return what belongs to a network besides its module: criterion, and steps before it.

    The contents of the criterion matter only if the loss is differentiated; its type tells whether
    outputs are probabilities.
    """
    network, output = source.network, getattr(fitted, "output", None)
    takes_loss = getattr(fitted, "_takes_loss", isinstance(output, str) and output == "loss")
    criterion = network.criterion if takes_loss else type(network.criterion)
    return criterion, network.classifier, list_steps(fitted.estimator_)


def _iterate_outputs(source: BaseEngine, sample: Samples) -> Iterator[Tensor]:
    """Yield the tensors in the raw output of the network for one sample, on the CPU."""
    prepared = source.network.prepare(sample)
    with source.batch(prepared, slice(0, 1)) as (module, inputs, _):
        for tensor in find_tensors(source.forward(module, inputs)):
            yield tensor.detach().double().cpu()


def _is_close(now: Tensor, before: Tensor) -> bool:
    """Return whether two outputs are equal up to the rounding of another device or version."""
    scale = float(before.nan_to_num().abs().max()) if before.numel() else 0.0
    return torch.allclose(now, before, rtol=0.0, atol=1e-5 * scale, equal_nan=True)


def digest_tensors(module: nn.Module) -> tuple[Any, str]:
    """Return names, types and shapes of all parameters and buffers, and a digest of their contents.

    A large tensor is first reduced to sums of its words, modulo their size. A change of a single
    element always changes them.
    """
    layout: list[Any] = []
    groups: dict[Any, list[Tensor]] = defaultdict(list)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        layout.append((name, tensor.dtype, tensor.shape))
        if tensor.layout is not torch.strided:
            # A sparse tensor may be too large to be made dense.
            layout.append(fingerprint_value(tensor))
            continue
        flat = (tensor.int_repr() if tensor.is_quantized else tensor.detach()).reshape(-1)
        flat = _sum_columns(flat) if flat.numel() > _LARGE else flat
        groups[flat.dtype, flat.device].append(flat)
    digest = hashlib.blake2b(digest_size=16)
    for parts in groups.values():
        digest.update(_sum_columns(torch.cat(parts)).cpu().numpy().data)
    return tuple(layout), digest.hexdigest()


def _sum_columns(flat: Tensor) -> Tensor:
    """Return the bits of the elements as integers; if there are many, sums of them."""
    words = flat.view(_WORDS[flat.element_size()])
    if len(words) <= _LARGE:
        return words
    # sums[c] = sum_r words[r,c] modulo 2^bits; the words after the last whole row are kept.
    rows = len(words) // _SUMS
    matrix = words[: rows * _SUMS].view(rows, _SUMS)
    if words.device.type == "cpu":
        # numpy sums integers twenty times as fast as torch.
        sums = torch.from_numpy(matrix.numpy().sum(axis=0, dtype=matrix.numpy().dtype))
    else:
        sums = matrix.sum(dim=0, dtype=words.dtype)
    return torch.cat([sums, words[rows * _SUMS :]])


def _list_attributes(module: nn.Module) -> list[Any]:
    """Return the names and types of the layers of a network, their own attributes, and hooks."""
    attributes = []
    for name, part in module.named_modules():
        own = [(key, _list_parts(value)) for key, value in _iterate_own(part)]
        attributes.append((name, type(part), own))
    return attributes


def _iterate_own(part: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of a layer that not every module has, and hooks."""
    for key, value in vars(part).items():
        # Almost no layer has hooks.
        if key not in _BOOKKEEPING or (key in _HOOKS and value):
            yield key, value


class _Identity:
    """Object that equals only itself. It is kept, so that no other object gets its address."""

    def __init__(self, value: Any):
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other._value is self._value


def _list_parts(value: Any, depth: int = _DEPTH) -> Any:
    """Return the contents of a value in a form that can be compared by ``==``.

    Contents that would take long to compare are represented by their identity.
    """
    if type(value) in _PLAIN or isinstance(value, np.generic):
        return value
    if isinstance(value, Tensor):
        # Not kept, because an attribute may contain the activations of the last batch.
        return id(value), 0 if value.is_inference() else value._version
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return str(value.dtype), value.shape, hashlib.blake2b(value.tobytes()).digest()
    if depth == 0:
        return _Identity(value)
    if isinstance(value, list | tuple | dict) and len(value) <= _SEARCHED:
        items = [*value.items()] if isinstance(value, dict) else value
        return [type(value), *(_list_parts(part, depth - 1) for part in items)]
    if isinstance(value, nn.Module):
        return _list_attributes(value), digest_tensors(value)
    if isinstance(value, BaseEstimator):
        return type(value), _list_parts(vars(value), depth - 1)
    return _Identity(value)
