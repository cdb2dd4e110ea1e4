"""Aerial photographs whose trees people have boxed, and patches of them.

They lie in the distribution ``deepforest``, whose package is not imported.
"""

from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from _data import AERIAL, _file
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

PHOTOGRAPHS = (
    "OSBS_029",
    "SOAP_061",
    "2019_YELL_2_541000_4977000_image_crop",
    "2019_YELL_2_528000_4978000_image_crop2",
)
SIDES = ("xmin", "ymin", "xmax", "ymax")


class Photograph(NamedTuple):
    """A picture and where its trees are."""

    image: np.ndarray  # (height, width, 3), uint8
    boxes: np.ndarray  # (n, 4): left, top, right and bottom, in pixels

    def covered(self):
        """Which pixels lie in a box, (height, width)."""
        mask = np.zeros(self.image.shape[:2], bool)
        for left, top, right, bottom in self.boxes:
            mask[top:bottom, left:right] = True
        return mask


class Patches(NamedTuple):
    """Squares of a photograph."""

    images: np.ndarray  # (n, size, size, 3), uint8
    labels: np.ndarray  # (n,): 1 tree, 0 background
    corners: np.ndarray  # (n, 2): row and column of the upper left pixel


def photograph(name):
    """One of PHOTOGRAPHS."""
    with Image.open(_file(AERIAL, f"deepforest/data/{name}.png")) as file:
        image = np.asarray(file.convert("RGB"))
    tree = ElementTree.parse(_file(AERIAL, f"deepforest/data/{name}.xml"))
    boxes = [[int(box.findtext(side)) for side in SIDES] for box in tree.iter("bndbox")]
    return Photograph(image, np.array(boxes))


def patches(photo, size=32, stride=None, tree=0.5, background=0.0):
    """Patches on a grid, those that are neither tree nor background left out.

    Trees are patches of which at least the share ``tree`` lies in boxes, background those of which
    at most the share ``background`` does. Without ``stride`` patches do not overlap.
    """
    stride = stride or size
    shares = squares(photo.covered(), size, stride).mean(axis=(2, 3))
    rows, columns = np.nonzero((shares >= tree) | (shares <= background))
    windows = squares(photo.image, size, stride)[rows, columns]
    labels = (shares[rows, columns] >= tree).astype(int)
    return Patches(np.moveaxis(windows, 1, -1), labels, stride * np.stack([rows, columns], axis=1))


def squares(values, size, stride):
    """Windows on the grid of the first two axes, (rows, columns, ..., size, size)."""
    return sliding_window_view(values, (size, size), axis=(0, 1))[::stride, ::stride]


def displaced(images, count, generator, size, reach):
    """Patches (count, 2, size, size) with copies moved by up to ``reach`` pixels, and how far.

    A patch and its copy together have mean 0 and standard deviation 1.
    """
    X = np.empty((count, 2, size, size), np.float32)
    moves = generator.integers(-reach, reach + 1, (count, 2))
    for pair, move in zip(X, moves, strict=True):
        image = images[generator.integers(len(images))]
        corner = [generator.integers(reach, side - size - reach) for side in image.shape]
        for patch, (row, column) in zip(pair, (corner, corner + move), strict=True):
            patch[:] = image[row : row + size, column : column + size]
    X -= X.mean(axis=(1, 2, 3), keepdims=True)
    return X / (X.std(axis=(1, 2, 3), keepdims=True) + 1e-6), moves.astype(np.float32)
