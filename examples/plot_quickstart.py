"""
What does a trained network find similar?
=========================================

A CNN that somebody else trained on MNIST, and 5,000 of MNIST's 60,000 training images: which of
them does the network find most similar to a test image, and where is it on thin ice? Both are asked
of the logit that it predicts, which is some ten times cheaper than all ten, whitened against each
other. The price: logits of different classes share fewer parameters, so that nearly all neighbours
belong to the class that the network *predicts*.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from _data import OUTPUT, mnist, mnist_network

from sknetsim import NetworkDensity, NetworkNeighbors
from sknetsim.displays import NeighborsDisplay

TRAINING = 5_000
TEST = 2_000
MISTAKES = 4

network = mnist_network()
train, test = mnist("train", TRAINING), mnist("test", TEST)


def said(samples):
    """Classes that the network predicts, and how sure it is."""
    with torch.no_grad():
        logits = [network(batch) for batch in torch.from_numpy(samples.inputs).split(500)]
    confidence, classes = torch.cat(logits).softmax(dim=1).max(dim=1)
    return classes.numpy(), confidence.numpy()


classes, confidence = said(test)
wrong = np.flatnonzero(classes != test.labels)
print(f"{TEST:,} test images, of which the network gets {len(wrong)} wrong")

# %%
# Neighbours
# ----------
# Two images that it gets right, and the mistakes that it is surest of. Above each training image:
# its similarity, its label, and what the network says of it. Look at the test images before
# believing that it is the network that errs.

right = np.flatnonzero(classes == test.labels)[:2]
queries = np.append(right, wrong[np.argsort(-confidence[wrong])][:MISTAKES])
neighbors = NetworkNeighbors(network, "predicted", n_neighbors=6).fit(train.inputs)
display = NeighborsDisplay.from_estimator(
    neighbors,
    test.inputs[queries],
    labels=train.labels,
    predictions=said(train)[0],
    query_labels=test.labels[queries],
    query_predictions=classes[queries],
)
plt.show()

# %%
# Density
# -------
# How similar are the training images on the whole to each test image? Where few of them are, the
# network errs more often.

density = NetworkDensity(network, "predicted").fit(train.inputs)
scores = density.score_samples(test.inputs)
errors = classes != test.labels
tenths = np.array_split(errors[np.argsort(scores)], 10)
figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
bars = axes.bar(range(1, 11), [100 * part.mean() for part in tenths], color="#0072B2")
axes.bar_label(bars, [f"{part.sum()} of {len(part)}" for part in tenths], fontsize=8)
axes.margins(x=0.01, y=0.12)
axes.set_xticks(range(1, 11), ["lowest\ndensity", *range(2, 10), "highest\ndensity"])
axes.set(xlabel="tenths of the test images", ylabel="errors (%)")
plt.show()

# %%
# The softmax, for comparison, is as good a guide on test images like these. It says how sure the
# network is, and not whether it has seen anything like it.

for name, guide in {"density": scores, "confidence": confidence}.items():
    lowest, *others = np.array_split(errors[np.argsort(guide)], 10)
    print(f"lowest tenth by {name}: {lowest.sum()} errors; others: {sum(map(np.sum, others))}")

# %%
# The pictures are also written to ``examples/output``.

OUTPUT.mkdir(exist_ok=True)
for name, drawn in {"neighbors": display.figure_, "density": figure}.items():
    drawn.savefig(OUTPUT / f"{name}.png", dpi=110)
    print(f"written: examples/output/{name}.png")
