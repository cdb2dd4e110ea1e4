"""Rule of transposed convolutions: convolutions with the roles of input and output exchanged.

Index legend: n samples; o outputs of the network; t positions of the layer's input; g groups;
i input channels of a group; j = (output channel of a group, position in the kernel). Each input
a[n,t,g,i] adds W[g,i,j] a[n,t,g,i] to the window of the output at t. So the gradient of the weight
is that of a linear layer whose cotangents e[n,o,t,g,j] are windows of the cotangents at the output.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvTransposeNd

from .._kernels.blocks import Block
from .._kernels.factored_blocks import FactorBlock
from .._kernels.layouts import Order
from ._factors import crop, extract_windows, make_bias_block, move_positions_first
from ._registry import layout_of, register_rule


@register_rule(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def transposed_convolution(
    module: _ConvTransposeNd, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...]
) -> list[Block]:
    """Return dW[g,i,j] = sum_t a[n,t,g,i] e[n,o,t,g,j] as factors, and the gradient of the bias.

    The gradient of the bias is the cotangent summed over the positions of the output.
    """
    make_block = {
        "weight": lambda: _make_weight_block(module, inputs, cotangents),
        "bias": lambda: make_bias_block(module, cotangents),
    }
    return [make_block[name]() for name in names]


def _make_weight_block(module: _ConvTransposeNd, inputs: Tensor, cotangents: Tensor) -> Block:
    # (n, channels, space...) -> (n, t, g, i)
    activations = move_positions_first(inputs, len(module.kernel_size))
    activations = activations.unflatten(-1, (module.groups, -1))
    windows = _make_windows(module, cotangents, inputs.shape[2:])
    # Stored as (g, j, i); the parameter is (g i, j).
    order = Order((module.groups, windows.shape[-1], activations.shape[-1]), (0, 2, 1))
    return FactorBlock(layout_of(module, ["weight"]), windows, activations, order)


def _make_windows(module: _ConvTransposeNd, cotangents: Tensor, space: tuple[int, ...]) -> Tensor:
    """Return the windows (n, o, t, g, j) of the cotangents, one per position of the input."""
    dimensions = len(space)
    widths = [width for size in reversed(tuple(map(int, module.padding))) for width in (size, size)]
    padded = functional.pad(cotangents.flatten(0, 1), widths)
    windows = extract_windows(padded, module.kernel_size, module.stride, module.dilation)
    # (n o, channels, positions..., kernel...) -> (n o, channels, kernel..., positions...)
    windows = windows.movedim(tuple(range(2, 2 + dimensions)), tuple(range(-dimensions, 0)))
    # A large output padding allows more windows than there are inputs.
    windows = crop(windows, space).flatten(-dimensions).movedim(-1, 1)
    # (n o, t, channels, kernel...) -> (n o, t, g, j)
    windows = windows.unflatten(2, (module.groups, -1)).flatten(3)
    return windows.unflatten(0, cotangents.shape[:2])
