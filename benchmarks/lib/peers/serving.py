"""Loop of a method's process: it runs the method once per input line and prints time and memory.

This module imports neither torch nor sknetsim: the process of neural-tangents has neither.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from lib.processes import read_peak_memory

WARM_UP_SAMPLES = 8


def reserve_stdout():
    """Return the standard output as a file; other output goes to standard error from now on."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def serve(prepare, call, X, result):
    """Answer each line with the seconds and the memory of ``call(prepare(X), X)``.

    ``prepare`` is not timed. The result of the first call is saved in the file ``result``. Memory
    is the peak of the process minus its peak after a warm-up on a few samples, in MiB.
    """
    answers = reserve_stdout()
    few = X[:WARM_UP_SAMPLES]
    call(prepare(few), few)
    before = read_peak_memory()
    subject = prepare(X)
    for _ in sys.stdin:
        start = time.perf_counter()
        value = call(subject, X)
        seconds = time.perf_counter() - start
        memory = read_peak_memory() - before
        if value is not None and not Path(result).exists():
            np.save(result, np.asarray(value))
        del value
        print(json.dumps({"seconds": seconds, "memory": memory}), file=answers, flush=True)
