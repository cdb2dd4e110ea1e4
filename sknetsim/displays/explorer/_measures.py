"""Neighbours, contributions, scores and texts of the samples, computed by the estimators.

Index legend: n samples; k neighbours; l layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import gen_batches
from tqdm.auto import tqdm

from ..._networks.samples import RawSamples
from ..._networks.samples.labels import make_label_tensor
from ...estimators.density import NetworkDensity
from ...estimators.kernel import NetworkKernel
from ...estimators.neighbors import NetworkNeighbors
from ...labels._label_arrays import check_labels, is_numeric
from ...labels._problems import takes_names
from ...labels._targets import Classification
from ...labels.denoising import LabelDenoiser
from ._influence import Influence, compute_influence
from ._texts import Texts, format_texts

# Number of pairs whose contributions are in memory at once, for each activation of each layer.
_PAIRS = 512

# Decimals of the similarities by which neighbours are sorted: later decimals are rounding errors.
_DECIMALS = 6


@dataclass(frozen=True)
class Measures:
    """Everything that the page shows about n samples, apart from their appearance.

    Attributes
    ----------
    neighbors : ndarray of shape (n, k), int64
        Positions of the most similar samples, in descending order of similarity.
    similarities : ndarray of shape (n, k)
        Exact similarities, in [-1, 1].
    contributions : ndarray of shape (n, k, l)
        Contribution of each layer to each similarity.
    layers : list of str of length l
        Names of the layers.
    scores : dict of str to ndarray of shape (n,)
        Scores by which samples can be sorted: "density", "reliability" and, with labels, "quality".
    texts : Texts
        Labels and predictions.
    influence : Influence or None
        Most helpful and most harmful samples; None without labels.
    """

    neighbors: np.ndarray
    similarities: np.ndarray
    contributions: np.ndarray
    layers: list[str]
    scores: dict[str, np.ndarray]
    texts: Texts
    influence: Influence | None


def compute_measures(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    predictions: Any,
    n_neighbors: int,
    alpha: float,
    **settings: Any,
) -> Measures:
    """Return the measures of all samples; an untrained network is trained once.

    Parameters
    ----------
    estimator, X, y, predictions, n_neighbors, alpha, **settings
        See `explore`.

    Returns
    -------
    measures : Measures
        The measures.
    """
    count = len(RawSamples.of(X))
    for name, values in {"y": y, "predictions": predictions}.items():
        _check_count(name, values, count)
    neighbors = NetworkNeighbors(estimator, n_neighbors=n_neighbors, **settings).fit(X, y)
    network = neighbors.estimator_
    indices = neighbors.kneighbors(return_distance=False)
    weights = {"method": "power", "alpha": alpha, **settings}
    # Losses are compared at the labels; only the judgement of labels must not depend on them.
    given = y if neighbors._takes_labels() else None
    density = NetworkDensity(network, **weights).fit(X, given)
    scores = {
        "density": density.score_samples(X, given),
        "reliability": density.reliability(X, given),
    }
    denoiser = influence = None
    if y is not None:
        labels = _encode_names(network, y)
        denoiser = LabelDenoiser(network, **weights).fit(X, labels)
        if not isinstance(denoiser._target, Classification):
            make_label_tensor(y)
        scores["quality"] = denoiser.label_quality(X, labels)
        is_known = labels is y
        influence = compute_influence(
            network, X, y if is_known else labels, denoiser._target, is_known, n_neighbors, settings
        )
    kernel = _make_exact_kernel(network, settings)
    verbose = settings.get("verbose", 0)
    layers, contributions = _compute_contributions(kernel, X, given, indices, verbose)
    texts = format_texts(denoiser, y, predictions, count)
    sorted_neighbors = _sort_by_similarity(indices, contributions)
    return Measures(*sorted_neighbors, layers, scores, texts, influence)


def _encode_names(network: Any, y: Any) -> Any:
    """Return numbers in place of names whose order in the network is unknown, else y itself.

    The quality of labels depends only on which of them are equal.
    """
    labels = check_labels(y)
    if is_numeric(labels) or labels.ndim > 1 or takes_names(network):
        return y
    return np.unique(labels, return_inverse=True)[1]


def _make_exact_kernel(network: Any, settings: dict[str, Any]) -> NetworkKernel:
    """Return a kernel without features: contributions are exact, even if neighbours are not."""
    exact = {name: value for name, value in settings.items() if name != "n_components"}
    return NetworkKernel(network, **{**exact, "verbose": 0})


def _compute_contributions(
    kernel: NetworkKernel, X: Any, y: Any, indices: np.ndarray, verbose: int
) -> tuple[list[str], np.ndarray]:
    """Return the layers, and their contributions to the similarities, of shape (n, k, l)."""
    queries = np.repeat(np.arange(len(indices)), indices.shape[1])
    neighbors, parts = indices.ravel(), []
    samples, slices = RawSamples.of(X), list(gen_batches(len(neighbors), _PAIRS))
    labels = None if y is None else check_labels(y)
    for piece in tqdm(slices, disable=not verbose, unit=f"{_PAIRS} pairs"):
        sides = queries[piece], neighbors[piece]
        pair = (samples.select(side.tolist()).data for side in sides)
        y_X, y_Y = (None if labels is None else labels[side] for side in sides)
        by_layer = kernel.contributions(*pair, y_X=y_X, y_Y=y_Y).by_layer()
        parts.append(np.stack(list(by_layer.values()), axis=1))
    return [*by_layer], np.concatenate(parts).reshape(*indices.shape, -1)


def _sort_by_similarity(
    indices: np.ndarray, contributions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return neighbours, similarities and contributions in the order of the exact similarity.

    Neighbours that were found by features may be in another order.
    """
    # k^C = sum over layers of their contributions
    similarities = contributions.sum(axis=2)
    order = np.argsort(-similarities.round(_DECIMALS), axis=1, kind="stable")
    indices, similarities = (np.take_along_axis(a, order, axis=1) for a in (indices, similarities))
    return indices, similarities, np.take_along_axis(contributions, order[:, :, None], axis=1)


def _check_count(name: str, values: Any, count: int) -> None:
    shape = () if values is None else np.shape(values)
    if values is not None and shape[:1] != (count,):
        raise ValueError(
            f"`{name}` must have {count} entries, one for each sample of X; got shape {shape}. Pass"
            " the values of the same samples."
        )
