"""What choosing 256 rows of a pool takes: seconds and peak memory of each strategy.

Writes ``benchmarks/selection_costs.md``. With ``--quick`` it only prints, after a fiftieth of the
rows.
"""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from lib.peers.serving import peak_memory, resident_memory
from lib.report import head, row, run, setting

from sknetsim.active.strategies import STRATEGIES, Setting, select

FEATURES, LABELLED, QUERIES, BUDGET = 512, 1_000, 256, 1024
POOLS = dict.fromkeys(("kcenter", "lcmd", "maxdet", "badge", "density"), 100000)
SMALLER = 20_000
COLUMNS = ("strategy", "pool", "seconds", "peak above the features (MiB)", "times 1,024 MiB")


def features(count):
    """Rows of length 1, most of whose variance lies in a tenth of the dimensions."""
    generator = np.random.default_rng(0)
    scales = np.exp(-np.arange(FEATURES) / 50).astype("float32")
    rows = generator.standard_normal((count, FEATURES), dtype="float32")
    rows *= scales
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def measured(name, count, queries):
    """Seconds, and MiB beyond pool and labelled rows; in a process that has done nothing else."""
    pool, labelled = features(count), features(LABELLED)
    probabilities = np.abs(pool[:, :10])
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    generator = np.random.RandomState(0)
    loaded, start = resident_memory(), time.perf_counter()
    asked = Setting(pool, labelled, probabilities, queries, "soft", "auto", 2.0, generator)
    for _ in select(STRATEGIES[name](asked), queries):
        pass
    return time.perf_counter() - start, peak_memory() - loaded


def in_a_process(*arguments):
    """The same, in a fresh one."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measured, *arguments).result()


def lines(quick):
    """The whole text, line by line."""
    yield from ("# Choosing from a pool", "", f"{setting(('scikit-learn', 'numpy', 'scipy'))}.", "")
    yield (
        f"{QUERIES} rows of a pool with {FEATURES} features in float32, {LABELLED:,} rows labelled;"
        " features are given, gradients not included. Each strategy runs once in a fresh process;"
        " memory is the process's peak resident size (VmHWM) less its resident size with the"
        " features loaded (pool of 100,000: 195 MiB)."
    )
    yield ""
    yield from head(COLUMNS)
    for name in sorted(STRATEGIES, key=lambda name: (name not in POOLS, name)):
        count = POOLS.get(name, SMALLER) // (50 if quick else 1)
        seconds, peak = in_a_process(name, count, QUERIES)
        cells = [f"{seconds:.1f}", f"{peak:.0f}", f"{peak / BUDGET:.2f}"]
        yield row(name, f"{count:,}", *cells)


if __name__ == "__main__":
    run(__file__, __doc__, "a fiftieth of the rows", lines)
