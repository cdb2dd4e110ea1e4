"""Methods that ``peers.py`` compares, and the processes that run them."""
