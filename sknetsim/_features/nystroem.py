"""Nystroem features: similarities with landmarks Z, multiplied by K(Z, Z)^{-1/2}.

Their inner products are K(x, Z) K(Z, Z)^{-1} K(Z, x'), which is k^C exactly if x or x' is a
landmark.

Index legend: n samples; l, m landmarks (m also their number); e eigenvalues.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .._networks.samples import Samples
from .._passes.chunks import Chunk, Source
from .._passes.pairs import UNIT_WHITENINGS, iterate_pair_values
from .._passes.reductions import gram_matrix
from ..exceptions import FewerComponentsWarning, describe_integers, warn
from .landmarks import Landmarks, draw_landmarks
from .projection import allocate_features, warn_if_missed

# Number of candidates for each landmark, and the smallest number of candidates.
_CANDIDATES = 2

_LEAST_CANDIDATES = 256

# Largest number of candidates if n_components="auto".
_MOST_CANDIDATES = 2048

# Largest number of held-out samples, on whose pairs the kernel error is measured.
_HELD_OUT = 256


@dataclass(frozen=True)
class Nystroem:
    """Features K(x, Z) K(Z, Z)^{-1/2} from the similarities with landmarks Z.

    Attributes
    ----------
    landmarks : Samples
        The m landmarks Z, which are fitted samples.
    root : ndarray of shape (m, m), float64
        Pseudo-inverse square root K(Z, Z)^{-1/2} of the landmarks' gram matrix.
    kernel_error : float
        Root mean squared error of the similarity of different held-out samples.
    """

    landmarks: Any
    root: np.ndarray
    kernel_error: float

    @property
    def n_components(self) -> int:
        """Number m of features."""
        return len(self.root)

    def transform(self, source: Source, X: Samples, verbose: Any = 0) -> np.ndarray:
        """Return features of shape (n, m), in the dtype of the gradients."""
        features = allocate_features(source, len(X), self.n_components)
        features.fill(0)
        sets = (X, self.landmarks)
        grams = iterate_pair_values(source, *sets, UNIT_WHITENINGS, Chunk.cosines, verbose)
        for rows, columns, gram in grams:
            # torch multiplies, because numpy's threads and torch's would wait for each other.
            root = torch.from_numpy(self.root[columns]).to(gram)
            # features[n,m] = sum_l k^C(x_n, z_l) K(Z,Z)^{-1/2}[l,m], for the landmarks l of a tile
            features[rows] += (gram @ root).cpu().numpy()
        return features


def fit_nystroem(
    source: Source,
    X: Samples,
    n_components: int | str,
    kernel_error: float,
    random_state: np.random.RandomState,
) -> Nystroem:
    """Return Nystroem features with landmarks drawn from X.

    ``n_components`` is the number of landmarks; "auto" draws as many as ``kernel_error`` needs.
    """
    candidates, others = _draw_candidates(len(X), n_components, random_state)
    chosen = np.concatenate([candidates, others]).tolist()
    gram = gram_matrix(source, X.select(chosen))
    eps = float(torch.finfo(source.dtype).eps)
    # With fewer than two held-out samples, the error is measured on the candidates as well.
    held_out = np.arange(len(candidates) if len(others) > 1 else 0, len(chosen))
    if isinstance(n_components, str):
        limit, error = len(candidates), kernel_error
    else:
        limit, error = int(n_components), -math.inf
    landmarks = draw_landmarks(gram, len(candidates), held_out, limit, error, eps, random_state)
    _check_number(landmarks, n_components, len(candidates))
    indices, reached = landmarks.indices, landmarks.errors[-1]
    if n_components == "auto":
        warn_if_missed(reached, kernel_error, len(indices), "fit more samples")
    drawn = candidates[indices].tolist()
    root = _inverse_root(gram[np.ix_(indices, indices)], eps)
    return Nystroem(X.select(drawn), root, reached)


def _draw_candidates(
    count: int, n_components: int | str, random_state: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Return random indices of the candidates and of the held-out samples, each in ascending order.

    A fifth of the samples is held out, up to `_HELD_OUT`, as long as ``n_components`` remain.
    """
    if isinstance(n_components, str):
        least, wanted = 1, _MOST_CANDIDATES
    else:
        least, wanted = n_components, max(_CANDIDATES * n_components, _LEAST_CANDIDATES)
    if least > count:
        raise ValueError(
            f"`n_components` must be {describe_integers(1, count)} (the number of samples from"
            f" which landmarks are drawn); got {least}. Set a smaller `n_components`, or fit more"
            " samples."
        )
    held_out = min(_HELD_OUT, count // 5, count - least)
    order = random_state.permutation(count)
    candidates = order[held_out : held_out + wanted]
    return np.sort(candidates), np.sort(order[:held_out])


def _check_number(landmarks: Landmarks, n_components: int | str, candidates: int) -> None:
    """Raise an error if there are no landmarks; warn if there are fewer than requested."""
    number = len(landmarks.indices)
    if not number:
        raise ValueError(
            "`X` must contain a sample with a nonzero gradient; got zero gradients at all"
            f" {candidates} samples from which landmarks are drawn. Check the network for dead"
            " ReLUs and saturated outputs."
        )
    if not isinstance(n_components, str) and number < n_components:
        warn(
            f"`n_components` is {n_components}, but the gradients of the {candidates} samples from"
            f" which landmarks are drawn have rank {number}, so `n_components_` is {number}. Fit"
            " more samples if you need more features.",
            FewerComponentsWarning,
        )


def _inverse_root(gram: np.ndarray, eps: float) -> np.ndarray:
    """Return the pseudo-inverse square root K(Z, Z)^{-1/2}, of shape (m, m).

    Eigenvalues up to the rounding of similarities, m eps, count as zero.
    """
    values, vectors = np.linalg.eigh(gram)
    kept = values > len(gram) * eps
    # root[l,m] = sum_e V[l,e] lambda[e]^{-1/2} V[m,e]
    scaled = vectors[:, kept] * values[kept] ** -0.5
    return scaled @ vectors[:, kept].T
