"""Feature stores of each kind of rows: interrupted, and continued with rows in another form."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from skorch.helper import SliceDict

from sknetsim import FeatureStoreError, GradientFeaturizer, featurize

from ..test_kinds_of_rows import ROWS, example, split_columns, threads  # noqa: F401 (fixtures)


def make_store(example, folder, X=None):  # noqa: F811
    """Write a store of the rows of X, or continue it, with features from the example's rows."""
    featurizer = GradientFeaturizer(example.pipeline, n_components=8, random_state=0)
    X = example.X if X is None else X
    return featurizer.fit(example.X), featurize(featurizer, X, folder, rows_per_shard=10)


def read_times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob("*.npy")}


@pytest.fixture
def folder(example, tmp_path):  # noqa: F811
    """Return the folder of a store of the rows, without its second shard."""
    _, store = make_store(example, tmp_path / "store")
    sorted(store.folder.glob("*.npy"))[1].unlink()
    return store.folder


def test_only_missing_shards_of_raw_rows_are_computed(example, folder):  # noqa: F811
    before = read_times(folder)
    featurizer, store = make_store(example, folder)
    after = read_times(folder)
    assert len(after) == len(before) + 1 and before.items() <= after.items()
    np.testing.assert_allclose(store[:], featurizer.transform(example.X), atol=1e-4)


def test_a_store_of_other_raw_rows_raises_an_error(example, folder):  # noqa: F811
    order = np.arange(len(example.y))
    order[:2] = order[1::-1]
    with pytest.raises(FeatureStoreError, match="other data"):
        make_store(example, folder, example.kind.take(example.X, order.tolist()))


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
    texts = list(X)
    if not isinstance(texts[0], str):
        return [X]
    return [texts, np.array(texts), np.array(texts, dtype=object), pd.Series(texts)]


def test_the_same_raw_rows_in_another_form_continue_a_store(example, folder):  # noqa: F811
    for form in list_other_forms(example.X):
        sorted(folder.glob("*.npy"))[0].unlink()
        before = read_times(folder)
        featurizer, store = make_store(example, folder, form)
        assert before.items() <= read_times(folder).items()
        np.testing.assert_allclose(store[:], featurizer.transform(example.X), atol=1e-4)
