"""Accuracy in the first steps of training on MNIST with a similarity loss, as in the paper.

Writes ``similarity_training.md`` and ``similarity_training.png`` in ``benchmarks/results``. With
``--quick`` it only prints, after a few steps of two seeds. The experiment is the long form of
``examples/plot_similarity_training.py``.
"""

import matplotlib.pyplot as plt
import torch
from lib import report
from lib.similarity_experiment import (
    BATCH,
    average_up_to,
    compute_gains,
    draw_accuracies,
    measure_accuracies,
)

from sknetsim.datasets import load_mnist

plt.switch_backend("agg")
PICTURE = report.RESULTS / "similarity_training.png"
#: Steps in the table; the last one ends the training.
STEPS = (20, 40, 60, 80, 100, 125, 150)
TESTED = 1_000
#: Number of seeds for each learning rate of Adam; the first rate is drawn.
SEEDS = {1e-3: 20, 1e-4: 6}


def load_tensors(part):
    """Load MNIST's inputs and labels as tensors."""
    digits = load_mnist(part)
    return torch.as_tensor(digits.inputs), torch.as_tensor(digits.labels)


def generate_table(name, accuracies, steps):
    """Yield a table of means over the seeds and gains on the baseline, in percent."""
    yield ""
    yield from report.format_header([f"{name} step", *map(str, steps)])
    gains_by_step = [compute_gains(accuracies, step) for step in steps]
    for mode, values in accuracies.items():
        cells = [f"{100 * values[:, step - 1].mean():.1f}" for step in steps]
        if mode != "baseline":
            gains = (by_mode[mode] for by_mode in gains_by_step)
            texts = (f" ({100 * gain:+.1f} ± {100 * width:.1f})" for gain, width in gains)
            cells = [cell + text for cell, text in zip(cells, texts, strict=True)]
        yield report.format_row(mode, *cells)


def generate_report(quick):
    """Yield the report, line by line."""
    steps, tested = ((2, 4), 100) if quick else (STEPS, TESTED)
    data = load_tensors("train"), load_tensors("test")
    title = "Similarity loss and training speed on MNIST"
    yield from report.format_title(__file__, title, ["scikit-learn", "numpy"])
    yield (
        f"The first {steps[-1]} steps on MNIST (batches of {BATCH}, Adam). In each step, a pair of"
        " images of the same class is drawn in addition to the batch. Attraction: their similarity"
        " is subtracted from the loss. Repulsion: it is added to the loss, as in the code that the"
        " paper's authors released. Contrast: attraction of this pair, repulsion of a pair of two"
        " classes. All modes of a seed have the same initial weights, batches and pairs. Accuracy"
        f" in percent on {tested:,} test images drawn anew after each step, and its mean over the"
        " steps so far, which the authors plot; means of the seeds. In brackets: the gain on the"
        " baseline, seed by seed, with its 95 % interval."
    )
    for place, (rate, seeds) in enumerate(SEEDS.items()):
        count = 2 if quick else seeds
        accuracies = measure_accuracies(rate, count, steps[-1], tested, *data)
        yield from ["", f"## Rate {rate:g}, {count} seeds"]
        yield from generate_table("accuracy after", accuracies, steps)
        means = {mode: average_up_to(values) for mode, values in accuracies.items()}
        yield from generate_table("mean accuracy up to", means, steps)
        if not (quick or place):
            draw_accuracies(accuracies).savefig(PICTURE, dpi=110)
    if not quick:
        yield from ["", f"![Accuracy by step]({PICTURE.name})"]


if __name__ == "__main__":
    report.write_report(__file__, __doc__, "a few steps of two seeds", generate_report)
