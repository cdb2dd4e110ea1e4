"""Finding flipped labels: our kernel vote beside cleanlab's scores and the network's own loss.

Writes ``benchmarks/label_issues.md``. With ``--quick`` it only prints, one seed of one setting.
"""

from itertools import product

import numpy as np
import torch
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from lib import report
from lib.active_learning.loops import perceptron
from lib.data.images import fashion_mnist, mnist_5k
from sklearn.base import clone
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim import LabelDenoiser

SAMPLES = 5_000
SEEDS = 3
SHARES = (0.05, 0.1, 0.2)
#: Epochs of training after which is looked, before and after the flips have been learnt by heart.
EPOCHS = {"before": 4, "after": 40}
#: The class that each is mistaken for; the others are not flipped.
LOOK_ALIKES = {
    "MNIST": {1: 7, 7: 1, 3: 5, 5: 3, 4: 9, 9: 4},
    "Fashion-MNIST": {0: 6, 6: 0, 2: 4, 4: 2, 7: 9, 9: 7},
}
DENOISERS = {
    "vote, power 16": {"method": "power", "alpha": 16.0},
    "vote, power 64": {"method": "power", "alpha": 64.0},
    "vote, predicted logit": {"method": "power", "alpha": 16.0, "output": "predicted"},
    "vote, last layer": {"method": "power", "alpha": 16.0, "parameters": "last_layer"},
    "unnormalized": {"method": "unnormalized"},
}
#: What is compared in the last line of a table.
OURS, THEIRS = "vote, power 16", "cleanlab, self-confidence"
COLUMNS = [
    *DENOISERS,
    "own loss",
    THEIRS,
    "cleanlab, margin",
    "cleanlab, issues",
]


def rows_of(data):
    """5,000 images as flat rows, and their labels."""
    found = mnist_5k() if data == "MNIST" else fashion_mnist("train", SAMPLES)
    return found.inputs.reshape(len(found.labels), -1), found.labels


def flipped(labels, data, kind, share, generator):
    """Labels of which a share is wrong, and which."""
    alike = LOOK_ALIKES[data]
    known = (
        np.arange(len(labels)) if kind == "uniform" else np.flatnonzero(np.isin(labels, [*alike]))
    )
    chosen = generator.choice(known, int(share * len(labels)), replace=False)
    noisy = labels.copy()
    for row in chosen:
        others = (
            [alike[labels[row]]] if kind != "uniform" else np.delete(np.arange(10), labels[row])
        )
        noisy[row] = generator.choice(others)
    return noisy, np.isin(np.arange(len(labels)), chosen)


def network():
    """An untrained perceptron."""
    settings = {"criterion": nn.CrossEntropyLoss, "classes": list(range(10)), "batch_size": 64}
    return perceptron(NeuralNetClassifier, 784, 256, 10, epochs=EPOCHS["after"], **settings)


def stages(X, y, seed):
    """The network after some epochs, and after all."""
    torch.manual_seed(seed)
    net, done = clone(network()).initialize(), 0
    for stage, epochs in EPOCHS.items():
        net.partial_fit(X, y, epochs=epochs - done)
        done = epochs
        yield stage, net


def cross_validated(X, y, seed):
    """Probabilities of networks that did not see a row, by stage."""
    found = {stage: np.zeros((len(y), 10)) for stage in EPOCHS}
    for train, test in StratifiedKFold(5, shuffle=True, random_state=seed).split(X, y):
        for stage, net in stages(X[train], y[train], seed):
            found[stage][test] = net.predict_proba(X[test])
    return found


def qualities(net, X, y, probabilities):
    """Low for suspicious labels, by each way."""
    for name, params in DENOISERS.items():
        yield name, LabelDenoiser(net, **params).fit(X, y).label_quality(X, y)
    yield "own loss", np.take_along_axis(net.predict_proba(X), y[:, None], axis=1)[:, 0]
    confidence = get_label_quality_scores(y, probabilities, method="self_confidence")
    yield THEIRS, confidence
    yield (
        "cleanlab, margin",
        get_label_quality_scores(y, probabilities, method="normalized_margin"),
    )
    issues = find_label_issues(y, probabilities, n_jobs=1)
    yield "cleanlab, issues", confidence - issues  # Those first, each by its confidence.


def measured(data, kind, share, seed):
    """AUC and average precision by stage and way, and how many of the flips were learnt."""
    generator = np.random.default_rng(seed)
    X, labels = rows_of(data)
    order = generator.permutation(len(labels))
    X, labels = X[order], labels[order]
    y, wrong = flipped(labels, data, kind, share, generator)
    probabilities = cross_validated(X, y, seed)
    for stage, net in stages(X, y, seed):
        learnt = (net.predict(X)[wrong] == y[wrong]).mean()
        for name, quality in qualities(net, X, y, probabilities[stage]):
            yield (
                stage,
                name,
                learnt,
                roc_auc_score(wrong, -quality),
                average_precision_score(wrong, -quality),
            )


def lines(quick):
    """The whole text, line by line."""
    yield "# Label issues"
    yield ""
    yield f"{report.setting(['scikit-learn', 'skorch', 'numpy', 'cleanlab'])}."
    yield ""
    yield (
        f"{SAMPLES:,} images each, a share of whose labels is flipped: to any class, or to the one"
        f" that looks alike ({LOOK_ALIKES}). A perceptron (784-256-256-10, Adam) learns the wrong"
        f' labels for {EPOCHS["before"]} epochs and for {EPOCHS["after"]}; "learnt" is the share'
        " of the flips that it then predicts. Area under the ROC curve / average precision of the"
        f" flips, means of {SEEDS} seeds; the last line of a table is the difference of power 16"
        " and cleanlab's self-confidence (five trainings), mean ± standard error."
    )
    settings = list(product(LOOK_ALIKES, ("uniform", "look-alike")))
    for data, kind in settings[:1] if quick else settings:
        yield from table(data, kind, quick)


def table(data, kind, quick):
    """Of one data set and one kind of noise."""
    shares, seeds = (SHARES[1:2], 1) if quick else (SHARES, SEEDS)
    found = {
        share: [list(measured(data, kind, share, seed)) for seed in range(seeds)]
        for share in shares
    }
    yield from ["", f"## {data}, {kind}", ""]
    heads = [f"{share:.0%}, {stage}" for share in shares for stage in EPOCHS]
    yield from report.head(["", *heads])
    columns = [(share, stage) for share in shares for stage in EPOCHS]
    learnt = [values(found[share], stage, OURS)[:, 0].mean() for share, stage in columns]
    yield report.row("learnt", *(f"{value:.2f}" for value in learnt))
    for name in COLUMNS:
        means = [values(found[share], stage, name).mean(axis=0) for share, stage in columns]
        yield report.row(name, *(f"{auc:.3f} / {precision:.3f}" for _, auc, precision in means))
    yield report.row("difference", *(difference(found[share], stage) for share, stage in columns))


def values(runs, stage, name):
    """Learnt, AUC and average precision of each seed."""
    return np.array([next(r[2:] for r in run if r[:2] == (stage, name)) for run in runs])


def difference(runs, stage):
    """Of power 16 and self-confidence, paired by seed."""
    ours, theirs = (values(runs, stage, name)[:, 1:] for name in (OURS, THEIRS))
    gains = ours - theirs
    errors = gains.std(axis=0, ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.zeros(2)
    return " / ".join(
        f"{g:+.3f} ± {e:.3f}" for g, e in zip(gains.mean(axis=0), errors, strict=True)
    )


if __name__ == "__main__":
    report.run(__file__, __doc__, "one seed of one setting", lines)
