"""Time, error and memory of sknetsim and of other packages, measured in one run.

Writes ``benchmarks/results/peers.md``. With ``--quick`` it only prints, after two rounds on a tenth
of the samples.
"""

import subprocess
import tempfile
from pathlib import Path

from lib.peers.cases import CASES
from lib.peers.measure import JAX_PYTHON, SHORT_RUNS, SHORT_SECONDS, measure_case
from lib.report import format_header, format_range, format_row, format_title, write_report

ROUNDS = 5
QUICK_ROUNDS = 2
PEERS = ("numpy", "bmdal-reg", "nngeometry", "traker")
JAX_PEERS = ("neural-tangents", "jax", "jaxlib", "numpy")
COLUMNS = (
    "case",
    "method",
    "seconds",
    "range",
    "ratio to sknetsim",
    "ratio to an epoch",
    "relative error",
    "peak memory (MiB)",
    "note",
)


def list_jax_versions():
    """Return the versions in the environment of neural-tangents."""
    program = f"from importlib.metadata import version; print(*map(version, {JAX_PEERS}))"
    try:
        command = [JAX_PYTHON, "-c", program]
        process = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "neural-tangents not installed"
    return ", ".join(map(" ".join, zip(JAX_PEERS, process.stdout.split(), strict=False)))


def generate_introduction(rounds):
    """Yield the lines before the table."""
    note = f"; {list_jax_versions()} in an environment of its own"
    yield from format_title(__file__, "sknetsim compared with other packages", PEERS, note)
    yield (
        f"Each method runs in its own process. The processes take turns in {rounds} rounds, with"
        f" {SHORT_RUNS} runs per turn if a run takes less than {SHORT_SECONDS} s, after a first run"
        " that is not counted. Seconds are medians; ratios are ratios of medians. If a batch size"
        " is noted, several were tried and the fastest was used (for traker only one). A method"
        ' that takes more than 20 seconds runs once ("one run"). Compilation, drawing a random'
        " projection, and the fit before `score` are not timed. Errors are relative to results in"
        " float64, which are themselves checked on a few samples against a double loop of"
        " `autograd.grad`. Memory is the peak of the first run minus the peak after loading and a"
        " warm-up on a few samples. MLP: 64-512-512-d with ReLU; CNN: conv5(32), max pooling,"
        " conv5(64), max pooling, 256, d with ReLU, on 28 x 28."
    )
    yield ""


def format_note(measurement):
    """Return the batch size, and whether the method ran only once."""
    batch = [f"batch size {measurement.batch_size}"] * (measurement.batch_size > 0)
    return ", ".join(batch + ["one run"] * (len(measurement.seconds) == 1))


def format_cells(measurement, ours, epoch):
    """Return the cells of a measurement after the name of its method."""
    if measurement.failure:
        return ["–"] * 6 + [f"failed: {measurement.failure}".replace("|", "/")]
    return [
        f"{measurement.median:.3g}",
        format_range(measurement.seconds, ".3g"),
        f"{measurement.median / ours.median:.2f}",
        f"{measurement.median / epoch.median:.2f}",
        "–" if measurement.error is None else f"{measurement.error:.0e}",
        f"{measurement.memory:.0f}",
        format_note(measurement),
    ]


def generate_rows(case, rounds):
    """Yield the rows of a case."""
    outputs = "1 output" if case.outputs == 1 else f"{case.outputs} outputs"
    name = f"{case.name}, {case.kind}, {outputs}, N = {case.count:,}"
    with tempfile.TemporaryDirectory() as folder:
        results = measure_case(case, rounds, Path(folder))
    epoch = next(one for one in results if one.method.function == "run_epoch")
    for measurement in results:
        cells = format_cells(measurement, results[0], epoch)
        yield format_row(name, measurement.method.name, *cells)


def generate_report(quick):
    """Yield the report, line by line."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    yield from generate_introduction(rounds)
    yield from format_header(COLUMNS)
    for case in CASES:
        yield from generate_rows(case.shorten() if quick else case, rounds)


if __name__ == "__main__":
    write_report(__file__, __doc__, "two rounds on a tenth of the samples", generate_report)
