"""Noisy labels, what a network predicts, and labels smoothed over what it finds similar."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..labels.denoising import Denoising, LabelDenoiser
from ._figures import BLUE, GREY, VERMILION, Display


class DenoisingDisplay(Display):
    """Labels, predictions and smoothed labels of samples, above the share of noise that is left.

    Parameters
    ----------
    labels : array-like of shape (n_samples,) or (n_samples, n_columns)
        Labels as they were given; of classes, their indicators.
    denoising : Denoising
        What the network makes of the labels around each sample.
    coordinate : array-like of shape (n_samples,), default=None
        Where each sample is drawn; None: at the network's prediction for it.
    column : int, default=0
        Which column of the labels is drawn; of classes, which class.

    Attributes
    ----------
    ax_ : ndarray of shape (2, 1) of matplotlib Axes
        Where labels were drawn, and below it the factor by which the standard deviation of their
        noise shrinks (`Denoising.deviation_factor`): 0 where all of it averages out, 1 where a
        sample counts alone.
    figure_ : matplotlib Figure
        The figure of these axes.

    See Also
    --------
    LabelDenoiser : Smooths labels.

    Examples
    --------
    >>> import numpy as np
    >>> from sknetsim import LabelDenoiser
    >>> from sknetsim.displays import DenoisingDisplay
    >>> rng = np.random.default_rng(0)
    >>> X = rng.uniform(-2, 2, (100, 1))
    >>> y = np.sin(2 * X[:, 0]) + rng.normal(scale=0.3, size=100)
    >>> denoiser = LabelDenoiser(random_state=0).fit(X, y)
    >>> display = DenoisingDisplay.from_estimator(denoiser, X, y, coordinate=X[:, 0])
    >>> display.ax_.shape
    (2, 1)
    """

    def __init__(
        self, labels: Any, denoising: Denoising, *, coordinate: Any = None, column: int = 0
    ):
        if not isinstance(denoising, Denoising):
            raise TypeError(
                f"denoising is a {type(denoising).__name__}; allowed is what"
                " LabelDenoiser.denoising gives: call it with the rows."
            )
        count, columns = denoising.labels.shape
        if not 0 <= column < columns:
            raise ValueError(
                f"column is {column}; allowed are the numbers of the {columns} columns of labels,"
                " from 0: draw one of these."
            )
        self.denoising = denoising
        self.column = column
        self.predictions = (denoising.predictions + denoising.shift)[:, column]
        given = np.asarray(labels, dtype=float)
        given = given[:, None] if given.ndim == 1 else given
        self.labels = _numbers("labels", given, (count, columns))[:, column]
        place = self.predictions if coordinate is None else coordinate
        self.coordinate = _numbers("coordinate", place, (count,))
        self._is_placed = coordinate is not None

    @classmethod
    def from_estimator(
        cls,
        estimator: LabelDenoiser,
        X: Any,
        y: Any,
        *,
        coordinate: Any = None,
        column: int = 0,
        ax: Any = None,
    ) -> DenoisingDisplay:
        """Smooth the labels around the rows of X, and draw them.

        Parameters
        ----------
        estimator : LabelDenoiser
            A fitted one.
        X : array-like of shape (n_samples, ...)
            The rows.
        y : array-like of shape (n_samples,) or (n_samples, n_columns)
            Their labels.
        coordinate : array-like of shape (n_samples,), default=None
            Where each row is drawn; None: at the network's prediction for it.
        column : int, default=0
            Which column of the labels is drawn; of classes, which class.
        ax : matplotlib Axes, default=None
            What to draw in place of; None: a new figure.

        Returns
        -------
        display : DenoisingDisplay
            The display.
        """
        if not isinstance(estimator, LabelDenoiser):
            raise TypeError(
                f"estimator is a {type(estimator).__name__}; allowed is a fitted LabelDenoiser:"
                " put the network in one."
            )
        found = estimator.denoising(X)
        labels = estimator._task.values(y)
        return cls.from_predictions(labels, found, coordinate=coordinate, column=column, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        labels: Any,
        denoising: Denoising,
        *,
        coordinate: Any = None,
        column: int = 0,
        ax: Any = None,
    ) -> DenoisingDisplay:
        """Draw labels that were smoothed.

        Parameters
        ----------
        labels : array-like of shape (n_samples,) or (n_samples, n_columns)
            Labels as they were given; of classes, their indicators.
        denoising : Denoising
            What the network makes of the labels around each sample.
        coordinate : array-like of shape (n_samples,), default=None
            Where each sample is drawn; None: at the network's prediction for it.
        column : int, default=0
            Which column of the labels is drawn; of classes, which class.
        ax : matplotlib Axes, default=None
            What to draw in place of; None: a new figure.

        Returns
        -------
        display : DenoisingDisplay
            The display.
        """
        return cls(labels, denoising, coordinate=coordinate, column=column).plot(ax)

    def _size(self) -> tuple[float, float]:
        return 6.4, 5.6

    def _draw(self) -> None:
        self._divide(2, 1, height_ratios=(3, 1))
        (upper,), (lower,) = self.ax_
        smoothed = self.denoising.labels[:, self.column]
        for name, values, color, marker in (
            ("label", self.labels, GREY, "."),
            ("label, smoothed", smoothed, BLUE, "x"),
            ("prediction", self.predictions, VERMILION, "_"),
        ):
            upper.plot(self.coordinate, values, marker, color=color, markersize=4, label=name)
        upper.legend(loc="best", markerscale=2)
        upper.set(ylabel="Label")
        upper.sharex(lower)
        upper.tick_params(labelbottom=False)
        lower.plot(self.coordinate, self.denoising.deviation_factor, ".", color="black")
        lower.set_ylim(0, max(1.0, *self.denoising.deviation_factor) * 1.05)
        lower.set(ylabel="Noise left", xlabel="Coordinate" if self._is_placed else "Prediction")


def _numbers(name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
    found = np.asarray(values, dtype=float)
    if found.shape != shape:
        raise ValueError(
            f"{name} has shape {found.shape}; allowed is {shape}, a row for each sample that was"
            " smoothed: hand over those of the same rows, and of classes their indicators."
        )
    return found
