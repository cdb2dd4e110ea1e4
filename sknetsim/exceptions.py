"""Errors and warnings."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from contextvars import ContextVar

import torch

# Packages whose lines a warning does not point to, because they call each other for the user.
_INTERNAL_PACKAGES = ("sknetsim", "sklearn", "joblib", "torch")


class UnsupportedNetworkError(ValueError):
    """Error raised if the gradients of a network cannot be compared.

    It is raised for a network whose outputs for a sample depend on the other samples of the batch
    (batch statistics, ``x.mean(0)``), that has no trainable parameter, that returns something other
    than one tensor with a row per sample, or whose forward pass changes its own weights. The
    message contains the reason and the remedy.
    """


class OutputTooLargeError(ValueError):
    """Error raised if the requested outputs need more memory for one sample than the budget."""


class FeatureStoreError(ValueError):
    """Error raised if a feature store is damaged, incomplete, or of another network or data set."""


class ZeroGradientWarning(UserWarning):
    """Warning that all gradients, or all compared activations, are zero at some samples.

    The similarity of these samples with every sample is 0.
    """


class NoNeighborsWarning(UserWarning):
    """Warning that some samples have no similar sample, or weights that cancel.

    Their label is the mean of all labels.
    """


class FewerComponentsWarning(UserWarning):
    """Warning that there are fewer features, or a larger kernel error, than requested."""


class LoadedElsewhereWarning(UserWarning):
    """Warning that an estimator was fitted with another network or with other package versions."""


class SoftmaxOutputWarning(UserWarning):
    """Warning that the compared outputs are probabilities; logits should be compared instead."""


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error means that the memory of the device or the machine is exhausted.

    Parameters
    ----------
    error : Exception
        Error raised by torch or Python.

    Returns
    -------
    is_out_of_memory : bool
        True for MemoryError, for torch.OutOfMemoryError, and for torch's errors of the CPU
        allocator, which have no class of their own.
    """
    classes = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, classes) or "allocate memory" in str(error)


#: Category of each message, for a thread or task that collects its warnings; None: it issues them.
_collector: ContextVar[dict[str, type[Warning]] | None] = ContextVar("warnings", default=None)


@contextlib.contextmanager
def collect_warnings() -> Iterator[dict[str, type[Warning]]]:
    """Collect the warnings of `warn` inside the block instead of issuing them.

    Yields
    ------
    collected : dict of str to type
        Category of each message.
    """
    collected: dict[str, type[Warning]] = {}
    token = _collector.set(collected)
    try:
        yield collected
    finally:
        _collector.reset(token)


def warn(message: str, category: type[Warning]) -> None:
    """Issue a warning that points to the line of the user's code.

    Parameters
    ----------
    message : str
        Text of the warning.
    category : type
        Class of the warning.
    """
    collected = _collector.get()
    if collected is not None:
        collected[message] = category
        return
    level, frame = 2, sys._getframe(1)
    while frame.f_back and _top_package(frame.f_globals) in _INTERNAL_PACKAGES:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _top_package(module_globals: dict[str, object]) -> str:
    return str(module_globals.get("__name__", "")).split(".")[0]
