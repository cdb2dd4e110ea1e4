"""Passes over samples and pairs of samples, within the memory budget, by one worker or many."""
