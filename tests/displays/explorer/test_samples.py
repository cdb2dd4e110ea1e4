"""Appearance of samples on the page: images, tables and texts."""

import base64
import io

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from torch import nn

from sknetsim import explore

from .pages import read_data


def test_images_are_scaled_to_bytes(images, tmp_path):
    network, X, _ = images
    data = read_data(explore(network, X, path=tmp_path / "page.html"))["samples"]
    assert (data["width"], data["height"], data["side"]) == (5, 3, 16)
    (sheet,) = data["sheets"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet.split(",")[1]))))
    low, high = X.min(), X.max()
    expected = np.round(255 * ((X[17, 0] - low) / (high - low)).numpy())
    np.testing.assert_array_equal(pixels[3:6, 5:10], expected)


SHAPES = {
    "grey": ((4, 6), (16 * 4, 16 * 6)),
    "colours": ((3, 4, 6), (16 * 4, 16 * 6, 3)),
    "more channels than colours": ((5, 4, 6), (16 * 4, 16 * 6, 3)),
    "two channels": ((2, 4, 6), (16 * 4, 16 * 6)),
    "channels last": ((5, 6, 3), (16 * 5, 16 * 6, 3)),
    "one channel last": ((5, 6, 1), (16 * 5, 16 * 6)),
    "large": ((1, 96, 192), (16 * 48, 16 * 96)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_images_of_any_shape_are_shown(name, tmp_path):
    shape, expected = SHAPES[name]
    X = torch.rand(12, 2)
    samples = np.random.default_rng(0).random((12, *shape))
    path = explore(nn.Linear(2, 1), X, path=tmp_path / "page.html", samples=samples)
    (sheet,) = read_data(path)["samples"]["sheets"]
    assert (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet.split(",")[1])))).shape == expected
    )


def test_many_images_are_in_several_sheets(tmp_path):
    X = torch.rand(600, 2)
    path = explore(nn.Linear(2, 1), X, path=tmp_path / "page.html", image_shape=(1, 2))
    assert len(read_data(path)["samples"]["sheets"]) == 3


def test_tables_have_names_of_columns_and_cells(tmp_path):
    X = pandas.DataFrame(np.random.default_rng(0).random((12, 2)), columns=["length", "width"])
    path = explore(nn.Linear(2, 1).double(), X, path=tmp_path / "page.html")
    data = read_data(path)
    assert data["samples"]["columns"] == ["length", "width"]
    assert data["samples"]["cells"][3] == [f"{value:.4g}" for value in X.iloc[3]]
    assert data["texts"] == {} and list(data["scores"]) == ["density", "reliability"]


@pytest.mark.parametrize("form", [list, tuple, np.array, pandas.Series], ids=lambda f: f.__name__)
def test_texts_are_shown_in_one_column(form, tmp_path):
    texts = [f"text {number}" for number in range(12)]
    path = explore(nn.Linear(2, 1), torch.rand(12, 2), path=tmp_path / "p", samples=form(texts))
    assert read_data(path)["samples"] == {
        "columns": ["text"],
        "cells": [[text] for text in texts],
        "wraps": [True],
    }
