"""The networks that gpu.py measures, with random weights: nothing is downloaded."""

import functools
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lib.networks import make_cnn, make_perceptron

STATISTICS_ROWS = 8
SMALL_ROWS, SMALL_PAIRS, SMALL_BATCH = 12, 6, 4


class LastPosition(nn.Module):
    """Two outputs from the last position of a body whose first result is (n, t, width)."""

    def __init__(self, body, width):
        super().__init__()
        self.body, self.head = body, nn.Linear(width, 2)

    def forward(self, tokens):
        """Take the numbers of words, (n, t)."""
        return self.head(self.body(tokens)[0][:, -1])


def lstm(small):
    """Make an LSTM over words."""
    words, width = (100, 16) if small else (5000, 256)
    body = nn.Sequential(nn.Embedding(words, width), nn.LSTM(width, width, batch_first=True))
    return LastPosition(body, width)


def resnet(depth):
    """Make a residual network of torchvision."""
    from torchvision import models

    return getattr(models, f"resnet{depth}")()


def vision_transformer(small):
    """Make ViT-B/16, or a tiny one."""
    from torchvision import models

    return models.VisionTransformer(64, 16, 2, 2, 32, 64) if small else models.vit_b_16()


def bert(small):
    """Make BERT-base, or a tiny one, below a head of two outputs."""
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(**sizes, intermediate_size=64) if small else BertConfig()
    return LastPosition(BertModel(config, add_pooling_layer=False), config.hidden_size)


def gpt2(small):
    """Make GPT-2, or a tiny one, below a head of two outputs.

    Without a padding token: with one, transformers looks for it in the input, which torch.func's
    vmap does not allow.
    """
    from transformers import GPT2Config, GPT2Model

    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2} if small else {}
    config = GPT2Config(**sizes, use_cache=False)
    return LastPosition(GPT2Model(config), config.n_embd)


@dataclass(frozen=True)
class Case:
    """A network, the shape of a row (an image, or numbers of ``words``), and how many are used.

    ``rows`` are for passes, ``pairs`` for grams, ``batch`` for an epoch and for torch.func.
    """

    name: str
    make: Any
    shape: tuple
    small_shape: tuple
    rows: int
    pairs: int
    batch: int
    words: int = 0
    package: str = "torch"
    small: bool = False

    def reduced(self):
        """Return the case with a tiny network and few rows."""
        return replace(
            self,
            shape=self.small_shape,
            rows=min(self.rows, SMALL_ROWS),
            pairs=min(self.pairs, SMALL_PAIRS),
            batch=min(self.batch, SMALL_BATCH),
            small=True,
        )


@functools.cache
def drawn(case):
    """Draw the network, in eval mode on the CPU, and its rows."""
    torch.manual_seed(0)
    network, shape = case.make(case.small), (case.rows, *case.shape)
    X = torch.randint(1, case.words, shape) if case.words else torch.randn(shape)
    normalized(network, X[:STATISTICS_ROWS])
    return network.eval(), X


def normalized(network, X):
    """Give layers the statistics of some rows: with none, activations grow from block to block."""
    layers = [part for part in network.modules() if isinstance(part, _BatchNorm)]
    for layer in layers:
        layer.momentum = 1.0
    if layers:
        with torch.no_grad():
            network.train()(X)


IMAGES = ((3, 224, 224), (3, 64, 64))
TEXTS = ((128,), (8,))
VISION, TRANSFORMERS = {"package": "torchvision"}, {"package": "transformers", "words": 30_000}
CASES = (
    Case("MLP", lambda small: make_perceptron(10), (64,), (64,), 50_000, 4_000, 2_048),
    Case("CNN", lambda small: make_cnn(10), (1, 28, 28), (1, 28, 28), 20_000, 4_000, 512),
    Case("ResNet-18", lambda small: resnet(18), *IMAGES, 1_024, 256, 64, **VISION),
    Case("ResNet-50", lambda small: resnet(50), *IMAGES, 512, 128, 32, **VISION),
    Case("BERT-base", bert, *TEXTS, 256, 48, 32, **TRANSFORMERS),
    Case("ViT-B/16", vision_transformer, *IMAGES, 256, 48, 32, **VISION),
    Case("GPT-2", gpt2, *TEXTS, 128, 32, 16, **TRANSFORMERS),
    Case("LSTM", lstm, (32,), (6,), 128, 64, 64, words=100),
)
