"""Time and peak memory from a thousand rows to a million, workers, and the whole of MNIST.

Writes ``benchmarks/scaling.md`` and ``docs/images/scaling.png``. With ``--quick`` it only prints,
up to ten thousand rows.
"""

import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import torch
from lib.data.images import mnist, mnist_network
from lib.networks import perceptron
from lib.peers.serving import peak_memory, resident_memory
from lib.report import RESULTS, head, row, run, setting, spread

from sknetsim import (
    FeatureStore,
    GradientFeaturizer,
    NetworkDensity,
    NetworkNeighbors,
    featurize,
)

SIZES = (1_000, 10_000, 100_000, 1_000_000)
FEATURES, QUERIES, ROUNDS, WORKED_ROWS = 512, 10_000, 3, 40_000
PICTURE = RESULTS / "scaling.png"


def network():
    """64-512-512-1, 296,449 parameters."""
    torch.manual_seed(0)
    return perceptron(1)


def written_rows(folder, count):
    """Rows on disk, made in parts."""
    path, generator = folder / f"rows-{count}.npy", np.random.default_rng(0)
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (count, 64))
    centres = 2 * generator.standard_normal((10, 64))
    for start in range(0, count, 10_000):
        stop = min(start + 10_000, count)
        chosen = centres[generator.integers(10, size=stop - start)]
        rows[start:stop] = chosen + generator.standard_normal(chosen.shape)
    return path


@dataclass(frozen=True)
class Work:
    """Where the rows and the store of so many are."""

    folder: Path
    count: int

    def rows(self):
        """Mapped."""
        return np.load(self.folder / f"rows-{self.count}.npy", mmap_mode="r")

    def queries(self):
        """The rows of the set of 10,000, a little changed."""
        rows = np.load(self.folder / f"rows-{SIZES[1]}.npy", mmap_mode="r")
        return rows[:QUERIES] + np.float32(0.1)

    def store(self):
        """Of the features."""
        return FeatureStore(self.folder / f"store-{self.count}")

    def query_features(self):
        """Of the queries."""
        return np.load(self.folder / "query-features.npy")

    def featurizer(self):
        """Fitted on the smallest set, whatever the size."""
        rows = np.array(np.load(self.folder / f"rows-{SIZES[0]}.npy"))
        return GradientFeaturizer(network(), n_components=FEATURES, random_state=0).fit(rows)


def featurizing(work):
    """All rows, into a store."""
    featurizer, rows = work.featurizer(), work.rows()
    yield
    featurize(featurizer, rows, work.folder / f"store-{work.count}")


def soft_density(work):
    """Exact, of the gradients: fit, and 10,000 queries."""
    density, rows, queries = NetworkDensity(network()), work.rows(), work.queries()
    yield
    density.fit(rows).score_samples(queries)


def of_store(make):
    """A way that fits a store and asks about the features of 10,000 queries."""

    def way(work):
        estimator, store, queries = make(), work.store(), work.query_features()
        yield
        estimator.fit(store)
        ask = getattr(estimator, "score_samples", None) or estimator.kneighbors
        ask(queries)

    return way


#: Of a `Work`; what comes before their yield is neither timed nor counted.
WAYS = {
    "featurize, 512 features": featurizing,
    "soft density, exact": soft_density,
    "soft density, store": of_store(lambda: NetworkDensity("features")),
    "threshold density, store": of_store(
        lambda: NetworkDensity("features", method="threshold", dimension=10.0)
    ),
    "10 neighbours, store": of_store(lambda: NetworkNeighbors("features", n_neighbors=10)),
    "10 neighbours, store, faiss": of_store(
        lambda: NetworkNeighbors("features", n_neighbors=10, algorithm="faiss", random_state=0)
    ),
}


def measured(name, work):
    """Seconds, and peak memory above what was loaded; in a process that has done nothing else."""
    way = WAYS[name](work)
    next(way)
    loaded, start = resident_memory(), time.perf_counter()
    for _ in way:
        pass
    return time.perf_counter() - start, peak_memory() - loaded


def in_a_process(function, *arguments):
    """The same, in a fresh one."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def slope(found):
    """The power of N that seconds grow by, over the last factor of ten."""
    (few, before), (many, after) = sorted(found.items())[-2:]
    return np.log(after / before) / np.log(many / few)


def sizes_table(folder, sizes, found):
    """A line for each way; ``found`` takes the seconds of each size."""
    for count in sizes:
        written_rows(folder, count)
    columns = [f"N = {count:,}" for count in sizes]
    yield from head(["seconds (peak MiB)", *columns, "seconds grow as N to the power"])
    queries = None
    for name in WAYS:
        cells = []
        for count in sizes:
            seconds, memory = in_a_process(measured, name, Work(folder, count))
            found.setdefault(name, {})[count] = seconds
            cells.append(f"{seconds:.3g} ({memory:.0f})")
        yield row(name, *cells, f"{slope(found[name]):.2f}")
        if queries is None:
            queries = in_a_process(save_query_features, Work(folder, sizes[0]))


def save_query_features(work):
    """For the ways that follow."""
    queries = work.featurizer().transform(work.queries())
    np.save(work.folder / "query-features.npy", queries)
    return len(queries)


def draw(found):
    """Seconds by N."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for (name, seconds), marker in zip(found.items(), "os^Dv*", strict=True):
        axes.loglog(list(seconds), list(seconds.values()), marker=marker, label=name)
    axes.set_xlabel("fitted rows N")
    axes.set_ylabel("seconds")
    axes.set_title("Fit, and 10,000 queries (featurize: all rows)")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(PICTURE, dpi=120)


def timed(call, *arguments):
    """Its seconds."""
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


def workers_table(count):
    """One process of two threads against two of one, in turns."""
    rows = np.random.default_rng(0).standard_normal((count, 64)).astype(np.float32)
    featurizer = GradientFeaturizer(network(), n_components=FEATURES, random_state=0)
    featurizer.fit(rows[:1000])
    few = rows[: count // 4]
    calls = {
        "featurize": lambda jobs: featurizer.set_params(n_jobs=jobs).transform(rows),
        "soft density": lambda jobs: (
            NetworkDensity(network(), n_jobs=jobs).fit(rows).score_samples(rows)
        ),
        f"neighbours of {len(few):,} rows": lambda jobs: (
            NetworkNeighbors(network(), n_jobs=jobs).fit(few).kneighbors()
        ),
    }
    yield from head(["", "two processes", "two workers of Dask"])
    for name, call in calls.items():
        ratios = {"loky": [], "dask": []}
        for backend, found in ratios.items():
            with joblib.parallel_config(backend=backend):
                call(2)
            for _ in range(ROUNDS):
                alone = timed(call, 1)
                with joblib.parallel_config(backend=backend):
                    found.append(timed(call, 2) / alone)
        yield row(name, *map(shown, ratios.values()))


def shown(found):
    """Median, least and most."""
    return f"{statistics.median(found):.2f} ({spread(found, '.2f')})"


def with_cluster(count):
    """The same, beside a cluster of two workers."""
    from dask.distributed import Client, LocalCluster

    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
    with cluster, Client(cluster):
        yield from workers_table(count)


def whole_of_mnist(folder, part):
    """All images of both sets by a network of somebody else's, from files to neighbours."""
    sets = [mnist("train", 60_000 // part).inputs, mnist("test", 10_000 // part).inputs]
    np.save(folder / "mnist.npy", np.concatenate(sets))
    images = np.load(folder / "mnist.npy", mmap_mode="r")
    found = {}
    store = {}
    featurizer = GradientFeaturizer(mnist_network(), "predicted", n_components=256, random_state=0)

    def features():
        store["all"] = featurize(featurizer.fit(images), images, folder / "mnist")

    def nearest(algorithm):
        estimator = NetworkNeighbors(
            "features", n_neighbors=10, algorithm=algorithm, random_state=0
        )
        return estimator.fit(store["all"]).kneighbors()[1]

    results = {}
    steps = {
        "256 features of all, into a store": features,
        "soft density of all among all, exact": lambda: (
            NetworkDensity(mnist_network(), "predicted").fit(images).score_samples(images)
        ),
        "threshold density of all among all, by features": lambda: (
            NetworkDensity("features", method="threshold")
            .fit(store["all"])
            .score_samples(store["all"])
        ),
        "10 neighbours of all, by features": lambda: results.update(exact=nearest("brute")),
        "the same by faiss": lambda: results.update(near=nearest("faiss")),
    }
    yield from head(["step", "seconds"])
    for name, step in steps.items():
        found[name] = timed(step)
        yield row(name, f"{found[name]:.0f}")
    yield row("together", f"{sum(found.values()):.0f}")
    same = (results["exact"][:, :, None] == results["near"][:, None]).any(axis=2).mean()
    yield ""
    yield (
        f"Error of similarities by features: {featurizer.kernel_error_:.4f}. Of the neighbours by"
        f" features faiss finds {100 * same:.2f} %. Peak memory of this part, everything loaded:"
        f" {peak_memory():,.0f} MiB."
    )


def lines(quick):
    """The whole text, line by line."""
    found = {}
    sizes, part = (SIZES[:2], 20) if quick else (SIZES, 1)
    yield from ("# Scaling", "", f"{setting(['numpy', 'scikit-learn', 'joblib'])}.", "")
    yield (
        "Rows of 64 numbers on disk, a perceptron of 296,449 parameters with one output. Fit on N"
        f" rows, then {QUERIES:,} queries; features are {FEATURES}, from landmarks, in a store in"
        " float32. Each cell is one run in a fresh process, its peak resident memory above what was"
        " loaded before, pages of files that it reads included. Densities and neighbours of a store"
        " get features of the queries."
    )
    yield ""
    with tempfile.TemporaryDirectory() as folder:
        yield from sizes_table(Path(folder), sizes, found)
    if not quick:
        draw(found)
    yield from ("", "## Workers", "")
    yield (
        f"Time of two workers of one thread each, in times of one process of two threads; median"
        f" of {ROUNDS}, in turns, workers started before. {WORKED_ROWS // part:,} rows of the same"
        " kind."
    )
    yield ""
    yield from with_cluster(WORKED_ROWS // part)
    yield from ("", "## All of MNIST", "")
    yield (
        f"{70_000 // part:,} images from a file by a CNN of 390,410 parameters that somebody else"
        " trained, its predicted logit; one run."
    )
    yield ""
    with tempfile.TemporaryDirectory() as folder:
        yield from whole_of_mnist(Path(folder), part)


if __name__ == "__main__":
    run(__file__, __doc__, "up to ten thousand rows", lines)
