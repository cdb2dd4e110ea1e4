"""Features of more samples than memory holds: made in pieces, kept on disk, read in parts."""

from __future__ import annotations

import contextlib
import numbers
import os
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import gen_batches
from torch.utils.data import Dataset

from .._features.shards import (
    DTYPES,
    Manifest,
    Shards,
    check_same_manifest,
    open_for_writing,
    read_manifest,
)
from .._networks.fingerprint import digest_samples, fingerprint_value
from .._networks.persistence import get_versions, warn_if_different
from .._networks.samples import Samples
from .._passes.chunks import Source
from .._passes.parallel import map_samples
from ..exceptions import FeatureStoreError
from ._base import check_is_fitted
from .featurizer import GradientFeaturizer

# Of a shard: little is lost with one that is not finished, and a billion rows are no million files.
_SHARD_BYTES, _SHARD_ROWS = 2**24, 8192

# Rows whose digests are taken together; items of a Dataset that stand for the others.
_DIGESTED = 2**16

_SAMPLED = 64


class FeatureStore:
    """Features of many samples, on disk: an array that is read in parts.

    Made by `featurize`. Estimators with ``estimator="features"`` take it in place of an array, and
    never hold more than a chunk of it; ``store[start:stop]`` and ``store[indices]`` are arrays in
    memory, ``numpy.asarray(store)`` is all of it. Its files are one ``manifest.json`` and shards
    that ``numpy.load`` reads; the bytes of a shard are verified when it is first read.

    Parameters
    ----------
    folder : str or path
        Where it is.

    Attributes
    ----------
    folder : Path
        Where it is.
    manifest : Manifest
        Digests of the network, of the featurizer and of the data, and the versions of this and
        other packages that it was made with.
    shape : tuple of int
        (n_samples, n_features).
    dtype : dtype
        float32 or float16.

    Raises
    ------
    FeatureStoreError
        If there is no store, or an unfinished one; when reading, if a shard is damaged.

    See Also
    --------
    featurize : Makes one.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from sknetsim import GradientFeaturizer, NetworkDensity, featurize
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> X = torch.randn(100, 2)
    >>> featurizer = GradientFeaturizer(network, n_components=16, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = featurize(featurizer, X, folder)
    ...     NetworkDensity("features").fit(store).score_samples(store[:3]).shape
    (3,)
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = _checked_folder(folder)
        self.manifest = read_manifest(self.folder)
        self._shards = Shards(self.folder, self.manifest)
        missing = len(self._shards.missing)
        if missing:
            raise FeatureStoreError(
                f"store {str(self.folder)!r} is unfinished: {missing} of {self.manifest.n_shards}"
                " shards are missing; allowed are whole ones: call featurize again with the same"
                " arguments, which goes on from there."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(n_samples, n_features)."""
        return self.manifest.n_samples, self.manifest.n_features

    @property
    def ndim(self) -> int:
        """2."""
        return 2

    @property
    def dtype(self) -> np.dtype:
        """What it is kept in."""
        return np.dtype(self.manifest.dtype)

    def __len__(self) -> int:
        return self.manifest.n_samples

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Some rows, in memory: a slice, an index, or an array of indices or of truth values.

        Or these and some of the features, as of an array.
        """
        if isinstance(rows, tuple) and rows:
            more = tuple(part for part in rows[1:] if part is not Ellipsis)
            return self[rows[0]][(..., *more)]
        indices = _indices(rows, len(self))
        found = np.empty((indices.size, self.shape[1]), self.dtype)
        shards = indices.ravel() // self.manifest.rows_per_shard
        for shard in np.unique(shards):
            wanted = shards == shard
            inside = indices.ravel()[wanted] - self.manifest.rows(shard).start
            found[wanted] = self._shards.read(int(shard))[inside]
        return found.reshape(*indices.shape, self.shape[1])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of it, in memory."""
        found = self[:]
        return found if dtype is None else found.astype(dtype, copy=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """By its folder."""
        return _opened, (str(self.folder), self.manifest)

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.folder)!r}): {self.shape} of {self.dtype}"


def _opened(folder: str, manifest: Manifest) -> FeatureStore:
    """The store that was pickled."""
    store = FeatureStore(folder)
    check_same_manifest(store.folder, manifest, store.manifest)
    return store


def _indices(rows: Any, length: int) -> np.ndarray:
    """Of rows that are given as numpy takes them."""
    if isinstance(rows, slice):
        return np.arange(*rows.indices(length))
    indices = np.asarray(rows)
    if indices.dtype == bool and indices.shape == (length,):
        return np.flatnonzero(indices)
    if indices.size == 0:
        return indices.astype(np.int64)
    if indices.dtype.kind not in "iu" or not (-length <= indices.min() <= indices.max() < length):
        raise IndexError(
            f"rows are {rows!r}; allowed are slices, truth values for all {length} rows, and"
            f" indices from {-length} to {length - 1}."
        )
    indices = indices.astype(np.int64)
    return np.where(indices < 0, indices + length, indices)


def featurize(
    featurizer: GradientFeaturizer,
    X: Any,
    folder: str | os.PathLike[str],
    *,
    dtype: str = "float32",
    rows_per_shard: int | None = None,
    verbose: int = 0,
) -> FeatureStore:
    """Write features of many samples to disk, shard by shard, and go on where it was interrupted.

    Each shard is a file that gets its name once it is whole, so that a program that is killed
    loses those that it works on (one; with workers up to four for each). Called again with the
    same arguments, it makes what is missing; the store is refused where it was begun with another
    network, featurizer or other data (all rows of arrays are compared, 64 items of a Dataset). One
    program at a time may write to a store; the featurizer's ``n_jobs`` workers make its shards.

    Parameters
    ----------
    featurizer : GradientFeaturizer
        A fitted one.
    X : array-like of shape (n_samples, ...) or Dataset
        The rows; of arrays on disk (``numpy.load(..., mmap_mode="r")``, zarr, h5py) and of Datasets
        no more than a chunk is in memory at a time.
    folder : str or path
        Where the store is, or is to be.
    dtype : {"float32", "float16"}, default="float32"
        What features are kept in: float16 takes half of the space, with errors up to 0.0005 of each
        value.
    rows_per_shard : int or None, default=None
        Rows in a file; None: 8,192, or what 16 MiB hold where that is less.
    verbose : int, default=0
        Whether to show a progress bar.

    Returns
    -------
    store : FeatureStore
        The features, as `GradientFeaturizer.transform` gives them.

    Raises
    ------
    FeatureStoreError
        If the folder holds something else than was asked for.
    OSError
        If the disk is full; what is finished stays.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from sknetsim import GradientFeaturizer, featurize
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> X = torch.randn(100, 2)
    >>> featurizer = GradientFeaturizer(network, n_components=16, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = featurize(featurizer, X, folder, rows_per_shard=30)
    ...     print(store.shape, store[:5].dtype)
    (100, 16) float32
    """
    if not isinstance(featurizer, GradientFeaturizer):
        raise TypeError(
            f"featurizer is a {type(featurizer).__name__}; allowed is a fitted GradientFeaturizer:"
            " put the network in one."
        )
    check_is_fitted(featurizer, "n_components_")
    samples = featurizer._check_X(X, reset=False)
    source = featurizer._make_source()
    # Shards of one row would not show whether the network mixes samples.
    featurizer._try_network(source, samples.select(range(min(2, len(samples)))), None)
    width = featurizer.n_components_
    manifest = Manifest(
        network=source.identity(),
        featurizer=fingerprint_value((featurizer._projection, featurizer.input_shape)),
        data=_fingerprint_of_data(source, samples),
        n_samples=len(samples),
        n_features=width,
        dtype=_checked_dtype(dtype),
        rows_per_shard=_checked_rows(rows_per_shard, width * np.dtype(dtype).itemsize),
        versions=get_versions(),
    )
    with open_for_writing(_checked_folder(folder), manifest) as shards:
        warn_if_different("store", shards.manifest.versions, get_versions())
        shards.refuse_without_space()
        _fill(shards, featurizer, source, samples, verbose)
    return FeatureStore(folder)


def _fill(
    shards: Shards, featurizer: GradientFeaturizer, source: Source, X: Any, verbose: int
) -> None:
    """Make what is missing."""
    missing = shards.missing
    pieces = [shards.manifest.rows(shard) for shard in missing]
    transform = featurizer._projection.transform
    made = map_samples(transform, source, X, (None,), (), verbose, pieces)
    with contextlib.closing(made):
        for shard, (_, found) in zip(missing, made, strict=True):
            shards.write(shard, found)


def _checked_folder(folder: Any) -> Path:
    if not isinstance(folder, str | os.PathLike):
        raise TypeError(
            f"folder is {folder!r}; allowed are names and paths: say where the store is."
        )
    return Path(folder).absolute()


def _fingerprint_of_data(source: Source, X: Samples) -> str:
    """Of all rows, or of some items of a Dataset, which may be slow to load."""
    count = len(X)
    if isinstance(X.data, Dataset):
        chosen = np.unique(np.linspace(0, count - 1, _SAMPLED).astype(int))
        return fingerprint_value(
            [digest_samples(X.select([index]), source.dtype) for index in chosen]
        )
    pieces = (X.part(rows) for rows in gen_batches(count, _DIGESTED))
    return fingerprint_value([source.fingerprint_of_rows(piece) for piece in pieces])


def _checked_dtype(dtype: Any) -> str:
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; allowed are {', '.join(map(repr, DTYPES))}.")
    return str(dtype)


def _checked_rows(rows_per_shard: int | None, row_bytes: int) -> int:
    if rows_per_shard is None:
        return max(1, min(_SHARD_ROWS, _SHARD_BYTES // row_bytes))
    whole = isinstance(rows_per_shard, numbers.Integral) and not isinstance(rows_per_shard, bool)
    if not whole or rows_per_shard < 1:
        raise ValueError(
            f"rows_per_shard is {rows_per_shard!r}; allowed are integers of at least 1, and None."
        )
    return int(rows_per_shard)
