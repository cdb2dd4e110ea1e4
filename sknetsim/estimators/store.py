"""Features of more samples than fit in memory: computed in pieces, and stored on disk."""

from __future__ import annotations

import contextlib
import numbers
import os
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import gen_batches

from .._features.manifest import DTYPES, Manifest, check_same_manifest, read_manifest
from .._features.shards import Shards, open_for_writing
from .._networks.fingerprint import fingerprint_value
from .._networks.persistence import get_versions, warn_if_different
from .._networks.samples import Samples
from .._passes.chunks import Source
from .._passes.parallel import map_samples
from ..exceptions import FeatureStoreError
from ._base import check_is_fitted
from .featurizer import GradientFeaturizer

# Largest shard: small, so that little work is lost if it is interrupted, and large, so that a
# billion samples make fewer than a million files.
_SHARD_BYTES, _SHARD_ROWS = 2**24, 8192

# Number of samples that are digested together.
_SAMPLES_PER_DIGEST = 2**16

# Number of items of a Dataset whose digests identify the Dataset.
_DATASET_ITEMS = 64


class FeatureStore:
    """Array of features on disk, which is read in parts.

    `featurize` writes a store. Estimators with ``estimator="features"`` accept it in place of an
    array, and load at most one chunk of it at a time. ``store[start:stop]`` and ``store[indices]``
    return arrays in memory, and ``numpy.asarray(store)`` returns the whole array.

    The files of a store are one ``manifest.json`` and shards, which ``numpy.load`` can read. The
    bytes of the manifest are verified when the store is opened, and those of a shard when it is
    first read. A complete store can be moved or renamed while it is not open, and its folder may be
    read-only.

    Parameters
    ----------
    folder : str or path
        Folder of the store.

    Attributes
    ----------
    folder : Path
        Absolute path of the folder.
    manifest : Manifest
        Digests of the network, the featurizer and the data, and the versions of sknetsim and other
        packages with which the features were computed.
    shape : tuple of int
        (n_samples, n_features).
    dtype : dtype
        float32 or float16.

    Raises
    ------
    FeatureStoreError
        If the folder has no store, an unfinished one, or a damaged manifest, or, on reading, if a
        shard is damaged or missing, or if the folder was moved.

    See Also
    --------
    featurize : Write a store.

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
        self.folder = _check_folder(folder)
        self.manifest = read_manifest(self.folder)
        self._shards = Shards(self.folder, self.manifest)
        missing = len(self._shards.missing)
        if missing:
            raise FeatureStoreError(
                f"`folder` must contain a complete store; got {str(self.folder)!r}, which is"
                f" unfinished: {missing} of {self.manifest.n_shards} shards are missing. Call"
                " featurize again with the same arguments, which computes only the missing shards."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the array, (n_samples, n_features)."""
        return self.manifest.n_samples, self.manifest.n_features

    @property
    def ndim(self) -> int:
        """Number of axes, 2."""
        return 2

    @property
    def dtype(self) -> np.dtype:
        """Type of the features on disk, float32 or float16."""
        return np.dtype(self.manifest.dtype)

    def __len__(self) -> int:
        return self.manifest.n_samples

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return some rows as an array in memory.

        Parameters
        ----------
        rows : int, slice, array of int or bool, or tuple
            The rows. A tuple selects rows and features, as for a NumPy array.

        Returns
        -------
        features : ndarray of shape (n_rows, n_features)
            The features, in the dtype of the store.

        Raises
        ------
        IndexError
            If a row does not exist.
        """
        if isinstance(rows, tuple) and rows:
            columns = tuple(part for part in rows[1:] if part is not Ellipsis)
            return self[rows[0]][(..., *columns)]
        indices = _resolve_indices(rows, len(self))
        features = np.empty((indices.size, self.shape[1]), self.dtype)
        shards = indices.ravel() // self.manifest.rows_per_shard
        for shard in np.unique(shards):
            in_shard = shards == shard
            positions = indices.ravel()[in_shard] - self.manifest.rows(shard).start
            features[in_shard] = self._shards.read(int(shard))[positions]
        return features.reshape(*indices.shape, self.shape[1])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all features as an array in memory."""
        features = self[:]
        return features if dtype is None else features.astype(dtype, copy=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the store by the path of its folder, and its manifest to recognise it."""
        return _reopen, (str(self.folder), self.manifest)

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.folder)!r}): {self.shape} of {self.dtype}"


def _reopen(folder: str, manifest: Manifest) -> FeatureStore:
    """Open a store that was pickled, after a check that it is the same one."""
    if not Path(folder).exists():
        raise FeatureStoreError(
            f"A loaded store must be in the folder in which it was pickled; got {folder!r}, which"
            " was moved, renamed or deleted, or is on another machine. Make a link to its new"
            " folder in its place, or open it with FeatureStore and fit the estimator again."
        )
    store = FeatureStore(folder)
    check_same_manifest(store.folder, manifest, store.manifest)
    return store


def _resolve_indices(rows: Any, length: int) -> np.ndarray:
    """Return the non-negative indices of rows that are selected as in NumPy."""
    if isinstance(rows, slice):
        return np.arange(*rows.indices(length))
    indices = np.asarray(rows)
    if indices.dtype == bool and indices.shape == (length,):
        return np.flatnonzero(indices)
    if indices.size == 0:
        return indices.astype(np.int64)
    if indices.dtype.kind not in "iu" or not (-length <= indices.min() <= indices.max() < length):
        raise IndexError(
            f"Rows must be a slice, {length} truth values, or indices between {-length} and"
            f" {length - 1}; got {rows!r}. Select rows of this store."
        )
    indices = indices.astype(np.int64)
    return np.where(indices < 0, indices + length, indices)


def featurize(
    featurizer: GradientFeaturizer,
    X: Any,
    folder: str | os.PathLike[str],
    *,
    y: Any = None,
    dtype: str = "float32",
    rows_per_shard: int | None = None,
    verbose: int = 0,
) -> FeatureStore:
    """Write the features of many samples to disk, shard by shard.

    The features are those of `GradientFeaturizer.transform`. An interrupted call can be repeated
    with the same arguments; it computes only the missing shards. A store that was begun with
    another network, featurizer or other data raises an error. To compare the data, all samples of
    an array or a table are read, but only 64 items of a Dataset. Samples are compared by their
    values after the steps of a Pipeline, so that a call can be repeated with the same samples in
    another form, such as a polars table in place of a pandas table. Items of a Dataset or of
    another sequence, which are read one by one, are only compared with such items.

    A shard is a file that gets its name when it is complete. A program that is killed loses the
    shards in progress: one, or up to four per worker. The shards are computed by the ``n_jobs``
    workers of the featurizer. Only one program at a time may write to a store.

    Parameters
    ----------
    featurizer : GradientFeaturizer
        A fitted featurizer.
    X : array-like of shape (n_samples, ...), table, list of texts or images, dict or Dataset
        The samples. Of an array on disk (``numpy.load(..., mmap_mode="r")``, zarr, h5py) or a
        Dataset, only one chunk at a time is in memory.
    folder : str or path
        Folder of the store: a new one, an empty one, or that of an interrupted call.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
        Labels of the samples, only for a featurizer with ``output="loss"``. None: the predicted
        ones.
    dtype : {"float32", "float16"}, default="float32"
        Type of the features on disk. float16 takes half the space, with an error of up to 0.0005
        times each value.
    rows_per_shard : int or None, default=None
        Samples per file. None: 8,192, or fewer if 16 MiB cannot hold as many.
    verbose : int, default=0
        Whether to show a progress bar.

    Returns
    -------
    store : FeatureStore
        The store.

    Raises
    ------
    FeatureStoreError
        If the folder contains other files, a store of another network, featurizer or data, or a
        damaged manifest.
    ChangedNetworkError
        As `GradientFeaturizer.transform`.
    OSError
        If the disk is full, or if a store that is not complete is in a read-only folder. Finished
        shards stay.

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
            "`featurizer` must be a fitted GradientFeaturizer; got a"
            f" {type(featurizer).__name__}. Fit GradientFeaturizer(network)."
        )
    check_is_fitted(featurizer, "n_components_")
    samples = featurizer._check_X(X, y, reset=False)
    source = featurizer._make_source()
    featurizer._check_projection(source)
    # Two samples, because one would not show whether the network mixes samples.
    featurizer._try_network(source, samples.select(range(min(2, len(samples)))))
    width = featurizer.n_components_
    manifest = Manifest(
        network=source.identity(),
        featurizer=fingerprint_value((featurizer._projection, featurizer.input_shape)),
        data=_fingerprint_data(source, samples),
        n_samples=len(samples),
        n_features=width,
        dtype=_check_dtype(dtype),
        rows_per_shard=_check_rows_per_shard(rows_per_shard, width * np.dtype(dtype).itemsize),
        versions=get_versions(),
    )
    with open_for_writing(_check_folder(folder), manifest) as shards:
        warn_if_different("store", shards.manifest.versions, get_versions())
        shards.check_space()
        _write_missing(shards, featurizer, source, samples, verbose)
    return FeatureStore(folder)


def _write_missing(
    shards: Shards, featurizer: GradientFeaturizer, source: Source, X: Any, verbose: int
) -> None:
    """Compute and write the missing shards."""
    missing = shards.missing
    pieces = [shards.manifest.rows(shard) for shard in missing]
    transform = featurizer._projection.transform
    results = map_samples(transform, source, X, verbose=verbose, pieces=pieces)
    with contextlib.closing(results):
        for shard, (_, features) in zip(missing, results, strict=True):
            shards.write(shard, features)


def _check_folder(folder: Any) -> Path:
    """Return the absolute path of a folder."""
    if not isinstance(folder, str | os.PathLike):
        raise TypeError(
            f"`folder` must be a name or a path; got {folder!r}. Pass the folder of the store."
        )
    return Path(folder).absolute()


def _fingerprint_data(source: Source, X: Samples) -> str:
    """Return a fingerprint of all samples, or of some items of a Dataset, which may load slowly."""
    count = len(X)
    if X.is_read_by_items:
        chosen = np.unique(np.linspace(0, count - 1, _DATASET_ITEMS).astype(int))
        digests = [source.digest(X.select([index]), source.dtype) for index in chosen]
        return fingerprint_value(digests if X.labels is None else (digests, X.labels))
    pieces = (X.part(rows) for rows in gen_batches(count, _SAMPLES_PER_DIGEST))
    return fingerprint_value([source.fingerprint_of_samples(piece) for piece in pieces])


def _check_dtype(dtype: Any) -> str:
    if dtype not in DTYPES:
        raise ValueError(
            f"`dtype` must be one of {', '.join(map(repr, DTYPES))}; got {dtype!r}. Use one of"
            " these."
        )
    return str(dtype)


def _check_rows_per_shard(rows_per_shard: int | None, row_bytes: int) -> int:
    """Return the number of samples per shard, from the bytes of one row of features."""
    if rows_per_shard is None:
        return max(1, min(_SHARD_ROWS, _SHARD_BYTES // row_bytes))
    whole = isinstance(rows_per_shard, numbers.Integral) and not isinstance(rows_per_shard, bool)
    if not whole or rows_per_shard < 1:
        raise ValueError(
            f"`rows_per_shard` must be a positive integer or None; got {rows_per_shard!r}. Set it"
            " to a number of samples."
        )
    return int(rows_per_shard)
