"""Manifest of a feature store: from what its features were computed, and how they are stored."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..exceptions import FeatureStoreError

#: Dtypes of stored features.
DTYPES = ("float32", "float16")

#: Name of the file of a manifest.
MANIFEST = "manifest.json"

# Format of the stores that this version writes and reads.
_FORMAT = 2

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

    def to_json(self) -> str:
        """Return the text of the file, which contains a digest of the values."""
        values = asdict(self)
        return json.dumps({**values, "digest": _digest(values)}, indent=1)


def _digest(values: dict[str, Any]) -> str:
    """Return a digest of the values of a manifest, in hexadecimal digits."""
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=8).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a store."""
    try:
        values = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        digest = values.pop("digest", None)
        if digest not in (None, _digest(values)):
            raise ValueError("its digest is not the one of its values")
        if values["format"] == _FORMAT:
            if digest is None:
                raise KeyError("digest")
            return Manifest(**{field.name: values[field.name] for field in fields(Manifest)})
    except (FileNotFoundError, NotADirectoryError) as error:
        problem = f"has no {MANIFEST}" if folder.is_dir() else "is no folder"
        raise FeatureStoreError(
            f"`folder` must be a folder that featurize has written; got {str(folder)!r}, which"
            f" {problem}. Pass the folder of a store (if it was moved, its new folder), or call"
            " featurize."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FeatureStoreError(
            f"The {MANIFEST} of store {str(folder)!r} must be as featurize wrote it; got a damaged"
            f" manifest ({error!r}). Delete this file, and call featurize again with the same"
            " arguments, which writes it anew and keeps the shards."
        ) from error
    raise FeatureStoreError(
        f"Store {str(folder)!r} must have format {_FORMAT}; got {values['format']!r}. Read it with"
        " the version of sknetsim that wrote it, or call featurize with another folder."
    )


def check_same_manifest(folder: Path, requested: Manifest, existing: Manifest) -> None:
    """Raise an error if a store differs from the requested one."""
    differences = requested.differences(existing)
    if differences:
        raise FeatureStoreError(
            f"Store {str(folder)!r} must contain the requested features; got"
            f" {'; '.join(differences)}. Choose another folder, or delete this one."
        )
