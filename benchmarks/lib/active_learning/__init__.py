"""Loops of active learning, and samplers of other packages."""
