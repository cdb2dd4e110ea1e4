"""The page: a template, its style and script, and what they show."""

from __future__ import annotations

import html
import json
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

from ._measures import Measures

# Digits after the point: similarities, and what layers add to them, are read as such.
_DIGITS = 4

# What ends a script, or begins a comment in it.
_UNSAFE = str.maketrans({letter: f"\\u{ord(letter):04x}" for letter in "<>&"})


def render_page(title: str, appearance: dict[str, Any], found: Measures) -> str:
    """The page as one text."""
    data = {
        "samples": appearance,
        "neighbors": found.neighbors.tolist(),
        "similarities": _rounded(found.similarities),
        "layers": [name or "(network)" for name in found.layers],
        "parts": _rounded(found.parts),
        "numbers": {name: _rounded(values) for name, values in found.numbers.items()},
        "words": found.words.spoken,
        "contradicted": found.words.contradicted.tolist(),
    }
    return Template(_text("page.html")).substitute(
        title=html.escape(title), style=_text("page.css"), script=_text("page.js"), data=_json(data)
    )


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _rounded(values: np.ndarray) -> Any:
    """As lists; a number needs no more digits than are read."""
    return np.round(values.astype(float), _DIGITS).tolist()


def _json(data: dict[str, Any]) -> str:
    """For a script element: no letter of it can end the element."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.translate(_UNSAFE)
