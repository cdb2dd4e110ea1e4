"""Labels as arrays: checks, columns, and whether they are classes."""

import numpy as np
import pandas as pd
import pytest
import torch

from sknetsim.labels._label_arrays import (
    check_labels,
    is_classification,
    is_numeric,
    squeeze_column,
    to_columns,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
def test_labels_can_be_tensors(dtype):
    labels = check_labels(torch.tensor([1, 2], dtype=dtype, requires_grad=dtype.is_floating_point))
    assert isinstance(labels, np.ndarray)
    assert labels.tolist() == [1, 2]


def test_a_single_column_is_squeezed():
    assert squeeze_column(np.zeros((4, 1))).shape == (4,)
    assert squeeze_column(np.zeros((4, 2))).shape == (4, 2)
    assert squeeze_column(np.zeros(4)).shape == (4,)


def test_numbers_become_columns_of_doubles():
    columns = to_columns([1, 2, 3])
    assert columns.shape == (3, 1)
    assert columns.dtype == np.float64


@pytest.mark.parametrize(
    ("labels", "expected"),
    [([0, 1, 5], True), (["a", "b"], True), ([0.0, 1.0], True), ([0.5, 1.0], False)],
    ids=str,
)
def test_names_and_whole_numbers_are_classes(labels, expected):
    assert is_classification(np.array(labels)) is expected


NAMES = ["b", "a", "b"]


@pytest.mark.parametrize(
    "form",
    [list, np.array, pd.Series, pd.Categorical, lambda names: np.array(names, dtype=object)],
    ids=["list", "strings", "Series", "Categorical", "objects"],
)
def test_names_in_any_form_are_strings(form):
    labels = check_labels(form(NAMES))
    assert labels.dtype.kind == "U"
    assert labels.tolist() == NAMES
    assert not is_numeric(labels)


@pytest.mark.parametrize("values", [[2, 0, 1], [0.5, 1.0, 2.0], [True, False, True]], ids=str)
@pytest.mark.parametrize(
    "form",
    [lambda values: np.array(values, dtype=object), lambda values: pd.Series(values, dtype=object)],
    ids=["array", "Series"],
)
def test_numbers_as_objects_are_numbers(form, values):
    labels = check_labels(form(values))
    assert is_numeric(labels)
    assert labels.tolist() == values


def test_objects_keep_their_shape():
    assert check_labels(np.array([[0, 1], [1, 0]], dtype=object)).tolist() == [[0, 1], [1, 0]]


BAD = {
    "missing": (lambda: check_labels(None), "`y` must be the labels of X; got None"),
    "infinite": (lambda: check_labels([1.0, np.inf]), "`y` must be finite; got NaN or infinity"),
    "words": (lambda: to_columns(["a", "b"]), "`y` must be numbers with 1 or 2 axes; got dtype"),
    "axes": (lambda: to_columns(np.zeros((2, 2, 2))), "got dtype float64 with 3 axes"),
    "no name": (
        lambda: check_labels(["a", None]),
        "`y` must contain only numbers, or only names .* got objects of the types NoneType, str",
    ),
    "no number": (lambda: check_labels([1, None]), "got objects of the types NoneType, int"),
    "nothing": (lambda: check_labels([None, None]), "got objects of the types NoneType. Remove"),
    "NaN among names": (
        lambda: check_labels(pd.Series(["a", np.nan], dtype=object)),
        "got objects of the types float, str",
    ),
    "missing number": (
        lambda: check_labels(pd.Series(pd.array([1, None], dtype="Int64"))),
        "`y` must be finite; got NaN or infinity|got objects of the types NAType, int",
    ),
    "names and numbers": (
        lambda: check_labels(np.array(["a", 1], dtype=object)),
        "got objects of the types int, str",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_invalid_labels_raise_an_error_that_names_them(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()
