"""Full precision inside the block, and the caller's settings after it."""

import pytest
import torch

from sknetsim._kernels.precision import full_precision, in_full_precision

CPU = torch.device("cpu")


def test_autocast_is_off_inside_and_on_again_afterwards():
    matrix = torch.randn(3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with full_precision(CPU):
            assert (matrix @ matrix).dtype is torch.float32
        assert (matrix @ matrix).dtype is torch.bfloat16


@pytest.fixture
def tf32():
    """Switch TF32 on for a test."""
    backend = torch.backends.cuda.matmul
    before = backend.allow_tf32
    backend.allow_tf32 = True
    yield backend
    backend.allow_tf32 = before


def test_tf32_is_off_inside_and_on_again_afterwards(tf32):
    with full_precision(CPU):
        assert not tf32.allow_tf32
    assert tf32.allow_tf32


def test_tf32_is_on_again_after_an_error(tf32):
    with pytest.raises(KeyError), full_precision(CPU):
        raise KeyError
    assert tf32.allow_tf32


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"),
    reason="this torch has only the older interface to TF32",
)
def test_tf32_is_off_inside_if_the_caller_uses_the_newer_interface():
    backend = torch.backends.cuda.matmul
    before = backend.fp32_precision
    backend.fp32_precision = "tf32"
    try:
        with full_precision(CPU):
            assert backend.fp32_precision == "ieee"
        assert backend.fp32_precision == "tf32"
    finally:
        backend.fp32_precision = before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_convolutions_are_exact_on_a_device_that_has_tf32():
    X, weight = torch.randn(2, 64, 16, 16), torch.randn(64, 64, 3, 3)
    expected = torch.nn.functional.conv2d(X.double(), weight.double())
    with full_precision(torch.device("cuda")):
        result = torch.nn.functional.conv2d(X.cuda(), weight.cuda()).cpu()
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-4)


class Doubling:
    """An object with outputs, as the decorator needs it."""

    def __init__(self, outputs):
        self.outputs = outputs

    @in_full_precision
    def double(self):
        """Return twice the outputs."""
        return 2 * self.outputs


@pytest.mark.parametrize("requires_grad", [False, True])
def test_a_decorated_method_records_a_graph_if_the_outputs_have_one(requires_grad):
    doubling = Doubling(torch.ones(2, requires_grad=requires_grad))
    with torch.set_grad_enabled(not requires_grad):
        assert doubling.double().requires_grad == requires_grad


def test_a_decorated_method_keeps_its_name_and_docstring():
    assert Doubling.double.__name__ == "double"
    assert Doubling.double.__doc__ == "Return twice the outputs."
