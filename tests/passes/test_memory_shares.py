"""Shares of the memory budget of what is in memory at the same time.

The shares count results that are held. Temporaries of a single operation are not counted.
"""

from fractions import Fraction

import pytest
import sklearn

from sknetsim._networks.memory import (
    CHUNK,
    HELD_TILES,
    SINGLE_SAMPLES,
    SKETCH,
    TILE,
    TILE_KERNELS,
    memory_budget,
)

#: A tile, and its parts before they are concatenated, which `make_tiles` keeps until the next tile.
TILE_WITH_PARTS = 2 * TILE

#: What is held at the same time, by what is computed.
HELD_TOGETHER = {
    # The chunk from which tiles are made, the tiles that are held, the tile that is compared with
    # them, and the kernels of a pair of tiles.
    "pairs of one set": [CHUNK, HELD_TILES, TILE_WITH_PARTS, TILE_KERNELS],
    # The chunks of the set that is held have all become tiles before the other set begins.
    "pairs of two sets, one of which fits": [CHUNK, HELD_TILES, TILE_WITH_PARTS, TILE_KERNELS],
    # The chunk, and the transforms of a part of its samples.
    "sketches": [CHUNK, SKETCH],
    # The Jacobians that are kept, and the chunk of a new sample.
    "pairs of single samples": [SINGLE_SAMPLES, CHUNK],
}


@pytest.mark.parametrize("computation", HELD_TOGETHER)
def test_shares_that_are_held_together_are_at_most_the_budget(computation):
    assert sum(HELD_TOGETHER[computation]) <= 1


def test_two_sets_that_do_not_fit_take_at_most_a_third_more_than_the_budget():
    """The set that is held keeps the chunk and the tile at which it was interrupted."""
    interrupted = CHUNK + TILE_WITH_PARTS
    streamed = CHUNK + TILE_WITH_PARTS
    assert interrupted + HELD_TILES + streamed + TILE_KERNELS == Fraction(4, 3)


@pytest.mark.parametrize("share", [CHUNK, HELD_TILES, TILE, TILE_KERNELS, SKETCH, SINGLE_SAMPLES])
def test_a_share_of_the_budget_is_in_whole_bytes(share):
    with sklearn.config_context(working_memory=1):
        assert memory_budget(share) == int(2**20 * share)
        assert memory_budget() == 2**20
