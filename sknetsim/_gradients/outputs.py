"""Selection of the function of the network's outputs that is compared.

Index legend: n samples; d outputs.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._networks.network import Network
from ..exceptions import UnsupportedNetworkError
from .criterion import (
    are_logarithms,
    check_probabilities,
    compute_losses,
    convert_labels,
    make_criterion,
    predict_labels,
)

# Function that returns the compared outputs (n, d) from the raw outputs and the targets or None.
# It is differentiable, and has no Python branches on values, because it also runs under vmap.
Select = Callable[[Any, Tensor | None], Tensor]


@dataclass(frozen=True)
class SelectedOutput:
    """Output by name, of a tensor that is selected first if the network returns several tensors.

    Attributes
    ----------
    name : str
        A name of `NAMES`.
    select : callable or None
        Function that returns the tensor from a raw output that is no tensor; None raises an error
        for such an output.
    cause : str
        Setting of the user that needs this output, for errors, such as "`strategy` is 'badge'".
    """

    name: str
    select: Callable[[Any], Tensor] | None
    cause: str


@dataclass(frozen=True)
class Combinations:
    """Output that consists of linear combinations of all outputs.

    The labels are their weights, of shape (n, k, d): combination k of sample n is
    sum_o labels[n,k,o] z_o(x_n).
    """


class Outputs:
    """Compared outputs, by name, index, list of indices or callable.

    Parameters
    ----------
    output : str, int, list of int, callable, SelectedOutput or Combinations
        A name of `NAMES`, indices, or a callable that returns outputs of shape (n, ...) from the
        network's raw output.
    network : Network
        The network.
    """

    def __init__(self, output: Any, network: Network):
        self.output = output
        self.network = network
        self._chosen = output.name if isinstance(output, SelectedOutput) else output
        if not isinstance(output, Combinations):
            check_output(self._chosen)
        self._criterion = make_criterion(network, self._cause) if self._is("loss") else None

    def targets(self, raw: Any, y: Tensor | None) -> Tensor | None:
        """Return the label of each sample, or the index of its largest output, as constants.

        The raw outputs are checked, because `select` cannot check values under vmap.

        Returns
        -------
        targets : Tensor of n targets, or None
            None unless the output is "loss", "predicted" or `Combinations`.
        """
        if callable(self._chosen):
            return None
        check_probabilities(self.network, self.pick(raw))
        if isinstance(self._chosen, Combinations):
            return y
        if self._is("predicted"):
            return self.logits(raw).detach().argmax(dim=1)
        return self._labels(self.pick(raw), y) if self._is("loss") else None

    def select(self, raw: Any, targets: Tensor | None) -> Tensor:
        """Return the compared outputs, of shape (n, d)."""
        if callable(self._chosen):
            return _flatten_rows(self._chosen(raw), "output")
        if self._is("loss"):
            return self._loss(self.pick(raw), targets)
        logits = self.logits(raw)
        if isinstance(self._chosen, Combinations):
            assert targets is not None
            return torch.einsum("nko,no->nk", targets.to(logits), logits)
        if isinstance(self._chosen, str):
            return _SELECTIONS[self._chosen](logits, targets)
        indices = self._chosen if isinstance(self._chosen, list | tuple) else [self._chosen]
        return logits[:, _check_indices(indices, logits.shape[1])]

    def _is(self, name: str) -> bool:
        return isinstance(self._chosen, str) and self._chosen == name

    def pick(self, raw: Any, reason: str = "") -> Tensor:
        """Return the tensor that logits, probabilities and losses are computed from.

        A ``reason`` to need it begins with a comma, and is named in errors.
        """
        if isinstance(self.output, SelectedOutput):
            if self.output.select is None or isinstance(raw, Tensor):
                return _check_rows(raw, "estimator")
            return _check_rows(self.output.select(raw), "output")
        reason = reason or (", because the loss is compared" if self._is("loss") else "")
        return _check_rows(raw, "estimator", reason, _WRAP if reason else _SELECT)

    def list_compared(self, raw: Any) -> list[Tensor]:
        """Return the tensors of the raw outputs that are compared, before a choice of columns."""
        return [self.output(raw) if callable(self.output) else self.pick(raw)]

    def logits(self, raw: Any) -> Tensor:
        """Return all outputs, of shape (n, d), before a final softmax or sigmoid.

        Log-probabilities are returned unchanged; they are logits themselves.
        """
        outputs = self.pick(raw)
        outputs = outputs.reshape(len(outputs), -1)
        limits = torch.finfo(outputs.dtype)
        # The clamps keep probabilities that round to 0 or 1 away from log 0; their gradient is 0.
        if self.network.takes_logarithm:
            # p = softmax(z), so log p_o = z_o - log sum_q exp(z_q): the log-softmax of the logits.
            logarithms = outputs.clamp_min(limits.tiny).log()
            return torch.where(are_logarithms(outputs), outputs, logarithms)
        if self.network.takes_logit:
            # p = 1 / (1 + exp(-z)), so the logit is z = log(p / (1 - p)).
            return outputs.clamp(limits.tiny, 1 - limits.eps).logit()
        return outputs

    def _labels(self, outputs: Tensor, y: Tensor | None) -> Tensor:
        """Return the labels y, or the predicted ones if y is None and the network classifies."""
        if y is None:
            return predict_labels(self.network, outputs, self.logits(outputs))
        return convert_labels(self.network, outputs, y)

    def _loss(self, outputs: Tensor, labels: Tensor | None) -> Tensor:
        """Return the loss of each sample, of shape (n, 1)."""
        assert self._criterion is not None and labels is not None
        if self.network.takes_logarithm:
            # NLLLoss takes log-probabilities, to which skorch converts the probabilities.
            outputs = self.logits(outputs).reshape(outputs.shape)
        losses = compute_losses(self._criterion, outputs, labels, self._cause)
        if not isinstance(self.output, SelectedOutput):
            return losses
        # A loss can be finite although an output is infinite, which all strategies refuse.
        is_finite = torch.isfinite(outputs).reshape(len(outputs), -1).all(dim=1, keepdim=True)
        return torch.where(is_finite, losses, torch.nan)

    @property
    def _cause(self) -> str:
        """Setting of the user that needs the loss, for errors."""
        is_selected = isinstance(self.output, SelectedOutput)
        return self.output.cause if is_selected else "`output` is 'loss'"


def check_output(output: Any) -> None:
    """Raise an error unless ``output`` is a name, an index, a list of indices or a callable."""
    indices = output if isinstance(output, list | tuple) and len(output) > 0 else [output]
    are_integers = all(
        isinstance(index, numbers.Integral) and not isinstance(index, bool) for index in indices
    )
    is_name = isinstance(output, str) and output in NAMES
    if not (is_name or are_integers or callable(output)):
        raise ValueError(
            f"`output` must be {', '.join(map(repr, NAMES))}, an index, a list of indices or a"
            f" callable on the network's output; got {output!r}. Use a callable for other functions"
            " of the output."
        )


def _select_all(logits: Tensor, targets: Tensor | None) -> Tensor:
    return logits


def _select_predicted(logits: Tensor, targets: Tensor | None) -> Tensor:
    assert targets is not None
    # f(x_n) = z_c(x_n), where c = targets[n] is constant.
    return logits.gather(1, targets[:, None])


def _sum_outputs(logits: Tensor, targets: Tensor | None) -> Tensor:
    return logits.sum(dim=1, keepdim=True)


_SELECTIONS: dict[str, Select] = {
    "all": _select_all,
    "predicted": _select_predicted,
    "sum": _sum_outputs,
}

#: Names of outputs. The loss is not in `_SELECTIONS`, because it is computed from raw outputs.
NAMES = (*_SELECTIONS, "loss")


def _check_indices(indices: Sequence[int], count: int) -> list[int]:
    """Return indices from 0 on; raise an error if an output does not exist, or is named twice."""
    for index in indices:
        if not -count <= index < count:
            raise ValueError(
                f"`output` must contain indices from {-count} to {count - 1}, because the network"
                f" has {count} outputs; got {index}. Use an index in this range."
            )
    positions = [int(index) % count for index in indices]
    if len(set(positions)) < len(positions):
        raise ValueError(
            "`output` must contain each output of the network at most once, because equal outputs"
            f" are not independent; got {list(indices)} for {count} outputs. Leave out duplicates."
        )
    return positions


def _flatten_rows(raw: Any, parameter: str) -> Tensor:
    """Return the outputs of each sample as a row; ``parameter`` is named in errors."""
    tensor = _check_rows(raw, parameter)
    return tensor.reshape(len(tensor), -1)


# Cures for a network that returns several tensors.
_SELECT = "Set `output` to a callable that selects one, such as `lambda raw: raw[0]`."
_WRAP = "Wrap the network in a module that returns only that tensor."


def _check_rows(raw: Any, parameter: str, reason: str = "", cure: str = _SELECT) -> Tensor:
    """Return the outputs, after a check that they are one tensor with a row per sample."""
    if not isinstance(raw, Tensor):
        raise UnsupportedNetworkError(
            f"`{parameter}` must return one tensor with a row per sample{reason}; got a"
            f" {type(raw).__name__}. {cure}"
        )
    if not raw.is_floating_point():
        raise UnsupportedNetworkError(
            f"`{parameter}` must return floating-point numbers; got {raw.dtype}. Return logits in"
            " place of classes, or set `output` to a callable such as `torch.view_as_real` for"
            " complex numbers."
        )
    if raw.ndim == 0:
        raise UnsupportedNetworkError(
            f"`{parameter}` must return one row per sample; got a scalar for a batch. Keep the"
            " sample axis (no mean over samples, no squeeze())."
        )
    return raw


def looks_like_probabilities(outputs: Tensor) -> bool:
    """Return whether all rows have two or more elements, are non-negative and sum to one."""
    if outputs.shape[1] < 2 or bool((outputs < 0).any()):
        return False
    tolerance = 100 * torch.finfo(outputs.dtype).eps
    return bool(torch.allclose(outputs.sum(dim=1), outputs.new_ones(len(outputs)), atol=tolerance))
