"""Verification of a network's outputs and gradients, on some chunks.

Index legend: n samples; o outputs (d of them); p, q parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._kernels.jacobian import Jacobian, ParameterVectors
from .._networks.batches import Inputs, describe_non_finite, list_tensors, slice_batch
from .._networks.network import Network
from ..exceptions import NonFiniteError, SoftmaxOutputWarning, UnsupportedNetworkError, warn
from .outputs import Outputs, looks_like_probabilities


class Schedule:
    """Schedule of the chunks that are checked: number 1, 8, 64, ..., the last, and single samples.

    Several chunks are checked because a network may treat batches differently: it may sort them, or
    use a weight for some samples only. Chunks of at most 32 samples are cheap to check, so all
    samples of number 1, 2, 4, 8, ... are checked. Of a larger chunk, 16 to 32 samples are checked,
    in a batch of their own.
    """

    # Largest number of samples that are checked together.
    _SAMPLES = 32

    def __init__(self) -> None:
        self._passed = 0

    def select_part(self, count: int) -> slice:
        """Return the samples of a chunk that are checked: all, or some at equal distances."""
        return slice(0, count, 2 * count // self._SAMPLES if count > self._SAMPLES else 1)

    def is_due(self, count: int, last: bool) -> bool:
        """Return whether the next chunk, of ``count`` samples, is checked; if not, count it."""
        # Chunks of number b^k are checked, k = 0, 1, 2, ..., where b = 2 for small chunks, else 8.
        if count == 1 or last or self._is_power_of(2 if count <= self._SAMPLES else 8):
            return True
        self._passed += 1
        return False

    def _is_power_of(self, base: int) -> bool:
        """Return whether the number of the next chunk is a power of ``base``."""
        number = self._passed + 1
        while number % base == 0:
            number //= base
        return number == 1

    def record(self, samples: int, wrong: set[str]) -> None:
        """Record the result of a check; raise an error if earlier chunks may have been wrong.

        Parameters
        ----------
        samples : int
            Number of checked samples.
        wrong : set of str
            Names of the parameters with wrong gradients.
        """
        if wrong and self._passed:
            raise UnsupportedNetworkError(
                "`estimator` must treat all batches in the same way; got a network that sorts the"
                f" samples, or uses {min(wrong)!r} for some of them only: its gradients were"
                " correct in the first batch and wrong in a later one. Set batch_size=1."
            )
        if not wrong and samples > 1:
            self._passed += 1


def check_outputs(outputs: Tensor, inputs: Inputs) -> None:
    """Check that there is one row of outputs per sample, and that all outputs are finite."""
    samples = len(list_tensors(inputs)[0])
    if len(outputs) != samples:
        raise UnsupportedNetworkError(
            f"`estimator` must return one row per sample; got {len(outputs)} rows for {samples}"
            " samples. Keep the sample axis first (no mean over samples, no squeeze())."
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
    network: Network,
    selection: Outputs,
    module: nn.Module,
    inputs: Inputs,
    targets: Tensor | None,
    outputs: Tensor,
) -> None:
    """Check that the outputs of the first and last samples are the same without other samples."""
    # f(X)[n] is compared with f(X[n:n+1])[0] for the first and last sample n of the batch X. They
    # differ if f mixes samples, and then J(x_n) would not be a function of x_n.
    tolerance = torch.finfo(outputs.dtype).eps ** 0.5 * float(outputs.detach().abs().max())
    for index in (0, len(outputs) - 1):
        row = slice(index, index + 1)
        with torch.no_grad():
            raw = network.call(module, slice_batch(inputs, row))
            alone = selection.select(raw, None if targets is None else targets[row])
        if alone.shape != outputs[row].shape or not torch.allclose(
            alone.to(outputs.dtype), outputs[row], rtol=0, atol=tolerance
        ):
            raise make_mixing_error()


def make_mixing_error() -> UnsupportedNetworkError:
    """Return the error for a network whose outputs for a sample depend on other samples."""
    return UnsupportedNetworkError(
        "`estimator` must return outputs for a sample that depend only on that sample; got"
        " different outputs for a sample on its own than in a batch. Remove batch statistics, means"
        " over samples, squeeze() without an axis, and randomness in eval mode."
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


def find_wrong_parameters(module: nn.Module, selected: set[str], jacobian: Jacobian) -> set[str]:
    """Return the names of the parameters with wrong gradients, according to autograd.

    Parameters
    ----------
    module : Module
        The network.
    selected : set of str
        Names of the parameters.
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
    expected = _autograd_sum(module, selected, outputs, weights)
    # Gradients of a parameter p are correct if
    # |S_p - A_p| <= sqrt(eps) |A_p| + 100 eps sum_q |A_q|, where A is the S of autograd.
    # NaN is not less than or equal to any number, so it is wrong.
    eps = torch.finfo(outputs.dtype).eps
    norms = {name: float(value.norm()) for name, value in expected.items()}
    floor = 100 * eps * sum(norms.values())
    return {
        name
        for name, value in expected.items()
        if not _distance(sums.get(name), value) <= floor + eps**0.5 * norms[name]
    }


def _autograd_sum(
    module: nn.Module, selected: set[str], outputs: Tensor, weights: Tensor
) -> ParameterVectors:
    """Return the gradient of sum_n sum_o w[n,o] f_o(x_n), of shape (1, P) for each parameter."""
    parameters = {n: p for n, p in module.named_parameters() if n in selected}
    if not outputs.requires_grad:
        return {name: p.detach().new_zeros(1, p.numel()) for name, p in parameters.items()}
    gradients = torch.autograd.grad(
        outputs, list(parameters.values()), weights, retain_graph=True, allow_unused=True
    )
    return {
        name: (torch.zeros_like(p) if gradient is None else gradient.to_dense()).reshape(1, -1)
        for (name, p), gradient in zip(parameters.items(), gradients, strict=True)
    }


def _distance(value: Tensor | None, expected: Tensor) -> float:
    """Return the distance of two vectors; the vector of a parameter without a block is zero."""
    return float((expected if value is None else value - expected).norm())
