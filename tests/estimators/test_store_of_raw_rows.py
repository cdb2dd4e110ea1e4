"""Feature stores of each kind of rows: interrupted, and continued with rows in another form."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from skorch.helper import SliceDict

from sknetsim import FeatureStoreError, GradientFeaturizer, featurize

from ..kinds import (
    split_columns,
)

pytestmark = pytest.mark.usefixtures("threads")


def make_store(any_example, folder, X=None):
    """Write a store of the rows of X, or continue it, with features from the example's rows."""
    featurizer = GradientFeaturizer(any_example.pipeline, n_components=8, random_state=0)
    X = any_example.X if X is None else X
    return featurizer.fit(any_example.X), featurize(featurizer, X, folder, rows_per_shard=10)


def read_times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob("*.npy")}


@pytest.fixture
def folder(any_example, tmp_path):
    """Return the folder of a store of the rows, without its second shard."""
    _, store = make_store(any_example, tmp_path / "store")
    sorted(store.folder.glob("*.npy"))[1].unlink()
    return store.folder


def test_only_missing_shards_of_raw_rows_are_computed(any_example, folder):
    before = read_times(folder)
    featurizer, store = make_store(any_example, folder)
    after = read_times(folder)
    assert len(after) == len(before) + 1 and before.items() <= after.items()
    np.testing.assert_allclose(store[:], featurizer.transform(any_example.X), atol=1e-4)


def test_a_store_of_other_raw_rows_raises_an_error(any_example, folder):
    order = np.arange(len(any_example.y))
    order[:2] = order[1::-1]
    with pytest.raises(FeatureStoreError, match="other data"):
        make_store(any_example, folder, any_example.kind.take(any_example.X, order.tolist()))


def list_other_forms(X):
    """Return the same rows in other forms that the same steps, or the same network, take."""
    if isinstance(X, dict):
        return [dict(X), SliceDict(**X)]
    if isinstance(X, pl.DataFrame):
        return [pd.DataFrame(X.to_dict(as_series=False))]
    if isinstance(X, pd.DataFrame):
        forms = [X.set_axis(X.index[::-1])]
        is_numeric = X.select_dtypes("number").shape == X.shape
        return [*forms, split_columns(X)] if is_numeric else forms
    if not isinstance(X, list | np.ndarray | pd.Series) or not isinstance(next(iter(X)), str):
        return [X]  # Items of a sequence are only compared with such items.
    texts = list(X)
    return [texts, np.array(texts), np.array(texts, dtype=object), pd.Series(texts)]


def test_the_same_raw_rows_in_another_form_continue_a_store(any_example, folder):
    for form in list_other_forms(any_example.X):
        sorted(folder.glob("*.npy"))[0].unlink()
        before = read_times(folder)
        featurizer, store = make_store(any_example, folder, form)
        assert before.items() <= read_times(folder).items()
        np.testing.assert_allclose(store[:], featurizer.transform(any_example.X), atol=1e-4)
