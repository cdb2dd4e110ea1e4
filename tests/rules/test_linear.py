"""Rules of products with a matrix of weights."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from sknetsim._kernels.blocks import DenseBlock
from sknetsim._kernels.factored_blocks import FactorBlock
from sknetsim.rules.linear import matmul
from sknetsim.testing import check_rule

from .loops import Calling, apply_rule, draw_cotangents, draw_inputs, find_use, is_covered


def apply_to_linear(X, names=("weight", "bias")):
    layer = nn.Linear(4, 5).double()
    cotangents = draw_cotangents(layer, X)
    (block,), _ = apply_rule(layer, X, cotangents, names)
    return block, cotangents


def test_weight_and_bias_share_one_block_of_factors():
    X = torch.randn(2, 4, dtype=torch.float64)
    block, cotangents = apply_to_linear(X)
    assert isinstance(block, FactorBlock)
    assert torch.equal(block.activations, X[:, None, None])
    assert torch.equal(block.cotangents, cotangents[:, :, None, None])


def test_the_axes_between_samples_and_features_are_positions():
    block, _ = apply_to_linear(torch.randn(2, 3, 2, 4, dtype=torch.float64))
    assert block.positions == 6


def test_a_bias_on_its_own_is_written_out():
    block, _ = apply_to_linear(torch.randn(2, 4, dtype=torch.float64), names=["bias"])
    assert isinstance(block, DenseBlock)


#: Functions with the shape of the input and those of the parameters.
COVERED = {
    "linear": (functional.linear, (4, 3), (2, 3), (2,)),
    "linear with a frozen weight": (
        lambda X, b: functional.linear(X, X.new_ones(2, 3), b),
        (4, 3),
        (2,),
    ),
    "matmul": (torch.matmul, (4, 3), (3, 2)),
    "method matmul": (torch.Tensor.matmul, (4, 2, 3), (3, 2)),
    "operator": (lambda X, W: X @ W, (4, 5, 2, 3), (3, 2)),
    "mm": (torch.mm, (4, 3), (3, 2)),
    "method mm": (torch.Tensor.mm, (4, 3), (3, 2)),
    "matrix first": (lambda X, W: W @ X, (4, 3, 5), (2, 3)),
    "matrix first, of several axes": (lambda X, W: torch.matmul(W, X), (4, 2, 3, 5), (2, 3)),
    "matrix first, samples last": (lambda X, W: torch.mm(W, X.T).T, (4, 3), (2, 3)),
    "one matrix for each group": (torch.matmul, (4, 5, 2, 3), (5, 3, 2)),
    "one matrix for each group first": (lambda X, W: W @ X, (4, 5, 3, 2), (5, 2, 3)),
    "bmm": (lambda X, W: X.transpose(0, 1).bmm(W).transpose(0, 1), (4, 5, 3), (5, 3, 2)),
    "bmm first": (
        lambda X, W: torch.bmm(W, X.permute(1, 2, 0)).permute(2, 0, 1),
        (4, 5, 3),
        (5, 2, 3),
    ),
    "addmm": (lambda X, b, W: torch.addmm(b, X, W), (4, 3), (2,), (3, 2)),
    "method addmm": (lambda X, b, W: b.addmm(X, W, beta=1, alpha=1), (4, 3), (2,), (3, 2)),
    "addmm with a frozen matrix": (
        lambda X, b: torch.addmm(b, X, X.new_ones(3, 2)),
        (4, 3),
        (2,),
    ),
    "addmm with a frozen bias": (
        lambda X, W: torch.addmm(X.new_ones(2), X, W),
        (4, 3),
        (3, 2),
    ),
}


@pytest.mark.parametrize("case", COVERED.values(), ids=COVERED)
def test_products_with_a_matrix_have_factors(case):
    function, shape, *shapes = case
    layer, X = Calling(function, *shapes), draw_inputs(*shape)
    assert is_covered(layer, X)
    check_rule(layer, X)


#: Functions that the rules do not cover, which are differentiated in another way.
OTHERS = {
    "linear with a vector": (functional.linear, (4, 3), (3,)),
    "matmul with a vector": (torch.matmul, (4, 2, 3), (3,)),
    "matmul of a vector first": (lambda X, w: torch.matmul(w, X), (4, 2, 3), (2,)),
    "groups that repeat the input": (torch.matmul, (4, 1, 2, 3), (5, 3, 2)),
    "an input without groups": (
        lambda X, W: torch.matmul(X, W).transpose(0, 1),
        (4, 2, 3),
        (5, 1, 3, 2),
    ),
    "matrices in two axes": (torch.matmul, (4, 2, 5, 2, 3), (2, 5, 3, 2)),
    "scaled addmm": (
        lambda X, b, W: torch.addmm(b, X, W, beta=0.5, alpha=2),
        (4, 3),
        (2,),
        (3, 2),
    ),
    "addmm with a matrix as bias": (lambda X, b, W: torch.addmm(b, X, W), (4, 3), (1, 2), (3, 2)),
    "addmm with the matrix first": (
        lambda X, b, W: torch.addmm(b, W, X.T).T,
        (4, 3),
        (2, 1),
        (2, 3),
    ),
    "baddbmm": (
        lambda X, b, W: torch.baddbmm(b, X, W.expand(len(X), 3, 2)),
        (4, 5, 3),
        (2,),
        (3, 2),
    ),
}


@pytest.mark.parametrize("case", OTHERS.values(), ids=OTHERS)
def test_products_that_no_rule_covers_have_correct_gradients(case):
    function, shape, *shapes = case
    check_rule(Calling(function, *shapes), draw_inputs(*shape))


#: Matrices that are computed from parameters before they are multiplied with samples.
DERIVED = {
    "transposed": (lambda X, W: X @ W.T, (4, 3), (2, 3)),
    "half of it": (lambda X, W: X @ W.chunk(2)[1], (4, 3), (6, 2)),
    "product": (lambda X, A, B: X @ (A @ B), (4, 3), (3, 2), (2, 3)),
    "added product": (
        lambda X, W, A, B: functional.linear(X, W + A @ B),
        (4, 3),
        (2, 3),
        (2, 1),
        (1, 3),
    ),
    "used twice": (lambda X, W: X @ W + (X @ W.T).tanh(), (4, 3), (3, 3)),
    "symmetric": (lambda X, W: X @ (W + W.T), (4, 3), (3, 3)),
    "squared": (lambda X, W: torch.linalg.matrix_power(W, 2) @ X, (4, 3, 2), (3, 3)),
}


@pytest.mark.parametrize("case", DERIVED.values(), ids=DERIVED)
def test_matrices_derived_from_parameters_have_correct_gradients(case):
    function, shape, *shapes = case
    check_rule(Calling(function, *shapes), draw_inputs(*shape))


def test_the_factors_of_a_product_are_the_input_and_the_cotangents():
    layer, X = Calling(torch.matmul, (3, 2)).double(), draw_inputs(4, 5, 3).double()
    cotangents = draw_cotangents(layer, X)
    use = find_use(layer, X)
    arguments = use.split_arguments(torch.Tensor.detach)
    (block,) = matmul(arguments, cotangents[:, :, None], ("other",))
    assert isinstance(block, FactorBlock)
    assert torch.equal(block.activations[:, :, 0], X)
    assert torch.equal(block.cotangents[:, :, :, 0], cotangents)
