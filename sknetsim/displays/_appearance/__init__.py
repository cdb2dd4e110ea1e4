"""Appearance of samples and labels: their parts, as images, as tables and as text."""
