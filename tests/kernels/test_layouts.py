"""Orders of parameters, and products with complex phases."""

import pytest
import torch

from sknetsim._kernels.layouts import PLAIN_ORDER, Order, longest_first_axis, multiply_complex

#: Shapes as stored with their axes: groups, output channels, kernel positions, input channels.
CONVOLUTION = Order((2, 3, 4, 5), (0, 1, 3, 2))
TRANSPOSED = Order((2, 3, 4), (0, 2, 1))
ORDERS = {"plain": PLAIN_ORDER, "convolution": CONVOLUTION, "transposed": TRANSPOSED}
orders = pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)


@orders
def test_from_layout_is_the_inverse_of_to_layout(order):
    stored = torch.randn(2, 120 if order is not TRANSPOSED else 24)
    assert torch.equal(order.from_layout(order.to_layout(stored)), stored)


def test_to_layout_permutes_the_axes_of_the_stored_array():
    stored = torch.randn(2, 3, 4, 5)
    written = stored.permute(0, 1, 3, 2).flatten()
    assert torch.equal(CONVOLUTION.to_layout(stored.flatten()), written)


def test_the_plain_order_changes_nothing():
    stored = torch.randn(3, 6)
    assert PLAIN_ORDER.to_layout(stored) is stored
    assert PLAIN_ORDER.columns_from_layout(stored) is stored


def test_rows_are_kept_if_the_first_two_axes_stay_in_front():
    assert {name: order.keeps_rows for name, order in ORDERS.items()} == {
        "plain": True,
        "convolution": True,
        "transposed": False,
    }


def test_the_column_order_arranges_one_row():
    stored = torch.randn(2, 3, 4, 5)
    written = CONVOLUTION.to_layout(stored.flatten()).view(6, 20)
    row = CONVOLUTION.column_order().to_layout(stored[1, 2].flatten())
    assert torch.equal(row, written[5])


def test_columns_from_layout_is_the_inverse_of_the_column_order():
    stored = torch.randn(7, 20)
    written = CONVOLUTION.column_order().to_layout(stored)
    assert torch.equal(CONVOLUTION.columns_from_layout(written.mT), stored.mT)


def test_multiply_complex_equals_the_complex_product():
    vectors = torch.randn(2, 3, 4, dtype=torch.float64)
    phases = torch.randn(4, 5, dtype=torch.complex128)
    torch.testing.assert_close(multiply_complex(vectors, phases), vectors.to(phases) @ phases)


def test_the_longest_first_axis_of_scalars_is_one():
    scalar = ("scale", torch.Size([]))
    assert longest_first_axis((scalar,)) == 1
    assert longest_first_axis((scalar, ("weight", torch.Size([3, 9])))) == 3
