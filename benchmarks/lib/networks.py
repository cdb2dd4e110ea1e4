"""The networks that are measured, and rows for them."""

import torch
from torch import nn

SHAPES = {"MLP": (64,), "CNN": (1, 28, 28)}


def perceptron(outputs):
    """64-512-512-d."""
    return nn.Sequential(
        nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, outputs)
    )


def convolutional(outputs):
    """The network of the paper's MNIST experiment, with ReLU and maxima."""
    features = [nn.Conv2d(1, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 5), nn.ReLU()]
    head = [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1024, 256), nn.ReLU(), nn.Linear(256, outputs)]
    return nn.Sequential(*features, *head)


def network_and_rows(kind, outputs, count):
    """The same ones in every process."""
    torch.manual_seed(0)
    network = {"MLP": perceptron, "CNN": convolutional}[kind](outputs)
    return network, torch.randn(count, *SHAPES[kind])


def product_widths(network):
    """Lengths of the rows whose products make similarities.

    A convolution's gradients are multiplied as they are; a linear layer's are outer products, whose
    products are those of activations times those of cotangents.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            yield sum(parameter.numel() for parameter in layer.parameters())
        elif isinstance(layer, nn.Linear):
            yield from (layer.in_features, layer.out_features)
