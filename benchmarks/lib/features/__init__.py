"""The two parts of ``features.py``: cost and error of features."""
