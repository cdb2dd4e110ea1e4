"""
Explaining predictions with similar training samples
====================================================

This example explains four predictions of a network by the data that it was trained on: which
training images are most similar to the test image, which of them support the prediction, and which
layers and positions make two images similar. The network is a CNN that a third party trained on
MNIST; the explanations use 2,000 of its training images. All similarities are those of the
predicted logit.

Two of the four predictions are correct. The other two contradict the label with high confidence:
one is an error of the network, the other an error of the label. Little support for a prediction
turns out to be a hint, and not a proof, that it is wrong.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

from sknetsim import NetworkDensity, NetworkKernel, NetworkNeighbors
from sknetsim.datasets import load_mnist, load_mnist_network
from sknetsim.displays import NeighborsDisplay

TRAINING = 2_000
#: Test images: two correct predictions, a wrong prediction and a wrong label.
EXPLAINED = (0, 18, 2182, 9729)
RANKED = 1_000  # Test images whose reliability is compared with that of the four.
COMPARED = 200  # Test images whose similarities are decomposed.
SHOWN = (0, 1, 4, 18)  # The ones among them that are drawn.
CONVOLUTION, SIDE = "conv_layers.3", 14

network = load_mnist_network()
test, training = load_mnist("test"), load_mnist("train", TRAINING)


def predict(images):
    """Return the predicted digits and their softmax probabilities."""
    with torch.no_grad():
        confidence, digits = network(torch.from_numpy(images.inputs)).softmax(dim=1).max(dim=1)
    return digits.numpy(), confidence.numpy()


queries, training_predictions = test.select(list(EXPLAINED)), predict(training)[0]
predictions, confidence = predict(queries)
for index, label, digit, value in zip(
    EXPLAINED, queries.labels, predictions, confidence, strict=True
):
    print(f"Test image {index}: label {label}, prediction {digit}, confidence {value:.3f}")

# %%
# Most similar training images
# ----------------------------
# Each row shows a test image on the left and the training images most similar to it, with their
# similarity, label and prediction. They show the predicted digit, whether the prediction is right
# or wrong, because the logit of this digit is compared. They therefore show which digit the network
# treats the image as. Only the image itself shows whether the prediction or the label is right: the
# image labelled 5 is a 6 like its neighbours, so the label is wrong; the one with serifs is a 1,
# unlike its neighbours.
#
# The similarities differ. The ordinary 7 has close neighbours. The two odd images have none, and
# one of these is the 3, whose prediction is correct.

neighbors = NetworkNeighbors(network, output="predicted", n_neighbors=6).fit(training.inputs)
NeighborsDisplay.from_estimator(
    neighbors,
    queries.inputs,
    labels=training.labels,
    predictions=training_predictions,
    query_labels=queries.labels,
    query_predictions=predictions,
)
plt.show()

# %%
# Support of the prediction by training images
# --------------------------------------------
# `NetworkKernel.influence` measures how far the predicted logit of a training image moves if a
# training step moves that of the test image by one. `NetworkDensity.reliability` is the sum over
# the training images; the figure splits this sum by their label. The predicted digit is orange.
# Digits with a negative sum contradict the prediction.
#
# An ordinary prediction is supported by the images of its digit, and all other digits add a little.
# The two odd images have little support: less from their own digit, and the other digits partly
# contradict the prediction. For the 1 that is predicted as a 3, the ones contradict it most. The
# prediction that contradicts a wrong label has as much support as an ordinary one.

kernel = NetworkKernel(network, output="predicted")
influence = kernel.influence(queries.inputs, training.inputs)
density = NetworkDensity(network, output="predicted").fit(training.inputs)
reliability = density.reliability(queries.inputs)
ranked_reliability = density.reliability(test.inputs[:RANKED])
figure, grid = plt.subplots(1, 4, figsize=(9, 3), sharey=True, layout="constrained")
for number, axes in enumerate(grid):
    support = [influence[number, training.labels == digit].sum() for digit in range(10)]
    colors = ["#D55E00" if digit == predictions[number] else "#0072B2" for digit in range(10)]
    axes.bar(range(10), support, color=colors)
    axes.axhline(0, color="black", linewidth=0.8)
    title = f"label {queries.labels[number]}, prediction {predictions[number]}"
    axes.set_title(title, fontsize=10)
    axes.set_xticks(range(10))
    below = (ranked_reliability < reliability[number]).mean()
    print(
        f"Test image {EXPLAINED[number]}: reliability {reliability[number]:.0f}, sum of"
        f" influences {influence[number].sum():.0f}; {below:.1%} of test images have less"
    )
grid[0].set_ylabel("sum of influences")
figure.supxlabel("label of the training images")
plt.show()

# %%
# Little support is a hint that a prediction may be wrong, and not a proof: the 3 has the least
# support of all ranked test images, and its prediction is correct.

# %%
# Contributions of layers to a similarity
# ---------------------------------------
# `NetworkKernel.contributions` decomposes a similarity exactly. Each test image is paired with the
# most similar training image, and with the most similar one for which the network predicts another
# digit.
#
# If the predicted digits agree, the last layer contributes most. If they differ, it contributes
# nothing, because another logit has other weights there. Most of the remaining similarity comes
# from the first convolution, because strokes are common to all digits.

compared = test.select(slice(COMPARED))
similarity = kernel(compared.inputs, training.inputs)
is_other = predict(compared)[0][:, None] != training_predictions
partners = {
    "most similar": similarity.argmax(axis=1),
    "most similar of another digit": np.where(is_other, similarity, -1).argmax(axis=1),
}
contributions = {
    name: kernel.contributions(compared.inputs, training.inputs[indices], positions=CONVOLUTION)
    for name, indices in partners.items()
}
for name, parts in contributions.items():
    print(f"{name}: mean similarity {parts.similarity.mean():.3f}")
    for layer, part in parts.by_layer().items():
        print(f"    {layer:<16}{part.mean():+.3f}")

# %%
# Contributions of positions in a convolution
# -------------------------------------------
# A convolution compares each position of one image with each position of the other, here on a grid
# of 14 x 14. The lines below show the shares of its contribution that come from positions at most
# 0, 1 and 3 apart:

down, right = (np.subtract.outer(p, p) for p in np.divmod(np.arange(SIDE**2), SIDE))
apart = np.maximum(abs(down), abs(right))
for name, parts in contributions.items():
    positions = parts.by_position(CONVOLUTION)
    shares = [positions[:, apart <= most].sum() / positions.sum() for most in (0, 1, 3)]
    print(f"{name}: " + ", ".join(f"{share:.0%}" for share in shares))

# %%
# The similarity of two images of the same digit comes from features at about the same positions.
# That of two different digits comes largely from positions far apart, where a convolution applies
# the same weights.
#
# In the figure, blue positions increase the similarity and red positions decrease it; each map has
# its own scale. The bar of a seven and the foot of a two stand out.


def draw_layers(axes, parts, pair):
    """Draw a bar for the contribution of each layer, from the first layer down."""
    for name, part in parts.by_layer().items():
        axes.barh(name, part[pair], color="#0072B2" if part[pair] > 0 else "#D55E00")
    axes.set(title=f"similarity {parts.similarity[pair]:.2f}", xlim=(-0.1, 0.65))
    axes.invert_yaxis()


def draw_positions(axes, images, index, values):
    """Draw the contributions of positions over an image."""
    size, extent = abs(values).max(), (0, 28, 28, 0)
    axes.imshow(images.images[index], cmap="gray_r", extent=extent)
    axes.imshow(values, cmap="RdBu", vmin=-size, vmax=size, alpha=0.6, extent=extent)
    axes.set_title(str(images.labels[index]))
    axes.axis("off")


figure, grid = plt.subplots(len(SHOWN), 6, figsize=(14, 9), layout="constrained")
for row, pair in zip(grid, SHOWN, strict=True):
    for cells, (name, parts) in zip((row[:3], row[3:]), contributions.items(), strict=True):
        draw_layers(cells[0], parts, pair)
        positions = parts.by_position(CONVOLUTION)[pair].reshape([SIDE] * 4)
        draw_positions(cells[1], compared, pair, positions.sum(axis=(2, 3)))
        draw_positions(cells[2], training, partners[name][pair], positions.sum(axis=(0, 1)))
figure.suptitle("Contributions of layers, and of positions of the second convolution")
plt.show()
