"""Networks of ``layers.py``, with random weights and without dropout, and random samples for them.

Index legend: n samples, t positions, i features, d outputs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from lib.networks import LastPosition, make_cnn, make_perceptron, set_statistics

WIDTH, POSITIONS, WORDS = 128, 32, 1_000
RANK = 8
QUICK = 8


class MeanPosition(nn.Module):
    """Linear head on the mean over the positions of a body's output (n, t, i)."""

    def __init__(self, body, width, outputs):
        super().__init__()
        self.body, self.head = body, nn.Linear(width, outputs)

    def forward(self, sequences):
        """Return the outputs (n, d)."""
        return self.head(self.body(sequences).mean(1))


class VisionTransformer(nn.Module):
    """Transformer on 64 patches of an image, with a class token and learnt positions."""

    def __init__(self, outputs):
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.randn(1, 65, WIDTH) / 8)
        self.encoder, self.head = make_encoder(), nn.Linear(WIDTH, outputs)

    def forward(self, images):
        """Return the outputs (n, d) of images (n, 3, 32, 32)."""
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = self.token.expand(len(images), -1, -1)
        hidden = torch.cat([tokens, patches], dim=1) + self.positions
        return self.head(self.encoder(hidden)[:, 0])


class ResidualBlock(nn.Module):
    """Two convolutions around a shortcut."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.first = make_convolution(inputs, width, 3, stride)
        self.second = make_convolution(width, width, 3)
        same = stride == 1 and inputs == width
        self.shortcut = nn.Identity() if same else make_convolution(inputs, width, 1, stride)

    def forward(self, images):
        """Return the images after the block."""
        return (self.second(self.first(images).relu()) + self.shortcut(images)).relu()


class LowRankLinear(nn.Module):
    """Frozen linear layer plus a trainable product of two thin matrices."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.down = nn.Parameter(torch.randn(RANK, layer.in_features) / layer.in_features**0.5)
        self.up = nn.Parameter(torch.randn(layer.out_features, RANK) / RANK)

    def forward(self, hidden):
        """Return the layer's outputs."""
        low = nn.functional.linear(hidden, self.down)
        return self.layer(hidden) + nn.functional.linear(low, self.up)


class RawLayer(nn.Module):
    """Linear layer and scale whose parameters are no module's: ``(x @ W + b) * s``."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = nn.Parameter(torch.ones(outputs))

    def forward(self, rows):
        """Return the layer's outputs."""
        return (rows @ self.weight + self.bias) * self.scale


class TemporalBlock(nn.Module):
    """Two convolutions over time with normalised weights, around a shortcut."""

    def __init__(self):
        super().__init__()
        first, second = (weight_norm(nn.Conv1d(WIDTH, WIDTH, 3, padding=1)) for _ in range(2))
        self.layers = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())

    def forward(self, sequences):
        """Return the sequences (n, i, t) after the block."""
        return self.layers(sequences) + sequences


def make_convolution(inputs, outputs, size, stride=1, groups=1):
    """Make a convolution without bias, followed by batch normalisation."""
    padding = size // 2
    layer = nn.Conv2d(inputs, outputs, size, stride, padding, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


def make_encoder():
    """Make the encoder of a transformer with two layers."""
    layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def make_recurrent(kind, outputs):
    """Make a recurrent network with two bidirectional layers."""
    body = kind(WIDTH, WIDTH, num_layers=2, bidirectional=True, batch_first=True)
    return LastPosition(body, 2 * WIDTH, outputs)


def make_bert(outputs):
    """Make a BERT with two layers."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=4 * WIDTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return LastPosition(BertModel(config, add_pooling_layer=False), WIDTH, outputs)


def make_gpt2(outputs):
    """Make a GPT-2 with two layers."""
    from transformers import GPT2Config, GPT2Model

    dropouts = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    sizes = {"n_embd": WIDTH, "n_layer": 2, "n_head": 2}
    config = GPT2Config(
        vocab_size=WORDS,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
        **sizes,
        **dropouts,
    )
    return LastPosition(GPT2Model(config), WIDTH, outputs)


def make_adapted_bert(outputs):
    """Make a frozen BERT with trainable adapters of its queries and values, and a head."""
    network = make_bert(outputs)
    network.body.requires_grad_(False)
    for layer in network.body.encoder.layer:
        attention = layer.attention.self
        attention.query = LowRankLinear(attention.query)
        attention.value = LowRankLinear(attention.value)
    return network


def make_resnet(outputs):
    """Make a ResNet-18 for small images: a first convolution 3 x 3, and no pooling after it."""
    blocks, inputs = [], 64
    for width in (64, 128, 256, 512):
        blocks += [ResidualBlock(inputs, width, stride=1 if width == 64 else 2)]
        blocks += [ResidualBlock(width, width, stride=1)]
        inputs = width
    stem = [make_convolution(3, 64, 3), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, outputs)]
    return nn.Sequential(*stem, *blocks, *head)


def make_depthwise(outputs):
    """Make a network of depthwise and pointwise convolutions."""
    layers, inputs = [make_convolution(3, 64, 3, stride=2), nn.ReLU()], 64
    for width, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)):
        layers += [make_convolution(inputs, inputs, 3, stride, groups=inputs), nn.ReLU()]
        layers += [make_convolution(inputs, width, 1), nn.ReLU()]
        inputs = width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, outputs)]
    return nn.Sequential(*layers, *head)


def make_temporal(outputs):
    """Make a network of convolutions over time whose weights are normalised."""
    layers = [TemporalBlock(), TemporalBlock(), nn.AdaptiveAvgPool1d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, outputs))


def make_raw(outputs):
    """Make the perceptron 64-512-512-d of raw parameters."""
    return nn.Sequential(
        RawLayer(64, 512), nn.ReLU(), RawLayer(512, 512), nn.ReLU(), RawLayer(512, outputs)
    )


@dataclass(frozen=True)
class Case:
    """A network, the shape of its samples, and their numbers.

    ``make`` is a function of the number of outputs. ``words`` is the number of different words if a
    sample is a text. Densities are those of ``count`` samples, gram matrices of ``gram_count``.
    """

    make: Callable
    shape: tuple
    count: int = 256
    gram_count: int = 512
    words: int = 0

    def shorten(self):
        """Return the case with fewer samples."""
        return replace(self, count=self.count // QUICK, gram_count=self.gram_count // QUICK)

    def draw(self, outputs, count):
        """Return the network, in eval mode, and random samples."""
        torch.manual_seed(0)
        network, shape = self.make(outputs), (count, *self.shape)
        X = torch.randint(1, self.words, shape) if self.words else torch.randn(shape)
        set_statistics(network, X)
        return network.eval(), X


SEQUENCE, IMAGE, TEXT = (POSITIONS, WIDTH), (3, 32, 32), {"shape": (POSITIONS,), "words": WORDS}
CASES = {
    "LSTM": Case(lambda outputs: make_recurrent(nn.LSTM, outputs), SEQUENCE),
    "GRU": Case(lambda outputs: make_recurrent(nn.GRU, outputs), SEQUENCE),
    "RNN": Case(lambda outputs: make_recurrent(nn.RNN, outputs), SEQUENCE),
    "TransformerEncoder": Case(lambda d: MeanPosition(make_encoder(), WIDTH, d), SEQUENCE),
    "BERT": Case(make_bert, **TEXT),
    "GPT-2": Case(make_gpt2, **TEXT),
    "ViT": Case(VisionTransformer, IMAGE),
    "ResNet-18": Case(make_resnet, IMAGE, 64, 64),
    "depthwise CNN": Case(make_depthwise, IMAGE, 512),
    "LoRA": Case(make_adapted_bert, **TEXT),
    "weight_norm": Case(make_temporal, (WIDTH, POSITIONS), 512),
    "raw parameters": Case(make_raw, (64,), 4_096),
    "MLP": Case(make_perceptron, (64,), 4_096),
    "CNN": Case(make_cnn, (1, 28, 28), 1_024),
}
