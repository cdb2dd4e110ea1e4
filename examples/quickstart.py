"""What does a trained network find similar, and where is it on thin ice?

A CNN that somebody else trained on MNIST, and 5,000 of MNIST's 60,000 training images:

1. Neighbours: for six test images, the training images that are most similar *as the network
   sees them*: training on one of them would change the network much as training on the test image
   would. Half of the six are the mistakes that the network is surest of; look at their labels
   before believing that it is the network that errs.
2. Density: how similar are the training images on the whole to each test image? The least covered
   test images are drawn, and the network's error rate is given for each tenth of the test images.

Run it with ``python examples/quickstart.py``; it takes half a minute on two idle cores, two minutes
on busy ones, and writes ``neighbors.png`` and ``density.png`` into ``examples/output/``. MNIST and
the CNN are read out of two installed packages (see ``_data.py``); without them, scikit-learn's
digits and the small network that sknetsim trains by default take their place.
"""

import contextlib
import time
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from _data import Samples, missing_packages, mnist, mnist_network
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sknetsim import NetworkDensity, NetworkNeighbors

matplotlib.use("Agg")
from matplotlib import pyplot as plt

OUTPUT_FOLDER = Path(__file__).parent / "output"
N_REFERENCE, N_TEST = 5000, 2000
N_QUERIES, N_NEIGHBORS, N_DRAWN = 6, 6, 24

# One logit per image, that of the predicted class, instead of all ten whitened against each other:
# some ten times cheaper, and of these two soft densities only this one tells where this CNN errs.
# The price: the logits of different classes share fewer parameters, so that nearly all neighbours
# belong to the class that the network *predicts*.
SEEN = {"output": "predicted", "verbose": 1}

BLUE, VERMILION = "#0072B2", "#D55E00"  # Also told apart by the colour-blind.
LEGEND = "(blue, =: the network agrees with the label; orange, ≠: it does not)"


class Case(NamedTuple):
    """A trained network, samples that it was trained on, and samples that it was not."""

    name: str
    network: torch.nn.Module
    reference: Samples
    test: Samples


class Neighbors(NamedTuple):
    """The training images found for some test images; a row of each array for each of these."""

    queries: np.ndarray
    indices: np.ndarray
    similarities: np.ndarray
    seen: np.ndarray


class Verdict(NamedTuple):
    """What the network says of some samples."""

    classes: np.ndarray
    confidence: np.ndarray


def main():
    """Load, find neighbours, measure density; draw and print both."""
    torch.manual_seed(0)
    OUTPUT_FOLDER.mkdir(exist_ok=True)
    with step("Loading"):
        case = load()
        verdict = judge(case.network, case.test.inputs)
    print(
        f"{case.name}: {len(case.reference.labels):,} training images,"
        f" {len(case.test.labels):,} test images, of which the network gets"
        f" {np.sum(verdict.classes != case.test.labels)} wrong"
    )
    show_neighbors(case, verdict)
    show_density(case, verdict)


def load():
    """MNIST and its CNN where they are installed, or scikit-learn's digits."""
    missing = missing_packages()
    if not missing:
        network = mnist_network()
        return Case("MNIST", network, mnist("train", N_REFERENCE), mnist("test", N_TEST))
    print(
        f"Instead of MNIST (not installed: {', '.join(missing)}; see examples/_data.py) these are"
        " scikit-learn's digits, with the small network that sknetsim trains by default."
    )
    return digits_case()


def digits_case():
    """Digits of 8 x 8 pixels; with no network given, `fit` trains one."""
    data = load_digits()
    digits = Samples(data.images, data.data, data.target)
    rows = train_test_split(np.arange(len(data.target)), test_size=1 / 3, random_state=0)
    reference, test = (digits.at(part) for part in rows)
    fitted = NetworkNeighbors(random_state=0).fit(reference.inputs, reference.labels)
    return Case("Digits", fitted.estimator_, reference, test)


def judge(network, inputs):
    """Predicted classes and confidence. Both networks end in logits, which is what k^C compares."""
    with torch.no_grad():
        logits = [network(batch) for batch in torch.from_numpy(inputs).split(500)]
    confidence, classes = torch.cat(logits).softmax(dim=1).max(dim=1)
    return Verdict(classes.numpy(), confidence.numpy())


@contextlib.contextmanager
def step(title):
    """Say what is done and how long it took."""
    print(f"\n{title} ...", flush=True)
    start = time.perf_counter()
    yield
    print(f"{title}: {time.perf_counter() - start:.1f} s", flush=True)


# 1. Neighbours


def show_neighbors(case, verdict):
    """The training images most similar to some test images, as a table and as a picture."""
    queries = choose_queries(case.test.labels, verdict)
    neighbors = NetworkNeighbors(case.network, n_neighbors=N_NEIGHBORS, **SEEN)
    with step(f"Neighbours of {len(queries)} test images"):
        neighbors.fit(case.reference.inputs)
        distances, indices = neighbors.kneighbors(case.test.inputs[queries])
    similarities = 1 - distances**2 / 2  # The distance is that of whitened gradients of length 1.
    seen = judge(case.network, case.reference.inputs[indices.ravel()]).classes
    found = Neighbors(queries, indices, similarities, seen.reshape(indices.shape))
    print_neighbors(case, verdict, found)
    draw_neighbors(case, verdict, found)


def choose_queries(labels, verdict):
    """Two ordinary images, the one seen least surely, the surest mistakes of other classes."""
    right = np.flatnonzero(verdict.classes == labels)[:2]
    wrong = np.flatnonzero(verdict.classes != labels)
    chosen = [*right, verdict.confidence.argmin()]
    for mistake in wrong[np.argsort(-verdict.confidence[wrong], kind="stable")]:
        if verdict.classes[mistake] not in verdict.classes[chosen]:
            chosen.append(mistake)
    return np.array(chosen[:N_QUERIES])


def print_neighbors(case, verdict, found):
    """A line per query."""
    print("  test image  label  seen as   labels of its neighbours (similarity; * seen otherwise)")
    for query, indices, similarities, seen in zip(*found, strict=True):
        labels = case.reference.labels[indices]
        cells = [
            f"{label}{' ' if label == own else '*'}({similarity:.2f})"
            for label, own, similarity in zip(labels, seen, similarities, strict=True)
        ]
        print(describe(case, verdict, query), *cells)


def draw_neighbors(case, verdict, found):
    """A row per query: the query, then its neighbours."""
    shape = (len(found.queries), 1 + N_NEIGHBORS)
    size = (1.65 * shape[1], 1.85 * shape[0] + 0.6)
    figure, axes = plt.subplots(*shape, figsize=size, layout="constrained", squeeze=False)
    for row, (query, indices, similarities, seen) in zip(
        axes, zip(*found, strict=True), strict=True
    ):
        draw(row[0], case.test, query, verdict.classes[query], f"test image {query}", width=3)
        for axis, index, own, similarity in zip(row[1:], indices, seen, similarities, strict=True):
            draw(axis, case.reference, index, own, f"similarity {similarity:.2f}")
    figure.suptitle(
        "Test images (left) and the training images most similar to them as the network sees them\n"
        + LEGEND
    )
    save(figure, "neighbors.png")


# 2. Density


def show_density(case, verdict):
    """The test images that the training images cover least, and whether the network errs there."""
    density = NetworkDensity(case.network, method="soft", **SEEN)
    with step(f"Density of {len(case.reference.labels):,} training images"):
        density.fit(case.reference.inputs)
    with step(f"Log densities of {len(case.test.labels):,} test images"):
        scores = density.score_samples(case.test.inputs)
    errors = verdict.classes != case.test.labels
    print_least_covered(case, verdict, scores)
    print_error_rates("density", scores, errors)
    print_error_rates("softmax confidence, for comparison", verdict.confidence, errors)
    draw_density(case, verdict, scores, errors)


def print_least_covered(case, verdict, scores):
    """The least covered test images, a line each."""
    print(f"  The median test image has a log density of {np.median(scores):.3f}; the lowest ten:")
    print("  test image  label  seen as   log density")
    for index in np.argsort(scores)[:10]:
        wrong = "  wrong" if verdict.classes[index] != case.test.labels[index] else ""
        print(f"{describe(case, verdict, index)}{scores[index]:9.3f}{wrong}")


def print_error_rates(name, scores, errors):
    """Whether the network errs more often where a score is lowest."""
    lowest, *others = tenths(scores, errors)
    rest = np.concatenate(others)
    print(
        f"  The tenth of lowest {name}: {lowest.sum()} of {len(lowest)} wrong"
        f" ({lowest.mean():.1%}); the rest: {rest.sum()} of {len(rest):,} ({rest.mean():.1%})"
    )


def tenths(scores, errors):
    """The errors in ten equal parts, lowest scores first."""
    return np.array_split(errors[np.argsort(scores, kind="stable")], 10)


def draw_density(case, verdict, scores, errors):
    """The least covered test images, above the error rates by tenths of the density."""
    figure = plt.figure(figsize=(11.5, 9.2), layout="constrained")
    upper, lower = figure.subfigures(2, height_ratios=[2.5, 1], hspace=0.04)
    axes = upper.subplots(3, N_DRAWN // 3)
    for axis, index in zip(axes.flat, np.argsort(scores), strict=False):
        draw(axis, case.test, index, verdict.classes[index], f"log density {scores[index]:.3f}")
    upper.suptitle(
        "The test images that the training images cover least, as the network sees them\n" + LEGEND
    )
    draw_error_rates(lower.subplots(), tenths(scores, errors))
    save(figure, "density.png")


def draw_error_rates(axis, parts):
    """A bar per tenth of the test images, with its number of errors."""
    positions = range(1, len(parts) + 1)
    bars = axis.bar(positions, [100 * part.mean() for part in parts], color=VERMILION)
    axis.bar_label(bars, [f"{part.sum()} of {len(part)}" for part in parts], padding=2)
    axis.set_xticks(positions, ["lowest\ndensity", *positions[1:-1], "highest\ndensity"])
    axis.set(ylabel="errors (%)", xlabel="tenths of the test images")
    axis.margins(x=0.01, y=0.15)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title("Where does the network err?")


# Tables and pictures


def describe(case, verdict, index):
    """The first columns of a table: a test image, its label, and what it is seen as."""
    seen_as = f"{verdict.classes[index]} ({verdict.confidence[index]:.2f})"
    return f"  {index:10d}  {case.test.labels[index]:5d}  {seen_as} "


def draw(axis, samples, index, seen, heading, width=1):
    """One image with its label and what the network sees; framed by whether they agree."""
    label = samples.labels[index]
    sign, color = ("=", BLUE) if label == seen else ("≠", VERMILION)
    axis.imshow(samples.images[index], cmap="gray_r")
    axis.set_title(f"{heading}\nlabel {label} {sign} seen {seen}", fontsize=9, color=color)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(color=color, linewidth=width)


def save(figure, name):
    """Write a picture and say where."""
    figure.savefig(OUTPUT_FOLDER / name, dpi=110, bbox_inches="tight", pad_inches=0.12)
    plt.close(figure)
    print(f"  Drawn: examples/output/{name}")


if __name__ == "__main__":
    main()
