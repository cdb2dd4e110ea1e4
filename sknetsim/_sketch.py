"""Data-adapted projections: features from similarities with landmarks.

Index legend: n samples; m landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from . import _kernels, _pairs
from ._inputs import Inputs, Rows
from ._passes import Source


@dataclass(frozen=True)
class Nystroem:
    """Features K(x, Z) K(Z, Z)^{-1/2} from the similarities with landmarks Z.

    Attributes
    ----------
    landmarks : Inputs
        The m landmarks, rows of the fitted data.
    root : ndarray of shape (m, m)
        Pseudo-inverse square root of the landmarks' gram matrix.
    """

    landmarks: Inputs
    root: np.ndarray

    def transform(self, source: Source, X: Any, verbose: Any = 0) -> np.ndarray:
        """Features of shape (n, m)."""
        return _pairs.gram(source, X, self.landmarks, verbose) @ self.root


def fit_nystroem(
    source: Source, X: Any, n_components: int, random_state: np.random.RandomState
) -> Nystroem:
    """Landmarks drawn from X without replacement."""
    rows = Rows(X)
    if n_components > len(rows):
        raise ValueError(
            f"n_components is {n_components}; allowed are integers from 1 to {len(rows)}, the"
            " number of samples that landmarks are drawn from: ask for fewer, or fit more rows."
        )
    chosen = np.sort(random_state.permutation(len(rows))[:n_components])
    landmarks = rows.at(chosen.tolist())
    gram = torch.as_tensor(_pairs.gram(source, landmarks))
    root, _ = _kernels.inverse_root(gram[None], source.dtype)
    return Nystroem(landmarks, root[0].numpy())
