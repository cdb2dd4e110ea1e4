"""Measurement of methods in separate processes that take turns, one running at a time."""

import statistics
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from lib.networks import make_network_and_samples
from lib.peers import methods
from lib.peers.cases import Method
from lib.peers.process import BENCHMARKS, Process
from lib.peers.reference import compute_reference, compute_relative_error

JAX_PYTHON = BENCHMARKS.parent / ".venv-bench-jax" / "bin" / "python"
SLOW_SECONDS = 20
SHORT_SECONDS = 1
# Other programs disturb short runs most, so these run several times per turn.
SHORT_RUNS = 3


@dataclass
class Measurement:
    """Seconds, memory and error of a method at one batch size, or the reason of its failure."""

    method: Method
    batch_size: int = 0
    process: Process | None = None
    memory: float = 0.0
    seconds: list = field(default_factory=list)
    error: float | None = None
    failure: str = ""

    @property
    def median(self):
        """Median seconds."""
        return statistics.median(self.seconds)


def make_command(method, case, batch_size, folder):
    """Return the command that starts the process of a method."""
    if not method.in_jax:
        size = (case.kind, case.outputs, case.count, batch_size)
        return [sys.executable, "-m", "lib.peers.worker", method.function, *size]
    network, X = make_network_and_samples(case.kind, case.outputs, case.count)
    arrays = {name: value.numpy() for name, value in network.state_dict().items()}
    np.savez(folder / "data.npz", **arrays, X=X.numpy())
    return [JAX_PYTHON, "-m", "lib.peers.tangents", method.function, folder / "data.npz"]


def run_first(method, case, batch_size, folder):
    """Start a method and run it once, for its memory, and twice more if the run is short."""
    folder = folder / f"{method.function}-{batch_size}"
    folder.mkdir()
    measurement = Measurement(method, batch_size)
    try:
        measurement.process = Process(make_command(method, case, batch_size, folder), folder)
        first = measurement.process.run()
        short = first["seconds"] < SHORT_SECONDS
        again = [measurement.process.run()["seconds"] for _ in range(short * (SHORT_RUNS - 1))]
        measurement.memory, measurement.seconds = first["memory"], [first["seconds"], *again]
    except (OSError, RuntimeError) as failure:
        measurement.failure = str(failure)
    return measurement


def choose_batch_size(method, case, folder, stack):
    """Return the first measurement at the fastest batch size and stop the other processes."""
    best = None
    for batch_size in method.batch_sizes:
        other = run_first(method, case, batch_size, folder)
        if best is None or best.failure or min(other.seconds, default=1e9) < min(best.seconds):
            best, other = other, best
        if other is not None and other.process:
            other.process.stop()
    if best.process:
        stack.callback(best.process.stop)
    return best


def measure_case(case, rounds, folder):
    """Measure the methods of a case in interleaved rounds; a slow method runs only once."""
    network, X = make_network_and_samples(case.kind, case.outputs, case.count)
    reference_method = getattr(methods, case.methods[0].function)
    expected = compute_reference(case.quantity, reference_method, network, X)
    with ExitStack() as stack:
        results = [choose_batch_size(method, case, folder, stack) for method in case.methods]
        running = [one for one in results if not one.failure and min(one.seconds) < SLOW_SECONDS]
        turns = [(one, SHORT_RUNS if min(one.seconds) < SHORT_SECONDS else 1) for one in running]
        for measurement in running:
            measurement.seconds = []
        for _ in range(rounds):
            for measurement, runs in turns:
                measurement.seconds += [measurement.process.run()["seconds"] for _ in range(runs)]
    for measurement in results:
        if measurement.process and measurement.process.result.exists():
            values = np.load(measurement.process.result)
            measurement.error = compute_relative_error(values, expected)
    return results
