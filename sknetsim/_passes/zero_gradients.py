"""Counts of the zero gradients in each pass over samples, and one warning about them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from ..exceptions import ZeroGradientWarning, warn


@dataclass
class ZeroGradients:
    """Count of the samples with a zero gradient.

    Attributes
    ----------
    zeros : int
        Number of samples with a zero gradient.
    total : int
        Number of all samples.
    vector_name : str
        Word for the vector that is zero, such as "gradient".
    """

    zeros: int = 0
    total: int = 0
    vector_name: str = ""

    def add(self, other: ZeroGradients) -> None:
        """Add the numbers of another pass."""
        self.zeros, self.total = self.zeros + other.zeros, self.total + other.total
        self.vector_name = other.vector_name or self.vector_name

    def report(self) -> None:
        """Warn if there is a zero gradient."""
        if self.zeros:
            warn(
                f"{self.zeros} of {self.total} samples have a zero {self.vector_name}: their"
                " similarity with every sample is 0. Check the network for dead ReLUs and"
                " saturated outputs at these samples.",
                ZeroGradientWarning,
            )


# The numbers of the enclosing `collect_zero_gradients`, or None outside of it.
_collected: ContextVar[ZeroGradients | None] = ContextVar("zero_gradients", default=None)


@contextlib.contextmanager
def collect_zero_gradients() -> Iterator[ZeroGradients]:
    """Collect the zero gradients of all passes inside the block, in place of warnings."""
    collected = ZeroGradients()
    token = _collected.set(collected)
    try:
        yield collected
    finally:
        _collected.reset(token)


def report_zero_gradients(zero_gradients: ZeroGradients) -> None:
    """Warn of zero gradients, or add them to the enclosing `collect_zero_gradients`."""
    collected = _collected.get()
    if collected is None:
        zero_gradients.report()
    else:
        collected.add(zero_gradients)
