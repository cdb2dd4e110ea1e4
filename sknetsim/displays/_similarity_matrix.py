"""Display of the similarities of all pairs of samples as a matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from ..estimators._base_kernel import BaseKernel
from ._figures import Display

# Colours that colour-blind readers can tell apart: Paul Tol's muted scheme.
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
    r"""Similarities of all pairs of samples, with similar samples next to each other.

    Samples are in the order of the leaves of a hierarchical clustering (average linkage of the
    distances :math:`\sqrt{2 - 2 k^C}`), arranged so that adjacent leaves are close to each other.

    Parameters
    ----------
    gram : ndarray of shape (n_samples, n_samples)
        The similarities, in [-1, 1].
    labels : array-like of shape (n_samples,), default=None
        Labels with up to ten different values, drawn as a coloured strip beside the matrix.

    Attributes
    ----------
    order : ndarray of shape (n_samples,), int64
        Position in ``gram`` of the sample drawn in each row, from the top.
    ax_ : matplotlib Axes
        Axes of the matrix.
    figure_ : matplotlib Figure
        Figure of these axes.

    See Also
    --------
    NetworkKernel : Estimator of the similarities.

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
        self.gram = _check_gram(gram)
        self.labels = None if labels is None else _check_labels(labels, len(self.gram))
        self.order = _order_by_clusters(self.gram)

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, *, y: Any = None, labels: Any = None, ax: Any = None
    ) -> SimilarityMatrixDisplay:
        """Compute the similarities of the samples of X, and draw them.

        Parameters
        ----------
        estimator : NetworkKernel or PerceptualKernel
            A normalised kernel.
        X : array-like of shape (n_samples, ...)
            The samples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels at which the losses are compared, only with ``output="loss"``. None: the
            predicted ones.
        labels : array-like of shape (n_samples,), default=None
            Their labels, with up to ten different values.
        ax : matplotlib Axes, default=None
            Axes to draw in. None: a new figure.

        Returns
        -------
        display : SimilarityMatrixDisplay
            The display.

        Raises
        ------
        TypeError
            If ``estimator`` is not a kernel.
        ValueError
            If the kernel is not normalised, or if the labels do not fit.
        """
        if not isinstance(estimator, BaseKernel):
            raise TypeError(
                "`estimator` must be a NetworkKernel or PerceptualKernel; got"
                f" {type(estimator).__name__}. Pass NetworkKernel(network)."
            )
        return cls.from_predictions(estimator(X, y_X=y), labels=labels, ax=ax)

    @classmethod
    def from_predictions(
        cls, gram: Any, *, labels: Any = None, ax: Any = None
    ) -> SimilarityMatrixDisplay:
        """Draw computed similarities.

        Parameters
        ----------
        gram : array-like of shape (n_samples, n_samples)
            The similarities, in [-1, 1].
        labels : array-like of shape (n_samples,), default=None
            Labels of the samples, with up to ten different values.
        ax : matplotlib Axes, default=None
            Axes to draw in. None: a new figure.

        Returns
        -------
        display : SimilarityMatrixDisplay
            The display.
        """
        return cls(gram, labels=labels).plot(ax)

    def _draw(self) -> None:
        gram = self.gram[np.ix_(self.order, self.order)]
        image = self.ax_.imshow(gram, cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest")
        self.ax_.set(xlabel="Sample (ordered by clusters)", xticks=[], yticks=[])
        self.figure_.colorbar(image, ax=self.ax_, label="Similarity")
        if self.labels is not None:
            self._draw_labels(self.labels)

    def _draw_labels(self, labels: np.ndarray) -> None:
        """Draw the labels as a strip at the left, with a legend of its colours."""
        from matplotlib.colors import ListedColormap
        from matplotlib.patches import Patch

        values, codes = np.unique(labels, return_inverse=True)
        colours = _COLOURS[: len(values)]
        strip = self.ax_.inset_axes((-0.06, 0, 0.04, 1))
        strip.imshow(codes[self.order][:, None], aspect="auto", cmap=ListedColormap(colours))
        strip.set(xticks=[], yticks=[])
        handles = [Patch(color=c, label=str(v)) for c, v in zip(colours, values, strict=True)]
        legend = self.ax_.legend(
            handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=5, frameon=False
        )
        for text in legend.get_texts():
            text.set_parse_math(False)


def _check_gram(gram: Any) -> np.ndarray:
    """Return the similarities as an array; raise if they are not a matrix in [-1, 1]."""
    similarities = np.asarray(gram, dtype=float)
    shape = similarities.shape
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise ValueError(
            "`gram` must have shape (n_samples, n_samples), the similarities of all pairs of"
            f" samples; got {shape}. Compute them with NetworkKernel(network)(X)."
        )
    # Rounding may exceed 1.
    if not (np.abs(similarities) <= 1 + 1e-6).all():
        raise ValueError(
            f"`gram` must be in [-1, 1]; got values from {similarities.min():.3g} to"
            f" {similarities.max():.3g}. Compute the similarities with normalize=True."
        )
    return similarities


def _check_labels(labels: Any, count: int) -> np.ndarray:
    """Return the labels as an array; raise if they cannot be drawn in different colours."""
    array = np.asarray(labels)
    if array.shape != (count,):
        raise ValueError(
            f"`labels` must have shape ({count},), one label per sample; got {array.shape}. Pass"
            " the labels of the same samples."
        )
    values = len(np.unique(array))
    if values > len(_COLOURS):
        raise ValueError(
            f"`labels` must have at most {len(_COLOURS)} different values, one colour each; got"
            f" {values}. Merge some labels, or leave them out."
        )
    return array


def _order_by_clusters(gram: np.ndarray) -> np.ndarray:
    """Return the order of the leaves of a hierarchical clustering."""
    if len(gram) < 3:
        return np.arange(len(gram))
    # ||u - v||^2 = 2 - 2 k^C(u, v) for unit features; k^C is the mean of the two triangles.
    distances = np.sqrt(np.clip(2 - gram - gram.T, 0, None))
    np.fill_diagonal(distances, 0)
    tree = hierarchy.linkage(squareform(distances, checks=False), "average", optimal_ordering=True)
    return np.asarray(hierarchy.leaves_list(tree), dtype=np.int64)
