"""Fitted estimators as bytes: networks by value where need be, for whatever device there is."""

from __future__ import annotations

import copyreg
import functools
import io
import pickle
import sys
import types
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import cloudpickle
import torch

from ..exceptions import LoadedElsewhereWarning, warn
from .fingerprint import fingerprint_value
from .isolation import has_device
from .network import FEATURES, get_net_attributes, resolve_network, restore_net

_PACKAGES = ("sknetsim", "torch", "scikit-learn", "skorch", "numpy")


class _Pickler(cloudpickle.Pickler):
    """Classes that only this program knows go by value; a skorch net would send them by name."""

    def reducer_override(self, value: Any) -> Any:
        attributes = get_net_attributes(value)
        if attributes is None:
            return super().reducer_override(value)
        new = copyreg.__newobj__  # type: ignore[attr-defined]
        return new, (type(value),), attributes, None, None, restore_net


def dumps(state: dict[str, Any]) -> bytes:
    """The bytes of a state, each tensor once."""
    file = io.BytesIO()
    by_value = types.SimpleNamespace(__name__="by_value", Pickler=_Pickler)
    torch.save(state, file, by_value, pickle.HIGHEST_PROTOCOL)
    return file.getvalue()


def loads(data: Any) -> dict[str, Any]:
    """The state; tensors of a device that is not here are put on the CPU."""
    state: dict[str, Any] = torch.load(
        io.BytesIO(data), map_location=_choose_location, weights_only=False
    )
    return state


def _choose_location(storage: Any, location: str) -> Any:
    """None leaves a storage where it was; the storage itself is on the CPU."""
    return None if has_device(location) else storage


def describe_origin(estimator: Any) -> dict[str, str]:
    """The network, by its class, size and bytes, and the versions of what it lives on."""
    return {"network": _described(estimator), **get_versions()}


def _described(estimator: Any) -> str:
    if isinstance(estimator, str):
        return FEATURES
    module = resolve_network(estimator).module
    count = sum(parameter.numel() for parameter in module.parameters())
    name = type(module).__name__
    return f"{name} of {count:,} parameters, {fingerprint_value(module)}"


@functools.cache
def get_versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    python = ".".join(map(str, sys.version_info[:2]))
    return {"python": python, **{package: _version(package) for package in _PACKAGES}}


def _version(package: str) -> str:
    try:
        # Builds for other devices (2.13.0+cpu) are of the same version.
        return version(package).split("+")[0]
    except PackageNotFoundError:
        return "not installed"


def warn_if_different(name: str, before: dict[str, str], now: dict[str, str]) -> None:
    """Say what a loaded estimator was made with, where that is not what is here."""
    differing = [key for key in before if before[key] != now.get(key)]
    if differing:
        told = "; ".join(f"{key} was {before[key]}, is {now.get(key)}" for key in differing)
        warn(
            f"this {name} was fitted with something else than there is now ({told}): results may"
            " differ; fit it again to be sure.",
            LoadedElsewhereWarning,
        )
