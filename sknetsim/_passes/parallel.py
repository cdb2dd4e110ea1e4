"""Passes in parts by joblib's workers: processes, threads or a cluster, as its backend defines."""

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
from tqdm.auto import tqdm

from .._networks.persistence import dumps, loads
from .._networks.samples import Samples
from .._networks.samples.arrays import is_pickled_by_path
from ..exceptions import collect_warnings, warn
from .lost_gradients import LostGradients, collect_lost_gradients, report_lost_gradients

# Number of tasks per worker. Each task repeats the work at the start of a pass, so there are few.
_TASKS = 4

# Names of the errors by which joblib, loky and Dask report that a worker has died.
_LOST = ("TerminatedWorkerError", "FutureCancelledError", "CancelledError", "KilledWorker")

# Largest number of worker deaths after which tasks are repeated. The next one raises an error.
_LOSSES = 3

# Time after which a worker frees the shared arguments of its last task.
_KEPT_SECONDS = 60.0


@dataclass(frozen=True)
class Report:
    """Result of a task, with its lost gradients and warnings.

    Attributes
    ----------
    result : object
        Result of the function.
    lost_gradients : LostGradients
        Zero gradients and dropped outputs in the passes of the task.
    messages : dict of str to type
        Warnings of the task, by their messages.
    """

    result: Any
    lost_gradients: LostGradients
    messages: dict[str, type[Warning]]


def count_workers(source: Any) -> int:
    """Return the number of workers for passes over the samples of a source."""
    return int(joblib.effective_n_jobs(source.n_jobs))


def split_evenly(samples: int, count: int) -> list[slice]:
    """Return at most ``count`` slices of nearly equal length that cover all samples.

    Each slice has at least two samples if there are two, because a single sample would not show
    whether the network mixes samples.
    """
    return list(gen_even_slices(samples, max(1, min(count, samples // 2))))


def relative_slice(part: slice, whole: slice) -> slice:
    """Return the position of a slice relative to the start of a slice that contains it."""
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
    """Yield pieces of X and the results of a function of each piece, in order.

    Parameters
    ----------
    function : callable
        Function of ``(source, samples of the piece, *aligned, *fixed, verbose)``.
    source : Source
        The source of Jacobians.
    X : Samples
        The samples.
    aligned : sequence
        Arrays with one row per sample, or None; the function gets the rows of the piece's samples.
    fixed : sequence
        Arguments that are the same for each piece.
    verbose : int
        Whether to show a progress bar.
    pieces : list of slice or None
        The pieces; None for one piece with one worker, and for several per worker otherwise.
    """
    jobs = count_workers(source)
    parts = Parts(X, jobs > 1)
    if pieces is None:
        pieces = split_evenly(len(X), 1 if jobs == 1 else _TASKS * jobs)
    # The function shows the progress of a single piece, and this pass that of several pieces.
    piece_verbose = verbose if len(pieces) == 1 else 0
    if len(pieces) > 1:
        source.check_samples_independent(X)
    tasks = (
        (parts.part(piece), *(slice_labels(array, piece) for array in aligned)) for piece in pieces
    )
    shared = (function, source, parts.shared, (*fixed, piece_verbose))
    lost, total = LostGradients(), sum(piece.stop - piece.start for piece in pieces)
    bar = tqdm(total=total, disable=not verbose or bool(piece_verbose), unit="sample")
    with bar, contextlib.closing(run_tasks(_apply_to_part, shared, tasks, jobs)) as reports:
        for piece, report in zip(pieces, reports, strict=True):
            lost.add(report.lost_gradients)
            yield piece, report.result
            bar.update(piece.stop - piece.start)
    report_lost_gradients(lost)


def _apply_to_part(
    function: Callable[..., Any], source: Any, X: Samples, fixed: Any, part: Any, *aligned: Any
) -> Any:
    """Return the function of the samples of a part, which is one of `Parts.part`."""
    return function(source, resolve_part(part, X), *aligned, *fixed)


class Parts:
    """Parts of X for tasks: samples, or slices of a Dataset.

    The items of a Dataset may share memory, so each worker gets the whole Dataset once, and a task
    contains a slice of it.

    Parameters
    ----------
    X : Samples
        The samples.
    sent : bool
        Whether parts are sent to workers.

    Attributes
    ----------
    shared : Samples or None
        X if it is a Dataset, and None otherwise.
    """

    def __init__(self, X: Samples, sent: bool):
        self._X = X
        self._sent = sent
        self.shared = X if X.is_read_by_items else None

    def part(self, rows: slice) -> Any:
        """Return the samples of a slice, or the slice itself if X is a Dataset."""
        if self.shared is not None:
            return rows
        # X as a whole needs no copy if it stays in this process, or if its pickle is a path.
        if rows == slice(0, len(self._X)) and (not self._sent or is_pickled_by_path(self._X.data)):
            return self._X
        part = self._X.part(rows)
        return part.copy_tensors() if self._sent else part


def slice_labels(y: Any, rows: slice) -> Any:
    """Return the labels of a slice, or None if there are no labels."""
    part = None if y is None else y[rows]
    return part.clone() if isinstance(part, Tensor) else part


def resolve_part(part: Any, X: Samples) -> Any:
    """Return the samples of one of `Parts.part`; X is its ``shared`` Dataset."""
    if not isinstance(part, slice):
        return part
    return X if part == slice(0, len(X)) else X.part(part)


def run_tasks(
    function: Callable[..., Any],
    shared: tuple[Any, ...],
    tasks: Iterable[tuple[Any, ...]],
    jobs: int,
) -> Generator[Report, None, None]:
    """Yield a `Report` on ``function(*shared, *task)`` for each task, in order.

    Each worker gets the shared arguments once, and not with each task.
    """
    if jobs > 1:
        yield from _run_by_workers(function, shared, tasks, jobs)
        return
    for task in tasks:
        with collect_lost_gradients() as lost:
            result = function(*shared, *task)
        yield Report(result, lost, {})


def _run_by_workers(
    function: Callable[..., Any],
    shared: tuple[Any, ...],
    tasks: Iterable[tuple[Any, ...]],
    jobs: int,
) -> Iterator[Report]:
    """Yield the reports of workers, and repeat each distinct warning once."""
    pickled = np.frombuffer(_pickle_shared(shared), np.uint8)
    settings = get_config()
    settings["working_memory"] /= jobs
    work = partial(_run_task, function, os.urandom(16), settings)
    warned: set[str] = set()
    with _divide_threads(jobs):
        for report in _iterate_reports(work, pickled, tasks, jobs):
            for message, category in report.messages.items():
                if message not in warned:
                    warn(message, category)
                warned.add(message)
            yield report


def _iterate_reports(
    work: Callable[..., Report], pickled: np.ndarray, tasks: Iterable[Any], jobs: int
) -> Iterator[Report]:
    """Yield reports in order, computed by batches of a few tasks per worker.

    If a worker dies, the tasks of the batch without a report are repeated.
    """
    remaining, lost = iter(tasks), 0
    while waiting := deque(itertools.islice(remaining, _TASKS * jobs)):
        while waiting:
            calls = [joblib.delayed(work)(pickled, task) for task in waiting]
            try:
                for report in _make_parallel(jobs)(calls):
                    waiting.popleft()
                    yield report
            except Exception as error:
                lost += 1
                if type(error).__name__ not in _LOST or lost > _LOSSES:
                    raise


def _make_parallel(jobs: int) -> joblib.Parallel:
    """Return a Parallel that yields results one by one, if the backend can (Ray's cannot)."""
    try:
        return joblib.Parallel(jobs, return_as="generator")
    except ValueError:
        return joblib.Parallel(jobs)


def _pickle_shared(shared: tuple[Any, ...]) -> bytes:
    """Return the pickle of the shared arguments; raise a TypeError if they cannot be pickled."""
    try:
        return dumps({"shared": shared})
    except (AttributeError, RuntimeError, TypeError, ValueError, pickle.PicklingError) as error:
        raise TypeError(
            "`n_jobs` must be 1 if the network, or the Dataset passed as `X`, cannot be pickled;"
            f" got several workers, and pickling failed ({error}). Set n_jobs=1."
        ) from error


def _run_task(
    function: Callable[..., Any],
    key: bytes,
    settings: dict[str, Any],
    pickled: np.ndarray,
    task: tuple[Any, ...],
) -> Report:
    """Run a task in a worker, with scikit-learn's settings of the main process."""
    with (
        _shared_cache.open(key, pickled) as shared,
        config_context(**settings),
        collect_warnings() as messages,
        collect_lost_gradients() as lost,
    ):
        result = function(*shared, *task)
    return Report(result, lost, messages)


class _SharedCache:
    """Shared arguments of the last task of each thread, freed some time after their last use."""

    def __init__(self) -> None:
        self._cached: dict[int, tuple[bytes, Any]] = {}
        self._timers: dict[int, threading.Timer] = {}

    def __len__(self) -> int:
        return len(self._cached)

    @contextlib.contextmanager
    def open(self, key: bytes, pickled: np.ndarray) -> Iterator[Any]:
        """Yield the shared arguments with this key, unpickled by the first task only."""
        thread = threading.get_ident()
        if thread in self._timers:
            self._timers.pop(thread).cancel()
        cached = self._cached.get(thread)
        if cached is None or cached[0] != key:
            cached = self._cached[thread] = key, loads(pickled)["shared"]
        try:
            yield cached[1]
        finally:
            timer = threading.Timer(_KEPT_SECONDS, self._cached.pop, (thread, None))
            timer.daemon = True
            self._timers[thread] = timer
            timer.start()


_shared_cache = _SharedCache()


@contextlib.contextmanager
def _divide_threads(jobs: int) -> Iterator[None]:
    """Divide torch's threads among the workers inside the block.

    This concerns workers that are threads of this process; joblib limits the threads of processes.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // jobs))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
