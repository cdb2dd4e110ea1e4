"""Influences by one method, with its time and memory in a process of its own."""

import importlib
import time
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
import torch

from lib.processes import read_peak_memory, read_resident_memory
from lib.timing import describe_error

#: Seconds of one network after which no further dampings and networks are tried.
SLOW_SECONDS = 100


@dataclass
class Measurement:
    """Influences (queries, n) of one network by damping, and the reason of a failure if any.

    Seconds are of the processor with one thread and, like the memory (MiB), for the default
    damping.
    """

    influences: dict = field(default_factory=dict)
    seconds: float = np.nan
    memory: float = np.nan
    failure: str = ""

    @property
    def is_slow(self):
        """True if the method is too slow to be run with other dampings and networks."""
        return self.seconds > SLOW_SECONDS


def measure_method(method, network, task):
    """Compute the influences by a method, first for the default damping and then for others."""
    torch.set_num_threads(1)
    measurement = Measurement()
    others = method.dampings[1:]
    try:
        importlib.import_module({"traker": "trak"}.get(method.package, method.package))
        loaded, start = read_resident_memory(), time.process_time()
        measurement.influences = compute_influences(method, [network], task, method.dampings[:1])
        measurement.seconds = time.process_time() - start
        measurement.memory = read_peak_memory() - loaded
    except Exception as error:
        measurement.failure = describe_error(error)
    try:
        if others and not measurement.is_slow:
            measurement.influences |= compute_influences(method, [network], task, others)
    except Exception as error:
        measurement.failure = measurement.failure or describe_error(error)
    return measurement


def compute_influences(method, networks, task, dampings):
    """Return the influences by damping, without those that are infinite or not a number."""
    steps = zip(dampings, method.function(deepcopy(networks), task, dampings), strict=True)
    influences = {damping: np.asarray(step, np.float32) for damping, step in steps}
    finite = {key: values for key, values in influences.items() if np.isfinite(values).all()}
    if not finite:
        raise ValueError("all influences are infinite or not a number")
    return finite


def combine_networks(method, networks, task, single, dampings):
    """Return the influences of several networks for some dampings.

    ``single`` are the influences of the first network by damping.
    """
    torch.set_num_threads(1)
    if method.joint:
        return compute_influences(method, networks, task, dampings)
    total = {damping: single[damping] for damping in dampings}
    for network in networks[1:]:
        influences = compute_influences(method, [network], task, dampings)
        total = {damping: total[damping] + values for damping, values in influences.items()}
    return {damping: sums / len(networks) for damping, sums in total.items()}
