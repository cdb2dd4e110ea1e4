"""Errors and warnings."""

from __future__ import annotations

import contextlib
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from sklearn.exceptions import NotFittedError

# Packages whose lines a warning does not point to, because they call each other for the user.
_INTERNAL_PACKAGES = ("sknetsim", "sklearn", "joblib", "torch")

# Types of errors that a step of a Pipeline raises for bad input, besides ValueError.
_STEP_ERRORS = (TypeError, AttributeError, RuntimeError, OSError)


class UnsupportedNetworkError(ValueError):
    """Error raised if the gradients of a network cannot be compared.

    It is raised for a network whose outputs for a sample depend on the other samples of the batch
    (batch statistics, ``x.mean(0)``), that has no trainable parameter, that returns something other
    than one tensor with a row per sample, or whose forward pass changes its own weights. The
    message contains the reason and the remedy.
    """


class NonFiniteError(UnsupportedNetworkError):
    """Error raised if outputs or gradients of a network are NaN or infinite at some samples.

    Parameters
    ----------
    problem : str
        Beginning of the message.
    rows : list of int
        The samples, by their positions in a batch, or by their rows of X after `locate`.
    count : int
        Number of samples of the batch.
    cure : str
        End of the message.
    values : str
        What the first row contains, such as "contains NaN"; empty if unknown.
    name : str
        Name of the inputs that contain these values.
    """

    def __init__(
        self,
        problem: str,
        rows: list[int],
        count: int,
        cure: str,
        values: str = "",
        name: str = "X",
    ):
        super().__init__(problem, rows, count, cure, values, name)
        self.problem, self.rows, self.count, self.cure = problem, rows, count, cure
        self.values, self.name = values, name

    def __str__(self) -> str:
        where = f", where {self.name} {self.values}" if self.values else ""
        return (
            f"{self.problem} at {len(self.rows)} of {self.count} samples, first in row"
            f" {self.rows[0]}{where}. {self.cure}"
        )

    def locate(
        self, rows: Sequence[int], values: str | None = None, name: str | None = None
    ) -> NonFiniteError:
        """Return the error with rows for positions, and with other values or another name."""
        located = [int(rows[position]) for position in self.rows]
        values = self.values if values is None else values
        name = self.name if name is None else name
        return NonFiniteError(self.problem, located, self.count, self.cure, values, name)


@contextlib.contextmanager
def locate_rows(rows: Sequence[int], name: str | None = None) -> Iterator[None]:
    """Name the inputs, and their rows, in a `NonFiniteError` that is raised inside the block."""
    try:
        yield
    except NonFiniteError as error:
        raise error.locate(rows, name=name) from None


class ChangedNetworkError(ValueError):
    """Error raised if a network has changed since `fit`, or changes while `fit` runs.

    Estimators use the network itself, not a copy. If it is trained further after `fit`, its new
    gradients cannot be combined with sums, features or predictions that were computed in `fit`.
    Call `fit` again, or fit with ``copy.deepcopy(net)``.
    """


class OutputTooLargeError(ValueError):
    """Error raised if the requested outputs take too much memory or time for one sample.

    The memory is limited by the budget, and the time on a CPU by about 10 seconds.
    """


class FeatureStoreError(ValueError):
    """Error raised if a feature store is damaged, incomplete, or of another network or data set."""


class ZeroGradientWarning(UserWarning):
    """Warning that all gradients, or all compared activations, are zero at some samples.

    The similarity of these samples with every sample is 0.
    """


class DroppedOutputsWarning(UserWarning):
    """Warning that the similarity ignores some outputs at some samples.

    The gradients of these outputs are too short beside the longest one of the sample, or too close
    to combinations of the others, for the precision of the network: an eigenvalue of the
    self-kernel is at most ``10 d eps`` times the largest one, but larger than ``(5 eps)**2`` times
    the largest one and than rounding errors of float64. Smaller eigenvalues are taken for exact
    zeros, as of softmax outputs, and cause no warning.
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


class UntrainedNetworkWarning(UserWarning):
    """Warning that a skorch net is initialised, but was not trained for any epoch.

    The net is used with its present weights, and `fit` does not train it. A FrozenEstimator around
    the net says that these weights are the right ones, for example because they were loaded.
    """


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


@contextlib.contextmanager
def name_step(name: str, step: Any) -> Iterator[None]:
    """Name a step of a Pipeline in each error of bad input that it raises inside the block.

    The error keeps its type if that is one of `_STEP_ERRORS`, and else becomes a ValueError. The
    original error is its cause.

    Parameters
    ----------
    name : str
        Name of the step in its Pipeline.
    step : object
        The step.
    """
    try:
        yield
    except (NotFittedError, Warning):
        raise  # These do not depend on the input.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        kind = next((kind for kind in _STEP_ERRORS if isinstance(error, kind)), ValueError)
        reason = f"{type(error).__name__}: {error}".rstrip(". \n")
        raise kind(
            f"`X` must be accepted by the step {name!r} ({type(step).__name__}) of the Pipeline in"
            f" `estimator`; got its {reason}. Correct X, or let the step accept it."
        ) from error


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


#: Texts of the warnings of steps that the current call of an estimator has issued.
_shown: ContextVar[set[str] | None] = ContextVar("shown", default=None)


def start_call(known: Iterable[str] = ()) -> set[str]:
    """Begin a call of an estimator, in which `show_once` issues each warning once.

    Parameters
    ----------
    known : iterable of str
        Texts of warnings that are not issued.

    Returns
    -------
    shown : set of str
        The known texts; those of the warnings of the call are added.
    """
    shown = set(known)
    _shown.set(shown)
    return shown


@contextlib.contextmanager
def show_once() -> Iterator[None]:
    """Issue each warning of the block only once in a call of an estimator.

    The steps of a Pipeline transform samples more than once in a call, and predict does so once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Filters of warnings are shared by all threads, so only one of them may change them.
        return
    shown, caught = _shown.get(), list[warnings.WarningMessage]()
    try:
        with warnings.catch_warnings(record=True) as caught:
            yield
    finally:
        _shown.set(shown)  # A step may be an estimator of this package, which begins calls.
        for warning in caught:
            _issue(warning)


def _issue(warning: warnings.WarningMessage) -> None:
    """Issue a warning of a step again, unless the current call of an estimator has issued it."""
    text, category, shown = str(warning.message), warning.category, _shown.get()
    if shown is not None:
        if text in shown:
            return
        shown.add(text)
    collected = _collector.get()
    if collected is None:
        warnings.warn_explicit(warning.message, category, warning.filename, warning.lineno)
    else:
        collected[text] = category


def describe_integers(lowest: int, highest: int) -> str:
    """Return a description of the integers of a range, for an error message."""
    if lowest == highest:
        return str(lowest)
    return f"an integer between {lowest} and {highest}"


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
    if message in (_shown.get() or ()):
        return  # It is a warning of a step in another process.
    level, frame = 2, sys._getframe(1)
    while frame.f_back and _top_package(frame.f_globals) in _INTERNAL_PACKAGES:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _top_package(module_globals: dict[str, object]) -> str:
    return str(module_globals.get("__name__", "")).split(".")[0]


def describe_value(value: Any) -> str:
    """Return a string itself, or else the type of a value, for messages."""
    name = type(value).__name__
    article = "an" if name[:1] in "AEIOaeio" else "a"
    return repr(value) if isinstance(value, str | None) else f"{article} {name}"
