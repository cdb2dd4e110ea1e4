"""Time of sknetsim in this checkout and in another one, for example of an older version.

    python benchmarks/engine.py --other PATH_TO_OTHER_CHECKOUT

Writes ``benchmarks/results/engine.md``. With ``--quick`` it only prints, after two rounds on a
tenth of the samples.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from lib.engine.cases import CASES, compute_features
from lib.peers.process import BENCHMARKS, Process
from lib.peers.reference import compute_relative_error
from lib.report import format_header, format_range, format_row, format_title, write_report

ROUNDS, QUICK_ROUNDS = 7, 2
COLUMNS = (
    "case",
    "this (s)",
    "range",
    "other (s)",
    "range",
    "ratio, this / other",
    "relative difference",
)


def describe_checkout(path):
    """Return the commit of a checkout, and whether its files differ from the commit."""
    commit = _run_git(path, "rev-parse", "--short", "HEAD")
    changed = _run_git(path, "status", "--porcelain", "--", "sknetsim")
    return f"`{commit}`, with uncommitted changes" if changed else f"`{commit}`"


def _run_git(path, *arguments):
    command = ["git", "-C", str(path), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def start_process(case, checkout, folder):
    """Start the process of a case that imports sknetsim from a checkout."""
    folder.mkdir()
    arguments = (checkout, case.compute.__name__, case.kind, case.count)
    command = [sys.executable, "-m", "lib.engine.worker", *arguments]
    return Process(command, folder, {**os.environ, "PYTHONPATH": str(checkout)})


def measure_case(case, checkouts, rounds):
    """Return the seconds of each checkout by round, and their results.

    The two processes take turns, so that other load of the machine affects both, and the one that
    begins alternates. A first run of each is not counted.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        processes = []
        for place, checkout in enumerate(checkouts):
            processes.append(start_process(case, checkout, Path(folder) / str(place)))
            stack.callback(processes[-1].stop)
        for process in processes:
            process.run()
        seconds = [[], []]
        for turn in range(rounds):
            for place in (turn % 2, 1 - turn % 2):
                seconds[place].append(processes[place].run()["seconds"])
        return seconds, [np.load(process.result) for process in processes]


def compare_results(case, this, other):
    """Return the relative difference of two results; features are compared by their products."""
    if case.compute is compute_features:
        # Features are determined up to a rotation, which their products do not depend on.
        this, other = this @ this.T, other @ other.T
    return compute_relative_error(this, other)


def measure_row(case, checkouts, rounds):
    """Measure a case and format its row."""
    (this, other), results = measure_case(case, checkouts, rounds)
    ratio = statistics.median(this) / statistics.median(other)
    return format_row(
        f"{case.name}, {case.kind}, N = {case.count:,}",
        f"{statistics.median(this):.3g}",
        format_range(this, ".3g"),
        f"{statistics.median(other):.3g}",
        format_range(other, ".3g"),
        f"{ratio:.2f}",
        f"{compare_results(case, *results):.0e}",
    )


def generate_report(quick, other):
    """Yield the report, line by line."""
    checkouts = [BENCHMARKS.parent, Path(other).resolve()]
    rounds = QUICK_ROUNDS if quick else ROUNDS
    this_commit, other_commit = map(describe_checkout, checkouts)
    yield from format_title(__file__, "Two versions of sknetsim", ("numpy", "scikit-learn"))
    yield (
        f"Seconds of this version ({this_commit}) and of another one ({other_commit}), which run in"
        f" two processes that take turns: medians of {rounds} rounds after a first run that is not"
        " counted, with smallest and largest; the ratio is that of the medians. The relative"
        " difference is the norm of the difference between the results of both versions, divided by"
        " the norm of the other's. MLP: 64-512-512-1; CNN: conv5(32), conv5(64), 256, 1, on 28 x"
        " 28; random weights and samples."
    )
    yield ""
    yield from format_header(COLUMNS)
    for case in CASES:
        yield measure_row(case.shorten() if quick else case, checkouts, rounds)


if __name__ == "__main__":
    write_report(
        __file__,
        __doc__.splitlines()[0],
        "two rounds on a tenth of the samples",
        generate_report,
        other="root folder of the other checkout",
    )
