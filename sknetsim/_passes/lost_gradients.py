"""Counts of zero gradients and dropped outputs in each pass over samples, and their warnings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from ..exceptions import DroppedOutputsWarning, ZeroGradientWarning, warn


@dataclass
class LostGradients:
    """Count of the samples with a zero gradient, and of those with outputs dropped by whitening.

    Attributes
    ----------
    zeros : int
        Number of samples with a zero gradient.
    total : int
        Number of all samples.
    vector_name : str
        Word for the vector that is zero, such as "gradient".
    reduced : int
        Number of samples with dropped outputs.
    dropped : int
        Largest number of outputs that are dropped at a sample.
    outputs : int
        Number of all outputs.
    """

    zeros: int = 0
    total: int = 0
    vector_name: str = ""
    reduced: int = 0
    dropped: int = 0
    outputs: int = 0

    def add(self, other: LostGradients) -> None:
        """Add the numbers of another pass."""
        self.zeros, self.total = self.zeros + other.zeros, self.total + other.total
        self.vector_name = other.vector_name or self.vector_name
        self.reduced += other.reduced
        self.dropped = max(self.dropped, other.dropped)
        self.outputs = max(self.outputs, other.outputs)

    def report(self) -> None:
        """Warn if there is a zero gradient, or a dropped output."""
        if self.zeros:
            warn(
                f"{self.zeros} of {self.total} samples have a zero {self.vector_name}: their"
                " similarity with every sample is 0. Check the network for dead ReLUs and"
                " saturated outputs at these samples.",
                ZeroGradientWarning,
            )
        if self.reduced:
            warn(
                f"At least {self.reduced} of {self.total} samples have dropped outputs, up to"
                f" {self.dropped} of {self.outputs}: their gradients are too short beside the"
                " longest one, or too close to combinations of the others, for the precision of the"
                " network. The similarity ignores these outputs at these samples. Convert the"
                " network to float64 with .double(), rescale its outputs, compare logits instead"
                " of probabilities, or select outputs by their indices (`output`).",
                DroppedOutputsWarning,
            )


# The numbers of the enclosing `collect_lost_gradients`, or None outside of it.
_collected: ContextVar[LostGradients | None] = ContextVar("lost_gradients", default=None)


@contextlib.contextmanager
def collect_lost_gradients() -> Iterator[LostGradients]:
    """Collect the numbers of all passes inside the block, in place of warnings."""
    collected = LostGradients()
    token = _collected.set(collected)
    try:
        yield collected
    finally:
        _collected.reset(token)


def report_lost_gradients(lost: LostGradients) -> None:
    """Warn of the numbers of a pass, or add them to the enclosing `collect_lost_gradients`."""
    collected = _collected.get()
    if collected is None:
        lost.report()
    else:
        collected.add(lost)
