"""Shares of the memory budget of what is in memory at the same time.

The shares count results that are held. Temporaries of a single operation are not counted.
"""

import weakref

import pytest
import sklearn

from sknetsim._networks.memory import (
    CHUNK,
    HELD_TILES,
    SINGLE_SAMPLES,
    SKETCH,
    SUMS,
    TILE,
    TILE_KERNELS,
    memory_budget,
)
from sknetsim._networks.samples import Samples
from sknetsim._passes import pairs
from sknetsim._passes.pairs import iterate_pairs

#: What is held at the same time, by the moment of a computation.
HELD_TOGETHER = {
    # The last tile that was compared, the parts of the next one, and the next one. The kernels of
    # the last pair are held until those of the next pair are computed.
    "a tile is concatenated": [CHUNK, HELD_TILES, *[TILE] * 3, TILE_KERNELS],
    # The tile and its parts, which `make_tiles` keeps until the next tile. The kernels of the last
    # pair, the sum over the blocks, and the kernels of one block, which `Jacobian.gram` adds to it.
    "a pair of tiles is compared": [CHUNK, HELD_TILES, *[TILE] * 2, *[TILE_KERNELS] * 3],
    # The last pair of the pass over the second set, one tile of which belonged to the last group.
    "the next group of tiles is computed": [CHUNK, HELD_TILES, *[TILE] * 4, TILE_KERNELS],
    # A chunk of each set, and their whitened blocks, which are a third of a chunk at most.
    "pairs are split into contributions": [CHUNK, CHUNK, CHUNK / 3, CHUNK / 3],
    # The sums over all samples, and the chunk that is added to them.
    "Jacobians are summed": [SUMS, CHUNK],
    # The chunk, and the transforms of a part of its samples.
    "a chunk is sketched": [CHUNK, SKETCH],
    # The Jacobians that are kept, and the chunk of a new sample.
    "two single samples are compared": [SINGLE_SAMPLES, CHUNK],
}


@pytest.mark.parametrize("moment", HELD_TOGETHER)
def test_shares_that_are_held_together_are_at_most_the_budget(moment):
    assert sum(HELD_TOGETHER[moment]) <= 1


def record_jacobians(engine, monkeypatch):
    """Return a list that gets a weak reference to the Jacobians of each chunk."""
    references, original = [], engine.jacobians

    def record(*args):
        for chunk, jacobian in original(*args):
            references.append(weakref.ref(jacobian))
            yield chunk, jacobian

    monkeypatch.setattr(engine, "jacobians", record)
    return references


@pytest.mark.parametrize("others", [None, slice(0, 12)], ids=["one set", "two sets"])
def test_one_chunk_is_in_memory_at_a_time(source, monkeypatch, others):
    engine, X = source
    references = record_jacobians(engine, monkeypatch)
    Y = None if others is None else Samples(X[others])
    with sklearn.config_context(working_memory=0.01):
        for _ in iterate_pairs(engine, Samples(X), Y):
            assert sum(reference() is not None for reference in references) == 1
    assert len(references) > 5 + 3


def test_the_tiles_of_a_group_are_freed_before_the_next_group(source, monkeypatch):
    engine, X = source
    held, original = [], pairs.take_tiles

    def record(tiles):
        assert all(reference() is None for reference in held[:-1])
        group = original(tiles)
        held[:] = [weakref.ref(tile) for tile in group]
        return group

    monkeypatch.setattr(pairs, "take_tiles", record)
    with sklearn.config_context(working_memory=0.02):
        for _ in iterate_pairs(engine, Samples(X), Samples(X[:12])):
            pass
    assert held


@pytest.mark.parametrize("share", [CHUNK, HELD_TILES, TILE, TILE_KERNELS, SKETCH, SINGLE_SAMPLES])
def test_a_share_of_the_budget_is_in_whole_bytes(share):
    with sklearn.config_context(working_memory=1):
        assert memory_budget(share) == int(2**20 * share)
        assert memory_budget() == 2**20
