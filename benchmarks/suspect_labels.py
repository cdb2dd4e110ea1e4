"""Labels of MNIST's test set, ranked by how few similar images share them: pictures, no proof.

Writes ``suspect_labels.md`` and ``suspect_labels.png`` in ``benchmarks/results``. With ``--quick``
it only prints, after the first 2,500 test images.
"""

import matplotlib.pyplot as plt
import numpy as np
from lib import report

from sknetsim import LabelDenoiser
from sknetsim.datasets import load_mnist, load_mnist_network

plt.switch_backend("agg")
FITTED = 5_000
PICTURE = report.RESULTS / "suspect_labels.png"
#: Test images whose label two third-party networks contradict with confidence above .9.
CONTRADICTED = [
    *(445, 924, 1014, 1232, 1901, 2035, 2182, 2597, 2654),
    *(2896, 2939, 3422, 3762, 4956, 5955, 9642, 9729),
]


def generate_report(quick):
    """Yield the report, line by line."""
    train, test = load_mnist("train", FITTED), load_mnist("test", 2_500 if quick else 10_000)
    denoiser = LabelDenoiser(load_mnist_network(), n_components=512, random_state=0)
    denoiser.fit(train.inputs, train.labels)
    order = denoiser.label_issues(test.inputs, test.labels)
    places = np.argsort(order)[[row for row in CONTRADICTED if row < len(order)]] + 1
    title = "Suspect labels of MNIST's test set"
    yield from report.format_title(__file__, title, ["scikit-learn", "numpy"])
    yield (
        f"`LabelDenoiser` with a third-party network (390,410 parameters, ten logits, 512"
        f" features), fitted on the first {FITTED:,} training images, ranks {len(order):,} test"
        f" images. For {len(places)} of them, this network and another one contradict the label"
        f" with confidence above .9; their ranks are {', '.join(map(str, sorted(places)))}. They"
        " were chosen because networks contradict them, so the ranks prove nothing: look at the"
        " images. The picture shows the first forty of the ranking with label and denoised label;"
        " images of the 17 are marked in red."
    )
    if not quick:
        draw(test, order[:40], denoiser.predict(test.inputs[order[:40]]))
        yield from ["", f"![Suspect labels]({PICTURE.name})"]


def draw(test, rows, denoised):
    """Draw images with their labels and the denoised labels."""
    figure, axes = plt.subplots(4, 10, figsize=(11, 5.4), layout="constrained")
    for axis, row, label in zip(axes.flat, rows, denoised, strict=True):
        axis.imshow(test.images[row], cmap="gray_r")
        colour = "tab:red" if row in CONTRADICTED else "black"
        axis.set_title(f"{test.labels[row]}, similar: {label}", fontsize=9, color=colour)
        axis.set_axis_off()
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    report.write_report(__file__, __doc__, "2,500 images, no picture", generate_report)
