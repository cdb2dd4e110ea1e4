"""What displays have in common: axes to draw in, and rows as pictures."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from .._inputs import Rows, tensors


class Display(abc.ABC):
    """What can be drawn: in axes that are given, or in those of a new figure."""

    ax_: Any
    figure_: Any

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None: in a new figure.

        Returns
        -------
        self : object
            The display.
        """
        if ax is None:
            _, ax = _pyplot().subplots(layout="constrained", figsize=self._size())
        self.ax_, self.figure_ = ax, ax.figure
        self._draw()
        return self

    def _size(self) -> tuple[float, float] | None:
        """Inches of a new figure; None: matplotlib's own."""
        return None

    @abc.abstractmethod
    def _draw(self) -> None:
        """Draw in ``ax_``."""


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "displays draw with matplotlib, which is not installed: pip install matplotlib."
        ) from error
    return pyplot


def pictures(X: Any, indices: Sequence[int], image_shape: Sequence[int] | None) -> np.ndarray:
    """Rows as images (n, height, width) or (n, height, width, channels), in [0, 1]."""
    rows = tensors(Rows(X).at([int(index) for index in indices]))[0].double().numpy()
    shape = tuple(rows.shape[1:] if image_shape is None else image_shape)
    if len(shape) not in (2, 3):
        raise ValueError(
            f"image_shape is {image_shape} and X has rows of shape {tuple(rows.shape[1:])}; allowed"
            " are (height, width) and (channels, height, width): say which shape a row has."
        )
    images = rows.reshape(len(rows), *shape)
    if len(shape) == 3:
        images = np.moveaxis(images, 1, -1)
        images = images[..., 0] if images.shape[-1] == 1 else images
    low, high = images.min(), images.max()
    return (images - low) / (high - low if high > low else 1)
