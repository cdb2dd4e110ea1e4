"""Untrained networks, and random samples for them."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

SHAPES = {"MLP": (64,), "CNN": (1, 28, 28)}
#: Samples from which batch normalisation takes its means and variances.
STATISTICS_SAMPLES = 8


def make_perceptron(outputs):
    """Make a perceptron 64-512-512-d."""
    return nn.Sequential(
        nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, outputs)
    )


def make_cnn(outputs):
    """Make the network of the paper's MNIST experiment, with ReLU and max pooling."""
    features = [nn.Conv2d(1, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 5), nn.ReLU()]
    head = [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1024, 256), nn.ReLU(), nn.Linear(256, outputs)]
    return nn.Sequential(*features, *head)


class PaperNetwork(nn.Sequential):
    """Network of the paper's MNIST experiment, with PReLU and average pooling: 317,069 parameters.

    Its inputs are images (n, 1, 28, 28), its outputs ten logits.
    """

    def __init__(self):
        first = [nn.Conv2d(1, 32, 5), nn.PReLU(), nn.AvgPool2d(2)]
        second = [nn.Conv2d(32, 64, 5), nn.PReLU(), nn.AvgPool2d(2)]
        last = [nn.Flatten(), nn.Linear(1024, 256), nn.PReLU(), nn.Linear(256, 10)]
        super().__init__(*first, *second, *last)


class LastPosition(nn.Module):
    """Linear head at the last position of a body.

    The first result of the body has the shape (n, t, width).
    """

    def __init__(self, body, width, outputs):
        super().__init__()
        self.body, self.head = body, nn.Linear(width, outputs)

    def forward(self, sequences):
        """Return the outputs (n, d) of sequences (n, t) or (n, t, i)."""
        return self.head(self.body(sequences)[0][:, -1])


def set_statistics(network, X):
    """Set the means and variances of batch normalisation to those of the first samples.

    With the initial ones, activations would grow from block to block.
    """
    layers = [part for part in network.modules() if isinstance(part, _BatchNorm)]
    for layer in layers:
        layer.momentum = 1.0
    if layers:
        with torch.no_grad():
            network.train()(X[:STATISTICS_SAMPLES])


def make_network_and_samples(kind, outputs, count):
    """Make an "MLP" or a "CNN" and samples for it, the same in every process."""
    torch.manual_seed(0)
    network = {"MLP": make_perceptron, "CNN": make_cnn}[kind](outputs)
    return network, torch.randn(count, *SHAPES[kind])


def list_product_widths(network):
    """Yield the widths of the matrices whose products are needed for the gram matrix.

    The gradients of a convolution are multiplied directly. The gradient of a linear layer is an
    outer product of activations a and cotangents c, so that
    <a_n c_n^T, a_m c_m^T> = <a_n, a_m> <c_n, c_m>.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            yield sum(parameter.numel() for parameter in layer.parameters())
        elif isinstance(layer, nn.Linear):
            yield from (layer.in_features, layer.out_features)
