"""Gradient features as Jacobians."""

import numpy as np
import pytest
import sklearn
import torch

from sknetsim._features.source import FeatureSource, check_features
from sknetsim._networks.memory import CHUNK, memory_budget
from sknetsim._networks.samples import Samples
from sknetsim._passes.reductions import gram_matrix


def draw_features(count, seed=0):
    features = np.random.default_rng(seed).normal(size=(count, 3))
    return features / np.linalg.norm(features, axis=1, keepdims=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_jacobians_are_the_features_in_chunks(monkeypatch, dtype):
    monkeypatch.setattr(FeatureSource, "_CHUNK_SAMPLES", 4)
    features = draw_features(10)
    chunks = list(FeatureSource(dtype).jacobians(Samples(features), start=2))
    assert [(rows.start, rows.stop) for rows, _ in chunks] == [(2, 6), (6, 10)]
    for rows, jacobian in chunks:
        written = jacobian.materialize()
        assert written.dtype == dtype
        np.testing.assert_allclose(written[:, 0], features[rows], atol=1e-6)


def test_chunks_of_wide_features_stay_within_their_share_of_the_budget():
    features = np.eye(40, 100)
    with sklearn.config_context(working_memory=0.1):
        chunks = list(FeatureSource().jacobians(Samples(features)))
        share = memory_budget(CHUNK)
    assert [rows.stop for rows, _ in chunks[:-1]] == [rows.start for rows, _ in chunks[1:]]
    assert chunks[-1][0].stop == 40
    sizes = [3 * jacobian.nbytes for _, jacobian in chunks]
    assert max(sizes) <= share < max(sizes) + 3 * 100 * 8


def test_similarities_are_inner_products_without_another_whitening():
    rows, columns = 0.5 * draw_features(7), draw_features(5, seed=1)
    gram = gram_matrix(FeatureSource(), Samples(rows), Samples(columns))
    expected = [[row @ column for column in columns] for row in rows]
    np.testing.assert_allclose(gram, expected, atol=1e-12)


def test_a_row_of_zeros_is_a_valid_feature_vector():
    gram = gram_matrix(FeatureSource(), Samples(np.array([[0.0, 0.0], [1.0, 0.0]])))
    assert gram.tolist() == [[0, 0], [0, 1]]


def test_fingerprints_follow_the_features():
    source, features = FeatureSource(), draw_features(4)
    same, other = (source.fingerprint(Samples(rows)) for rows in (features, features + 1e-9))
    assert source.fingerprint(Samples(features.copy())) == same != other
    assert source.fingerprint_of_samples(Samples(features)) == same
    assert source.identity() == "features"


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(2, 3, 4), r"got rows of shape \(3, 4\)\. Pass the output"),
        ({"a": torch.zeros(2, 3)}, "got several arrays"),
        (3 * torch.eye(2), "at most 2 .* got rows of length up to 3"),
    ],
    ids=["images", "dict", "long"],
)
def test_other_arrays_than_features_raise_an_error(features, message):
    with pytest.raises(ValueError, match=message):
        check_features(features)
