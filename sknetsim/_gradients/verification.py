"""Verification of a network's outputs and gradients, on some chunks.

Index legend: n samples; o outputs (d of them); p, q parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .._kernels.jacobian import Jacobian, ParameterVectors
from .._networks.batches import (
    Inputs,
    describe_non_finite,
    list_tensors,
    slice_batch,
    take_batch,
)
from .._networks.network import Network
from ..exceptions import NonFiniteError, SoftmaxOutputWarning, UnsupportedNetworkError, warn
from .fallback import Call
from .outputs import Outputs, looks_like_probabilities
from .parameters import view_as_real
from .recording import Tape

# Largest number of samples that are verified together before the first chunk is computed.
_VERIFIED_SAMPLES = 32

# One of this number of samples is checked in each chunk.
_CHECKED_SHARE = 64


def select_part(count: int) -> slice:
    """Return the samples of a first chunk that are verified before it: all, or 16 to 32 of them."""
    step = 2 * count // _VERIFIED_SAMPLES if count > _VERIFIED_SAMPLES else 1
    return slice(0, count, step)


def are_checked(count: int, number: int) -> bool:
    """Return whether samples of a chunk that is like an earlier one are evaluated again.

    They are in every chunk of 64 samples or more, and in every second one of fewer samples.
    """
    return count >= _CHECKED_SHARE or number % 2 == 0


def are_verified(number: int) -> bool:
    """Return whether gradients of these samples are verified, as in chunk number 4, 16, 64."""
    return number in {4**power for power in range(1, 20)}


def select_rows(count: int, seed: int) -> list[int]:
    """Return the samples of a chunk of two or more that are checked in a batch of their own.

    A chunk of fewer than 128 samples has one or two of them. A larger one has the first and the
    last one, because sorting moves one of these, and one in 64 of the others.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(count, generator=generator)[: 1 + count // _CHECKED_SHARE].tolist()
    return rows if count < 2 * _CHECKED_SHARE else sorted({0, count - 1, *rows})


def check_outputs(outputs: Tensor, inputs: Inputs) -> None:
    """Check that there is one row of outputs per sample, and that all outputs are finite."""
    samples = len(list_tensors(inputs)[0])
    if len(outputs) != samples:
        raise UnsupportedNetworkError(
            f"`estimator` must return one row per sample; got {len(outputs)} rows for {samples}"
            " samples. Keep the sample axis first (no mean over samples, no squeeze()), and pass a"
            " single sample as X[None]."
        )
    check_finite(outputs, inputs)


def check_finite(outputs: Tensor, inputs: Inputs) -> None:
    """Raise an error with the samples whose outputs, or predictions, are NaN or infinite."""
    if torch.isfinite(outputs).all():
        return
    is_bad = ~torch.isfinite(outputs).reshape(len(outputs), -1).all(dim=1)
    rows = is_bad.nonzero()[:, 0].tolist()
    values = describe_non_finite(slice_batch(inputs, slice(rows[0], rows[0] + 1)))
    cure = "Impute or drop such rows, or c" if "contains" in values else "C"
    raise NonFiniteError(
        "`estimator` must return finite outputs; got NaN or infinity",
        rows,
        len(outputs),
        f"{cure}heck the weights and the scale of X.",
        values,
    )


def check_no_mixing(
    call: Call,
    selection: Outputs,
    module: nn.Module,
    inputs: Inputs,
    targets: Tensor | None,
    outputs: Tensor,
) -> None:
    """Check that the outputs of the first and last samples are the same without other samples."""
    for index in (0, len(outputs) - 1):
        compute_again(call, selection, module, inputs, targets, outputs, [index])


def check_same_outputs(alone: Tensor, outputs: Tensor, rows: list[int]) -> None:
    """Check that samples have the same outputs in a batch of their own as in the whole batch."""
    # f(X)[rows] is compared with f(X[rows]). They differ if f mixes samples, and then J(x_n) would
    # not be a function of x_n.
    if not is_close(alone, outputs[rows], outputs):
        raise make_mixing_error()


def compute_again(
    call: Call,
    selection: Outputs,
    module: nn.Module,
    inputs: Inputs,
    targets: Tensor | None,
    outputs: Tensor,
    rows: list[int],
) -> Tensor:
    """Return outputs of some samples, computed again in a batch of their own and checked.

    Their graph is that of these samples only.
    """
    raw = call(module, take_batch(inputs, rows))
    again = selection.select(raw, None if targets is None else targets[rows]).to(outputs.dtype)
    check_same_outputs(again, outputs, rows)
    return again


def is_close(alone: Tensor, together: Tensor, values: Tensor | None = None) -> bool:
    """Return whether two tensors are equal up to rounding, relative to the largest of all values.

    Values that are not finite count as equal here; they raise an error later.
    """
    values = together if values is None else values
    largest = float(values.detach().abs().max()) if values.numel() else 0.0
    tolerance = torch.finfo(values.dtype).eps ** 0.5 * largest
    if alone.shape != together.shape or not math.isfinite(largest):
        return alone.shape == together.shape
    return torch.allclose(alone, together, rtol=0, atol=tolerance)


def make_mixing_error() -> UnsupportedNetworkError:
    """Return the error for a network whose outputs for a sample depend on other samples."""
    return UnsupportedNetworkError(
        "`estimator` must return outputs for a sample that depend only on that sample; got"
        " different outputs for a sample on its own than in a batch. Remove batch statistics, means"
        " over samples, squeeze() without an axis, and randomness in eval mode."
    )


def make_batches_error(name: str) -> UnsupportedNetworkError:
    """Return the error for a parameter whose gradients are wrong in some batches only."""
    return UnsupportedNetworkError(
        "`estimator` must treat all batches in the same way; got a network that sorts the samples,"
        f" or uses {name!r} for some of them only: its gradients were correct in the first batch"
        " and wrong in a later one. Set batch_size=1."
    )


def make_graph_error() -> UnsupportedNetworkError:
    """Return the error for outputs that have no autograd graph for any parameter."""
    return UnsupportedNetworkError(
        "`estimator` must return outputs that autograd can differentiate; got outputs without an"
        " autograd graph. Remove torch.no_grad(), inference_mode(), detach() and conversions to"
        " integers from its forward pass, and from `output`."
    )


def warn_if_probabilities(network: Network, outputs: Tensor) -> None:
    """Warn if the outputs of a module without a criterion are probabilities."""
    if network.criterion is None and looks_like_probabilities(outputs):
        warn(
            "The outputs of the network sum to one, like probabilities. Their gradients vanish if"
            " the network is certain, so that rounding errors decide the similarities. Compare"
            " logits instead: set output=lambda raw: raw.log(), or pass the module without its"
            " softmax.",
            SoftmaxOutputWarning,
        )


def find_wrong_parameters(tape: Tape, jacobian: Jacobian) -> set[str]:
    """Return the names of the parameters with wrong gradients, according to autograd.

    Parameters
    ----------
    tape : Tape
        The recorded forward pass.
    jacobian : Jacobian
        The gradients, with outputs that have their autograd graph.
    """
    # Two values of S = sum_n sum_o w[n,o] J_o(x_n) are compared: the sum of the given gradients,
    # and the gradient of sum_n sum_o w[n,o] f_o(x_n), which takes one backward pass.
    # The weights are random and different for each sample and output: with w = 1, gradients that
    # are assigned to the wrong samples or outputs would have the correct sum.
    outputs = jacobian.outputs
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(outputs.shape, generator=generator).to(outputs)
    sums = jacobian.weighted_sum(weights[..., None])
    expected = _autograd_sum(tape.parameters, outputs, weights)
    # Gradients of a parameter p are correct if
    # |S_p - A_p| <= sqrt(eps) |A_p| + 100 eps sum_q |A_q|, where A is the S of autograd.
    # NaN is not less than or equal to any number, so it is wrong.
    # A float64 network may compute some values in float32, as RMS norms of transformers do.
    dtype = torch.float32 if torch.float32 in tape.dtypes else outputs.dtype
    eps = torch.finfo(dtype).eps
    norms = {name: float(value.norm()) for name, value in expected.items()}
    floor = 100 * eps * sum(norms.values())
    return {
        name
        for name, value in expected.items()
        if not _distance(sums.get(name), value) <= floor + eps**0.5 * norms[name]
    }


def _autograd_sum(
    parameters: Mapping[str, Tensor], outputs: Tensor, weights: Tensor
) -> ParameterVectors:
    """Return the gradient of sum_n sum_o w[n,o] f_o(x_n), of shape (1, P) for each parameter."""
    gradients: Sequence[Tensor | None] = [None] * len(parameters)
    if outputs.requires_grad:
        gradients = torch.autograd.grad(
            outputs, list(parameters.values()), weights, retain_graph=True, allow_unused=True
        )
    dense = [
        torch.zeros_like(p) if gradient is None else gradient.to_dense()
        for p, gradient in zip(parameters.values(), gradients, strict=True)
    ]
    return {
        name: view_as_real(gradient).detach().reshape(1, -1)
        for name, gradient in zip(parameters, dense, strict=True)
    }


def _distance(value: Tensor | None, expected: Tensor) -> float:
    """Return the distance of two vectors; the vector of a parameter without a block is zero."""
    return float((expected if value is None else value - expected).detach().norm())
