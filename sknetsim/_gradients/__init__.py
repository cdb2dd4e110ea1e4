"""From a network and rows to the Jacobians of its outputs."""
