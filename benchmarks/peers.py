"""Times, errors and memory of this package and of its peers, in one run.

Writes ``benchmarks/peers.md``. With ``--quick`` it only prints, after two rounds on a tenth of the
rows.
"""

import subprocess
import tempfile
from pathlib import Path

from lib.peers.cases import CASES
from lib.peers.race import JAX_PYTHON, SHORT_RUNS, SHORT_SECONDS, race
from lib.report import head, row, run, setting, spread

ROUNDS = 5
QUICK_ROUNDS = 2
PEERS = ("numpy", "bmdal-reg", "nngeometry", "traker")
JAX_PEERS = ("neural-tangents", "jax", "jaxlib", "numpy")
COLUMNS = (
    "case",
    "contestant",
    "seconds",
    "least to most",
    "times ours",
    "times an epoch",
    "relative error",
    "peak memory (MiB)",
    "note",
)


def jax_versions():
    """The versions in the environment of neural-tangents."""
    program = f"from importlib.metadata import version; print(*map(version, {JAX_PEERS}))"
    try:
        command = [JAX_PYTHON, "-c", program]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "neural-tangents not installed"
    return ", ".join(map(" ".join, zip(JAX_PEERS, found.stdout.split(), strict=False)))


def header(rounds):
    """What was measured where."""
    yield "# This package and its peers"
    yield ""
    yield f"{setting(PEERS)}; {jax_versions()} in an environment of its own."
    yield ""
    yield (
        f"Each contestant lives in a process of its own; they run in turns, {rounds} rounds,"
        f" {SHORT_RUNS} times at each turn where that takes less than {SHORT_SECONDS} s, after a"
        " first run that is not counted. Seconds are medians, ratios are ratios of"
        " medians. Where a batch size is noted, several were tried and the fastest took part"
        " (traker has one only); where one run is noted, it took more than 20 seconds."
        " Compilation, drawing a random projection, and what `score` needs fitted are not timed."
        " Errors are against float64, itself checked on a few rows against a double loop of"
        " `autograd.grad`. Memory is the peak of the first run less the peak after loading and a"
        " warm-up of a few rows. MLP: 64-512-512-d with ReLU; CNN: conv5(32), maxima, conv5(64),"
        " maxima, 256, d with ReLU, on 28 x 28."
    )
    yield ""


def note(entrant):
    """What is to be known of an entrant."""
    batch = [f"batch size {entrant.batch_size}"] * (entrant.batch_size > 0)
    return ", ".join(batch + ["one run"] * (len(entrant.seconds) == 1))


def figures(entrant, ours, epoch):
    """The cells of an entrant, from its seconds on."""
    if entrant.failure:
        return ["–"] * 6 + [f"failed: {entrant.failure}".replace("|", "/")]
    return [
        f"{entrant.median:.3g}",
        spread(entrant.seconds, ".3g"),
        f"{entrant.median / ours.median:.2f}",
        f"{entrant.median / epoch.median:.2f}",
        "–" if entrant.error is None else f"{entrant.error:.0e}",
        f"{entrant.memory:.0f}",
        note(entrant),
    ]


def rows(case, rounds):
    """The lines of a case."""
    outputs = "1 output" if case.outputs == 1 else f"{case.outputs} outputs"
    name = f"{case.name}, {case.kind}, {outputs}, N = {case.count:,}"
    with tempfile.TemporaryDirectory() as folder:
        entrants = race(case, rounds, Path(folder))
    epoch = next(one for one in entrants if one.contestant.function == "epoch")
    for entrant in entrants:
        yield row(name, entrant.contestant.name, *figures(entrant, entrants[0], epoch))


def lines(quick):
    """The whole text, line by line."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    yield from header(rounds)
    yield from head(COLUMNS)
    for case in CASES:
        yield from rows(case.quick() if quick else case, rounds)


if __name__ == "__main__":
    run(__file__, __doc__, "two rounds on a tenth of the rows", lines)
