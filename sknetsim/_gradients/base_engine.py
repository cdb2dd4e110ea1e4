"""What engines have in common: a network evaluated on rows, chunk by chunk, as a guest.

Index legend: n samples.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._kernels.jacobian import Jacobian
from .._networks.batches import Inputs, list_tensors, map_tensors, slice_batch
from .._networks.fingerprint import fingerprint_samples, fingerprint_value
from .._networks.isolation import IsolatedNetwork, check_device
from .._networks.memory import CHUNK, halve, keep_freed_pages, memory_budget
from .._networks.network import Network
from .._networks.samples import Samples, make_label_tensor
from ..exceptions import UnsupportedNetworkError, is_out_of_memory

# Beyond this a chunk leaves the caches and gets slower, whatever the memory budget is.
_CHUNK_BYTES = 2**28

_CHUNK_ROWS = 2560


class BaseEngine(abc.ABC):
    """From a network and rows to Jacobians, or what is used like them.

    Parameters
    ----------
    network : Network
        The network.
    selected : set of str
        Names of the parameters that require a gradient.
    batch_size : int or None
        Samples per chunk; None derives it from the memory budget.
    device : str, device or None
        Where to compute; None: where the network is.

    Attributes
    ----------
    dtype : dtype
        The dtype of the gradients.
    n_jobs : int or None
        Workers for passes over the rows, see `_parallel`; 1 in each of these.
    """

    def __init__(
        self,
        network: Network,
        selected: set[str],
        batch_size: int | None = None,
        device: Any = None,
    ):
        keep_freed_pages()
        self.network = network
        self.batch_size = batch_size
        self.device = network.device if device is None else check_device(device)
        self.n_jobs: int | None = 1
        self.dtype = network.dtype
        self._row_bytes = 0
        self._cast_integers: bool | None = None
        self._isolated = IsolatedNetwork(network.module, selected, self.device)

    @abc.abstractmethod
    def identity(self) -> str:
        """A fingerprint of the network's bytes, and of what is compared of it."""

    def fingerprint_of_rows(self, X: Samples) -> str:
        """Of the rows, as the network gets them."""
        return fingerprint_samples(self.network.prepare(X), self.dtype)

    def check_rows_independent(self, X: Samples) -> None:
        """Refuse a Pipeline whose steps give a row alone something else than beside another one."""
        if len(X) == 1:
            return
        alone, together = (
            list_tensors(self.network.prepare(X.select(rows)).take(slice(0, 1)))
            for rows in ([0], [0, 1])
        )
        for first, second in zip(alone, together, strict=True):
            if not np.allclose(first, second, rtol=1e-4, atol=1e-6):
                raise UnsupportedNetworkError(
                    "estimator has steps before its network that depend on the other rows of X;"
                    " allowed where rows are taken in parts (n_jobs, stores) are steps that take"
                    " each row by itself: fit such steps before, or set n_jobs=1."
                )

    def fingerprint(self, X: Samples, y: Any = None) -> str:
        """Of all that the Jacobians of X depend on."""
        labels = None if y is None else make_label_tensor(y)
        return fingerprint_value((self.identity(), self.fingerprint_of_rows(X), labels))

    @abc.abstractmethod
    def _measure(self, rows: Samples, labels: Tensor | None) -> None:
        """Set the bytes that a row takes, from the first one; leave 0 where that must be redone."""

    @abc.abstractmethod
    def _chunk(
        self, rows: Samples, labels: Tensor | None, chunk: slice, factored: bool
    ) -> Jacobian | None:
        """Jacobians of some rows; None where another way must be taken from now on."""

    def jacobians(
        self, X: Samples, y: Any = None, start: int = 0, factored: bool = False
    ) -> Iterator[tuple[slice, Jacobian]]:
        """The Jacobians of the rows of X from ``start`` on, chunk by chunk.

        In a form for sums; ``factored`` leaves layers' factors as they are.
        """
        rows = self.network.prepare(X)
        labels = None if y is None else make_label_tensor(y)
        limit = self.batch_size or _CHUNK_ROWS
        while start < len(rows):
            step = min(limit, self._affordable_rows(rows, labels), len(rows) - start)
            chunk = slice(start, start + step)
            try:
                jacobian = self._chunk(rows, labels, chunk, factored)
            except (RuntimeError, MemoryError) as error:
                limit = halve(step, error)
                continue
            if jacobian is None:
                self._row_bytes = 0
                continue
            yield chunk, jacobian
            start = chunk.stop

    def _affordable_rows(self, rows: Samples, labels: Tensor | None) -> int:
        """Samples per chunk within the memory budget, from the bytes that the first one takes."""
        if len(rows) == 1 or self.batch_size:
            return len(rows)
        while self._row_bytes == 0:
            self._measure(rows, labels)
        budget = memory_budget(CHUNK, self.device)
        # The caches of a CUDA device are small beside its memory, and it needs large batches.
        largest = budget if self.device.type == "cuda" else min(_CHUNK_BYTES, budget)
        return max(1, largest // self._row_bytes)

    @contextlib.contextmanager
    def batch(
        self, rows: Samples, labels: Tensor | None, chunk: slice
    ) -> Iterator[tuple[nn.Module, Inputs, Tensor | None]]:
        """The module to call, and some rows with their labels where it is."""
        inputs = rows.take(chunk)
        with self._isolated.borrow() as module:
            y = None if labels is None else self._plain(labels[chunk])
            yield module, self._cast(module, inputs), y

    def _cast(self, module: nn.Module, inputs: Inputs) -> Inputs:
        """Inputs where the network is, in its dtype; integers stay where it takes them."""
        inputs = map_tensors(self._plain, inputs)
        floating = map_tensors(lambda t: t.to(self.dtype), inputs)
        kept = map_tensors(lambda t: t.to(self.dtype) if t.is_floating_point() else t, inputs)
        if all(tensor.is_floating_point() for tensor in list_tensors(kept)):
            return kept
        if self._cast_integers is None:
            self._cast_integers = not self._runs(module, kept) and self._runs(module, floating)
        return floating if self._cast_integers else kept

    def _plain(self, tensor: Tensor) -> Tensor:
        """A tensor where the network is, which autograd may save."""
        return (tensor.clone() if tensor.is_inference() else tensor).to(self.device)

    def _runs(self, module: nn.Module, inputs: Inputs) -> bool:
        first = slice_batch(inputs, slice(0, 1))
        with torch.no_grad(), contextlib.suppress(RuntimeError):
            self.network.call(module, first)
            return True
        return False

    def forward(self, module: nn.Module, inputs: Inputs) -> Any:
        """The network's raw output; its complaint about X with X's shape."""
        try:
            return self.network.call(module, inputs)
        except (RuntimeError, TypeError, IndexError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            shapes = ", ".join(f"{tuple(t.shape[1:])} ({t.dtype})" for t in list_tensors(inputs))
            raise UnsupportedNetworkError(
                f"X has rows of shape {shapes}, on which estimator fails: {error}; allowed are rows"
                " such as the network was trained on, or flat ones with their input_shape."
            ) from error
