"""What identifies networks, rows and settings: digests of their bytes, never of the objects."""

from __future__ import annotations

import hashlib
from typing import Any

import cloudpickle
import torch
from torch import Tensor, nn

from ._inputs import Rows, label_tensor, tensors


def digest(*parts: bytes) -> str:
    """One digest of several pieces, wherever one ends and the next begins."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.hexdigest()


def of_module(module: nn.Module) -> str:
    """The classes of a network's parts, and the bytes of its parameters and buffers."""
    named = (*module.named_parameters(), *module.named_buffers())
    parts = [f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() for name, tensor in named]
    return digest(repr(module).encode(), *parts, *(_bytes(tensor) for _, tensor in named))


def of_rows(X: Any, dtype: torch.dtype) -> str:
    """The rows' bytes once they are cast to a dtype, and their shapes."""
    rows = Rows(X)
    shapes = [tuple(tensor.shape[1:]) for tensor in tensors(rows.take(slice(0, 1)))]
    return digest(repr((len(rows), shapes)).encode(), b"".join(rows.digests(dtype)))


def of_labels(y: Any) -> str:
    """The labels' bytes and shape."""
    if y is None:
        return ""
    labels = label_tensor(y)
    return digest(f"{labels.dtype} {tuple(labels.shape)}".encode(), _bytes(labels))


def of_value(value: Any) -> str:
    """A setting; a function by its code, as it is not known by its name elsewhere."""
    return digest(cloudpickle.dumps(value))


def _bytes(tensor: Tensor) -> bytes:
    plain = tensor.detach().cpu().contiguous().flatten()
    return plain.view(torch.uint8).numpy().tobytes()
