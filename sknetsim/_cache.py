"""What was computed before: kept by joblib under a key of our own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sklearn.utils.validation import check_memory

Result = TypeVar("Result")


def cached(memory: Any, key: str | None, compute: Callable[[], Result]) -> Result:
    """What ``compute`` gives, or gave under the same key; without a key nothing is kept.

    joblib would hash a network's object, which is another one after every pickle.
    """
    if key is None:
        return compute()
    found: Result = check_memory(memory).cache(_computed, ignore=["compute"])(key, compute)
    return found


def _computed(key: str, compute: Callable[[], Result]) -> Result:
    return compute()
