"""Label noise that networks average out: predicted and observed factors with known true labels.

Writes ``benchmarks/results/denoising.md``. With ``--quick`` it only prints, after one seed of
smaller data sets.
"""

import warnings

import numpy as np
import torch
from lib import report
from lib.data.ratings import load_film_reviews
from lib.registration import NoisyLabels, make_registration_task
from lib.training import make_perceptron_net
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from skorch import NeuralNetRegressor
from torch import nn

from sknetsim import LabelDenoiser

SEEDS = 3
#: Number of samples at which means and factors are computed.
QUERIES = 1_000
DENOISERS = {
    "unnormalized": {"method": "unnormalized"},
    "soft": {"method": "soft"},
    "power 4": {"method": "power", "alpha": 4.0},
    "power 16": {"method": "power", "alpha": 16.0},
    "power 64": {"method": "power", "alpha": 64.0},
    "threshold .5": {"method": "threshold", "threshold": 0.5},
}
COLUMNS = (
    "predicted factor",
    "observed factor",
    "of unseen noise",
    "gap",
    "shift",
    "observed shift",
    "smoothing",
    "error of means",
)


def root_mean_square(values):
    """Return the root mean square over all rows and columns."""
    return np.sqrt(np.square(values).mean())


def make_review_task(seed, quick):
    """Make film reviews as the weights of 2,000 frequent words, each rated by one person.

    The clean label of a text is the mean of its ratings without two of them: the noisy label and
    the one that gives the unseen noise.
    """
    generator, reviews = np.random.default_rng(seed), load_film_reviews()
    order = generator.permutation(len(reviews.texts))[: 2_000 if quick else None]
    words = TfidfVectorizer(max_features=2_000, sublinear_tf=True)
    X = words.fit_transform([reviews.texts[row] for row in order]).toarray().astype(np.float32)
    ratings = reviews.ratings[order]
    # Two random raters of each text; missing ratings (NaN) get 2, more than all random numbers.
    places = np.argsort(np.where(np.isfinite(ratings), generator.random(ratings.shape), 2))
    noisy, other = (np.take_along_axis(ratings, places[:, [place]], 1) for place in (0, 1))
    counts = np.isfinite(ratings).sum(axis=1, keepdims=True)
    clean = (np.nansum(ratings, axis=1, keepdims=True) - noisy - other) / (counts - 2)
    train = np.arange(len(order)) < 0.8 * len(order)
    net = make_perceptron_net(
        NeuralNetRegressor, X.shape[1], 64, 1, epochs=4, batch_size=64, optimizer__weight_decay=0.0
    )
    parts = (v[train].astype(np.float32) for v in (X, noisy, clean, other - clean))
    return NoisyLabels(*parts, net, (X[~train], clean[~train]))


TASKS = {
    "Film reviews, one rater each (ratings from -4 to 4)": make_review_task,
    "Displacements between aerial patches (pixels)": make_registration_task,
}


def fit_denoiser(net, data, labels, params):
    """Fit a denoiser, without the warning that the network is far from a stationary point.

    The table contains the distance.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LabelDenoiser(net, **params).fit(data.X, labels)


def measure(net, data, params):
    """Return the distance from a stationary point, and the values of COLUMNS."""
    queries = data.X[:QUERIES]
    noises = data.noisy - data.clean, data.unseen
    denoiser = fit_denoiser(net, data, data.noisy, params)
    result = denoiser.denoising(queries)
    # Means are linear in the labels, so those of the noise can be computed on their own.
    clean_means, *noise_means = (
        fit_denoiser(net, data, labels, params).transform(queries)
        for labels in (data.clean, *noises)
    )
    return denoiser.stationarity_, [
        np.sqrt(result.variance_factor.mean()),
        *(
            root_mean_square(means) / root_mean_square(noise)
            for means, noise in zip(noise_means, noises, strict=True)
        ),
        root_mean_square(result.labels - result.predictions),
        root_mean_square(result.shift),
        root_mean_square(result.shift + result.predictions - clean_means),
        root_mean_square(clean_means - data.clean[:QUERIES]),
        root_mean_square(result.labels - data.clean[:QUERIES]),
    ]


def generate_equal_samples():
    """Yield the section on 64 equal samples, whose factors are 1/N and 1/sqrt(N)."""
    yield from ["", "## Equal samples", ""]
    yield (
        "The data are 64 times the same sample, with arbitrary labels. Cells contain the relative"
        " difference of a factor from 1/N or 1/sqrt(N), the largest over all samples."
    )
    yield ""
    columns = ["", "variance, float32", "standard deviation", "variance, float64"]
    yield from report.format_header(columns)
    X, y = np.ones((64, 3), np.float32), np.arange(128.0).reshape(64, 2)
    for name, params in DENOISERS.items():
        cells = []
        for dtype in (torch.float32, torch.float64):
            torch.manual_seed(0)
            net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).to(dtype)
            data = NoisyLabels(X, y, y, y, net, (X, y))
            result = fit_denoiser(net, data, y, params).denoising()
            cells.append(np.abs(64 * result.variance_factor - 1).max())
            cells.append(np.abs(8 * result.deviation_factor - 1).max())
        yield report.format_row(name, *(f"{cell:.0e}" for cell in cells[:3]))


def generate_task(title, make, quick):
    """Yield the section of one set of noisy labels."""
    overall, rows, distances = [], {name: [] for name in DENOISERS}, []
    for seed in range(1 if quick else SEEDS):
        data = make(seed, quick)
        torch.manual_seed(seed)
        net = clone(data.net).fit(data.X, data.noisy)
        predictions, (X, clean) = net.predict(data.X), data.held_out
        errors = (data.noisy - data.clean, predictions - data.clean, net.predict(X) - clean)
        overall.append([len(data.X), *map(root_mean_square, errors), data.clean.std()])
        for name, params in DENOISERS.items():
            distance, values = measure(net, data, params)
            rows[name].append(values)
            distances += [] if distance is None else [distance]
    samples, noise, error, held_out_error, deviation = np.mean(overall, axis=0)
    yield from ["", f"## {title}", ""]
    yield (
        f"{samples:,.0f} samples. Noise of the labels {noise:.2f}, standard deviation of the clean"
        f" labels {deviation:.2f}; error of the predictions {error:.2f}, on held-out samples"
        f" {held_out_error:.2f} ({error / noise:.2f} and {held_out_error / noise:.2f} times the"
        f" noise). Distance from a stationary point: {report.format_range(distances, '.2f')}."
    )
    yield ""
    yield from report.format_header(["", *COLUMNS, "observed / predicted"])
    for name, values in rows.items():
        means = np.mean(values, axis=0)
        ratios = np.array(values)[:, 1] / np.array(values)[:, 0]
        cells = (f"{mean:.3f}" for mean in means)
        yield report.format_row(name, *cells, report.format_range(ratios, ".2f"))


def generate_report(quick):
    """Yield the report, line by line."""
    packages = ["scikit-learn", "skorch", "numpy"]
    yield from report.format_title(__file__, "Denoising of labels", packages)
    yield (
        "Networks are trained with squared error on noisy labels whose clean values are known. A"
        ' mean of labels around a sample keeps a part of their noise. The "predicted factor" is the'
        ' root of the mean variance factor. The "observed factor" is the means of the true noise,'
        ' divided by the noise; "of unseen noise" is the same for noise that the network was not'
        ' trained on. The "gap" is the means of labels minus the means of predictions; it is 0 at a'
        ' stationary point for "unnormalized". The "shift" is the predictions minus their means,'
        ' and the "observed shift" the predictions minus the means of the clean labels. The'
        ' "smoothing" is the means of the clean labels minus the clean labels, and the "error of'
        ' means" is the means of the noisy labels minus the clean labels. All columns except the'
        " factors are in the unit of the labels. All of them are root mean squares over"
        f" {QUERIES:,} training samples, averaged over {SEEDS} seeds; the last column is the range"
        " of the seeds."
    )
    yield from generate_equal_samples()
    for title, make in TASKS.items():
        yield from generate_task(title, make, quick)


if __name__ == "__main__":
    report.write_report(__file__, __doc__, "one seed of smaller data sets", generate_report)
