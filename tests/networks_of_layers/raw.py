"""Raw parameters: a network ``p`` uses them in functions of its hidden values ``h`` (n, t, i).

Index legend: n samples, t positions, i features, j outputs of a weight, k prototypes or heads.
"""

import torch
from torch import nn
from torch.nn import functional

from .common import POSITIONS, WIDTH, make_case

ROW, MATRIX, PLACES = (WIDTH,), (WIDTH, 3), (9, WIDTH)


def choose(h, count):
    """Return numbers below ``count`` (n, t) that depend on the samples."""
    return (3 * h[..., 0]).long() % count


def prepend(token, h):
    """Return the hidden values with a token before them."""
    return torch.cat([token, h], dim=1)


def overwrite(p, h):
    """Return the hidden values with a parameter at the first position."""
    h = h.clone()
    h[:, 0] = p.token
    return h


def change_in_place(p, h):
    """Return the hidden values after operations with parameters that overwrite them."""
    h = h.clone()
    h += p.shift
    h *= p.scale
    return h.sub_(p.shift).div_(p.scale.exp())


def pool(p, h):
    """Return the attention of learnt queries to the hidden values."""
    return functional.scaled_dot_product_attention(p.queries.expand(len(h), -1, -1), h, h)


def attend_with_bias(p, h):
    """Return self-attention with a learnt bias for each pair of positions."""
    pairs = torch.arange(POSITIONS)[:, None] - torch.arange(POSITIONS) + POSITIONS - 1
    return (h @ h.mT + p.table[pairs]).softmax(-1) @ h


def normalize(p, h):
    """Return cosines of hidden values and prototypes."""
    return functional.normalize(h, dim=-1) @ functional.normalize(p.W, dim=-1).mT


def convolve(p, h):
    """Return the convolution of the hidden values over the positions."""
    return functional.conv1d(h.mT, p.W, p.b, padding=1)


def batch_normalize(p, h):
    """Return the hidden values after batch normalisation with given statistics."""
    zeros, ones = h.new_zeros(WIDTH), h.new_ones(WIDTH)
    return functional.batch_norm(h.mT, zeros, ones, p.scale, p.shift)


def transform_frequencies(p, h):
    """Return the hidden values after products with a complex weight of each frequency."""
    weights = torch.view_as_complex(p.W)
    return torch.fft.irfft(torch.fft.rfft(h, dim=1) * weights, n=h.shape[1], dim=1)


def scan(p, h):
    """Return the states of a linear recurrence with learnt decays."""
    state, states = torch.zeros_like(h[:, 0]), []
    for step in h.unbind(1):
        state = p.decay.sigmoid() * state + p.gain * step
        states.append(state)
    return torch.stack(states, 1)


def unfold_and_multiply(p, h):
    """Return a convolution as a product of windows and a weight."""
    return h.unfold(1, 2, 1).flatten(2) @ p.W


def embed_bags(p, h):
    """Return the sums of rows of a table in bags of 1 to 4 numbers of a sample."""
    numbers, lengths = choose(h, 9), 1 + choose(h, 4)[:, 1]
    is_used = torch.arange(POSITIONS) < lengths[:, None]
    return p.bag(numbers[is_used], lengths.cumsum(0) - lengths)


def make_bag():
    """Make an embedding of bags in a dict."""
    return {"bag": nn.EmbeddingBag(9, WIDTH, mode="sum")}


CASES = [
    # Tokens
    make_case("token expanded", lambda p, h: prepend(p.t.expand(len(h), -1, -1), h), t=(1, 1, 6)),
    make_case("token repeated", lambda p, h: prepend(p.t.repeat(len(h), 2, 1), h), t=(1, 1, 6)),
    make_case("token of one axis", lambda p, h: prepend(p.t.expand(len(h), 1, -1), h), t=ROW),
    make_case("token expand_as", lambda p, h: prepend(p.t.expand_as(h), h), t=(1, 1, 6)),
    make_case(
        "token broadcast", lambda p, h: prepend(torch.broadcast_to(p.t, h.shape), h), t=(1, 1, 6)
    ),
    make_case("token stacked", lambda p, h: prepend(torch.stack([p.t] * len(h)), h), t=(1, 6)),
    make_case("tokens concatenated", lambda p, h: h + torch.cat([p.t] * len(h)), t=(1, 4, 6)),
    make_case("constants stacked", lambda p, h: h + torch.stack([p.t] * 4), t=ROW),
    make_case(
        "token repeat_interleave",
        lambda p, h: prepend(p.t.repeat_interleave(len(h), 0), h),
        t=(1, 2, 6),
    ),
    make_case("token tiled", lambda p, h: prepend(p.t.tile(len(h), 1, 1), h), t=(1, 1, 6)),
    make_case("token added to zeros", lambda p, h: prepend(torch.zeros_like(h) + p.t, h), t=ROW),
    make_case("token written in place", overwrite, token=ROW),
    make_case("mask token", lambda p, h: torch.where(h[..., :1] > 0, p.t, h), t=(1, 1, 6)),
    make_case(
        "masked_fill of a token", lambda p, h: h.masked_fill(h > 0, 0) + (h > 0) * p.t, t=ROW
    ),
    make_case(
        "tokens along time first",
        lambda p, h: torch.cat([p.t[:, None].expand(-1, len(h), -1), h.transpose(0, 1)]).transpose(
            0, 1
        ),
        t=(2, 6),
    ),
    # Positions
    make_case("positions sliced", lambda p, h: h + p.places[:, : h.shape[1]], places=(1, 9, 6)),
    make_case("positions of two axes", lambda p, h: h + p.places[: h.shape[1]], places=PLACES),
    make_case(
        "positions by an arange",
        lambda p, h: h + p.places[torch.arange(h.shape[1])],
        places=PLACES,
    ),
    make_case(
        "positions time first",
        lambda p, h: (h.transpose(0, 1) + p.places[: h.shape[1], None]).transpose(0, 1),
        places=PLACES,
    ),
    make_case(
        "positions interpolated",
        lambda p, h: h + functional.interpolate(p.places.mT[None], size=h.shape[1]).mT,
        places=PLACES,
    ),
    make_case(
        "positions and channels", lambda p, h: h + p.rows + p.columns, rows=(4, 1), columns=ROW
    ),
    make_case("relative positions", attend_with_bias, table=(2 * POSITIONS - 1,)),
    # Elementwise functions
    make_case("scale", lambda p, h: h * p.s, s=ROW),
    make_case("scale on the left", lambda p, h: p.s * h, s=ROW),
    make_case("scale by mul", lambda p, h: torch.mul(p.s, h), s=(1, 4, 1)),
    make_case("scale used twice", lambda p, h: (h * p.s).tanh() * p.s, s=ROW),
    make_case("scale of one element", lambda p, h: h * p.s, s=(1,)),
    make_case("shift", lambda p, h: h + p.s, s=ROW),
    make_case("shift on the left", lambda p, h: p.s + h, s=(4, 6)),
    make_case("shift with alpha", lambda p, h: torch.add(h, p.s, alpha=2), s=ROW),
    make_case("difference", lambda p, h: h - p.s, s=ROW),
    make_case("difference on the left", lambda p, h: p.s - h, s=ROW),
    make_case("difference from a number", lambda p, h: h * (1 - p.s), s=ROW),
    make_case("quotient", lambda p, h: h / p.s.exp(), s=ROW),
    make_case("quotient on the left", lambda p, h: p.s / (1 + h**2), s=ROW),
    make_case("power", lambda p, h: (1 + h**2) ** p.s, s=ROW),
    make_case("in place", change_in_place, scale=ROW, shift=ROW),
    make_case("addcmul", lambda p, h: torch.addcmul(p.s, h, p.v), s=ROW, v=ROW),
    make_case("addcdiv", lambda p, h: torch.addcdiv(h, p.s, 1 + h**2), s=ROW),
    make_case("maximum", lambda p, h: torch.maximum(h, p.s), s=ROW),
    make_case("clamp", lambda p, h: torch.clamp(h, min=p.s), s=ROW),
    make_case("logaddexp", lambda p, h: torch.logaddexp(h, p.s), s=ROW),
    make_case("lerp", lambda p, h: torch.lerp(h, h.tanh(), p.s.sigmoid()), s=ROW),
    make_case("gate by where", lambda p, h: torch.where(h > 0, h * p.a, h * p.b), a=ROW, b=ROW),
    make_case("where of a parameter", lambda p, h: torch.where(h > 0, p.a, p.b), a=ROW, b=()),
    make_case("temperature", lambda p, h: (h @ h.mT) * p.s.exp(), s=()),
    make_case("Swish with a slope", lambda p, h: h * torch.sigmoid(p.s * h), s=()),
    make_case("mixture of two branches", lambda p, h: p.s[0] * h + p.s[1] * h.tanh(), s=(2,)),
    make_case(
        "softmax of weights of layers",
        lambda p, h: (
            torch.stack([h, h.tanh(), h.sin()]) * p.s.softmax(0)[:, None, None, None]
        ).sum(0),
        s=(3,),
    ),
    make_case("linear recurrence", scan, decay=ROW, gain=ROW),
    make_case("parameter without gradient", lambda p, h: h * p.s.detach() + p.s, s=ROW),
    # Products
    make_case("x @ W", lambda p, h: h @ p.W, W=MATRIX),
    make_case("x @ W + b", lambda p, h: torch.matmul(h, p.W) + p.b, W=MATRIX, b=(3,)),
    make_case("x @ w", lambda p, h: h @ p.w, w=ROW),
    make_case("W @ x", lambda p, h: p.W @ h.mT, W=(3, WIDTH)),
    make_case("W @ x of positions", lambda p, h: p.W @ h, W=(3, POSITIONS)),
    make_case("W @ x of columns", lambda p, h: (p.W @ h[:, 0, :, None])[..., 0], W=(3, WIDTH)),
    make_case("W @ samples", lambda p, h: (p.W @ h.flatten(1).mT).mT, W=(3, 24)),
    make_case("mm", lambda p, h: torch.mm(h.flatten(1), p.W), W=(24, 3)),
    make_case(
        "addmm",
        lambda p, h: torch.addmm(p.b, h.flatten(0, 1), p.W).view(len(h), -1),
        W=MATRIX,
        b=(3,),
    ),
    make_case(
        "addmm with factors",
        lambda p, h: torch.addmm(p.b, h[:, 0], p.W, beta=2, alpha=3),
        W=MATRIX,
        b=(3,),
    ),
    make_case("mv", lambda p, h: torch.mv(h.flatten(0, 1), p.w).view(len(h), -1), w=ROW),
    make_case(
        "bmm of an expanded weight", lambda p, h: torch.bmm(h, p.W.expand(len(h), -1, -1)), W=MATRIX
    ),
    make_case(
        "bmm over positions",
        lambda p, h: torch.bmm(h.transpose(0, 1), p.W).transpose(0, 1),
        W=(4, *MATRIX),
    ),
    make_case(
        "baddbmm over positions",
        lambda p, h: torch.baddbmm(p.b, h.transpose(0, 1), p.W).transpose(0, 1),
        W=(4, *MATRIX),
        b=(4, 1, 3),
    ),
    make_case("matmul over positions", lambda p, h: (h[:, :, None] @ p.W)[:, :, 0], W=(4, *MATRIX)),
    make_case("einsum", lambda p, h: torch.einsum("nti,ij->ntj", h, p.W), W=MATRIX),
    make_case(
        "einsum with the weight first",
        lambda p, h: torch.einsum("ji,nti->ntj", p.W, h),
        W=(3, WIDTH),
    ),
    make_case(
        "einsum of heads",
        lambda p, h: torch.einsum("ntkd,kde->nkte", h.unflatten(2, (2, 3)), p.W),
        W=(2, 3, 3),
    ),
    make_case(
        "einsum over positions", lambda p, h: torch.einsum("nti,tij->ntj", h, p.W), W=(4, *MATRIX)
    ),
    make_case(
        "einsum of positions and features",
        lambda p, h: torch.einsum("nti,tij->nj", h, p.W),
        W=(4, *MATRIX),
    ),
    make_case(
        "einsum of three operands",
        lambda p, h: torch.einsum("nti,ij,ntj->nt", h, p.W, h),
        W=(WIDTH, WIDTH),
    ),
    make_case("tensordot", lambda p, h: torch.tensordot(h, p.W, dims=1), W=MATRIX),
    make_case("F.linear", lambda p, h: functional.linear(h, p.W, p.b), W=(3, WIDTH), b=(3,)),
    make_case(
        "F.bilinear", lambda p, h: functional.bilinear(h, h.tanh(), p.W, p.b), W=(3, 6, 6), b=(3,)
    ),
    make_case(
        "nn.Bilinear",
        lambda p, h: p.layer(h[:, 0], h[:, 1]),
        lambda: {"layer": nn.Bilinear(6, 6, 3)},
    ),
    make_case("factorisation machine", lambda p, h: (h @ p.W) ** 2 - (h**2) @ (p.W**2), W=MATRIX),
    make_case("softplus of weights", lambda p, h: h @ functional.softplus(p.W), W=MATRIX),
    make_case("prototypes by cdist", lambda p, h: torch.cdist(h, p.W), W=(3, WIDTH)),
    make_case(
        "prototypes by broadcasting",
        lambda p, h: ((h[:, :, None] - p.W) ** 2).sum(-1),
        W=(3, WIDTH),
    ),
    make_case("prototypes by cosine", normalize, W=(3, WIDTH)),
    make_case("learnt queries", pool, queries=(3, WIDTH)),
    make_case(
        "learnt queries by matmul",
        lambda p, h: (p.queries @ h.mT).softmax(-1) @ h,
        queries=(3, WIDTH),
    ),
    make_case(
        "learnt keys and values",
        lambda p, h: (h @ p.K.mT).softmax(-1) @ p.V,
        K=(3, WIDTH),
        V=MATRIX[::-1],
    ),
    make_case("complex weights of frequencies", transform_frequencies, W=(3, 6, 2)),
    make_case("product of windows", unfold_and_multiply, W=(12, 3)),
    # Functional layers
    make_case("F.conv1d", convolve, W=(3, WIDTH, 3), b=(3,)),
    make_case(
        "F.layer_norm",
        lambda p, h: functional.layer_norm(h, ROW, p.scale, p.shift),
        scale=ROW,
        shift=ROW,
    ),
    make_case("F.rms_norm", lambda p, h: functional.rms_norm(h, ROW, p.scale), scale=ROW),
    make_case(
        "F.group_norm",
        lambda p, h: functional.group_norm(h.mT, 2, p.scale, p.shift),
        scale=ROW,
        shift=ROW,
    ),
    make_case("F.batch_norm", batch_normalize, scale=ROW, shift=ROW),
    make_case("F.prelu", lambda p, h: functional.prelu(h.mT, p.a), a=ROW),
    # Rows chosen by the samples
    make_case("indexed by the samples", lambda p, h: h + p.W[choose(h, 9)], W=PLACES),
    make_case("F.embedding", lambda p, h: h + functional.embedding(choose(h, 9), p.W), W=PLACES),
    make_case(
        "index_select", lambda p, h: h[:, 0] + p.W.index_select(0, choose(h, 9)[:, 0]), W=PLACES
    ),
    make_case("take of weights", lambda p, h: h * p.w.take(choose(h, 9))[..., None], w=(9,)),
    make_case(
        "gather of weights",
        lambda p, h: h * p.w.expand(len(h), -1).gather(1, choose(h, 9))[..., None],
        w=(9,),
    ),
    make_case(
        "one-hot rows of a weight",
        lambda p, h: h + functional.one_hot(choose(h, 9), 9).to(h) @ p.W,
        W=PLACES,
    ),
    *(
        make_case(
            f"EmbeddingBag, {mode}",
            lambda p, h: p.bag(choose(h, 9)),
            lambda mode=mode: {"bag": nn.EmbeddingBag(9, WIDTH, mode=mode)},
        )
        for mode in ("sum", "mean", "max")
    ),
    make_case(
        "EmbeddingBag with weights of samples",
        lambda p, h: p.bag(choose(h, 9), per_sample_weights=h[..., 1]),
        lambda: {"bag": nn.EmbeddingBag(9, WIDTH, mode="sum")},
    ),
    make_case("EmbeddingBag with offsets of bags of different length", embed_bags, make_bag),
    make_case(
        "EmbeddingBag with offsets",
        lambda p, h: p.bag(choose(h, 9).flatten(), POSITIONS * torch.arange(len(h))),
        make_bag,
    ),
]
