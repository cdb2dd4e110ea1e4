"""What a person sees of samples: small images in sheets, or rows of a table."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.utils import gen_batches

from ..._networks.inputs import Rows
from .._rendering import is_image_like, render_table, scale_to_unit, to_images

# Pixels of an image's longer side, and images in a sheet, which is a square of them.
_LARGEST, _SHEET = 96, 256


def describe_samples(samples: Any, image_shape: Sequence[int] | None, X: Any) -> dict[str, Any]:
    """Sheets of images, or columns and cells, as the page takes them."""
    if samples is None:
        return _describe(X, image_shape, len(Rows(X)))
    try:
        return _describe(samples, image_shape, len(Rows(X)))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"samples is a {type(samples).__name__} that cannot be shown: {error} Allowed are"
            " images, rows of a table, and texts, one for each row of X."
        ) from error


def _describe(samples: Any, image_shape: Sequence[int] | None, count: int) -> dict[str, Any]:
    texts = _texts(samples)
    given = len(Rows(samples)) if texts is None else len(texts)
    if given != count:
        raise ValueError(f"it has {given} rows and X {count}.")
    if texts is not None:
        return {"columns": ["text"], "cells": [[word] for word in texts]}
    if is_image_like(samples, image_shape):
        return _sheets(samples, image_shape, count)
    found = render_table(samples, range(count))
    return {"columns": found.columns, "cells": found.cells.tolist()}


def _texts(samples: Any) -> list[str] | None:
    """Samples that are texts, in a list, an array or a column."""
    if not isinstance(samples, list | tuple | np.ndarray) and not hasattr(samples, "to_numpy"):
        return None
    if np.ndim(samples) != 1 or not all(isinstance(word, str) for word in samples):
        return None
    return [str(word) for word in samples]


def _sheets(samples: Any, image_shape: Sequence[int] | None, count: int) -> dict[str, Any]:
    """Pictures of many images side by side, row by row."""
    pieces = [range(piece.start, piece.stop) for piece in gen_batches(count, _SHEET)]
    read = [(found.min(), found.max()) for found in _read(samples, image_shape, pieces)]
    low, high = min(pair[0] for pair in read), max(pair[1] for pair in read)
    sheets, side = [], math.isqrt(_SHEET)
    for found in _read(samples, image_shape, pieces):
        small = _small(scale_to_unit(found, low, high))
        height, width = small.shape[1:3]
        sheet = np.zeros((side * height, side * width, *small.shape[3:]), np.uint8)
        for place, image in enumerate(small):
            top, left = height * (place // side), width * (place % side)
            sheet[top : top + height, left : left + width] = image
        sheets.append(_encoded(sheet))
    return {"sheets": sheets, "side": side, "width": width, "height": height}


def _read(
    samples: Any, image_shape: Sequence[int] | None, pieces: list[range]
) -> Iterator[np.ndarray]:
    return (to_images(samples, piece, image_shape) for piece in pieces)


def _small(found: np.ndarray) -> np.ndarray:
    """Of bytes, no side longer than is shown."""
    pixels = np.round(255 * found).astype(np.uint8)
    height, width = pixels.shape[1:3]
    scale = _LARGEST / max(height, width)
    if scale >= 1:
        return pixels
    size = max(1, round(scale * width)), max(1, round(scale * height))
    return np.stack([np.asarray(_image(one).resize(size)) for one in pixels])


def _encoded(sheet: np.ndarray) -> str:
    """A picture as an address that holds it."""
    buffer = io.BytesIO()
    _image(sheet).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _image(pixels: np.ndarray) -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "explore makes pictures with Pillow, which is not installed: pip install pillow."
        ) from error
    return Image.fromarray(pixels)
