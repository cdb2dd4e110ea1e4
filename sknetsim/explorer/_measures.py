"""What the page says of samples, by the estimators.

Index legend: n samples; k neighbours; l layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import gen_batches
from sklearn.utils.multiclass import type_of_target
from tqdm.auto import tqdm

from .._inputs import Rows, part
from .._network import FEATURES
from ..denoising import LabelDenoiser
from ..density import NetworkDensity
from ..kernel import NetworkKernel
from ..neighbors import NetworkNeighbors

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
    words : dict of str to list of str
        "label" and "prediction", where there are any.
    contradicted : ndarray of shape (n,), bool
        Where the network predicts another class than the label.
    """

    neighbors: np.ndarray
    similarities: np.ndarray
    parts: np.ndarray
    layers: list[str]
    numbers: dict[str, np.ndarray]
    words: dict[str, list[str]]
    contradicted: np.ndarray


def measured(
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
    words = {"label": y, "prediction": predictions}
    for name, values in words.items():
        _check_count(name, values, count)
    neighbors = NetworkNeighbors(estimator, n_neighbors=n_neighbors, **settings).fit(X, y)
    network = neighbors.estimator_
    indices = neighbors.kneighbors(return_distance=False)
    weights = {"method": "power", "alpha": alpha, **settings}
    density = NetworkDensity(network, **weights).fit(X)
    numbers = {"density": density.score_samples(X), "reliability": density.reliability(X)}
    if y is not None:
        denoiser = LabelDenoiser(network, **weights).fit(X, y)
        numbers["quality"] = denoiser.label_quality(X, y)
        if predictions is None and network != FEATURES:
            words["prediction"] = denoiser._task.labels(denoiser._predictions(None))
    layers, parts = _parts(_kernel(network, settings), X, indices, settings.get("verbose", 0))
    spoken = _worded(words)
    other = _contradicted(spoken, y, count)
    return Measures(*_in_order(indices, parts), layers, numbers, spoken, other)


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
        both = (part(X, chosen[piece].tolist()) for chosen in (rows, pairs))
        by_layer = kernel.contributions(*both).by_layer()
        found.append(np.stack(list(by_layer.values()), axis=1))
    return [*by_layer], np.concatenate(found).reshape(*indices.shape, -1)


def _in_order(indices: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbours by their exact similarity: features may have found them in another order."""
    similarities = parts.sum(axis=2)
    order = np.argsort(-similarities.round(_DIGITS), axis=1, kind="stable")
    nearest, near = (np.take_along_axis(one, order, axis=1) for one in (indices, similarities))
    return nearest, near, np.take_along_axis(parts, order[:, :, None], axis=1)


def _worded(words: dict[str, Any]) -> dict[str, list[str]]:
    return {
        name: [_word(value) for value in np.asarray(values)]
        for name, values in words.items()
        if values is not None
    }


def _contradicted(words: dict[str, list[str]], y: Any, count: int) -> np.ndarray:
    """Numbers that are predicted are never quite the labels: nothing is said of them."""
    if len(words) < 2 or type_of_target(y) not in ("binary", "multiclass"):
        return np.zeros(count, dtype=bool)
    return np.array(words["label"]) != np.array(words["prediction"])


def _word(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def _check_count(name: str, values: Any, count: int) -> None:
    if values is not None and len(values) != count:
        parameter = {"label": "y", "prediction": "predictions"}[name]
        raise ValueError(
            f"{parameter} has {len(values)} rows and X {count}; allowed are as many: hand over one"
            " for each sample."
        )
