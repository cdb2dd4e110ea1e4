"""What layers, and places of images, add to the similarity of a pair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..estimators.contributions import Contributions
from ..estimators.kernel import NetworkKernel
from ._figures import BLUE, VERMILION, Display
from ._rendering import is_image_like, render_images


class ContributionsDisplay(Display):
    """What the parts of a network add to the similarity of two inputs.

    Layers are drawn as bars. The positions of one layer are drawn as a map of what each pair of
    them adds or, where they have a ``grid``, as two maps of what the places of either input add,
    each summed over the places of the other one. Blue adds to the similarity, red takes away.

    Parameters
    ----------
    contributions : Contributions
        Of one pair or several.
    pair : int, default=0
        Which pair is drawn.
    layer : str or None, default=None
        The layer whose positions are drawn; None: all layers as bars.
    grid : tuple of int or None, default=None
        Rows and columns in which the positions of the layer lie, such as (14, 14); None: they are
        one after the other, as those of a sequence.
    images : ndarray of shape (2, height, width) or (2, height, width, channels), default=None
        The two inputs, in [0, 1], drawn beneath the maps.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn; with ``grid``, an ndarray of shape (1, 2) of these.
    figure_ : matplotlib Figure
        The figure of these axes.

    See Also
    --------
    NetworkKernel.contributions : Takes similarities apart.

    Examples
    --------
    >>> import torch
    >>> from sknetsim import NetworkKernel
    >>> from sknetsim.displays import ContributionsDisplay
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> X = torch.randn(2, 2)
    >>> display = ContributionsDisplay.from_estimator(NetworkKernel(network), X[:1], X[1:])
    >>> sorted(display.contributions.by_layer())
    ['0', '2']
    """

    def __init__(
        self,
        contributions: Contributions,
        *,
        pair: int = 0,
        layer: str | None = None,
        grid: Sequence[int] | None = None,
        images: np.ndarray | None = None,
    ):
        if not isinstance(contributions, Contributions):
            raise TypeError(
                f"contributions is a {type(contributions).__name__}; allowed is what"
                " NetworkKernel.contributions gives: call it with two inputs."
            )
        count = len(contributions.similarity)
        if not -count <= pair < count:
            raise ValueError(
                f"pair is {pair}; allowed are the numbers of the {count} pairs, from 0: draw one of"
                " these."
            )
        if grid is not None:
            _check_grid(contributions, layer, grid)
        self.contributions = contributions
        self.pair = pair
        self.layer = layer
        self.grid = grid
        self.images = images

    @classmethod
    def from_estimator(
        cls,
        estimator: NetworkKernel,
        X: Any,
        Y: Any,
        *,
        pair: int = 0,
        layer: str | None = None,
        grid: Sequence[int] | None = None,
        image_shape: Sequence[int] | None = None,
        ax: Any = None,
    ) -> ContributionsDisplay:
        """Take the similarity of pairs of rows apart, and draw that of one pair.

        Parameters
        ----------
        estimator : NetworkKernel
            The kernel.
        X, Y : array-like of shape (n_pairs, ...)
            The first and the second row of each pair.
        pair : int, default=0
            Which pair is drawn.
        layer : str or None, default=None
            The layer whose positions are drawn; None: all layers as bars.
        grid : tuple of int or None, default=None
            Rows and columns in which the positions of the layer lie; None: one after the other.
        image_shape : tuple of int, default=None
            Shape of a row as an image, (height, width), (channels, height, width) or (height,
            width, channels); None: the one that it has. Images are drawn beneath
            maps of a ``grid``.
        ax : matplotlib Axes, default=None
            Where to draw; None: in a new figure.

        Returns
        -------
        display : ContributionsDisplay
            The display.
        """
        if not isinstance(estimator, NetworkKernel):
            raise TypeError(
                f"estimator is a {type(estimator).__name__}; allowed is a NetworkKernel: put the"
                " network in one."
            )
        found, images = estimator.contributions(X, Y, positions=layer), None
        if grid is not None and is_image_like(X, image_shape):
            images = np.concatenate([render_images(rows, [pair], image_shape) for rows in (X, Y)])
        return cls.from_predictions(found, pair=pair, layer=layer, grid=grid, images=images, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        contributions: Contributions,
        *,
        pair: int = 0,
        layer: str | None = None,
        grid: Sequence[int] | None = None,
        images: np.ndarray | None = None,
        ax: Any = None,
    ) -> ContributionsDisplay:
        """Draw what was taken apart.

        Parameters
        ----------
        contributions : Contributions
            Of one pair or several.
        pair : int, default=0
            Which pair is drawn.
        layer : str or None, default=None
            The layer whose positions are drawn, one of those asked for; None: all layers as bars.
        grid : tuple of int or None, default=None
            Rows and columns in which the positions of the layer lie; None: one after the other.
        images : ndarray of shape (2, height, width) or (2, height, width, channels), default=None
            The two inputs, in [0, 1].
        ax : matplotlib Axes, default=None
            Where to draw; None: in a new figure.

        Returns
        -------
        display : ContributionsDisplay
            The display.
        """
        return cls(contributions, pair=pair, layer=layer, grid=grid, images=images).plot(ax)

    def _size(self) -> tuple[float, float] | None:
        if self.layer is None:
            return 6.4, max(2.4, 0.22 * len(self.contributions.by_layer()) + 1)
        return None if self.grid is None else (6.4, 3.2)

    def _draw(self) -> None:
        if self.layer is None:
            return self._draw_layers()
        parts = self.contributions.by_position(self.layer)[self.pair]
        title = f"{self.layer} adds {parts.sum():.2f}"
        if self.grid is not None:
            return self._draw_places([parts.sum(axis=axis) for axis in (1, 0)], title)
        drawn = self.ax_.imshow(parts, **_colours(parts))
        self.ax_.set_title(title, parse_math=False)
        self.ax_.set(xlabel="Position of the second input", ylabel="Position of the first input")
        self.figure_.colorbar(drawn, ax=self.ax_, label="Adds to the similarity")

    def _draw_layers(self) -> None:
        parts = self.contributions.by_layer()
        values = np.array([part[self.pair] for part in parts.values()])
        names = [name or "(network)" for name in parts]
        places = np.arange(len(names))
        self.ax_.barh(places, values, color=np.where(values < 0, VERMILION, BLUE))
        self.ax_.axvline(0, color="black", linewidth=0.8)
        self.ax_.set_yticks(places, names, parse_math=False)
        self.ax_.invert_yaxis()
        similarity = self.contributions.similarity[self.pair]
        self.ax_.set(xlabel=f"Adds to the similarity of {similarity:.2f}", ylabel="Layer")

    def _draw_places(self, maps: list[np.ndarray], title: str) -> None:
        """What places add, over the images, on one scale."""
        self._divide(1, 2)
        colours = _colours(np.array(maps))
        for side, (axis, values) in enumerate(zip(self.ax_[0], maps, strict=True)):
            places = values.reshape(tuple(self.grid or ()))
            if self.images is None:
                drawn = axis.imshow(places, **colours)
            else:
                height, width = self.images.shape[1:3]
                extent = (0, width, height, 0)
                axis.imshow(self.images[side], cmap="gray_r", alpha=0.5, extent=extent)
                drawn = axis.imshow(places, alpha=0.75, extent=extent, **colours)
            axis.set_title(f"{('first', 'second')[side]} input", fontsize=10)
            axis.set(xticks=[], yticks=[])
        bar = self.figure_.colorbar(drawn, ax=list(self.ax_[0]))
        bar.set_label(title, parse_math=False)


def _colours(values: np.ndarray) -> dict[str, Any]:
    """White where nothing is added, blue where something is."""
    size = float(np.abs(values).max()) or 1.0
    return {"cmap": "RdBu", "vmin": -size, "vmax": size}


def _check_grid(contributions: Contributions, layer: str | None, grid: Sequence[int]) -> None:
    if layer is None:
        raise ValueError(
            f"grid is {tuple(grid)} and layer None; allowed with a grid is the name of a layer: say"
            " whose positions lie in it."
        )
    positions = contributions.by_position(layer).shape[1]
    if len(grid) != 2 or min(grid) < 1 or math.prod(grid) != positions:
        raise ValueError(
            f"grid is {tuple(grid)}; allowed are rows and columns of the {positions} positions of"
            f" layer {layer!r}: give two numbers with that product."
        )
