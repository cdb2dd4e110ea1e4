"""What displays have in common: axes to draw in."""

from __future__ import annotations

import abc
from typing import Any, Self

import numpy as np

#: Colours that the colour-blind tell apart, from the palette of Okabe and Ito.
BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#999999"

COLOURS = (BLUE, "#E69F00", "#009E73", "#CC79A7", "#56B4E9", VERMILION, "#000000", GREY)


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
        elif not hasattr(ax, "get_subplotspec"):
            raise TypeError(
                f"ax is a {type(ax).__name__}; allowed is one matplotlib Axes: hand over one of a"
                " figure's."
            )
        self.ax_, self.figure_ = ax, ax.figure
        self._draw()
        return self

    def _size(self) -> tuple[float, float] | None:
        """Inches of a new figure; None: matplotlib's own."""
        return None

    @abc.abstractmethod
    def _draw(self) -> None:
        """Draw in ``ax_``."""

    def _divide(self, rows: int, columns: int, **layout: Any) -> None:
        """Put a grid of axes in place of ``ax_``."""
        place = self.ax_.get_subplotspec()
        if place is None:
            raise ValueError(
                "ax has a place of its own in its figure; allowed for displays of several axes are"
                " those of a grid: make them with plt.subplots, or leave ax out."
            )
        self.ax_.set_axis_off()
        grid = place.subgridspec(rows, columns, **layout)
        self.ax_ = np.reshape(grid.subplots(), (rows, columns))


def draw_image(axis: Any, image: np.ndarray, words: str) -> None:
    """An image in [0, 1], with words above it."""
    axis.imshow(image, cmap="gray", vmin=0, vmax=1)
    axis.set_title(words, fontsize=8, parse_math=False)
    axis.set(xticks=[], yticks=[])


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "displays draw with matplotlib, which is not installed: pip install matplotlib."
        ) from error
    return pyplot
