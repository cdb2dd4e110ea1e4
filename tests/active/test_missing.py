"""Missing labels of ActiveLearningSampler, in each form that they have."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix
from skorch import NeuralNetRegressor
from torch import nn

from sknetsim import ActiveLearningSampler

from .test_sampler import classifier, make_samples

MISSING = {
    "numbers": np.array([0.0, np.nan, 1]),
    "list with None": [0, None, 1],
    "list with NaN among names": ["a", float("nan"), "b"],
    "strings made from NaN": np.array(["a", np.nan, "b"]),
    "objects": np.array(["a", None, "b"], dtype=object),
    "columns": np.array([[0.0, 1], [0, np.nan], [1, 1]]),
    "tensor": torch.tensor([0.0, np.nan, 1]),
    "bfloat16 tensor": torch.tensor([0.0, np.nan, 1], dtype=torch.bfloat16),
    "Series of names": pd.Series(["a", None, "b"]),
    "Series of strings": pd.Series(["a", None, "b"], dtype="string"),
    "Series of integers": pd.Series([0, None, 1], dtype="Int64"),
    "Series of categories": pd.Series(["a", None, "b"], dtype="category"),
    "Categorical": pd.Categorical(["a", None, "b"]),
    "DataFrame": pd.DataFrame({"first": [0, None, 1], "second": ["a", "b", "c"]}),
    "dates": np.array(["2020-01-01", "NaT", "2020-01-02"], dtype="datetime64[D]"),
    "masked": np.ma.masked_array([0, 7, 1], mask=[False, True, False]),
}
PRESENT = {
    "numbers": np.array([0.0, 1, 1]),
    "names": np.array(["a", "b", "a"]),
    "objects": np.array(["a", "b", "a"], dtype=object),
    "list": ["a", "b", "a"],
    "Series of strings": pd.Series(["a", "b", "a"], dtype="string"),
    "Categorical": pd.Categorical(["a", "b", "a"]),
    "name nan among objects": pd.Series(["a", "nan", "b"], dtype=object),
    "tensor": torch.tensor([0, 1, 1]),
    "list of tensors": list(torch.tensor([0, 1, 1])),
    "columns": np.array([[0, 1], [0, 0], [1, 1]]),
    "sparse": csr_matrix(np.eye(3)),
}


@pytest.mark.parametrize("y", MISSING.values(), ids=MISSING)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_missing_label_raises_an_error(method, y):
    sampler = ActiveLearningSampler(classifier()).fit(make_samples(3))
    message = "must contain the label of each sample.*got 1 of 3 labels missing .* in row 1.*query"
    with pytest.raises(ValueError, match=message):
        getattr(sampler, method)(make_samples(3), y)


@pytest.mark.parametrize("y", PRESENT.values(), ids=PRESENT)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_labels_of_a_trained_network_may_be_of_any_type(method, y):
    sampler = ActiveLearningSampler(classifier()).fit(make_samples(3))
    labelled = getattr(sampler, method)(make_samples(3), y).n_labelled_
    assert labelled == {"fit": 3, "partial_fit": 6}[method]


def test_an_untrained_network_is_not_trained_on_missing_labels():
    net = NeuralNetRegressor(nn.Linear(4, 1), max_epochs=1, train_split=None, verbose=0)
    y = np.array([[0.0], [np.nan], [1.0]], dtype="float32")
    with pytest.raises(ValueError, match="got 1 of 3 labels missing"):
        ActiveLearningSampler(net).fit(make_samples(3), y)


def test_newly_labelled_samples_have_one_label_each():
    sampler = ActiveLearningSampler(classifier()).fit(make_samples(3))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        sampler.partial_fit(make_samples(3), [0, 1])
    assert sampler.n_labelled_ == 3
