"""Ways on which samples reach a layer: on other axes, merged with positions, chosen, or in blocks.

Index legend: n samples, t positions, i features.
"""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from ..cases import Case, normal
from .common import POSITIONS, WIDTH, make_case


def make_linear(outputs=3):
    """Return a function that makes a linear layer in a dict."""
    return lambda: {"layer": nn.Linear(WIDTH, outputs)}


def make_experts(count=3):
    """Return a function that makes linear experts and a router in a dict."""
    return lambda: {
        "router": nn.Linear(WIDTH, count),
        "experts": nn.ModuleList([nn.Linear(WIDTH, 3) for _ in range(count)]),
    }


def merge(p, h):
    """Return the layer's output for all positions of all samples in one axis."""
    return p.layer(h.flatten(0, 1)).view(len(h), -1)


def merge_time_first(p, h):
    """Return the layer's output for one axis in which the samples change fastest."""
    count, positions = h.shape[:2]
    outputs = p.layer(h.transpose(0, 1).flatten(0, 1))
    return outputs.view(positions, count, -1).transpose(0, 1)


def merge_four_axes(p, h):
    """Return the layer's output for samples between two other axes."""
    outputs = p.layer(h.unflatten(1, (2, 2)).permute(1, 0, 2, 3).flatten(0, 2))
    return outputs.view(2, len(h), 2, -1).transpose(0, 1)


def move_samples_inside(p, h):
    """Return the layer's output for samples on the second of four axes."""
    return p.layer(h.unflatten(1, (2, 2)).transpose(0, 1)).transpose(0, 1)


def merge_with_second_axis(p, h):
    """Return the layer's output for samples on the second axis, merged with another axis."""
    outputs = p.layer(h.unflatten(1, (2, 2)).transpose(0, 1).flatten(1, 2))
    return outputs.view(2, len(h), 2, -1).transpose(0, 1)


def convolve_four_axes(p, h):
    """Return the convolution of images of samples between two other axes."""
    images = h.view(len(h), 2, 2, 1, 2, 3).transpose(0, 1).flatten(0, 2)
    return p.layer(images).view(2, len(h), -1).transpose(0, 1)


def convolve_merged(p, h):
    """Return the convolution of images that are merged with the samples."""
    images = h.reshape(2 * len(h), 2, 2, 3)
    return p.layer(images).reshape(len(h), -1)


def convolve_time_first(p, h):
    """Return the convolution of images in an axis in which the samples change fastest."""
    images = h.view(len(h), 2, 2, 2, 3).transpose(0, 1).flatten(0, 1)
    return p.layer(images).view(2, len(h), -1).transpose(0, 1)


def embed_positions(p, h):
    """Return the hidden values plus positions that are looked up once, (t,)."""
    return h + p.places(torch.arange(h.shape[1]))


def embed_positions_in_batch(p, h):
    """Return the hidden values plus positions that are looked up once, (1, t)."""
    return p.norm(h + p.places(torch.arange(h.shape[1])[None]))


def embed_and_project_positions(p, h):
    """Return the hidden values plus a layer's output for positions that are looked up once."""
    return h + p.layer(p.places(torch.arange(h.shape[1])))


def make_positions():
    """Make an embedding of positions and layers after it in a dict."""
    return {
        "places": nn.Embedding(9, WIDTH),
        "norm": nn.LayerNorm(WIDTH),
        "layer": nn.Linear(WIDTH, WIDTH),
    }


def route_dense(p, h):
    """Return the outputs of all experts, weighted by the router."""
    outputs = torch.stack([expert(h) for expert in p.experts], dim=-1)
    return (outputs * p.router(h).softmax(-1)[:, :, None]).sum(-1)


def route_tokens(p, h):
    """Return, for each token, the output of the expert that the router chooses."""
    tokens = h.flatten(0, 1)
    weights, chosen = p.router(tokens).softmax(-1).max(-1)
    outputs = tokens.new_zeros(len(tokens), 3)
    for index, expert in enumerate(p.experts):
        (rows,) = (chosen == index).nonzero(as_tuple=True)
        outputs = outputs.index_add(0, rows, expert(tokens[rows]) * weights[rows, None])
    return outputs.view(len(h), -1)


def choose_weights(p, h):
    """Return products with a weight that each token chooses among three."""
    chosen = (3 * h[..., 0]).long() % 3
    return torch.einsum("nti,ntij->ntj", h, p.W[chosen])


def permute(p, h):
    """Return the layer's output for samples in the order of their first values."""
    order = h[:, 0, 0].argsort()
    return p.layer(h[order])[order.argsort()]


def call_for_each_sample(p, h):
    """Return the layer's outputs for one sample at a time."""
    return torch.stack([p.layer(sample) for sample in h])


def keep_some_tokens(p, h):
    """Return the sums of the layer's output for tokens with a positive value."""
    rows, places = (h[..., 0] > 0).nonzero(as_tuple=True)
    return h.new_zeros(len(h), 3).index_add(0, rows, p.layer(h[rows, places]))


def repeat_samples(p, h):
    """Return the layer's output for two noisy copies of each sample."""
    copies = (
        h.repeat_interleave(2, dim=0) * torch.tensor([1.0, 1.1]).to(h).repeat(len(h))[:, None, None]
    )
    return p.layer(copies).view(len(h), -1)


def concatenate_views(p, h):
    """Return the layer's output for two views of all samples, one after the other."""
    first, second = p.layer(torch.cat([h, h.flip(1)])).chunk(2)
    return first * second


def pair_positions(p, h):
    """Return the sum over positions of the layer's output for all pairs of positions."""
    pairs = h[:, :, None] * h[:, None]
    return p.layer(pairs).sum(2)


def rearrange_with_batch_norm(p, h):
    """Return the output of batch normalisation for samples and positions in one axis."""
    return p.norm(p.layer(h.flatten(0, 1))).view(len(h), -1)


def recompute(p, h, **options):
    """Return the output of layers that are computed again in the backward pass."""
    return checkpoint(p.layers, h, **options)


def call_functionally(p, h):
    """Return the layer's output with its weight multiplied by a number."""
    parameters = {name: 2 * value for name, value in p.layer.named_parameters()}
    return torch.func.functional_call(p.layer, parameters, (h,))


class Product(torch.autograd.Function):
    """Product with a weight, with a backward pass of its own."""

    @staticmethod
    def forward(context, hidden, weight):
        context.save_for_backward(hidden, weight)
        return hidden @ weight

    @staticmethod
    def backward(context, cotangents):
        hidden, weight = context.saved_tensors
        # The samples may have positions.
        return cotangents @ weight.mT, hidden.flatten(0, -2).mT @ cotangents.flatten(0, -2)


def call_own_function(p, h):
    """Return a product by an autograd.Function."""
    return Product.apply(h, p.W)


def run_ensemble(p, h):
    """Return the outputs of two weights by vmap over the weights."""
    return torch.vmap(lambda weight: h @ weight)(p.W).transpose(0, 1)


def write_into_buffer(p, h):
    """Return a tensor into which the layer's output is written."""
    outputs = h.new_zeros(*h.shape[:2], 5)
    outputs[..., 1:4] = p.layer(h)
    return outputs


def add_without_gradient(p, h):
    """Return the layer's output plus one without gradient."""
    with torch.no_grad():
        target = p.layer(h.flip(1))
    return p.layer(h) * target


def call_with_vmap(p, h):
    """Return the layer's output by vmap over the samples."""
    return torch.vmap(p.layer)(h)


def make_layers():
    """Make three layers in a dict."""
    return {"layers": nn.Sequential(nn.Linear(WIDTH, 4), nn.Tanh(), nn.Linear(4, 3))}


class SwinBlock(nn.Module):
    """Attention in shifted windows of an image, with a learnt bias of relative positions."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 6, 2, stride=2)
        self.norm = nn.LayerNorm(6)
        self.qkv, self.output = nn.Linear(6, 18), nn.Linear(6, 6)
        self.table = nn.Parameter(torch.randn(9, 2))
        self.layers = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 7), nn.GELU(), nn.Linear(7, 6))
        places = torch.stack(torch.meshgrid(*[torch.arange(2)] * 2, indexing="ij")).flatten(1)
        pairs = places[:, :, None] - places[:, None] + 1
        self.register_buffer("pairs", 3 * pairs[0] + pairs[1])
        self.head = nn.Linear(6, 2)

    def forward(self, images):
        grid = self.patches(images).permute(0, 2, 3, 1)
        count, side = grid.shape[:2]
        half = side // 2
        shifted = self.norm(grid).roll((-1, -1), dims=(1, 2))
        windows = shifted.view(count, half, 2, half, 2, 6).transpose(2, 3).reshape(-1, 4, 6)
        queries, keys, values = self.qkv(windows).unflatten(2, (3, 2, 3)).permute(2, 0, 3, 1, 4)
        bias = self.table[self.pairs].permute(2, 0, 1)
        mixed = (queries @ keys.mT + bias).softmax(-1) @ values
        windows = self.output(mixed.transpose(1, 2).flatten(2))
        shifted = windows.view(count, half, half, 2, 2, 6).transpose(2, 3).reshape(grid.shape)
        grid = grid + shifted.roll((1, 1), dims=(1, 2))
        grid = grid + self.layers(grid)
        return self.head(grid.mean((1, 2)))


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, layers on the last axis, and a learnt scale of the channels."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 6, 2, stride=2)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.layers = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 7), nn.GELU(), nn.Linear(7, 6))
        self.scale = nn.Parameter(torch.full((6,), 0.5))
        self.head = nn.Linear(6, 2)

    def forward(self, images):
        grid = self.patches(images)
        hidden = self.scale * self.layers(self.depthwise(grid).permute(0, 2, 3, 1))
        return self.head((grid + hidden.permute(0, 3, 1, 2)).mean((2, 3)))


class SqueezeExcite(nn.Module):
    """Convolution whose channels are scaled by layers on their means, and by a raw parameter."""

    def __init__(self):
        super().__init__()
        self.body, self.squeeze = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1)
        self.scale = nn.Parameter(torch.randn(1, 4, 1, 1))
        self.head = nn.Linear(4, 2)

    def forward(self, images):
        hidden = self.body(images)
        gates = self.squeeze(hidden.mean((2, 3), keepdim=True)).sigmoid()
        return self.head((hidden * gates * self.scale).mean((2, 3)))


class GraphNetwork(nn.Module):
    """Layers on the nodes of a graph that is the same for all samples."""

    def __init__(self):
        super().__init__()
        self.own, self.other = nn.Linear(5, 4), nn.Linear(5, 4, bias=False)
        self.edges = nn.Parameter(torch.randn(POSITIONS, POSITIONS))
        self.head = nn.Linear(4, 2)

    def forward(self, nodes):
        weights = self.edges.softmax(1)
        return self.head(torch.tanh(self.own(nodes) + weights @ self.other(nodes)).mean(1))


def make_scripted():
    """Make layers that are scripted in a dict."""
    return {"layer": torch.jit.script(nn.Sequential(nn.Linear(WIDTH, 4), nn.Tanh()))}


CASES = [
    make_case("Linear on (n t, i)", merge, make_linear()),
    make_case("Linear on (t n, i)", merge_time_first, make_linear()),
    make_case(
        "Linear on (t, n, i)",
        lambda p, h: p.layer(h.transpose(0, 1)).transpose(0, 1),
        make_linear(),
    ),
    make_case("Linear on (2 n 2, i)", merge_four_axes, make_linear()),
    make_case("Linear on (2, n, 2, i)", move_samples_inside, make_linear()),
    make_case("Linear on (2, n 2, i)", merge_with_second_axis, make_linear()),
    make_case(
        "Conv2d on (2 n 2, c, h, w)", convolve_four_axes, lambda: {"layer": nn.Conv2d(1, 3, 2)}
    ),
    make_case("Linear on (2 n, i), samples repeated", repeat_samples, make_linear()),
    make_case("Linear on two views", concatenate_views, make_linear()),
    make_case("Linear on pairs of positions", pair_positions, make_linear()),
    make_case(
        "Linear on each number",
        lambda p, h: p.number(h[..., None]).flatten(1),
        lambda: {"number": nn.Linear(1, 2)},
    ),
    make_case(
        "Linear on (n t, 1)",
        lambda p, h: p.number(h.reshape(-1, 1)).view(len(h), -1),
        lambda: {"number": nn.Linear(1, 2)},
    ),
    make_case(
        "samples in the last axis",
        lambda p, h: (p.W @ h.permute(1, 2, 0)).permute(2, 0, 1),
        W=(3, WIDTH),
    ),
    make_case(
        "LayerNorm on (t, n, i)",
        lambda p, h: p.norm(h.transpose(0, 1)).transpose(0, 1),
        make_positions,
    ),
    make_case(
        "BatchNorm on (n t, i)",
        rearrange_with_batch_norm,
        lambda: {"layer": nn.Linear(WIDTH, 3), "norm": nn.BatchNorm1d(3)},
    ),
    make_case("Conv2d on (n t, c, h, w)", convolve_merged, lambda: {"layer": nn.Conv2d(2, 3, 2)}),
    make_case(
        "Conv2d on (t n, c, h, w)", convolve_time_first, lambda: {"layer": nn.Conv2d(2, 3, 2)}
    ),
    make_case(
        "Conv1d on (t, i, n)",
        lambda p, h: p.layer(h.permute(1, 2, 0)).permute(2, 0, 1),
        lambda: {"layer": nn.Conv1d(WIDTH, 3, 1)},
    ),
    make_case("positions looked up once, (t,)", embed_positions, make_positions),
    make_case("positions looked up once, (1, t)", embed_positions_in_batch, make_positions),
    make_case(
        "positions looked up once, through a layer", embed_and_project_positions, make_positions
    ),
    make_case("all experts", route_dense, make_experts()),
    make_case("tokens sent to experts", route_tokens, make_experts()),
    make_case("weights chosen by the samples", choose_weights, W=(3, WIDTH, 3)),
    make_case("sorted samples", permute, make_linear()),
    make_case("one sample at a time", call_for_each_sample, make_linear()),
    make_case("some of the tokens", keep_some_tokens, make_linear()),
    make_case("checkpoint", lambda p, h: recompute(p, h, use_reentrant=False), make_layers),
    make_case(
        "checkpoint_sequential",
        lambda p, h: checkpoint_sequential(p.layers, 2, h, use_reentrant=False),
        make_layers,
    ),
    make_case("scripted layers", lambda p, h: p.layer(h), make_scripted),
    make_case("functional_call", call_functionally, make_linear()),
    make_case("autograd.Function", call_own_function, W=(WIDTH, 3)),
    make_case("vmap over weights", run_ensemble, W=(2, WIDTH, 3)),
    make_case("output written into a tensor", write_into_buffer, make_linear()),
    make_case("output without gradient", add_without_gradient, make_linear()),
    make_case("vmap over the samples", call_with_vmap, make_linear()),
    Case("Swin block", SwinBlock, normal(1, 8, 8)),
    Case("ConvNeXt block", ConvNeXtBlock, normal(1, 8, 8)),
    Case("squeeze and excite", SqueezeExcite, normal(1, 5, 5)),
    Case("graph network", GraphNetwork, normal(POSITIONS, 5)),
]
