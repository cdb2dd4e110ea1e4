"""Format and files of the reports that all benchmark scripts write."""

import argparse
import platform
import re
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch

#: Folder of all tables and pictures.
RESULTS = Path(__file__).parents[1] / "results"


def name_processor():
    """Return the name of the processor."""
    match = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return match[1] if match else platform.machine()


def describe_environment(packages):
    """Return the date, the machine, and the versions of Python, torch and ``packages``."""
    versions = "".join(f", {name} {version(name)}" for name in packages)
    count = torch.get_num_threads()
    threads = "1 thread" if count == 1 else f"{count} threads"
    return (
        f"Measured on {date.today()}: {name_processor()}, {threads}, Python"
        f" {platform.python_version()}, torch {torch.__version__}{versions}"
    )


def format_title(script, title, packages, note=""):
    """Yield the lines that begin a report: its title, its script and the environment."""
    yield from (f"# {title}", "", f"Written by `benchmarks/{Path(script).name}`.")
    yield from ("", f"{describe_environment(packages)}{note}.", "")


def format_row(*cells):
    """Format one row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def format_header(columns):
    """Yield the two header lines of a Markdown table."""
    yield format_row(*columns)
    yield "|---" * len(columns) + "|"


def format_range(values, form):
    """Format the smallest and the largest of some numbers."""
    return f"{min(values):{form}} to {max(values):{form}}"


def write_report(script, description, quick_help, generate_report, cases=(), **options):
    """Print the lines of a report as they come and, unless ``--quick`` is set, write them.

    The file is named like the script and is in RESULTS. An interrupted run leaves the lines that
    are finished. ``options`` are further required command-line options with their help texts;
    their values are passed to ``generate_report`` by name, like ``quick``. If the script has
    ``cases``, the command line may name some of them, which are passed as ``cases``; the report on
    a part of the cases is only printed.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help=quick_help)
    if cases:
        case_help = f"print the report on these only: {', '.join(cases)}"
        parser.add_argument("cases", nargs="*", metavar="case", help=case_help)
    for name, option_help in options.items():
        parser.add_argument(f"--{name}", required=True, help=option_help)
    arguments = parser.parse_args()
    unknown = [name for name in getattr(arguments, "cases", ()) if name not in cases]
    if unknown:
        parser.error(
            f"`case` must be one of {', '.join(cases)}; got {unknown[0]}. Use these names."
        )
    files = [sys.stdout]
    if not arguments.quick and not getattr(arguments, "cases", ()):
        files.append((RESULTS / f"{Path(script).stem}.md").open("w"))
    for line in generate_report(**vars(arguments)):
        for file in files:
            print(line, file=file, flush=True)
