"""Parts of a pass in joblib's workers, whichever its backend has: processes, threads, a cluster."""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import joblib
import numpy as np
import torch
from sklearn import config_context, get_config
from sklearn.utils import gen_even_slices
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from .._networks.persistence import dumps, loads
from .._networks.samples import Samples, is_pickled_by_path, map_arrays
from ..exceptions import collect_warnings, warn
from .zero_gradients import ZeroGradients, collect_zero_gradients, report_zero_gradients

# Tasks for each worker: more would make each of them pay again for what a pass starts with.
_TASKS = 4

# How joblib, its processes and Dask say that a worker has died; so many deaths are no accident.
_LOST = ("TerminatedWorkerError", "FutureCancelledError", "CancelledError", "KilledWorker")

_LOSSES = 3

_KEPT_SECONDS = 60.0


@dataclass(frozen=True)
class Report:
    """What a task has found.

    Attributes
    ----------
    result : any
        What its function gave.
    zeros : ZeroGradients
        Samples without a gradient in its passes.
    messages : dict of str to type
        Its warnings.
    """

    result: Any
    zeros: ZeroGradients
    messages: dict[str, type[Warning]]


def count_workers(source: Any) -> int:
    """How many are to be used for passes over a source's rows."""
    return int(joblib.effective_n_jobs(source.n_jobs))


def split_evenly(samples: int, count: int) -> list[slice]:
    """So many slices of nearly equal length, or fewer.

    None has one row where there are more: it would not show whether the network mixes samples.
    """
    return list(gen_even_slices(samples, max(1, min(count, samples // 2))))


def relative_slice(part: slice, whole: slice) -> slice:
    """Where a part is within a slice that it lies in."""
    return slice(part.start - whole.start, part.stop - whole.start)


def map_samples(
    function: Callable[..., Any],
    source: Any,
    X: Samples,
    aligned: Sequence[Any] = (),
    fixed: Sequence[Any] = (),
    verbose: Any = 0,
    pieces: list[slice] | None = None,
) -> Generator[tuple[slice, Any], None, None]:
    """A function of (source, rows, *their part of what is aligned, *fixed, verbose), in order.

    Of all rows at once where there is one worker, else piece by piece in the workers.
    """
    jobs = count_workers(source)
    parts = Parts(X, jobs > 1)
    if pieces is None:
        pieces = split_evenly(len(X), 1 if jobs == 1 else _TASKS * jobs)
    shown = verbose if len(pieces) == 1 else 0
    if len(pieces) > 1:
        source.check_rows_independent(X)
    tasks = (
        (parts.part(piece), *(slice_labels(rows, piece) for rows in aligned)) for piece in pieces
    )
    shared = (function, source, parts.shared, (*fixed, shown))
    zeros, total = ZeroGradients(), sum(piece.stop - piece.start for piece in pieces)
    bar = tqdm(total=total, disable=not verbose or bool(shown), unit="sample")
    with bar, contextlib.closing(run_tasks(_on_rows, shared, tasks, jobs)) as reports:
        for piece, report in zip(pieces, reports, strict=True):
            zeros.add(report.zeros)
            yield piece, report.result
            bar.update(piece.stop - piece.start)
    report_zero_gradients(zeros)


def _on_rows(
    function: Callable[..., Any], source: Any, X: Samples, fixed: Any, part: Any, *aligned: Any
) -> Any:
    return function(source, slice_part(part, X), *aligned, *fixed)


class Parts:
    """Parts of X: rows themselves, or where they are in a Dataset.

    A Dataset may share what it holds between its items, and is sent once.

    Parameters
    ----------
    X : array-like or Dataset
        The rows.
    sent : bool
        Whether parts are sent to workers.
    """

    def __init__(self, X: Samples, sent: bool):
        self._X = X
        self._sent = sent
        self.shared = X if isinstance(X.data, Dataset) else None

    def part(self, rows: slice) -> Any:
        """A part; all rows as they are where they stay here."""
        if self.shared is not None:
            return rows
        if rows == slice(0, len(self._X)) and (not self._sent or is_pickled_by_path(self._X.data)):
            return self._X
        part = self._X.part(rows)
        return Samples(map_arrays(_sendable, part.data)) if self._sent else part


def _sendable(array: Any) -> Any:
    """A pickle of a part of a tensor would hold all of it."""
    return array.detach().cpu().clone() if isinstance(array, Tensor) else array


def slice_labels(y: Any, rows: slice) -> Any:
    """The labels of a part, where there are any."""
    part = None if y is None else y[rows]
    return part.clone() if isinstance(part, Tensor) else part


def slice_part(part: Any, X: Samples) -> Any:
    """The rows of a part, and of the Dataset if it is one of a Dataset."""
    if not isinstance(part, slice):
        return part
    return X if part == slice(0, len(X)) else X.part(part)


def run_tasks(
    function: Callable[..., Any],
    shared: tuple[Any, ...],
    tasks: Iterable[tuple[Any, ...]],
    jobs: int,
) -> Generator[Report, None, None]:
    """A function of what is shared and of each task, in order.

    What is shared is sent to each worker once, not with each task.
    """
    if jobs > 1:
        yield from _run_by_workers(function, shared, tasks, jobs)
        return
    for task in tasks:
        with collect_zero_gradients() as zeros:
            result = function(*shared, *task)
        yield Report(result, zeros, {})


def _run_by_workers(
    function: Callable[..., Any],
    shared: tuple[Any, ...],
    tasks: Iterable[tuple[Any, ...]],
    jobs: int,
) -> Iterator[Report]:
    sent = np.frombuffer(_packed(shared), np.uint8)
    settings = get_config()
    settings["working_memory"] /= jobs
    work = partial(_work, function, os.urandom(16), settings)
    seen: set[str] = set()
    with _threads_divided(jobs):
        for report in _reports(work, sent, tasks, jobs):
            for message, category in report.messages.items():
                if message not in seen:
                    warn(message, category)
                seen.add(message)
            yield report


def _reports(
    work: Callable[..., Report], sent: np.ndarray, tasks: Iterable[Any], jobs: int
) -> Iterator[Report]:
    """In order, some tasks ahead; a worker that dies costs what is not reported yet."""
    ahead, lost = iter(tasks), 0
    while waiting := deque(itertools.islice(ahead, _TASKS * jobs)):
        while waiting:
            calls = [joblib.delayed(work)(sent, task) for task in waiting]
            try:
                for report in _joblib(jobs)(calls):
                    waiting.popleft()
                    yield report
            except Exception as error:
                lost += 1
                if type(error).__name__ not in _LOST or lost > _LOSSES:
                    raise


def _joblib(jobs: int) -> joblib.Parallel:
    """Results as they come, where the backend can do that (Ray's cannot)."""
    try:
        return joblib.Parallel(jobs, return_as="generator")
    except ValueError:
        return joblib.Parallel(jobs)


def _packed(shared: tuple[Any, ...]) -> bytes:
    try:
        return dumps({"shared": shared})
    except (AttributeError, RuntimeError, TypeError, ValueError, pickle.PicklingError) as error:
        raise TypeError(
            "n_jobs asks for workers, and the network, or the Dataset that X is, cannot be sent to"
            f" them ({error}); allowed is what can be pickled: set n_jobs=1."
        ) from error


def _work(
    function: Callable[..., Any],
    key: bytes,
    settings: dict[str, Any],
    sent: np.ndarray,
    task: tuple[Any, ...],
) -> Report:
    """A task, with the settings of who sent it; what is shared is kept for the next one."""
    with (
        _shared_cache.shared(key, sent) as shared,
        config_context(**settings),
        collect_warnings() as messages,
        collect_zero_gradients() as zeros,
    ):
        result = function(*shared, *task)
    return Report(result, zeros, messages)


class _SharedCache:
    """What a worker's threads were sent last; forgotten where they have not used it for long."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[bytes, Any]] = {}
        self._timers: dict[int, threading.Timer] = {}

    def __len__(self) -> int:
        return len(self._found)

    @contextlib.contextmanager
    def shared(self, key: bytes, sent: np.ndarray) -> Iterator[Any]:
        """What was sent under a key, unpacked once."""
        thread = threading.get_ident()
        if thread in self._timers:
            self._timers.pop(thread).cancel()
        known = self._found.get(thread)
        if known is None or known[0] != key:
            known = self._found[thread] = key, loads(sent)["shared"]
        try:
            yield known[1]
        finally:
            timer = threading.Timer(_KEPT_SECONDS, self._found.pop, (thread, None))
            timer.daemon = True
            self._timers[thread] = timer
            timer.start()


_shared_cache = _SharedCache()


@contextlib.contextmanager
def _threads_divided(jobs: int) -> Iterator[None]:
    """What new threads of this process go by; joblib sees to that of other processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // jobs))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
