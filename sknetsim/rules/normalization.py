"""Rules of layers with a weight and a bias per channel or per element.

Their gradients are as small as their parameters, so they are written out: the weight's is the
cotangent times the normalised input, the bias's the cotangent, summed over positions.

Index legend: n samples; o outputs.
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
    """Elements of the last axes."""
    normalized = functional.layer_norm(inputs, module.normalized_shape, eps=module.eps)
    return _per_element(module, normalized, cotangents, names)


@register_rule(nn.RMSNorm, parameters=["weight"])
def rms_norm(
    module: nn.RMSNorm, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Elements of the last axes."""
    normalized = functional.rms_norm(inputs, module.normalized_shape, eps=module.eps)
    return _per_element(module, normalized, cotangents, names)


@register_rule(nn.GroupNorm)
def group_norm(
    module: nn.GroupNorm, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Channels, on axis 1."""
    normalized = functional.group_norm(inputs, module.num_groups, eps=module.eps)
    return _per_channel(module, normalized, cotangents, names)


@register_rule(*_INSTANCE_NORMS)
def instance_norm(
    module: _InstanceNorm, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Channels, normalised by each sample's statistics or, where tracked, by the running ones."""
    normalized = functional.instance_norm(
        inputs,
        module.running_mean,
        module.running_var,
        use_input_stats=not module.track_running_stats,
        eps=module.eps,
    )
    return _per_channel(module, normalized, cotangents, names)


@register_rule(*_BATCH_NORMS)
def batch_norm(
    module: _BatchNorm, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Channels, normalised by the running statistics."""
    normalized = functional.batch_norm(
        inputs, module.running_mean, module.running_var, eps=module.eps
    )
    return _per_channel(module, normalized, cotangents, names)


@register_rule(nn.PReLU, parameters=["weight"])
def prelu(
    module: nn.PReLU, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """The slope's gradient is the negative part of the input, over a channel or over all."""
    return _per_channel(module, inputs.clamp(max=0), cotangents, names)


def _per_element(
    module: nn.LayerNorm | nn.RMSNorm,
    normalized: Tensor,
    cotangents: Tensor,
    names: tuple[str, ...],
) -> list[Block]:
    """Sum over the axes before the normalised ones."""
    gradients = _products(normalized, cotangents, names)
    size = math.prod(module.normalized_shape)
    sums = [gradient.reshape(*gradient.shape[:2], -1, size).sum(dim=2) for gradient in gradients]
    return [DenseBlock(layout_of(module, names), torch.cat(sums, dim=2))]


def _per_channel(
    module: nn.Module, normalized: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Sum over all axes but the channels'."""
    gradients = _products(normalized, cotangents, names)
    size = getattr(module, names[0]).numel()
    sums = [gradient.reshape(*gradient.shape[:2], size, -1).sum(dim=3) for gradient in gradients]
    return [DenseBlock(layout_of(module, names), torch.cat(sums, dim=2))]


def _products(normalized: Tensor, cotangents: Tensor, names: tuple[str, ...]) -> list[Tensor]:
    """What is summed for each parameter."""
    terms = {"weight": lambda: cotangents * normalized[:, None], "bias": lambda: cotangents}
    return [terms[name]() for name in names]
