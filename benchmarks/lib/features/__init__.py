"""Cost and error of features, the two parts of ``features.py``."""
