"""Shards of a feature store: arrays on disk, written atomically and verified when they are read."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import shutil
import tokenize
from collections.abc import Iterator
from pathlib import Path

import filelock
import numpy as np

from ..exceptions import FeatureStoreError
from .manifest import MANIFEST, Manifest, check_same_manifest, read_manifest

_UNFINISHED = ".unfinished"

_LOCK = ".lock"

_SHARD = re.compile(r"\d{8}-[0-9a-f]{16}\.npy")

# Errors of numpy for a file that is no array.
_UNREADABLE = (ValueError, EOFError, SyntaxError, tokenize.TokenError)

# Size of what numpy writes before an array with two axes.
_HEADER_BYTES = 128

# Errors of a full disk.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
        except FileNotFoundError as error:
            raise self._make_missing_error(path) from error
        except _UNREADABLE as error:
            size, written = path.stat().st_size, _HEADER_BYTES + self.manifest.nbytes(shard)
            truncated = f"it is truncated to {size} of {written} bytes"
            reason = truncated if size < written else f"it cannot be read: {error}"
            raise self._make_damage_error(path, reason) from error
        if (array.shape, array.dtype) != (shape, np.dtype(self.manifest.dtype)):
            reason = f"it contains {array.dtype} of shape {array.shape}"
            raise self._make_damage_error(path, reason)
        if shard not in self._verified and _digest(array, self.manifest.key) != path.stem[9:]:
            reason = "its bytes are not those that were written for this store"
            raise self._make_damage_error(path, reason)
        self._verified.add(shard)
        return array

    def _make_missing_error(self, path: Path) -> FeatureStoreError:
        if not self.folder.exists():
            return FeatureStoreError(
                f"The folder of an open store must stay in its place; got {str(self.folder)!r},"
                " which was moved, renamed or deleted. Open the store in its new folder with"
                " FeatureStore, and fit estimators that contain it again."
            )
        return FeatureStoreError(
            f"Store {str(self.folder)!r} must contain all its shards; got none with the name"
            f" {path.name!r}, which was deleted or renamed. Call featurize again, which computes"
            " only the missing shards."
        )

    def _make_damage_error(self, path: Path, reason: str) -> FeatureStoreError:
        return FeatureStoreError(
            f"The shards of store {str(self.folder)!r} must be as featurize wrote them; got the"
            f" damaged shard {path.name!r} ({reason}). Delete this file, and call featurize again,"
            " which computes only the missing shards."
        )


@contextlib.contextmanager
def open_for_writing(folder: Path, manifest: Manifest) -> Iterator[Shards]:
    """Open a new or unfinished store for writing, for one program at a time.

    A complete store is opened for reading, so that its folder may be read-only.
    """
    _check_folder(folder)
    complete = _open_complete(folder, manifest)
    if complete is not None:
        yield complete
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        acquired = filelock.FileLock(folder / _LOCK, timeout=0).acquire()
    except filelock.Timeout as error:
        raise FeatureStoreError(
            f"Store {str(folder)!r} must be written by one program at a time; it is being written"
            " by another program. Wait for that program, or end it."
        ) from error
    except OSError as error:
        raise OSError(
            error.errno,
            f"Store {str(folder)!r} must be in a folder that this program can write to; got"
            f" {error.strerror!r}. Choose another folder, or change its permissions.",
        ) from error
    with acquired:
        for unfinished in filter(_is_unfinished, folder.iterdir()):
            unfinished.unlink()
        if not (folder / MANIFEST).exists():
            _write_atomically(folder / MANIFEST, manifest.to_json().encode())
        existing = read_manifest(folder)
        check_same_manifest(folder, manifest, existing)
        yield Shards(folder, existing)


def _open_complete(folder: Path, manifest: Manifest) -> Shards | None:
    """Return the shards of a store if all are finished, else None."""
    if not (folder / MANIFEST).exists():
        return None
    existing = read_manifest(folder)
    check_same_manifest(folder, manifest, existing)
    shards = Shards(folder, existing)
    return None if shards.missing else shards


def _check_folder(folder: Path) -> None:
    """Raise an error if a path is neither new, nor an empty folder, nor a store."""
    if (folder / MANIFEST).exists() or not folder.exists():
        return
    if not folder.is_dir() or not all(map(_can_precede_manifest, folder.iterdir())):
        raise FeatureStoreError(
            f"`folder` must be a new or empty folder, or a store; got {str(folder)!r}, which is a"
            " file or contains other files. Choose another folder."
        )


def _can_precede_manifest(path: Path) -> bool:
    """Return whether a store without a manifest, such as a deleted damaged one, has this file."""
    return path.name == _LOCK or _is_unfinished(path) or _SHARD.fullmatch(path.name) is not None


def _is_unfinished(path: Path) -> bool:
    """Return whether a file is a manifest or a shard that was not written completely."""
    name = path.name.removeprefix(".").removesuffix(_UNFINISHED)
    return path.name == f".{name}{_UNFINISHED}" and (
        name == MANIFEST or _SHARD.fullmatch(name) is not None
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
