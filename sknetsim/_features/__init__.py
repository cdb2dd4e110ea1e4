"""Gradient features: exact, from landmarks, or sketched; on disk and in indexes."""

from __future__ import annotations

from collections.abc import Callable

from .exact import fit_exact
from .nystroem import fit_nystroem
from .projection import Projection
from .sketch import fit_sketch

#: Functions of (source, X, n_components, kernel_error, random_state) that return a `Projection`,
#: by the name of the featurizer's method.
METHODS: dict[str, Callable[..., Projection]] = {
    "exact": fit_exact,
    "nystroem": fit_nystroem,
    "sketch": fit_sketch,
}
