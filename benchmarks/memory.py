"""Peak memory compared with scikit-learn's ``working_memory``, on MNIST.

Writes ``benchmarks/results/memory.md``. With ``--quick`` it only prints, after a fiftieth of the
samples.
"""

import tempfile
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from lib.processes import measure_peak_memory, run_in_fresh_process
from lib.report import format_header, format_row, format_title, write_report
from sklearn import config_context

from sknetsim import NetworkDensity, NetworkNeighbors
from sknetsim.datasets import load_mnist, load_mnist_network

SIZES = (5_000, 60_000)
QUERIES = 1_000
BUDGET, SMALL_BUDGET = 1024, 128
WARM_UP_SAMPLES, WARM_UP_BUDGET = 8, 16
QUICK, QUICK_COMPONENTS = 50, 32
COLUMNS = (
    "case",
    "output",
    "N",
    "working_memory (MiB)",
    "peak above what was loaded (MiB)",
    "ratio to the budget",
    "features kept (MiB)",
    "seconds",
)


@dataclass(frozen=True)
class Case:
    """An estimator that is fitted on ``count`` images and queried with others."""

    name: str
    count: int
    budget: int = BUDGET
    output: str = "predicted"
    parameters: dict = field(default_factory=dict)
    queries: int = QUERIES

    def shorten(self):
        """Return the case with fewer samples and features."""
        fewer = {"n_components": QUICK_COMPONENTS} if "n_components" in self.parameters else {}
        return replace(
            self,
            count=self.count // QUICK,
            queries=self.queries // QUICK,
            parameters=self.parameters | fewer,
        )

    def run(self, network, X, queries):
        """Fit the estimator, and compute the densities or the neighbours of the queries."""
        is_density = "method" in self.parameters
        estimator = (NetworkDensity if is_density else NetworkNeighbors)(
            network, self.output, random_state=0, **self.parameters
        ).fit(X)
        return (estimator.score_samples if is_density else estimator.kneighbors)(queries)

    @property
    def kept(self):
        """MiB of the float32 features that the fitted estimator keeps."""
        return 4 * self.count * self.parameters.get("n_components", 0) / 2**20


SOFT = {"method": "soft"}
THRESHOLD = {"method": "threshold"}
FEATURES = THRESHOLD | {"n_components": 512}
RERANKED = {"n_components": 512, "n_candidates": 100}


def make_cases():
    """Yield the cases, fast ones first."""
    exact = "threshold density, exact"
    yield Case(f"{exact}, dimension given", SIZES[0], parameters=THRESHOLD | {"dimension": 10.0})
    yield Case(f"{exact}, dimension estimated", SIZES[0], parameters=THRESHOLD)
    for budget in (BUDGET, SMALL_BUDGET):
        yield Case("soft density", SIZES[0], budget, parameters=SOFT)
        yield Case("threshold density, 512 features", SIZES[0], budget, parameters=FEATURES)
    yield Case("soft density", SIZES[0], output="all", parameters=SOFT)
    yield Case("neighbours, 512 features, 100 re-ranked", SIZES[0], parameters=RERANKED)
    yield Case("soft density", SIZES[1], parameters=SOFT)
    yield Case("threshold density, 512 features", SIZES[1], parameters=FEATURES)
    yield Case("neighbours, 512 features, 100 re-ranked", SIZES[1], parameters=RERANKED)


def measure(case, folder):
    """Return the peak memory above what was loaded, and the seconds; in a fresh process."""
    # Images that the case does not use are mapped, so that they are never in memory.
    train, test = (np.load(folder / f"{part}.npy", mmap_mode="r") for part in ("train", "test"))
    X, queries = np.array(train[: case.count]), np.array(test[: case.queries])
    del train, test
    network = load_mnist_network()
    warm_up = replace(case, output="predicted", parameters=SOFT)
    few = X[:WARM_UP_SAMPLES], queries[:WARM_UP_SAMPLES]
    return measure_peak_memory(
        config_context(working_memory=WARM_UP_BUDGET)(partial(warm_up.run, network, *few)),
        config_context(working_memory=case.budget)(partial(case.run, network, X, queries)),
    )


def format_cells(case, folder):
    """Return the cells of a case after its budget."""
    try:
        peak, seconds = run_in_fresh_process(measure, case, folder)
    except (BrokenProcessPool, MemoryError) as failure:
        return [f"failed: {failure}".replace("|", "/"), *["–"] * 3]
    kept = f"{case.kept:.0f}" if case.kept else "–"
    return [f"{peak:.0f}", f"{peak / case.budget:.2f}", kept, f"{seconds:.1f}"]


def generate_table(quick):
    """Yield the table, line by line.

    The images are saved as arrays first, because reading the data set needs memory itself.
    """
    yield from format_header(COLUMNS)
    with tempfile.TemporaryDirectory() as folder:
        for part, count in (("train", SIZES[-1]), ("test", QUERIES)):
            np.save(Path(folder) / f"{part}.npy", load_mnist(part, count).inputs)
        for case in make_cases():
            case = case.shorten() if quick else case
            names = [case.name, case.output, f"{case.count:,}", str(case.budget)]
            yield format_row(*names, *format_cells(case, Path(folder)))


def generate_report(quick):
    """Yield the report, line by line."""
    yield from format_title(__file__, "Peak memory", ("scikit-learn", "numpy"))
    yield (
        "Each estimator is fitted on N training images of MNIST and queried with 1,000 test images,"
        " with a third-party CNN of 390,410 parameters that was trained on MNIST. Each case runs in"
        " a fresh process. Memory is the peak resident size of the process (VmHWM) minus its"
        " resident size after loading network and images and a first run on eight of them. The goal"
        " is at most 1.25 times the budget, including the features that the fitted estimator keeps."
        " Seconds are from one run."
    )
    yield ""
    yield from generate_table(quick)


if __name__ == "__main__":
    write_report(__file__, __doc__, "a fiftieth of the samples", generate_report)
