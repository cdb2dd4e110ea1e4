"""Rules of layers with one weight and one bias per channel or per element.

Index legend: n samples; o outputs of the network; c channels or elements; t positions. The layers
compute y[n,c,t] = W[c] z[n,c,t] + b[c], where z is the normalised input. The gradients are
dW[c] = sum_t e[n,o,c,t] z[n,c,t] and db[c] = sum_t e[n,o,c,t]. These layers have few parameters, so
the gradients are stored in dense blocks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from .._kernels.blocks import Block, DenseBlock
from ._registry import layout_of, register_rule

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


@register_rule(nn.LayerNorm)
def layer_norm(
    module: nn.LayerNorm, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Return the gradients of one weight and one bias per element of the last axes."""
    normalized = functional.layer_norm(inputs, module.normalized_shape, eps=module.eps)
    return _sum_per_element(module, normalized, cotangents, names)


@register_rule(nn.RMSNorm, parameters=["weight"])
def rms_norm(
    module: nn.RMSNorm, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Return the gradients of one weight per element of the last axes."""
    normalized = functional.rms_norm(inputs, module.normalized_shape, eps=module.eps)
    return _sum_per_element(module, normalized, cotangents, names)


@register_rule(nn.GroupNorm)
def group_norm(
    module: nn.GroupNorm, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Return the gradients of one weight and one bias per channel (axis 1)."""
    normalized = functional.group_norm(inputs, module.num_groups, eps=module.eps)
    return _sum_per_channel(module, normalized, cotangents, names)


@register_rule(*_INSTANCE_NORMS)
def instance_norm(
    module: _InstanceNorm, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Return the gradients of one weight and one bias per channel.

    A channel is normalised by the statistics of the sample, or by the running ones if tracked.
    """
    normalized = functional.instance_norm(
        inputs,
        module.running_mean,
        module.running_var,
        use_input_stats=not module.track_running_stats,
        eps=module.eps,
    )
    return _sum_per_channel(module, normalized, cotangents, names)


@register_rule(*_BATCH_NORMS)
def batch_norm(
    module: _BatchNorm, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Return the gradients of one weight and one bias per channel.

    A channel is normalised by the running statistics, since networks are evaluated in eval mode.
    """
    normalized = functional.batch_norm(
        inputs, module.running_mean, module.running_var, eps=module.eps
    )
    return _sum_per_channel(module, normalized, cotangents, names)


@register_rule(nn.PReLU, parameters=["weight"])
def prelu(
    module: nn.PReLU, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Return dW[c] = sum_t e[n,o,c,t] min(x[n,c,t], 0), with one slope per channel or for all."""
    return _sum_per_channel(module, inputs.clamp(max=0), cotangents, names)


def _sum_per_element(
    module: nn.LayerNorm | nn.RMSNorm,
    normalized: Tensor,
    cotangents: Tensor,
    names: tuple[str, ...],
) -> list[Block]:
    """Return the gradients summed over the axes before the normalised ones."""
    terms = _list_terms(normalized, cotangents, names)
    size = math.prod(module.normalized_shape)
    sums = [term.reshape(*term.shape[:2], -1, size).sum(dim=2) for term in terms]
    return [DenseBlock(layout_of(module, names), torch.cat(sums, dim=2))]


def _sum_per_channel(
    module: nn.Module, normalized: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Return the gradients summed over all axes after the channels."""
    terms = _list_terms(normalized, cotangents, names)
    size = getattr(module, names[0]).numel()
    sums = [term.reshape(*term.shape[:2], size, -1).sum(dim=3) for term in terms]
    return [DenseBlock(layout_of(module, names), torch.cat(sums, dim=2))]


def _list_terms(normalized: Tensor, cotangents: Tensor, names: tuple[str, ...]) -> list[Tensor]:
    """Return the terms of the sum over positions for each parameter: e z and e."""
    terms = {"weight": lambda: cotangents * normalized[:, None], "bias": lambda: cotangents}
    return [terms[name]() for name in names]
