"""Maps of derived tensors, against their matrices."""

import pytest
import torch

from sknetsim._kernels import parameter_maps
from sknetsim._kernels.parameter_maps import IdentityMap, IndexMap, NormalizedMap, are_disjoint

from .derived_blocks import (
    DERIVATIONS,
    SHAPES,
    compute,
    identity,
    make_parameters,
    normalize,
    select,
)

derivations = pytest.mark.parametrize("derivation", DERIVATIONS.values(), ids=DERIVATIONS)


def draw_vectors(derivation, dtype=torch.float64):
    """Return vectors (3, w) of the derived tensor, and vectors (3, p) of each parameter."""
    matrices = derivation.define_matrix()
    width = len(next(iter(matrices.values())))
    generator = torch.Generator().manual_seed(1)

    def draw(size):
        return torch.randn(3, size, generator=generator, dtype=dtype)

    return draw(width), {name: draw(matrix.shape[1]) for name, matrix in matrices.items()}


@derivations
def test_vectors_are_pulled_by_the_matrix(derivation):
    vectors, _ = draw_vectors(derivation)
    for pulled, matrix in zip(
        derivation.map.pull(vectors), derivation.define_matrix().values(), strict=True
    ):
        torch.testing.assert_close(pulled.detach(), vectors @ matrix)


@derivations
def test_vectors_are_pushed_by_the_matrix(derivation):
    _, vectors = draw_vectors(derivation)
    expected = sum(vectors[name] @ D.T for name, D in derivation.define_matrix().items())
    torch.testing.assert_close(derivation.map.push(vectors).detach(), expected)


@derivations
def test_vectors_of_other_parameters_are_ignored(derivation):
    _, vectors = draw_vectors(derivation)
    pushed = derivation.map.push(vectors)
    torch.testing.assert_close(derivation.map.push({"other": pushed} | vectors), pushed)


@derivations
def test_results_have_the_dtype_of_the_vectors(derivation):
    vectors, by_name = draw_vectors(derivation, torch.float32)
    assert {pulled.dtype for pulled in derivation.map.pull(vectors)} == {torch.float32}
    assert derivation.map.push(by_name).dtype is torch.float32


@derivations
def test_vectors_can_be_mapped_without_gradients(derivation):
    vectors, by_name = draw_vectors(derivation)
    with torch.no_grad():
        results = [*derivation.map.pull(vectors), derivation.map.push(by_name)]
    assert not any(result.requires_grad for result in results)
    torch.testing.assert_close(results[-1], derivation.map.push(by_name).detach())


def test_many_vectors_are_mapped_in_parts(monkeypatch):
    derivation = DERIVATIONS["adapted"]
    vectors, _ = draw_vectors(derivation)
    expected = derivation.map.pull(vectors)
    monkeypatch.setattr(parameter_maps, "_MAPPED_ELEMENTS", 1)
    torch.testing.assert_close(derivation.map.pull(vectors), expected)


def test_pulled_and_pushed_vectors_can_be_differentiated_in_the_parameters():
    vectors, by_name = draw_vectors(DERIVATIONS["normalized"])

    def map_vectors(*parameters):
        layout = DERIVATIONS["normalized"].map.layout
        mapped = parameter_maps.AutogradMap(layout, normalize(*parameters), list(parameters))
        return (*mapped.pull(vectors), mapped.push(by_name))

    assert torch.autograd.gradcheck(map_vectors, make_parameters(["weight", "length"]))


def test_index_maps_are_equal_if_they_select_the_same_elements():
    first, second, other = (
        IndexMap((("p", torch.Size([4])),), torch.tensor(indices))
        for indices in ([1, 3], [1, 3], [3, 1])
    )
    assert first == second and hash(first) == hash(second)
    assert first != other
    assert first != IndexMap((("q", torch.Size([4])),), torch.tensor([1, 3]))
    assert first != IdentityMap((("p", torch.Size([4])),))


DISJOINT = {
    "nothing": ([], True),
    "identity": ([identity("weight")], True),
    "identities of two parameters": ([identity("weight"), identity("bias")], True),
    "one parameter twice": ([identity("weight"), identity("weight")], False),
    "halves": ([select(lambda p, h=h: p.chunk(2)[h], "wide") for h in (0, 1)], True),
    "overlapping rows": ([select(lambda p: p[:3], "wide"), select(lambda p: p[2:], "wide")], False),
    "repeated row": ([select(lambda p: p[[0, 0]], "wide")], False),
    "a row repeated 256 times": ([select(lambda p: p[[0] * 256], "wide")], False),
    "identity and a part": ([identity("wide"), select(lambda p: p[:1], "wide")], False),
    "a computed tensor": ([compute(torch.exp, "bias")], False),
}


@pytest.mark.parametrize(("maps", "expected"), DISJOINT.values(), ids=DISJOINT)
def test_maps_are_disjoint_if_no_element_is_used_twice(maps, expected):
    assert are_disjoint([derivation.map for derivation in maps]) == expected


def test_an_element_that_256_maps_use_is_used_more_than_once():
    assert not are_disjoint([identity("bias").map] * 256)


def test_a_tensor_with_elements_of_the_parameter_has_their_positions():
    (rows, width), derivation = SHAPES["wide"], DERIVATIONS["rows"]
    expected = torch.arange(rows * width).view(rows, width)[2:5].flatten()
    assert torch.equal(derivation.map.targets, expected)
    assert DERIVATIONS["normalized"].map.targets is None


NORMALIZED = {n: d for n, d in DERIVATIONS.items() if isinstance(d.map, NormalizedMap)}


@pytest.mark.parametrize("aligned", [False, True], ids=["any gradients", "gradients along v"])
@pytest.mark.parametrize("derivation", NORMALIZED.values(), ids=NORMALIZED)
def test_self_kernels_of_normalized_weights_do_not_cancel(derivation, aligned):
    """The gradient in v is a small difference if the gradients are almost along v."""
    v, g = make_parameters(derivation.names)
    long = NormalizedMap(derivation.map.layout, v, 1e4 * g, derivation.function.keywords["dim"])
    generator = torch.Generator().manual_seed(2)
    J = torch.randn(4, 1, v.numel(), generator=generator)
    if aligned:
        J = 1e-4 * J + v.detach().float().flatten()
    kernel = long.self_kernel(J)[:, 0, 0]
    expected = torch.cat(long.pull(J[:, 0]), dim=1).double().square().sum(dim=1)
    torch.testing.assert_close(kernel, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda p: p.T, True),
        (lambda p: p, False),
        (lambda p: p[:2].T, False),
        (lambda p: p.flip(0).T, False),
    ],
)
def test_a_transposed_matrix_is_recognised(function, expected):
    indices = function(torch.arange(12).view(3, 4)).flatten()
    layout = (("p", torch.Size([3, 4])),)
    assert IndexMap(layout, indices).is_transposition() == expected
