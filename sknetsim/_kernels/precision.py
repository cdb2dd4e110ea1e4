"""Arithmetic in the dtype of the tensors, even if the caller has enabled a reduced precision."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Disable autocast and TF32 inside the block."""
    backend = torch.backends.cuda.matmul
    before = backend.allow_tf32
    with torch.autocast(device.type, enabled=False):
        try:
            # Assigned only if necessary, because some versions of torch warn at any assignment.
            if before:
                backend.allow_tf32 = False
            yield
        finally:
            if before:
                backend.allow_tf32 = before


def in_full_precision(method: Callable[..., Result]) -> Callable[..., Result]:
    """Decorate a method to run in full precision on the device of ``self.outputs``.

    The method records a graph for autograd if and only if the outputs require a gradient.
    """

    @functools.wraps(method)
    def wrapper(self: Any, *args: Any) -> Result:
        graph = torch.set_grad_enabled(self.outputs.requires_grad)
        with graph, full_precision(self.outputs.device):
            return method(self, *args)

    return wrapper
