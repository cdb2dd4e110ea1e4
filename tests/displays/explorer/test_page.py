"""The page: markup, addresses, the file and errors."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from sknetsim import explore
from sknetsim.displays.explorer._page import _encode_json

from .pages import WICKED, read_data

BAD = {
    "labels": ({"y": [1, 2]}, r"`y` must have 40 entries, .* got shape \(2,\)"),
    "predictions": (
        {"predictions": [1, 2]},
        r"`predictions` must have 40 entries, .* got shape \(2,\)",
    ),
    "scalar": ({"y": 3}, r"`y` must have 40 entries, .* got shape \(\)"),
    "samples": (
        {"samples": ["a"]},
        r"`samples` must be .*; got list .* It has 1 samples, and X has 40",
    ),
    "mixed samples": (
        {"samples": [np.zeros((2, 2))] * 39 + ["a"]},
        "got list that cannot be shown: Samples must consist of numbers to be drawn as images",
    ),
    "texts with a shape": (
        {"samples": ["a"] * 40, "image_shape": (1, 1)},
        "got list that cannot be shown: Samples must consist of numbers to be drawn as images",
    ),
    "missing pixels": (
        {"samples": np.full((40, 2, 2), np.nan)},
        "got NaN or infinity in sample 0",
    ),
    "number": ({"image_shape": 15}, r"`image_shape` must be .*; got 15"),
    "negative": ({"image_shape": (-3, -5)}, r"`image_shape` must be .*; got \(-3, -5\)"),
    "shape": ({"image_shape": (7, 7)}, r"`image_shape` must be .*; got \(7, 7\)"),
    "neighbours": ({"n_neighbors": 40}, r"n_neighbors\b.*(to|and) 39\b"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_parameters_raise_an_error(bad, images, tmp_path):
    network, X, _ = images
    settings, message = BAD[bad]
    path = tmp_path / "page.html"
    with pytest.raises(ValueError, match=message):
        explore(network, X, path=path, **settings)
    assert not path.exists()


BAD_PATHS = {"folder": ".", "in no folder": "nowhere/page.html"}


@pytest.mark.parametrize("name", BAD_PATHS)
def test_bad_paths_and_titles_raise_an_error_at_once(name, images, tmp_path, monkeypatch):
    monkeypatch.setattr("sknetsim.displays.explorer.compute_measures", None)
    with pytest.raises(ValueError, match="`path` must be a file in an existing folder; got"):
        explore(*images, tmp_path / BAD_PATHS[name])
    for settings in ({"path": 3}, {"path": tmp_path / "page.html", "title": None}):
        with pytest.raises(TypeError, match=r"`(path|title)` must be a str"):
            explore(*images, **settings)


def test_an_earlier_page_is_replaced_only_by_a_complete_one(images, tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("earlier")

    def raise_error(*_):
        raise OSError("no space left")

    monkeypatch.setattr("pathlib.Path.replace", raise_error)
    with pytest.raises(OSError, match="no space"):
        explore(*images, path)
    assert path.read_text() == "earlier" and list(tmp_path.iterdir()) == [path]


def test_unknown_settings_raise_an_error(images, tmp_path):
    network, X, _ = images
    with pytest.raises(TypeError, match="colour"):
        explore(network, X, path=tmp_path / "page.html", colour="red")


def test_texts_are_never_markup(tmp_path):
    X = torch.rand(10, 2)
    path = explore(
        nn.Linear(2, 5),
        X,
        WICKED * 2,
        tmp_path / "page.html",
        title=WICKED[0],
        predictions=WICKED * 2,
    )
    text = path.read_text()
    assert text.count("<script") == text.count("</script>") == 2
    assert read_data(path)["texts"]["label"] == WICKED * 2


def test_the_page_has_no_outside_address(images, tmp_path):
    network, X, y = images
    text = explore(network, X, y, tmp_path / "page.html").read_text()
    assert re.findall(r"https?:|//[a-z]", text) == []
    assert re.findall(r'(?:src|href)="[^"]*"', text) == []


def test_no_character_of_the_data_can_end_the_script():
    assert _encode_json({"a": "</script>&<!--"}) == (
        '{"a":"\\u003c/script\\u003e\\u0026\\u003c!--"}'
    )
