"""
Similarity in a transformer
===========================

This example measures similarities in a network that reads sequences. A small transformer reads
images of MNIST as sequences, one row of pixels after the other, and learns to classify the digits.
The example finds the most similar training images of a test image, and computes how much each kind
of layer contributes to a similarity: the embedding of the rows, the attention between rows, or the
layers that process each row separately. The embedding contributes most, and attention contributes
more than the feed-forward layers.

The same calls work for any network that reads sequences, including recurrent ones.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim import NetworkKernel, NetworkNeighbors, rule_coverage
from sknetsim.datasets import load_mnist
from sknetsim.displays import ContributionsDisplay, NeighborsDisplay, SimilarityMatrixDisplay

TRAINING = 8_000
TEST = 1_000
EPOCHS = 8
PAIRS = 200
ROWS = 28


class RowTransformer(nn.Module):
    """Transformer of two layers over the rows of an image."""

    def __init__(self, width=32):
        super().__init__()
        self.embedding = nn.Linear(ROWS, width)
        self.place = nn.Parameter(0.1 * torch.randn(ROWS, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(width, 10)

    def forward(self, rows):
        return self.head(self.encoder(self.embedding(rows) + self.place).mean(dim=1))


training, test = load_mnist("train", TRAINING), load_mnist("test", TEST)
X, X_test = training.inputs[:, 0], test.inputs[:, 0]  # (images, rows, pixels)
torch.manual_seed(0)
net = NeuralNetClassifier(
    RowTransformer,
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
predictions, training_predictions = net.predict(X_test), net.predict(X)
print(f"Accuracy on the test images: {(predictions == test.labels).mean():.3f}")

# %%
# Most similar training images
# ----------------------------
# The queries are two test images that the network classifies correctly and two that it
# misclassifies. An orange caption marks a prediction that differs from the label. The images most
# similar to a misclassified query are those with the same wrong prediction, and their similarity is
# lower. Some of them are misclassified as well, although the network was trained on them.

is_right = predictions == test.labels
queries = np.concatenate([np.flatnonzero(is_right)[:2], np.flatnonzero(~is_right)[:2]])
neighbors = NetworkNeighbors(net, output="predicted", n_neighbors=6).fit(X)
# distance = sqrt(2 - 2 k), so k = 1 - distance^2 / 2
largest = 1 - neighbors.kneighbors(X_test, n_neighbors=1)[0][:, 0] ** 2 / 2
for name, rows in {"Correct": is_right, "Wrong": ~is_right}.items():
    print(f"{name} predictions: mean similarity to the nearest image {largest[rows].mean():.2f}")
NeighborsDisplay.from_estimator(
    neighbors,
    X_test[queries],
    labels=training.labels,
    predictions=training_predictions,
    query_labels=test.labels[queries],
    query_predictions=predictions[queries],
)
plt.show()

# %%
# Comparison with gradients from autograd
# ---------------------------------------
# The gradients in all linear layers, those of the attention included, and in the normalisations are
# computed by rules. The position parameter is added to all images: ``torch.func`` differentiates
# this addition on its own. The result is that of autograd, as a comparison with its gradients of
# single images shows.
print(rule_coverage(net, X[:100], output="predicted"))


def compute_gradient(rows):
    """Return the gradient of the largest logit with respect to all parameters."""
    logits = net.module_.eval()(torch.from_numpy(rows[None]))
    parts = torch.autograd.grad(logits.max(), list(net.module_.parameters()))
    return torch.cat([part.flatten() for part in parts])


kernel = NetworkKernel(net, output="predicted")
# k(x, x') = <g(x), g(x')> / (|g(x)| |g(x')|)
gradients = nn.functional.normalize(torch.stack([compute_gradient(rows) for rows in X_test[:20]]))
difference = abs(kernel(X_test[:20]) - (gradients @ gradients.T).numpy()).max()
print(f"Largest difference from the similarities of autograd's gradients: {difference:.0e}")

for name in ("linear", "self_attn"):
    partial_kernel = NetworkKernel(net, output="predicted", parameters=[f"*.{name}*"])
    count = sum(p.numel() for path, p in net.module_.named_parameters() if f".{name}" in path)
    start = time.perf_counter()
    partial_kernel(X_test)
    print(f"{count:,} parameters of {name}: {time.perf_counter() - start:.2f} seconds")

# %%
# Contributions by kind of layer
# ------------------------------
# A similarity is a sum over parameters, and therefore over layers. Each test image is paired with
# the most similar training image, with a random image for which the network predicts the same
# digit, and with a random image for which it predicts another digit.

similarity, drawn = kernel(X_test[:PAIRS], X), np.random.default_rng(0).random((PAIRS, TRAINING))
same = predictions[:PAIRS, None] == training_predictions
partners = {
    "most similar": similarity.argmax(axis=1),
    "same digit": (same * drawn).argmax(axis=1),
    "another digit": (~same * drawn).argmax(axis=1),
}
contributions = {
    name: kernel.contributions(X_test[:PAIRS], X[indices], positions="embedding")
    for name, indices in partners.items()
}
kinds = {
    "embedding": "embedding",
    "self_attn": "attention",
    "linear": "feed-forward",
    "norm": "normalisations",
    "head": "head",
    "": "position",  # A parameter of the network itself, outside of all layers.
}
table = {}
for column, parts in enumerate(contributions.values()):
    for layer, part in parts.by_layer().items():
        kind = next(kind for name, kind in kinds.items() if name in layer)
        table.setdefault(kind, np.zeros(len(contributions)))[column] += part.mean()
print(f"{'':<16}" + "".join(f"{name:>16}" for name in contributions))
for kind, means in table.items():
    print(f"{kind:<16}" + "".join(f"{value:16.3f}" for value in means))
totals = [parts.similarity.mean() for parts in contributions.values()]
print(f"{'similarity':<16}" + "".join(f"{value:16.3f}" for value in totals))

# %%
# The embedding contributes most, and attention contributes more than the feed-forward layers, which
# have about as many parameters. For images of different digits, the contributions of all layers are
# close to 0. A contribution states where a training step would change the network, and not which
# layer the network could do without.

# %%
# Contributions of pairs of rows
# ------------------------------
# The embedding is applied to each row, so its contribution is a sum over pairs of rows, one of each
# image. The figure shows the first test image and the most similar training image: on the left the
# contributions of the layers, on the right those of pairs of rows in the embedding.

figure, grid = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for axes, layer in zip(grid, (None, "embedding"), strict=True):
    ContributionsDisplay.from_predictions(contributions["most similar"], layer=layer, ax=axes)
plt.show()

# %%
# The bar of the seven makes the two images similar. Over all pairs, most of the similarity of
# similar images comes from rows at about the same position. The lines below show the shares of the
# embedding's contribution that come from rows at most 0, 1 and 3 apart:

apart = abs(np.subtract.outer(np.arange(ROWS), np.arange(ROWS)))
for name in ("most similar", "same digit"):
    by_rows = contributions[name].by_position("embedding").sum(axis=0)
    shares = [by_rows[apart <= most].sum() / by_rows.sum() for most in (0, 1, 3)]
    print(f"{name}: " + ", ".join(f"{share:.0%}" for share in shares))

# %%
# Similarity matrix
# -----------------
# The display places similar images next to each other: blocks are digits, or several digits that
# look alike. In a red pair, a training step that raises the predicted logit of one image lowers
# that of the other.

SimilarityMatrixDisplay.from_estimator(kernel, X_test[:PAIRS], labels=test.labels[:PAIRS])
plt.show()
