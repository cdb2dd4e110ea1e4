"""The page: a template with its style, its script and the data that it shows."""

from __future__ import annotations

import html
import json
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

from ._influence import Influence
from ._measures import Measures

# Decimals of the other numbers on the page.
_DECIMALS = 4

# Digits of the influence.
_DIGITS = 3

# JSON escapes of the characters that could end a script element, or begin a comment in it.
_ESCAPES = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&"})


def render_page(title: str, appearance: dict[str, Any], measures: Measures) -> str:
    """Return the page as text.

    Parameters
    ----------
    title : str
        Heading of the page.
    appearance : dict
        Result of `describe_samples`.
    measures : Measures
        Result of `compute_measures`.

    Returns
    -------
    page : str
        HTML with all styles, scripts, images and data inline.
    """
    data = {
        "samples": appearance,
        "neighbors": measures.neighbors.tolist(),
        "similarities": _round(measures.similarities),
        "layers": [name or "(network)" for name in measures.layers],
        "contributions": _round(measures.contributions),
        "scores": {name: _round(values) for name, values in measures.scores.items()},
        "texts": measures.texts.columns,
        "mismatches": measures.texts.mismatches.tolist(),
        "influence": _list_influence(measures.influence),
    }
    return Template(_read_resource("page.html")).substitute(
        title=html.escape(title),
        style=_read_resource("page.css"),
        script=_read_resource("page.js"),
        data=_encode_json(data),
    )


def _read_resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _round(values: np.ndarray) -> Any:
    """Return rounded values as nested lists, so that the page stays small."""
    return np.round(values.astype(float), _DECIMALS).tolist()


def _list_influence(influence: Influence | None) -> Any:
    """Return the influence as data of the page; None without labels."""
    if influence is None:
        return None
    lists = [
        {"heading": heading, "samples": indices.tolist(), "values": _shorten(values)}
        for heading, (indices, values) in influence.lists.items()
    ]
    return {"note": influence.note, "lists": lists}


def _shorten(values: np.ndarray) -> list[list[float]]:
    """Return values with few digits, because the influence may be of any size."""
    return [[float(f"{value:.{_DIGITS}g}") for value in row] for row in values]


def _encode_json(data: dict[str, Any]) -> str:
    """Return JSON for a script element, without any character that could end the element."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.translate(_ESCAPES)
