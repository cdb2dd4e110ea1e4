"""Multi-head attention and torch's transformers.

Index legend: n samples, t positions, i features.
"""

import torch
from torch import nn

from .common import POSITIONS, WIDTH, make_case

CAUSAL = nn.Transformer.generate_square_subsequent_mask(POSITIONS, dtype=torch.float64)


def make_attention(**options):
    """Return a function that makes multi-head attention of two heads in a dict."""
    return lambda: {"layer": nn.MultiheadAttention(WIDTH, 2, **options)}


def make_cross(**options):
    """Return a function that makes attention to keys and values of other widths in a dict."""

    def make():
        layer = nn.MultiheadAttention(WIDTH, 2, batch_first=True, **options)
        return {"layer": layer, "keys": nn.Linear(WIDTH, 5), "values": nn.Linear(WIDTH, 3)}

    return make


def find_padding(h):
    """Return which positions are padding (n, t): never the first one."""
    padding = h[..., 0] > 0.3
    padding[:, 0] = False
    return padding


def attend(p, h, **options):
    """Return self-attention with the samples first."""
    return p.layer(h, h, h, **options)[0]


def attend_time_first(p, h, **options):
    """Return self-attention with the positions first."""
    h = h.transpose(0, 1)
    return p.layer(h, h, h, **options)[0].transpose(0, 1)


def attend_with_weights(p, h, **options):
    """Return self-attention and its weights in one vector per sample."""
    outputs, weights = p.layer(h, h, h, **options)
    return torch.cat([outputs.flatten(1), weights.flatten(1)], dim=1)


def attend_to_others(p, h):
    """Return attention of two positions to keys and values of other widths."""
    return p.layer(h[:, :2], p.keys(h), p.values(h), need_weights=False)[0]


def attend_across(p, h):
    """Return attention of one tensor to another, which is both key and value."""
    others = p.values(h)
    return p.layer(h[:, :2], others, others)[0]


def attend_with_three_inputs(p, h):
    """Return attention whose query, key and value are different tensors of one width."""
    return p.layer(h, h.tanh(), h.sin())[0]


def mask_heads(h):
    """Return a mask (2 n, t, t) of each head of each sample, by its own values."""
    mask = (h[:, None, :, None, 0] * h[:, None, None, :, 1]) > 0.2
    mask = mask.expand(-1, 2, -1, -1) & ~torch.eye(h.shape[1], dtype=torch.bool)
    return mask.flatten(0, 1)


def decode(p, h):
    """Return the decoder's output for the first positions, with all of them as its memory."""
    return p.layer(h[:, :2], h)


def translate(p, h):
    """Return the output of a whole transformer."""
    return p.layer(h, h[:, 1:], tgt_mask=CAUSAL[:3, :3].to(h))


def translate_time_first(p, h):
    """Return the output of a whole transformer with the positions first."""
    h = h.transpose(0, 1)
    return p.layer(h, h[1:]).transpose(0, 1)


def make_encoder(layers=2, norm=False, **options):
    """Return a function that makes an encoder in a dict."""

    def make():
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 7, **options)
        last = nn.LayerNorm(WIDTH) if norm else None
        encoder = nn.TransformerEncoder(layer, layers, last, enable_nested_tensor=False)
        for parameter in encoder.parameters():
            # The layers are copies of one layer.
            parameter.data += 0.1 * torch.randn_like(parameter)
        return {"layer": encoder}

    return make


def make_decoder(**options):
    """Return a function that makes a decoder in a dict."""

    def make():
        layer = nn.TransformerDecoderLayer(WIDTH, 2, 7, batch_first=True, **options)
        return {"layer": nn.TransformerDecoder(layer, 2)}

    return make


def make_transformer(**options):
    """Return a function that makes a whole transformer in a dict."""
    return lambda: {"layer": nn.Transformer(WIDTH, 2, 1, 1, 7, **options)}


def make_frozen(*names):
    """Return a function that makes attention with frozen parameters in a dict."""

    def make():
        layer = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        for name in names:
            layer.get_parameter(name).requires_grad_(False)
        return {"layer": layer}

    return make


FIRST = {"batch_first": True}
CASES = [
    make_case("attention", attend, make_attention(**FIRST)),
    make_case("attention, time first", attend_time_first, make_attention()),
    make_case(
        "attention without weights",
        lambda p, h: attend(p, h, need_weights=False),
        make_attention(**FIRST),
    ),
    make_case(
        "attention without weights, time first",
        lambda p, h: attend_time_first(p, h, need_weights=False),
        make_attention(),
    ),
    make_case("attention and its weights", attend_with_weights, make_attention(**FIRST)),
    make_case(
        "attention and the weights of each head",
        lambda p, h: attend_with_weights(p, h, average_attn_weights=False),
        make_attention(**FIRST),
    ),
    make_case("attention without bias", attend, make_attention(bias=False, **FIRST)),
    make_case("attention, inputs frozen", attend, make_frozen("in_proj_weight", "in_proj_bias")),
    make_case("attention, half frozen", attend, make_frozen("in_proj_bias", "out_proj.weight")),
    make_case("attention with dropout", attend, make_attention(dropout=0.5, **FIRST)),
    make_case(
        "attention, mask of numbers",
        lambda p, h: attend(p, h, attn_mask=CAUSAL.to(h)),
        make_attention(**FIRST),
    ),
    make_case(
        "attention, causal",
        lambda p, h: attend(p, h, attn_mask=CAUSAL.to(h), is_causal=True, need_weights=False),
        make_attention(**FIRST),
    ),
    make_case(
        "attention, mask of booleans",
        lambda p, h: attend(p, h, attn_mask=CAUSAL < 0),
        make_attention(**FIRST),
    ),
    make_case(
        "attention, mask of each head",
        lambda p, h: attend(p, h, attn_mask=mask_heads(h)),
        make_attention(**FIRST),
    ),
    make_case(
        "attention, padding",
        lambda p, h: attend(p, h, key_padding_mask=find_padding(h)),
        make_attention(**FIRST),
    ),
    make_case(
        "attention, padding and mask, time first",
        lambda p, h: attend_time_first(
            p, h, key_padding_mask=find_padding(h), attn_mask=CAUSAL < 0, need_weights=False
        ),
        make_attention(),
    ),
    make_case("attention, add_bias_kv", attend, make_attention(add_bias_kv=True, **FIRST)),
    make_case(
        "attention, add_bias_kv, time first", attend_time_first, make_attention(add_bias_kv=True)
    ),
    make_case("attention, add_zero_attn", attend, make_attention(add_zero_attn=True, **FIRST)),
    make_case(
        "attention, add_bias_kv, add_zero_attn, padding",
        lambda p, h: attend(p, h, key_padding_mask=find_padding(h)),
        make_attention(add_bias_kv=True, add_zero_attn=True, **FIRST),
    ),
    make_case("attention, kdim and vdim", attend_to_others, make_cross(kdim=5, vdim=3)),
    make_case(
        "attention, kdim and vdim, add_bias_kv",
        attend_to_others,
        make_cross(kdim=5, vdim=3, add_bias_kv=True, bias=False),
    ),
    make_case("attention, cross, one memory", attend_across, make_cross(kdim=3, vdim=3)),
    make_case("attention, three inputs", attend_with_three_inputs, make_attention(**FIRST)),
    make_case("encoder", lambda p, h: p.layer(h), make_encoder(**FIRST)),
    make_case(
        "encoder, time first",
        lambda p, h: p.layer(h.transpose(0, 1)).transpose(0, 1),
        make_encoder(),
    ),
    make_case(
        "encoder, norm first, GELU",
        lambda p, h: p.layer(h),
        make_encoder(norm=True, norm_first=True, activation="gelu", **FIRST),
    ),
    make_case("encoder without bias", lambda p, h: p.layer(h), make_encoder(bias=False, **FIRST)),
    make_case(
        "encoder, padding",
        lambda p, h: p.layer(h, src_key_padding_mask=find_padding(h)),
        make_encoder(**FIRST),
    ),
    make_case(
        "encoder, causal",
        lambda p, h: p.layer(h, mask=CAUSAL.to(h), is_causal=True),
        make_encoder(**FIRST),
    ),
    make_case("decoder", decode, make_decoder()),
    make_case("decoder, norm first", decode, make_decoder(norm_first=True)),
    make_case("transformer", translate, make_transformer(batch_first=True)),
    make_case("transformer, time first", translate_time_first, make_transformer()),
]
