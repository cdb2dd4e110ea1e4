"""Peak memory of neighbours compared with their results and scikit-learn's ``working_memory``.

Writes ``benchmarks/results/neighbor_memory.md``. With ``--quick`` it only prints, after a
fiftieth of the samples.
"""

import gc
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace

import numpy as np
import sklearn
from lib.processes import (
    measure_seconds,
    read_peak_memory,
    read_resident_memory,
    run_in_fresh_process,
)
from lib.report import format_header, format_row, format_title, write_report

from sknetsim import NetworkNeighbors

SAMPLES, QUERIES, WIDTH = 100_000, 5_000, 512
#: Random unit vectors of this width have 4.76 % of the others within this distance.
RADIUS = 1.361
BUDGETS = 1024, 128
WARM_UP_SAMPLES, WARM_UP_BUDGET = 8, 16
QUICK = 50
COLUMNS = (
    "call",
    "working_memory (MiB)",
    "results (MiB)",
    "index (MiB)",
    "peak above what was loaded (MiB)",
    "ratio to budget, index and twice the results",
    "left without the results (MiB)",
    "seconds",
)
CALLS = {
    "radius_neighbors": lambda neighbors, X: neighbors.radius_neighbors(X, RADIUS),
    "kneighbors, 100 neighbours": lambda neighbors, X: neighbors.kneighbors(X, 100),
}


@dataclass(frozen=True)
class Case:
    """Features of ``count`` samples that are searched for the neighbours of ``queries`` others."""

    call: str
    budget: int
    algorithm: str = "brute"
    count: int = SAMPLES
    queries: int = QUERIES

    def run(self, X, queries):
        """Return the fitted estimator and the neighbours of the queries."""
        neighbors = NetworkNeighbors("features", algorithm=self.algorithm, random_state=0).fit(X)
        return neighbors, CALLS[self.call](neighbors, queries)

    @property
    def kept(self):
        """MiB of the float32 features in the index."""
        return 0 if self.algorithm == "brute" else 4 * self.count * WIDTH / 2**20


def make_cases():
    """Yield the cases."""
    for budget in BUDGETS:
        yield Case("radius_neighbors", budget)
        yield Case("kneighbors, 100 neighbours", budget, "faiss")


def make_features(count, seed):
    """Return random unit vectors, made in small parts, so that they need no further memory."""
    generator, features = np.random.default_rng(seed), np.empty((count, WIDTH), dtype=np.float32)
    for start in range(0, count, 1000):
        part = features[start : start + 1000]
        rows = generator.standard_normal(part.shape)
        part[:] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return features


def count_megabytes(arrays):
    """Return the size of arrays, or of arrays of arrays, in MiB."""
    parts = (part for array in arrays for part in (array if array.dtype == object else [array]))
    return sum(part.nbytes for part in parts) / 2**20


def measure(case):
    """Return the MiB of the results, of the peak and without the results, and the seconds."""
    X, queries = make_features(case.count, 0), make_features(case.queries, 1)
    with sklearn.config_context(working_memory=WARM_UP_BUDGET):
        small = replace(case, call="radius_neighbors")
        small.run(X[:WARM_UP_SAMPLES], queries[:WARM_UP_SAMPLES])
    loaded, results = read_resident_memory(), []
    with sklearn.config_context(working_memory=case.budget):
        seconds = measure_seconds(lambda: results.append(case.run(X, queries)))
    peak, size = read_peak_memory() - loaded, count_megabytes(results[0][1])
    results.clear()
    gc.collect()
    return size, peak, read_resident_memory() - loaded, seconds


def format_cells(case):
    """Return the cells of a case after its budget."""
    try:
        size, peak, left, seconds = run_in_fresh_process(measure, case)
    except (BrokenProcessPool, MemoryError) as failure:
        return [f"failed: {failure}".replace("|", "/"), *["–"] * 5]
    ratio = peak / (case.budget + case.kept + 2 * size)
    kept = f"{case.kept:.0f}" if case.kept else "–"
    return [f"{size:.0f}", kept, f"{peak:.0f}", f"{ratio:.2f}", f"{left:.0f}", f"{seconds:.1f}"]


def generate_report(quick):
    """Yield the report, line by line."""
    yield from format_title(__file__, "Peak memory of neighbours", ("scikit-learn", "numpy"))
    yield (
        f"`NetworkNeighbors` is fitted on {SAMPLES:,} random unit vectors of {WIDTH} features in"
        f" float32 and queried with {QUERIES:,} others. The radius of {RADIUS} contains 4.8 % of"
        " the fitted samples. Each case runs in a fresh process. Memory is the peak resident size"
        " of the process (VmHWM) minus its resident size after making the features and a first run"
        " on eight of them. The goal is at most the budget, the index and twice the results. The"
        " last memory is that of the process after the results and the estimator are freed: pages"
        " that the C library keeps for the next call. Seconds are from one run."
    )
    yield ""
    yield from format_header(COLUMNS)
    for case in make_cases():
        if quick:
            case = replace(case, count=case.count // QUICK, queries=case.queries // QUICK)
        call = case.call + ("" if case.algorithm == "brute" else f", {case.algorithm}")
        yield format_row(call, str(case.budget), *format_cells(case))


if __name__ == "__main__":
    write_report(__file__, __doc__, "a fiftieth of the samples", generate_report)
