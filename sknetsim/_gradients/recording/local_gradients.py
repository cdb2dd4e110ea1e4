"""Per-sample gradients of one call, for functions without a rule.

Index legend: n samples; o outputs (d of them).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp, vmap

from ..._kernels.blocks import DenseBlock
from ...exceptions import is_out_of_memory
from ...rules import layout_of
from .calls import list_tensors_in
from .resolution import Use


def differentiate_call(
    use: Use, arguments: Mapping[str, Any], cotangents: Tensor, names: tuple[str, ...]
) -> DenseBlock | None:
    """Return the gradients of some arguments, of shape (n, d, size); None if torch cannot.

    Only this call is evaluated again, vectorised over the samples.

    Parameters
    ----------
    use : Use
        The call.
    arguments : mapping of str to object
        Its arguments, see `Use.split_arguments`.
    cotangents : Tensor of shape (n, d, ...)
        Cotangents at the output.
    names : tuple of str
        The arguments that are differentiated.
    """
    evaluate = use.call.evaluate
    if evaluate is None:
        return None
    tensors = {name: value for name, value in arguments.items() if use.has_samples(name)}
    sources = {name: arguments[name] for name in names}

    def compute_output(sample: dict[str, Tensor], values: dict[str, Tensor]) -> Tensor:
        result = evaluate({**arguments, **sample, **values})
        return list_tensors_in((result,))[use.output]

    def differentiate(sample: dict[str, Tensor], cotangents: Tensor) -> dict[str, Tensor]:
        # The gradient of sum c y(p) in p is the product of c and the derivative of y.
        output, pull = vjp(lambda values: compute_output(sample, values), sources)[:2]
        gradients: dict[str, Tensor] = vmap(lambda c: pull(c)[0])(cotangents.to(output.dtype))
        return gradients

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Some functions are slow in vmap.
            gradients = vmap(differentiate)(tensors, cotangents)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        # Some arguments depend on the number of samples, or torch cannot vectorise the function.
        if is_out_of_memory(error):
            raise
        return None
    parts = [gradients[name].reshape(*cotangents.shape[:2], -1) for name in names]
    return DenseBlock(layout_of(arguments, names), torch.cat(parts, dim=2))
