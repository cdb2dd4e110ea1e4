"""Passes over data: what is computed how often, and within what memory."""

import numpy as np
import pytest
import sklearn
import torch

from sknetsim import NetworkDensity, NetworkKernel, NetworkNeighbors
from sknetsim._gradients.engine import GradientEngine
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples
from sknetsim._passes import chunks as _passes
from sknetsim._passes import pairs as _pairs
from sknetsim._passes import reductions as _reductions
from sknetsim._passes import sums as _passes__sums

from ..cases import NETWORKS, build


@pytest.fixture
def source():
    network, X = build(NETWORKS[0], n_samples=20)
    return GradientEngine(resolve_network(network), batch_size=4), X


def count_rows(source, monkeypatch):
    """Rows whose gradients are made, one entry per chunk."""
    rows, original = [], source._attempt

    def counting(module, inputs, y, checked):
        rows.append(len(inputs))
        return original(module, inputs, y, checked)

    monkeypatch.setattr(source, "_attempt", counting)
    return rows


def grams(engine, X, Y=None):
    return _pairs.iterate_pair_values(
        engine, Samples(X), None if Y is None else Samples(Y), _pairs.UNIT_WHITENINGS, _passes.Chunk.cosines
    )


def test_gradients_are_made_once_where_they_fit(source, monkeypatch):
    engine, X = source
    rows = count_rows(engine, monkeypatch)
    list(grams(engine, X))
    assert rows == [4] * 5


def test_of_two_sets_each_is_made_once_where_it_fits(source, monkeypatch):
    engine, X = source
    rows = count_rows(engine, monkeypatch)
    list(grams(engine, X, X[:8]))
    assert sum(rows) == 28


@pytest.mark.parametrize("megabytes", [0.01, 0.05, 1])
def test_pieces_cover_all_pairs_once(source, megabytes):
    engine, X = source
    covered = np.zeros((20, 12))
    with sklearn.config_context(working_memory=megabytes):
        for rows, columns, _ in grams(engine, X, X[:12]):
            covered[rows, columns] += 1
    assert (covered == 1).all()


def test_pieces_stay_within_their_share_of_the_budget(source):
    engine, X = source
    with sklearn.config_context(working_memory=0.02):
        tiles = list(_pairs.make_tiles(_passes.iterate_chunks(engine, Samples(X))))
        pieces = list(_pairs.group_tiles(iter(tiles)))
    assert len(pieces) > 1
    assert [tile for piece in pieces for tile in piece] == tiles
    largest = max(tile.jacobian.nbytes for tile in tiles)
    taken = [sum(tile.jacobian.nbytes for tile in piece) for piece in pieces]
    assert max(taken) <= max(largest, 0.02 * 2**20 * 3 / 8)


def test_tiles_are_cut_and_joined(source, monkeypatch):
    engine, X = source
    monkeypatch.setattr(_pairs, "_TILE_ROWS", 7)
    tiles = list(_pairs.make_tiles(_passes.iterate_chunks(engine, Samples(X))))
    assert max(len(tile.rank) for tile in tiles) <= 7
    assert [tile.rows.start for tile in tiles[1:]] == [tile.rows.stop for tile in tiles[:-1]]
    monkeypatch.setattr(_pairs, "_TILE_ROWS", 3)
    assert (
        max(
            len(tile.rank) for tile in _pairs.make_tiles(_passes.iterate_chunks(engine, Samples(X)))
        )
        <= 3
    )


def test_the_smaller_set_is_held(source, monkeypatch):
    """Where one of two sets fits, both are gone through once."""
    engine, X = source
    rows = count_rows(engine, monkeypatch)
    with sklearn.config_context(working_memory=0.04):
        list(_pairs.iterate_pairs(engine, Samples(X), Samples(X[:2])))
        list(_pairs.iterate_pairs(engine, Samples(X[:2]), Samples(X)))
    assert sum(rows) == 2 * 22


def test_small_budgets_give_the_same_estimates():
    network, X = build(NETWORKS[0], n_samples=30)
    power = NetworkDensity(network, method="power").fit(X)
    expected = power.score_samples(X), NetworkNeighbors(network).fit(X).kneighbors()
    with sklearn.config_context(working_memory=0.02):
        again = NetworkDensity(network, method="power").fit(X)
        np.testing.assert_allclose(again.score_samples(X), expected[0], atol=1e-9)
        neighbors = NetworkNeighbors(network).fit(X).kneighbors()
        np.testing.assert_allclose(neighbors[0], expected[1][0], atol=1e-7)
        np.testing.assert_allclose(NetworkKernel(network)(X), NetworkKernel(network)(X))


def test_progress_is_silent_unless_asked_for(source, capsys):
    engine, X = source
    _passes__sums.sum_jacobians(engine, Samples(X))
    assert capsys.readouterr().err == ""
    _passes__sums.sum_jacobians(engine, Samples(X), verbose=1)
    assert "20/20" in capsys.readouterr().err
    list(_pairs.iterate_pairs(engine, Samples(X), Samples(X[:10]), verbose=1))
    assert "200/200" in capsys.readouterr().err
    list(_pairs.iterate_pairs(engine, Samples(X), verbose=1))
    assert "210/210" in capsys.readouterr().err


@pytest.mark.parametrize("whitening", ["unit", "half", "none"])
def test_kernel_sums_are_those_of_all_pairs(source, whitening):
    """Values times the kernel, summed over the rows: from one sum of gradients."""
    engine, X = source
    values = np.random.default_rng(0).normal(size=(20, 3))
    total = _passes__sums.sum_jacobians(engine, Samples(X), values, whitening)
    sums, own = _passes__sums.kernel_sums(engine, Samples(X[:7]), total, whitening)
    pairs = _reductions.compute_pair_matrix(
        engine,
        Samples(X[:7]),
        Samples(X),
        (whitening, whitening),
        lambda rows, columns: rows.jacobian.trace_gram(columns.jacobian),
    )
    np.testing.assert_allclose(sums, pairs @ values, rtol=1e-10)
    np.testing.assert_allclose(own, pairs[:, :7].diagonal(), rtol=1e-10)


def test_sums_of_unit_jacobians(source):
    engine, X = source
    total = _passes__sums.sum_jacobians(engine, Samples(X))
    jacobians = [chunk.whitened().jacobian for chunk in _passes.iterate_chunks(engine, Samples(X))]
    expected = sum(jacobian.materialize().sum(dim=0) for jacobian in jacobians)
    found = torch.cat([total[name] for name, _ in build(NETWORKS[0])[0].named_parameters()], dim=1)
    torch.testing.assert_close(found, expected)
