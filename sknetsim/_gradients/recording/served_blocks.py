"""Blocks of the parameters whose uses in a forward pass have rules.

Index legend: n samples; o outputs (d of them).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..._kernels.blocks import Block, add_blocks, split_by_parameter
from ..._kernels.parameter_maps import (
    AutogradMap,
    IdentityMap,
    IndexMap,
    NormalizedMap,
    ParameterMap,
)
from ..._kernels.position_blocks import PositionBlock
from ..._kernels.precision import full_precision
from ..._kernels.sum_blocks import SumBlock, Summand, make_sum_block, wrap_block
from ...exceptions import is_out_of_memory
from ...rules import find_function_rule, find_rule
from .calls import Origin, Tape, find_parameters
from .local_gradients import differentiate_call
from .reasons import explain_axes, explain_failure
from .resolution import Use

#: Names of the parameters of a block.
Key = tuple[str, ...]


@dataclass(frozen=True)
class ServedBlocks:
    """Blocks of the parameters whose uses are supported.

    Attributes
    ----------
    blocks : dict of tuple of str to Block
        Block of each group of parameters, by their names.
    without_rule : set of str
        Names of parameters of which some call was differentiated without a rule.
    failed : dict of str to str
        Names of parameters of which some call could not be differentiated, with the reason.
    """

    blocks: dict[Key, Block]
    without_rule: set[str]
    failed: dict[str, str]


def compute_served_blocks(
    uses: Sequence[Use],
    cotangents: Sequence[Tensor | None],
    graph: bool = False,
    factored: bool = True,
) -> ServedBlocks:
    """Return the blocks of all uses, added for each group of parameters.

    Parameters
    ----------
    uses : list of Use
        Uses of parameters on samples.
    cotangents : list of (Tensor of shape (d, ...) or None)
        Cotangents at the output of each use; None for zero.
    graph : bool
        Whether the arguments keep their autograd graph; cotangents always keep theirs.
    factored : bool
        Whether the blocks keep their factors. If not, the block of each use is converted to the
        form that is cheaper for sums before the next one is computed, so that large factors of
        several uses are not in memory together.
    """
    if factored or not uses:
        return _compute_blocks(uses, cotangents, graph, factored)
    # Once for all blocks, because changing the settings of torch takes time.
    with full_precision(next(iter(uses[0].sources.values())).tensor.device):
        return _compute_blocks(uses, cotangents, graph, factored)


def _compute_blocks(
    uses: Sequence[Use], cotangents: Sequence[Tensor | None], graph: bool, factored: bool
) -> ServedBlocks:
    # A parameter may be used several times:
    # J_o(x_n) = sum over uses of the rule at (arguments_n, c[n,o]).
    parts: dict[Key, list[Block]] = defaultdict(list)
    without_rule: set[str] = set()
    failed: dict[str, str] = {}
    for use, groups, cotangent in zip(uses, _group_arguments(uses), cotangents, strict=True):
        if cotangent is None or not cotangent.numel():
            continue  # The outputs do not depend on this call, or it is a call on no rows.
        arguments, own = _cast(use, cotangent, graph)
        for group in groups:
            blocks = _apply_rule(use, arguments, own, group, factored)
            if blocks is None:
                names = _find_names(use, group)
                without_rule |= set(names)
                dense = differentiate_call(use, arguments, own, group)
                if dense is None:
                    explain = explain_axes if use.axes.is_assumed else explain_failure
                    failed |= dict.fromkeys(names, explain(use.call))
                blocks = [] if dense is None else [dense]
            while blocks:
                # The factors are no longer referenced when those of the next use are computed.
                named = _name_block(use, _convert(blocks.pop(0), factored))
                parts[tuple(name for name, _ in named.layout)].append(named)
    added = {key: _add_blocks(blocks, factored) for key, blocks in parts.items()}
    return ServedBlocks(_separate_shared(added), without_rule, failed)


def _convert(block: Block, factored: bool) -> Block:
    """Return a block that keeps its factors, or is in the form that is cheaper for sums."""
    if factored:
        return block
    with torch.no_grad():
        return block.for_sums()


def _find_names(use: Use, group: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the parameters behind some arguments of a use, by name."""
    return find_parameters(use.sources[argument] for argument in group)


def _group_arguments(uses: Sequence[Use]) -> list[list[tuple[str, ...]]]:
    """Return the arguments of each use whose gradients are in one block.

    These are all of them, as a weight and its bias, unless a parameter belongs to different blocks
    of several uses.
    """
    keys = [frozenset(_find_names(use, tuple(use.sources))) for use in uses]
    owners: dict[str, set[frozenset[str]]] = defaultdict(set)
    for key in keys:
        for name in key:
            owners[name].add(key)
    return [
        [tuple(use.sources)]
        if all(len(owners[name]) == 1 for name in key)
        else [(argument,) for argument in use.sources]
        for use, key in zip(uses, keys, strict=True)
    ]


def _cast(use: Use, cotangents: Tensor, graph: bool) -> tuple[dict[str, Any], Tensor]:
    """Return the arguments and cotangents with the samples first, in the dtype of the parameters.

    They have another dtype if the network enables autocast itself.
    """
    dtype = next(iter(use.sources.values())).tensor.dtype

    def convert(tensor: Tensor) -> Tensor:
        kept = tensor if graph else tensor.detach()
        return kept.to(dtype) if kept.is_floating_point() else kept

    return use.split_arguments(convert), use.split_cotangents(cotangents).to(dtype)


def _apply_rule(
    use: Use,
    arguments: dict[str, Any],
    cotangents: Tensor,
    group: tuple[str, ...],
    factored: bool,
) -> list[Block] | None:
    """Return the blocks of some arguments of a use by a rule; None if no rule covers them."""
    try:
        return _call_rule(use, arguments, cotangents, group, factored)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        if not use.axes.is_assumed or is_out_of_memory(error):
            raise
        return None


def _call_rule(
    use: Use,
    arguments: dict[str, Any],
    cotangents: Tensor,
    group: tuple[str, ...],
    factored: bool,
) -> list[Block] | None:
    function = use.call.function
    if isinstance(function, nn.Module):
        rule = find_rule(function)
        assert rule is not None
        # The batch of each sample has one entry.
        return list(rule(function, arguments["inputs"][:, 0], cotangents[:, :, 0], group))
    entry = find_function_rule(function)
    if entry is not None and entry.parameters.issuperset(group):
        blocks = entry.apply(arguments, cotangents, group, factored)
        return None if blocks is NotImplemented else list(blocks)
    return None


def _name_block(use: Use, block: Block) -> Block:
    """Return a block whose layout has the names of arguments as a block of the parameters."""
    sources = [use.sources[name] for name, _ in block.layout]
    if use.call.order is not None:
        # Row i of the block is sample order[i].
        block = block.rows(torch.argsort(use.call.order))
    names = {source.name for source in sources}
    if None not in names and len(names) == len(sources):
        return replace(block, layout=_list_layout(sources))
    maps = tuple(make_map(source) for source in sources)
    summed = make_sum_block(_list_layout(sources), [Summand(block, maps)])
    # Products of complex gradients are not those of the real gradients behind them.
    return summed.dense() if any(source.tensor.is_complex() for source in sources) else summed


def _list_layout(sources: list[Origin]) -> tuple[tuple[str, torch.Size], ...]:
    """Return the layout of all parameters behind some tensors."""
    return tuple((name, parameter.shape) for name, parameter in find_parameters(sources).items())


def make_map(source: Origin) -> ParameterMap:
    """Return the linear map from the gradient in a tensor to those in the parameters behind it."""
    parameters, layout = source.find_parameters(), _list_layout([source])
    if source.name is not None:
        return IdentityMap(layout)
    indices = _find_indices(source)
    if indices is not None and all(p.dtype == source.tensor.dtype for p in parameters.values()):
        return IndexMap(layout, indices.flatten())
    normalized = _make_normalized_map(source, parameters)
    return normalized or AutogradMap(layout, source.tensor, list(parameters.values()))


def _make_normalized_map(source: Origin, parameters: dict[str, Tensor]) -> NormalizedMap | None:
    """Return the map of a weight that `weight_norm` returned, if it normalises two parameters."""
    function, arguments = source.decomposed or (None, ())
    names = {id(parameter): name for name, parameter in parameters.items()}
    if function is not torch._weight_norm or len({id(a) for a in arguments[:2]} & names.keys()) < 2:
        return None
    layout = tuple((names[id(parameter)], parameter.shape) for parameter in arguments[:2])
    return NormalizedMap(layout, *arguments)


def _find_indices(source: Origin) -> Tensor | None:
    """Return the position in the flattened parameter of each element; None if it has none."""
    if source.name is not None:
        numbers = torch.arange(source.tensor.numel(), device=source.tensor.device)
        return numbers.view(source.tensor.shape)
    if source.select is None:
        return None
    (parent,) = source.parents
    indices = _find_indices(parent)
    return None if indices is None else source.select(indices)


def _add_blocks(blocks: list[Block], factored: bool) -> Block:
    """Return the sum of blocks of the same parameters, with factors or in the form for sums.

    Factors of different forms, as of an embedding that is also the last layer, are not written out.
    """
    if len(blocks) == 1:
        return blocks[0]
    is_mixed = len({block._form() for block in blocks}) > 1
    has_factors = any(isinstance(block, PositionBlock) for block in blocks)
    if any(isinstance(block, SumBlock) for block in blocks) or (is_mixed and has_factors):
        wrapped = [block if isinstance(block, SumBlock) else wrap_block(block) for block in blocks]
        return _convert(wrapped[0]._add(wrapped), factored)
    return _convert(add_blocks(blocks), factored)


def _separate_shared(blocks: dict[Key, Block]) -> dict[Key, Block]:
    """Return blocks of different parameters: those that share some are written out and added."""
    counts = Counter(name for key in blocks for name in key)
    separate = {k: b for k, b in blocks.items() if all(counts[name] == 1 for name in k)}
    shared: dict[str, list[Block]] = defaultdict(list)
    for key, block in blocks.items():
        if key in separate:
            continue
        for part in split_by_parameter(block):
            shared[part.layout[0][0]].append(part)
    return separate | {(name,): add_blocks(parts) for name, parts in shared.items()}


def is_used_outside(tape: Tape, uses: Mapping[int, int]) -> bool:
    """Return whether a parameter of a rule is used outside the recorded calls.

    Its gradient may then be correct in one chunk and wrong in another.
    """
    expected: Counter[int] = Counter()
    uncounted: set[int] = set()
    for call in tape.calls:
        for source in call.sources.values():
            if source.name is None:
                continue
            if call.evaluate is None:
                # A layer with its own rule, or a recurrent one, may use a parameter several times.
                uncounted.add(id(source.tensor))
            expected[id(source.tensor)] += any(edge is not None for edge in call.edges)
    return any(
        uses.get(parameter, 0) > count
        for parameter, count in expected.items()
        if parameter not in uncounted
    )
