"""Samples as images and as rows of a table."""

import numpy as np
import pandas
import pytest
import torch

from sknetsim.displays._appearance.formatting import format_value
from sknetsim.displays._appearance.parts import list_parts
from sknetsim.displays._appearance.rendering import (
    format_columns,
    is_image_like,
    name_columns,
    render_images,
    scale_to_unit,
    to_images,
)


def render_table(X, indices, columns=None):
    return format_columns(name_columns(list_parts(X, indices), columns))


SHAPES = {
    "grey": ((4, 6), (4, 6)),
    "channels first": ((3, 4, 6), (4, 6, 3)),
    "channels last": ((5, 6, 3), (5, 6, 3)),
    "one channel": ((1, 4, 6), (4, 6)),
    "two channels": ((2, 4, 6), (4, 6)),
    "four channels": ((4, 5, 6), (5, 6, 3)),
    "five channels": ((5, 4, 6), (4, 6, 3)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_images_have_their_channels_last(name):
    shape, expected = SHAPES[name]
    assert np.shape(to_images(np.zeros((2, *shape)), [0, 1], None)) == (2, *expected)


def test_flat_samples_get_the_given_shape():
    X = np.arange(12.0).reshape(2, 6)
    np.testing.assert_array_equal(to_images(X, [1], (2, 3))[0], X[1].reshape(2, 3))


@pytest.mark.parametrize("shape", [3, (7,), (2, 2), (-2, -3), (2.0, 3), (1, 1, 2, 3)])
def test_bad_image_shapes_raise_an_error(shape):
    with pytest.raises(ValueError, match=r"`image_shape` must be .* a sample of shape \(6,\)"):
        to_images(np.zeros((2, 6)), [0], shape)


def test_samples_without_the_shape_of_an_image_raise_an_error():
    with pytest.raises(ValueError, match=r"must have the shape of an image: .*; got \(6,\)"):
        to_images(np.zeros((2, 6)), [0], None)


def test_the_first_sample_that_is_not_finite_is_named():
    X = np.zeros((5, 2, 2))
    X[3], X[4] = np.inf, np.nan
    with pytest.raises(ValueError, match="Images must be finite; got NaN or infinity in sample 3"):
        to_images(X, [0, 3, 4], None)


def test_rendered_images_are_scaled_together():
    X = np.stack([np.full((2, 2), value) for value in (-1.0, 0.0, 3.0)])
    assert render_images(X, [0, 1, 2], None)[:, 0, 0].tolist() == [0, 0.25, 1]


def test_equal_values_are_scaled_to_0():
    assert scale_to_unit(np.full(2, 5.0), 5.0, 5.0).tolist() == [0, 0]


def test_samples_are_images_if_they_have_several_axes_or_a_given_shape():
    assert is_image_like(np.zeros((2, 3, 3)), None) and is_image_like(np.zeros((2, 9)), (3, 3))
    assert not is_image_like(np.zeros((2, 9)), None)
    assert not is_image_like(pandas.DataFrame(np.zeros((2, 9))), None)


FORMS = {
    "array": np.asarray,
    "tensor": torch.as_tensor,
    "half precision": lambda X: torch.as_tensor(X).bfloat16(),
    "list": lambda X: X.tolist(),
    "table": pandas.DataFrame,
}


@pytest.mark.parametrize("form", FORMS)
def test_tables_are_rendered_from_all_forms_of_samples(form):
    X = FORMS[form](np.array([[1.0, 0.5], [2.0, 0.25]]))
    table = render_table(X, [1, 0])
    assert table.columns == ["0", "1"]
    assert table.cells.tolist() == [["2", "0.25"], ["1", "0.5"]]


def test_columns_are_named_by_the_table_or_by_the_given_names():
    X = np.zeros((1, 2))
    assert render_table(X, [0], ["a", "b"]).columns == ["a", "b"]
    assert render_table(pandas.DataFrame(X, columns=["c", "d"]), [0]).columns == ["c", "d"]


def test_samples_with_several_axes_are_not_rows_of_a_table():
    with pytest.raises(ValueError, match=r"must have one axis .* got shape \(2, 3\)"):
        render_table(np.zeros((1, 2, 3)), [0])


VALUES = {1.0: "1", 100001.0: "100001", 0.123456: "0.1235", 12345.6: "1.235e+04", "a": "a", 3: "3"}


@pytest.mark.parametrize("value", VALUES)
def test_values_have_four_digits_unless_they_are_whole(value):
    assert format_value(value) == VALUES[value]
