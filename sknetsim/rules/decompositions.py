"""Functions of torch computed from others that have rules, or correct second derivatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

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
