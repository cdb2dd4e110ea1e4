"""Cases and processes of ``engine.py``."""
