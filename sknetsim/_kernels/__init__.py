"""Kernels from per-sample gradients held in factors; knows no network."""
