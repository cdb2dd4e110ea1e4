"""Displacements between patches of aerial photographs, and a network that estimates them."""

from typing import NamedTuple

import numpy as np
from skorch import NeuralNetRegressor
from torch import nn

from lib.training import make_net
from sknetsim.datasets import load_aerial_photographs, make_displaced_patches

#: Side of a patch, and the largest displacement along each axis, in pixels.
SIDE, REACH = 24, 4
#: Standard deviation of the noise of the labels, in pixels.
NOISE = 4.0


class NoisyLabels(NamedTuple):
    """Samples with noisy and with clean labels, (n, q), and a network to train on the noisy ones.

    ``unseen`` is noise of the same kind that the network is not trained on.
    """

    X: np.ndarray
    noisy: np.ndarray
    clean: np.ndarray
    unseen: np.ndarray
    net: NeuralNetRegressor
    held_out: tuple[np.ndarray, np.ndarray]


class RegistrationNetwork(nn.Module):
    """Two convolutional and two linear layers that map a pair of patches to its displacement."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 24, 7, stride=2, padding=3),
            nn.ReLU(),
            nn.Conv2d(24, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * (SIDE // 4) ** 2, 64),
            nn.ReLU(),
            nn.Linear(64, 2),
        )

    def forward(self, pairs):
        """Return displacements (n, 2) of pairs (n, 2, side, side)."""
        return self.layers(pairs)


def make_registration_task(seed, quick):
    """Make pairs of patches whose displacements are labelled with large noise."""
    images = [photo.image.mean(axis=2) / 255 for photo in load_aerial_photographs().values()]
    generator = np.random.default_rng(seed)
    count = 2_000 if quick else 8_000
    X, clean = make_displaced_patches(images, count, generator, SIDE, REACH)
    noise, unseen = generator.normal(scale=NOISE, size=(2, *clean.shape))
    net = make_net(NeuralNetRegressor, RegistrationNetwork, epochs=15, rate=1e-3, batch_size=64)
    held_out = make_displaced_patches(images, 1_000, generator, SIDE, REACH)
    return NoisyLabels(X, (clean + noise).astype(np.float32), clean, unseen, net, held_out)
