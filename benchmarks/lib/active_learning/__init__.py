"""Active learning with several samplers, and samplers of other packages."""
