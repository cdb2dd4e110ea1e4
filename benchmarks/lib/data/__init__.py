"""Data sets, read out of installed packages."""
