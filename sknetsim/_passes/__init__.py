"""Passes over samples and over pairs of samples, within the memory budget, by workers."""
