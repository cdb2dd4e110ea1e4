"""Cost of selecting 256 samples of a pool: seconds and peak memory of each strategy.

Writes ``benchmarks/results/selection_costs.md``. With ``--quick`` it only prints, after a fiftieth
of the samples.
"""

import time

import numpy as np
from lib.processes import read_peak_memory, read_resident_memory, run_in_fresh_process
from lib.report import format_header, format_row, format_title, write_report

from sknetsim.active.strategies import STRATEGIES, Setting, select_greedily

FEATURES, LABELLED, QUERIES, BUDGET = 512, 1_000, 256, 1024
POOLS = dict.fromkeys(("kcenter", "lcmd", "maxdet", "badge", "density"), 100000)
SMALLER = 20_000
COLUMNS = ("strategy", "pool", "seconds", "peak above the features (MiB)", "ratio to 1,024 MiB")


def make_features(count):
    """Make features of length 1, most of whose variance is in a tenth of the dimensions."""
    generator = np.random.default_rng(0)
    scales = np.exp(-np.arange(FEATURES) / 50).astype("float32")
    features = generator.standard_normal((count, FEATURES), dtype="float32")
    features *= scales
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features


def measure(name, count, queries):
    """Return the seconds, and the peak memory above the features; in a fresh process."""
    pool, labelled = make_features(count), make_features(LABELLED)
    probabilities = np.abs(pool[:, :10])
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    generator = np.random.RandomState(0)
    loaded, start = read_resident_memory(), time.perf_counter()
    setting = Setting(pool, labelled, probabilities, queries, "soft", "auto", 2.0, generator)
    for _ in select_greedily(STRATEGIES[name](setting), queries):
        pass
    return time.perf_counter() - start, read_peak_memory() - loaded


def generate_report(quick):
    """Yield the report, line by line."""
    packages = ("scikit-learn", "numpy", "scipy")
    yield from format_title(__file__, "Cost of selecting from a pool", packages)
    yield (
        f"Each strategy selects {QUERIES} samples of a pool with {FEATURES} features in float32;"
        f" {LABELLED:,} samples are labelled. The features are given, so that no gradients are"
        " computed. Each strategy runs once in a fresh process. Memory is the peak resident size of"
        " the process (VmHWM) minus its resident size after loading the features (195 MiB for a"
        " pool of 100,000)."
    )
    yield ""
    yield from format_header(COLUMNS)
    for name in sorted(STRATEGIES, key=lambda name: (name not in POOLS, name)):
        count = POOLS.get(name, SMALLER) // (50 if quick else 1)
        seconds, peak = run_in_fresh_process(measure, name, count, QUERIES)
        cells = [f"{seconds:.1f}", f"{peak:.0f}", f"{peak / BUDGET:.2f}"]
        yield format_row(name, f"{count:,}", *cells)


if __name__ == "__main__":
    write_report(__file__, __doc__, "a fiftieth of the samples", generate_report)
