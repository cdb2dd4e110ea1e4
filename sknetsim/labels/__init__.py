"""Noisy labels: denoising, label errors, overfitting and underfitting."""

from .denoising import Denoising, LabelDenoiser
from .diagnostics import FitDiagnostics

__all__ = ["Denoising", "FitDiagnostics", "LabelDenoiser"]
