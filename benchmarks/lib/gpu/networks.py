"""Networks that gpu.py measures, with random weights, so that nothing is downloaded."""

import functools
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from lib.networks import LastPosition, make_cnn, make_perceptron, set_statistics

#: Largest numbers of samples, samples of a gram matrix, and samples of a batch with ``--small``.
SMALL_SAMPLES, SMALL_GRAM_SAMPLES, SMALL_BATCH = 12, 6, 4
#: Outputs of the networks that read words.
OUTPUTS = 2


def make_lstm(small):
    """Make an LSTM that reads words."""
    words, width = (100, 16) if small else (5000, 256)
    body = nn.Sequential(nn.Embedding(words, width), nn.LSTM(width, width, batch_first=True))
    return LastPosition(body, width, OUTPUTS)


def make_resnet(depth):
    """Make a residual network of torchvision."""
    from torchvision import models

    return getattr(models, f"resnet{depth}")()


def make_vision_transformer(small):
    """Make ViT-B/16, or a tiny vision transformer."""
    from torchvision import models

    return models.VisionTransformer(64, 16, 1, 2, 32, 64) if small else models.vit_b_16()


def make_bert(small):
    """Make BERT-base, or a tiny BERT, with a head of two outputs."""
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(**sizes, intermediate_size=64) if small else BertConfig()
    return LastPosition(BertModel(config, add_pooling_layer=False), config.hidden_size, OUTPUTS)


def make_gpt2(small):
    """Make GPT-2, or a tiny one, with a head of two outputs.

    It has no padding token. With a padding token, transformers searches the input for it, which
    vmap of torch.func does not support.
    """
    from transformers import GPT2Config, GPT2Model

    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2} if small else {}
    config = GPT2Config(**sizes, use_cache=False)
    return LastPosition(GPT2Model(config), config.n_embd, OUTPUTS)


@dataclass(frozen=True)
class Case:
    """A network with the shape and the number of its samples.

    Attributes
    ----------
    name : str
        Name in the tables.
    make : function
        Function of ``small`` that makes the network.
    shape, small_shape : tuple of int
        Shape of a sample, for the network and for the tiny network.
    samples : int
        Number of samples of an epoch and of a density.
    gram_samples : int
        Number of samples of a gram matrix.
    batch : int
        Batch size of an epoch and of torch.func.
    words : int
        Number of different words if a sample is a text, 0 if it is an image or a vector.
    package : str
        Package that the network comes from.
    small : bool
        If true, the network is tiny.
    """

    name: str
    make: Any
    shape: tuple
    small_shape: tuple
    samples: int
    gram_samples: int
    batch: int
    words: int = 0
    package: str = "torch"
    small: bool = False

    def shrink(self):
        """Return the case with a tiny network and few samples."""
        return replace(
            self,
            shape=self.small_shape,
            samples=min(self.samples, SMALL_SAMPLES),
            gram_samples=min(self.gram_samples, SMALL_GRAM_SAMPLES),
            batch=min(self.batch, SMALL_BATCH),
            small=True,
        )


@functools.cache
def draw_network_and_samples(case):
    """Return the network of a case, in eval mode on the CPU, and random samples for it."""
    torch.manual_seed(0)
    network, shape = case.make(case.small), (case.samples, *case.shape)
    X = torch.randint(1, case.words, shape) if case.words else torch.randn(shape)
    set_statistics(network, X)
    return network.eval(), X


IMAGES = ((3, 224, 224), (3, 64, 64))
TEXTS = ((128,), (8,))
VISION, TRANSFORMERS = {"package": "torchvision"}, {"package": "transformers", "words": 30_000}
CASES = (
    Case("MLP", lambda small: make_perceptron(10), (64,), (64,), 50_000, 4_000, 2_048),
    Case("CNN", lambda small: make_cnn(10), (1, 28, 28), (1, 28, 28), 20_000, 4_000, 512),
    Case("ResNet-18", lambda small: make_resnet(18), *IMAGES, 1_024, 256, 64, **VISION),
    Case("ResNet-50", lambda small: make_resnet(50), *IMAGES, 512, 128, 32, **VISION),
    Case("BERT-base", make_bert, *TEXTS, 256, 48, 32, **TRANSFORMERS),
    Case("ViT-B/16", make_vision_transformer, *IMAGES, 256, 48, 32, **VISION),
    Case("GPT-2", make_gpt2, *TEXTS, 128, 32, 16, **TRANSFORMERS),
    Case("LSTM", make_lstm, (32,), (6,), 128, 64, 64, words=100),
)
