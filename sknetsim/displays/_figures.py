"""Base of the displays: axes, sizes of figures and colours."""

from __future__ import annotations

import abc
from typing import Any, Self

import numpy as np

#: Colours that colour-blind readers can tell apart, from the palette of Okabe and Ito.
BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#999999"

COLOURS = (BLUE, "#E69F00", "#009E73", "#CC79A7", "#56B4E9", VERMILION, "#000000", GREY)


# Width of the frame of a marked image.
_FRAME_POINTS = 2.5


class Display(abc.ABC):
    """Base class of the displays, which draw into given axes or into a new figure."""

    ax_: Any
    figure_: Any

    def plot(self, ax: Any = None) -> Self:
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw in, or to replace by a grid if the display has several axes. None: a new
            figure.

        Returns
        -------
        self : object
            The display, with ``ax_`` and ``figure_``.

        Raises
        ------
        TypeError
            If ``ax`` is not one matplotlib Axes.
        """
        if ax is None:
            _, ax = _import_pyplot().subplots(layout="constrained", figsize=self._figure_size())
        elif not hasattr(ax, "get_subplotspec"):
            raise TypeError(
                f"`ax` must be one matplotlib Axes; got {type(ax).__name__}. Pass one of a figure's"
                " axes."
            )
        self.ax_, self.figure_ = ax, ax.figure
        self._draw()
        return self

    def _figure_size(self) -> tuple[float, float] | None:
        """Return width and height of a new figure in inches, or None for matplotlib's default."""
        return None

    @abc.abstractmethod
    def _draw(self) -> None:
        """Draw into ``ax_``."""

    def _divide(self, rows: int, columns: int, **layout: Any) -> None:
        """Replace ``ax_`` by a grid of axes."""
        subplot = self.ax_.get_subplotspec()
        if subplot is None:
            raise ValueError(
                "`ax` must be part of a grid, because this display has several axes; got one with a"
                " position of its own. Use plt.subplots to create it, or leave `ax` out."
            )
        self.ax_.set_axis_off()
        grid = subplot.subgridspec(rows, columns, **layout)
        self.ax_ = np.reshape(grid.subplots(), (rows, columns))


def draw_image(axis: Any, image: np.ndarray, caption: str, frame: str | None = None) -> None:
    """Draw an image with values in [0, 1] below a caption, in a thick frame of a given colour."""
    axis.imshow(image, cmap="gray", vmin=0, vmax=1)
    axis.set_title(caption, fontsize=8, parse_math=False)
    axis.set(xticks=[], yticks=[])
    if frame is not None:
        for spine in axis.spines.values():
            spine.set(edgecolor=frame, linewidth=_FRAME_POINTS)


def _import_pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "Displays need matplotlib, which is not installed. Run `pip install matplotlib`."
        ) from error
    return pyplot
