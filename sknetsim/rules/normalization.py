"""Rules of layers with one weight and one bias per channel or per element.

Index legend: n samples; o outputs of the network; c channels or elements; t positions. The layers
compute y[n,c,t] = W[c] z[n,c,t] + b[c], where z is the normalised input. The gradients are
dW[c] = sum_t e[n,o,c,t] z[n,c,t] and db[c] = sum_t e[n,o,c,t]. These layers have few parameters, so
the gradients are stored in dense blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .._kernels.blocks import Block, DenseBlock, sum_products
from ._registry import layout_of, register_rule

Arguments = Mapping[str, Any]


@register_rule(
    torch.layer_norm,
    arguments=("input", "normalized_shape", "weight", "bias", "eps", "cudnn_enable"),
)
def layer_norm(arguments: Arguments, cotangents: Tensor, names: tuple[str, ...]) -> list[Block]:
    """Return the gradients of one weight and one bias per element of the last axes."""
    shape = list(arguments["normalized_shape"])
    normalized = functional.layer_norm(arguments["input"], shape, eps=arguments.get("eps", 1e-5))
    return _sum_per_element(arguments, normalized, cotangents, names)


@register_rule(
    torch.rms_norm,
    parameters=["weight"],
    arguments=("input", "normalized_shape", "weight", "eps"),
)
def rms_norm(arguments: Arguments, cotangents: Tensor, names: tuple[str, ...]) -> list[Block]:
    """Return the gradients of one weight per element of the last axes."""
    shape = list(arguments["normalized_shape"])
    normalized = functional.rms_norm(arguments["input"], shape, eps=arguments.get("eps"))
    return _sum_per_element(arguments, normalized, cotangents, names)


@register_rule(
    torch.group_norm,
    arguments=("input", "num_groups", "weight", "bias", "eps", "cudnn_enabled"),
)
def group_norm(arguments: Arguments, cotangents: Tensor, names: tuple[str, ...]) -> list[Block]:
    """Return the gradients of one weight and one bias per channel (axis 1)."""
    groups, eps = arguments["num_groups"], arguments.get("eps", 1e-5)
    normalized = _apply(lambda images: functional.group_norm(images, groups, eps=eps), arguments)
    return _sum_per_channel(arguments, normalized, cotangents, names)


@register_rule(
    torch.instance_norm,
    arguments=(
        *("input", "weight", "bias", "running_mean", "running_var", "use_input_stats"),
        *("momentum", "eps", "cudnn_enabled"),
    ),
)
def instance_norm(arguments: Arguments, cotangents: Tensor, names: tuple[str, ...]) -> list[Block]:
    """Return the gradients of one weight and one bias per channel.

    A channel is normalised by the statistics of the sample, or by the running ones if tracked.
    """
    is_own, eps = arguments["use_input_stats"], arguments["eps"]
    mean, variance = (None, None) if is_own else _get_statistics(arguments)

    def normalize(images: Tensor) -> Tensor:
        return functional.instance_norm(images, mean, variance, use_input_stats=is_own, eps=eps)

    normalized = _apply(normalize, arguments)
    return _sum_per_channel(arguments, normalized, cotangents, names)


@register_rule(
    torch.batch_norm,
    arguments=(
        *("input", "weight", "bias", "running_mean", "running_var", "training"),
        *("momentum", "eps", "cudnn_enabled"),
    ),
)
def batch_norm(arguments: Arguments, cotangents: Tensor, names: tuple[str, ...]) -> list[Block]:
    """Return the gradients of one weight and one bias per channel.

    A channel is normalised by the running statistics, since networks are evaluated in eval mode.
    """
    if arguments["training"]:
        return NotImplemented
    statistics, eps = _get_statistics(arguments), arguments["eps"]
    normalized = _apply(
        lambda images: functional.batch_norm(images, *statistics, eps=eps), arguments
    )
    return _sum_per_channel(arguments, normalized, cotangents, names)


@register_rule(torch.prelu, parameters=["weight"], arguments=("input", "weight"))
def prelu(arguments: Arguments, cotangents: Tensor, names: tuple[str, ...]) -> list[Block]:
    """Return dW[c] = sum_t e[n,o,c,t] min(x[n,c,t], 0), with one slope per channel or for all."""
    negative = arguments["input"].clamp(max=0)
    if arguments["weight"].numel() > 1:
        return _sum_per_channel(arguments, negative, cotangents, names)
    # A product with a vector does not form e[n,o,ct] min(x[n,ct], 0) for each o.
    sums = sum_products(cotangents.flatten(2), negative.flatten(1)[..., None])
    return [DenseBlock(layout_of(arguments, names), sums.to(cotangents.dtype))]


def _get_statistics(arguments: Arguments) -> tuple[Tensor, Tensor]:
    """Return the running mean and variance, which have no samples."""
    return arguments["running_mean"], arguments["running_var"]


def _apply(function: Callable[[Tensor], Tensor], arguments: Arguments) -> Tensor:
    """Return a function of images (n b, c, space...) of an input (n, b, c, space...)."""
    inputs: Tensor = arguments["input"]
    return function(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])


def _sum_per_element(
    arguments: Arguments, normalized: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Return the gradients summed over the axes before the normalised ones."""
    terms = _list_terms(normalized, cotangents, names)
    size = math.prod(arguments["normalized_shape"])
    sums = [term.reshape(*term.shape[:2], -1, size).sum(dim=2) for term in terms]
    return [DenseBlock(layout_of(arguments, names), torch.cat(sums, dim=2))]


def _sum_per_channel(
    arguments: Arguments, normalized: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Return the gradients summed over all axes but the channels, axis 1 of a batch."""
    size = arguments[names[0]].numel()
    if size > 1 and (normalized.ndim < 3 or normalized.shape[2] != size):
        return NotImplemented
    terms = _list_terms(normalized, cotangents, names)
    if size > 1:
        # (n, o, b, c, space...) -> (n, o, c, b, space...)
        terms = [term.transpose(2, 3) for term in terms]
    sums = [term.reshape(*term.shape[:2], size, -1).sum(dim=3) for term in terms]
    return [DenseBlock(layout_of(arguments, names), torch.cat(sums, dim=2))]


def _list_terms(normalized: Tensor, cotangents: Tensor, names: tuple[str, ...]) -> list[Tensor]:
    """Return the terms of the sum over positions for each parameter: e z and e."""
    terms = {"weight": lambda: cotangents * normalized[:, None], "bias": lambda: cotangents}
    return [terms[name]() for name in names]
