"""What the page says of samples, by the estimators.

Index legend: n samples; k neighbours; l layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import gen_batches
from tqdm.auto import tqdm

from ..._networks.inputs import Rows, select_samples
from ...estimators.density import NetworkDensity
from ...estimators.kernel import NetworkKernel
from ...estimators.neighbors import NetworkNeighbors
from ...labels.denoising import LabelDenoiser
from ._words import Words, describe_with_words

# Pairs that are taken apart at a time: each layer's activities are kept for them.
_PAIRS = 512

# Digits that similarities are told apart by: beyond them they are rounding.
_DIGITS = 6


@dataclass(frozen=True)
class Measures:
    """Of n samples.

    Attributes
    ----------
    neighbors : ndarray of shape (n, k), int64
        Positions of the most similar samples.
    similarities : ndarray of shape (n, k)
        In [-1, 1], exact.
    parts : ndarray of shape (n, k, l)
        What each layer adds to a similarity.
    layers : list of str of length l
        Their names.
    numbers : dict of str to ndarray of shape (n,)
        What samples can be put in order by: "density", "reliability", and "quality" of labels.
    words : Words
        Labels, and what the network predicts.
    """

    neighbors: np.ndarray
    similarities: np.ndarray
    parts: np.ndarray
    layers: list[str]
    numbers: dict[str, np.ndarray]
    words: Words


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
    """All of it; a network that is not trained is trained once."""
    count = len(Rows(X))
    for name, values in {"y": y, "predictions": predictions}.items():
        _check_count(name, values, count)
    neighbors = NetworkNeighbors(estimator, n_neighbors=n_neighbors, **settings).fit(X, y)
    network = neighbors.estimator_
    indices = neighbors.kneighbors(return_distance=False)
    weights = {"method": "power", "alpha": alpha, **settings}
    density = NetworkDensity(network, **weights).fit(X)
    numbers = {"density": density.score_samples(X), "reliability": density.reliability(X)}
    denoiser = None if y is None else LabelDenoiser(network, **weights).fit(X, y)
    if denoiser is not None:
        numbers["quality"] = denoiser.label_quality(X, y)
    layers, parts = _parts(_kernel(network, settings), X, indices, settings.get("verbose", 0))
    words = describe_with_words(denoiser, y, predictions, count)
    return Measures(*_in_order(indices, parts), layers, numbers, words)


def _kernel(network: Any, settings: dict[str, Any]) -> NetworkKernel:
    """Similarities are taken apart exactly, whatever features they were found by."""
    exact = {name: value for name, value in settings.items() if name != "n_components"}
    return NetworkKernel(network, **{**exact, "verbose": 0})


def _parts(
    kernel: NetworkKernel, X: Any, indices: np.ndarray, verbose: int
) -> tuple[list[str], np.ndarray]:
    """What layers add to the similarity of each sample and each of its neighbours."""
    rows = np.repeat(np.arange(len(indices)), indices.shape[1])
    pairs, found = indices.ravel(), []
    pieces = list(gen_batches(len(pairs), _PAIRS))
    for piece in tqdm(pieces, disable=not verbose, unit=f"{_PAIRS} pairs"):
        both = (select_samples(X, chosen[piece].tolist()) for chosen in (rows, pairs))
        by_layer = kernel.contributions(*both).by_layer()
        found.append(np.stack(list(by_layer.values()), axis=1))
    return [*by_layer], np.concatenate(found).reshape(*indices.shape, -1)


def _in_order(indices: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbours by their exact similarity: features may have found them in another order."""
    similarities = parts.sum(axis=2)
    order = np.argsort(-similarities.round(_DIGITS), axis=1, kind="stable")
    nearest, near = (np.take_along_axis(one, order, axis=1) for one in (indices, similarities))
    return nearest, near, np.take_along_axis(parts, order[:, :, None], axis=1)


def _check_count(name: str, values: Any, count: int) -> None:
    shape = () if values is None else np.shape(values)
    if values is not None and shape[:1] != (count,):
        raise ValueError(
            f"{name} has shape {shape} and X {count} rows; allowed is one for each sample: hand"
            " over as many."
        )
