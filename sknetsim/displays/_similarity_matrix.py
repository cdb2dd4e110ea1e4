"""The similarities of all pairs as a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from ..estimators._base_kernel import BaseKernel
from ._figures import Display

# Colours that the colour-blind tell apart: Paul Tol's muted scheme.
_COLOURS = (
    "#CC6677",
    "#332288",
    "#DDCC77",
    "#117733",
    "#88CCEE",
    "#882255",
    "#44AA99",
    "#999933",
    "#AA4499",
    "#DDDDDD",
)


class SimilarityMatrixDisplay(Display):
    r"""The similarities of all pairs of samples, with similar samples side by side.

    Samples are in the order of the leaves of a tree of clusters (average linkage of the distances
    :math:`\sqrt{2 - 2 k^C}`), turned so that neighbouring leaves are near.

    Parameters
    ----------
    gram : ndarray of shape (n_samples, n_samples)
        The similarities, in [-1, 1].
    labels : array-like of shape (n_samples,), default=None
        Labels, drawn as a coloured strip beside the rows: of up to ten different ones.

    Attributes
    ----------
    order : ndarray of shape (n_samples,), int64
        Which sample is drawn in each row, from the top.
    ax_ : matplotlib Axes
        Where it was drawn.
    figure_ : matplotlib Figure
        The figure of these axes.

    See Also
    --------
    NetworkKernel : Gives the similarities.

    Examples
    --------
    >>> import torch
    >>> from sknetsim import NetworkKernel
    >>> from sknetsim.displays import SimilarityMatrixDisplay
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> X = torch.tensor([[0.0, 1.0], [-1.0, 0.0], [0.1, 1.0], [-1.1, 0.0]])
    >>> display = SimilarityMatrixDisplay.from_predictions(NetworkKernel(network)(X))
    >>> sorted(display.order.tolist())
    [0, 1, 2, 3]
    """

    def __init__(self, gram: Any, *, labels: Any = None):
        self.gram = _checked_gram(gram)
        self.labels = None if labels is None else _checked_labels(labels, len(self.gram))
        self.order = _order(self.gram)

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, *, labels: Any = None, ax: Any = None
    ) -> SimilarityMatrixDisplay:
        """Compute the similarities of the rows of X, and draw them.

        Parameters
        ----------
        estimator : NetworkKernel or PerceptualKernel
            What computes them, normalised.
        X : array-like of shape (n_samples, ...)
            The rows.
        labels : array-like of shape (n_samples,), default=None
            Their labels.
        ax : matplotlib Axes, default=None
            Where to draw; None: in a new figure.

        Returns
        -------
        display : SimilarityMatrixDisplay
            The display.
        """
        if not isinstance(estimator, BaseKernel):
            raise TypeError(
                f"estimator is a {type(estimator).__name__}; allowed are NetworkKernel and"
                " PerceptualKernel: put the network in one."
            )
        return cls.from_predictions(estimator(X), labels=labels, ax=ax)

    @classmethod
    def from_predictions(
        cls, gram: Any, *, labels: Any = None, ax: Any = None
    ) -> SimilarityMatrixDisplay:
        """Draw similarities.

        Parameters
        ----------
        gram : array-like of shape (n_samples, n_samples)
            The similarities, in [-1, 1].
        labels : array-like of shape (n_samples,), default=None
            The samples' labels.
        ax : matplotlib Axes, default=None
            Where to draw; None: in a new figure.

        Returns
        -------
        display : SimilarityMatrixDisplay
            The display.
        """
        return cls(gram, labels=labels).plot(ax)

    def _draw(self) -> None:
        found = self.gram[np.ix_(self.order, self.order)]
        image = self.ax_.imshow(found, cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest")
        self.ax_.set(xlabel="Sample, in order of clusters", xticks=[], yticks=[])
        self.figure_.colorbar(image, ax=self.ax_, label="Similarity")
        if self.labels is not None:
            self._draw_labels(self.labels)

    def _draw_labels(self, labels: np.ndarray) -> None:
        """A strip at the left, and what its colours mean."""
        from matplotlib.colors import ListedColormap
        from matplotlib.patches import Patch

        kinds, codes = np.unique(labels, return_inverse=True)
        colours = _COLOURS[: len(kinds)]
        strip = self.ax_.inset_axes((-0.06, 0, 0.04, 1))
        strip.imshow(codes[self.order][:, None], aspect="auto", cmap=ListedColormap(colours))
        strip.set(xticks=[], yticks=[])
        handles = [Patch(color=c, label=str(k)) for c, k in zip(colours, kinds, strict=True)]
        legend = self.ax_.legend(
            handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=5, frameon=False
        )
        for text in legend.get_texts():
            text.set_parse_math(False)


def _checked_gram(gram: Any) -> np.ndarray:
    found = np.asarray(gram, dtype=float)
    if found.ndim != 2 or found.shape[0] != found.shape[1] or not len(found):
        raise ValueError(
            f"gram has shape {found.shape}; allowed are the similarities of all pairs of the same"
            " samples, (n_samples, n_samples): compute them with NetworkKernel(network)(X)."
        )
    if not (np.abs(found) <= 1 + 1e-6).all():
        raise ValueError(
            f"gram has values from {found.min():.3g} to {found.max():.3g}; allowed are similarities"
            " in [-1, 1]: compute them with normalize=True."
        )
    return found


def _checked_labels(labels: Any, count: int) -> np.ndarray:
    found = np.asarray(labels)
    if found.shape != (count,):
        raise ValueError(
            f"labels has shape {found.shape}; allowed is one label for each of the {count} samples."
        )
    kinds = len(np.unique(found))
    if kinds > len(_COLOURS):
        raise ValueError(
            f"labels has {kinds} different values; allowed are up to {len(_COLOURS)}, which colours"
            " can tell apart: leave them out, or join some."
        )
    return found


def _order(gram: np.ndarray) -> np.ndarray:
    """Leaves of a tree of clusters."""
    if len(gram) < 3:
        return np.arange(len(gram))
    distances = np.sqrt(np.clip(2 - gram - gram.T, 0, None))
    np.fill_diagonal(distances, 0)
    tree = hierarchy.linkage(squareform(distances, checks=False), "average", optimal_ordering=True)
    return np.asarray(hierarchy.leaves_list(tree), dtype=np.int64)
