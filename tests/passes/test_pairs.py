"""Pairs of samples: what is computed how often, within what memory, and with what result."""

import numpy as np
import pytest
import sklearn
import torch
from torch import nn

from sknetsim import NetworkDensity, NetworkKernel, NetworkNeighbors
from sknetsim._gradients.engine import GradientEngine
from sknetsim._networks.memory import HELD_TILES
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples
from sknetsim._passes import pairs
from sknetsim._passes.chunks import Chunk, iterate_chunks
from sknetsim._passes.lost_gradients import LostGradients, collect_lost_gradients
from sknetsim._passes.pairs import (
    UNIT_WHITENINGS,
    iterate_pair_values,
    iterate_pairs,
    make_tiles,
    mirror,
    take_tiles,
)

from .. import naive
from ..cases import NETWORKS, build

EPS = np.finfo(np.float64).eps


def count_rows(engine, monkeypatch):
    """Return a list that gets the number of samples of each chunk of computed gradients."""
    rows, original = [], engine._attempt

    def count(module, inputs, y, factored):
        rows.append(len(inputs))
        return original(module, inputs, y, factored)

    monkeypatch.setattr(engine, "_attempt", count)
    return rows


def iterate_cosines(engine, X, Y=None):
    others = None if Y is None else Samples(Y)
    return iterate_pair_values(engine, Samples(X), others, UNIT_WHITENINGS, Chunk.cosines)


def tiles_of(engine, X):
    return list(make_tiles(iterate_chunks(engine, Samples(X))))


def test_gradients_are_computed_once_if_they_fit(source, monkeypatch):
    engine, X = source
    rows = count_rows(engine, monkeypatch)
    list(iterate_cosines(engine, X))
    assert rows == [4] * 5


def test_gradients_of_two_sets_are_computed_once_if_one_set_fits(source, monkeypatch):
    engine, X = source
    rows = count_rows(engine, monkeypatch)
    list(iterate_cosines(engine, X, X[:8]))
    assert sum(rows) == 28


@pytest.mark.parametrize("megabytes", [0.01, 0.05, 1])
def test_tiles_cover_all_pairs_of_two_sets_once(source, megabytes):
    engine, X = source
    covered = np.zeros((20, 12))
    with sklearn.config_context(working_memory=megabytes):
        for rows, columns, _ in iterate_cosines(engine, X, X[:12]):
            covered[rows, columns] += 1
    assert (covered == 1).all()


@pytest.mark.parametrize("megabytes", [0.01, 0.05, 1])
def test_tiles_cover_all_pairs_of_one_set_once(source, megabytes):
    engine, X = source
    covered = np.zeros((20, 20))
    with sklearn.config_context(working_memory=megabytes):
        for rows, columns, _ in iterate_cosines(engine, X):
            covered[rows, columns] += 1
    assert (covered == 1).all()


def test_tiles_are_taken_up_to_their_share_of_the_budget(source):
    engine, X = source
    megabytes = 0.05
    with sklearn.config_context(working_memory=megabytes):
        tiles = tiles_of(engine, X)
        held = take_tiles(iter(tiles))
    assert 1 < len(held) < len(tiles)
    assert all(tile is other for tile, other in zip(held, tiles, strict=False))
    sizes = [tile.jacobian.nbytes for tile in tiles]
    share = megabytes * 2**20 * HELD_TILES
    assert sum(sizes[: len(held)]) <= share < sum(sizes[: len(held) + 1])


def test_a_tile_beyond_the_share_is_taken_by_itself(source):
    engine, X = source
    tiles = tiles_of(engine, X)
    with sklearn.config_context(working_memory=1e-6):
        assert take_tiles(iter(tiles * 2)) == tiles[:1]


@pytest.mark.parametrize("size", [12, 40], ids=["held", "not held"])
def test_zero_gradients_of_the_first_set_are_reported_once(size):
    """The tiles of the smaller set are held, in several groups if the budget is small."""
    X = np.ones((40, 3))
    X[:2] = 0
    engine = GradientEngine(resolve_network(nn.Linear(3, 1, bias=False).double()), batch_size=4)
    first, second = Samples(X[:size]), Samples(X[20:])
    with sklearn.config_context(working_memory=1e-3), collect_lost_gradients() as lost:
        tiles = {rows.rows.start for rows, _ in iterate_pairs(engine, first, second)}
    assert len(tiles) > 1
    assert lost == LostGradients(2, size, "gradient", outputs=1)


def test_chunks_are_split_and_concatenated_to_tiles(source, monkeypatch):
    engine, X = source
    monkeypatch.setattr(pairs, "_TILE_SAMPLES", 7)
    tiles = tiles_of(engine, X)
    assert max(len(tile.rank) for tile in tiles) <= 7
    assert [tile.rows.start for tile in tiles[1:]] == [tile.rows.stop for tile in tiles[:-1]]
    monkeypatch.setattr(pairs, "_TILE_SAMPLES", 3)
    assert max(len(tile.rank) for tile in tiles_of(engine, X)) <= 3


def test_tiles_contain_the_whitened_jacobians_of_their_samples(mlp, monkeypatch):
    network, X, engine = mlp
    monkeypatch.setattr(pairs, "_TILE_SAMPLES", 7)
    J = naive.jacobians(network, X)
    for tile in tiles_of(engine, X):
        own = naive.correlation(J[tile.rows], J[tile.rows], EPS)
        np.testing.assert_allclose(tile.cosines(tile), own, atol=1e-9)


def test_the_smaller_set_is_held(source, monkeypatch):
    """If one of two sets fits, the gradients of both are computed once."""
    engine, X = source
    rows = count_rows(engine, monkeypatch)
    with sklearn.config_context(working_memory=0.04):
        list(iterate_pairs(engine, Samples(X), Samples(X[:2])))
        list(iterate_pairs(engine, Samples(X[:2]), Samples(X)))
    assert sum(rows) == 2 * 22


@pytest.mark.parametrize("megabytes", [0.01, 1])
@pytest.mark.parametrize("whitenings", [("half", "half"), ("half", "none")], ids=str)
@pytest.mark.parametrize("others", [None, slice(0, 7)], ids=["one set", "two sets"])
def test_values_of_pairs_are_those_of_a_double_loop(mlp, megabytes, whitenings, others):
    network, X, engine = mlp
    J = naive.jacobians(network, X)
    left, right = (
        [naive.inverse_root(j @ j.T, EPS)[0] @ j if whitening == "half" else j for j in J]
        for whitening in whitenings
    )
    right = right if others is None else right[others]
    expected = np.array([[j @ j2.T for j2 in right] for j in left])
    actual = np.full(expected.shape, np.nan)
    Y = None if others is None else Samples(X[others])
    with sklearn.config_context(working_memory=megabytes):
        for rows, columns, values in iterate_pair_values(
            engine, Samples(X), Y, whitenings, lambda r, c: r.jacobian.gram(c.jacobian)
        ):
            actual[rows, columns] = values
    np.testing.assert_allclose(actual, expected, atol=1e-8)


def test_the_mirror_of_kernels_exchanges_samples_and_outputs():
    values = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    mirrored = mirror(values)
    for n, m, o, p in np.ndindex(2, 3, 4, 4):
        assert mirrored[m, n, p, o] == values[n, m, o, p]
    assert (mirror(values[..., 0, 0]) == values[..., 0, 0].T).all()


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


def test_progress_counts_pairs_if_verbose(source, capsys):
    engine, X = source
    list(iterate_pairs(engine, Samples(X)))
    assert capsys.readouterr().err == ""
    list(iterate_pairs(engine, Samples(X), Samples(X[:10]), verbose=1))
    assert "200/200" in capsys.readouterr().err
    list(iterate_pairs(engine, Samples(X), verbose=1))
    assert "210/210" in capsys.readouterr().err
