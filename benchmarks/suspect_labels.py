"""MNIST's own labels, ranked by how few similar images share them: pictures, no proof.

Writes ``benchmarks/suspect_labels.md`` and the picture ``docs/images/suspect_labels.png``. With
``--quick`` it only prints, of the first 2,500 test images.
"""

import matplotlib.pyplot as plt
import numpy as np
from lib import report
from lib.data.images import mnist, mnist_network

from sknetsim import LabelDenoiser

plt.switch_backend("agg")
FITTED = 5_000
PICTURE = report.RESULTS / "suspect_labels.png"
#: Test images whose label two networks of others contradict with confidence above .9.
CONTRADICTED = [
    *(445, 924, 1014, 1232, 1901, 2035, 2182, 2597, 2654),
    *(2896, 2939, 3422, 3762, 4956, 5955, 9642, 9729),
]


def lines(quick):
    """The whole text, line by line."""
    train, test = mnist("train", FITTED), mnist("test", 2_500 if quick else 10_000)
    denoiser = LabelDenoiser(mnist_network(), n_components=512, random_state=0)
    denoiser.fit(train.inputs, train.labels)
    order = denoiser.label_issues(test.inputs, test.labels)
    places = np.argsort(order)[[row for row in CONTRADICTED if row < len(order)]] + 1
    yield "# Suspect labels of MNIST's test set"
    yield ""
    yield f"{report.setting(['scikit-learn', 'numpy'])}."
    yield ""
    yield (
        f"`LabelDenoiser` with somebody else's network (390,410 parameters, ten logits, 512"
        f" features), fitted on the first {FITTED:,} training images, ranks {len(order):,} test"
        f" images. The {len(places)} whose label that network and another one contradict with"
        f" confidence above .9 have the places {', '.join(map(str, sorted(places)))}. They were"
        " found by a network's contradiction, so this proves nothing: look at them. In the picture"
        " the first forty of the ranking, with label and denoised label, those seventeen in red."
    )
    if not quick:
        draw(test, order[:40], denoiser.predict(test.inputs[order[:40]]))
        yield from ["", "![Suspect labels](suspect_labels.png)"]


def draw(test, rows, denoised):
    """Images with their labels and those of similar ones."""
    figure, axes = plt.subplots(4, 10, figsize=(11, 5.4), layout="constrained")
    for axis, row, label in zip(axes.flat, rows, denoised, strict=True):
        axis.imshow(test.images[row], cmap="gray_r")
        colour = "tab:red" if row in CONTRADICTED else "black"
        axis.set_title(f"{test.labels[row]}, similar: {label}", fontsize=9, color=colour)
        axis.set_axis_off()
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    report.run(__file__, __doc__, "2,500 images, no picture", lines)
