"""Labels as arrays of numbers or of names, and weights of samples."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .arrays import make_tensor
from .raw_samples import RawSamples
from .samples import Samples


def check_labels(y: Any) -> np.ndarray:
    """Return the labels as an array; raise an error if some are missing or not finite.

    Objects, as a pandas Series may contain, become numbers or strings.
    """
    if y is None:
        raise ValueError("`y` must be the labels of X; got None. Pass one label per sample.")
    if isinstance(y, Tensor):
        # NumPy has no bfloat16.
        y = (y.float() if y.is_floating_point() and y.dtype != torch.float64 else y).cpu().detach()
    if np.ma.is_masked(y):
        raise ValueError("`y` must have all labels; got masked ones. Remove these samples.")
    labels = np.asarray(y)
    if labels.dtype.kind == "U" and not hasattr(y, "dtype"):
        # A list with NaN or a number among names has become an array of names.
        labels = np.asarray(y, dtype=object)
    if labels.dtype == object:
        labels = _convert_objects(labels)
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError("`y` must be finite; got NaN or infinity. Remove these samples.")
    return labels


def check_numbers(y: Any) -> np.ndarray:
    """Return the labels as an array of numbers; raise an error for other labels."""
    labels = check_labels(y)
    if labels.dtype.kind not in "fiub":
        raise ValueError(
            "`y` must contain numbers, for classes the numbers that the network was trained with;"
            f" got dtype {labels.dtype}. Encode the labels as in that training; LabelEncoder, for"
            " example, numbers names in sorted order."
        )
    return labels


def drop_unweighted(
    samples: Samples, y: Any, sample_weight: Any
) -> tuple[Samples, Any, np.ndarray | None]:
    """Return the samples of positive weight, with their labels and weights."""
    if sample_weight is None:
        return samples, y, None
    weights = check_sample_weight(sample_weight, len(samples))
    kept = np.flatnonzero(weights).tolist()
    if len(kept) < len(samples):
        samples = samples.select(kept)
        y = None if y is None else RawSamples(y).select(kept).data
    return samples, y, weights[kept]


def check_sample_weight(sample_weight: Any, count: int) -> np.ndarray:
    """Return the weights of samples, of shape (count,), float64; raise an error for bad ones."""
    if isinstance(sample_weight, Tensor):
        sample_weight = sample_weight.cpu().detach()
    try:
        weights = np.asarray(sample_weight, dtype=np.float64)
    except (TypeError, ValueError):
        raise _make_weight_error("contain numbers", "other values", "Pass numbers") from None
    if weights.ndim == 0:
        weights = np.full(count, weights)
    if weights.shape != (count,):
        required = f"have the shape ({count},), with one weight per sample"
        raise _make_weight_error(required, f"shape {weights.shape}", "Pass a weight per sample")
    total = weights.sum()
    if not np.isfinite(total):
        raise _make_weight_error("have a finite sum", f"a sum of {total}", "Pass finite weights")
    if weights.min() < 0:
        cure = "Pass 0 for samples to leave out"
        raise _make_weight_error("contain no negative number", str(weights.min()), cure)
    if weights.max() == 0:
        raise _make_weight_error("contain a positive number", "only zero weights", "Pass weights")
    return weights


def _make_weight_error(required: str, given: str, cure: str) -> ValueError:
    return ValueError(f"`sample_weight` must {required}; got {given}. {cure}.")


def _convert_objects(labels: np.ndarray) -> np.ndarray:
    """Return labels of dtype object as numbers or strings; raise an error for other objects."""
    values = labels.ravel().tolist()
    for kind in (numbers.Number | np.bool_, str):
        if all(isinstance(value, kind) for value in values):
            converted = np.array(values).reshape(labels.shape)
            # Decimals, fractions and integers beyond int64 are still objects.
            return converted.astype(np.float64) if converted.dtype == object else converted
    types = ", ".join(sorted({type(value).__name__ for value in values}))
    raise ValueError(
        "Unknown label type: `y` must contain only numbers, or only names of classes; got objects"
        f" of the types {types}. Remove samples without a label, and encode other labels."
    )


def make_label_tensor(y: Any) -> Tensor:
    """Return labels as a tensor, and check that they are finite numbers."""
    labels = check_numbers(y)
    return y if isinstance(y, Tensor) else make_tensor(labels)


def label_samples(samples: Samples, y: Any, parameter: str = "y") -> Samples:
    """Return the samples with a copy of their labels, which must be numbers.

    ``parameter`` is named in errors.
    """
    labels = make_label_tensor(y).detach().cpu().clone()
    if labels.shape[:1] != (len(samples),):
        raise ValueError(
            f"`{parameter}` must have {len(samples)} labels, one for each sample; got shape"
            f" {tuple(labels.shape)}. Pass the labels of the same samples."
        )
    return samples.with_labels(labels)
