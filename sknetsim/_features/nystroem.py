"""Data-adapted features: similarities with landmarks, made orthonormal.

Index legend: n samples; c candidates; h held-out rows; m landmarks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .._networks.samples import Samples, select_labels
from .._passes.chunks import Chunk, Source
from .._passes.pairs import UNIT_WHITENINGS, iterate_pair_values
from .._passes.reductions import gram_matrix
from ..exceptions import FewerComponentsWarning, warn
from .landmarks import Landmarks, draw_landmarks
from .projection import allocate_features, warn_if_missed

# Landmarks are drawn from so many candidates each, but from no fewer than the second number.
_CANDIDATES = 2

_LEAST_CANDIDATES = 256

# The most candidates where the number of landmarks is not given.
_MOST_CANDIDATES = 2048

# The kernel's error is measured on the pairs of so many rows.
_HELD_OUT = 256


@dataclass(frozen=True)
class Nystroem:
    """Features K(x, Z) K(Z, Z)^{-1/2} from the similarities with landmarks Z.

    Attributes
    ----------
    landmarks : array-like or Dataset
        The m landmarks, rows of the fitted data.
    labels : array-like or None
        Their labels, where the outputs compared depend on them.
    root : ndarray of shape (m, m), float64
        Pseudo-inverse square root of the landmarks' gram matrix.
    kernel_error : float
        Root mean squared error of the similarity of held-out rows.
    """

    landmarks: Any
    labels: Any
    root: np.ndarray
    kernel_error: float

    @property
    def n_components(self) -> int:
        """The number m."""
        return len(self.root)

    def transform(self, source: Source, X: Samples, y: Any = None, verbose: Any = 0) -> np.ndarray:
        """Features of shape (n, m), in the dtype of the gradients."""
        features = allocate_features(source, len(X), self.n_components)
        features.fill(0)
        both, labels = (X, self.landmarks), (y, self.labels)
        grams = iterate_pair_values(source, *both, UNIT_WHITENINGS, Chunk.cosines, verbose, labels)
        for rows, columns, gram in grams:
            # By torch: numpy's threads would wait for torch's, and these for them.
            root = torch.from_numpy(self.root[columns]).to(gram)
            features[rows] += (gram @ root).cpu().numpy()
        return features


def fit_nystroem(
    source: Source,
    X: Samples,
    y: Any,
    n_components: int | str,
    kernel_error: float,
    random_state: np.random.RandomState,
) -> Nystroem:
    """Landmarks drawn from X, as many as asked for or as the kernel's error needs ("auto")."""
    candidates, others = _draw_candidates(len(X), n_components, random_state)
    chosen = np.concatenate([candidates, others])
    chosen = chosen.tolist()
    rows, labels = X.select(chosen), select_labels(y, chosen)
    gram = gram_matrix(source, rows, labels=(labels, labels))
    eps = float(torch.finfo(source.dtype).eps)
    # Where no row can be spared, the candidates themselves are looked at.
    held_out = np.arange(len(candidates) if len(others) > 1 else 0, len(chosen))
    if isinstance(n_components, str):
        limit, error = len(candidates), kernel_error
    else:
        limit, error = int(n_components), -math.inf
    pivots = draw_landmarks(gram, len(candidates), held_out, limit, error, eps, random_state)
    _report(pivots, n_components, len(candidates))
    if n_components == "auto":
        warn_if_missed(pivots.errors[-1], kernel_error, len(pivots.indices), "fit more samples")
    indices = pivots.indices
    drawn = candidates[indices].tolist()
    landmarks, labels = X.select(drawn), select_labels(y, drawn)
    root = _inverse_root(gram[np.ix_(indices, indices)], eps)
    return Nystroem(landmarks, labels, root, pivots.errors[-1])


def _draw_candidates(
    count: int, n_components: int | str, random_state: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that landmarks are drawn from, and rows that are held out, at random."""
    if isinstance(n_components, str):
        least, wanted = 1, _MOST_CANDIDATES
    else:
        least, wanted = n_components, max(_CANDIDATES * n_components, _LEAST_CANDIDATES)
    if least > count:
        raise ValueError(
            f"n_components is {least}; allowed are integers from 1 to {count}, the number of"
            " samples that landmarks are drawn from: ask for fewer, or fit more rows."
        )
    held_out = min(_HELD_OUT, count // 5, count - least)
    order = random_state.permutation(count)
    candidates = order[held_out : held_out + wanted]
    return np.sort(candidates), np.sort(order[:held_out])


def _report(pivots: Landmarks, n_components: int | str, candidates: int) -> None:
    """Say so where there are fewer landmarks than asked for."""
    found = len(pivots.indices)
    if not found:
        raise ValueError(
            f"X has zero gradients at all {candidates} rows that landmarks are drawn from; at"
            " least one must differ from zero: is the network dead?"
        )
    if not isinstance(n_components, str) and found < n_components:
        warn(
            f"n_components is {n_components}, but {found} landmarks span the gradients of all"
            f" {candidates} rows that they are drawn from: n_components_ is {found}.",
            FewerComponentsWarning,
        )


def _inverse_root(gram: np.ndarray, eps: float) -> np.ndarray:
    """K(Z, Z)^{-1/2}; eigenvalues within the rounding of similarities, m eps, count as zero."""
    values, vectors = np.linalg.eigh(gram)
    kept = values > len(gram) * eps
    scaled = vectors[:, kept] * values[kept] ** -0.5
    return scaled @ vectors[:, kept].T
