"""Conversion of fitted estimators to bytes and back, for other processes and other devices."""

from __future__ import annotations

import copyreg
import functools
import hashlib
import io
import pickle
import sys
import types
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import cloudpickle
import numpy as np
import torch
from sklearn.base import BaseEstimator

from ..exceptions import LoadedElsewhereWarning, warn
from .fingerprint import fingerprint_value
from .isolation import has_device
from .network import FEATURES, get_net_attributes, resolve_network, restore_net
from .object_state import copy_attributes

# Packages whose versions results depend on.
_PACKAGES = ("sknetsim", "torch", "scikit-learn", "skorch", "numpy")

# Keys of a packed state: the bytes, and the digests of all parts. All others are names of arrays.
_PACKED, _DIGESTS = "_packed", "_digests"

# Number of elements of an array that are digested at a time.
_DIGESTED_ELEMENTS = 2**20


class _Pickler(cloudpickle.Pickler):
    """Pickler that stores classes of scripts by value, even if a skorch net contains them."""

    def reducer_override(self, value: Any) -> Any:
        attributes = get_net_attributes(value)
        if attributes is None:
            # The tokenizers of skorch delete an attribute of their own when they are pickled.
            reduced = super().reducer_override(value)
            if reduced is NotImplemented and isinstance(value, BaseEstimator):
                return copy_attributes(value).__reduce_ex__(pickle.HIGHEST_PROTOCOL)
            return reduced
        new = copyreg.__newobj__  # type: ignore[attr-defined]
        return new, (type(value),), attributes, None, None, restore_net


def dumps(state: dict[str, Any]) -> bytes:
    """Return the bytes of a state, which contain each tensor once."""
    file = io.BytesIO()
    by_value = types.SimpleNamespace(__name__="by_value", Pickler=_Pickler)
    torch.save(state, file, by_value, pickle.HIGHEST_PROTOCOL)
    return file.getvalue()


def loads(data: Any) -> dict[str, Any]:
    """Return the state; tensors of a missing device are loaded on the CPU."""
    state: dict[str, Any] = torch.load(
        io.BytesIO(data), map_location=_choose_location, weights_only=False
    )
    return state


def pack(state: dict[str, Any]) -> dict[str, Any]:
    """Return the arrays of a state, which joblib can map to memory, and all else as bytes.

    The digests of the bytes and of each array are added.
    """
    arrays = {
        name: value
        for name, value in state.items()
        if isinstance(value, np.ndarray) and not value.dtype.hasobject
    }
    others = {name: value for name, value in state.items() if name not in arrays}
    parts: dict[str, Any] = {_PACKED: dumps(others), **arrays}
    return {_DIGESTS: {name: _digest(name, part) for name, part in parts.items()}, **parts}


def unpack(packed: dict[str, Any], owner: str) -> dict[str, Any]:
    """Return the state that was packed, after its bytes and arrays were verified.

    An array that is mapped to memory is not verified, because this would read it whole. A state
    without digests, of an earlier version, is not verified, either.

    Parameters
    ----------
    packed : dict of str to object
        Result of `pack`.
    owner : str
        Name of the object with this state, for the message.

    Raises
    ------
    UnpicklingError
        If a part is damaged.
    """
    digests = packed.get(_DIGESTS)
    parts = {name: part for name, part in packed.items() if name != _DIGESTS}
    if digests is not None:
        _check_digests(parts, digests, owner)
    return {**loads(parts.pop(_PACKED)), **parts}


def _check_digests(parts: dict[str, Any], digests: dict[str, str], owner: str) -> None:
    """Raise an error if bytes or an array in memory differ from those that were packed."""
    verified = {name: part for name, part in parts.items() if not isinstance(part, np.memmap)}
    damaged = [name for name, part in verified.items() if _digest(name, part) != digests.get(name)]
    damaged += digests.keys() - parts.keys()
    if damaged:
        raise pickle.UnpicklingError(
            f"The file of a {owner} must be as it was written; got damaged bytes in"
            f" {', '.join(map(repr, damaged))}. Load another copy of the file, or create it again."
        )


def _digest(name: str, part: bytes | np.ndarray) -> str:
    """Return a digest of a name, and of bytes or an array: its dtype, shape and values."""
    digest = hashlib.blake2b(name.encode(), digest_size=16)
    if not isinstance(part, np.ndarray):
        digest.update(part)
        return digest.hexdigest()
    dtype = part.dtype.newbyteorder("<")
    digest.update(f"{dtype.str} {part.shape}".encode())
    for block in np.nditer(
        [part],
        ["external_loop", "buffered", "zerosize_ok"],
        op_dtypes=[dtype],
        casting="equiv",
        order="C",
        buffersize=_DIGESTED_ELEMENTS,
    ):
        digest.update(np.asarray(block).tobytes())
    return digest.hexdigest()


class Verified:
    """Value of a file, whose bytes are verified when it is loaded.

    Parameters
    ----------
    value : object
        The value.
    """

    def __init__(self, value: Any):
        self.value = value

    def __getstate__(self) -> dict[str, Any]:
        return pack({"value": self.value})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.value = unpack(state, "cached result")["value"]


def _choose_location(storage: Any, location: str) -> Any:
    """Return None to load a storage on its device, or the storage itself, which is on the CPU."""
    return None if has_device(location) else storage


def describe_origin(estimator: Any) -> dict[str, str]:
    """Return a description of the network, and the versions of Python and the packages."""
    return {"network": _describe_network(estimator), **get_versions()}


def _describe_network(estimator: Any) -> str:
    """Return the class, the number of parameters and the fingerprint of a network."""
    if isinstance(estimator, str):
        return FEATURES
    module = resolve_network(estimator).module
    count = sum(parameter.numel() for parameter in module.parameters())
    name = type(module).__name__
    return f"{name} of {count:,} parameters, {fingerprint_value(module)}"


@functools.cache
def get_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    python = ".".join(map(str, sys.version_info[:2]))
    return {"python": python, **{package: _version(package) for package in _PACKAGES}}


def _version(package: str) -> str:
    """Return the version of a package, or "not installed"."""
    try:
        # Builds for other devices (2.13.0+cpu) have the same version.
        return version(package).split("+")[0]
    except PackageNotFoundError:
        return "not installed"


def warn_if_different(name: str, before: dict[str, str], now: dict[str, str]) -> None:
    """Warn if a loaded estimator was fitted with another network or other versions.

    Parameters
    ----------
    name : str
        Name of the estimator's class.
    before, now : dict of str to str
        Origin at fit and at loading, see `describe_origin`.
    """
    changed = [key for key in before if before[key] != now.get(key)]
    if changed:
        changes = "; ".join(f"{key} was {before[key]}, is {now.get(key)}" for key in changed)
        warn(
            f"This {name} was fitted with another network or with other versions ({changes})."
            " Results may differ from those before. Fit it again to be sure.",
            LoadedElsewhereWarning,
        )
