"""Layers and networks as test cases: a name, how to build it, and how to draw inputs."""

import threading
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class Case:
    """A network and its inputs.

    ``build`` returns the network and ``draw(n)`` its inputs. ``output`` is the parameter of the
    estimators. ``reference`` converts the network to one that autograd.grad can differentiate.
    """

    name: str
    build: Any
    draw: Any
    output: Any = "all"
    reference: Any = lambda network: network


def normal(*shape):
    """Return a function that draws n normal samples of a shape, in float64."""
    return lambda n: torch.randn(n, *shape, dtype=torch.float64)


def tokens(length, vocabulary):
    """Return a function that draws n texts of a length."""
    return lambda n: torch.randint(0, vocabulary, (n, length))


def _flat(*layers, outputs=2):
    """Return a function that builds the layers and a linear layer on their flattened output."""
    return lambda: nn.Sequential(
        *[layer() for layer in layers], nn.Flatten(), nn.LazyLinear(outputs)
    )


#: Cases of one layer, with all its parameters, followed by a linear layer with two outputs.
LAYERS = [
    Case("Linear", _flat(lambda: nn.Linear(5, 4)), normal(5)),
    Case("Linear without bias", _flat(lambda: nn.Linear(5, 4, bias=False)), normal(5)),
    Case("Linear at positions", _flat(lambda: nn.Linear(5, 40)), normal(3, 5)),
    Case("Linear at few positions", _flat(lambda: nn.Linear(50, 40)), normal(2, 50)),
    Case("Linear on a grid", _flat(lambda: nn.Linear(5, 4)), normal(2, 3, 5)),
    Case(
        "Conv1d",
        _flat(lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2)),
        normal(4, 11),
    ),
    Case("Conv1d same", _flat(lambda: nn.Conv1d(3, 4, 4, padding="same")), normal(3, 7)),
    Case(
        "Conv1d valid", _flat(lambda: nn.Conv1d(3, 4, 4, padding="valid", bias=False)), normal(3, 7)
    ),
    Case(
        "Conv2d",
        _flat(lambda: nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0))),
        normal(2, 7, 6),
    ),
    Case(
        "Conv2d circular",
        _flat(lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular")),
        normal(2, 5, 4),
    ),
    Case(
        "Conv2d reflect",
        _flat(lambda: nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="reflect")),
        normal(2, 5, 4),
    ),
    Case(
        "Conv2d replicate same",
        _flat(lambda: nn.Conv2d(2, 3, (2, 3), padding="same", padding_mode="replicate")),
        normal(2, 5, 4),
    ),
    Case("Conv2d dilated", _flat(lambda: nn.Conv2d(2, 3, 2, dilation=(2, 3))), normal(2, 6, 7)),
    Case("Conv2d depthwise", _flat(lambda: nn.Conv2d(3, 6, 3, groups=3)), normal(3, 5, 5)),
    Case("Conv2d wide kernel", _flat(lambda: nn.Conv2d(12, 16, 5)), normal(12, 5, 6)),
    Case(
        "Conv3d",
        _flat(lambda: nn.Conv3d(2, 2, (2, 1, 2), stride=(1, 2, 1), padding=(0, 1, 1))),
        normal(2, 3, 4, 3),
    ),
    Case(
        "ConvTranspose1d",
        _flat(lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2)),
        normal(4, 5),
    ),
    Case(
        "ConvTranspose2d",
        _flat(lambda: nn.ConvTranspose2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 0))),
        normal(2, 4, 3),
    ),
    Case(
        "ConvTranspose2d dilated",
        _flat(
            lambda: nn.ConvTranspose2d(2, 3, 3, dilation=2, stride=1, output_padding=1, bias=False)
        ),
        normal(2, 3, 3),
    ),
    Case(
        "ConvTranspose2d at one position",
        _flat(lambda: nn.ConvTranspose2d(9, 3, 4)),
        normal(9, 1, 1),
    ),
    Case(
        "ConvTranspose3d",
        _flat(lambda: nn.ConvTranspose3d(2, 2, 2, stride=(1, 2, 1))),
        normal(2, 2, 2, 3),
    ),
    Case("Embedding", _flat(lambda: nn.Embedding(9, 4)), tokens(6, 9)),
    Case("Embedding padding_idx", _flat(lambda: nn.Embedding(9, 4, padding_idx=2)), tokens(6, 9)),
    Case("Embedding of a large vocabulary", _flat(lambda: nn.Embedding(500, 4)), tokens(3, 500)),
    Case("LayerNorm", _flat(lambda: nn.LayerNorm((3, 4))), normal(2, 3, 4)),
    Case("LayerNorm without bias", _flat(lambda: nn.LayerNorm(4, bias=False)), normal(3, 4)),
    Case("RMSNorm", _flat(lambda: nn.RMSNorm(4)), normal(3, 4)),
    Case("GroupNorm", _flat(lambda: nn.GroupNorm(2, 4)), normal(4, 3, 2)),
    Case("InstanceNorm1d", _flat(lambda: nn.InstanceNorm1d(3, affine=True)), normal(3, 5)),
    Case(
        "InstanceNorm2d",
        _flat(lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True)),
        normal(3, 4, 2),
    ),
    Case("InstanceNorm3d", _flat(lambda: nn.InstanceNorm3d(2, affine=True)), normal(2, 2, 3, 2)),
    Case("BatchNorm1d", _flat(lambda: nn.BatchNorm1d(5)), normal(5)),
    Case("BatchNorm1d at positions", _flat(lambda: nn.BatchNorm1d(5)), normal(5, 3)),
    Case("BatchNorm2d", _flat(lambda: nn.BatchNorm2d(3)), normal(3, 4, 2)),
    Case("BatchNorm3d", _flat(lambda: nn.BatchNorm3d(2)), normal(2, 3, 2, 2)),
    Case("PReLU", _flat(lambda: nn.PReLU()), normal(5)),
    Case("PReLU per channel", _flat(lambda: nn.PReLU(3)), normal(3, 4)),
]


class ResidualBlock(nn.Module):
    """Convolutions around a shortcut, with in-place activations."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 3, 3, padding=1, bias=False),
            nn.BatchNorm2d(3),
            nn.ReLU(inplace=True),
            nn.Conv2d(3, 3, 3, padding=1, bias=False),
            nn.BatchNorm2d(3),
        )
        self.head = nn.Linear(3, 4)

    def forward(self, images):
        hidden = self.body(images)
        hidden += images
        return self.head(functional.relu_(hidden).mean(dim=(2, 3)))


class Recurrent(nn.Module):
    """A recurrent classifier over tokens."""

    def __init__(self, kind, batch_first=True):
        super().__init__()
        self.batch_first = batch_first
        self.embed = nn.Embedding(11, 4, padding_idx=0)
        self.cells = kind(4, 5, batch_first=batch_first)
        self.head = nn.Linear(5, 3)

    def forward(self, words):
        embedded = self.embed(words)
        if self.batch_first:
            return self.head(self.cells(embedded)[0][:, -1])
        return self.head(self.cells(embedded.transpose(0, 1))[0][-1])


class VisionTransformer(nn.Module):
    """A network of patches, a class token, learnt positions and one attention layer."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 2, stride=2)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 5, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, images):
        patches = self.patches(images).flatten(2).transpose(1, 2)
        token = self.token.expand(len(images), -1, -1)
        hidden = torch.cat([token, patches], dim=1) + self.positions
        return self.head(self.layer(hidden)[:, 0])


class Siamese(nn.Module):
    """A network that calls its trunk twice, or once on both inputs in one batch."""

    def __init__(self, joined):
        super().__init__()
        self.joined = joined
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5))
        self.head = nn.Linear(5, 2)

    def forward(self, pair):
        first, second = pair[:, 0], pair[:, 1]
        if self.joined:
            both = self.trunk(torch.cat([first, second]))
            first, second = both[: len(pair)], both[len(pair) :]
        else:
            first, second = self.trunk(first), self.trunk(second)
        return self.head(first * second)


class TiedAutoencoder(nn.Module):
    """An autoencoder whose decoder uses the encoder's weight, transposed."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(5, 3)
        self.bias = nn.Parameter(torch.randn(5))

    def forward(self, rows):
        hidden = torch.tanh(self.encoder(rows))
        return functional.linear(hidden, self.encoder.weight.t(), self.bias)


class LanguageModel(nn.Module):
    """A language model whose last layer shares its weight with the embedding."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 5)
        self.mix = nn.Linear(5, 5)
        self.head = nn.Linear(5, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, words):
        return self.head(torch.tanh(self.mix(self.embed(words))).mean(dim=1))


class TwinLayers(nn.Module):
    """A network of two layers with the same weight and different biases."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)
        self.second.weight = self.first.weight

    def forward(self, rows):
        return self.second(torch.tanh(self.first(rows)))[:, :3]


class BagOfWords(nn.Module):
    """A mean of embeddings, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(13, 6, mode="mean")
        self.head = nn.Linear(6, 3)

    def forward(self, words):
        return self.head(self.bag(words))


class TupleOutput(nn.Module):
    """A network that returns several tensors, in a tuple or a dict."""

    def __init__(self, as_dict=False):
        super().__init__()
        self.as_dict = as_dict
        self.body, self.head = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, rows):
        hidden = torch.tanh(self.body(rows))
        scores = self.head(hidden)
        return {"hidden": hidden, "scores": scores} if self.as_dict else (hidden, scores)


class Transposed(nn.Module):
    """A network with a layer whose first axis is that of the positions."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, rows):
        hidden = torch.tanh(self.body(rows.transpose(0, 1)))
        return self.head(hidden.mean(dim=0))


class Unrolled(nn.Module):
    """A network with a layer whose first axis combines samples and positions."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, rows):
        hidden = torch.tanh(self.body(rows.reshape(-1, 4)))
        return self.head(hidden.view(len(rows), -1, 5).sum(dim=1))


class Checkpointed(nn.Module):
    """A network that computes its activations again in the backward pass."""

    def __init__(self, reentrant):
        super().__init__()
        self.reentrant = reentrant
        self.first = nn.Linear(5, 6)
        self.body = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
        self.head = nn.Linear(6, 2)

    def forward(self, rows):
        hidden = torch.tanh(self.first(rows))
        hidden = torch.utils.checkpoint.checkpoint(self.body, hidden, use_reentrant=self.reentrant)
        return self.head(hidden)


def without_reentrance(network):
    """Return the network with the kind of checkpoint that autograd.grad supports."""
    network.reentrant = False
    return network


class Closure(nn.Module):
    """A network with a function on itself, which a copy shares with the original."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(5, 6), nn.Linear(6, 2)
        self.first = lambda rows: torch.tanh(self.body(rows))

    def forward(self, rows):
        return self.head(self.first(rows))


class Uncopyable(nn.Module):
    """A network with an attribute that cannot be copied."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()
        self.body = nn.Linear(5, 2)

    def forward(self, rows):
        with self.lock:
            return self.body(rows)


class Scaled(nn.Module):
    """A network with a raw parameter and an unused layer."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(5, 3)
        self.scale = nn.Parameter(torch.randn(3))
        self.unused = nn.Linear(4, 4)

    def forward(self, rows):
        return self.body(rows) * self.scale.exp()


class OwnLinear(nn.Linear):
    """A subclass of a layer with another forward method."""

    def forward(self, rows):
        return super().forward(rows).tanh() * self.bias


class Forked(nn.Module):
    """A network with several inputs, passed by position or by name."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.head = nn.Linear(4, 5), nn.Embedding(6, 5), nn.Linear(5, 2)

    def forward(self, numbers, words):
        return self.head(
            torch.tanh(call_by_keyword(self.left, numbers)) + self.right(words).sum(dim=1)
        )


def call_by_keyword(layer, inputs):
    """Call a layer with its input as a keyword argument."""
    return layer(input=inputs)


def _mlp(outputs=3, activation=lambda: nn.ReLU(inplace=True)):
    return lambda: nn.Sequential(
        nn.Linear(5, 16), activation(), nn.Linear(16, 12), activation(), nn.Linear(12, outputs)
    )


def _cnn():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 3),
        nn.PReLU(5),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(20, 10),
    )


def _half_frozen():
    network = _mlp()()
    network[0].requires_grad_(False)
    network[2].bias.requires_grad_(False)
    network[4].weight.requires_grad_(False)
    return network


def _weight_norm(parametrized):
    def build():
        if parametrized:
            wrap = torch.nn.utils.parametrizations.weight_norm
        else:
            wrap = torch.nn.utils.weight_norm
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return nn.Sequential(wrap(nn.Linear(5, 4)), nn.Tanh(), nn.Linear(4, 2))

    return build


def _encoder(batch_first):
    def build():
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.3, batch_first=batch_first)
        return nn.Sequential(layer, nn.Flatten(), nn.Linear(24, 3))

    return build


class Attention(nn.Module):
    """A network of multi-head attention and a linear layer."""

    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(6, 2, batch_first=True), nn.Linear(6, 2)

    def forward(self, rows):
        return self.head(self.attention(rows, rows, rows)[0].mean(dim=1))


class BilinearNet(nn.Module):
    """A product of two projections."""

    def __init__(self):
        super().__init__()
        self.left, self.both = nn.Linear(5, 4), nn.Bilinear(4, 5, 3)

    def forward(self, rows):
        return self.both(torch.tanh(self.left(rows)), rows)


NETWORKS = [
    Case("MLP", _mlp(), normal(5)),
    Case("MLP with a scalar output", _mlp(1), normal(5)),
    Case("MLP with ten outputs", _mlp(10), normal(5)),
    Case("MLP with outputs (n,)", lambda: nn.Sequential(_mlp(1)(), nn.Flatten(0)), normal(5)),
    Case(
        "MLP with an image as output",
        lambda: nn.Sequential(_mlp(4)(), nn.Unflatten(1, (2, 2))),
        normal(5),
    ),
    Case("MLP with in-place ELU", _mlp(activation=lambda: nn.ELU(inplace=True)), normal(5)),
    Case("MLP, predicted", _mlp(), normal(5), output="predicted"),
    Case("MLP, sum", _mlp(), normal(5), output="sum"),
    Case("MLP, index", _mlp(), normal(5), output=-1),
    Case("MLP, indices", _mlp(), normal(5), output=[2, 0]),
    Case("CNN with BatchNorm", _cnn, normal(1, 8, 8)),
    Case("ResNet block", ResidualBlock, normal(3, 5, 5)),
    Case(
        "depthwise separable convolution",
        lambda: nn.Sequential(
            nn.Conv2d(3, 3, 3, groups=3),
            nn.Conv2d(3, 5, 1),
            nn.GELU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(5, 3),
        ),
        normal(3, 6, 6),
    ),
    Case(
        "decoder of transposed convolutions",
        lambda: nn.Sequential(
            nn.Linear(5, 8),
            nn.Unflatten(1, (8, 1, 1)),
            nn.ConvTranspose2d(8, 4, 2),
            nn.ReLU(),
            nn.ConvTranspose2d(4, 1, 2, stride=1),
        ),
        normal(5),
    ),
    Case("LSTM classifier", lambda: Recurrent(nn.LSTM), tokens(6, 11)),
    Case("GRU classifier, time first", lambda: Recurrent(nn.GRU, batch_first=False), tokens(6, 11)),
    Case("RNN classifier", lambda: Recurrent(nn.RNN), tokens(6, 11)),
    Case("transformer encoder layer", _encoder(True), normal(3, 8)),
    Case("multi-head attention", Attention, normal(3, 6)),
    Case("vision transformer with a class token", VisionTransformer, normal(1, 4, 4)),
    Case("Siamese net calling its trunk twice", lambda: Siamese(joined=False), normal(2, 4)),
    Case("Siamese net with one joined call", lambda: Siamese(joined=True), normal(2, 4)),
    Case("tied autoencoder", TiedAutoencoder, normal(5)),
    Case("language model with tied embedding", LanguageModel, tokens(4, 7)),
    Case("twin layers with one weight", TwinLayers, normal(5)),
    Case("embedding bag of words", BagOfWords, tokens(5, 13)),
    Case("weight_norm", _weight_norm(True), normal(5)),
    Case("old-style weight_norm", _weight_norm(False), normal(5)),
    Case("half of it frozen", _half_frozen, normal(5)),
    Case("tuple output", TupleOutput, normal(5), output=lambda raw: raw[1]),
    Case(
        "dict output",
        lambda: TupleOutput(as_dict=True),
        normal(5),
        output=lambda raw: raw["scores"],
    ),
    Case("positions before samples", Transposed, normal(3, 4)),
    Case("samples and positions in one axis", Unrolled, normal(3, 4)),
    Case("checkpointed", lambda: Checkpointed(reentrant=False), normal(5)),
    Case(
        "checkpointed, reentrant",
        lambda: Checkpointed(reentrant=True),
        normal(5),
        reference=without_reentrance,
    ),
    Case("closure on itself", Closure, normal(5)),
    Case("not copyable", Uncopyable, normal(5)),
    Case("raw and unused parameters", Scaled, normal(5)),
    Case("subclass of Linear", lambda: nn.Sequential(OwnLinear(5, 4), nn.Linear(4, 2)), normal(5)),
    Case("Bilinear", BilinearNet, normal(5)),
    Case(
        "a module registered twice",
        lambda: nn.Sequential(*[nn.Linear(5, 5)] * 2, nn.Linear(5, 2)),
        normal(5),
    ),
]


def build(case, n_samples=6, dtype=torch.float64, seed=0):
    """Return the network of a case, with random statistics, and inputs for it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network, X = case.build().double(), case.draw(n_samples)
        network.eval()(X[:2])
        for buffer_name, buffer in network.named_buffers():
            if buffer_name.endswith("running_mean"):
                buffer.normal_()
            if buffer_name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.data += 0.3 * torch.randn_like(parameter)
    cast = X.to(dtype) if X.is_floating_point() else X
    return network.to(dtype), cast
