"""Validation of the samples that estimators get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.utils import get_tags
from sklearn.utils.validation import validate_data

from .._networks.modules import format_names
from .._networks.network import get_batching, get_innermost, list_steps, make_samples, split_columns
from .._networks.samples import Samples
from .._networks.samples.arrays import (
    check_has_rows,
    check_shape,
    convert_rows,
    explain_dtype,
    is_on_disk,
    is_table,
)
from .._networks.samples.items import find_items, is_read_by_items
from ..exceptions import start_call


def check_samples(similarity: Any, estimator: Any, X: Any, reset: bool) -> Samples:
    """Return the samples of X for an estimator of this package, after validation.

    On reset, the number and names of the features, and the shape of a sample, are stored.

    Steps before the network, and nets that form batches in a way of their own, validate X
    themselves.
    """
    check_has_rows(X)
    if reset:
        similarity._shown_in_fit = start_call()
        _store_features(similarity, X)
    else:
        start_call(similarity._shown_in_fit)
    if list_steps(estimator) or get_batching(get_innermost(estimator)) is not None:
        if reset:
            similarity._sample_shape = None
        return make_samples(estimator, X)
    X = split_columns(get_innermost(estimator), X)
    X = X.toarray() if sparse.issparse(X) else X
    allow_nan = get_tags(similarity).input_tags.allow_nan
    fitted_shape = None if reset else similarity._sample_shape
    has_parts = isinstance(X, Mapping | tuple) or find_items(X) is not None
    X = X if has_parts else convert_rows(X)
    if not has_parts and not isinstance(X, torch.Tensor) and not is_on_disk(X):
        if fitted_shape is not None and len(fitted_shape) > 1:
            check_shape(np.shape(X), fitted_shape)  # scikit-learn expects tables.
        settings = {"dtype": "numeric", "allow_nd": True, "ensure_all_finite": not allow_nan}
        with explain_dtype(X):
            X = validate_data(similarity, X, reset=reset, **settings)
    samples = make_samples(estimator, X)
    if not allow_nan and not isinstance(X, np.ndarray):
        samples.check_finite()
    if has_parts:
        if reset:
            similarity._sample_shape = None
    elif reset:
        similarity.n_features_in_ = X.shape[1] if X.ndim > 1 else 1
        similarity._sample_shape = tuple(X.shape[1:])
    elif fitted_shape is not None:
        check_shape(tuple(X.shape), fitted_shape)
    return samples


def _store_features(similarity: Any, X: Any) -> None:
    """Store number and names of the features of X, and delete those of an earlier `fit`."""
    for name in ("n_features_in_", "feature_names_in_"):
        similarity.__dict__.pop(name, None)
    if len(getattr(X, "shape", ())) > 1 and not is_read_by_items(X):
        validate_data(similarity, X, reset=True, skip_check_array=True)


def check_columns(similarity: Any, estimator: Any, X: Any, Y: Any) -> None:
    """Raise an error unless two tables, and that of `fit`, have the same columns in one order.

    Steps before the network, and keyword arguments, take columns by their names.
    """
    if list_steps(estimator):
        return
    columns = {name: list(Z.columns) for name, Z in (("X", X), ("Y", Y)) if is_table(Z)}
    columns["fit"] = list(getattr(similarity, "feature_names_in_", columns.get("X", [])))
    for name in set(columns) - {"fit"}:
        if columns[name] == columns["fit"]:
            continue
        if not isinstance(split_columns(get_innermost(estimator), X), Mapping):
            raise ValueError(
                f"`{name}` must have the columns of the samples that it is compared with, in the"
                f" same order ({format_names(map(str, columns['fit']))}); got"
                f" {format_names(map(str, columns[name]))}. Select the columns by their names."
            )
