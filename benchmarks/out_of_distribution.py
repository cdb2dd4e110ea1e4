"""Which rows are foreign to a network: by its density, and by what others look at.

Writes ``benchmarks/out_of_distribution.md``. With ``--quick`` it only prints, of one seed and a
tenth of the rows.
"""

from collections import defaultdict
from itertools import chain

import numpy as np
import torch
from lib.active_learning.loops import perceptron
from lib.data.images import FASHION, fashion_mnist, mnist, mnist_network, samples
from lib.data.tables import all_diamonds
from lib.report import head, row, run, setting, spread
from scipy.ndimage import rotate
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from skorch import NeuralNetRegressor
from torch import nn

from sknetsim import GradientFeaturizer, NetworkDensity, NetworkNeighbors

SEEDS, QUICK, NEIGHBORS = 3, 10, 5
IN = "MNIST"
BASELINES = ("largest softmax", "energy", "k-NN, last hidden layer")
LARGE = {"fitted": 5_000, "count": 2_000, "outputs": ("predicted",), "components": 512}
SMALL = {"fitted": 1_000, "count": 250, "outputs": ("predicted", "all"), "components": 128}
SHARE, DIAMOND_COMPONENTS = 0.01, 128


def methods(thresholds, alphas):
    """Settings of densities, by name."""
    by_threshold = {f"threshold {tau:g}": ("threshold", "threshold", tau) for tau in thresholds}
    by_power = {f"power {alpha:g}": ("power", "alpha", alpha) for alpha in alphas}
    for name, (method, parameter, value) in {**by_threshold, **by_power}.items():
        yield name, {"method": method, parameter: value}


# Images


def turned(images, degrees):
    """Digits turned to the left, as grey values."""
    return rotate(images.astype(float), degrees, axes=(1, 2), reshape=False, order=1)


def image_sets(rng, count):
    """Images by where they come from; digits that are turned are others than those that are not."""
    digits = mnist("test", 10_000).images[rng.permutation(10_000)[: 2 * count]]
    shape, others = (count, *digits.shape[1:]), digits[count:]
    sets = {IN: digits[:count]}
    if FASHION.exists():
        chosen = rng.choice(10_000, count, replace=False)
        sets["Fashion-MNIST"] = fashion_mnist("test", 10_000).images[chosen]
    noise = np.clip(rng.normal(0.1307, 0.3081, shape), 0, 1)
    sets |= {"uniform noise": rng.integers(0, 256, shape), "Gaussian noise": 255 * noise}
    return sets | {"turned by 90°": turned(others, 90), "turned by 45°": turned(others, 45)}


def baselines(network, fitted, rows):
    """What others look at, on the same rows."""
    hidden = nn.Sequential(network.conv_layers, nn.Flatten(), network.fc_layers[:-1])
    with torch.no_grad():
        logits = network(torch.tensor(rows))
        features, queries = (
            nn.functional.normalize(hidden(torch.tensor(part))).numpy() for part in (fitted, rows)
        )
    names = iter(BASELINES)
    yield next(names), logits.softmax(dim=1).max(dim=1).values.numpy()
    yield next(names), logits.logsumexp(dim=1).numpy()
    yield next(names), nearness(NearestNeighbors, features, queries)


def nearness(neighbors, features, queries):
    """Minus the distance to the fifth neighbour."""
    found, _ = neighbors(n_neighbors=NEIGHBORS).fit(features).kneighbors(queries)
    return -found[:, -1]


def feature_neighbors(**settings):
    """Neighbours by the similarity, of rows that are gradient features."""
    return NetworkNeighbors("features", **settings)


def densities(network, fitted, rows, output, components, seed):
    """Of ours, by name: the soft one exact, the others on features from landmarks."""
    soft = NetworkDensity(network, output).fit(fitted)
    yield f"{output}, soft, exact", soft.score_samples(rows)
    featurizer = GradientFeaturizer(network, output, n_components=components, random_state=seed)
    features, queries = (featurizer.fit(fitted).transform(part) for part in (fitted, rows))
    for name, settings in methods((0.3, 0.5, 0.7, 0.9), (2, 8, 32, 128)):
        density = NetworkDensity("features", **settings).fit(features)
        yield f"{output}, {name}", density.score_samples(queries)
    yield f"{output}, k-NN", nearness(feature_neighbors, features, queries)
    yield f"{output}, length of the features", np.linalg.norm(queries, axis=1)


def last_layer(network, fitted, rows):
    """The exact density by the last layer's parameters."""
    density = NetworkDensity(network, method="power", alpha=128.0, parameters="last_layer")
    yield "all, last layer, power 128, exact", density.fit(fitted).score_samples(rows)


def detectors(seed, fitted, count, outputs, components):
    """Names and scores of all who take part, of one seed, and which set each row is from."""
    rng = np.random.default_rng(seed)
    network = mnist_network()
    known = mnist("train", 60_000).at(rng.choice(60_000, fitted, replace=False)).inputs
    sets = image_sets(rng, count)
    rows = np.concatenate([samples(images, np.zeros(count)).inputs for images in sets.values()])
    ours = (densities(network, known, rows, output, components, seed=seed) for output in outputs)
    scores = chain(baselines(network, known, rows), *ours, last_layer(network, known, rows))
    return scores, np.repeat(list(sets), count)


def separation(inside, outside):
    """Area under the curve, and the share of foreign rows that pass where 95 % of the others do."""
    labels = np.repeat([1, 0], [len(inside), len(outside)])
    area = roc_auc_score(labels, np.concatenate([inside, outside]))
    return area, (outside >= np.percentile(inside, 5)).mean()


def separations(sizes, seeds):
    """For each set and detector an array of seeds x (area, share)."""
    found = defaultdict(lambda: defaultdict(list))
    for seed in range(seeds):
        scores, origin = detectors(seed, **sizes)
        for name, values in scores:
            for other in dict.fromkeys(origin[origin != IN]):
                pair = separation(values[origin == IN], values[origin == other])
                found[other][name].append(pair)
    return {
        other: {name: np.array(pairs) for name, pairs in by_name.items()}
        for other, by_name in found.items()
    }


def measure_table(found, measure):
    """Means and standard deviations over seeds: of the area (0) or the share (1)."""
    yield from head(("detector", *found))
    for name in next(iter(found.values())):
        values = [by_name[name][:, measure] for by_name in found.values()]
        yield row(name, *(f"{part.mean():.4f} ± {part.std():.4f}" for part in values))


def difference_table(found):
    """Areas beside the best baseline's, seed by seed."""
    best = {
        other: max(BASELINES, key=lambda name, by_name=by_name: by_name[name][:, 0].mean())
        for other, by_name in found.items()
    }
    yield from head(("detector", *(f"{other}: {name}" for other, name in best.items())))
    for name in next(iter(found.values())):
        if name not in BASELINES:
            differences = (
                by_name[name][:, 0] - by_name[best[other]][:, 0] for other, by_name in found.items()
            )
            yield row(name, *(spread(values, "+.4f") for values in differences))


def image_lines(quick):
    """The section on images."""
    yield from ("## Images", "")
    yield (
        "A CNN that somebody else trained on MNIST. Fitted are images of MNIST's training set,"
        " drawn by the seed; test images that the seed draws are told from other images."
        ' "predicted" and "all" are outputs of `NetworkDensity`; where a line does not say exact,'
        " similarities are products of features from landmarks, as with `n_components`. The"
        " features' length says how much of a row's gradient the landmarks cover."
        f" Energy is the logarithm of the logits' summed exponentials; k-NN is the distance to"
        f" neighbour {NEIGHBORS}, on the last hidden layer at length 1, or by the similarity."
    )
    if not FASHION.exists():
        yield ""
        yield "Fashion-MNIST is absent: `apt-get install dataset-fashion-mnist` has it in Debian."
    seeds = 1 if quick else SEEDS
    for sizes in (LARGE, SMALL):
        if quick:
            smaller = {name: sizes[name] // QUICK for name in ("fitted", "count")}
            sizes = {**sizes, **smaller, "components": 64}
        found = separations(sizes, seeds)
        yield from ("", f"### {sizes['fitted']:,} fitted rows", "")
        yield (
            f"{sizes['count']:,} images of each kind, {sizes['components']} features, {seeds}"
            " seeds. Areas under the curve, means and standard deviations:"
        )
        yield from ("", *measure_table(found, 0), "")
        yield "The share of foreign images that pass where 95 % of MNIST's do:"
        yield from ("", *measure_table(found, 1), "")
        yield "Areas less those of the best baseline, least and most of the seeds:"
        yield from ("", *difference_table(found))


# Diamonds


def usual(X, seed):
    """Detectors that look at the inputs."""
    yield "IsolationForest", IsolationForest(random_state=seed).fit(X).score_samples(X)
    yield "LocalOutlierFactor", LocalOutlierFactor().fit(X).negative_outlier_factor_
    yield "k-NN", -NearestNeighbors(n_neighbors=NEIGHBORS).fit(X).kneighbors()[0][:, -1]


def by_network(X, y, seed):
    """Detectors that look at a network which has learnt the price from all rows."""
    torch.manual_seed(seed)
    net = perceptron(NeuralNetRegressor, X.shape[1], 128, 1, epochs=20, batch_size=256).fit(X, y)
    yield "the network's error", -np.abs(net.predict(X) - y)[:, 0]
    yield "NetworkDensity, soft, exact", NetworkDensity(net).fit(X).score_samples(X)
    featurizer = GradientFeaturizer(net, n_components=DIAMOND_COMPONENTS, random_state=seed)
    features = featurizer.fit_transform(X).astype("float32")
    for name, settings in methods((0.5, 0.7, 0.9), (64,)):
        density = NetworkDensity("features", **settings).fit(features)
        yield f"NetworkDensity, {name}", density.score_samples(features)
    yield "length of the features", np.linalg.norm(features, axis=1)


def diamond_lines(quick):
    """The section on diamonds."""
    X, y, impossible = all_diamonds()
    if quick:
        kept = np.flatnonzero(impossible | (np.arange(len(X)) % QUICK == 0))
        X, y, impossible = X[kept], y[kept], impossible[kept]
    least = int(SHARE * len(X)) + 1
    found = defaultdict(list)
    for seed in range(1 if quick else SEEDS):
        for name, scores in chain(usual(X, seed), by_network(X, y, seed)):
            ranks = np.searchsorted(np.sort(scores), scores[impossible], side="right")
            hits, last = (ranks <= least).sum(), ranks.max()
            found[name].append((hits, last, roc_auc_score(~impossible, scores)))
    yield from ("", "## Impossible diamonds", "")
    yield (
        f"Of {len(X):,} diamonds {impossible.sum()} have a length, width or depth of 0 or of more"
        " than 30 mm. A perceptron (128-128) has learnt the logarithm of the price from all rows;"
        " each row is scored by the others, soft exactly, else with"
        f" {DIAMOND_COMPONENTS} features from landmarks. The other detectors look at the"
        f" standardised inputs. How many of the impossible are among the {least} least dense (1 %;"
        " rows of equal density are all taken to come before), how many rows are as little dense"
        " as the densest of them, and the area under the curve: least and most of the seeds."
    )
    yield ""
    yield from head(("detector", f"hits of {impossible.sum()}", "rows to find all", "area"))
    for name, values in found.items():
        hits, last, areas = zip(*values, strict=True)
        yield row(name, spread(hits, "d"), spread(last, ",d"), spread(areas, ".4f"))


def lines(quick):
    """The whole text, line by line."""
    yield from ("# Foreign rows", "", f"{setting(('scikit-learn', 'skorch', 'numpy'))}.", "")
    yield from image_lines(quick)
    yield from diamond_lines(quick)


if __name__ == "__main__":
    run(__file__, __doc__, "one seed, a tenth of the rows", lines)
