"""Pass over pairs of samples that splits their similarity into contributions.

The similarity of the n-th pair (x_n, x'_n) is a sum over the entries r, c of all parameters,
k(x_n, x'_n) = sum_orc J[n,o,rc] J'[n,o,rc]. An activation is multiplied by one row or one column of
its weight, so its contribution is the sum over this row or column.

Index legend: n pairs of samples; o outputs of the network (d of them); r, c a parameter's first
axis and its other axes, flattened; t, s positions to which a weight is applied; g groups of a
convolution.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from .._kernels.blocks import Block
from .._kernels.layouts import Layout
from .._kernels.precision import full_precision
from .._networks.memory import allocate
from .._networks.modules import format_names, match_names
from .chunks import Chunk, Source, iterate_chunks, with_progress

# Elements of a temporary over pairs of positions (16 MiB in float32).
_PAIR_ELEMENTS = 2**22

# Layers whose activations multiply rows of the weight. Others multiply columns.
_INPUTS_FIRST = (
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Embedding,
    nn.EmbeddingBag,
)

_FEWER_PAIRS = "Pass fewer pairs at a time, or choose fewer `parameters`"

_FEWER_POSITIONS = "Pass fewer pairs at a time, or choose a layer with fewer positions"


@dataclass(frozen=True)
class Role:
    """Role of a parameter in its network.

    Attributes
    ----------
    layer : str
        Name of the first layer that owns the parameter.
    by_rows : bool
        Whether each activation multiplies a row of the parameter, and not a column.
    """

    layer: str
    by_rows: bool


#: Roles if the samples are features, where each feature is one activation.
ROLES_OF_FEATURES = {"features": Role("features", by_rows=True)}


def find_roles(module: nn.Module) -> dict[str, Role]:
    """Return the role of each parameter, by its first name."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    roles: dict[str, Role] = {}
    for path, layer in module.named_modules():
        for parameter in layer._parameters.values():
            if parameter is None:
                continue
            by_rows = isinstance(layer, _INPUTS_FIRST) and parameter.ndim > 1
            # The module of a parametrization is inside the layer whose weight it computes.
            owner = path.partition(".parametrizations")[0]
            roles.setdefault(names[id(parameter)], Role(owner, by_rows))
    return roles


def compute_contributions(
    source: Source,
    roles: Mapping[str, Role],
    sets: tuple[Any, Any],
    whitening: str,
    positions: Any,
    verbose: Any = 0,
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, str], dict[str, np.ndarray]]:
    """Return the contributions to the similarity of each pair (x_n, x'_n).

    Parameters
    ----------
    source : Source
        The source of Jacobians.
    roles : dict of str to Role
        Role of each parameter.
    sets : tuple of Samples
        The samples x_n and the samples x'_n.
    whitening : str
        One of `WHITENINGS`.
    positions : None, str or list of str
        Names or patterns of the layers whose pairs of positions are returned.
    verbose : int
        Whether to show a progress bar.

    Returns
    -------
    similarity : ndarray of shape (n,), float64
        The similarities; k^C in [-1, 1] if the whitening is "unit", else tr K / d.
    activations : dict of str to ndarray of shape (n, r) or (n, c), float64
        Contributions of the activations, by parameter; their sum over all parameters is the
        similarity.
    layers : dict of str to str
        Layer of each parameter.
    positions : dict of str to ndarray of shape (n, t, s), float64
        Contributions of the pairs of positions, by layer.
    """
    arrays: ContributionArrays | None = None
    for first, second in _iterate_paired(source, sets, whitening, positions is not None, verbose):
        if arrays is None:
            arrays = ContributionArrays(first, second, roles, len(sets[0]), positions)
        scale = 1.0 if whitening == "unit" else 1 / first.jacobian.outputs.shape[1]
        arrays.add(first, second, scale)
    assert arrays is not None
    similarity = sum(values.sum(axis=1) for values in arrays.activations.values())
    if whitening == "unit":
        # Rounding must not leave [-1, 1].
        similarity = np.clip(similarity, -1, 1)
    layers = {name: roles[name].layer for name in arrays.activations}
    return np.asarray(similarity), arrays.activations, layers, arrays.positions


def _iterate_paired(
    source: Source, sets: tuple[Any, Any], whitening: str, factored: bool, verbose: Any
) -> Iterator[tuple[Chunk, Chunk]]:
    """Yield whitened chunks of consecutive pairs: one of the first set, and one of the second.

    The chunks of both sets may have different lengths, so the longer one is cut.
    """
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
                # Beyond the last chunk, `next` reports the zero gradients of the second set.
                second = next((chunk.whitened() for chunk in seconds), second)


class ContributionArrays:
    """Arrays of contributions, filled chunk by chunk.

    Parameters
    ----------
    first, second : Chunk
        The first chunks of both sets, whose blocks determine the names and shapes of the arrays.
    roles : dict of str to Role
        Role of each parameter.
    count : int
        Number of pairs.
    positions : None, str or list of str
        Names or patterns of the layers whose pairs of positions are computed.

    Attributes
    ----------
    activations : dict of str to ndarray of shape (n, r) or (n, c), float64
        Contributions of the activations, by parameter.
    positions : dict of str to ndarray of shape (n, t, s), float64
        Contributions of the pairs of positions, by layer.
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
        self.activations = _make_activation_arrays(first.jacobian.layout, roles, count)
        self.positions: dict[str, np.ndarray] = {}
        self._by_rows = {name: role.by_rows for name, role in roles.items()}
        self._keys = {} if positions is None else self._match_layers(first, second, positions)

    def _match_layers(
        self, first: Chunk, second: Chunk, positions: Any
    ) -> dict[str, list[tuple[str, ...]]]:
        """Return the keys of the blocks of the matching layers, by layer.

        A recurrent layer has several blocks, with the same positions: the time steps.
        """
        block_dicts = [chunk.jacobian.blocks for chunk in (first, second)]
        keys: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for key in block_dicts[0]:
            layers = {self.roles[name].layer for name in key}
            has_positions = all(
                key in blocks and blocks[key].has_positions for blocks in block_dicts
            )
            if has_positions and len(layers) == 1:
                keys[layers.pop()].append(key)
        keys = {n: k for n, k in keys.items() if _have_same_positions(block_dicts[0], k)}
        matching = match_names(keys, positions)
        if not matching:
            cure = (
                f"Use None, or names or patterns of {format_names(keys)}"
                if keys
                else "Set it to None, because no layer of this network does so"
            )
            raise ValueError(
                "`positions` must match layers that apply their weight to the activations at"
                f" positions, such as convolutions; got {positions!r}. {cure}."
            )
        return {layer: own for layer, own in keys.items() if layer in matching}

    def add(self, first: Chunk, second: Chunk, scale: float) -> None:
        """Add the contributions of a chunk of pairs, multiplied by ``scale``."""
        # The share of row r is sum_oc J[n,o,rc] J'[n,o,rc], that of column c the sum over o and r.
        marginals = first.jacobian.marginals(second.jacobian, self._by_rows)
        for name, values in marginals.items():
            self.activations[name][first.rows] = values.cpu().numpy() * scale
        for layer, keys in self._keys.items():
            for key in keys:
                self._add_positions(layer, key, first, second, scale)

    def _add_positions(
        self, layer: str, key: tuple[str, ...], first: Chunk, second: Chunk, scale: float
    ) -> None:
        """Add the contributions of the pairs of positions of one layer."""
        limit = max(1, _PAIR_ELEMENTS // _count_position_pairs(first, second, key))
        for part, other in zip(first.split(limit), second.split(limit), strict=True):
            own, others = (chunk.jacobian.blocks[key] for chunk in (part, other))
            with torch.no_grad(), full_precision(part.jacobian.outputs.device):
                values = own.paired_positions(others)
            array = self._get_position_array(layer, values.shape[1:])
            array[part.rows] += values.cpu().numpy() * scale

    def _get_position_array(self, layer: str, shape: torch.Size) -> np.ndarray:
        """Return the array of a layer, which the first call allocates with the shape (n, t, s)."""
        if layer not in self.positions:
            described = f"Pairs of positions of layer {layer!r}"
            size = (self.count, *shape)
            dtype = np.dtype(np.float64)
            self.positions[layer] = allocate(described, size, dtype, _FEWER_POSITIONS)
            self.positions[layer].fill(0)
        array = self.positions[layer]
        if array.shape[1:] != shape:
            raise ValueError(
                "`positions` must match layers with the same number of positions in all pairs; got"
                f" layer {layer!r}, which has {tuple(shape)} positions in one pair and"
                f" {array.shape[1:]} in another. Pass one pair at a time."
            )
        return array


def _make_activation_arrays(
    layout: Layout, roles: Mapping[str, Role], count: int
) -> dict[str, np.ndarray]:
    """Return zeros of shape (n, r) or (n, c) for each parameter, as columns of one array."""
    widths = [(shape[:1] if roles[name].by_rows else shape[1:]).numel() for name, shape in layout]
    size = (count, sum(widths))
    table = allocate("Contributions", size, np.dtype(np.float64), _FEWER_PAIRS)
    table.fill(0)
    edges = list(itertools.accumulate(widths, initial=0))
    columns = itertools.starmap(slice, itertools.pairwise(edges))
    return {name: table[:, part] for (name, _), part in zip(layout, columns, strict=True)}


def _have_same_positions(
    blocks: Mapping[tuple[str, ...], Block], keys: Sequence[tuple[str, ...]]
) -> bool:
    """Return whether the blocks of a layer have the same number of positions."""
    return len({blocks[key].positions for key in keys}) == 1


def _count_position_pairs(first: Chunk, second: Chunk, key: tuple[str, ...]) -> int:
    """Return the number of pairs of positions t, s in one pair of samples."""
    positions = [chunk.jacobian.blocks[key].positions for chunk in (first, second)]
    return max(1, positions[0] * positions[1])
