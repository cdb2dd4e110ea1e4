"""Appearance of the samples on the page: small images in sheets, rows of a table, or texts."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.utils import gen_batches

from .._appearance.formatting import abbreviate, format_value
from .._appearance.parts import Part, list_parts, open_samples
from .._appearance.rendering import (
    MARGIN,
    Table,
    fit_images,
    format_columns,
    has_columns,
    is_image_like,
    measure_range,
    measure_size,
    name_columns,
    scale_to_unit,
    to_images,
)
from .._appearance.tables import concatenate_tables

# Largest number of pixels on the longer side of an image.
_LARGEST_SIDE = 96

# Number of images in a sheet, a square grid of images that the page loads as one picture.
_IMAGES_PER_SHEET = 256

# Largest number of columns of a table, and of characters in a cell.
_MOST_COLUMNS, _MOST_CHARACTERS = 24, 2000

# Number of characters from which the cells of a column are texts, which the page wraps.
_TEXT_CHARACTERS = 40


def describe_samples(samples: Any, image_shape: Sequence[int] | None, X: Any) -> dict[str, Any]:
    """Return the appearance of the samples as data of the page.

    Parameters
    ----------
    samples : object
        Appearance of each sample, in any form that X may have. None: X itself.
    image_shape : tuple of int or None
        Shape of a sample as an image. None: its own shape.
    X : object
        Inputs of the network, or of the steps before it.

    Returns
    -------
    appearance : dict
        Images as "sheets" (list of data URLs), "side" (images per row of a sheet), "width" and
        "height" (pixels of an image), a table as "columns", "cells" and "wraps" (whether the cells
        of a column are texts), or both for samples that contain images and other values.
    """
    if samples is None:
        return _describe(X, image_shape, len(open_samples(X)))
    try:
        return _describe(samples, image_shape, len(open_samples(X)))
    except (TypeError, ValueError) as error:
        raise ValueError(
            "`samples` must be images, rows of a table or texts, one for each sample of X; got"
            f" {type(samples).__name__} that cannot be shown: {error}"
        ) from error


def _describe(samples: Any, image_shape: Sequence[int] | None, count: int) -> dict[str, Any]:
    length = len(open_samples(samples))
    if length != count:
        raise ValueError(f"It has {length} samples, and X has {count}.")
    if not is_image_like(samples, image_shape):
        return _make_table(samples, [range(count)])
    batches = [range(part.start, part.stop) for part in gen_batches(count, _IMAGES_PER_SHEET)]
    sheets = _make_sheets(samples, image_shape, batches)
    is_complete = image_shape is not None or not has_columns(samples)
    return sheets if is_complete else sheets | _make_table(samples, batches)


def _make_table(samples: Any, batches: Sequence[range]) -> dict[str, Any]:
    """Return the cells of a table, with the user's own index if it differs from the positions.

    The images of one batch of samples are in memory at a time.
    """
    columns, cells = concatenate_tables([_format_batch(samples, batch) for batch in batches])
    rows = [[_cut_text(cell) for cell in row] for row in cells]
    count = len(rows)
    index: Any = samples.index if hasattr(samples, "iloc") else range(count)
    if list(index) != list(range(count)):
        columns = ["index" if index.name is None else str(index.name), *columns]
        rows = [[format_value(value), *row] for value, row in zip(index, rows, strict=True)]
    wraps = [
        name == "text" or max(len(row[place]) for row in rows) > _TEXT_CHARACTERS
        for place, name in enumerate(columns)
    ]
    return {"columns": columns, "cells": rows, "wraps": wraps}


def _format_batch(samples: Any, batch: range) -> Table:
    """Return the cells of a batch of samples, with a gap in place of many columns."""
    parts = name_columns(list_parts(samples, batch))
    gap = Part(f"… {len(parts) - _MOST_COLUMNS + 1} more columns", ["…"] * len(batch))
    return format_columns(abbreviate(parts, _MOST_COLUMNS, gap))


def _cut_text(text: str) -> str:
    """Return a text, or the beginning of a long one."""
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 2]} …"


def _make_sheets(
    samples: Any, image_shape: Sequence[int] | None, batches: Sequence[range]
) -> dict[str, Any]:
    """Return sheets of images, filled row by row, on one scale from black to white."""
    # Two passes, so that only the images of one sheet are in memory at a time.
    ranges, sizes = [], []
    for images in _iterate_images(samples, image_shape, batches):
        ranges.append(measure_range(images))
        sizes.append(measure_size([_shrink_shape(image.shape) for image in images]))
    low, high = min(pair[0] for pair in ranges), max(pair[1] for pair in ranges)
    height, width, *channels = size = measure_size(sizes)
    sheets, side = [], math.isqrt(_IMAGES_PER_SHEET)
    for images in _iterate_images(samples, image_shape, batches):
        pixels = [_shrink(scale_to_unit(image, low, high)) for image in images]
        sheet = np.zeros((side * height, side * width, *channels), np.uint8)
        for place, image in enumerate(fit_images(pixels, size, round(255 * MARGIN))):
            top, left = height * (place // side), width * (place % side)
            sheet[top : top + height, left : left + width] = image
        sheets.append(_encode_png(sheet))
    return {"sheets": sheets, "side": side, "width": width, "height": height}


def _iterate_images(
    samples: Any, image_shape: Sequence[int] | None, batches: Sequence[range]
) -> Iterator[list[np.ndarray]]:
    return (to_images(samples, batch, image_shape) for batch in batches)


def _shrink_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of an image, reduced if it is larger than the largest side."""
    height, width, *channels = shape
    scale = _LARGEST_SIDE / max(height, width, _LARGEST_SIDE)
    return (*(max(1, round(scale * length)) for length in (height, width)), *channels)


def _shrink(image: np.ndarray) -> np.ndarray:
    """Return an image as bytes, scaled down if it is larger than the largest side."""
    pixels = np.round(255 * image).astype(np.uint8)
    height, width = _shrink_shape(image.shape)[:2]
    if not image.size or (height, width) == image.shape[:2]:
        return pixels
    return np.asarray(_make_image(pixels).resize((width, height)))


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
