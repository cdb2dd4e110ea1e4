"""Peak memory against scikit-learn's ``working_memory``, on MNIST with a network trained on it.

Writes ``benchmarks/memory.md``. With ``--quick`` it only prints, after a fiftieth of the rows.
"""

import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import sklearn
from lib.data.images import mnist, mnist_network
from lib.peers.serving import peak_memory, resident_memory
from lib.report import head, row, run, setting

from sknetsim import NetworkDensity, NetworkNeighbors

SIZES = (5_000, 60_000)
QUERIES = 1_000
BUDGET, SMALL_BUDGET = 1024, 128
WARM_UP_ROWS, WARM_UP_BUDGET = 8, 16
QUICK, QUICK_COMPONENTS = 50, 32
COLUMNS = (
    "case",
    "output",
    "N",
    "working_memory (MiB)",
    "peak above what was loaded (MiB)",
    "times the budget",
    "features kept (MiB)",
    "seconds",
)


@dataclass(frozen=True)
class Case:
    """An estimator, fitted on so many images and asked about others."""

    name: str
    count: int
    budget: int = BUDGET
    output: str = "predicted"
    parameters: dict = field(default_factory=dict)
    queries: int = QUERIES

    def quick(self):
        """With fewer rows and features."""
        fewer = {"n_components": QUICK_COMPONENTS} if "n_components" in self.parameters else {}
        return replace(
            self,
            count=self.count // QUICK,
            queries=self.queries // QUICK,
            parameters=self.parameters | fewer,
        )

    def answer(self, network, X, queries):
        """Fit, and ask."""
        is_density = "method" in self.parameters
        estimator = (NetworkDensity if is_density else NetworkNeighbors)(
            network, self.output, random_state=0, **self.parameters
        )
        fitted = estimator.fit(X)
        return (fitted.score_samples if is_density else fitted.kneighbors)(queries)

    @property
    def kept(self):
        """MiB of the features that the fitted estimator holds, float32."""
        return 4 * self.count * self.parameters.get("n_components", 0) / 2**20


SOFT = {"method": "soft"}
THRESHOLD = {"method": "threshold"}
FEATURES = THRESHOLD | {"n_components": 512}
RERANKED = {"n_components": 512, "n_candidates": 100}


def cases():
    """From the quick ones to the slow ones."""
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


def measured(case, folder):
    """Peak above what was loaded, and seconds; in a process that has done nothing else."""
    # Mapped, so that images that the case leaves out are never in memory.
    train, test = (np.load(folder / f"{part}.npy", mmap_mode="r") for part in ("train", "test"))
    X, queries = np.array(train[: case.count]), np.array(test[: case.queries])
    del train, test
    network = mnist_network()
    warm_up = replace(case, output="predicted", parameters=SOFT)
    with sklearn.config_context(working_memory=WARM_UP_BUDGET):
        warm_up.answer(network, X[:WARM_UP_ROWS], queries[:WARM_UP_ROWS])
    loaded = resident_memory()
    start = time.perf_counter()
    with sklearn.config_context(working_memory=case.budget):
        case.answer(network, X, queries)
    return peak_memory() - loaded, time.perf_counter() - start


def in_a_process(case, folder):
    """The same, in a fresh one."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measured, case, folder).result()


def figures(case, folder):
    """The cells of a case, from the peak on."""
    try:
        peak, seconds = in_a_process(case, folder)
    except (BrokenProcessPool, MemoryError) as failure:
        return [f"failed: {failure}".replace("|", "/"), *["–"] * 3]
    kept = f"{case.kept:.0f}" if case.kept else "–"
    return [f"{peak:.0f}", f"{peak / case.budget:.2f}", kept, f"{seconds:.1f}"]


def table(quick):
    """The table, line by line; images are written out, for reading them takes memory of its own."""
    yield from head(COLUMNS)
    with tempfile.TemporaryDirectory() as folder:
        for part, count in (("train", SIZES[-1]), ("test", QUERIES)):
            np.save(Path(folder) / f"{part}.npy", mnist(part, count).inputs)
        for case in cases():
            case = case.quick() if quick else case
            named = [case.name, case.output, f"{case.count:,}", str(case.budget)]
            yield row(*named, *figures(case, Path(folder)))


def lines(quick):
    """The whole text, line by line."""
    yield from ("# Peak memory", "", f"{setting(('scikit-learn', 'numpy'))}.", "")
    yield (
        "Fitted on N training images of MNIST, asked about 1,000 test images, with a CNN of 390,410"
        " parameters that somebody else trained on it. Each case runs in a fresh process; memory is"
        " the process's peak resident size (VmHWM) less its resident size with network and images"
        " loaded, after a first run on eight of them. The goal is at most 1.25 times the budget,"
        " features that the fitted estimator keeps included; seconds are of one run."
    )
    yield ""
    yield from table(quick)


if __name__ == "__main__":
    run(__file__, __doc__, "a fiftieth of the rows", lines)
