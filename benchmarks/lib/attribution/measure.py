"""Scores of one method, with its time and memory in a process of its own."""

import contextlib
import importlib
import resource
import time
from copy import deepcopy
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from lib.processes import read_peak_memory, read_resident_memory
from lib.timing import describe_error

#: Seconds of one network after which no further dampings and networks are tried.
SLOW_SECONDS = 100
#: Bytes that a process may reserve; beyond them, an allocation fails with a message.
ADDRESS_SPACE = 12 * 2**30
#: Samples of the first call, which is not counted.
WARM_UP = 20


@dataclass
class Measurement:
    """Scores of a method, or the reason of a failure.

    ``single`` are the scores of one network by damping, as pairs of the explained quantity and of
    the loss. ``best`` is the damping with the best score on the tuning queries, and ``several`` are
    the scores of several networks with that damping. Seconds are of the processor with one thread
    and, like the memory (MiB), for the default damping.
    """

    single: dict = field(default_factory=dict)
    best: float | None = None
    several: tuple = ()
    seconds: float = np.nan
    memory: float = np.nan
    failure: str = ""


def measure_method(method, networks, task, truth):
    """Measure a method, first for the default damping, and then for others and for all networks."""
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    measurement = Measurement()
    tuned = {}
    try:
        importlib.import_module({"traker": "trak"}.get(method.package, method.package))
        warm_up(method, networks[0], task)
        loaded, start = read_resident_memory(), time.process_time()
        influences = compute_influences(method, networks[:1], task, method.dampings[:1])
        measurement.seconds = time.process_time() - start
        measurement.memory = read_peak_memory() - loaded
        add_scores(measurement, tuned, influences, task, truth)
    except Exception as error:
        measurement.failure = describe_error(error)
    if measurement.seconds > SLOW_SECONDS:
        return measurement
    try:
        influences = compute_influences(method, networks[:1], task, method.dampings[1:])
        add_scores(measurement, tuned, influences, task, truth)
        measurement.best = max(tuned, key=tuned.get)
        if len(networks) > 1:
            average = combine_networks(method, networks, task, measurement.best)
            measurement.several = score_reported(average, task, truth)
    except Exception as error:
        measurement.failure = measurement.failure or describe_error(error)
    return measurement


def add_scores(measurement, tuned, influences, task, truth):
    """Add the scores of influences by damping; ``tuned`` gets those of the tuning queries."""
    for damping, values in influences.items():
        tuned[damping] = truth.score(values, task.quantity, slice(task.tuning))
        measurement.single[damping] = score_reported(values, task, truth)


def score_reported(influence, task, truth):
    """Return the scores of the explained quantity and of the loss on the reported queries."""
    reported = slice(task.tuning, None)
    return tuple(truth.score(influence, quantity, reported) for quantity in (task.quantity, "loss"))


def warm_up(method, network, task):
    """Run a method on a few samples, so that its imports are not counted."""
    few = {name: getattr(task, name)[:WARM_UP] for name in ("X", "y", "X_query", "y_query")}
    with contextlib.suppress(Exception):
        compute_influences(method, [network], replace(task, **few), method.dampings[:1])


def compute_influences(method, networks, task, dampings):
    """Return the influences by damping, without those that are infinite or not a number."""
    if not dampings:
        return {}
    steps = zip(dampings, method.function(deepcopy(networks), task, dampings), strict=True)
    influences = {damping: np.asarray(step, np.float32) for damping, step in steps}
    finite = {key: values for key, values in influences.items() if np.isfinite(values).all()}
    if not finite:
        raise ValueError("all influences are infinite or not a number")
    return finite


def combine_networks(method, networks, task, damping):
    """Return the influences of several networks: their mean, or as the method combines them."""
    groups = [networks] if method.joint else [[network] for network in networks]
    return sum(compute_influences(method, group, task, (damping,))[damping] for group in groups)
