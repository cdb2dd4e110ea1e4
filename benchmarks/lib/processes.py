"""Time and memory of function calls.

This module imports neither torch nor sknetsim: the process of neural-tangents has neither.
"""

import multiprocessing
import re
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path


def read_peak_memory():
    """Return the largest resident size that this process has had, in MiB."""
    return _read_status("VmHWM")


def read_resident_memory():
    """Return the resident size of this process, in MiB."""
    return _read_status("VmRSS")


def _read_status(name):
    match = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(match[1]) / 1024


def measure_seconds(call, *arguments):
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


def measure_peak_memory(warm_up, call):
    """Return the MiB that a call needs at its peak, and its seconds.

    Memory is the peak of the process minus its resident size after ``warm_up``. The process must be
    a fresh one, see `run_in_fresh_process`.
    """
    warm_up()
    loaded = read_resident_memory()
    seconds = measure_seconds(call)
    return read_peak_memory() - loaded, seconds


def run_in_fresh_process(function, *arguments):
    """Return the result of a call in a new process, whose memory nothing else has used."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()
