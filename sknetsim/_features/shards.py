"""Shards of a feature store: arrays on disk, written atomically and verified when they are read."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import filelock
import numpy as np

from ..exceptions import FeatureStoreError

#: Dtypes of stored features.
DTYPES = ("float32", "float16")

_MANIFEST = "manifest.json"

_UNFINISHED = ".unfinished"

_LOCK = ".lock"

_SHARD = re.compile(r"\d{8}-[0-9a-f]{16}\.npy")

# Errors of a full disk.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Format of the stores that this version writes and reads.
_FORMAT = 1

# Fields that must be the same to continue or load a store, and how a difference is described.
_DIFFERENCES = {
    "format": "another format",
    "network": "features of another network",
    "featurizer": "features of another featurizer, or of one that was fitted again",
    "data": "features of other data",
    "n_samples": "another number of samples",
    "n_features": "another number of features",
    "dtype": "another dtype",
    "rows_per_shard": "another number of rows per shard",
}


@dataclass(frozen=True)
class Manifest:
    """Contents of a store, and the network, featurizer and data from which it was computed.

    Attributes
    ----------
    network, featurizer, data : str
        Digests of the network, the featurizer and the data.
    n_samples, n_features : int
        Shape of the features.
    dtype : str
        One of `DTYPES`.
    rows_per_shard : int
        Number of rows in each file but the last.
    versions : dict of str to str
        Versions of the packages on which the numbers depend.
    format : int
        Format of the store.
    """

    network: str
    featurizer: str
    data: str
    n_samples: int
    n_features: int
    dtype: str
    rows_per_shard: int
    versions: dict[str, str]
    format: int = _FORMAT

    def __post_init__(self) -> None:
        """Raise an error if a value is impossible."""
        numbers = (self.n_samples, self.n_features, self.rows_per_shard)
        if not all(isinstance(number, int) and number > 0 for number in numbers):
            raise ValueError(f"Numbers of rows and features must be positive; got {numbers}.")
        if self.dtype not in DTYPES:
            allowed = ", ".join(map(repr, DTYPES))
            raise ValueError(f"The dtype must be one of {allowed}; got {self.dtype!r}.")

    @property
    def key(self) -> bytes:
        """Key of the digests of the shards, so that a shard of another store is recognised."""
        values = {name: getattr(self, name) for name in _DIFFERENCES}
        return hashlib.blake2b(json.dumps(values).encode(), digest_size=16).digest()

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return -(-self.n_samples // self.rows_per_shard)

    def rows(self, shard: int) -> slice:
        """Return the rows in a shard."""
        start = shard * self.rows_per_shard
        return slice(start, min(start + self.rows_per_shard, self.n_samples))

    def shape(self, shard: int) -> tuple[int, int]:
        """Return the shape of the array in a shard."""
        rows = self.rows(shard)
        return rows.stop - rows.start, self.n_features

    def nbytes(self, shard: int) -> int:
        """Return the size of the array in a shard, in bytes."""
        rows, features = self.shape(shard)
        return rows * features * np.dtype(self.dtype).itemsize

    def differences(self, other: Manifest) -> list[str]:
        """Return a description of each difference, with the values of the other manifest first."""
        return [
            f"{difference} ({getattr(other, name)}, not {getattr(self, name)})"
            for name, difference in _DIFFERENCES.items()
            if getattr(other, name) != getattr(self, name)
        ]


class Shards:
    """Files of a store, such as ``00000003-5f1d....npy`` for shard 3 with the digest 5f1d....

    A file gets its name when it is complete, so every file with a name of this form is complete.

    Parameters
    ----------
    folder : Path
        Folder of the store.
    manifest : Manifest
        Manifest of the store.
    """

    def __init__(self, folder: Path, manifest: Manifest):
        self.folder = folder
        self.manifest = manifest
        named = (path for path in sorted(folder.iterdir()) if _SHARD.fullmatch(path.name))
        self._paths = {int(path.name[:8]): path for path in named}
        self._verified: set[int] = set()

    @property
    def missing(self) -> list[int]:
        """Shards without a file."""
        return [shard for shard in range(self.manifest.n_shards) if shard not in self._paths]

    def check_space(self) -> None:
        """Raise an error if the disk has no space for the missing shards."""
        needed = sum(map(self.manifest.nbytes, self.missing))
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise OSError(
                errno.ENOSPC,
                f"Store {str(self.folder)!r} must fit on its disk, which has"
                f" {free / 2**20:,.0f} MiB left; it needs {needed / 2**20:,.0f} MiB more. Free some"
                " space, set dtype='float16', or compute fewer features.",
            )

    def write(self, shard: int, features: np.ndarray) -> None:
        """Write a shard, completely or not at all, even if the power fails."""
        array = np.ascontiguousarray(features, dtype=self.manifest.dtype)
        path = self.folder / f"{shard:08d}-{_digest(array, self.manifest.key)}.npy"
        content = io.BytesIO()
        np.save(content, array, allow_pickle=False)
        try:
            # If numpy wrote to the file itself, its error would not contain the reason.
            _write_atomically(path, content.getbuffer())
        except OSError as error:
            raise OSError(error.errno, self._describe_failure(shard, error)) from error
        self._paths[shard] = path

    def _describe_failure(self, shard: int, error: OSError) -> str:
        """Return the message of an error that occurred while a shard was written."""
        rows, finished = self.manifest.rows(shard), len(self._paths)
        return (
            f"Store {str(self.folder)!r} could not be extended by rows {rows.start} to {rows.stop}"
            f" ({error.strerror}); {finished} of {self.manifest.n_shards} shards are finished and"
            f" intact. {'Free some space' if error.errno in _FULL else 'Remove the cause'}, and"
            " call featurize again, which computes only the missing shards."
        )

    def read(self, shard: int) -> np.ndarray:
        """Return the array of a shard, mapped from disk; its first use verifies its bytes."""
        path, shape = self._paths[shard], self.manifest.shape(shard)
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (FileNotFoundError, ValueError, EOFError) as error:
            raise self._make_damage_error(path, f"it cannot be read: {error}") from error
        if (array.shape, array.dtype) != (shape, np.dtype(self.manifest.dtype)):
            reason = f"it contains {array.dtype} of shape {array.shape}"
            raise self._make_damage_error(path, reason)
        if shard not in self._verified and _digest(array, self.manifest.key) != path.stem[9:]:
            reason = "its bytes are not those that were written for this store"
            raise self._make_damage_error(path, reason)
        self._verified.add(shard)
        return array

    def _make_damage_error(self, path: Path, reason: str) -> FeatureStoreError:
        return FeatureStoreError(
            f"The shards of store {str(self.folder)!r} must be as featurize wrote them; got the"
            f" damaged shard {path.name!r} ({reason}). Delete this file, and call featurize again,"
            " which computes only the missing shards."
        )


@contextlib.contextmanager
def open_for_writing(folder: Path, manifest: Manifest) -> Iterator[Shards]:
    """Open a new or unfinished store for writing, for one program at a time."""
    _check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        acquired = filelock.FileLock(folder / _LOCK, timeout=0).acquire()
    except filelock.Timeout as error:
        raise FeatureStoreError(
            f"Store {str(folder)!r} must be written by one program at a time; it is being written"
            " by another program. Wait for that program, or end it."
        ) from error
    with acquired:
        for unfinished in filter(_is_unfinished, folder.iterdir()):
            unfinished.unlink()
        if not (folder / _MANIFEST).exists():
            _write_atomically(folder / _MANIFEST, json.dumps(asdict(manifest), indent=1).encode())
        existing = read_manifest(folder)
        check_same_manifest(folder, manifest, existing)
        yield Shards(folder, existing)


def _check_folder(folder: Path) -> None:
    """Raise an error if a path is neither new, nor an empty folder, nor a store."""
    if (folder / _MANIFEST).exists() or not folder.exists():
        return
    if not folder.is_dir() or not all(map(_can_precede_manifest, folder.iterdir())):
        raise FeatureStoreError(
            f"`folder` must be a new or empty folder, or a store; got {str(folder)!r}, which is a"
            " file or contains other files. Choose another folder."
        )


def _can_precede_manifest(path: Path) -> bool:
    """Return whether featurize writes a file of this name before the manifest."""
    return path.name == _LOCK or _is_unfinished(path)


def _is_unfinished(path: Path) -> bool:
    """Return whether a file is a manifest or a shard that was not written completely."""
    name = path.name.removeprefix(".").removesuffix(_UNFINISHED)
    return path.name == f".{name}{_UNFINISHED}" and (
        name == _MANIFEST or _SHARD.fullmatch(name) is not None
    )


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a store."""
    path = folder / _MANIFEST
    try:
        values = json.loads(path.read_text())
        if values["format"] == _FORMAT:
            return Manifest(**{field.name: values[field.name] for field in fields(Manifest)})
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FeatureStoreError(
            f"`folder` must be a folder that featurize has written; got {str(folder)!r}, which has"
            f" no {_MANIFEST}. Pass the folder of a store, or call featurize."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise FeatureStoreError(
            f"The {_MANIFEST} of store {str(folder)!r} must be as featurize wrote it; got a damaged"
            f" manifest ({error!r}). Delete the store, and call featurize."
        ) from error
    raise FeatureStoreError(
        f"Store {str(folder)!r} must have format {_FORMAT}; got {values['format']!r}. Read it with"
        " the version of sknetsim that wrote it."
    )


def check_same_manifest(folder: Path, requested: Manifest, existing: Manifest) -> None:
    """Raise an error if a store differs from the requested one."""
    differences = requested.differences(existing)
    if differences:
        raise FeatureStoreError(
            f"Store {str(folder)!r} must contain the requested features; got"
            f" {'; '.join(differences)}. Choose another folder, or delete this one."
        )


def _write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file, completely or not at all, even if the power fails."""
    unfinished = path.with_name(f".{path.name}{_UNFINISHED}")
    try:
        _write(unfinished, content)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(path.parent, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _write(path: Path, content: bytes | memoryview) -> None:
    """Write a file, and wait until it is on disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _digest(array: np.ndarray, key: bytes) -> str:
    """Return a digest of the bytes of an array, in hexadecimal digits."""
    return hashlib.blake2b(array.data, digest_size=8, key=key).hexdigest()
