"""Others who take our kernels, features, graphs and files: what each makes of 5,000 images.

Writes ``benchmarks/consumers.md``. With ``--quick`` it only prints, on a tenth of the images.
"""

import functools
import io
import time
import warnings
from importlib.metadata import version

import joblib
import numpy as np
import skorch
import torch
from lib.data.images import mnist, mnist_network
from lib.report import head, row, run, setting
from sklearn.cluster import DBSCAN
from sklearn.decomposition import KernelPCA
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

QUICK = 10
TRAIN, TEST = 4_000, 1_000
FEW = 500
FLIPPED = 0.05
COMPONENTS = 256


class Data:
    """4,000 images to fit on, 1,000 test images, and a net around the foreign network."""

    def __init__(self, quick):
        part = QUICK if quick else 1
        train, test = mnist("train", TRAIN // part), mnist("test", TEST // part)
        self.X, self.y = train.inputs, train.labels
        self.X_test, self.y_test = test.inputs, test.labels
        self.net = skorch.NeuralNetClassifier(
            mnist_network(), criterion=torch.nn.CrossEntropyLoss, verbose=0
        ).initialize()

    @functools.cached_property
    def kernel(self):
        """Of the predicted logit."""
        return NetworkKernel(self.net, "predicted")

    @functools.cached_property
    def graph(self):
        """Neighbours of the fitted images."""
        return NetworkNeighbors(self.net, "predicted", n_neighbors=15).fit(self.X)

    @functools.cached_property
    def features(self):
        """Of the fitted images."""
        featurizer = GradientFeaturizer(
            self.net, "predicted", n_components=COMPONENTS, random_state=0
        )
        return featurizer.fit_transform(self.X)

    def accuracy(self, classifier):
        """On the test images."""
        return classifier.fit(self.X, self.y).score(self.X_test, self.y_test)

    def one_hot(self, count=None):
        """Labels as values."""
        return np.eye(10)[self.y[:count]]


def itself(data):
    """Accuracy of the network."""
    return "accuracy", (data.net.predict(data.X_test) == data.y_test).mean()


def svc(data):
    """On images of four dimensions as they are."""
    return "accuracy", data.accuracy(SVC(kernel=data.kernel, C=10))


def kernel_ridge(data):
    """On flattened images, which get their shape back."""
    kernel = NetworkKernel(data.net, "predicted", input_shape=(1, 28, 28))
    ridge = KernelRidge(kernel=kernel, alpha=0.1).fit(flat(data.X), data.one_hot())
    return "accuracy", (ridge.predict(flat(data.X_test)).argmax(axis=1) == data.y_test).mean()


def gaussian_process(data):
    """On the first 500 images."""
    kernel = NetworkKernel(data.net, "predicted", input_shape=(1, 28, 28))
    process = GaussianProcessRegressor(1.0 * kernel + WhiteKernel(), normalize_y=True)
    process.fit(flat(data.X[:FEW]), data.one_hot(FEW))
    found = process.predict(flat(data.X_test)).argmax(axis=1)
    return f"accuracy from {FEW} images", (found == data.y_test).mean()


def kernel_pca(data):
    """Ten components into a linear classifier."""
    kernel = NetworkKernel(data.net, "predicted", input_shape=(1, 28, 28))
    machine = make_pipeline(KernelPCA(10, kernel=kernel), LogisticRegression())
    machine.fit(flat(data.X), data.y)
    return "accuracy of ten components", machine.score(flat(data.X_test), data.y_test)


def neighbors(data):
    """The graph into a classifier."""
    graph = NetworkNeighbors(data.net, "predicted", n_neighbors=15)
    classifier = KNeighborsClassifier(n_neighbors=5, metric="precomputed")
    return "accuracy", data.accuracy(make_pipeline(graph, classifier))


def dbscan(data):
    """Clusters of the graph against labels."""
    graph = data.graph.transform(data.X)
    radius = float(np.quantile(graph.data, 0.9))
    clusters = DBSCAN(eps=radius, min_samples=5, metric="precomputed").fit_predict(graph)
    return "adjusted Rand index", adjusted_rand_score(data.y, clusters)


def tsne(data):
    """How well a plane separates the labels."""
    graph = data.graph.kneighbors_graph(data.X, 92, "distance")
    plane = TSNE(metric="precomputed", init="random", random_state=0).fit_transform(graph)
    return "accuracy of 5 neighbours in the plane", in_the_plane(plane, data.y)


def umap(data):
    """From our neighbours, none searched again."""
    from umap import UMAP

    distances, indices = data.graph.kneighbors(data.X)
    plane = UMAP(precomputed_knn=(indices, distances), random_state=0).fit_transform(data.features)
    return "accuracy of 5 neighbours in the plane", in_the_plane(plane, data.y)


def cleanlab(data):
    """Flipped labels that are found on our graph and features."""
    flipped, lab = flipped_labels(data)
    graph = data.graph.kneighbors_graph(mode="distance")
    lab.find_issues(features=data.features, knn_graph=graph)
    duplicates = lab.get_issues("near_duplicate")["is_near_duplicate_issue"].mean()
    return found_of(flipped, lab, f", {duplicates:.0%} of all rows near-duplicates")


def cleanlab_by_shares(data):
    """The same with shares of classes among others by LabelDenoiser for probabilities."""
    flipped, lab = flipped_labels(data)
    denoiser = LabelDenoiser(data.net, parameters="last_layer")
    shares = denoiser.fit(data.X, lab.labels).leave_one_out(data.X, lab.labels)
    lab.find_issues(pred_probs=shares)
    return found_of(flipped, lab)


def flipped_labels(data):
    """Which labels are wrong, and a laboratory that looks for them."""
    from cleanlab import Datalab

    generator = np.random.default_rng(0)
    flipped = generator.random(len(data.y)) < FLIPPED
    labels = np.where(flipped, (data.y + generator.integers(1, 10, len(data.y))) % 10, data.y)
    return flipped, Datalab({"label": labels}, label_name="label", verbosity=0)


def found_of(flipped, lab, more=""):
    """The share of wrong labels among those that are found, and of those found among the wrong."""
    found = lab.get_issues("label")["is_label_issue"].to_numpy()
    right = flipped[found].mean()
    return f"flipped labels found ({right:.0%} of what it reports{more})", found[flipped].mean()


def with_joblib(data):
    """A fitted density in a file."""
    density = NetworkDensity(data.net, "predicted").fit(data.X[:FEW])
    file = io.BytesIO()
    joblib.dump(density, file)
    file.seek(0)
    return same_answers(density, joblib.load(file), data)


def with_skops(data):
    """A fitted density in a file; its types are trusted one by one, and the net's pickle unseen."""
    from skops import io as skops_io

    density = NetworkDensity(data.net, "predicted").fit(data.X[:FEW])
    file = skops_io.dumps(density)
    trusted = skops_io.get_untrusted_types(data=file)
    return same_answers(density, skops_io.loads(file, trusted=trusted), data)


def same_answers(fitted, loaded, data):
    """The share of equal answers."""
    X = data.X_test[:FEW]
    return "equal answers", (fitted.score_samples(X) == loaded.score_samples(X)).mean()


def flat(X):
    """Images as rows."""
    return X.reshape(len(X), -1)


def in_the_plane(plane, y):
    """Of a row's label by its neighbours' among the other half."""
    half = len(y) // 2
    return KNeighborsClassifier(5).fit(plane[:half], y[:half]).score(plane[half:], y[half:])


CONSUMERS = {
    "the network itself": (itself, None),
    "SVC": (svc, "scikit-learn"),
    "KernelRidge": (kernel_ridge, "scikit-learn"),
    "GaussianProcessRegressor": (gaussian_process, "scikit-learn"),
    "KernelPCA": (kernel_pca, "scikit-learn"),
    "KNeighborsClassifier": (neighbors, "scikit-learn"),
    "DBSCAN": (dbscan, "scikit-learn"),
    "TSNE": (tsne, "scikit-learn"),
    "UMAP": (umap, "umap-learn"),
    "Datalab": (cleanlab, "cleanlab"),
    "Datalab, with shares": (cleanlab_by_shares, "cleanlab"),
    "joblib": (with_joblib, "joblib"),
    "skops": (with_skops, "skops"),
}


def line(name, data):
    """What a consumer makes of it; a failure is told."""
    call, package = CONSUMERS[name]
    start = time.perf_counter()
    try:
        what, value = call(data)
        found = [what, f"{value:.3f}"]
    except Exception as failure:
        found = [f"failed: {failure}".replace("|", "/").replace("\n", " "), "–"]
    seconds = f"{time.perf_counter() - start:.1f}"
    used = f"{package} {version(package)}" if package else "–"
    return row(name, used, call.__doc__.strip().rstrip("."), *found, seconds)


def lines(quick):
    """The whole text, line by line."""
    warnings.simplefilter("ignore")
    data = Data(quick)
    yield from ("# Others who take what we give", "", f"{setting(('scikit-learn', 'numpy'))}.", "")
    yield (
        f"{len(data.X):,} training images of MNIST, {len(data.X_test):,} test images, the predicted"
        " logit of the CNN that somebody else trained on MNIST. Seconds are of one run."
    )
    yield ""
    yield from head(("consumer", "package", "how", "figure", "value", "seconds"))
    for name in CONSUMERS:
        yield line(name, data)


if __name__ == "__main__":
    run(__file__, __doc__, "a tenth of the images", lines)
