"""Labels as arrays: numbers, names, objects of each kind, and missing labels."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas
import pytest
import torch

from sknetsim import LabelDenoiser, NetworkDensity
from sknetsim._networks.samples.labels import check_labels, check_numbers

NUMBERS = {
    "list": [2, 0, 1],
    "objects": np.array([2, 0, 1], dtype=object),
    "decimals": [Decimal(2), Decimal(0), Decimal(1)],
    "fractions": [Fraction(2), Fraction(0), Fraction(1)],
    "objects with booleans": np.array([2, False, True], dtype=object),
    "Series of objects": pandas.Series([2, 0, 1], dtype=object, index=[5, 5, 7]),
    "nullable Series": pandas.Series([2, 0, 1], dtype="Int8"),
    "Categorical": pandas.Categorical([2, 0, 1]),
    "tensor": torch.tensor([2, 0, 1], dtype=torch.int8),
    "bfloat16 tensor with a graph": torch.tensor(
        [2, 0, 1], dtype=torch.bfloat16, requires_grad=True
    ),
    "masked array without masked labels": np.ma.array([2, 0, 1], mask=False),
}


@pytest.mark.parametrize("y", NUMBERS.values(), ids=NUMBERS)
def test_numbers_of_each_form_become_the_same_array(y):
    labels = check_numbers(y)
    assert labels.dtype.kind in "fi"
    assert labels.tolist() == [2, 0, 1]


def test_objects_keep_their_shape():
    assert check_labels(np.array([[1, 0.5], [2, 3]], dtype=object)).tolist() == [[1, 0.5], [2, 3]]


NAMES = {
    "list": ["b", "a"],
    "objects": np.array(["b", "a"], dtype=object),
    "Series": pandas.Series(["b", "a"]),
    "Categorical": pandas.Categorical(["b", "a"]),
}


@pytest.mark.parametrize("y", NAMES.values(), ids=NAMES)
def test_names_of_each_form_are_strings_and_no_numbers(y):
    labels = check_labels(y)
    assert labels.dtype.kind == "U"
    assert labels.tolist() == ["b", "a"]
    with pytest.raises(ValueError, match=r"`y` must contain numbers.*got dtype <U1.*LabelEncoder"):
        check_numbers(y)


MISSING = {
    "None": (None, "be the labels of X; got None"),
    "None among names": (["a", None], "types NoneType, str"),
    "None among numbers": ([1, None], "types NoneType, int"),
    "NaN among names": (["a", np.nan], "types float, str"),
    "numbers among names": (["a", 1], "types int, str"),
    "NaT": (np.array(["a", pandas.NaT], dtype=object), "types NaTType, str"),
    "NaN": ([1.0, np.nan], "be finite"),
    "infinity in a tensor": (torch.tensor([1.0, torch.inf]), "be finite"),
    "masked": (np.ma.array([1, 2], mask=[True, False]), "got masked ones"),
}


@pytest.mark.parametrize(("y", "message"), MISSING.values(), ids=MISSING)
def test_missing_labels_raise_an_error(y, message):
    with pytest.raises(ValueError, match=f"`y` must .*{message}"):
        check_labels(y)


@pytest.mark.parametrize("kind", [NetworkDensity, LabelDenoiser])
def test_the_default_network_takes_objects_like_their_values(kind):
    X = np.random.default_rng(0).normal(size=(20, 3))
    y = (X[:, 0] > 0).astype(int)
    for converted in (y.astype(object), pandas.Series(y, dtype="Int64")):
        fitted, expected = (kind(random_state=0).fit(X, labels) for labels in (converted, y))
        for first, second in zip(
            fitted.estimator_.parameters(), expected.estimator_.parameters(), strict=True
        ):
            assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([None, *["a"] * 19], "types NoneType, str"),
        (np.array([["a"], ["b"]] * 10), "got dtype <U1"),
        ([np.nan, *range(19)], "be finite"),
    ],
    ids=["None", "column of names", "NaN"],
)
def test_the_default_network_refuses_other_labels(y, message):
    with pytest.raises(ValueError, match=f"`y` must .*{message}"):
        NetworkDensity().fit(np.ones((20, 3)), y)
