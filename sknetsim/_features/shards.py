"""Shards: arrays on disk that are written whole or not at all, and verified when they are read."""

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

#: What features can be kept in.
DTYPES = ("float32", "float16")

_MANIFEST = "manifest.json"

_UNFINISHED = ".unfinished"

_LOCK = ".lock"

_SHARD = re.compile(r"\d{8}-[0-9a-f]{16}\.npy")

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

#: The one that is written and read.
_FORMAT = 1

#: What must be the same where a store is continued, as it is told.
_MATTERS = {
    "format": "a format of another version",
    "network": "features of another network",
    "featurizer": "features of another featurizer, or of one that was fitted again",
    "data": "features of other data",
    "n_samples": "features of so many rows",
    "n_features": "so many features",
    "dtype": "features of dtype",
    "rows_per_shard": "so many rows in a shard",
}


@dataclass(frozen=True)
class Manifest:
    """What a store holds, and what it was made from.

    Attributes
    ----------
    network, featurizer, data : str
        Digests.
    n_samples, n_features : int
        The shape.
    dtype : str
        One of `DTYPES`.
    rows_per_shard : int
        Rows in each file but the last.
    versions : dict of str to str
        Of what the numbers depend on.
    format : int
        Of the store itself.
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
        """Refuse what cannot have been written so."""
        numbers = (self.n_samples, self.n_features, self.rows_per_shard)
        if not all(isinstance(number, int) and number > 0 for number in numbers):
            raise ValueError(f"numbers are {numbers}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}")

    @property
    def key(self) -> bytes:
        """What the digests of its shards are keyed with: those of another store do not fit."""
        held = {name: getattr(self, name) for name in _MATTERS}
        return hashlib.blake2b(json.dumps(held).encode(), digest_size=16).digest()

    @property
    def n_shards(self) -> int:
        """Number of files."""
        return -(-self.n_samples // self.rows_per_shard)

    def rows(self, shard: int) -> slice:
        """The rows in a file."""
        start = shard * self.rows_per_shard
        return slice(start, min(start + self.rows_per_shard, self.n_samples))

    def shape(self, shard: int) -> tuple[int, int]:
        """Of the array in a file."""
        rows = self.rows(shard)
        return rows.stop - rows.start, self.n_features

    def nbytes(self, shard: int) -> int:
        """Of the array in a file."""
        rows, features = self.shape(shard)
        return rows * features * np.dtype(self.dtype).itemsize

    def differences(self, other: Manifest) -> list[str]:
        """What another one holds that this one does not."""
        return [
            f"{told} ({getattr(other, name)}, not {getattr(self, name)})"
            for name, told in _MATTERS.items()
            if getattr(other, name) != getattr(self, name)
        ]


class Shards:
    """The files of a store: ``00000003-5f1d....npy`` holds shard 3, its content's digest that name.

    A file gets its name once it is whole, so that what is there at any moment is finished.

    Parameters
    ----------
    folder : Path
        Where they are.
    manifest : Manifest
        What they hold.
    """

    def __init__(self, folder: Path, manifest: Manifest):
        self.folder = folder
        self.manifest = manifest
        named = (path for path in sorted(folder.iterdir()) if _SHARD.fullmatch(path.name))
        self._paths = {int(path.name[:8]): path for path in named}
        self._verified: set[int] = set()

    @property
    def missing(self) -> list[int]:
        """Those that are not there."""
        return [shard for shard in range(self.manifest.n_shards) if shard not in self._paths]

    def refuse_without_space(self) -> None:
        """Where the disk cannot hold what is missing."""
        needed = sum(map(self.manifest.nbytes, self.missing))
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise OSError(
                errno.ENOSPC,
                f"store {str(self.folder)!r} needs {needed / 2**20:,.0f} MiB more, and its disk has"
                f" {free / 2**20:,.0f} MiB left; allowed is what fits: free some, take"
                " dtype='float16', or fewer features",
            )

    def write(self, shard: int, features: np.ndarray) -> None:
        """One file, whole or not at all, also where the power fails."""
        array = np.ascontiguousarray(features, dtype=self.manifest.dtype)
        path = self.folder / f"{shard:08d}-{_digest(array, self.manifest.key)}.npy"
        content = io.BytesIO()
        np.save(content, array, allow_pickle=False)
        try:
            # In one piece: where numpy writes to a file itself, its error does not say why.
            _put(path, content.getbuffer())
        except OSError as error:
            raise OSError(error.errno, self._told(shard, error)) from error
        self._paths[shard] = path

    def _told(self, shard: int, error: OSError) -> str:
        rows, finished = self.manifest.rows(shard), len(self._paths)
        return (
            f"store {str(self.folder)!r} could not take rows {rows.start} to {rows.stop}"
            f" ({error.strerror}); {finished} of {self.manifest.n_shards} shards are finished and"
            f" intact: {'make room' if error.errno in _FULL else 'mend that'}, and call featurize"
            " again, which goes on from there"
        )

    def read(self, shard: int) -> np.ndarray:
        """An array on disk, whose bytes are verified the first time."""
        path, wanted = self._paths[shard], self.manifest.shape(shard)
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        except (FileNotFoundError, ValueError, EOFError) as error:
            raise self._damaged(path, f"it cannot be read: {error}") from error
        if (found.shape, found.dtype) != (wanted, np.dtype(self.manifest.dtype)):
            raise self._damaged(path, f"it holds {found.dtype} of shape {found.shape}")
        if shard not in self._verified and _digest(found, self.manifest.key) != path.stem[9:]:
            raise self._damaged(path, "its bytes are not those that were written for this store")
        self._verified.add(shard)
        return found

    def _damaged(self, path: Path, reason: str) -> FeatureStoreError:
        return FeatureStoreError(
            f"shard {path.name!r} of store {str(self.folder)!r} is damaged ({reason}); allowed are"
            " shards as they were written: delete this file, and call featurize again, which makes"
            " this one anew."
        )


@contextlib.contextmanager
def open_for_writing(folder: Path, manifest: Manifest) -> Iterator[Shards]:
    """A store to be written, or continued where it was left, by one program at a time."""
    _refuse_other_folders(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        acquired = filelock.FileLock(folder / _LOCK, timeout=0).acquire()
    except filelock.Timeout as error:
        raise FeatureStoreError(
            f"store {str(folder)!r} is being written by another program; allowed is one at a time:"
            " wait for that one, or end it."
        ) from error
    with acquired:
        for unfinished in filter(_is_unfinished, folder.iterdir()):
            unfinished.unlink()
        if not (folder / _MANIFEST).exists():
            _put(folder / _MANIFEST, json.dumps(asdict(manifest), indent=1).encode())
        found = read_manifest(folder)
        check_same_manifest(folder, manifest, found)
        yield Shards(folder, found)


def _refuse_other_folders(folder: Path) -> None:
    """Before anything is touched."""
    if (folder / _MANIFEST).exists() or not folder.exists():
        return
    if not folder.is_dir() or not all(map(_is_ours, folder.iterdir())):
        raise FeatureStoreError(
            f"store {str(folder)!r} is something else; allowed are empty or new folders, and"
            " stores: choose another one."
        )


def _is_ours(path: Path) -> bool:
    """Whether a store that was hardly begun has it."""
    return path.name == _LOCK or _is_unfinished(path)


def _is_unfinished(path: Path) -> bool:
    name = path.name.removeprefix(".").removesuffix(_UNFINISHED)
    return path.name == f".{name}{_UNFINISHED}" and (
        name == _MANIFEST or _SHARD.fullmatch(name) is not None
    )


def read_manifest(folder: Path) -> Manifest:
    """What a store says that it holds."""
    path = folder / _MANIFEST
    try:
        found = json.loads(path.read_text())
        if found["format"] == _FORMAT:
            return Manifest(**{field.name: found[field.name] for field in fields(Manifest)})
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FeatureStoreError(
            f"store {str(folder)!r} has no {_MANIFEST}; allowed are folders that featurize has"
            " written: look for the right one, or call featurize."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise FeatureStoreError(
            f"store {str(folder)!r} has a damaged {_MANIFEST} ({error!r}); allowed is one as it was"
            " written: delete the store, and call featurize."
        ) from error
    raise FeatureStoreError(
        f"store {str(folder)!r} has format {found['format']!r}; allowed is {_FORMAT}: read it with"
        " the version of sknetsim that wrote it."
    )


def check_same_manifest(folder: Path, manifest: Manifest, found: Manifest) -> None:
    differences = manifest.differences(found)
    if differences:
        raise FeatureStoreError(
            f"store {str(folder)!r} holds {'; '.join(differences)}; allowed is what it was begun"
            " with: choose another folder, or delete this one."
        )


def _put(path: Path, content: bytes | memoryview) -> None:
    """A file, whole or not at all, also where the power fails."""
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
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _digest(array: np.ndarray, key: bytes) -> str:
    return hashlib.blake2b(array.data, digest_size=8, key=key).hexdigest()
