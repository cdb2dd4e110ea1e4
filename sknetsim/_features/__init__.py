"""Gradient features: exact, from landmarks, or sketched; in memory, on disk, and indexed."""

from __future__ import annotations

from collections.abc import Callable

from . import nystroem as _nystroem
from . import sketch as _sketch
from .exact import fit_exact
from .projection import Projection

#: Of (source, X, y, n_components, kernel_error, random_state).
METHODS: dict[str, Callable[..., Projection]] = {
    "exact": fit_exact,
    "nystroem": _nystroem.fit,
    "sketch": _sketch.fit,
}
