"""Noisy labels: denoising, label errors, over- and underfit."""

from .denoising import Denoising, LabelDenoiser
from .diagnostics import FitDiagnostics

__all__ = ["Denoising", "FitDiagnostics", "LabelDenoiser"]
