"""Aerial photographs, read out of an installed package as the examples do."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3] / "examples"))

from _aerial import PHOTOGRAPHS, displaced, patches, photograph

__all__ = ["PHOTOGRAPHS", "displaced", "patches", "photograph"]
