"""MNIST, and the network that somebody else trained on it, as the examples read them."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "examples"))

from _data import mnist, mnist_network

__all__ = ["mnist", "mnist_network"]
