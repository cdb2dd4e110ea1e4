"""Display of noisy labels, predictions and labels smoothed over similar samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..exceptions import describe_integers
from ..labels.denoising import Denoising, LabelDenoiser
from ._figures import BLUE, GREY, VERMILION, Display


class DenoisingDisplay(Display):
    """Labels, predictions and smoothed labels of samples, above the share of noise that remains.

    Parameters
    ----------
    labels : array-like of shape (n_samples,) or (n_samples, n_columns)
        Noisy labels; for classes, their indicators.
    denoising : Denoising
        Smoothed labels and noise factors of the same samples, see `LabelDenoiser.denoising`.
    coordinate : array-like of shape (n_samples,), default=None
        Horizontal position of each sample. None: the network's prediction for it.
    column : int, default=0
        Column of the labels that is drawn; for classes, the number of the class.

    Attributes
    ----------
    ax_ : ndarray of shape (2, 1) of matplotlib Axes
        Axes of the labels and, below, of the factor by which smoothing multiplies the standard
        deviation of their noise (`Denoising.deviation_factor`): 0 if all noise averages out, 1 if
        one label has all the weight.
    figure_ : matplotlib Figure
        Figure of these axes.

    See Also
    --------
    LabelDenoiser : Estimator that smooths labels.

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
                f"`denoising` must be a Denoising object; got {type(denoising).__name__}. Pass the"
                " result of LabelDenoiser.denoising."
            )
        count, columns = denoising.labels.shape
        if not 0 <= column < columns:
            raise ValueError(
                f"`column` must be {describe_integers(0, columns - 1)} ({columns}"
                f" column{'s' * (columns > 1)} of labels); got {column}. Pass the"
                " number of a column."
            )
        self.denoising = denoising
        self.column = column
        self.predictions = (denoising.predictions + denoising.shift)[:, column]
        labels = np.asarray(labels, dtype=float)
        labels = labels[:, None] if labels.ndim == 1 else labels
        self.labels = _check_shape("labels", labels, (count, columns))[:, column]
        position = self.predictions if coordinate is None else coordinate
        self.coordinate = _check_shape("coordinate", position, (count,))
        self._has_coordinate = coordinate is not None

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
        """Smooth the labels around the samples of X, and draw them.

        Parameters
        ----------
        estimator : LabelDenoiser
            A fitted estimator.
        X : array-like of shape (n_samples, ...)
            The samples.
        y : array-like of shape (n_samples,) or (n_samples, n_columns)
            Their labels.
        coordinate : array-like of shape (n_samples,), default=None
            Horizontal position of each sample. None: the network's prediction for it.
        column : int, default=0
            Column of the labels that is drawn; for classes, the number of the class.
        ax : matplotlib Axes, default=None
            Axes to replace by two. None: a new figure.

        Returns
        -------
        display : DenoisingDisplay
            The display.

        Raises
        ------
        TypeError
            If ``estimator`` is not a LabelDenoiser.
        ValueError
            If there is no such column, or if there is not one label or coordinate per sample.
        """
        if not isinstance(estimator, LabelDenoiser):
            raise TypeError(
                f"`estimator` must be a fitted LabelDenoiser; got {type(estimator).__name__}. Fit"
                " LabelDenoiser(network)."
            )
        denoising, labels = estimator.denoising(X), estimator._target.values(y)
        return cls.from_predictions(labels, denoising, coordinate=coordinate, column=column, ax=ax)

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
        """Draw labels with their smoothed values.

        Parameters
        ----------
        labels : array-like of shape (n_samples,) or (n_samples, n_columns)
            Noisy labels; for classes, their indicators.
        denoising : Denoising
            Smoothed labels and noise factors of the same samples.
        coordinate : array-like of shape (n_samples,), default=None
            Horizontal position of each sample. None: the network's prediction for it.
        column : int, default=0
            Column of the labels that is drawn; for classes, the number of the class.
        ax : matplotlib Axes, default=None
            Axes to replace by two. None: a new figure.

        Returns
        -------
        display : DenoisingDisplay
            The display.
        """
        return cls(labels, denoising, coordinate=coordinate, column=column).plot(ax)

    def _figure_size(self) -> tuple[float, float]:
        return 6.4, 5.6

    def _draw(self) -> None:
        self._divide(2, 1, height_ratios=(3, 1))
        (upper,), (lower,) = self.ax_
        smoothed = self.denoising.labels[:, self.column]
        for name, values, color, marker in (
            ("label", self.labels, GREY, "."),
            ("smoothed label", smoothed, BLUE, "x"),
            ("prediction", self.predictions, VERMILION, "_"),
        ):
            upper.plot(self.coordinate, values, marker, color=color, markersize=4, label=name)
        upper.legend(loc="best", markerscale=2)
        upper.set(ylabel="Label")
        upper.sharex(lower)
        upper.tick_params(labelbottom=False)
        lower.plot(self.coordinate, self.denoising.deviation_factor, ".", color="black")
        lower.set_ylim(0, max(1.0, *self.denoising.deviation_factor) * 1.05)
        xlabel = "Coordinate" if self._has_coordinate else "Prediction"
        lower.set(ylabel="Remaining noise", xlabel=xlabel)


def _check_shape(name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return values as floats; raise if they do not have the shape."""
    array = np.asarray(values, dtype=float)
    if array.shape != shape:
        raise ValueError(
            f"`{name}` must have shape {shape}, like the smoothed labels; got {array.shape}. Pass"
            " the values of the same samples; for classes, pass the labels as indicators."
        )
    return array
