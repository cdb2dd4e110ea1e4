"""Jacobians of a network's outputs, chunk by chunk, by the rules, and verified."""
