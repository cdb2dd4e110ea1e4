"""Selection of the function of the network's outputs that is compared.

Index legend: n samples; d outputs.
"""

from __future__ import annotations

import copy
import numbers
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .._networks.network import Network
from ..exceptions import UnsupportedNetworkError

# Function that returns the compared outputs (n, d) from the raw outputs and the targets or None.
# It is differentiable, and has no Python branches on values, because it also runs under vmap.
Select = Callable[[Any, Tensor | None], Tensor]


class Outputs:
    """Compared outputs, by name, index, list of indices or callable.

    Parameters
    ----------
    output : str, int, list of int or callable
        A name of `NAMES`, indices, or a callable that returns outputs of shape (n, ...) from the
        network's raw output.
    network : Network
        The network.
    """

    def __init__(self, output: Any, network: Network):
        self.output = output
        self.network = network
        check_output(output)
        self._criterion = _make_criterion(network) if output == "loss" else None

    def targets(self, raw: Any, y: Tensor | None) -> Tensor | None:
        """Return the label of each sample, or the index of its largest output, as constants.

        Returns
        -------
        targets : Tensor of n targets, or None
            None unless the output is "loss" or "predicted".
        """
        if self._is("predicted"):
            return self.logits(raw).detach().argmax(dim=1)
        return self._labels(raw, y) if self._is("loss") else None

    def select(self, raw: Any, targets: Tensor | None) -> Tensor:
        """Return the compared outputs, of shape (n, d)."""
        if callable(self.output):
            return _flatten_rows(self.output(raw), "output")
        if self._is("loss"):
            return self._loss(raw, targets)
        logits = self.logits(raw)
        if isinstance(self.output, str):
            return _SELECTIONS[self.output](logits, targets)
        indices = self.output if isinstance(self.output, list | tuple) else [self.output]
        return logits[:, [_check_index(index, logits.shape[1]) for index in indices]]

    def _is(self, name: str) -> bool:
        return isinstance(self.output, str) and self.output == name

    def logits(self, raw: Any) -> Tensor:
        """Return all outputs, of shape (n, d), before a final softmax or sigmoid."""
        outputs = _flatten_rows(raw, "estimator")
        limits = torch.finfo(outputs.dtype)
        # The clamps keep probabilities that round to 0 or 1 away from log 0; their gradient is 0.
        if self.network.takes_logarithm:
            # p = softmax(z), so log p_o = z_o - log sum_q exp(z_q): the log-softmax of the logits.
            return outputs.clamp_min(limits.tiny).log()
        if self.network.takes_logit:
            # p = 1 / (1 + exp(-z)), so the logit is z = log(p / (1 - p)).
            return outputs.clamp(limits.tiny, 1 - limits.eps).logit()
        return outputs

    def _labels(self, raw: Tensor, y: Tensor | None) -> Tensor:
        """Return the labels y, or the predicted ones if y is None and the network classifies."""
        if y is not None:
            return self._check_labels(raw, y)
        if not self.network.classifier:
            raise ValueError(
                "`y` must be given if `output` is 'loss' and the network is a regressor, because"
                " the loss has a zero gradient at the network's own prediction; got None. Pass y to"
                " GradientFeaturizer.fit_transform, the only method that compares losses at given"
                " labels, or set output='all'."
            )
        raw = raw.detach()
        if not _is_single(raw):
            return raw.argmax(dim=1)
        return (self.logits(raw) > 0).to(raw.dtype).reshape(raw.shape)

    def _check_labels(self, raw: Tensor, y: Tensor) -> Tensor:
        """Return the labels as numbers of classes, or as values in the shape of the outputs."""
        if not self.network.classifier or _is_single(raw):
            return y.to(raw.dtype).reshape(raw.shape)
        if not y.is_floating_point() and not bool(((y >= 0) & (y < raw.shape[1])).all()):
            raise ValueError(
                f"`y` must contain class numbers from 0 to {raw.shape[1] - 1}, because the network"
                f" has {raw.shape[1]} outputs; got numbers from {int(y.min())} to {int(y.max())}."
                " Number the classes as in training."
            )
        return y if y.is_floating_point() else y.long()

    def _loss(self, raw: Tensor, targets: Tensor | None) -> Tensor:
        """Return the loss of each sample, of shape (n, 1): a mean over its own outputs."""
        assert self._criterion is not None and targets is not None
        # NLLLoss takes log-probabilities, to which skorch converts the probabilities.
        logits = self.logits(raw).reshape(raw.shape) if self.network.takes_logarithm else raw
        loss: Tensor = self._criterion(logits, targets)
        return loss.reshape(len(loss), -1).mean(dim=1, keepdim=True)


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


def _is_single(raw: Tensor) -> bool:
    """Return whether there is one output per sample; its sign is the class of a classifier."""
    return raw[0].numel() == 1


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


def _make_criterion(network: Network) -> nn.Module:
    """Return a copy of the criterion that returns one value per sample."""
    if not hasattr(network.criterion, "reduction"):
        raise ValueError(
            "`estimator` must be a skorch net whose criterion has a `reduction` if `output` is"
            f" 'loss'; got the criterion {network.criterion!r}. Set `output` to a callable instead."
        )
    criterion = copy.deepcopy(network.criterion)
    criterion.reduction = "none"  # type: ignore[union-attr]
    return criterion  # type: ignore[return-value]


def _check_index(index: int, count: int) -> int:
    """Return an index as an int; raise an error if the network has no output with it."""
    if not -count <= index < count:
        raise ValueError(
            f"`output` must contain indices from {-count} to {count - 1}, because the network has"
            f" {count} outputs; got {index}. Use an index in this range."
        )
    return int(index)


def _flatten_rows(raw: Any, parameter: str) -> Tensor:
    """Return the outputs of each sample as a row; ``parameter`` is named in errors."""
    if not isinstance(raw, Tensor):
        raise UnsupportedNetworkError(
            f"`{parameter}` must return one tensor with a row per sample; got a"
            f" {type(raw).__name__}. Set `output` to a callable that selects one, such as"
            " `lambda raw: raw[0]`."
        )
    if raw.ndim == 0:
        raise UnsupportedNetworkError(
            f"`{parameter}` must return one row per sample; got a scalar for a batch. Keep the"
            " sample axis (no mean over samples, no squeeze())."
        )
    return raw.reshape(len(raw), -1)


def looks_like_probabilities(outputs: Tensor) -> bool:
    """Return whether all rows have two or more elements, are non-negative and sum to one."""
    if outputs.shape[1] < 2 or bool((outputs < 0).any()):
        return False
    tolerance = 100 * torch.finfo(outputs.dtype).eps
    return bool(torch.allclose(outputs.sum(dim=1), outputs.new_ones(len(outputs)), atol=tolerance))
