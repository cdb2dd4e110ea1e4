"""Third-party network and real images for tests, from `sknetsim.datasets`."""

import pytest
import torch

from sknetsim import datasets


def load_or_skip(load, *arguments):
    """Return what a loader returns, or skip the test, with the reason, if its package is absent."""
    try:
        return load(*arguments)
    except ImportError as error:
        pytest.skip(str(error))


def digit_recognizer():
    """Return a convolutional network of 390,410 parameters, trained on MNIST by its author."""
    return load_or_skip(datasets.load_mnist_network)


def mnist(part, count):
    """Return the first images as inputs of the network, and their labels, as tensors."""
    digits = load_or_skip(datasets.load_mnist, part, count)
    return torch.from_numpy(digits.inputs), torch.from_numpy(digits.labels)
