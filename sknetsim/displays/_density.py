"""Densities as a picture: along a coordinate, or over a plane."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..estimators._outliers import DensityOutlierMixin
from ._figures import BLUE, Display


class DensityDisplay(Display):
    """The log density of samples, along a coordinate of theirs or over a plane that they lie in.

    Parameters
    ----------
    coordinates : array-like of shape (n_samples,) or (n_samples, 2)
        Where each sample is drawn: a coordinate, or two, such as those of an embedding.
    log_density : array-like of shape (n_samples,)
        Log densities, in nats.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn.
    figure_ : matplotlib Figure
        The figure of these axes.

    See Also
    --------
    NetworkDensity : Gives the densities.

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
                f"log_density has shape {self.log_density.shape}; allowed is a number for each"
                " sample, (n_samples,): as score_samples gives them."
            )
        count = len(self.log_density)
        if self.coordinates.shape not in ((count,), (count, 2)):
            raise ValueError(
                f"coordinates has shape {self.coordinates.shape}; allowed are one or two for each"
                f" of the {count} samples, ({count},) or ({count}, 2): choose a column of X, or"
                " hand over an embedding."
            )

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, *, coordinates: Any = None, ax: Any = None
    ) -> DensityDisplay:
        """Compute the densities of the rows of X, and draw them.

        Parameters
        ----------
        estimator : NetworkDensity
            A fitted one.
        X : array-like of shape (n_samples, ...)
            The rows.
        coordinates : array-like of shape (n_samples,) or (n_samples, 2), default=None
            Where each row is drawn; None: at its own numbers, where a row has one or two.
        ax : matplotlib Axes, default=None
            Where to draw; None: in a new figure.

        Returns
        -------
        display : DensityDisplay
            The display.
        """
        if not isinstance(estimator, DensityOutlierMixin):
            raise TypeError(
                f"estimator is a {type(estimator).__name__}; allowed is a fitted NetworkDensity:"
                " put the network in one."
            )
        scores = estimator.score_samples(X)
        if coordinates is None:
            coordinates = np.asarray(X)
            coordinates = coordinates.squeeze(1) if coordinates.shape[1:] == (1,) else coordinates
        return cls.from_predictions(coordinates, scores, ax=ax)

    @classmethod
    def from_predictions(
        cls, coordinates: Any, log_density: Any, *, ax: Any = None
    ) -> DensityDisplay:
        """Draw densities.

        Parameters
        ----------
        coordinates : array-like of shape (n_samples,) or (n_samples, 2)
            Where each sample is drawn.
        log_density : array-like of shape (n_samples,)
            Log densities, in nats.
        ax : matplotlib Axes, default=None
            Where to draw; None: in a new figure.

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
        # The least dense on top: they are what is looked for.
        order = np.argsort(-self.log_density, kind="stable")
        points = self.ax_.scatter(
            *self.coordinates[order].T, c=self.log_density[order], s=12, cmap="viridis"
        )
        self.figure_.colorbar(points, ax=self.ax_, label="Log density (nats)")
        self.ax_.set(xlabel="First coordinate", ylabel="Second coordinate")
