"""
Quickstart: nearest neighbours and density of a trained network
===============================================================

This example finds the training images that are most similar to a test image, and the test images
that have few similar training images. The network is a CNN that a third party trained on MNIST. The
data are 5,000 of MNIST's 60,000 training images and 2,000 test images. Of the 25 test images that
the network misclassifies, 19 are in the tenth of lowest density.

Only the predicted logits are compared (``output="predicted"``). This is about ten times cheaper
than comparing all ten logits, whitened against each other. The drawback is that logits of
different classes share fewer parameters, so nearly all neighbours belong to the class that the
network *predicts*.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from sknetsim import NetworkDensity, NetworkNeighbors
from sknetsim.datasets import load_mnist, load_mnist_network
from sknetsim.displays import NeighborsDisplay

TRAINING = 5_000
TEST = 2_000
MISTAKES = 4

network = load_mnist_network()
train, test = load_mnist("train", TRAINING), load_mnist("test", TEST)


def predict(samples):
    """Return the predicted digits and their softmax probabilities."""
    with torch.no_grad():
        logits = [network(batch) for batch in torch.from_numpy(samples.inputs).split(500)]
    confidence, digits = torch.cat(logits).softmax(dim=1).max(dim=1)
    return digits.numpy(), confidence.numpy()


predictions, confidence = predict(test)
wrong = np.flatnonzero(predictions != test.labels)
print(f"The network misclassifies {len(wrong)} of {TEST:,} test images.")

# %%
# Nearest neighbours
# ------------------
# The queries are two test images that the network classifies correctly, and the misclassified ones
# with the highest confidence. The captions of the training images give the similarity, the true
# label and the prediction. Look at each query before you conclude that the network is wrong and not
# the label.

right = np.flatnonzero(predictions == test.labels)[:2]
queries = np.append(right, wrong[np.argsort(-confidence[wrong])][:MISTAKES])
neighbors = NetworkNeighbors(network, "predicted", n_neighbors=6).fit(train.inputs)
display = NeighborsDisplay.from_estimator(
    neighbors,
    test.inputs[queries],
    labels=train.labels,
    predictions=predict(train)[0],
    query_labels=test.labels[queries],
    query_predictions=predictions[queries],
)
plt.show()

# %%
# Density
# -------
# The density measures how similar the training images as a whole are to a test image. If few
# training images are similar, the network errs more often.

density = NetworkDensity(network, "predicted").fit(train.inputs)
scores = density.score_samples(test.inputs)
errors = predictions != test.labels
tenths = np.array_split(errors[np.argsort(scores)], 10)
figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
bars = axes.bar(range(1, 11), [100 * tenth.mean() for tenth in tenths], color="#0072B2")
axes.bar_label(bars, [f"{tenth.sum()} of {len(tenth)}" for tenth in tenths], fontsize=8)
axes.margins(x=0.01, y=0.12)
axes.set_xticks(range(1, 11), ["lowest\ndensity", *range(2, 10), "highest\ndensity"])
axes.set(xlabel="tenths of the test images", ylabel="errors (%)")
plt.show()

# %%
# On these test images, the softmax probability predicts errors as well as the density does. It
# measures how confident the network is, but not whether the training data contain similar images.

for name, values in {"density": scores, "confidence": confidence}.items():
    lowest, *others = np.array_split(errors[np.argsort(values)], 10)
    print(f"Lowest tenth by {name}: {lowest.sum()} errors; others: {sum(map(np.sum, others))}.")

# %%
# Saving the figures
# ------------------
# The script also writes the figures to a folder ``output`` beside it.

# A notebook has no __file__; its figures go to the working directory.
folder = Path(__file__).parent / "output" if "__file__" in globals() else Path("output")
folder.mkdir(exist_ok=True)
for name, drawn in {"neighbors": display.figure_, "density": figure}.items():
    drawn.savefig(folder / f"{name}.png", dpi=110)
    print(f"Written: {folder.name}/{name}.png")
