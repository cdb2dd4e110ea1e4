"""Finding flipped labels by LabelDenoiser, by cleanlab and by the network's own confidence.

Writes ``benchmarks/results/label_issues.md``. With ``--quick`` it only prints, after one seed of
one setting.
"""

from itertools import product

import numpy as np
import torch
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from lib import report
from lib.data.images import load_fashion_mnist, load_mnist_5k
from lib.training import make_perceptron_net
from sklearn.base import clone
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim import LabelDenoiser

SAMPLES = 5_000
SEEDS = 3
SHARES = (0.05, 0.1, 0.2)
#: Epochs of training before and after the network has memorised the flipped labels.
EPOCHS = {"before": 4, "after": 40}
#: Class that each class is mistaken for; the other classes are not flipped.
LOOK_ALIKES = {
    "MNIST": {1: 7, 7: 1, 3: 5, 5: 3, 4: 9, 9: 4},
    "Fashion-MNIST": {0: 6, 6: 0, 2: 4, 4: 2, 7: 9, 9: 7},
}
DENOISERS = {
    "LabelDenoiser, power 16": {"method": "power", "alpha": 16.0},
    "LabelDenoiser, power 64": {"method": "power", "alpha": 64.0},
    "LabelDenoiser, predicted logit": {"method": "power", "alpha": 16.0, "output": "predicted"},
    "LabelDenoiser, last layer": {"method": "power", "alpha": 16.0, "parameters": "last_layer"},
    "LabelDenoiser, unnormalized": {"method": "unnormalized"},
}
#: Rows that the last row of a table compares.
OURS, THEIRS = "LabelDenoiser, power 16", "cleanlab, self-confidence"
ROWS = [
    *DENOISERS,
    "own confidence",
    THEIRS,
    "cleanlab, margin",
    "cleanlab, issues",
]


def describe_look_alikes():
    """Return the pairs of classes that are flipped to each other, by data set."""
    pairs_by_data = {
        data: ", ".join(f"{one} and {other}" for one, other in alike.items() if one < other)
        for data, alike in LOOK_ALIKES.items()
    }
    return "; ".join(f"{data}: {pairs}" for data, pairs in pairs_by_data.items())


def load_samples(data):
    """Load 5,000 flattened images and their labels."""
    images = load_mnist_5k() if data == "MNIST" else load_fashion_mnist("train", SAMPLES)
    return images.inputs.reshape(len(images.labels), -1), images.labels


def flip_labels(labels, data, kind, share, generator):
    """Flip a share of the labels; return the labels, and which are flipped."""
    alike = LOOK_ALIKES[data]
    candidates = (
        np.arange(len(labels)) if kind == "uniform" else np.flatnonzero(np.isin(labels, [*alike]))
    )
    flipped = generator.choice(candidates, int(share * len(labels)), replace=False)
    noisy = labels.copy()
    for row in flipped:
        others = (
            [alike[labels[row]]] if kind != "uniform" else np.delete(np.arange(10), labels[row])
        )
        noisy[row] = generator.choice(others)
    return noisy, np.isin(np.arange(len(labels)), flipped)


def make_network():
    """Make an untrained perceptron."""
    settings = {"criterion": nn.CrossEntropyLoss, "classes": list(range(10)), "batch_size": 64}
    return make_perceptron_net(
        NeuralNetClassifier, 784, 256, 10, epochs=EPOCHS["after"], **settings
    )


def train_in_stages(X, y, seed):
    """Yield the network at each stage of its training."""
    torch.manual_seed(seed)
    net, done = clone(make_network()).initialize(), 0
    for stage, epochs in EPOCHS.items():
        net.partial_fit(X, y, epochs=epochs - done)
        done = epochs
        yield stage, net


def cross_validate(X, y, seed):
    """Return out-of-fold probabilities (n, 10) by stage."""
    probabilities = {stage: np.zeros((len(y), 10)) for stage in EPOCHS}
    for train, test in StratifiedKFold(5, shuffle=True, random_state=seed).split(X, y):
        for stage, net in train_in_stages(X[train], y[train], seed):
            probabilities[stage][test] = net.predict_proba(X[test])
    return probabilities


def compute_qualities(net, X, y, probabilities):
    """Yield each method with its label qualities, low for suspicious labels."""
    for name, params in DENOISERS.items():
        yield name, LabelDenoiser(net, **params).fit(X, y).label_quality(X, y)
    yield "own confidence", np.take_along_axis(net.predict_proba(X), y[:, None], axis=1)[:, 0]
    confidence = get_label_quality_scores(y, probabilities, method="self_confidence")
    yield THEIRS, confidence
    yield (
        "cleanlab, margin",
        get_label_quality_scores(y, probabilities, method="normalized_margin"),
    )
    issues = find_label_issues(y, probabilities, n_jobs=1)
    yield "cleanlab, issues", confidence - issues  # Issues first, each sorted by confidence.


def measure(data, kind, share, seed):
    """Yield the stage, the method, the share of learnt flips, the AUC and the precision."""
    generator = np.random.default_rng(seed)
    X, labels = load_samples(data)
    order = generator.permutation(len(labels))
    X, labels = X[order], labels[order]
    y, wrong = flip_labels(labels, data, kind, share, generator)
    probabilities = cross_validate(X, y, seed)
    for stage, net in train_in_stages(X, y, seed):
        learnt = (net.predict(X)[wrong] == y[wrong]).mean()
        for name, quality in compute_qualities(net, X, y, probabilities[stage]):
            yield (
                stage,
                name,
                learnt,
                roc_auc_score(wrong, -quality),
                average_precision_score(wrong, -quality),
            )


def generate_report(quick):
    """Yield the report, line by line."""
    packages = ["scikit-learn", "skorch", "numpy", "cleanlab"]
    yield from report.format_title(__file__, "Label issues", packages)
    yield (
        f"Each data set has {SAMPLES:,} images, and a share of their labels is flipped: to any"
        f" other class (uniform), or to the class that looks alike ({describe_look_alikes()}). A"
        " perceptron (784-256-256-10, Adam) is trained on the noisy labels for"
        f' {EPOCHS["before"]} epochs ("before" it has memorised them) and for {EPOCHS["after"]}'
        ' ("after"). "learnt" is the share of the flipped labels that it then predicts. The other'
        " cells contain the area under the ROC curve / the average precision of finding the flipped"
        f" labels, as means of {SEEDS} seeds. `LabelDenoiser` ranks by `label_quality`, with power"
        ' 16, all ten logits and all parameters unless the name says otherwise. "own confidence" is'
        " the network's probability of the given label. cleanlab's scores use out-of-fold"
        ' probabilities from five trainings; "issues" ranks the labels that it reports first. The'
        " last row of each table is the difference between `LabelDenoiser` with power 16 and"
        " cleanlab's self-confidence, as mean ± standard error."
    )
    settings = list(product(LOOK_ALIKES, ("uniform", "look-alike")))
    for data, kind in settings[:1] if quick else settings:
        yield from generate_table(data, kind, quick)


def generate_table(data, kind, quick):
    """Yield the section of one data set and one kind of noise."""
    shares, seeds = (SHARES[1:2], 1) if quick else (SHARES, SEEDS)
    runs = {
        share: [list(measure(data, kind, share, seed)) for seed in range(seeds)] for share in shares
    }
    yield from ["", f"## {data}, {kind}", ""]
    columns = [(share, stage) for share in shares for stage in EPOCHS]
    yield from report.format_header(["", *(f"{share:.0%}, {stage}" for share, stage in columns)])
    learnt = [select_values(runs[share], stage, OURS)[:, 0].mean() for share, stage in columns]
    yield report.format_row("learnt", *(f"{value:.2f}" for value in learnt))
    for name in ROWS:
        means = [select_values(runs[share], stage, name).mean(axis=0) for share, stage in columns]
        cells = (f"{auc:.3f} / {precision:.3f}" for _, auc, precision in means)
        yield report.format_row(name, *cells)
    differences = (format_difference(runs[share], stage) for share, stage in columns)
    yield report.format_row("difference", *differences)


def select_values(runs, stage, name):
    """Return the share of learnt flips, the AUC and the average precision of each seed."""
    return np.array([next(r[2:] for r in run if r[:2] == (stage, name)) for run in runs])


def format_difference(runs, stage):
    """Format the difference of power 16 and self-confidence, paired by seed."""
    ours, theirs = (select_values(runs, stage, name)[:, 1:] for name in (OURS, THEIRS))
    gains = ours - theirs
    errors = gains.std(axis=0, ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.zeros(2)
    return " / ".join(
        f"{gain:+.3f} ± {error:.3f}" for gain, error in zip(gains.mean(axis=0), errors, strict=True)
    )


if __name__ == "__main__":
    report.write_report(__file__, __doc__, "one seed of one setting", generate_report)
