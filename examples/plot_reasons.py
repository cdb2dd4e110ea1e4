"""
Why does the network say so?
============================

Somebody else trained a network on MNIST. Four of its predictions are explained here by what it
learnt from: which training images it finds most similar, which of them support the prediction, and
which layers and places make two images similar. All similarities are those of the logit that is
predicted.

Two of the test images are right. Of the other two, which it contradicts with confidence, one is a
mistake of the network and one a mistake of the label.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from _data import mnist, mnist_network

from sknetsim import NetworkDensity, NetworkKernel, NetworkNeighbors
from sknetsim.displays import NeighborsDisplay

TRAINING = 2_000
EXPLAINED = (0, 18, 2182, 9729)  # Test images: two that are right, a wrong one, a wrong label.
RANKED = 1_000  # Test images whose reliability is compared with theirs.
COMPARED = 200  # Test images whose similarities are taken apart.
SHOWN = (0, 1, 4, 18)  # Those of them that are drawn.
CONVOLUTION, SIDE = "conv_layers.3", 14

network = mnist_network()
test, training = mnist("test", 10_000), mnist("train", TRAINING)


def predicted(images):
    """The digit that the network sees in each image, and how sure it is."""
    with torch.no_grad():
        confidence, digits = network(torch.from_numpy(images.inputs)).softmax(dim=1).max(dim=1)
    return digits.numpy(), confidence.numpy()


queries, seen_training = test.at(list(EXPLAINED)), predicted(training)[0]
seen, confidence = predicted(queries)
for row, label, digit, sure in zip(EXPLAINED, queries.labels, seen, confidence, strict=True):
    print(f"Test image {row}: label {label}, the network says {digit}, confidence {sure:.3f}")

# %%
# The most similar training images
# --------------------------------
# On the left each test image, then the training images that are most similar to it: above each the
# similarity, the label, and what the network says. They are of the digit that the network sees, be
# it right or wrong, since it is this digit's logit that is compared. So they tell what the network
# takes an image for. Who is right is seen by looking: the image that is labelled 5 is a 6 like its
# neighbours, and the label is wrong; the one with serifs is a 1, whatever its neighbours are.
#
# What differs is how similar they are. The ordinary 7 has close neighbours. The two odd images have
# none, and one of these is the 3 that is right.

neighbors = NetworkNeighbors(network, output="predicted", n_neighbors=6).fit(training.inputs)
NeighborsDisplay.from_estimator(
    neighbors,
    queries.inputs,
    labels=training.labels,
    predictions=seen_training,
    query_labels=queries.labels,
    query_predictions=seen,
)
plt.show()

# %%
# What supports the prediction
# ----------------------------
# `NetworkKernel.influence` says how far the predicted logit of a training image moves when a
# training step moves that of the test image by one. The sum over the training images is what
# `NetworkDensity.reliability` gives; here it is split by their label. The digit that is predicted
# is in orange; below 0 are digits that speak against the prediction.
#
# Behind an ordinary prediction stand the images of its digit, and all others add something. The two
# odd images have little support: fewer of their own digit, and the others are partly against it,
# in the case of the 1 that is seen as a 3 the ones most of all. The prediction that is at odds with
# a wrong label has as much support as an ordinary one.

kernel = NetworkKernel(network, output="predicted")
influence = kernel.influence(queries.inputs, training.inputs)
density = NetworkDensity(network, output="predicted").fit(training.inputs)
reliability = density.reliability(queries.inputs)
others = density.reliability(test.inputs[:RANKED])
figure, grid = plt.subplots(1, 4, figsize=(9, 3), sharey=True, layout="constrained")
for number, axes in enumerate(grid):
    support = [influence[number, training.labels == digit].sum() for digit in range(10)]
    colors = ["#D55E00" if digit == seen[number] else "#0072B2" for digit in range(10)]
    axes.bar(range(10), support, color=colors)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(title=f"label {queries.labels[number]}, says {seen[number]}", xticks=range(10))
    below = (others < reliability[number]).mean()
    print(
        f"Test image {EXPLAINED[number]}: reliability {reliability[number]:.0f}, the sum of"
        f" influences {influence[number].sum():.0f}; {below:.1%} of test images have less"
    )
grid[0].set_ylabel("sum of influences")
figure.supxlabel("label of the training images")
plt.show()

# %%
# Little support is a hint where to look, and no proof: of all test images that were ranked the 3
# has the least, and the network is right about it.

# %%
# Why two images are similar: by layer
# ------------------------------------
# `NetworkKernel.contributions` takes a similarity apart, exactly. Each test image is paired with
# the training image that is most similar to it, and with the most similar one of those in which
# the network sees another digit.
#
# Where the same digit is seen, the last layer adds most. Where another digit is seen, it adds
# nothing, for another logit has other weights there, and most of what is left comes from the first
# convolution: strokes are strokes.

compared = test.at(slice(COMPARED))
similarity = kernel(compared.inputs, training.inputs)
is_other = predicted(compared)[0][:, None] != seen_training
partners = {
    "most similar": similarity.argmax(axis=1),
    "most similar of another digit": np.where(is_other, similarity, -1).argmax(axis=1),
}
parts = {
    name: kernel.contributions(compared.inputs, training.inputs[indices], positions=CONVOLUTION)
    for name, indices in partners.items()
}
for name, found in parts.items():
    print(f"{name}: similarity {found.similarity.mean():.3f}, on the mean")
    for layer, part in found.by_layer().items():
        print(f"    {layer:<16}{part.mean():+.3f}")

# %%
# By place
# --------
# A convolution compares each place of one image with each of the other. Of what all pairs of places
# add, the shares that come from the same place of both, and from places at most one and three
# apart, on a grid of 14 x 14:

down, right = (np.subtract.outer(p, p) for p in np.divmod(np.arange(SIDE**2), SIDE))
apart = np.maximum(abs(down), abs(right))
for name, found in parts.items():
    positions = found.by_position(CONVOLUTION)
    shares = [positions[:, apart <= most].sum() / positions.sum() for most in (0, 1, 3)]
    print(f"{name}: " + ", ".join(f"{share:.0%}" for share in shares))

# %%
# Two images of the same digit are similar for what they have at about the same places; two of
# different digits largely for what they have at places far apart, where a convolution uses the same
# weights.
#
# In the picture blue adds to the similarity and red takes away, each map on a scale of its own: the
# bar of a seven, the foot of a two.


def draw_layers(axes, found, pair):
    """Bars of what each layer adds, one above the other."""
    for name, part in found.by_layer().items():
        axes.barh(name, part[pair], color="#0072B2" if part[pair] > 0 else "#D55E00")
    axes.set(title=f"similarity {found.similarity[pair]:.2f}", xlim=(-0.1, 0.65))
    axes.invert_yaxis()


def draw_places(axes, images, number, places):
    """What each place of an image adds, over the image."""
    size, extent = abs(places).max(), (0, 28, 28, 0)
    axes.imshow(images.images[number], cmap="gray_r", extent=extent)
    axes.imshow(places, cmap="RdBu", vmin=-size, vmax=size, alpha=0.6, extent=extent)
    axes.set_title(str(images.labels[number]))
    axes.axis("off")


figure, grid = plt.subplots(len(SHOWN), 6, figsize=(14, 9), layout="constrained")
for row, pair in zip(grid, SHOWN, strict=True):
    for cells, (name, found) in zip((row[:3], row[3:]), parts.items(), strict=True):
        draw_layers(cells[0], found, pair)
        places = found.by_position(CONVOLUTION)[pair].reshape([SIDE] * 4)
        draw_places(cells[1], compared, pair, places.sum(axis=(2, 3)))
        draw_places(cells[2], training, partners[name][pair], places.sum(axis=(0, 1)))
figure.suptitle("What layers, and places of the second convolution, add to the similarity")
plt.show()
