"""Tensors that are derived from parameters only, and parameters that are used in several ways."""

import warnings

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

from .common import WIDTH, make_case

MATRIX, SQUARE = (3, WIDTH), (WIDTH, WIDTH)


def apply(wrap, *layer, **options):
    """Return a function that makes a layer in a dict and wraps it."""
    kind, *arguments = layer

    def make():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {"layer": wrap(kind(*arguments), **options)}

    return make


def prune_half(layer):
    """Return a layer of which half of the weights are pruned."""
    return prune.l1_unstructured(layer, "weight", 0.5)


def run_layer(p, h):
    """Return the layer's output at each position."""
    return p.layer(h)


def run_convolution(p, h):
    """Return the convolution over the positions."""
    return p.layer(h.mT)


def attend(p, h):
    """Return self-attention whose three weights are parts of one parameter."""
    queries, keys, values = (h @ part for part in p.W.chunk(3, dim=1))
    return functional.scaled_dot_product_attention(queries, keys, values)


def standardize(p, h):
    """Return a convolution whose filters have mean 0 and variance 1."""
    deviation, mean = torch.std_mean(p.W, dim=(1, 2), keepdim=True)
    return functional.conv1d(h.mT, (p.W - mean) / deviation, padding=1)


def demodulate(p, h):
    """Return a convolution whose filters each sample scales, by groups of one sample each."""
    weights = (p.W * h[:, 0, None, :, None]).flatten(0, 1)
    grouped = functional.conv1d(h.mT.reshape(1, -1, h.shape[1]), weights, groups=len(h))
    return grouped.view(len(h), -1)


def tie(p, h):
    """Return the rows of an embedding that are nearest to the hidden values, times its weight."""
    return functional.embedding((3 * h[..., 0]).long() % 9, p.W) @ p.W.mT


def tie_linear(p, h):
    """Return a linear layer's output for rows of its weight."""
    return functional.linear(functional.embedding((3 * h[..., 0]).long() % 9, p.W).tanh(), p.W)


def quantize(p, h):
    """Return a product with rounded weights, whose gradient is that of the weights."""
    return functional.linear(h, p.W + (p.W.round() - p.W).detach())


def make_circulant(p, h):
    """Return a product with a matrix whose rows are shifted copies of a parameter."""
    return h @ torch.stack([p.w.roll(shift) for shift in range(WIDTH)])


CASES = [
    make_case(
        "weight_norm, Linear", run_layer, apply(parametrizations.weight_norm, nn.Linear, 6, 3)
    ),
    make_case(
        "weight_norm, dim None",
        run_layer,
        apply(parametrizations.weight_norm, nn.Linear, 6, 3, dim=None),
    ),
    make_case(
        "weight_norm, Conv1d",
        run_convolution,
        apply(parametrizations.weight_norm, nn.Conv1d, 6, 3, 3),
    ),
    make_case(
        "weight_norm of hooks, Conv1d",
        run_convolution,
        apply(nn.utils.weight_norm, nn.Conv1d, 6, 3, 3),
    ),
    make_case("spectral_norm", run_layer, apply(parametrizations.spectral_norm, nn.Linear, 6, 3)),
    make_case("spectral_norm of hooks", run_layer, apply(nn.utils.spectral_norm, nn.Linear, 6, 3)),
    make_case("orthogonal", run_layer, apply(parametrizations.orthogonal, nn.Linear, 6, 3)),
    make_case("pruned", run_layer, apply(prune_half, nn.Linear, 6, 3)),
    make_case("pruned convolution", run_convolution, apply(prune_half, nn.Conv1d, 6, 3, 3)),
    make_case(
        "masked weight",
        lambda p, h: functional.linear(h, p.W * torch.ones_like(p.W).tril()),
        W=SQUARE,
    ),
    make_case(
        "adapter merged",
        lambda p, h: functional.linear(h, p.W + p.B @ p.A),
        W=MATRIX,
        B=(3, 2),
        A=(2, 6),
    ),
    make_case(
        "adapter beside", lambda p, h: h @ p.W + (h @ p.A) @ p.B, W=SQUARE, A=(6, 2), B=(2, 6)
    ),
    make_case("transposed", lambda p, h: functional.linear(h, p.W.t()), W=(6, 3)),
    make_case("transposed twice", lambda p, h: h @ p.W.mT, W=MATRIX),
    make_case("chunks", attend, W=(6, 18)),
    make_case("slice of a weight", lambda p, h: h @ p.W[:, :3] + p.W[0, 3:], W=(6, 6)),
    make_case(
        "concatenated weights",
        lambda p, h: functional.linear(h, torch.cat([p.A, p.B])),
        A=MATRIX,
        B=(2, 6),
    ),
    make_case(
        "stacked weights",
        lambda p, h: torch.einsum("nti,kji->nktj", h, torch.stack([p.A, p.B])),
        A=MATRIX,
        B=MATRIX,
    ),
    make_case("reshaped weight", lambda p, h: h @ p.w.view(6, 3), w=(18,)),
    make_case("product of weights", lambda p, h: h @ (p.A @ p.B), A=(6, 2), B=(2, 3)),
    make_case("Kronecker product", lambda p, h: h @ torch.kron(p.A, p.B), A=(3, 2), B=(2, 2)),
    make_case("skew-symmetric weight", lambda p, h: h @ (p.W - p.W.mT), W=SQUARE),
    make_case("exponential of a matrix", lambda p, h: h @ torch.matrix_exp(0.1 * p.W), W=SQUARE),
    make_case("cumulative weights", lambda p, h: h @ p.W.exp().cumsum(0), W=(6, 3)),
    make_case("softmax of weights", lambda p, h: h @ p.W.softmax(0), W=(6, 3)),
    make_case("circulant weight", make_circulant, w=(6,)),
    make_case("rounded weight", quantize, W=MATRIX),
    make_case("standardised filters", standardize, W=(3, 6, 3)),
    make_case("filters scaled by the samples", demodulate, W=(3, 6, 1)),
    make_case(
        "frozen part of a weight",
        lambda p, h: h @ torch.cat([p.W, torch.ones_like(p.W)], 1),
        W=(6, 3),
    ),
    make_case("diagonal weight", lambda p, h: h @ torch.diag(p.s), s=(6,)),
    make_case("outer product", lambda p, h: h @ torch.outer(p.a, p.b), a=(6,), b=(3,)),
    make_case("tied embedding and product", tie, W=(9, 6)),
    make_case("tied embedding and linear layer", tie_linear, W=(9, 6)),
    make_case(
        "weight used as a bias", lambda p, h: functional.linear(h, p.W) + p.W.sum(1), W=MATRIX
    ),
    make_case(
        "weight used by two functions",
        lambda p, h: functional.linear(h, p.W).tanh() @ p.W,
        W=MATRIX,
    ),
    make_case("parameter of two shapes", lambda p, h: h * p.s + h @ p.s[:, None], s=(6,)),
    make_case(
        "generated weight",
        lambda p, h: h @ p.layer(p.code).view(6, 3),
        lambda: {"layer": nn.Linear(4, 18)},
        code=(4,),
    ),
    make_case(
        "encoded positions",
        lambda p, h: h + p.layer(torch.eye(4, dtype=h.dtype)),
        lambda: {"layer": nn.Linear(4, 6)},
    ),
    make_case(
        "learnt queries through a layer",
        lambda p, h: (p.layer(p.queries) @ h.mT).softmax(-1) @ p.layer(h),
        lambda: {"layer": nn.Linear(6, 6)},
        queries=(3, 6),
    ),
    make_case(
        "learnt memory of one row through a layer",
        lambda p, h: (
            torch.cat([p.layer(p.memory), p.layer(h).flatten(0, 1)])[1:].view_as(h)
            + p.layer(p.memory)
        ),
        lambda: {"layer": nn.Linear(6, 6)},
        memory=(1, 6),
    ),
]
