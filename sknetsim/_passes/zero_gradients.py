"""How many samples have no gradient: counted in each pass over data, and warned of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from ..exceptions import ZeroGradientWarning, warn


@dataclass
class ZeroGradients:
    """How many samples have no gradient, of how many.

    Attributes
    ----------
    zeros, total : int
        The numbers.
    vector : str
        What is zero.
    """

    zeros: int = 0
    total: int = 0
    vector: str = ""

    def add(self, other: ZeroGradients) -> None:
        """Count others too."""
        self.zeros, self.total = self.zeros + other.zeros, self.total + other.total
        self.vector = other.vector or self.vector

    def report(self) -> None:
        """Warn of them, if there are any."""
        if self.zeros:
            warn(
                f"{self.zeros} of {self.total} samples have a zero {self.vector}: their similarity"
                " with every sample is 0 (is the network dead there, or does it saturate?).",
                ZeroGradientWarning,
            )


_collected: ContextVar[ZeroGradients | None] = ContextVar("zero_gradients", default=None)


@contextlib.contextmanager
def collect_zero_gradients() -> Iterator[ZeroGradients]:
    """Passes over parts of data count their zero gradients here, and do not warn of them."""
    token = _collected.set(ZeroGradients())
    try:
        found = _collected.get()
        assert found is not None
        yield found
    finally:
        _collected.reset(token)


def report_zero_gradients(found: ZeroGradients) -> None:
    """Warn of a pass's zero gradients, or leave that to who counts several passes together."""
    collected = _collected.get()
    if collected is None:
        found.report()
    else:
        collected.add(found)
