"""Samples and labels in each form that users pass, and batches of samples."""

from .raw_samples import PreparedSamples, RawSamples
from .samples import Samples

__all__ = ["PreparedSamples", "RawSamples", "Samples"]
