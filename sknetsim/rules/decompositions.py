"""Functions of torch computed from others that have rules, or correct second derivatives.

Each returns NotImplemented for arguments that it does not cover.
"""

from __future__ import annotations

import math
import string
from collections import Counter
from collections.abc import Sequence
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
    """Return the sum or mean of the rows of each bag, of a table of bags, or of bags by offsets."""
    if mode == "max" or scale_grad_by_freq or max_norm is not None:
        return NotImplemented
    is_used: Tensor = torch.ones_like(input, dtype=weight.dtype)
    if padding_idx is not None:
        is_used = (input != padding_idx % len(weight)).to(weight.dtype)
    weights = is_used if per_sample_weights is None else is_used * per_sample_weights
    if offsets is not None:
        starts = offsets[:-1] if include_last_offset else offsets
        input, is_used, weights = _pad_bags([input, is_used, weights], starts)
    rows = functional.embedding(input, weight, padding_idx)
    total = (rows * weights[..., None]).sum(dim=1)
    return total / is_used.sum(dim=1, keepdim=True).clamp(min=1) if mode == "mean" else total


def _pad_bags(values: Sequence[Tensor], starts: Tensor) -> list[Tensor]:
    """Return vectors as tables of one row per bag, with zeros after the values of each bag.

    The values of a bag begin at its start. Bags may be empty.
    """
    numbers = torch.arange(len(values[0]), device=starts.device)
    bags = torch.bucketize(numbers, starts, right=True) - 1
    places = numbers - starts[bags]
    shape = len(starts), int(places.max()) + 1 if len(places) else 0
    return [v.new_zeros(shape).index_put((bags, places), v) for v in values]


@register_decomposition(torch.stack)
def stack(tensors: Sequence[Tensor], dim: int = 0, **options: Any) -> Tensor:
    """Return the same tensor several times along a new axis."""
    first = tensors[0]
    if options or any(tensor is not first for tensor in tensors):
        return NotImplemented
    return _repeat_along_new_axis(first, len(tensors), dim % (first.ndim + 1))


@register_decomposition(torch.cat, torch.concat, torch.concatenate)
def cat(tensors: Sequence[Tensor], dim: int = 0, **options: Any) -> Tensor:
    """Return the same tensor several times along one of its axes."""
    first = tensors[0]
    if options or any(tensor is not first for tensor in tensors):
        return NotImplemented
    counts = [1] * first.ndim
    counts[dim] = len(tensors)
    return first.repeat(counts)


@register_decomposition(torch.repeat_interleave, Tensor.repeat_interleave)
def repeat_interleave(
    input: Tensor, repeats: Any, dim: int | None = None, **options: Any
) -> Tensor:
    """Return each entry along an axis several times, one after another."""
    if not isinstance(repeats, int):
        return NotImplemented
    axis = 0 if dim is None else dim % input.ndim
    entries = input.flatten() if dim is None else input
    return _repeat_along_new_axis(entries, repeats, axis + 1).flatten(axis, axis + 1)


def _repeat_along_new_axis(tensor: Tensor, count: int, axis: int) -> Tensor:
    """Return copies of a tensor along a new axis."""
    sizes = [*tensor.shape[:axis], count, *tensor.shape[axis:]]
    return tensor.unsqueeze(axis).expand(sizes).clone()


@register_decomposition(torch.baddbmm, Tensor.baddbmm)
def baddbmm(
    input: Tensor,
    batch1: Tensor,
    batch2: Tensor,
    *,
    beta: float = 1,
    alpha: float = 1,
    **options: Any,
) -> Tensor:
    """Return the sum of a tensor and products of matrices, each multiplied by a number."""
    if options or beta == 0:
        return NotImplemented
    products = torch.bmm(batch1, batch2)
    return input * beta + products * alpha if (beta, alpha) != (1, 1) else input + products


@register_decomposition(torch.tensordot)
def tensordot(a: Tensor, b: Tensor, dims: Any = 2, out: Tensor | None = None) -> Tensor:
    """Return a product of two tensors that is summed over some axes of both."""
    if out is not None or isinstance(dims, Tensor):
        return NotImplemented
    pairs = (range(-dims, 0), range(dims)) if isinstance(dims, int) else dims
    first, second = (
        [axis % t.ndim for axis in axes] for t, axes in zip((a, b), pairs, strict=True)
    )
    letters = iter(string.ascii_letters)
    left = [next(letters) for _ in range(a.ndim)]
    summed = {axis: left[own] for own, axis in zip(first, second, strict=True)}
    right = [summed[axis] if axis in summed else next(letters) for axis in range(b.ndim)]
    kept = [letter for letter in left + right if letter not in summed.values()]
    return einsum("".join([*left, ",", *right, "->", *kept]), a, b)


@register_decomposition(torch.einsum)
def einsum(equation: Any, *operands: Any) -> Tensor:
    """Return the sum of products of two tensors as a product of two matrices, or of one per group.

    The letters of groups are in both operands and in the result, summed ones in both operands only,
    and those of rows and columns in one operand and the result.
    """
    tensors = operands[0] if operands and isinstance(operands[0], list | tuple) else operands
    terms = _name_axes(equation, tensors)
    if terms is None:
        return NotImplemented
    # The weight, which has fewer axes, comes second.
    pairs = sorted(zip(terms, tensors, strict=False), key=lambda pair: -len(pair[0]))
    (left, x), (right, weight) = pairs
    groups = [letter for letter in left if letter in right and letter in terms[2]]
    summed = [letter for letter in right if letter in left and letter not in terms[2]]
    rows = [letter for letter in left if letter not in right]
    columns = [letter for letter in right if letter not in left]
    if not summed or not columns:
        return NotImplemented
    if groups:
        matrices = _merge_axes(weight, right, [groups, summed, columns])
        product = torch.bmm(_merge_axes(x, left, [groups, rows, summed]), matrices)
    elif [*right] == columns + summed:
        matrix = _merge_axes(weight, right, [columns, summed])
        product = functional.linear(_merge_axes(x, left, [*rows, summed]), matrix)
    else:
        matrix = _merge_axes(weight, right, [summed, columns])
        product = _merge_axes(x, left, [*rows, summed]) @ matrix
    sizes = dict(zip(left + right, x.shape + weight.shape, strict=True))
    names = groups + rows + columns
    product = product.reshape([sizes[letter] for letter in names])
    return product.permute([names.index(letter) for letter in terms[2]]).contiguous()


def _name_axes(equation: Any, tensors: Sequence[Tensor]) -> list[str] | None:
    """Return one letter for each axis of two operands and the result; None for other equations.

    Each letter is in two of the terms or in all.
    """
    inputs, _, output = equation.partition("->") if isinstance(equation, str) else ("", "", "")
    terms = [term.replace(" ", "") for term in inputs.split(",")]
    if not output or len(terms) != 2 or len(tensors) != 2:
        return None
    # The axes of an ellipsis are aligned at the last one.
    counts = [t.ndim + 3 - len(term) for t, term in zip(tensors, terms, strict=True) if "." in term]
    spare = [letter for letter in string.ascii_letters if letter not in equation]
    spare = spare[: max(counts, default=0)]
    terms = [
        term.replace("...", "".join(spare[len(spare) + len(term) - 3 - tensor.ndim :]))
        for term, tensor in zip(terms, tensors, strict=True)
    ]
    named = [*terms, output.replace(" ", "").replace("...", "".join(spare))]
    sizes: dict[str, int] = {}
    for term, tensor in zip(terms, tensors, strict=True):
        if len(term) != tensor.ndim or any(
            sizes.setdefault(letter, size) != size
            for letter, size in zip(term, tensor.shape, strict=True)
        ):
            return None
    is_covered = all(len(set(term)) == len(term) for term in named)
    is_covered &= all(count > 1 for count in Counter("".join(named)).values())
    return named if is_covered else None


def _merge_axes(tensor: Tensor, letters: str, parts: Sequence[Sequence[str]]) -> Tensor:
    """Return a tensor with one axis for each part of its letters; unchanged if it has these."""
    sizes = dict(zip(letters, tensor.shape, strict=True))
    shape = [math.prod(sizes[letter] for letter in part) for part in parts]
    order = [letters.index(letter) for part in parts for letter in part]
    moved = tensor if order == sorted(order) else tensor.permute(order)
    return moved if [*moved.shape] == shape else moved.reshape(shape)
