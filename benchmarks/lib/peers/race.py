"""Contestants in processes of their own, one running at a time, in turns."""

import json
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lib.networks import network_and_rows
from lib.peers import contestants
from lib.peers.reference import checked_reference, relative_error

BENCHMARKS = Path(__file__).parents[2]
JAX_PYTHON = BENCHMARKS.parent / ".venv-bench-jax" / "bin" / "python"
SLOW_SECONDS = 20
SHORT_SECONDS = 1
# Other programs disturb short runs the most, so that they run so often at each turn.
SHORT_RUNS = 3
# After a run, idle threads spin for a while; the next contestant waits until they sleep.
SETTLING_SECONDS = 0.3


class Process:
    """A contestant at one batch size, waiting to be told to run."""

    def __init__(self, command, folder):
        self.result = folder / "result.npy"
        self._errors = folder / "errors.txt"
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [*map(str, command), str(self.result)],
                cwd=BENCHMARKS,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def run(self):
        """The seconds and the memory of one run."""
        time.sleep(SETTLING_SECONDS)
        try:
            print(file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RuntimeError(self._complaint())
        return json.loads(answer)

    def _complaint(self):
        lines = self._errors.read_text().strip().splitlines()
        return lines[-1] if lines else f"ended with status {self._process.wait()}"

    def stop(self):
        """Let it end."""
        self._process.communicate()


@dataclass
class Entrant:
    """A contestant in a race, and what was measured of it."""

    contestant: object
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


def command(contestant, case, batch_size, folder):
    """What starts the contestant's process."""
    if not contestant.in_jax:
        size = (case.kind, case.outputs, case.count, batch_size)
        return [sys.executable, "-m", "lib.peers.worker", contestant.function, *size]
    network, X = network_and_rows(case.kind, case.outputs, case.count)
    arrays = {name: value.numpy() for name, value in network.state_dict().items()}
    np.savez(folder / "data.npz", **arrays, X=X.numpy())
    return [JAX_PYTHON, "-m", "lib.peers.tangents", contestant.function, folder / "data.npz"]


def tried(contestant, case, batch_size, folder):
    """An entrant after its first run, of which the memory is told; two more where it is short."""
    folder = folder / f"{contestant.function}-{batch_size}"
    folder.mkdir()
    entrant = Entrant(contestant, batch_size)
    try:
        entrant.process = Process(command(contestant, case, batch_size, folder), folder)
        first = entrant.process.run()
        short = first["seconds"] < SHORT_SECONDS
        again = [entrant.process.run()["seconds"] for _ in range(short * (SHORT_RUNS - 1))]
        entrant.memory, entrant.seconds = first["memory"], [first["seconds"], *again]
    except (OSError, RuntimeError) as failure:
        entrant.failure = str(failure)
    return entrant


def fastest(contestant, case, folder, stack):
    """The entrant at the batch size that was the fastest; the others are sent home."""
    best = None
    for batch_size in contestant.batch_sizes:
        entrant = tried(contestant, case, batch_size, folder)
        if best is None or best.failure or min(entrant.seconds, default=1e9) < min(best.seconds):
            best, entrant = entrant, best
        if entrant is not None and entrant.process:
            entrant.process.stop()
    if best.process:
        stack.callback(best.process.stop)
    return best


def race(case, rounds, folder):
    """The entrants of a case, with medians of interleaved rounds; a slow one runs once."""
    network, X = network_and_rows(case.kind, case.outputs, case.count)
    ours = getattr(contestants, case.contestants[0].function)
    expected = checked_reference(case.quantity, ours, network, X)
    with ExitStack() as stack:
        entrants = [fastest(contestant, case, folder, stack) for contestant in case.contestants]
        running = [one for one in entrants if not one.failure and min(one.seconds) < SLOW_SECONDS]
        turns = [(one, SHORT_RUNS if min(one.seconds) < SHORT_SECONDS else 1) for one in running]
        for entrant in running:
            entrant.seconds = []
        for _ in range(rounds):
            for entrant, runs in turns:
                entrant.seconds += [entrant.process.run()["seconds"] for _ in range(runs)]
    for entrant in entrants:
        if entrant.process and entrant.process.result.exists():
            entrant.error = relative_error(np.load(entrant.process.result), expected)
    return entrants
