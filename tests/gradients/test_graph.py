"""Structure of autograd graphs, and operations that move samples."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from sknetsim._gradients.graph import GraphMemory, describe_graph

N, T = 6, 4
RANGE, SORTED = torch.arange(N), torch.tensor([2, 1, 0, 3, 4, 5])
MASK = torch.tensor([True, False, True, True, False, True])


def assign(h, rows):
    result = torch.zeros_like(h)
    result[rows] = h
    return result


MOVING = {
    "indices": lambda h: h[SORTED],
    "mask": lambda h: h[MASK],
    "indices of another axis with the samples": lambda h: h.transpose(0, 1)[:, SORTED],
    "index_select": lambda h: h.index_select(0, SORTED),
    "gather": lambda h: h.gather(0, SORTED[:, None, None].expand_as(h)),
    "take_along_dim": lambda h: torch.take_along_dim(h, SORTED[:, None, None], 0),
    "scatter": lambda h: torch.zeros_like(h).scatter(0, SORTED[:, None, None].expand_as(h), h),
    "index_add": lambda h: torch.zeros_like(h).index_add(0, SORTED, h),
    "assignment": lambda h: assign(h, SORTED),
    "assignment by a mask": lambda h: assign(h[:4], MASK[:4]) if MASK[:4].all() else h[MASK],
    "sort": lambda h: h.sort(0)[0],
    "embedding of activations": lambda h: nn.functional.embedding(SORTED, h[:, :, 0]),
    "masked_select": lambda h: h.masked_select(h > 0),
    "packed sequence": lambda h: (
        pack_padded_sequence(h, torch.tensor([4, 4, 3, 2, 2, 1]), batch_first=True).data
    ),
}


class Sorted(torch.autograd.Function):
    """Operation of a user that sorts its samples."""

    @staticmethod
    def forward(ctx, hidden):
        return hidden[SORTED]

    @staticmethod
    def backward(ctx, gradient):
        return gradient[SORTED.argsort()]


class Gather(Sorted):
    """Operation of a user with the name of one of torch."""


def assign_part(h, rows):
    result = torch.zeros(N, T, 5)
    result.view(N, -1)[rows, :12] = h.flatten(1)
    return result


MOVING |= {
    "operation of the user": Sorted.apply,
    "operation of the user with a known name": Gather.apply,
    "assignment to a view": lambda h: assign_part(h, SORTED),
    "bags of activations": lambda h: nn.functional.embedding_bag(SORTED[:, None], h[:, 0]),
}

PERMUTATION = torch.eye(N)[SORTED]
MOVING |= {
    "product with a permutation matrix": lambda h: PERMUTATION @ h[:, 0],
    "product of tensors": lambda h: torch.einsum("nm,mtf->ntf", PERMUTATION, h),
    "product with the transposed": lambda h: (h.transpose(0, 2) @ PERMUTATION).transpose(0, 2),
    "added product": lambda h: torch.addmm(torch.zeros(N, 3), PERMUTATION, h[:, 0]),
    "product with a vector": lambda h: PERMUTATION @ h[:, 0, 0],
    "sum with a mask": lambda h: (PERMUTATION[:, :, None] * h[:, 0]).sum(1),
    "mean over samples": lambda h: h.mean(0),
}

STAYING = {
    "layer": lambda h: nn.Linear(3, N)(h[:, 0]),
    "mean over positions": lambda h: h.mean(1),
    "sum over features": lambda h: h.sum(-1),
    "layer with as many features as samples": lambda h: nn.Linear(2 * 3, N)(h[:, :2].flatten(1)),
    "attention on positions": lambda h: (h @ h.transpose(1, 2)).softmax(-1) @ h,
    "attention on as many positions as samples": lambda h: (
        (h.repeat(1, 2, 1)[:, :N] @ h.repeat(1, 2, 1)[:, :N].mT) @ h.repeat(1, 2, 1)[:, :N]
    ),
    "no operation with indices": lambda h: h.tanh(),
    "indices in order": lambda h: h[RANGE],
    "one position of each sample": lambda h: h[RANGE, SORTED % T],
    "positions": lambda h: h[:, torch.tensor([1, 0])],
    "index_select of positions": lambda h: h.index_select(1, torch.tensor([1, 0])),
    "gather of features": lambda h: h.gather(-1, torch.zeros(N, T, 1, dtype=torch.int64)),
    "sort of features": lambda h: h.sort(dim=-1)[0],
    "largest features": lambda h: h.topk(2, -1)[0],
    "assignment in order": lambda h: assign(h, RANGE),
    "embedding": lambda h: h[:, 0] + nn.Embedding(9, 3)(SORTED),
}


def describe(function):
    hidden = torch.randn(N, T, 3, requires_grad=True) * 1
    return describe_graph(function(hidden).flatten()[:1].expand(N)[:, None])


@pytest.mark.parametrize("function", MOVING.values(), ids=MOVING)
def test_operations_that_move_samples_are_recognised(function):
    assert GraphMemory().moves_samples(describe(function))


@pytest.mark.parametrize("function", STAYING.values(), ids=STAYING)
def test_operations_that_do_not_move_samples_are_recognised(function):
    assert not GraphMemory().moves_samples(describe(function))


def sort_samples(h):
    return h[h[:, 0, 0].argsort()]


def permute(h):
    """Return a permutation matrix of the samples."""
    return torch.eye(len(h))[h[:, 0, 0].argsort()]


WEIGHTS = nn.Parameter(torch.randn(T, T))
POSITIONS = torch.tensor([1, 0, 3, 2])
ALONG_SAMPLES = {
    "mean": lambda h: h.mean(0),
    "sum with a mask": lambda h: (permute(h)[:, :, None] * h[:, 0]).sum(1),
    "product with a permutation matrix": lambda h: permute(h) @ h[:, 0],
    "indices": sort_samples,
    "index_select": lambda h: h.index_select(0, h[:, 0, 0].argsort()),
    "gather": lambda h: h.gather(0, h.argsort(0)),
    "sort": lambda h: h.sort(0)[0],
}
ALONG_POSITIONS = {
    "mean": lambda h: h.mean(1),
    "sum with a mask": lambda h: (WEIGHTS[:, :, None] * h[:, None]).sum(2),
    "product with derived weights": lambda h: h[:, :, 0] @ (WEIGHTS * 2),
    "indices": lambda h: h[:, POSITIONS],
    "index_select": lambda h: h.index_select(1, POSITIONS),
    "gather": lambda h: h.gather(1, h.argsort(1)),
    "sort": lambda h: h.sort(1)[0],
    "rows of a derived table": lambda h: (
        h + nn.functional.embedding(POSITIONS[None], WEIGHTS[:, :3] * 2)
    ),
}


SCALE = nn.Parameter(torch.ones(3))


def describe_batch(function, samples):
    hidden = torch.randn(samples, T, 3) * SCALE
    return describe_graph(function(hidden).flatten()[:1].expand(samples)[:, None])


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("function", ALONG_SAMPLES.values(), ids=ALONG_SAMPLES)
def test_another_batch_does_not_hide_an_operation_along_the_samples(function, samples):
    memory = GraphMemory()
    memory.add(describe_batch(function, samples))
    assert memory.moves_samples(describe_batch(function, T))


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("function", ALONG_POSITIONS.values(), ids=ALONG_POSITIONS)
def test_another_batch_shows_that_as_many_positions_as_samples_are_no_samples(function, samples):
    memory, graph = GraphMemory(), describe_batch(function, T)
    memory.add(graph)
    assert memory.moves_samples(graph)
    memory.add(describe_batch(function, samples))
    assert not memory.moves_samples(graph)


def test_a_single_sample_is_not_moved_along_an_axis():
    assert not GraphMemory().moves_samples(describe_batch(lambda h: h.mean(0), 1))


def test_the_structure_does_not_depend_on_the_number_of_samples():
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    first, second = (describe_graph(network(torch.randn(n, 3))) for n in (2, 5))
    assert (first.structure, first.uses) == (second.structure, second.uses)


def test_the_structure_depends_on_the_uses_of_a_parameter():
    layer = nn.Linear(3, 3)
    once, twice = layer(torch.ones(2, 3)), layer(layer(torch.ones(2, 3)))
    assert describe_graph(once).structure != describe_graph(twice).structure
    assert describe_graph(twice).uses == {id(layer.weight): 2, id(layer.bias): 2}


def test_the_structure_depends_on_the_place_of_a_cut():
    hidden = torch.randn(N, 3, requires_grad=True) * 1
    first, second = (describe_graph(torch.cat([hidden[k:], hidden[:k]])) for k in (1, 2))
    assert first.structure != second.structure


@pytest.mark.parametrize(
    "join",
    [
        lambda h, order: torch.stack([h[index] for index in order]),
        lambda h, order: torch.stack([h.unbind()[index] for index in order]),
        lambda h, order: torch.cat([h.split(1)[index] for index in order]),
    ],
    ids=["indices", "unbind", "split"],
)
def test_the_structure_depends_on_the_order_of_samples_that_are_joined(join):
    hidden = torch.randn(N, 3, requires_grad=True) * 1
    first, second = (describe_graph(join(hidden, order)) for order in (range(N), SORTED.tolist()))
    assert first.structure != second.structure


def test_outputs_without_a_graph_have_no_structure():
    graph = describe_graph(torch.ones(2, 3))
    assert not any(graph.structure) and not graph.moves_samples and not graph.uses
