"""Which modules have doctests that can run here."""

from importlib.util import find_spec

collect_ignore = (
    [] if find_spec("skactiveml") else ["sknetsim/_skactiveml.py", "sknetsim/adapters.py"]
)
#: Scripts, which run when they are imported.
collect_ignore_glob = ["docs/*.py", "examples/*"]
