"""Display of learning curves of active learning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..active.curve import ActiveLearningCurve, active_learning_curve
from ._figures import COLOURS, Display

# Markers of the curves, a new one after all colours have been used.
_MARKERS = "osD^vP*X"


class LearningCurveDisplay(Display):
    """Scores by number of labelled samples: mean over seeds, and bands of one standard deviation.

    scikit-learn's display of the same name is for training sets drawn at random; in this one, a
    sampler chooses the labelled samples.

    Parameters
    ----------
    curves : dict of str to ActiveLearningCurve
        Curves by their name in the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the plot.
    figure_ : matplotlib Figure
        Figure of these axes.

    See Also
    --------
    active_learning_curve : Function that computes a curve.

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
        for name, curve in _check_names(curves, "curves").items():
            if not isinstance(curve, ActiveLearningCurve):
                raise TypeError(
                    f"`curves` must contain ActiveLearningCurve objects; got {type(curve).__name__}"
                    f" for {name!r}. Pass results of active_learning_curve."
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
        """Run active learning with each sampler, and draw the curves.

        Parameters
        ----------
        estimator : skorch net or Pipeline that ends in one
            An untrained network.
        samplers : dict of str to ActiveLearningSampler
            Samplers by their name in the legend.
        X : array-like of shape (n_samples, ...), table, list of texts or images, dict or Dataset
            All samples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), or None
            All labels. None: those of the items (x, y) of a Dataset.
        ax : matplotlib Axes, default=None
            Axes to draw in. None: a new figure.
        **settings : object
            Further parameters of `active_learning_curve`, such as ``n_rounds`` and ``seeds``.

        Returns
        -------
        display : LearningCurveDisplay
            The display.

        Raises
        ------
        TypeError
            If ``samplers`` is not a dict with at least one sampler.
        """
        curves = {
            name: active_learning_curve(estimator, sampler, X, y, **settings)
            for name, sampler in _check_names(samplers, "samplers").items()
        }
        return cls.from_predictions(curves, ax=ax)

    @classmethod
    def from_predictions(
        cls, curves: Mapping[str, ActiveLearningCurve], *, ax: Any = None
    ) -> LearningCurveDisplay:
        """Draw computed curves.

        Parameters
        ----------
        curves : dict of str to ActiveLearningCurve
            Curves by their name in the legend.
        ax : matplotlib Axes, default=None
            Axes to draw in. None: a new figure.

        Returns
        -------
        display : LearningCurveDisplay
            The display.
        """
        return cls(curves).plot(ax)

    def _draw(self) -> None:
        for number, (name, curve) in enumerate(self.curves.items()):
            mean, deviation = curve.scores.mean(axis=0), curve.scores.std(axis=0)
            colour = COLOURS[number % len(COLOURS)]
            marker = _MARKERS[number // len(COLOURS) % len(_MARKERS)]
            self.ax_.plot(curve.n_labelled, mean, marker=marker, label=name, color=colour)
            band = (mean - deviation, mean + deviation)
            self.ax_.fill_between(curve.n_labelled, *band, alpha=0.12, linewidth=0, color=colour)
        self.ax_.set(xlabel="Labelled samples", ylabel="Score")
        for text in self.ax_.legend(loc="lower right").get_texts():
            text.set_parse_math(False)


def _check_names(values: Any, parameter: str) -> Mapping[str, Any]:
    """Return the dict of a parameter; raise if it is no dict, or has no entry."""
    if not isinstance(values, Mapping) or not values:
        raise TypeError(
            f"`{parameter}` must be a dict with at least one entry; got {values!r}. Use the names"
            " in the legend as keys."
        )
    return values
