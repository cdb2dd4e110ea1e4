"""Samples in each form that users pass, and their batches."""

from .raw_samples import RawSamples
from .samples import Samples

__all__ = ["RawSamples", "Samples"]
