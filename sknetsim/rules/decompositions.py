"""Functions of torch computed from others that have rules, or correct second derivatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ._registry import register_decomposition


@register_decomposition(torch._weight_norm)
def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """Return g v / |v|, with one norm for each entry along ``dim``.

    The second derivative of torch's own function is wrong.
    """
    axes = [axis for axis in range(v.ndim) if axis != dim % v.ndim] if dim != -1 else None
    norms: Any = v.square().sum(dim=axes, keepdim=True).sqrt() if axes != [] else v.abs()
    result: Tensor = v * (g / norms)
    return result


@register_decomposition(functional.embedding_bag)
def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Return the sum or mean of the rows of each bag, of a table of bags of one length."""
    if input.ndim != 2 or mode == "max" or scale_grad_by_freq or max_norm is not None:
        return NotImplemented
    rows = functional.embedding(input, weight, padding_idx)
    is_used = torch.ones_like(input, dtype=rows.dtype)
    if padding_idx is not None:
        is_used = (input != padding_idx % len(weight)).to(rows.dtype)
    weights = is_used if per_sample_weights is None else is_used * per_sample_weights
    total = (rows * weights[..., None]).sum(dim=1)
    return total / is_used.sum(dim=1, keepdim=True).clamp(min=1) if mode == "mean" else total
