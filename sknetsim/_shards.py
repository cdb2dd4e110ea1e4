"""Shards: arrays on disk that are written whole or not at all, and verified when they are read."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import uuid
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from .exceptions import FeatureStoreError

#: What features can be kept in.
DTYPES = ("float32", "float16")

_MANIFEST = "manifest.json"
_UNFINISHED = ".unfinished"
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
    format: int = 1

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
        self._paths = {int(path.name[:8]): path for path in sorted(folder.glob("????????-*.npy"))}
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
        path = self.folder / f"{shard:08d}-{_digest(array)}.npy"
        unfinished = _unfinished(path)
        try:
            _write(unfinished, array)
            os.replace(unfinished, path)
        except OSError as error:
            raise OSError(error.errno, self._told(shard, error)) from error
        finally:
            unfinished.unlink(missing_ok=True)
        self._paths[shard] = path

    def _told(self, shard: int, error: OSError) -> str:
        rows, finished = self.manifest.rows(shard), len(self._paths)
        return (
            f"store {str(self.folder)!r} could not take rows {rows.start} to {rows.stop}"
            f" ({error.strerror}); {finished} of {self.manifest.n_shards} shards are finished and"
            " intact: make room, and call featurize again, which goes on from there"
        )

    def read(self, shard: int) -> np.ndarray:
        """An array on disk, whose bytes are verified the first time."""
        path, wanted = self._paths[shard], self.manifest.shape(shard)
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise self._damaged(path, f"it cannot be read: {error}") from error
        if (found.shape, found.dtype) != (wanted, np.dtype(self.manifest.dtype)):
            raise self._damaged(path, f"it holds {found.dtype} of shape {found.shape}")
        if shard not in self._verified and _digest(found) != path.stem[9:]:
            raise self._damaged(path, "its bytes are not those that were written")
        self._verified.add(shard)
        return found

    def _damaged(self, path: Path, reason: str) -> FeatureStoreError:
        return FeatureStoreError(
            f"shard {path.name!r} of store {str(self.folder)!r} is damaged ({reason}); allowed are"
            " shards as they were written: delete this file, and call featurize again, which makes"
            " this one anew."
        )


def begun(folder: Path, manifest: Manifest) -> Shards:
    """A store to be written, or continued where it was left."""
    folder.mkdir(parents=True, exist_ok=True)
    for unfinished in folder.glob(f".*{_UNFINISHED}"):
        unfinished.unlink()
    if (folder / _MANIFEST).exists():
        refuse_differences(folder, manifest, read_manifest(folder))
    elif any(folder.iterdir()):
        raise FeatureStoreError(
            f"store {str(folder)!r} is a folder of something else; allowed are empty or new"
            " folders, and stores: choose another one."
        )
    else:
        _write_manifest(folder, manifest)
    return Shards(folder, manifest)


def read_manifest(folder: Path) -> Manifest:
    """What a store says that it holds."""
    path = folder / _MANIFEST
    try:
        found = json.loads(path.read_text())
        return Manifest(**{field.name: found[field.name] for field in fields(Manifest)})
    except FileNotFoundError as error:
        raise FeatureStoreError(
            f"store {str(folder)!r} has no {_MANIFEST}; allowed are folders that featurize has"
            " written: look for the right one, or call featurize."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise FeatureStoreError(
            f"store {str(folder)!r} has a damaged {_MANIFEST} ({error!r}); allowed is one as it was"
            " written: delete the store, and call featurize."
        ) from error


def refuse_differences(folder: Path, manifest: Manifest, found: Manifest) -> None:
    differences = manifest.differences(found)
    if differences:
        raise FeatureStoreError(
            f"store {str(folder)!r} holds {'; '.join(differences)}; allowed is what it was begun"
            " with: choose another folder, or delete this one."
        )


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    path = folder / _MANIFEST
    unfinished = _unfinished(path)
    unfinished.write_text(json.dumps(asdict(manifest), indent=1))
    os.replace(unfinished, path)


def _unfinished(path: Path) -> Path:
    """Of the same folder, so that it can be renamed in one step."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}{_UNFINISHED}")


def _write(path: Path, array: np.ndarray) -> None:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    with path.open("wb") as file:
        # In one piece: where numpy writes to a file itself, its error does not say why it failed.
        file.write(content.getbuffer())
        file.flush()
        os.fsync(file.fileno())


def _digest(array: np.ndarray) -> str:
    return hashlib.blake2b(array.data, digest_size=8).hexdigest()
