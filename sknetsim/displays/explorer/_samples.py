"""Appearance of the samples on the page: small images in sheets, rows of a table, or texts."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.utils import gen_batches

from ..._networks.samples import RawSamples
from .._rendering import is_image_like, render_table, scale_to_unit, to_images

# Largest number of pixels on the longer side of an image.
_LARGEST_SIDE = 96

# Number of images in a sheet, a square grid of images that the page loads as one picture.
_IMAGES_PER_SHEET = 256


def describe_samples(samples: Any, image_shape: Sequence[int] | None, X: Any) -> dict[str, Any]:
    """Return the appearance of the samples as data of the page.

    Parameters
    ----------
    samples : array-like, DataFrame, list of str or None
        Appearance of each sample. None: X itself.
    image_shape : tuple of int or None
        Shape of a sample as an image. None: its own shape.
    X : array-like of shape (n_samples, ...)
        Inputs of the network.

    Returns
    -------
    appearance : dict
        Images as "sheets" (list of data URLs), "side" (images per row of a sheet), "width" and
        "height" (pixels of an image), or a table as "columns" and "cells".
    """
    if samples is None:
        return _describe(X, image_shape, len(RawSamples.of(X)))
    try:
        return _describe(samples, image_shape, len(RawSamples.of(X)))
    except (TypeError, ValueError) as error:
        raise ValueError(
            "`samples` must be images, rows of a table or texts, one for each sample of X; got"
            f" {type(samples).__name__} that cannot be shown: {error}"
        ) from error


def _describe(samples: Any, image_shape: Sequence[int] | None, count: int) -> dict[str, Any]:
    texts = _list_texts(samples)
    length = len(RawSamples.of(samples)) if texts is None else len(texts)
    if length != count:
        raise ValueError(f"It has {length} samples, and X has {count}.")
    if texts is not None:
        return {"columns": ["text"], "cells": [[text] for text in texts]}
    if is_image_like(samples, image_shape):
        return _make_sheets(samples, image_shape, count)
    table = render_table(samples, range(count))
    return {"columns": table.columns, "cells": table.cells.tolist()}


def _list_texts(samples: Any) -> list[str] | None:
    """Return samples that are a list, an array or a column of texts, or None for others."""
    if not isinstance(samples, list | tuple | np.ndarray) and not hasattr(samples, "to_numpy"):
        return None
    if np.ndim(samples) != 1 or not all(isinstance(text, str) for text in samples):
        return None
    return [str(text) for text in samples]


def _make_sheets(samples: Any, image_shape: Sequence[int] | None, count: int) -> dict[str, Any]:
    """Return sheets of images, filled row by row, on one scale from black to white."""
    parts = [range(part.start, part.stop) for part in gen_batches(count, _IMAGES_PER_SHEET)]
    # Two passes, so that only the images of one sheet are in memory at a time.
    ranges = [
        (images.min(), images.max()) for images in _iterate_images(samples, image_shape, parts)
    ]
    low, high = min(pair[0] for pair in ranges), max(pair[1] for pair in ranges)
    sheets, side = [], math.isqrt(_IMAGES_PER_SHEET)
    for images in _iterate_images(samples, image_shape, parts):
        pixels = _shrink(scale_to_unit(images, low, high))
        height, width = pixels.shape[1:3]
        sheet = np.zeros((side * height, side * width, *pixels.shape[3:]), np.uint8)
        for place, image in enumerate(pixels):
            top, left = height * (place // side), width * (place % side)
            sheet[top : top + height, left : left + width] = image
        sheets.append(_encode_png(sheet))
    return {"sheets": sheets, "side": side, "width": width, "height": height}


def _iterate_images(
    samples: Any, image_shape: Sequence[int] | None, parts: list[range]
) -> Iterator[np.ndarray]:
    return (to_images(samples, part, image_shape) for part in parts)


def _shrink(images: np.ndarray) -> np.ndarray:
    """Return images as bytes, scaled down to the largest side if they are larger."""
    pixels = np.round(255 * images).astype(np.uint8)
    height, width = pixels.shape[1:3]
    scale = _LARGEST_SIDE / max(height, width)
    if scale >= 1:
        return pixels
    size = max(1, round(scale * width)), max(1, round(scale * height))
    return np.stack([np.asarray(_make_image(image).resize(size)) for image in pixels])


def _encode_png(sheet: np.ndarray) -> str:
    """Return an image as a data URL."""
    buffer = io.BytesIO()
    _make_image(sheet).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _make_image(pixels: np.ndarray) -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "explore needs Pillow for images, which is not installed. Run `pip install pillow`."
        ) from error
    return Image.fromarray(pixels)
