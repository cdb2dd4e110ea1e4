"""What is verified of a network before its gradients are used.

Index legend: n samples; o outputs (d of them).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._kernels.jacobian import Jacobian, ParameterVectors
from .._networks.batches import Inputs, slice_batch
from .._networks.network import Network
from ..exceptions import SoftmaxOutputWarning, UnsupportedNetworkError, warn
from .outputs import Outputs, looks_like_probabilities


class Schedule:
    """Which chunks are checked: the first, eighth, 64th ..., the last, and single samples.

    A network may treat its batches differently: sort them, or use a weight for some samples only.
    Chunks that are small anyway are checked as they are, and more often: the second, fourth ...
    too. Of larger ones some samples are, in a batch of their own.
    """

    _ROWS = 32

    def __init__(self) -> None:
        self._passed = 0

    def part(self, count: int) -> slice:
        """Which samples of a chunk are checked: all of a small one, else some, evenly spread."""
        return slice(0, count, 2 * count // self._ROWS if count > self._ROWS else 1)

    def due(self, count: int, last: bool) -> bool:
        """Whether a chunk of so many samples is to be checked."""
        if count == 1 or last or self._is_power_of(2 if count <= self._ROWS else 8):
            return True
        self._passed += 1
        return False

    def _is_power_of(self, base: int) -> bool:
        """Whether the number of the next chunk is."""
        number = self._passed + 1
        while number % base == 0:
            number //= base
        return number == 1

    def record(self, samples: int, wrong: set[str]) -> None:
        """Take note of a check; refuse the network where earlier chunks may have been wrong."""
        if wrong and self._passed:
            raise UnsupportedNetworkError(
                f"estimator treats batches differently (sorts samples, or uses {min(wrong)!r} for"
                " some of them only), so that its gradients were right in the first batch and"
                " wrong in a later one: set batch_size=1."
            )
        if not wrong and samples > 1:
            self._passed += 1


def check_outputs(outputs: Tensor, samples: int) -> None:
    """Refuse outputs without a row per sample, and outputs that are not finite."""
    if len(outputs) != samples:
        raise UnsupportedNetworkError(
            f"estimator returned {len(outputs)} rows for {samples} samples; one row per sample is"
            " needed: keep the sample axis first (no mean over samples, no squeeze())."
        )
    if not torch.isfinite(outputs).all():
        raise UnsupportedNetworkError(
            "estimator returned NaN or infinity; outputs must be finite: check the weights and the"
            " scale of X."
        )


def check_no_mixing(
    network: Network,
    selection: Outputs,
    module: nn.Module,
    inputs: Inputs,
    targets: Tensor | None,
    outputs: Tensor,
) -> None:
    """Compare the first and the last sample's outputs with those of the sample alone."""
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
    """What is said of a network whose outputs for a sample depend on the others."""
    return UnsupportedNetworkError(
        "estimator gives a sample other outputs alone than in a batch; a sample's outputs must"
        " depend on that sample alone: remove batch statistics, means over samples, squeeze()"
        " without an axis, and randomness in eval mode."
    )


def warn_if_probabilities(network: Network, outputs: Tensor) -> None:
    """Say so where a bare module's outputs are probabilities."""
    if network.criterion is None and looks_like_probabilities(outputs):
        warn(
            "the network's outputs sum to one; differences of probabilities vanish where the"
            " network is sure, and rounding decides: compare logits instead, with"
            " output=lambda raw: raw.log(), or hand over the module without its softmax.",
            SoftmaxOutputWarning,
        )


def find_wrong_parameters(module: nn.Module, selected: set[str], jacobian: Jacobian) -> set[str]:
    """Parameters for which sum_n w_n J_n, with random weights w, is not autograd's."""
    outputs = jacobian.outputs
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(outputs.shape, generator=generator).to(outputs)
    sums = jacobian.weighted_sum(weights[..., None])
    expected = _autograd_sum(module, selected, outputs, weights)
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
    parameters = {n: p for n, p in module.named_parameters() if n in selected}
    if not outputs.requires_grad:
        return {name: p.detach().new_zeros(1, p.numel()) for name, p in parameters.items()}
    found = torch.autograd.grad(
        outputs, list(parameters.values()), weights, retain_graph=True, allow_unused=True
    )
    return {
        name: (torch.zeros_like(p) if gradient is None else gradient.to_dense()).reshape(1, -1)
        for (name, p), gradient in zip(parameters.items(), found, strict=True)
    }


def _distance(value: Tensor | None, expected: Tensor) -> float:
    """A parameter without a block is zero."""
    return float((expected if value is None else value - expected).norm())
