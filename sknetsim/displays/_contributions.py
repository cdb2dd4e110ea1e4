"""Display of the contributions of layers, or of image positions, to the similarity of a pair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..estimators.contributions import Contributions
from ..estimators.kernel import NetworkKernel
from ._appearance.rendering import fit_images, is_image_like, render_images
from ._figures import BLUE, VERMILION, Display


class ContributionsDisplay(Display):
    """Contributions of the parts of a network to the similarity of two samples.

    Layers are drawn as bars. The positions of one layer are drawn as a matrix with the contribution
    of each pair of positions or, with ``grid``, as two maps: the contribution of each position of
    one sample, summed over the positions of the other. Positive contributions are blue, negative
    ones red. The contributions of all layers sum to the similarity.

    Parameters
    ----------
    contributions : Contributions
        Contributions to the similarities of one or more pairs.
    pair : int, default=0
        Number of the pair that is drawn; negative numbers count from the last pair.
    layer : str or None, default=None
        Layer whose positions are drawn. None: all layers as bars.
    grid : tuple of int or None, default=None
        Rows and columns of the layer's positions, such as (14, 14). None: a sequence.
    images : ndarray of shape (2, height, width) or (2, height, width, channels), default=None
        The two samples with values in [0, 1], drawn beneath the maps.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the plot; with ``grid``, an ndarray of Axes of shape (1, 2).
    figure_ : matplotlib Figure
        Figure of these axes.

    See Also
    --------
    NetworkKernel.contributions : Method that computes the contributions.

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
                "`contributions` must be a Contributions object; got"
                f" {type(contributions).__name__}. Pass the result of NetworkKernel.contributions."
            )
        count = len(contributions.similarity)
        if not -count <= pair < count:
            raise ValueError(
                f"`pair` must be an integer between {-count} and {count - 1} ({count} pairs); got"
                f" {pair}. Pass the number of a pair."
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
        y_X: Any = None,
        y_Y: Any = None,
        pair: int = 0,
        layer: str | None = None,
        grid: Sequence[int] | None = None,
        image_shape: Sequence[int] | None = None,
        ax: Any = None,
    ) -> ContributionsDisplay:
        """Compute the contributions to the similarities of pairs, and draw those of one pair.

        Parameters
        ----------
        estimator : NetworkKernel
            The kernel.
        X, Y : array-like of shape (n_pairs, ...)
            The first and the second sample of each pair.
        y_X, y_Y : array-like of shape (n_pairs,) or (n_pairs, n_outputs), default=None
            Labels at which the losses are compared, only with ``output="loss"``. None: the
            predicted ones.
        pair : int, default=0
            Number of the pair that is drawn.
        layer : str or None, default=None
            Layer whose positions are drawn. None: all layers as bars.
        grid : tuple of int or None, default=None
            Rows and columns of the layer's positions. None: a sequence.
        image_shape : tuple of int, default=None
            Shape of a sample as an image, (height, width), (channels, height, width) or (height,
            width, channels). None: its own shape. Images are drawn beneath the maps of a ``grid``.
        ax : matplotlib Axes, default=None
            Axes to draw in, replaced by two with ``grid``. None: a new figure.

        Returns
        -------
        display : ContributionsDisplay
            The display.

        Raises
        ------
        TypeError
            If ``estimator`` is not a NetworkKernel.
        ValueError
            If there is no such pair or layer, or if the layer's positions do not form the grid.
        """
        if not isinstance(estimator, NetworkKernel):
            raise TypeError(
                f"`estimator` must be a NetworkKernel; got {type(estimator).__name__}. Pass"
                " NetworkKernel(network)."
            )
        contributions, images = (
            estimator.contributions(X, Y, positions=layer, y_X=y_X, y_Y=y_Y),
            None,
        )
        if grid is not None and is_image_like(X, image_shape):
            sides = [render_images(side, [pair], image_shape)[0] for side in (X, Y)]
            images = fit_images(sides)
        return cls.from_predictions(
            contributions, pair=pair, layer=layer, grid=grid, images=images, ax=ax
        )

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
        """Draw computed contributions.

        Parameters
        ----------
        contributions : Contributions
            Contributions to the similarities of one or more pairs.
        pair : int, default=0
            Number of the pair that is drawn.
        layer : str or None, default=None
            Layer whose positions are drawn, one of the ``positions`` of
            `NetworkKernel.contributions`. None: all layers as bars.
        grid : tuple of int or None, default=None
            Rows and columns of the layer's positions. None: a sequence.
        images : ndarray of shape (2, height, width) or (2, height, width, channels), default=None
            The two samples with values in [0, 1].
        ax : matplotlib Axes, default=None
            Axes to draw in, replaced by two with ``grid``. None: a new figure.

        Returns
        -------
        display : ContributionsDisplay
            The display.
        """
        return cls(contributions, pair=pair, layer=layer, grid=grid, images=images).plot(ax)

    def _figure_size(self) -> tuple[float, float] | None:
        if self.layer is None:
            return 6.4, max(2.4, 0.22 * len(self.contributions.by_layer()) + 1)
        return None if self.grid is None else (6.4, 3.2)

    def _draw(self) -> None:
        if self.layer is None:
            return self._draw_layers()
        parts = self.contributions.by_position(self.layer)[self.pair]
        title = f"Contribution of {self.layer}: {parts.sum():.2f}"
        if self.grid is not None:
            # parts[t, s] belongs to position t of the first sample and position s of the second.
            return self._draw_maps([parts.sum(axis=axis) for axis in (1, 0)], title)
        image = self.ax_.imshow(parts, **_make_colour_scale(parts))
        self.ax_.set_title(title, parse_math=False)
        self.ax_.set(xlabel="Position of the second sample", ylabel="Position of the first sample")
        self.figure_.colorbar(image, ax=self.ax_, label="Contribution to the similarity")

    def _draw_layers(self) -> None:
        parts = self.contributions.by_layer()
        values = np.array([part[self.pair] for part in parts.values()])
        names = [name or "(network)" for name in parts]
        heights = np.arange(len(names))
        self.ax_.barh(heights, values, color=np.where(values < 0, VERMILION, BLUE))
        self.ax_.axvline(0, color="black", linewidth=0.8)
        self.ax_.set_yticks(heights, names, parse_math=False)
        self.ax_.invert_yaxis()
        similarity = self.contributions.similarity[self.pair]
        self.ax_.set(xlabel=f"Contribution to the similarity of {similarity:.2f}", ylabel="Layer")

    def _draw_maps(self, maps: list[np.ndarray], title: str) -> None:
        """Draw the contributions of positions over the images, on one colour scale."""
        self._divide(1, 2)
        colours = _make_colour_scale(np.array(maps))
        for side, (axis, values) in enumerate(zip(self.ax_[0], maps, strict=True)):
            positions = values.reshape(tuple(self.grid or ()))
            if self.images is None:
                image = axis.imshow(positions, **colours)
            else:
                height, width = self.images.shape[1:3]
                extent = (0, width, height, 0)
                axis.imshow(self.images[side], cmap="gray_r", alpha=0.5, extent=extent)
                image = axis.imshow(positions, alpha=0.75, extent=extent, **colours)
            axis.set_title(f"{('First', 'Second')[side]} sample", fontsize=10)
            axis.set(xticks=[], yticks=[])
        bar = self.figure_.colorbar(image, ax=list(self.ax_[0]))
        bar.set_label(title, parse_math=False)


def _make_colour_scale(values: np.ndarray) -> dict[str, Any]:
    """Return a colour scale that is white at 0, blue for positive and red for negative values."""
    size = float(np.abs(values).max()) or 1.0
    return {"cmap": "RdBu", "vmin": -size, "vmax": size}


def _check_grid(contributions: Contributions, layer: str | None, grid: Sequence[int]) -> None:
    if layer is None:
        raise ValueError(
            "`layer` must be the name of a layer if `grid` is set; got None with grid="
            f"{tuple(grid)}. Set it to the layer whose positions form the grid."
        )
    positions = contributions.by_position(layer).shape[1]
    if len(grid) != 2 or min(grid) < 1 or math.prod(grid) != positions:
        raise ValueError(
            f"`grid` must be the rows and columns of the {positions} positions of layer {layer!r};"
            f" got {tuple(grid)}. Pass two integers whose product is {positions}."
        )
