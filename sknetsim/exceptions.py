"""Errors and warnings."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from contextvars import ContextVar

import torch

# Whose lines a warning does not point to: they call one another on a user's behalf.
_INSIDE = ("sknetsim", "sklearn", "joblib", "torch")


class UnsupportedNetworkError(ValueError):
    """The network cannot be studied as it is; the message says why and what to do.

    Raised for a network whose outputs depend on the other samples of the batch (batch
    statistics, ``x.mean(0)``), that has nothing to differentiate (all parameters frozen),
    that returns something other than one tensor with a row per sample, or whose forward
    pass changes its own weights.
    """


class OutputTooLargeError(ValueError):
    """The outputs asked for need more memory for one sample than the budget allows."""


class FeatureStoreError(ValueError):
    """A store of features is not what it is taken for: another one, unfinished, or damaged."""


class ZeroGradientWarning(UserWarning):
    """Some samples have a zero gradient, or no activity: their similarity with all others is 0."""


class NoNeighborsWarning(UserWarning):
    """Some samples have no similar one, or weights that cancel: they get the mean of all labels."""


class FewerComponentsWarning(UserWarning):
    """There are fewer features, or more error of their products, than was asked for."""


class LoadedElsewhereWarning(UserWarning):
    """A loaded estimator was fitted with another network or other versions than there are now."""


class SoftmaxOutputWarning(UserWarning):
    """The compared outputs are probabilities; their logits should be compared instead."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error is torch's for a full device or a full machine."""
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "allocate memory" in str(error)


#: Where warnings are put instead; of a thread or task of its own.
_collected: ContextVar[dict[str, type[Warning]] | None] = ContextVar("warnings", default=None)


@contextlib.contextmanager
def collect_warnings() -> Iterator[dict[str, type[Warning]]]:
    """Messages and categories, for someone else to warn of."""
    found: dict[str, type[Warning]] = {}
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the line outside that has led here."""
    collected = _collected.get()
    if collected is not None:
        collected[message] = category
        return
    level, frame = 2, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in _INSIDE:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
