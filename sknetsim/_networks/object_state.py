"""State of objects, as their pickles contain it, in a form that is equal for equal objects."""

from __future__ import annotations

import json
import pickle
from typing import Any

from sklearn.base import BaseEstimator

# This package, whose modules may be renamed without a change of fingerprints.
OWN = "sknetsim"

# Version of the format. Increase it if an attribute of a class of this package changes its meaning.
_FORMAT = 1


def get_module_identity(module: str | None) -> Any:
    """Return the name of a module, or a constant for all modules of this package.

    If a module of this package is renamed, feature stores and caches on disk stay valid. The script
    that a process runs has one name, also in the processes that multiprocessing starts.
    """
    if get_package(module) == OWN:
        return (OWN, _FORMAT)
    return "__main__" if module == "__mp_main__" else module


def get_package(module: str | None) -> str:
    """Return the name of the package of a module."""
    return str(module).partition(".")[0]


def list_parts(value: Any) -> list[Any]:
    """Return the parts that a pickle would contain; none if the object cannot be pickled."""
    if isinstance(value, BaseEstimator):
        # skorch pickles its networks to bytes, which fails for a class without an importable name.
        is_tokenizer = type(value).__getstate__.__module__ == "skorch.hf"
        state = copy_attributes(value).__getstate__() if is_tokenizer else vars(value)
        return [type(value), state]
    try:
        reduced = value.__reduce_ex__(4)
    except (AttributeError, RuntimeError, TypeError, pickle.PicklingError):
        return []
    if isinstance(reduced, str):
        return [get_module_identity(getattr(value, "__module__", None)), reduced]
    parts = [_sort_json(part) for part in reduced[:3]]
    return [*parts, *(list(part) for part in reduced[3:5] if part is not None)]


def copy_attributes(estimator: BaseEstimator) -> Any:
    """Return another object with the attributes of an estimator.

    The tokenizers of skorch delete an attribute of their own when they are pickled.
    """
    copied = object.__new__(type(estimator))
    vars(copied).update(vars(estimator))
    return copied


def _sort_json(state: Any) -> Any:
    """Return a state that is JSON with sorted names, as the tokenizers of Hugging Face pickle it.

    The order of the names is random there.
    """
    if not isinstance(state, bytes) or not state.startswith(b"{"):
        return state
    try:
        return json.dumps(json.loads(state), sort_keys=True)
    except ValueError:
        return state
