"""What layers, and places of images, add to the similarity of a pair."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._contributions import Contributions
from ..kernel import NetworkKernel
from ._figures import Display

_ADDS, _TAKES = "#0072B2", "#D55E00"


class ContributionsDisplay(Display):
    """What each layer of a network adds to the similarity of two inputs.

    Parameters
    ----------
    contributions : Contributions
        Of one pair or several.
    pair : int, default=0
        Which pair is drawn.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn.
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

    def __init__(self, contributions: Contributions, *, pair: int = 0):
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
        self.contributions = contributions
        self.pair = pair

    @classmethod
    def from_estimator(
        cls, estimator: NetworkKernel, X: Any, Y: Any, *, pair: int = 0, ax: Any = None
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
        return cls.from_predictions(estimator.contributions(X, Y), pair=pair, ax=ax)

    @classmethod
    def from_predictions(
        cls, contributions: Contributions, *, pair: int = 0, ax: Any = None
    ) -> ContributionsDisplay:
        """Draw what was taken apart.

        Parameters
        ----------
        contributions : Contributions
            Of one pair or several.
        pair : int, default=0
            Which pair is drawn.
        ax : matplotlib Axes, default=None
            Where to draw; None: in a new figure.

        Returns
        -------
        display : ContributionsDisplay
            The display.
        """
        return cls(contributions, pair=pair).plot(ax)

    def _draw(self) -> None:
        parts = self.contributions.by_layer()
        values = np.array([part[self.pair] for part in parts.values()])
        names = [name or "(network)" for name in parts]
        places = np.arange(len(names))
        self.ax_.barh(places, values, color=np.where(values < 0, _TAKES, _ADDS))
        self.ax_.axvline(0, color="black", linewidth=0.8)
        self.ax_.set_yticks(places, names, parse_math=False)
        self.ax_.invert_yaxis()
        similarity = self.contributions.similarity[self.pair]
        self.ax_.set(xlabel=f"Adds to the similarity of {similarity:.2f}", ylabel="Layer")
