"""
Why does a network find two images similar?
===========================================

`NetworkKernel.contributions` takes a similarity apart, exactly. Here are 200 test images of MNIST
in the eyes of a network that somebody else trained on it (the logit that it predicts), each with
the training image, of 2,000, that is most similar to it, and with the most similar one of those in
which the network sees another digit.

**By layer.** Of a similarity of .84 the last layer makes .52, the first convolution .14, the other
three layers .18 together. Where another digit is seen, .23, the first convolution adds as much,
.16: strokes are strokes. The last layer adds nothing, for other logits have other weights there.

**By place.** A convolution compares each place of one image with each of the other. In the picture
red places of the second one add to the similarity, blue ones take away, each panel on a scale of
its own: the bar of a seven, the foot of a two. Of what all pairs of places add, 35 % comes from the
same place of both (on 14 x 14) and 77 % from places at most one apart; where another digit is seen,
2 % and 10 %.
"""

from pathlib import Path

import matplotlib
import numpy as np
import torch
from _data import mnist, mnist_network

from sknetsim import NetworkKernel

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SHOWN = (0, 1, 4, 18)  # Test images that are drawn.
CONVOLUTION = "conv_layers.3"
SIDE = 14
PIXELS = (0, 28, 28, 0)


def partners(kernel, test, reference):
    """The training image most similar to each test image, and of those seen as another digit."""
    similarity = kernel(test.inputs, reference.inputs)
    other = seen(test)[:, None] != seen(reference)
    indices = similarity.argmax(axis=1), np.where(other, similarity, -1).argmax(axis=1)
    return dict(zip(("most similar", "most similar of another digit"), indices, strict=True))


def seen(images):
    """The digit that the network sees."""
    with torch.no_grad():
        return mnist_network()(torch.from_numpy(images.inputs)).argmax(dim=1).numpy()


def print_layers(name, parts):
    """Means over pairs of what each layer adds."""
    layers = ", ".join(f"{layer} {part.mean():.3f}" for layer, part in parts.by_layer().items())
    print(f"{name}: similarity {parts.similarity.mean():.3f} = {layers}")


def same_place(positions):
    """The share of what pairs of positions add that comes from the same place, and near it."""
    down, right = (np.subtract.outer(p, p) for p in np.divmod(np.arange(SIDE**2), SIDE))
    distance = np.maximum(abs(down), abs(right))
    total = positions.sum()
    return [float(positions[:, distance <= most].sum() / total) for most in (0, 1, 3)]


def draw_layers(axes, parts):
    """Bars of what each layer adds, one above the other."""
    for name, part in parts.by_layer().items():
        axes.barh(name, part[0], color="#0072B2" if part[0] > 0 else "#D55E00")
    axes.set(title=f"similarity {parts.similarity[0]:.2f}", xlim=(-0.1, 0.65))
    axes.invert_yaxis()


def draw_places(axes, image, places):
    """What each place of an image adds, over the image."""
    size = abs(places).max()
    axes.imshow(image, cmap="gray_r", extent=PIXELS)
    axes.imshow(places, cmap="RdBu_r", vmin=-size, vmax=size, alpha=0.6, extent=PIXELS)
    axes.axis("off")


def draw_pair(row, kernel, pair):
    """The layers of a pair of images, the images, and their places in a convolution."""
    parts = kernel.contributions(*(images.inputs for images in pair), positions=CONVOLUTION)
    draw_layers(row[0], parts)
    positions = parts.by_position(CONVOLUTION)[0]
    for axes, images, axis in zip(row[1:3], pair, (1, 0), strict=True):
        draw_places(axes, images.images[0], positions.sum(axis=axis).reshape(SIDE, SIDE))
        axes.set_title(str(images.labels[0]))


def draw(kernel, test, reference, found):
    """A row per test image: its partners, with what layers and places add."""
    figure, grid = plt.subplots(len(SHOWN), 6, figsize=(14, 9), layout="constrained")
    for row, query in zip(grid, SHOWN, strict=True):
        for cells, indices in zip((row[:3], row[3:]), found.values(), strict=True):
            draw_pair(cells, kernel, (test.at([query]), reference.at([indices[query]])))
    figure.suptitle("What layers, and places of the second convolution, add to the similarity")
    return figure


def main():
    test, reference = mnist("test", 200), mnist("train", 2_000)
    kernel = NetworkKernel(mnist_network(), output="predicted")
    found = partners(kernel, test, reference)
    for name, indices in found.items():
        pairs = test.inputs, reference.inputs[indices]
        parts = kernel.contributions(*pairs, positions=CONVOLUTION)
        print_layers(name, parts)
        shares = same_place(parts.by_position(CONVOLUTION))
        print("    second convolution, at most 0, 1, 3 places apart:", np.round(shares, 2))
    output = Path(__file__).resolve().parent / "output"
    output.mkdir(exist_ok=True)
    draw(kernel, test, reference, found).savefig(output / "reasons.png", dpi=90)
    print(f"\nWritten: {output / 'reasons.png'}")


if __name__ == "__main__":
    main()
