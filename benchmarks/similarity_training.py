"""Whether similarity speeds up the first steps of training on MNIST, as published.

Writes ``benchmarks/similarity_training.md`` and the picture
``docs/images/mnist_similarity_training.png``. With ``--quick`` it only prints, a few steps of two
seeds. The experiment is that of ``examples/plot_similarity_training.py``, for longer.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
from lib import report

sys.path.append(str(Path(__file__).parent.parent / "examples"))

from plot_similarity_training import (
    BATCH,
    compute_gains,
    compute_running_mean,
    draw_curves,
    load_tensors,
    measure_curves,
)

plt.switch_backend("agg")
PICTURE = report.RESULTS / "similarity_training.png"
#: Steps that are told of; the last one ends the training.
STEPS = (20, 40, 60, 80, 100, 125, 150)
TESTED = 1_000
#: How many seeds at which rate of Adam; the first one is drawn.
SEEDS = {1e-3: 20, 1e-4: 6}


def table(name, found, steps):
    """Means over the seeds, and gains on the baseline, in percent."""
    yield ""
    yield from report.head([f"{name} step", *map(str, steps)])
    gained = [compute_gains(found, step) for step in steps]
    for mode, values in found.items():
        cells = [f"{100 * values[:, step - 1].mean():.1f}" for step in steps]
        if mode != "baseline":
            told = (by_mode[mode] for by_mode in gained)
            signed = (f" ({100 * gain:+.1f} ± {100 * width:.1f})" for gain, width in told)
            cells = [cell + more for cell, more in zip(cells, signed, strict=True)]
        yield report.row(mode, *cells)


def lines(quick):
    """The whole text, line by line."""
    steps, tested = ((2, 4), 100) if quick else (STEPS, TESTED)
    data = load_tensors("train", 60_000), load_tensors("test", 10_000)
    yield "# Does similarity speed up training?"
    yield ""
    yield f"{report.setting(['scikit-learn', 'numpy'])}."
    yield ""
    yield (
        f"The first {steps[-1]} steps on MNIST (batches of {BATCH}, Adam), with one pair of images"
        " of the same class beside each batch, whose similarity is subtracted from the loss"
        " (attraction) or added to it (repulsion, as the paper's authors released it); contrast:"
        " attraction of such a pair, repulsion of a pair of two classes. All modes of a seed have"
        " the same initial weights, batches and pairs. Accuracy in percent on"
        f" {tested:,} test images drawn anew after each step, and its mean over the steps so far,"
        " which the authors plot; means of the seeds. In brackets: the gain on the baseline, seed"
        " by seed, with its 95 % interval."
    )
    for place, (rate, seeds) in enumerate(SEEDS.items()):
        count = 2 if quick else seeds
        found = measure_curves(rate, count, steps[-1], tested, *data)
        yield from ["", f"## Rate {rate:g}, {count} seeds"]
        yield from table("accuracy after", found, steps)
        means = {mode: compute_running_mean(values) for mode, values in found.items()}
        yield from table("mean accuracy up to", means, steps)
        if not (quick or place):
            draw_curves(found).savefig(PICTURE, dpi=110)
    if not quick:
        yield from ["", "![Accuracy by step](similarity_training.png)"]


if __name__ == "__main__":
    report.run(__file__, __doc__, "a few steps of two seeds", lines)
