"""Time and peak memory from a thousand to a million samples, workers, and the whole of MNIST.

Writes ``scaling.md`` and ``scaling.png`` in ``benchmarks/results``. With ``--quick`` it only
prints, up to ten thousand samples.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import torch
from lib.networks import make_perceptron
from lib.processes import (
    measure_seconds,
    read_peak_memory,
    read_resident_memory,
    run_in_fresh_process,
)
from lib.report import (
    RESULTS,
    format_header,
    format_range,
    format_row,
    format_title,
    write_report,
)

from sknetsim import (
    FeatureStore,
    GradientFeaturizer,
    NetworkDensity,
    NetworkNeighbors,
    featurize,
)
from sknetsim.datasets import load_mnist, load_mnist_network

SIZES = (1_000, 10_000, 100_000, 1_000_000)
FEATURES, QUERIES, ROUNDS, WORKER_SAMPLES = 512, 10_000, 3, 40_000
PICTURE = RESULTS / "scaling.png"


def make_network():
    """Make a perceptron 64-512-512-1 of 296,449 parameters."""
    torch.manual_seed(0)
    return make_perceptron(1)


def write_samples(folder, count):
    """Write clustered samples to a file, in parts."""
    path, generator = folder / f"samples-{count}.npy", np.random.default_rng(0)
    samples = np.lib.format.open_memmap(path, "w+", np.float32, (count, 64))
    centres = 2 * generator.standard_normal((10, 64))
    for start in range(0, count, 10_000):
        stop = min(start + 10_000, count)
        chosen = centres[generator.integers(10, size=stop - start)]
        samples[start:stop] = chosen + generator.standard_normal(chosen.shape)


@dataclass(frozen=True)
class Files:
    """Samples, queries and features of one size in a folder."""

    folder: Path
    count: int

    def map_samples(self):
        """Return the samples as a memory-mapped array."""
        return np.load(self.folder / f"samples-{self.count}.npy", mmap_mode="r")

    def load_queries(self):
        """Return the samples of the set of 10,000, slightly changed."""
        samples = np.load(self.folder / f"samples-{SIZES[1]}.npy", mmap_mode="r")
        return samples[:QUERIES] + np.float32(0.1)

    def open_store(self):
        """Return the store of the features."""
        return FeatureStore(self.folder / f"store-{self.count}")

    def load_query_features(self):
        """Return the features of the queries."""
        return np.load(self.folder / "query-features.npy")

    def fit_featurizer(self):
        """Fit a featurizer on the smallest set, whatever the size."""
        samples = np.array(np.load(self.folder / f"samples-{SIZES[0]}.npy"))
        featurizer = GradientFeaturizer(make_network(), n_components=FEATURES, random_state=0)
        return featurizer.fit(samples)


def featurize_samples(files):
    """Write the features of all samples to a store."""
    featurizer, samples = files.fit_featurizer(), files.map_samples()
    yield
    featurize(featurizer, samples, files.folder / f"store-{files.count}")


def score_soft_density(files):
    """Fit the exact density of the gradients, and score the queries."""
    density, samples = NetworkDensity(make_network()), files.map_samples()
    queries = files.load_queries()
    yield
    density.fit(samples).score_samples(queries)


def make_store_step(make_estimator):
    """Make a step that fits an estimator on a store and queries it with features."""

    def query_store(files):
        estimator, store = make_estimator(), files.open_store()
        queries = files.load_query_features()
        yield
        estimator.fit(store)
        query = getattr(estimator, "score_samples", None) or estimator.kneighbors
        query(queries)

    return query_store


#: Generator functions of `Files`; what they do before their yield is not measured.
STEPS = {
    "featurize, 512 features": featurize_samples,
    "soft density, exact": score_soft_density,
    "soft density, store": make_store_step(lambda: NetworkDensity("features")),
    "threshold density, store": make_store_step(
        lambda: NetworkDensity("features", method="threshold", dimension=10.0)
    ),
    "10 neighbours, store": make_store_step(lambda: NetworkNeighbors("features", n_neighbors=10)),
    "10 neighbours, store, faiss": make_store_step(
        lambda: NetworkNeighbors("features", n_neighbors=10, algorithm="faiss", random_state=0)
    ),
}


def measure(name, files):
    """Return the seconds, and the peak memory above what was loaded; in a fresh process."""
    step = STEPS[name](files)
    next(step)
    loaded, start = read_resident_memory(), time.perf_counter()
    for _ in step:
        pass
    return time.perf_counter() - start, read_peak_memory() - loaded


def compute_exponent(seconds):
    """Return the exponent of N in the seconds, over the last factor of ten."""
    (few, before), (many, after) = sorted(seconds.items())[-2:]
    return np.log(after / before) / np.log(many / few)


def generate_sizes(folder, sizes, seconds):
    """Yield a row for each step, and write its seconds by size into ``seconds``."""
    for count in sizes:
        write_samples(folder, count)
    columns = [f"N = {count:,}" for count in sizes]
    yield from format_header(["seconds (peak MiB)", *columns, "exponent of N in the seconds"])
    has_query_features = False
    for name in STEPS:
        cells = []
        for count in sizes:
            elapsed, memory = run_in_fresh_process(measure, name, Files(folder, count))
            seconds.setdefault(name, {})[count] = elapsed
            cells.append(f"{elapsed:.3g} ({memory:.0f})")
        yield format_row(name, *cells, f"{compute_exponent(seconds[name]):.2f}")
        if not has_query_features:
            run_in_fresh_process(save_query_features, Files(folder, sizes[0]))
            has_query_features = True


def save_query_features(files):
    """Save the features of the queries for the steps that use a store."""
    queries = files.fit_featurizer().transform(files.load_queries())
    np.save(files.folder / "query-features.npy", queries)


def draw(seconds):
    """Draw the seconds by N."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for (name, by_size), marker in zip(seconds.items(), "os^Dv*", strict=True):
        axes.loglog(list(by_size), list(by_size.values()), marker=marker, label=name)
    axes.set_xlabel("fitted samples N")
    axes.set_ylabel("seconds")
    axes.set_title("Fit and 10,000 queries (featurize: all samples)")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(PICTURE, dpi=120)


def generate_workers(count):
    """Yield a table of two workers of one thread against one process of two threads, in turns."""
    samples = np.random.default_rng(0).standard_normal((count, 64)).astype(np.float32)
    featurizer = GradientFeaturizer(make_network(), n_components=FEATURES, random_state=0)
    featurizer.fit(samples[:1000])
    few = samples[: count // 4]
    calls = {
        "featurize": lambda jobs: featurizer.set_params(n_jobs=jobs).transform(samples),
        "soft density": lambda jobs: (
            NetworkDensity(make_network(), n_jobs=jobs).fit(samples).score_samples(samples)
        ),
        f"neighbours of {len(few):,} samples": lambda jobs: (
            NetworkNeighbors(make_network(), n_jobs=jobs).fit(few).kneighbors()
        ),
    }
    yield from format_header(["", "two processes", "two workers of Dask"])
    for name, call in calls.items():
        ratios = {"loky": [], "dask": []}
        for backend, values in ratios.items():
            with joblib.parallel_config(backend=backend):
                call(2)
            for _ in range(ROUNDS):
                single = measure_seconds(call, 1)
                with joblib.parallel_config(backend=backend):
                    values.append(measure_seconds(call, 2) / single)
        yield format_row(name, *map(format_median, ratios.values()))


def format_median(values):
    """Format the median with the range."""
    return f"{statistics.median(values):.2f} ({format_range(values, '.2f')})"


def generate_workers_with_cluster(count):
    """Yield the table of workers while a cluster of two Dask workers exists."""
    from dask.distributed import Client, LocalCluster

    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
    with cluster, Client(cluster):
        yield from generate_workers(count)


def generate_mnist(folder, part):
    """Yield a table of all images of both sets: features, densities and neighbours."""
    sets = [load_mnist("train", 60_000 // part).inputs, load_mnist("test", 10_000 // part).inputs]
    np.save(folder / "mnist.npy", np.concatenate(sets))
    images = np.load(folder / "mnist.npy", mmap_mode="r")
    seconds, results = {}, {}
    network = load_mnist_network()
    featurizer = GradientFeaturizer(network, "predicted", n_components=256, random_state=0)

    def write_store():
        results["store"] = featurize(featurizer.fit(images), images, folder / "mnist")

    def find_neighbours(algorithm):
        estimator = NetworkNeighbors(
            "features", n_neighbors=10, algorithm=algorithm, random_state=0
        )
        results[algorithm] = estimator.fit(results["store"]).kneighbors()[1]

    steps = {
        "256 features of all images, into a store": write_store,
        "soft density of all images among all, exact": lambda: (
            NetworkDensity(load_mnist_network(), "predicted").fit(images).score_samples(images)
        ),
        "threshold density of all images among all, from features": lambda: (
            NetworkDensity("features", method="threshold")
            .fit(results["store"])
            .score_samples(results["store"])
        ),
        "10 neighbours of all images, from features": lambda: find_neighbours("brute"),
        "the same with faiss": lambda: find_neighbours("faiss"),
    }
    yield from format_header(["step", "seconds"])
    for name, step in steps.items():
        seconds[name] = measure_seconds(step)
        yield format_row(name, f"{seconds[name]:.0f}")
    yield format_row("total", f"{sum(seconds.values()):.0f}")
    recall = (results["brute"][:, :, None] == results["faiss"][:, None]).any(axis=2).mean()
    yield ""
    yield (
        f"Error of the similarities from features: {featurizer.kernel_error_:.4f}. faiss finds"
        f" {100 * recall:.2f} % of the neighbours from features. Peak memory of this part,"
        f" including everything loaded: {read_peak_memory():,.0f} MiB."
    )


def generate_report(quick):
    """Yield the report, line by line."""
    seconds = {}
    sizes, part = (SIZES[:2], 20) if quick else (SIZES, 1)
    yield from format_title(__file__, "Scaling", ["numpy", "scikit-learn", "joblib"])
    yield (
        "The samples are rows of 64 numbers in a file, and the network is a perceptron of 296,449"
        f" parameters with one output. Estimators are fitted on N samples and evaluated at"
        f" {QUERIES:,} queries; a store contains {FEATURES} Nyström features in float32. Each cell"
        " is one run in a fresh process: seconds and, in brackets, the peak resident memory above"
        " what was loaded before, including the pages of files that the run reads. Densities and"
        " neighbours of a store are queried with features."
    )
    yield ""
    with tempfile.TemporaryDirectory() as folder:
        yield from generate_sizes(Path(folder), sizes, seconds)
    if not quick:
        draw(seconds)
    yield from ("", "## Workers", "")
    yield (
        "The table shows the time of two workers of one thread each, divided by the time of one"
        f" process with two threads, as median (range) of {ROUNDS} runs in turns. The workers were"
        f" started before. The data are {WORKER_SAMPLES // part:,} samples of 64 numbers."
    )
    yield ""
    yield from generate_workers_with_cluster(WORKER_SAMPLES // part)
    yield from ("", "## All of MNIST", "")
    yield (
        f"The table shows one run on {70_000 // part:,} images from a file, with the predicted"
        " logit of a third-party CNN of 390,410 parameters."
    )
    yield ""
    with tempfile.TemporaryDirectory() as folder:
        yield from generate_mnist(Path(folder), part)


if __name__ == "__main__":
    write_report(__file__, __doc__, "up to ten thousand samples", generate_report)
