"""Functions that take turns: their seconds, peak device memory and failures."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

#: Samples of the first call, which is not counted.
FEW = 4
#: Largest number of timed calls of each function.
ROUNDS = 3
#: Seconds after which no further round begins.
SLOW_SECONDS = 5
#: Characters of an error message that a cell of a table shows.
MESSAGE = 150


def describe_error(error):
    """Return the type and the beginning of the message of an error, for a cell of a table."""
    message = " ".join(str(error).split())[:MESSAGE].replace("|", "/")
    return f"failed: {type(error).__name__}: {message}"


@dataclass
class Timing:
    """Calls of a function: their seconds, peak device memory (MiB), last result and failure.

    ``clock`` returns the time in seconds.
    """

    function: Any
    clock: Callable[[], float] = time.perf_counter
    seconds: list = field(default_factory=list)
    peak: float = 0.0
    result: Any = None
    failure: str = ""

    def call(self, X):
        """Time one call, unless an earlier call has failed."""
        if self.failure:
            return
        before, start = read_allocated_memory(), self.clock()
        try:
            self.result = self.function(X)
            peak = read_allocated_memory(peak=True)
        except Exception as error:
            self.failure = describe_error(error)
            return
        self.seconds.append(self.clock() - start)
        self.peak = max(self.peak, (peak - before) / 2**20)

    @property
    def median(self):
        """Median of the seconds, or NaN if a call has failed."""
        return float("nan") if self.failure else statistics.median(self.seconds)


def read_allocated_memory(peak=False):
    """Wait for the device and return the bytes allocated now, or their peak since the last call."""
    if not torch.cuda.is_initialized():
        return 0
    torch.cuda.synchronize()
    most = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return most if peak else torch.cuda.memory_allocated()


def time_in_turns(
    functions, X, few=FEW, rounds=ROUNDS, slow_seconds=SLOW_SECONDS, clock=time.perf_counter
):
    """Call functions in turns and return their timings.

    A first call of each on ``few`` samples is not counted. No round begins after ``slow_seconds``,
    except the first. On a CPU, ``time.process_time`` is disturbed less by other programs than the
    default ``clock``; only the latter includes the time of a device.
    """
    timings = [Timing(function, clock) for function in functions]
    for function in functions:
        Timing(function).call(X[:few])
    start = time.monotonic()
    for _ in range(rounds):
        for timing in timings:
            timing.call(X)
        if time.monotonic() - start > slow_seconds:
            break
    return timings
