"""Learning curves of active learning, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..active.curve import ActiveLearningCurve, active_learning_curve
from ._figures import COLOURS, Display

_MARKERS = "osD^vP*X"


class LearningCurveDisplay(Display):
    """Scores against the number of labelled samples: mean over seeds, and a standard deviation.

    scikit-learn's display of the same name draws samples that are labelled at random; in this one a
    sampler chose them.

    Parameters
    ----------
    curves : dict of str to ActiveLearningCurve
        By the name that stands in the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn.
    figure_ : matplotlib Figure
        The figure of these axes.

    See Also
    --------
    active_learning_curve : Makes a curve.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from skorch import NeuralNetRegressor
    >>> from sknetsim import ActiveLearningSampler
    >>> from sknetsim.displays import LearningCurveDisplay
    >>> X = np.linspace(-1, 1, 80, dtype="float32")[:, None]
    >>> module = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    >>> net = NeuralNetRegressor(module, train_split=None, verbose=0)
    >>> samplers = {name: ActiveLearningSampler(strategy=name) for name in ("random", "lcmd")}
    >>> display = LearningCurveDisplay.from_estimator(
    ...     net, samplers, X, np.sin(4 * X), n_rounds=2, n_queries=4, n_initial=4, seeds=[0, 1]
    ... )
    >>> display.curves["lcmd"].n_labelled.tolist()
    [4, 8, 12]
    """

    def __init__(self, curves: Mapping[str, ActiveLearningCurve]):
        for name, curve in _named(curves, "curves").items():
            if not isinstance(curve, ActiveLearningCurve):
                raise TypeError(
                    f"curves[{name!r}] is a {type(curve).__name__}; allowed is what"
                    " active_learning_curve gives: run it with a sampler."
                )
        self.curves = dict(curves)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        samplers: Mapping[str, Any],
        X: Any,
        y: Any,
        *,
        ax: Any = None,
        **settings: Any,
    ) -> LearningCurveDisplay:
        """Run a loop of active learning with each sampler, and draw the curves.

        Parameters
        ----------
        estimator : skorch net or Pipeline that ends in one
            An untrained network.
        samplers : dict of str to ActiveLearningSampler
            Who chooses, by the name that stands in the legend.
        X : array-like of shape (n_samples, ...) or Dataset
            All samples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            All labels.
        ax : matplotlib Axes, default=None
            Where to draw; None: in a new figure.
        **settings : object
            Further ones of `active_learning_curve`, such as ``n_rounds`` and ``seeds``.

        Returns
        -------
        display : LearningCurveDisplay
            The display.
        """
        curves = {
            name: active_learning_curve(estimator, sampler, X, y, **settings)
            for name, sampler in _named(samplers, "samplers").items()
        }
        return cls.from_predictions(curves, ax=ax)

    @classmethod
    def from_predictions(
        cls, curves: Mapping[str, ActiveLearningCurve], *, ax: Any = None
    ) -> LearningCurveDisplay:
        """Draw curves.

        Parameters
        ----------
        curves : dict of str to ActiveLearningCurve
            By the name that stands in the legend.
        ax : matplotlib Axes, default=None
            Where to draw; None: in a new figure.

        Returns
        -------
        display : LearningCurveDisplay
            The display.
        """
        return cls(curves).plot(ax)

    def _draw(self) -> None:
        for place, (name, curve) in enumerate(self.curves.items()):
            mean, spread = curve.scores.mean(axis=0), curve.scores.std(axis=0)
            look = {"color": COLOURS[place % len(COLOURS)]}
            marker = _MARKERS[place // len(COLOURS) % len(_MARKERS)]
            self.ax_.plot(curve.n_labelled, mean, marker=marker, label=name, **look)
            band = (mean - spread, mean + spread)
            self.ax_.fill_between(curve.n_labelled, *band, alpha=0.12, linewidth=0, **look)
        self.ax_.set(xlabel="Labelled samples", ylabel="Score")
        for text in self.ax_.legend(loc="lower right").get_texts():
            text.set_parse_math(False)


def _named(values: Any, parameter: str) -> Mapping[str, Any]:
    if not isinstance(values, Mapping) or not values:
        raise TypeError(
            f"{parameter} is {values!r}; allowed is a dict with one of them at least by its name in"
            " the legend: give it a name."
        )
    return values
