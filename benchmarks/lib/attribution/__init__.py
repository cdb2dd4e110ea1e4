"""Attribution methods, and the retrained networks that ``attribution.py`` compares them with."""
