"""Samples in any form as images, or as rows of a table, for the displays and the explorer.

Index legend: n samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .formatting import format_value, is_missing
from .parts import Part, contains_images, find_image_part, list_parts

#: Value of the margins of images of different sizes, between black (0) and white (1).
MARGIN = 0.93


# Modes of images of Pillow with one channel; a palette ("P") contains colours.
_GREY_MODES = ("1", "L", "F", "I", "I;16")


class Table(NamedTuple):
    """Rows of a table as text.

    Parameters
    ----------
    columns : list of str of length n_columns
        Names of the columns.
    cells : ndarray of shape (n, n_columns) of str
        Values of the cells.
    """

    columns: list[str]
    cells: np.ndarray


def is_image_like(X: Any, image_shape: Sequence[int] | None) -> bool:
    """Return whether samples are drawn as images: they contain images, or have a given shape."""
    return image_shape is not None or contains_images(X)


def render_images(X: Any, indices: Sequence[int], image_shape: Sequence[int] | None) -> np.ndarray:
    """Return samples as images with values in [0, 1].

    Parameters
    ----------
    X : object
        All samples, in any form.
    indices : sequence of int of length n
        Positions of the samples in X.
    image_shape : tuple of int or None
        Shape of a sample as an image. None: its own shape.

    Returns
    -------
    images : ndarray of shape (n, height, width) or (n, height, width, 3), float64
        0 is the smallest value of all these samples and 1 the largest. Images of different sizes
        are enlarged to the size of the largest, with light grey margins.
    """
    images = to_images(X, indices, image_shape)
    scale = measure_range(images)
    return fit_images([scale_to_unit(image, *scale) for image in images])


def to_images(
    X: Any, indices: Sequence[int], image_shape: Sequence[int] | None
) -> list[np.ndarray]:
    """Return samples as grey or coloured images, in their own sizes and range of values.

    Parameters
    ----------
    X, indices, image_shape
        See `render_images`.

    Returns
    -------
    images : list of ndarray of shape (height, width) or (height, width, 3), float64
        The images. With one or two channels, the first one is drawn; with four or more channels,
        the first three. A missing image has the shape (0, 0).
    """
    values = _list_pixels(list_parts(X, indices), is_flat=image_shape is not None)
    for index, value in zip(indices, values, strict=True):
        if not np.isfinite(value).all():
            raise ValueError(
                f"Images must be finite; got NaN or infinity in sample {index}. Leave it out, or"
                " impute its pixels in the images that are drawn."
            )
    return [_to_image(value, image_shape) if value.size else value for value in values]


def _list_pixels(parts: Sequence[Part], is_flat: bool) -> list[np.ndarray]:
    """Return the values of the images; without images, those of the first arrays, or of rows.

    If they are flat, they will be reshaped, so that the axes of images of Pillow keep their order.
    """
    place = find_image_part(parts)
    arrays = (part for part in parts if isinstance(next(iter(part.values)), np.ndarray))
    chosen = next(arrays, None) if place is None else parts[place]
    try:
        if chosen is None:
            return [*np.stack([np.asarray(part.values, dtype=float) for part in parts], axis=1)]
        return [_read_pixels(value, is_flat) for value in chosen.values]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Samples must consist of numbers to be drawn as images; got others ({error}). Leave"
            " `image_shape` out, or leave out the samples without an image."
        ) from error


def _read_pixels(value: Any, is_flat: bool) -> np.ndarray:
    """Return an image of Pillow or an array as numbers; a missing image has no pixels."""
    if is_missing(value):
        return np.zeros((0, 0))
    is_coloured = hasattr(value, "getbands") and value.mode not in _GREY_MODES
    pixels = np.asarray(value.convert("RGB") if is_coloured else value, dtype=float)
    # With channels first, their axis cannot be taken for the height of an image with few pixels.
    return np.moveaxis(pixels, -1, 0) if is_coloured and not is_flat else pixels


def _to_image(value: np.ndarray, image_shape: Sequence[int] | None) -> np.ndarray:
    """Return the values of a sample as an image."""
    shape = value.shape if image_shape is None else _check_image_shape(image_shape, value.shape)
    if len(shape) not in (2, 3):
        raise ValueError(
            "Samples must have the shape of an image: (height, width), (channels, height, width) or"
            f" (height, width, channels); got {shape}. Set `image_shape`."
        )
    image = value.reshape(shape)
    return image if len(shape) == 2 else _move_channels(image)


def _check_image_shape(image_shape: Any, sample_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of an image as a tuple; raise if samples do not fit it."""
    shape = tuple(image_shape) if isinstance(image_shape, tuple | list) else (image_shape,)
    is_positive = all(isinstance(size, int | np.integer) and size > 0 for size in shape)
    if not is_positive or len(shape) not in (2, 3) or np.prod(shape) != np.prod(sample_shape):
        raise ValueError(
            "`image_shape` must be (height, width), (channels, height, width) or (height, width,"
            f" channels), with as many values as a sample of shape {sample_shape}; got"
            f" {image_shape}. Set it to the shape of a sample as an image."
        )
    return shape


def _move_channels(image: np.ndarray) -> np.ndarray:
    """Return a coloured image with three channels on the last axis, a grey one without that axis.

    The channels are on the first axis if its length is 1, 3 or 4, or if the length of the last axis
    is not.
    """
    channels = (1, 3, 4)
    if image.shape[0] in channels or image.shape[2] not in channels:
        image = np.moveaxis(image, 0, -1)
    return image[..., 0] if image.shape[-1] < 3 else image[..., :3]


def measure_range(images: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the smallest and the largest value of images; infinity, -infinity without pixels."""
    return (
        min(float(image.min(initial=np.inf)) for image in images),
        max(float(image.max(initial=-np.inf)) for image in images),
    )


def scale_to_unit(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return values scaled so that ``low`` is 0 and ``high`` is 1."""
    return np.asarray((values - low) / (high - low if high > low else 1))


def fit_images(
    images: Sequence[np.ndarray] | np.ndarray,
    size: tuple[int, ...] | None = None,
    margin: float = MARGIN,
) -> np.ndarray:
    """Return images of different sizes in one array.

    Parameters
    ----------
    images : sequence of ndarray of shape (height, width) or (height, width, 3)
        The images.
    size : tuple of int or None, default=None
        Result of `measure_size`. None: that of these images.
    margin : float, default=MARGIN
        Value of the margins, in the range of values of the images.

    Returns
    -------
    fitted : ndarray of shape (n, height, width) or (n, height, width, 3)
        Images enlarged or reduced to the size, without changing their proportions.
    """
    size = measure_size([image.shape for image in images]) if size is None else size
    fitted = np.full((len(images), *size), margin, images[0].dtype)
    for target, image in zip(fitted, images, strict=True):
        if not image.size:
            continue
        scale = min(size[0] / image.shape[0], size[1] / image.shape[1])
        height, width = (max(1, round(scale * length)) for length in image.shape[:2])
        rows = np.arange(height) * image.shape[0] // height
        columns = np.arange(width) * image.shape[1] // width
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        pixels = image[np.ix_(rows, columns)]
        is_grey = image.ndim < len(size)
        target[top : top + height, left : left + width] = pixels[..., None] if is_grey else pixels
    return fitted


def measure_size(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the largest height and width, followed by 3 if one of the images is coloured."""
    height, width = (max(1, *(shape[axis] for shape in shapes)) for axis in (0, 1))
    return (height, width, 3) if any(len(shape) == 3 for shape in shapes) else (height, width)


def has_columns(X: Any) -> bool:
    """Return whether samples that contain images have other parts, too."""
    return len(list_parts(X, [0])) > 1


def name_columns(parts: Sequence[Part], columns: Sequence[str] | None = None) -> list[Part]:
    """Return the columns of a table that shows samples.

    Parameters
    ----------
    parts : sequence of Part
        Parts of the samples.
    columns : list of str or None, default=None
        Names of the columns if they have none. None: their numbers.

    Returns
    -------
    named : list of Part
        The parts without images, each with a name.
    """
    image = find_image_part(parts)
    kept = [part for place, part in enumerate(parts) if place != image]
    if not kept:
        raise ValueError(
            "Samples must have one axis to be rows of a table; got shape"
            f" {np.shape(parts[0].values[0])}. Flatten them, or set `image_shape` to draw them as"
            " images."
        )
    names: Sequence[Any] = [part.name for part in kept]
    if columns is not None and names == [None] * len(columns):
        names = columns
    return [
        Part(str(place if name is None else name), part.values)
        for place, (name, part) in enumerate(zip(names, kept, strict=True))
    ]


def format_columns(columns: Sequence[Part]) -> Table:
    """Return columns with names as a table of texts."""
    cells = np.empty((len(columns[0].values), len(columns)), dtype=object)
    for place, column in enumerate(columns):
        cells[:, place] = [format_value(value) for value in column.values]
    return Table([str(column.name) for column in columns], cells)
