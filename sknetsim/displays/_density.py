"""Display of densities along a coordinate or over a plane."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..estimators.density import NetworkDensity
from ._appearance.parts import list_parts, open_samples
from ._figures import BLUE, Display


class DensityDisplay(Display):
    """Log density of samples, along one coordinate or over the plane of two coordinates.

    Parameters
    ----------
    coordinates : array-like of shape (n_samples,) or (n_samples, 2)
        Position of each sample: one coordinate, or two such as those of an embedding.
    log_density : array-like of shape (n_samples,)
        Log densities in nats, see `NetworkDensity.score_samples`.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the plot.
    figure_ : matplotlib Figure
        Figure of these axes.

    See Also
    --------
    NetworkDensity : Estimator of the densities.

    Examples
    --------
    >>> import torch
    >>> from sknetsim import NetworkDensity
    >>> from sknetsim.displays import DensityDisplay
    >>> network = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    >>> X = torch.linspace(-1, 1, 20)[:, None]
    >>> display = DensityDisplay.from_estimator(NetworkDensity(network).fit(X), X)
    >>> display.log_density.shape
    (20,)
    """

    def __init__(self, coordinates: Any, log_density: Any):
        self.log_density = np.asarray(log_density, dtype=float)
        self.coordinates = np.asarray(coordinates, dtype=float)
        if self.log_density.ndim != 1:
            raise ValueError(
                "`log_density` must have shape (n_samples,), one number per sample; got shape"
                f" {self.log_density.shape}. Pass the result of score_samples."
            )
        count = len(self.log_density)
        if self.coordinates.shape not in ((count,), (count, 2)):
            raise ValueError(
                f"`coordinates` must have shape ({count},) or ({count}, 2), one or two numbers per"
                f" sample; got shape {self.coordinates.shape}. Pass a column of X, or an embedding"
                " in two dimensions."
            )
        is_finite = np.isfinite(self.coordinates).reshape(count, -1).all(axis=1)
        if not is_finite.all():
            raise ValueError(
                "`coordinates` must be finite; got NaN or infinity, first for sample"
                f" {np.argmin(is_finite)}. Leave out these samples, or pass other coordinates."
            )

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, *, y: Any = None, coordinates: Any = None, ax: Any = None
    ) -> DensityDisplay:
        """Compute the densities of the samples of X, and draw them.

        Parameters
        ----------
        estimator : NetworkDensity
            A fitted estimator.
        X : array-like of shape (n_samples, ...)
            The samples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels at which the losses are compared, only with ``output="loss"``. None: the
            predicted ones.
        coordinates : array-like of shape (n_samples,) or (n_samples, 2), default=None
            Position of each sample. None: the values of the sample, if it has one or two.
        ax : matplotlib Axes, default=None
            Axes to draw in. None: a new figure.

        Returns
        -------
        display : DensityDisplay
            The display.

        Raises
        ------
        TypeError
            If ``estimator`` is not a NetworkDensity.
        ValueError
            If ``coordinates`` do not have one or two numbers per sample.
        """
        if not isinstance(estimator, NetworkDensity):
            raise TypeError(
                "`estimator` must be a fitted NetworkDensity; got"
                f" {type(estimator).__name__}. Fit NetworkDensity(network)."
            )
        scores = estimator.score_samples(X, y)
        coordinates = _list_numbers(X) if coordinates is None else coordinates
        return cls.from_predictions(coordinates, scores, ax=ax)

    @classmethod
    def from_predictions(
        cls, coordinates: Any, log_density: Any, *, ax: Any = None
    ) -> DensityDisplay:
        """Draw computed densities.

        Parameters
        ----------
        coordinates : array-like of shape (n_samples,) or (n_samples, 2)
            Position of each sample.
        log_density : array-like of shape (n_samples,)
            Log densities in nats.
        ax : matplotlib Axes, default=None
            Axes to draw in. None: a new figure.

        Returns
        -------
        display : DensityDisplay
            The display.
        """
        return cls(coordinates, log_density).plot(ax)

    def _draw(self) -> None:
        if self.coordinates.ndim == 1:
            self.ax_.plot(self.coordinates, self.log_density, ".", color=BLUE, alpha=0.6)
            self.ax_.set(xlabel="Coordinate", ylabel="Log density (nats)")
            return
        # Samples of low density are drawn last, on top of the others, so that they are visible.
        order = np.argsort(-self.log_density, kind="stable")
        points = self.ax_.scatter(
            *self.coordinates[order].T, c=self.log_density[order], s=12, cmap="viridis"
        )
        self.figure_.colorbar(points, ax=self.ax_, label="Log density (nats)")
        self.ax_.set(xlabel="First coordinate", ylabel="Second coordinate")


def _list_numbers(X: Any) -> np.ndarray:
    """Return the numbers of each sample; raise if samples contain other values."""
    parts = list_parts(X, range(len(open_samples(X))))
    try:
        columns = [np.asarray(part.values, dtype=float) for part in parts]
    except (TypeError, ValueError) as error:
        raise ValueError(
            "`coordinates` must be one or two numbers per sample if samples do not consist of"
            f" numbers ({error}); got None. Pass a column of numbers, or an embedding in two"
            " dimensions."
        ) from error
    return columns[0] if len(columns) == 1 else np.stack(columns, axis=1)
