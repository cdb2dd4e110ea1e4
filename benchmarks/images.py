"""Data and a network of others, read out of installed packages as the examples do."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "examples"))

from _data import _file as located
from _data import mnist, mnist_network

__all__ = ["located", "mnist", "mnist_network"]
