"""
Images that are read row by row
===============================

A transformer reads images of MNIST as sequences, one row of pixels after the other, and learns
which digit they show. Here are the images that it finds most similar, and which of its layers make
them so: the embedding of the rows, attention between rows, or the layers that look at each row by
itself.

The same calls work for any network of sequences, recurrent ones too.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from _data import mnist
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim import NetworkKernel, NetworkNeighbors
from sknetsim.displays import ContributionsDisplay, NeighborsDisplay, SimilarityMatrixDisplay

TRAINING = 8_000
TEST = 1_000
EPOCHS = 8
PAIRS = 200
ROWS = 28


class RowReader(nn.Module):
    """Two layers of a transformer over the rows of an image."""

    def __init__(self, width=32):
        super().__init__()
        self.embedding = nn.Linear(ROWS, width)
        self.place = nn.Parameter(0.1 * torch.randn(ROWS, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(width, 10)

    def forward(self, rows):
        return self.head(self.encoder(self.embedding(rows) + self.place).mean(dim=1))


training, test = mnist("train", TRAINING), mnist("test", TEST)
X, X_test = training.inputs[:, 0], test.inputs[:, 0]  # (images, rows, pixels)
torch.manual_seed(0)
net = NeuralNetClassifier(
    RowReader,
    criterion=nn.CrossEntropyLoss,
    optimizer=torch.optim.Adam,
    lr=2e-3,
    max_epochs=EPOCHS,
    batch_size=64,
    iterator_train__shuffle=True,
    train_split=None,
    callbacks="disable",
    verbose=0,
).fit(X, training.labels)
seen, seen_training = net.predict(X_test), net.predict(X)
print(f"Right, of the test images: {(seen == test.labels).mean():.3f}")

# %%
# The most similar training images
# --------------------------------
# Of two test images that the network is right about, and of two that it is wrong about; in orange
# where label and network differ. Where it is wrong, the most similar images are those in which it
# sees the same wrong digit, and they are less similar. Some of them it is wrong about as well,
# though it has been trained on them.

is_right = seen == test.labels
queries = np.concatenate([np.flatnonzero(is_right)[:2], np.flatnonzero(~is_right)[:2]])
neighbors = NetworkNeighbors(net, output="predicted", n_neighbors=6).fit(X)
nearest = 1 - neighbors.kneighbors(X_test, n_neighbors=1)[0][:, 0] ** 2 / 2
for answer, rows in {"right": is_right, "wrong": ~is_right}.items():
    print(f"{answer}: the most similar image has a similarity of {nearest[rows].mean():.2f}")
NeighborsDisplay.from_estimator(
    neighbors,
    X_test[queries],
    labels=training.labels,
    predictions=seen_training,
    query_labels=test.labels[queries],
    query_predictions=seen[queries],
)
plt.show()

# %%
# The same, by hand
# -----------------
# Linear layers and normalisations have short forms of their gradients. Attention has none, nor has
# the parameter of the places, nor would recurrent cells have any: their gradients are made by
# ``torch.func``, sample by sample, which takes longer. The result is the same. To see it, take the
# gradients that autograd has for a few images, each by itself.


def gradient(rows):
    """Of the largest logit, in all parameters."""
    logits = net.module_.eval()(torch.from_numpy(rows[None]))
    parts = torch.autograd.grad(logits.max(), list(net.module_.parameters()))
    return torch.cat([part.flatten() for part in parts])


kernel = NetworkKernel(net, output="predicted")
gradients = nn.functional.normalize(torch.stack([gradient(rows) for rows in X_test[:20]]))
difference = abs(kernel(X_test[:20]) - (gradients @ gradients.T).numpy()).max()
print(f"The largest difference from similarities by hand: {difference:.0e}")

for name in ("linear", "self_attn"):
    part = NetworkKernel(net, output="predicted", parameters=[f"*.{name}*"])
    count = sum(p.numel() for path, p in net.module_.named_parameters() if f".{name}" in path)
    start = time.perf_counter()
    part(X_test)
    print(f"{count:,} parameters of {name}: {time.perf_counter() - start:.2f} seconds")

# %%
# Which layers add
# ----------------
# A similarity is a sum over parameters, and so over layers. Each test image is paired with the
# training image that is most similar to it, with some other image in which the network sees the
# same digit, and with some image in which it sees another one.

similarity, drawn = kernel(X_test[:PAIRS], X), np.random.default_rng(0).random((PAIRS, TRAINING))
same = seen[:PAIRS, None] == seen_training
partners = {
    "most similar": similarity.argmax(axis=1),
    "same digit": (same * drawn).argmax(axis=1),
    "another digit": (~same * drawn).argmax(axis=1),
}
parts = {
    name: kernel.contributions(X_test[:PAIRS], X[indices], positions="embedding")
    for name, indices in partners.items()
}
kinds = {
    "embedding": "embedding",
    "self_attn": "attention",
    "linear": "feed-forward",
    "norm": "normalisations",
    "head": "head",
    "": "places",  # A parameter of the network itself.
}
table = {}
for column, found in enumerate(parts.values()):
    for layer, part in found.by_layer().items():
        kind = next(word for name, word in kinds.items() if name in layer)
        table.setdefault(kind, np.zeros(len(parts)))[column] += part.mean()
print(f"{'':<16}" + "".join(f"{name:>16}" for name in parts))
for kind, row in table.items():
    print(f"{kind:<16}" + "".join(f"{value:16.3f}" for value in row))
print(f"{'similarity':<16}" + "".join(f"{part.similarity.mean():16.3f}" for part in parts.values()))

# %%
# The embedding adds most, and attention more than the feed-forward layers, which have about as many
# parameters. Images of different digits have next to nothing in common in any layer. All this says
# where a training step would act, and not which layer the network could do without.

# %%
# Which rows add
# --------------
# The embedding is used once for each row, so what it adds is a sum over pairs of rows, one of each
# image. Here are the first test image and the most similar one: on the left what the layers add, on
# the right what pairs of rows add in the embedding.

figure, grid = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for axes, layer in zip(grid, (None, "embedding"), strict=True):
    ContributionsDisplay.from_predictions(parts["most similar"], layer=layer, ax=axes)
plt.show()

# %%
# It is the bar of the seven that makes the two alike. Over all pairs, similar images are so mostly
# by rows at about the same place; this is the share of rows that are at most so far apart:

apart = abs(np.subtract.outer(np.arange(ROWS), np.arange(ROWS)))
for name in ("most similar", "same digit"):
    by_rows = parts[name].by_position("embedding").sum(axis=0)
    shares = [by_rows[apart <= most].sum() / by_rows.sum() for most in (0, 1, 3)]
    print(f"{name}: " + ", ".join(f"{share:.0%}" for share in shares) + " from rows 0, 1, 3 apart")

# %%
# All pairs at once
# -----------------
# Similar images side by side: blocks are digits, or several that look alike. Red are pairs of which
# a training step that raises the predicted logit of one lowers that of the other.

SimilarityMatrixDisplay.from_estimator(kernel, X_test[:PAIRS], labels=test.labels[:PAIRS])
plt.show()
