"""Arithmetic in the dtype that the tensors have, whatever the caller has switched on."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Autocast and TF32 off."""
    backend = torch.backends.cuda.matmul
    before = backend.allow_tf32
    with torch.autocast(device.type, enabled=False):
        try:
            # Written only where it is set: some versions of torch warn at any assignment.
            if before:
                backend.allow_tf32 = False
            yield
        finally:
            if before:
                backend.allow_tf32 = before


def in_full_precision(method: Callable[..., Result]) -> Callable[..., Result]:
    """Decorate a method of an object that has ``outputs`` on some device.

    The result has a graph where the outputs have one.
    """

    @functools.wraps(method)
    def wrapped(self: Any, *args: Any) -> Result:
        graph = torch.set_grad_enabled(self.outputs.requires_grad)
        with graph, full_precision(self.outputs.device):
            return method(self, *args)

    return wrapped
