"""What the scripts that write tables have in common."""

import argparse
import platform
import re
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch

#: Where tables and pictures are written.
RESULTS = Path(__file__).parents[1] / "results"


def processor():
    """The processor's name."""
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def setting(packages):
    """When and where figures were measured, and with which versions."""
    versions = "".join(f", {name} {version(name)}" for name in packages)
    return (
        f"Measured on {date.today()}: {processor()}, {torch.get_num_threads()} threads, Python"
        f" {platform.python_version()}, torch {torch.__version__}{versions}"
    )


def row(*cells):
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def head(columns):
    """The first lines of a table."""
    yield row(*columns)
    yield "|---" * len(columns) + "|"


def spread(values, form):
    """The least and the most of some figures."""
    return f"{min(values):{form}} to {max(values):{form}}"


def run(script, description, quick_help, lines):
    """Print ``lines(quick)`` as they come and, unless it was quick, write them to RESULTS.

    A run that is cut off leaves what it has measured.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help=quick_help)
    quick = parser.parse_args().quick
    kept = [] if quick else [(RESULTS / f"{Path(script).stem}.md").open("w")]
    for line in lines(quick):
        for file in (sys.stdout, *kept):
            print(line, file=file, flush=True)
