"""How much label noise networks average out: predicted factors beside those of known true labels.

Writes ``benchmarks/denoising.md``. With ``--quick`` it only prints, one seed of smaller sets.
"""

import warnings
from typing import NamedTuple

import numpy as np
import torch
from lib import report
from lib.active_learning.loops import decaying, perceptron
from lib.data.aerial import PHOTOGRAPHS, displaced, photograph
from lib.data.ratings import film_reviews
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from skorch import NeuralNetRegressor
from torch import nn

from sknetsim import LabelDenoiser

SEEDS = 3
#: Rows at which means and factors are looked at.
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
#: Side of a patch, and how far its copy is moved at most, in pixels.
SIDE, REACH = 24, 4
#: Standard deviation of the noise of displacements, in pixels.
DISPLACEMENT_NOISE = 4.0


class Noisy(NamedTuple):
    """Rows with noisy and with clean labels, (n, q), and a network to learn the noisy ones.

    ``unseen`` is noise of the same kind that the network has not learnt from.
    """

    X: np.ndarray
    noisy: np.ndarray
    clean: np.ndarray
    unseen: np.ndarray
    net: NeuralNetRegressor
    held_out: tuple[np.ndarray, np.ndarray]


def root_mean_square(values):
    """Over all rows and columns."""
    return np.sqrt(np.square(values).mean())


def reviews(seed, quick):
    """Film reviews as the weights of their 2,000 most frequent words, rated by one person each.

    The clean label is the mean of all others' ratings but one, which is the unseen noise.
    """
    generator, found = np.random.default_rng(seed), film_reviews()
    rows = generator.permutation(len(found.texts))[: 2_000 if quick else None]
    words = TfidfVectorizer(max_features=2_000, sublinear_tf=True)
    X = words.fit_transform([found.texts[row] for row in rows]).toarray().astype(np.float32)
    ratings = found.ratings[rows]
    # Two raters of each text, in columns of their own; NaN sorts behind all random numbers.
    places = np.argsort(np.where(np.isfinite(ratings), generator.random(ratings.shape), 2))
    noisy, other = (np.take_along_axis(ratings, places[:, [place]], 1) for place in (0, 1))
    counts = np.isfinite(ratings).sum(axis=1, keepdims=True)
    clean = (np.nansum(ratings, axis=1, keepdims=True) - noisy - other) / (counts - 2)
    train = np.arange(len(rows)) < 0.8 * len(rows)
    net = perceptron(
        NeuralNetRegressor, X.shape[1], 64, 1, epochs=4, batch_size=64, optimizer__weight_decay=0.0
    )
    parts = (v[train].astype(np.float32) for v in (X, noisy, clean, other - clean))
    return Noisy(*parts, net, (X[~train], clean[~train]))


class Registration(nn.Module):
    """Two convolutions and two layers, from a patch and its moved copy to the displacement."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 24, 7, stride=2, padding=3),
            nn.ReLU(),
            nn.Conv2d(24, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * (SIDE // 4) ** 2, 64),
            nn.ReLU(),
            nn.Linear(64, 2),
        )

    def forward(self, pairs):
        """Displacements (n, 2) of pairs (n, 2, side, side)."""
        return self.layers(pairs)


def registration(seed, quick):
    """Patches of aerial photographs with moved copies, displacements labelled with large noise."""
    images = [photograph(name).image.mean(axis=2) / 255 for name in PHOTOGRAPHS]
    generator = np.random.default_rng(seed)
    X, clean = displaced(images, 2_000 if quick else 8_000, generator, SIDE, REACH)
    noise, unseen = generator.normal(scale=DISPLACEMENT_NOISE, size=(2, *clean.shape))
    net = decaying(NeuralNetRegressor, Registration, epochs=15, rate=1e-3, batch_size=64)
    held_out = displaced(images, 1_000, generator, SIDE, REACH)
    return Noisy(X, (clean + noise).astype(np.float32), clean, unseen, net, held_out)


SITUATIONS = {
    "Film reviews, one rater each (ratings from -4 to 4)": reviews,
    "Displacements between aerial patches (pixels)": registration,
}


def fitted(net, data, labels, params):
    """The denoiser; the warning that a network is far from a stationary point is in the table."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LabelDenoiser(net, **params).fit(data.X, labels)


def looked_at(net, data, params):
    """The distance from a stationary point, and what COLUMNS name."""
    queries = data.X[:QUERIES]
    noises = data.noisy - data.clean, data.unseen
    denoiser = fitted(net, data, data.noisy, params)
    found = denoiser.denoising(queries)
    # Means are linear in labels.
    clean_means, *noise_means = (
        fitted(net, data, labels, params).transform(queries) for labels in (data.clean, *noises)
    )
    return denoiser.stationarity_, [
        np.sqrt(found.variance_factor.mean()),
        *(
            root_mean_square(m) / root_mean_square(n)
            for m, n in zip(noise_means, noises, strict=True)
        ),
        root_mean_square(found.labels - found.predictions),
        root_mean_square(found.shift),
        root_mean_square(found.shift + found.predictions - clean_means),
        root_mean_square(clean_means - data.clean[:QUERIES]),
        root_mean_square(found.labels - data.clean[:QUERIES]),
    ]


def identical_rows():
    """Sixty-four equal rows: how far factors are from 1/N and 1/sqrt(N)."""
    yield from ["", "## Equal rows", ""]
    yield (
        "64 times the same row, and any labels: relative differences of the factors from 1/N and"
        " 1/sqrt(N), the largest of all rows."
    )
    yield ""
    yield from report.head(["", "variance, float32", "standard deviation", "variance, float64"])
    X, y = np.ones((64, 3), np.float32), np.arange(128.0).reshape(64, 2)
    for name, params in DENOISERS.items():
        cells = []
        for dtype in (torch.float32, torch.float64):
            torch.manual_seed(0)
            net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).to(dtype)
            found = fitted(net, Noisy(X, y, y, y, net, (X, y)), y, params).denoising()
            cells.append(np.abs(64 * found.variance_factor - 1).max())
            cells.append(np.abs(8 * found.deviation_factor - 1).max())
        yield report.row(name, *(f"{cell:.0e}" for cell in cells[:3]))


def situation(title, make, quick):
    """The table of one set of noisy labels."""
    overall, rows, distances = [], {name: [] for name in DENOISERS}, []
    for seed in range(1 if quick else SEEDS):
        data = make(seed, quick)
        torch.manual_seed(seed)
        net = clone(data.net).fit(data.X, data.noisy)
        predictions, (X, clean) = net.predict(data.X), data.held_out
        errors = (data.noisy - data.clean, predictions - data.clean, net.predict(X) - clean)
        overall.append([len(data.X), *map(root_mean_square, errors), data.clean.std()])
        for name, params in DENOISERS.items():
            distance, values = looked_at(net, data, params)
            rows[name].append(values)
            distances += [] if distance is None else [distance]
    samples, noise, own, held_out, spread = np.mean(overall, axis=0)
    yield from ["", f"## {title}", ""]
    yield (
        f"{samples:,.0f} rows. Noise of the labels {noise:.2f}, standard deviation of the clean"
        f" ones {spread:.2f}; error of predictions {own:.2f}, of held-out rows {held_out:.2f}"
        f" ({own / noise:.2f} and {held_out / noise:.2f} of the noise). Distance from a stationary"
        f" point: {report.spread(distances, '.2f')}."
    )
    yield ""
    yield from report.head(["", *COLUMNS, "observed / predicted"])
    for name, values in rows.items():
        means = np.mean(values, axis=0)
        ratio = np.array(values)[:, 1] / np.array(values)[:, 0]
        yield report.row(name, *(f"{m:.3f}" for m in means), report.spread(ratio, ".2f"))


def lines(quick):
    """The whole text, line by line."""
    yield "# Denoising of labels"
    yield ""
    yield f"{report.setting(['scikit-learn', 'skorch', 'numpy'])}."
    yield ""
    yield (
        "Networks are trained by squared error on noisy labels, whose clean ones are known. Around"
        " each row a mean of labels keeps noise: by the predicted factor (root of the mean"
        " variance factor) and, observed, the means of the true noise against the noise; of unseen"
        " noise, which the network has not learnt from. Gap:"
        ' means of labels less those of predictions, 0 at a stationary point for "unnormalized".'
        " Shift: predictions less their means; observed, less means of clean labels. Smoothing:"
        " means of clean labels less these."
        " Error of means: means of noisy labels less clean ones. All but factors in the labels'"
        f" unit, root mean squares over {QUERIES:,} training rows, means of {SEEDS} seeds; the"
        " last column from the least to the most of the seeds."
    )
    yield from identical_rows()
    for title, make in SITUATIONS.items():
        yield from situation(title, make, quick)


if __name__ == "__main__":
    report.run(__file__, __doc__, "one seed of smaller sets", lines)
