"""Data sets that are read from installed packages."""

from importlib.metadata import distribution
from pathlib import Path


def locate_file(package, path):
    """Return the path of a file of an installed distribution, which is not imported."""
    return Path(str(distribution(package).locate_file(path)))
