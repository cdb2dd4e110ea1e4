"""Which function of the network's outputs is compared.

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

# (raw outputs, targets or None) -> outputs (n, d); differentiable, and free of Python branches
# on values, since it also runs under torch.func.vmap.
Select = Callable[[Any, Tensor | None], Tensor]


class Outputs:
    """The outputs compared, by name, index, list of indices or callable.

    Parameters
    ----------
    output : str, int, list of int or callable
        See `NAMES`; a callable takes the network's raw output and returns (n, ...).
    network : Network
        Whose outputs they are.
    """

    def __init__(self, output: Any, network: Network):
        self.output = output
        self.network = network
        check_output(output)
        self._criterion = _per_sample(network) if output == "loss" else None

    def targets(self, raw: Any, y: Tensor | None) -> Tensor | None:
        """What is fixed per sample before differentiation: the label or the predicted output."""
        if self._is("predicted"):
            return self.logits(raw).detach().argmax(dim=1)
        return self._labels(raw, y) if self._is("loss") else None

    def select(self, raw: Any, targets: Tensor | None) -> Tensor:
        """The outputs compared, of shape (n, d)."""
        if callable(self.output):
            return _rows(self.output(raw), "output")
        if self._is("loss"):
            return self._loss(raw, targets)
        logits = self.logits(raw)
        if isinstance(self.output, str):
            return _SELECTIONS[self.output](logits, targets)
        indices = self.output if isinstance(self.output, list | tuple) else [self.output]
        return logits[:, [_checked_index(index, logits.shape[1]) for index in indices]]

    def _is(self, name: str) -> bool:
        return isinstance(self.output, str) and self.output == name

    def logits(self, raw: Any) -> Tensor:
        """All outputs, of shape (n, d), before a last softmax or sigmoid."""
        outputs = _rows(raw, "estimator")
        limits = torch.finfo(outputs.dtype)
        if self.network.takes_logarithm:
            return outputs.clamp_min(limits.tiny).log()
        if self.network.takes_logit:
            return outputs.clamp(limits.tiny, 1 - limits.eps).logit()
        return outputs

    def _labels(self, raw: Tensor, y: Tensor | None) -> Tensor:
        if y is not None:
            return self._checked_labels(raw, y)
        if not self.network.classifier:
            raise ValueError(
                "output is 'loss' and y is None; for a regressor y must be given, since its own"
                " prediction has a zero gradient: pass y to GradientFeaturizer.fit_transform, which"
                " alone compares losses at given labels, or compare output='all'."
            )
        raw = raw.detach()
        if not _is_single(raw):
            return raw.argmax(dim=1)
        return (self.logits(raw) > 0).to(raw.dtype).reshape(raw.shape)

    def _checked_labels(self, raw: Tensor, y: Tensor) -> Tensor:
        """Numbers of classes, or values in the outputs' shape."""
        if not self.network.classifier or _is_single(raw):
            return y.to(raw.dtype).reshape(raw.shape)
        if not y.is_floating_point() and not bool(((y >= 0) & (y < raw.shape[1])).all()):
            raise ValueError(
                f"y has labels from {int(y.min())} to {int(y.max())}; allowed are 0 to"
                f" {raw.shape[1] - 1}, the network has {raw.shape[1]} outputs: number the classes"
                " as in training."
            )
        return y if y.is_floating_point() else y.long()

    def _loss(self, raw: Tensor, targets: Tensor | None) -> Tensor:
        assert self._criterion is not None and targets is not None
        logits = self.logits(raw).reshape(raw.shape) if self.network.takes_logarithm else raw
        loss: Tensor = self._criterion(logits, targets)
        return loss.reshape(len(loss), -1).mean(dim=1, keepdim=True)


def check_output(output: Any) -> None:
    """Refuse what no selection is."""
    indices = output if isinstance(output, list | tuple) and len(output) > 0 else [output]
    whole = all(isinstance(i, numbers.Integral) and not isinstance(i, bool) for i in indices)
    named = isinstance(output, str) and output in NAMES
    if not (named or whole or callable(output)):
        raise ValueError(
            f"output is {output!r}; allowed are {', '.join(map(repr, NAMES))}, an index, a list of"
            " indices and a callable on the network's output."
        )


def _is_single(raw: Tensor) -> bool:
    """Whether a classifier has one output, whose sign says which of two classes."""
    return raw[0].numel() == 1


def _every(logits: Tensor, targets: Tensor | None) -> Tensor:
    return logits


def _largest(logits: Tensor, targets: Tensor | None) -> Tensor:
    assert targets is not None
    return logits.gather(1, targets[:, None])


def _sum(logits: Tensor, targets: Tensor | None) -> Tensor:
    return logits.sum(dim=1, keepdim=True)


_SELECTIONS: dict[str, Select] = {"all": _every, "predicted": _largest, "sum": _sum}

#: The named outputs; the loss is taken from raw outputs.
NAMES = (*_SELECTIONS, "loss")


def _per_sample(network: Network) -> nn.Module:
    """The criterion, one value per sample."""
    if not hasattr(network.criterion, "reduction"):
        raise ValueError(
            f"output is 'loss' and the criterion is {network.criterion!r}; allowed are skorch nets"
            " whose criterion has a `reduction`: pass a callable as output instead."
        )
    criterion = copy.deepcopy(network.criterion)
    criterion.reduction = "none"  # type: ignore[union-attr]
    return criterion  # type: ignore[return-value]


def _checked_index(index: int, count: int) -> int:
    if not -count <= index < count:
        raise ValueError(
            f"output is {index}; allowed are indices from {-count} to {count - 1}, the network has"
            f" {count} outputs."
        )
    return int(index)


def _rows(raw: Any, parameter: str) -> Tensor:
    """One row per sample."""
    if not isinstance(raw, Tensor):
        raise UnsupportedNetworkError(
            f"{parameter} returned a {type(raw).__name__}; one tensor with a row per sample is"
            " needed: pass a callable as output that picks it, such as `lambda raw: raw[0]`."
        )
    if raw.ndim == 0:
        raise UnsupportedNetworkError(
            f"{parameter} returned a scalar for a batch; one row per sample is needed: keep the"
            " sample axis (no mean over samples, no squeeze())."
        )
    return raw.reshape(len(raw), -1)


def looks_like_probabilities(outputs: Tensor) -> bool:
    """Whether all rows are non-negative and sum to one."""
    if outputs.shape[1] < 2 or bool((outputs < 0).any()):
        return False
    tolerance = 100 * torch.finfo(outputs.dtype).eps
    return bool(torch.allclose(outputs.sum(dim=1), outputs.new_ones(len(outputs)), atol=tolerance))
