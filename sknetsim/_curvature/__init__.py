"""Curvature of the training loss: its derivatives in the outputs, and damped inverses."""
