"""Other packages with kernels, features, graphs and files of sknetsim, on 5,000 images.

Writes ``benchmarks/results/consumers.md``. With ``--quick`` it only prints, on a tenth of the
images.
"""

import functools
import io
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import NamedTuple

import joblib
import numpy as np
import skorch
import torch
from lib.report import format_header, format_row, format_title, write_report
from sklearn.cluster import DBSCAN
from sklearn.decomposition import KernelPCA
from sklearn.frozen import FrozenEstimator
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import WhiteKernel
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from sknetsim import (
    GradientFeaturizer,
    LabelDenoiser,
    NetworkDensity,
    NetworkKernel,
    NetworkNeighbors,
)
from sknetsim.datasets import load_mnist, load_mnist_network

QUICK = 10
TRAIN, TEST = 4_000, 1_000
FEW = 500
FLIPPED = 0.05
COMPONENTS = 256


class Data:
    """4,000 images to fit on, 1,000 test images, and a net around the pretrained network."""

    def __init__(self, quick):
        part = QUICK if quick else 1
        train, test = load_mnist("train", TRAIN // part), load_mnist("test", TEST // part)
        self.X, self.y = train.inputs, train.labels
        self.X_test, self.y_test = test.inputs, test.labels
        net = skorch.NeuralNetClassifier(
            load_mnist_network(), criterion=torch.nn.CrossEntropyLoss, verbose=0
        )
        self.net = FrozenEstimator(net.initialize())  # Its weights are pretrained.

    def make_kernel(self, **settings):
        """Make a kernel of the predicted logit, without the cache of another consumer."""
        return NetworkKernel(self.net, "predicted", **settings)

    def make_flat_kernel(self):
        """Make a kernel of the predicted logit for flattened images (n, 784)."""
        return self.make_kernel(input_shape=(1, 28, 28))

    @functools.cached_property
    def graph(self):
        """Neighbours of the fitted images."""
        return NetworkNeighbors(self.net, "predicted", n_neighbors=15).fit(self.X)

    @functools.cached_property
    def features(self):
        """Features of the fitted images."""
        featurizer = GradientFeaturizer(
            self.net, "predicted", n_components=COMPONENTS, random_state=0
        )
        return featurizer.fit_transform(self.X)

    def score(self, classifier):
        """Fit a classifier and return its accuracy on the test images."""
        return classifier.fit(self.X, self.y).score(self.X_test, self.y_test)

    def encode_labels(self, count=None):
        """Return the one-hot encoded labels of the first ``count`` images."""
        return np.eye(10)[self.y[:count]]


def predict_by_network(data):
    """Measure the accuracy of the network itself."""
    return "accuracy", (data.net.predict(data.X_test) == data.y_test).mean()


def run_svc(data):
    """Measure the accuracy of a support vector machine."""
    return "accuracy", data.score(SVC(kernel=data.make_kernel(), C=10))


def run_kernel_ridge(data):
    """Measure the accuracy of kernel ridge regression."""
    ridge = KernelRidge(kernel=data.make_flat_kernel(), alpha=0.1)
    ridge.fit(flatten(data.X), data.encode_labels())
    predictions = ridge.predict(flatten(data.X_test)).argmax(axis=1)
    return "accuracy", (predictions == data.y_test).mean()


def run_gaussian_process(data):
    """Measure the accuracy of a Gaussian process that is fitted on few images."""
    kernel = 1.0 * data.make_flat_kernel() + WhiteKernel()
    process = GaussianProcessRegressor(kernel, normalize_y=True)
    process.fit(flatten(data.X[:FEW]), data.encode_labels(FEW))
    predictions = process.predict(flatten(data.X_test)).argmax(axis=1)
    return f"accuracy from {FEW} images", (predictions == data.y_test).mean()


def run_kernel_pca(data):
    """Measure the accuracy of a linear classifier on ten kernel principal components."""
    machine = make_pipeline(KernelPCA(10, kernel=data.make_flat_kernel()), LogisticRegression())
    machine.fit(flatten(data.X), data.y)
    return "accuracy of ten components", machine.score(flatten(data.X_test), data.y_test)


def run_neighbors_classifier(data):
    """Measure the accuracy of a nearest-neighbour classifier on the graph."""
    graph = NetworkNeighbors(data.net, "predicted", n_neighbors=15)
    classifier = KNeighborsClassifier(n_neighbors=5, metric="precomputed")
    return "accuracy", data.score(make_pipeline(graph, classifier))


def run_dbscan(data):
    """Compare clusters of the graph with the labels."""
    graph = data.graph.transform(data.X)
    radius = float(np.quantile(graph.data, 0.9))
    clusters = DBSCAN(eps=radius, min_samples=5, metric="precomputed").fit_predict(graph)
    return "adjusted Rand index", adjusted_rand_score(data.y, clusters)


def run_tsne(data):
    """Measure how well an embedding of the graph in the plane separates the labels."""
    graph = data.graph.kneighbors_graph(data.X, 92, "distance")
    plane = TSNE(metric="precomputed", init="random", random_state=0).fit_transform(graph)
    return "accuracy of 5 neighbours in the plane", score_plane(plane, data.y)


def run_umap(data):
    """Measure how well an embedding of the neighbours in the plane separates the labels."""
    from umap import UMAP

    distances, indices = data.graph.kneighbors(data.X)
    plane = UMAP(precomputed_knn=(indices, distances), random_state=0).fit_transform(data.features)
    return "accuracy of 5 neighbours in the plane", score_plane(plane, data.y)


def run_cleanlab(data):
    """Find flipped labels with the graph and the features."""
    flipped, lab = flip_labels(data)
    graph = data.graph.kneighbors_graph(mode="distance")
    lab.find_issues(features=data.features, knn_graph=graph)
    duplicates = lab.get_issues("near_duplicate")["is_near_duplicate_issue"].mean()
    return score_issues(flipped, lab, f", {duplicates:.0%} of all samples near-duplicates")


def run_cleanlab_with_shares(data):
    """Find flipped labels with leave-one-out class shares as probabilities."""
    flipped, lab = flip_labels(data)
    denoiser = LabelDenoiser(data.net, parameters="last_layer")
    shares = denoiser.fit(data.X, lab.labels).leave_one_out(data.X, lab.labels)
    lab.find_issues(pred_probs=shares)
    return score_issues(flipped, lab)


def flip_labels(data):
    """Flip some labels; return which, and cleanlab's Datalab of the labels."""
    from cleanlab import Datalab

    generator = np.random.default_rng(0)
    flipped = generator.random(len(data.y)) < FLIPPED
    labels = np.where(flipped, (data.y + generator.integers(1, 10, len(data.y))) % 10, data.y)
    return flipped, Datalab({"label": labels}, label_name="label", verbosity=0)


def score_issues(flipped, lab, note=""):
    """Measure the recall and the precision of the reported labels."""
    reported = lab.get_issues("label")["is_label_issue"].to_numpy()
    precision = flipped[reported].mean()
    return f"recall of flipped labels (precision {precision:.0%}{note})", reported[flipped].mean()


def save_with_joblib(data):
    """Save and load a fitted density with joblib."""
    density = NetworkDensity(data.net, "predicted").fit(data.X[:FEW])
    file = io.BytesIO()
    joblib.dump(density, file)
    file.seek(0)
    return compare_scores(density, joblib.load(file), data)


def save_with_skops(data):
    """Save and load a fitted density with skops, trusting all types of the file."""
    from skops import io as skops_io

    density = NetworkDensity(data.net, "predicted").fit(data.X[:FEW])
    file = skops_io.dumps(density)
    trusted = skops_io.get_untrusted_types(data=file)
    return compare_scores(density, skops_io.loads(file, trusted=trusted), data)


def compare_scores(fitted, loaded, data):
    """Return the share of test images to which two densities give the same score."""
    X = data.X_test[:FEW]
    return "share of equal scores", (fitted.score_samples(X) == loaded.score_samples(X)).mean()


def flatten(X):
    """Flatten images to (n, 784)."""
    return X.reshape(len(X), -1)


def score_plane(plane, y):
    """Return the accuracy of predicting labels of one half by neighbours in the other half."""
    half = len(y) // 2
    return KNeighborsClassifier(5).fit(plane[:half], y[:half]).score(plane[half:], y[half:])


class Consumer(NamedTuple):
    """A function that runs a tool and returns the name of a measure and its value."""

    run: Callable
    package: str | None
    use: str


CONSUMERS = {
    "the network itself": Consumer(predict_by_network, None, "predictions"),
    "SVC": Consumer(run_svc, "scikit-learn", "kernel, on four-dimensional images"),
    "KernelRidge": Consumer(
        run_kernel_ridge,
        "scikit-learn",
        "kernel, on flattened images, whose shape `input_shape` restores",
    ),
    "GaussianProcessRegressor": Consumer(
        run_gaussian_process, "scikit-learn", "kernel, on the first 500 images"
    ),
    "KernelPCA": Consumer(
        run_kernel_pca, "scikit-learn", "kernel; ten components for a linear classifier"
    ),
    "KNeighborsClassifier": Consumer(
        run_neighbors_classifier, "scikit-learn", "graph of neighbours, in a pipeline"
    ),
    "DBSCAN": Consumer(
        run_dbscan, "scikit-learn", "graph of neighbours; clusters compared with the labels"
    ),
    "TSNE": Consumer(
        run_tsne, "scikit-learn", "graph of neighbours; labels separated in the plane"
    ),
    "UMAP": Consumer(
        run_umap, "umap-learn", "neighbours computed by `NetworkNeighbors`, and features"
    ),
    "Datalab": Consumer(run_cleanlab, "cleanlab", "graph of neighbours and features"),
    "Datalab, with shares": Consumer(
        run_cleanlab_with_shares,
        "cleanlab",
        "leave-one-out class shares of `LabelDenoiser` as probabilities",
    ),
    "joblib": Consumer(save_with_joblib, "joblib", "fitted density in a file"),
    "skops": Consumer(
        save_with_skops,
        "skops",
        "fitted density in a file; each type is trusted by name, and the pickle of the net"
        " without inspection",
    ),
}


def measure_row(name, data):
    """Run one tool and format its row; a failure is reported in the row."""
    consumer = CONSUMERS[name]
    start = time.perf_counter()
    try:
        measure, value = consumer.run(data)
        cells = [measure, f"{value:.3f}"]
    except Exception as failure:
        cells = [f"failed: {failure}".replace("|", "/").replace("\n", " "), "–"]
    seconds = f"{time.perf_counter() - start:.1f}"
    package = f"{consumer.package} {version(consumer.package)}" if consumer.package else "–"
    return format_row(name, package, consumer.use, *cells, seconds)


def generate_report(quick):
    """Yield the report, line by line."""
    warnings.simplefilter("ignore")
    data = Data(quick)
    title = "Other packages with kernels, features, graphs and files of sknetsim"
    yield from format_title(__file__, title, ("scikit-learn", "numpy"))
    yield (
        f"The data are {len(data.X):,} training images of MNIST and {len(data.X_test):,} test"
        " images. Similarities are those of the predicted logit of a third-party CNN that was"
        " trained on MNIST. Seconds are from one run."
    )
    yield ""
    yield from format_header(("tool", "package", "input", "measure", "value", "seconds"))
    for name in CONSUMERS:
        yield measure_row(name, data)


if __name__ == "__main__":
    write_report(__file__, __doc__, "a tenth of the images", generate_report)
