"""Networks of ``layers.py``, and the functions that it times."""
