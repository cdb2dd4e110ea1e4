"""The pass over pairs of rows that takes their similarity apart.

Index legend: n pairs of rows; t, s positions (uses of a weight).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from .._kernels.layouts import Layout
from .._kernels.position_blocks import PositionBlock
from .._kernels.precision import full_precision
from .._networks.memory import allocate
from .._networks.network import format_names, match_names
from .chunks import Chunk, Source, iterate_chunks, with_progress

# Pairs of positions that are held at a time, beside those of the result.
_PAIR_ELEMENTS = 2**22

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

# Layers whose activities go along the first axis of the weight.
_INPUTS_FIRST = (
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Embedding,
    nn.EmbeddingBag,
)

_FEWER_PAIRS = "hand over fewer pairs at a time, or choose fewer `parameters`"

_FEWER_POSITIONS = "hand over fewer pairs at a time, or name a layer with fewer positions"


@dataclass(frozen=True)
class Role:
    """What a parameter is to its network.

    Attributes
    ----------
    layer : str
        The first layer that owns it.
    by_rows : bool
        Whether its activities go along its first axis.
    bias : str or None
        The bias that is added wherever this weight is used, where that has a block of its own.
    """

    layer: str
    by_rows: bool
    bias: str | None = None


#: Of rows of features, each of which is an activity.
ROLES_OF_FEATURES = {"features": Role("features", by_rows=True)}


def find_roles(module: nn.Module) -> dict[str, Role]:
    """The role of each parameter, by its first name."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    owners = Counter(id(own) for layer in module.modules() for own in layer._parameters.values())
    found: dict[str, Role] = {}
    for path, layer in module.named_modules():
        alone = all(owners[id(own)] == 1 for own in layer._parameters.values() if own is not None)
        for local, parameter in layer._parameters.items():
            if parameter is None:
                continue
            bias = layer._parameters.get("bias") if local == "weight" else None
            beside = alone and type(layer) in _CONVOLUTIONS and bias is not None
            by_rows = isinstance(layer, _INPUTS_FIRST) and parameter.ndim > 1
            # A parametrization stands inside the layer whose weight it makes.
            owner = path.partition(".parametrizations")[0]
            role = Role(owner, by_rows, names[id(bias)] if beside else None)
            found.setdefault(names[id(parameter)], role)
    return found


def compute_contributions(
    source: Source,
    roles: Mapping[str, Role],
    sets: tuple[Any, Any],
    whitening: str,
    positions: Any,
    verbose: Any = 0,
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, str], dict[str, np.ndarray]]:
    """Of the rows of two sets, taken in pairs, for one of `_kernels.WHITENINGS`."""
    found: Collected | None = None
    for first, second in _paired(source, sets, whitening, positions is not None, verbose):
        if found is None:
            found = Collected(first, second, roles, len(sets[0]), positions)
        scale = 1.0 if whitening == "unit" else 1 / first.jacobian.outputs.shape[1]
        found.add(first, second, scale)
    assert found is not None
    similarity = sum(values.sum(axis=1) for values in found.activities.values())
    if whitening == "unit":
        similarity = np.clip(similarity, -1, 1)
    layers = {name: roles[name].layer for name in found.activities}
    return np.asarray(similarity), found.activities, layers, found.positions


def _paired(
    source: Source, sets: tuple[Any, Any], whitening: str, factored: bool, verbose: Any
) -> Iterator[tuple[Chunk, Chunk]]:
    """Whitened chunks of the same rows of both sets."""
    firsts, seconds = (iterate_chunks(source, X, whitening, factored=factored) for X in sets)
    second = next(seconds).whitened()
    for chunk in with_progress(firsts, len(sets[0]), verbose):
        first = chunk.whitened()
        while len(first.rank):
            count = min(len(first.rank), len(second.rank))
            yield first.part(slice(0, count)), second.part(slice(0, count))
            first = first.part(slice(count, len(first.rank)))
            second = second.part(slice(count, len(second.rank)))
            if not len(second.rank):
                # At the end of the set its zero gradients are reported.
                second = next((chunk.whitened() for chunk in seconds), second)


class Collected:
    """Arrays of contributions, filled chunk by chunk.

    Parameters
    ----------
    first, second : Chunk
        The first chunks, which say what there is.
    roles : dict of str to Role
        The role of each parameter.
    count : int
        Number of pairs.
    positions : None, str or list of str
        Layers whose pairs of positions are wanted.
    """

    def __init__(
        self,
        first: Chunk,
        second: Chunk,
        roles: Mapping[str, Role],
        count: int,
        positions: Any,
    ):
        self.roles = roles
        self.count = count
        self.activities = _empty_activities(first.jacobian.layout, roles, count)
        self.positions: dict[str, np.ndarray] = {}
        self._by_rows = {name: role.by_rows for name, role in roles.items()}
        self._keys = {} if positions is None else self._chosen(first, second, positions)

    def _chosen(self, first: Chunk, second: Chunk, positions: Any) -> dict[str, tuple[str, ...]]:
        """The blocks of the layers that are named."""
        blocks = [chunk.jacobian.blocks for chunk in (first, second)]
        there = {
            self.roles[key[0]].layer: key
            for key in blocks[0]
            if all(isinstance(found.get(key), PositionBlock) for found in blocks)
        }
        chosen = match_names(there, positions)
        if not chosen:
            raise ValueError(
                f"positions is {positions!r}, of which something matches no layer whose weight"
                " acts on activities at positions; allowed are None, and names or patterns among"
                f" {format_names(there) or 'no layer of this network'}."
            )
        return {layer: key for layer, key in there.items() if layer in chosen}

    def add(self, first: Chunk, second: Chunk, scale: float) -> None:
        """Take in a chunk of pairs."""
        found = first.jacobian.marginals(second.jacobian, self._by_rows)
        for name, values in found.items():
            self.activities[name][first.rows] = values.cpu().numpy() * scale
        for layer, key in self._keys.items():
            self._add_positions(layer, key, first, second, scale)

    def _add_positions(
        self, layer: str, key: tuple[str, ...], first: Chunk, second: Chunk, scale: float
    ) -> None:
        blocks = first.jacobian.blocks
        constant = float((self.roles[key[0]].bias,) in blocks)
        limit = max(1, _PAIR_ELEMENTS // _pairs_of_positions(first, second, key))
        for one, other in zip(first.split(limit), second.split(limit), strict=True):
            own, others = (chunk.jacobian.blocks[key] for chunk in (one, other))
            assert isinstance(own, PositionBlock) and isinstance(others, PositionBlock)
            with torch.no_grad(), full_precision(one.jacobian.outputs.device):
                values = own.paired_positions(others, constant)
            self._array(layer, values.shape[1:])[one.rows] = values.cpu().numpy() * scale

    def _array(self, layer: str, shape: torch.Size) -> np.ndarray:
        """Where a layer's positions go; as many as there were at first."""
        if layer not in self.positions:
            described = f"Pairs of positions of layer {layer!r}"
            size = (self.count, *shape)
            dtype = np.dtype(np.float64)
            self.positions[layer] = allocate(described, size, dtype, _FEWER_POSITIONS)
        array = self.positions[layer]
        if array.shape[1:] != shape:
            raise ValueError(
                f"positions names layer {layer!r}, which has {tuple(shape)} positions in one pair"
                f" and {array.shape[1:]} in another; allowed are pairs of as many: ask for one pair"
                " at a time."
            )
        return array


def _empty_activities(
    layout: Layout, roles: Mapping[str, Role], count: int
) -> dict[str, np.ndarray]:
    """Zeros for each parameter, columns of one array."""
    widths = [(shape[:1] if roles[name].by_rows else shape[1:]).numel() for name, shape in layout]
    size = (count, sum(widths))
    table = allocate("Contributions", size, np.dtype(np.float64), _FEWER_PAIRS)
    table.fill(0)
    edges = list(itertools.accumulate(widths, initial=0))
    columns = itertools.starmap(slice, itertools.pairwise(edges))
    return {name: table[:, part] for (name, _), part in zip(layout, columns, strict=True)}


def _pairs_of_positions(first: Chunk, second: Chunk, key: tuple[str, ...]) -> int:
    positions = [chunk.jacobian.blocks[key].positions for chunk in (first, second)]
    return max(1, positions[0] * positions[1])
