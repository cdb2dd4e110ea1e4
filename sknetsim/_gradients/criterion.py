"""Loss of each sample, and the labels that a criterion takes.

Index legend: n samples; o outputs (d of them).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from .._networks.fitting import CLASS_CRITERIA, align_classes, reshape_labels
from .._networks.network import Network
from ..exceptions import UnsupportedNetworkError

#: Criteria that compare each output with a number; the numbers of a class are 1 for its own output
#: and 0 for the others.
NUMBER_CRITERIA = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.KLDivLoss)

#: Criteria whose outputs are scores, and whose labels are neither class numbers nor 0 and 1.
SCORE_CRITERIA = (nn.SoftMarginLoss, nn.HingeEmbeddingLoss, nn.MultiLabelMarginLoss)

# Largest distance of a probability from [0, 1] that rounding, or a small constant, explains.
_TOLERANCE = 1e-4


def predicts_classes(network: Network) -> bool:
    """Return whether the labels that the criterion takes follow from the outputs."""
    predicts = network.classifier or network.has_independent_labels
    return predicts and not isinstance(network.criterion, SCORE_CRITERIA)


def make_criterion(network: Network, cause: str) -> nn.Module:
    """Return a copy of the criterion that returns one value per sample.

    ``cause`` is the setting of the user that needs it, such as "`output` is 'loss'".
    """
    if not hasattr(network.criterion, "reduction"):
        raise _make_reduction_error(network.criterion, cause, "has no `reduction`")
    criterion = copy.deepcopy(network.criterion)
    criterion.reduction = "none"  # type: ignore[union-attr]
    return criterion  # type: ignore[return-value]


def compute_losses(criterion: nn.Module, outputs: Tensor, labels: Tensor, cause: str) -> Tensor:
    """Return the loss of each sample, of shape (n, 1): a mean over its own outputs."""
    losses: Tensor = criterion(outputs, labels)
    if losses.ndim == 0 or len(losses) != len(outputs):
        raise _make_reduction_error(criterion, cause, "ignores `reduction`")
    return losses.reshape(len(losses), -1).mean(dim=1, keepdim=True)


def _make_reduction_error(criterion: nn.Module | None, cause: str, problem: str) -> ValueError:
    """Return the error for a criterion that returns no loss for each sample."""
    parameter = cause.split("`")[1]
    return ValueError(
        "`estimator` must be a skorch net whose criterion has a `reduction` that can be 'none', for"
        f" one loss per sample, if {cause}; got the criterion {criterion!r}, which {problem}. Use"
        f" `reduction` in the criterion's forward, or set another `{parameter}`."
    )


def are_logarithms(outputs: Tensor) -> Tensor:
    """Return whether each row of outputs contains log-probabilities, of shape (n, 1).

    If not, the row contains probabilities. Outputs of another kind raise an error before, see
    `check_probabilities`.
    """
    # Log-probabilities are negative, and rounding can make a probability negative.
    rows = (outputs < 0).any(dim=1) & (outputs <= _TOLERANCE).all(dim=1)
    return rows[:, None]


def check_probabilities(network: Network, outputs: Tensor) -> None:
    """Raise an error if the criterion takes probabilities, and the outputs are none."""
    if not (network.takes_logarithm or network.takes_logit):
        return
    lowest, highest = float(outputs.detach().min()), float(outputs.detach().max())
    # Comparisons with NaN are false; `check_finite` raises the error for NaN.
    if network.takes_logarithm and lowest < -_TOLERANCE and highest > _TOLERANCE:
        needed, other = "probabilities, or log-probabilities,", "CrossEntropyLoss"
    elif network.takes_logit and (lowest < -_TOLERANCE or highest > 1 + _TOLERANCE):
        needed, other = "probabilities", "BCEWithLogitsLoss"
    else:
        return
    raise UnsupportedNetworkError(
        f"`estimator` must return {needed} if its criterion is"
        f" {type(network.criterion).__name__}; got outputs between {lowest:.3g} and {highest:.3g}."
        f" Set the criterion of the net to {other} if it returns logits."
    )


def predict_labels(network: Network, outputs: Tensor, logits: Tensor) -> Tensor:
    """Return the predicted labels, in the form that the criterion takes.

    ``outputs`` are those of the network, and ``logits`` of shape (n, d) are computed from them.
    """
    if not (network.classifier or network.has_independent_labels):
        problem = (
            "the network is a regressor, because the loss has a zero gradient at the network's own"
            " prediction"
        )
    elif not predicts_classes(network):
        problem = f"no labels for {type(network.criterion).__name__} follow from the outputs"
    elif _has_numeric_labels(network, outputs):
        return (logits.detach() > 0).to(outputs.dtype).reshape(outputs.shape)
    else:
        return _encode_classes(network, outputs, outputs.detach().argmax(dim=1))
    raise ValueError(
        f"`y` must be given if `output` is 'loss' and {problem}; got None. Pass the labels to fit"
        " and to each query, or set output='all' for an estimator that compares losses only at"
        " predicted labels."
    )


def convert_labels(network: Network, outputs: Tensor, y: Tensor) -> Tensor:
    """Return the labels as numbers of classes, or as values in the shape of the outputs."""
    if y.is_floating_point() and not bool(torch.isfinite(y).all()):
        raise ValueError("`y` must be finite; got NaN or infinity. Remove these samples.")
    if _has_numeric_labels(network, outputs):
        return _check_numbers(network, outputs, y)
    criterion = network.criterion
    if isinstance(criterion, SCORE_CRITERIA):
        y = reshape_labels(y, outputs.shape, criterion)
        return y.to(outputs.dtype) if y.is_floating_point() else y
    if y.shape == outputs.shape and not isinstance(criterion, nn.NLLLoss | nn.MultiMarginLoss):
        # A probability of each class.
        return y.to(outputs.dtype)
    if isinstance(criterion, (*CLASS_CRITERIA, *NUMBER_CRITERIA)):
        y = align_classes(outputs, y, criterion)
    elif y.is_floating_point():
        return y.to(outputs.dtype)
    if not bool(((y >= 0) & (y < outputs.shape[1])).all()):
        raise ValueError(
            f"`y` must contain class numbers from 0 to {outputs.shape[1] - 1}, because the network"
            f" has {outputs.shape[1]} outputs; got numbers from {int(y.min())} to {int(y.max())}."
            " Number the classes as in training."
        )
    return _encode_classes(network, outputs, y.long())


def is_single(outputs: Tensor) -> bool:
    """Return whether there is one output per sample; its sign is the class of a classifier."""
    return outputs[0].numel() == 1


def _has_numeric_labels(network: Network, outputs: Tensor) -> bool:
    """Return whether each output has a number as its label."""
    takes_classes = network.classifier or isinstance(network.criterion, CLASS_CRITERIA)
    return not takes_classes or network.has_independent_labels or is_single(outputs)


def _encode_classes(network: Network, outputs: Tensor, classes: Tensor) -> Tensor:
    """Return class numbers in the form that the criterion takes."""
    if isinstance(network.criterion, NUMBER_CRITERIA):
        # t[n,o] = 1 if o is the class of sample n, else 0
        return one_hot(classes, outputs.shape[1]).movedim(-1, 1).to(outputs.dtype)
    return classes


def _check_numbers(network: Network, outputs: Tensor, y: Tensor) -> Tensor:
    """Return labels that are numbers in the shape of the outputs."""
    if y.numel() != outputs.numel():
        raise ValueError(
            f"`y` must contain a label for each of the {outputs[0].numel()} outputs of a sample;"
            f" got {y.numel() // len(y)} per sample. Pass y as in training."
        )
    if network.has_independent_labels and not bool(((y >= 0) & (y <= 1)).all()):
        raise ValueError(
            "`y` must contain 0 or 1, or a probability, for each output, because the criterion is"
            f" {type(network.criterion).__name__}; got numbers from {float(y.min()):g} to"
            f" {float(y.max()):g}. Number the classes as in training."
        )
    return y.to(outputs.dtype).reshape(outputs.shape)
