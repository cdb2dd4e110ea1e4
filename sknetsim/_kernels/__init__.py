"""Kernels between samples, from per-sample gradients in factors."""
