"""Contestants of ``peers.py``, and the processes that run them."""
