"""A contestant's process: runs when told to by a line, and tells time and memory.

Imports neither torch nor the package, for one contestant lives without them.
"""

import json
import os
import re
import sys
import time
from pathlib import Path

import numpy as np

WARM_UP_ROWS = 8


def _status(name):
    found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024


def peak_memory():
    """The most memory that this process has held, in MiB."""
    return _status("VmHWM")


def resident_memory():
    """The memory that this process holds, in MiB."""
    return _status("VmRSS")


def reserved_stdout():
    """The standard output for us alone: what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def serve(prepare, call, X, result):
    """Answer each line with the seconds of ``call(prepare(rows), rows)`` and its memory.

    What ``prepare`` does is not timed. The first answer's result is saved in the file ``result``.
    """
    answers = reserved_stdout()
    few = X[:WARM_UP_ROWS]
    call(prepare(few), few)
    before = peak_memory()
    subject = prepare(X)
    for _ in sys.stdin:
        start = time.perf_counter()
        value = call(subject, X)
        seconds = time.perf_counter() - start
        memory = peak_memory() - before
        if value is not None and not Path(result).exists():
            np.save(result, np.asarray(value))
        del value
        print(json.dumps({"seconds": seconds, "memory": memory}), file=answers, flush=True)
