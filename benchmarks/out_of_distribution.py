"""Out-of-distribution samples according to the density of a network and to other detectors.

Writes ``benchmarks/results/out_of_distribution.md``. With ``--quick`` it only prints, after one
seed and a tenth of the samples.
"""

from collections import defaultdict
from itertools import chain

import numpy as np
import torch
from lib.data.images import FASHION, load_fashion_mnist
from lib.data.tables import load_all_diamonds
from lib.report import format_header, format_range, format_row, format_title, write_report
from lib.training import make_perceptron_net
from scipy.ndimage import rotate
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from skorch import NeuralNetRegressor
from torch import nn

from sknetsim import GradientFeaturizer, NetworkDensity, NetworkNeighbors
from sknetsim.datasets import load_mnist, load_mnist_network, normalize_mnist

SEEDS, QUICK, NEIGHBORS = 3, 10, 5
IN = "MNIST"
BASELINES = ("largest softmax", "energy", "k-NN, last hidden layer")
LARGE = {"fitted": 5_000, "count": 2_000, "outputs": ("predicted",), "components": 512}
SMALL = {"fitted": 1_000, "count": 250, "outputs": ("predicted", "all"), "components": 128}
SHARE, DIAMOND_COMPONENTS = 0.01, 128


def list_densities(thresholds, alphas):
    """Yield the names and parameters of densities."""
    by_threshold = {f"threshold {tau:g}": ("threshold", "threshold", tau) for tau in thresholds}
    by_power = {f"power {alpha:g}": ("power", "alpha", alpha) for alpha in alphas}
    for name, (method, parameter, value) in {**by_threshold, **by_power}.items():
        yield name, {"method": method, parameter: value}


# Images


def rotate_images(images, degrees):
    """Rotate digits to the left; the grey values are interpolated."""
    return rotate(images.astype(float), degrees, axes=(1, 2), reshape=False, order=1)


def make_image_sets(rng, count):
    """Return images by origin; the rotated digits are other digits than the upright ones."""
    digits = load_mnist("test").images[rng.permutation(10_000)[: 2 * count]]
    shape, others = (count, *digits.shape[1:]), digits[count:]
    sets = {IN: digits[:count]}
    if FASHION.exists():
        chosen = rng.choice(10_000, count, replace=False)
        sets["Fashion-MNIST"] = load_fashion_mnist("test", 10_000).images[chosen]
    noise = np.clip(rng.normal(0.1307, 0.3081, shape), 0, 1)
    sets |= {"uniform noise": rng.integers(0, 256, shape), "Gaussian noise": 255 * noise}
    rotated = {f"rotated by {angle}°": rotate_images(others, angle) for angle in (90, 45)}
    return sets | rotated


def score_by_baselines(network, fitted, X):
    """Yield the baselines with their scores of the same samples."""
    hidden = nn.Sequential(network.conv_layers, nn.Flatten(), network.fc_layers[:-1])
    with torch.no_grad():
        logits = network(torch.tensor(X))
        features, queries = (
            nn.functional.normalize(hidden(torch.tensor(part))).numpy() for part in (fitted, X)
        )
    names = iter(BASELINES)
    yield next(names), logits.softmax(dim=1).max(dim=1).values.numpy()
    yield next(names), logits.logsumexp(dim=1).numpy()
    yield next(names), score_by_neighbors(NearestNeighbors, features, queries)


def score_by_neighbors(make_neighbors, features, queries):
    """Return minus the distance to neighbour NEIGHBORS."""
    distances, _ = make_neighbors(n_neighbors=NEIGHBORS).fit(features).kneighbors(queries)
    return -distances[:, -1]


def make_feature_neighbors(**settings):
    """Make an estimator of neighbours by the similarity, for samples that are features."""
    return NetworkNeighbors("features", **settings)


def score_by_densities(network, fitted, X, output, components, seed):
    """Yield sknetsim's detectors with their scores.

    The soft density is exact; the other detectors use Nyström features.
    """
    soft = NetworkDensity(network, output).fit(fitted)
    yield f"{output}, soft, exact", soft.score_samples(X)
    featurizer = GradientFeaturizer(network, output, n_components=components, random_state=seed)
    features, queries = (featurizer.fit(fitted).transform(part) for part in (fitted, X))
    for name, parameters in list_densities((0.3, 0.5, 0.7, 0.9), (2, 8, 32, 128)):
        density = NetworkDensity("features", **parameters).fit(features)
        yield f"{output}, {name}", density.score_samples(queries)
    yield f"{output}, k-NN", score_by_neighbors(make_feature_neighbors, features, queries)
    yield f"{output}, length of the features", np.linalg.norm(queries, axis=1)


def score_by_last_layer(network, fitted, X):
    """Yield the exact density of the last layer's parameters with its scores."""
    density = NetworkDensity(network, method="power", alpha=128.0, parameters="last_layer")
    yield "all, last layer, power 128, exact", density.fit(fitted).score_samples(X)


def score_images(seed, fitted, count, outputs, components):
    """Return the detectors with their scores for one seed, and the origin of each image."""
    rng = np.random.default_rng(seed)
    network = load_mnist_network()
    known = load_mnist("train").select(rng.choice(60_000, fitted, replace=False)).inputs
    sets = make_image_sets(rng, count)
    X = np.concatenate([normalize_mnist(images) for images in sets.values()])
    ours = (score_by_densities(network, known, X, output, components, seed) for output in outputs)
    baselines = score_by_baselines(network, known, X)
    scores = chain(baselines, *ours, score_by_last_layer(network, known, X))
    return scores, np.repeat(list(sets), count)


def compute_separation(inside, outside):
    """Return the area under the ROC curve and the share of accepted images from outside.

    An image is accepted if its score is at least that which 95 % of the images inside reach.
    """
    labels = np.repeat([1, 0], [len(inside), len(outside)])
    area = roc_auc_score(labels, np.concatenate([inside, outside]))
    return area, (outside >= np.percentile(inside, 5)).mean()


def measure_separations(sizes, seeds):
    """Return an array (seeds, 2) of area and share for each origin and detector."""
    pairs = defaultdict(lambda: defaultdict(list))
    for seed in range(seeds):
        scores, origin = score_images(seed, **sizes)
        for name, values in scores:
            for other in dict.fromkeys(origin[origin != IN]):
                pair = compute_separation(values[origin == IN], values[origin == other])
                pairs[other][name].append(pair)
    return {
        other: {name: np.array(rows) for name, rows in by_name.items()}
        for other, by_name in pairs.items()
    }


def generate_separations(separations, column):
    """Yield a table of means and standard deviations of the area (0) or the share (1)."""
    yield from format_header(("detector", *separations))
    for name in next(iter(separations.values())):
        values = [by_name[name][:, column] for by_name in separations.values()]
        yield format_row(name, *(f"{part.mean():.4f} ± {part.std():.4f}" for part in values))


def generate_differences(separations):
    """Yield a table of the areas minus that of the best baseline, seed by seed."""
    best = {
        other: max(BASELINES, key=lambda name, by_name=by_name: by_name[name][:, 0].mean())
        for other, by_name in separations.items()
    }
    yield from format_header(("detector", *(f"{other}: {name}" for other, name in best.items())))
    for name in next(iter(separations.values())):
        if name not in BASELINES:
            differences = (
                by_name[name][:, 0] - by_name[best[other]][:, 0]
                for other, by_name in separations.items()
            )
            yield format_row(name, *(format_range(values, "+.4f") for values in differences))


def generate_image_section(quick):
    """Yield the section on images."""
    yield from ("## Images", "")
    yield (
        "The network is a third-party CNN that was trained on MNIST. Detectors are fitted on images"
        " of MNIST's training set and have to separate images of its test set from other images;"
        ' both are drawn by the seed. "predicted" and "all" are values of `output` of'
        ' `NetworkDensity`. Unless a line says "exact", similarities are products of Nyström'
        " features, as with `n_components`. The length of the features shows how much of a sample's"
        " gradient the landmarks cover."
        " Energy is the logarithm of the sum of the exponentials of the logits; k-NN is the"
        f" distance to neighbour {NEIGHBORS}, on the last hidden layer scaled to length 1, or by"
        " the similarity."
    )
    if not FASHION.exists():
        yield ""
        yield "Fashion-MNIST is missing: on Debian, `apt-get install dataset-fashion-mnist`."
    seeds = 1 if quick else SEEDS
    for sizes in (LARGE, SMALL):
        if quick:
            smaller = {name: sizes[name] // QUICK for name in ("fitted", "count")}
            sizes = {**sizes, **smaller, "components": 64}
        separations = measure_separations(sizes, seeds)
        yield from ("", f"### {sizes['fitted']:,} fitted samples", "")
        yield (
            f"{sizes['count']:,} images of each kind, {sizes['components']} features, {seeds}"
            " seeds. Areas under the ROC curve, means and standard deviations:"
        )
        yield from ("", *generate_separations(separations, 0), "")
        yield (
            "Share of the other images that is accepted by the threshold that accepts 95 % of"
            " MNIST's:"
        )
        yield from ("", *generate_separations(separations, 1), "")
        yield "Areas minus the area of the best baseline, smallest and largest of the seeds:"
        yield from ("", *generate_differences(separations))


# Diamonds


def score_by_inputs(X, seed):
    """Yield detectors that use the inputs, with their scores."""
    yield "IsolationForest", IsolationForest(random_state=seed).fit(X).score_samples(X)
    yield "LocalOutlierFactor", LocalOutlierFactor().fit(X).negative_outlier_factor_
    yield "k-NN", -NearestNeighbors(n_neighbors=NEIGHBORS).fit(X).kneighbors()[0][:, -1]


def score_by_network(X, y, seed):
    """Yield detectors that use a network trained on all prices, with their scores."""
    torch.manual_seed(seed)
    net = make_perceptron_net(
        NeuralNetRegressor, X.shape[1], 128, 1, epochs=20, batch_size=256
    ).fit(X, y)
    yield "the network's error", -np.abs(net.predict(X) - y)[:, 0]
    yield "NetworkDensity, soft, exact", NetworkDensity(net).fit(X).score_samples(X)
    featurizer = GradientFeaturizer(net, n_components=DIAMOND_COMPONENTS, random_state=seed)
    features = featurizer.fit_transform(X).astype("float32")
    for name, parameters in list_densities((0.5, 0.7, 0.9), (64,)):
        density = NetworkDensity("features", **parameters).fit(features)
        yield f"NetworkDensity, {name}", density.score_samples(features)
    yield "length of the features", np.linalg.norm(features, axis=1)


def generate_diamond_section(quick):
    """Yield the section on diamonds."""
    X, y, impossible = load_all_diamonds()
    if quick:
        kept = np.flatnonzero(impossible | (np.arange(len(X)) % QUICK == 0))
        X, y, impossible = X[kept], y[kept], impossible[kept]
    least = int(SHARE * len(X)) + 1
    runs = defaultdict(list)
    for seed in range(1 if quick else SEEDS):
        for name, scores in chain(score_by_inputs(X, seed), score_by_network(X, y, seed)):
            ranks = np.searchsorted(np.sort(scores), scores[impossible], side="right")
            hits, last = (ranks <= least).sum(), ranks.max()
            runs[name].append((hits, last, roc_auc_score(~impossible, scores)))
    yield from ("", "## Impossible diamonds", "")
    yield (
        f"{impossible.sum()} of {len(X):,} diamonds have a length, width or depth of 0 or of more"
        " than 30 mm. A perceptron (128-128) was trained on the logarithm of the price of all"
        " diamonds. The density of each sample is that of the others: the soft density is exact,"
        f" the other densities use {DIAMOND_COMPONENTS} Nyström features. The other detectors use"
        ' the standardised inputs. "hits" is the number of impossible diamonds among the'
        f" {least} samples of lowest density (1 %; samples of equal density all count as lower)."
        ' "samples to find all" is the number of samples whose density is at most that of the'
        ' densest impossible diamond. "area" is the area under the ROC curve. Cells contain the'
        " smallest and the largest value of the seeds."
    )
    yield ""
    yield from format_header(
        ("detector", f"hits of {impossible.sum()}", "samples to find all", "area")
    )
    for name, values in runs.items():
        hits, last, areas = zip(*values, strict=True)
        cells = format_range(hits, "d"), format_range(last, ",d"), format_range(areas, ".4f")
        yield format_row(name, *cells)


def generate_report(quick):
    """Yield the report, line by line."""
    packages = ("scikit-learn", "skorch", "numpy")
    yield from format_title(__file__, "Out-of-distribution samples", packages)
    yield from generate_image_section(quick)
    yield from generate_diamond_section(quick)


if __name__ == "__main__":
    write_report(__file__, __doc__, "one seed, a tenth of the samples", generate_report)
