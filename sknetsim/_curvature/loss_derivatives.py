"""Derivatives of the loss, and of the margin, in the outputs of a network.

Index legend: n samples; d outputs (o, p among them); k rows of a root.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .._gradients.criterion import compute_losses, convert_labels, make_criterion
from .._gradients.engine import GradientEngine
from .._gradients.predictions import expand_to_classes, iterate_outputs
from .._networks.memory import check_within_budget
from .._networks.network import Network
from .._networks.samples import Samples
from .._networks.samples.labels import make_label_tensor
from ..exceptions import UnsupportedNetworkError

# Largest share of the largest eigenvalue of a Hessian that rounding explains.
_ROUNDING = 1e-10

# Rounding of 1 - p for a probability p close to 1, in an eigenvalue of the Hessian.
_SMALLEST = 1e-14

# Largest eigenvalue of Hessians that rounding dominates, if some eigenvalues are negative.
_NEGLIGIBLE = 1e-12

# Reason to need the loss of each sample, for errors.
_CAUSE = "`estimator` is passed to TrainingInfluence"


_FEWER = "Fit fewer samples, raise `working_memory` by sklearn.set_config, or set curvature='none'"


@dataclass(frozen=True)
class LossDerivatives:
    """Derivatives of the loss of each sample in its d outputs, before a final softmax or sigmoid.

    Attributes
    ----------
    gradients : Tensor of shape (n, d), float64
        Gradients of the loss.
    hessians : Tensor of shape (n, d, d), float64
        Hessians of the loss.
    """

    gradients: Tensor
    hessians: Tensor

    def compute_roots(self) -> Tensor:
        """Return B of shape (n, k, d), float64, with B^T B equal to the Hessian.

        Rows that are zero at all samples are left out. So k is the largest rank of a Hessian, up to
        rounding: d - 1 for a cross-entropy of d classes.
        """
        values, vectors = torch.linalg.eigh(self.hessians)
        largest = values[:, -1:].clamp_min(0)
        lowest, highest = float(values.min()), float(largest.max())
        # Eigenvalues are in ascending order, so those that are zero at all samples come first.
        is_zero = (values <= _ROUNDING * largest).all(dim=0)
        is_rounding = lowest < -_ROUNDING * highest and highest < _NEGLIGIBLE
        if is_rounding or is_zero.all():
            raise UnsupportedNetworkError(
                "`estimator` must have a loss with a second derivative in the outputs, because its"
                " curvature is needed; got a loss whose Hessians are zero"
                f"{' up to rounding' if is_rounding else ''}: the criterion has no second"
                " derivative, or the network is certain of all its predictions. Set"
                " curvature='none', or use a criterion such as CrossEntropyLoss or MSELoss and"
                " train for fewer epochs."
            )
        if lowest < -_ROUNDING * highest - _SMALLEST:
            raise UnsupportedNetworkError(
                "`estimator` must have a criterion that is convex in the outputs, because its"
                f" curvature is needed; got a Hessian with the eigenvalue {lowest:.3g}. Set"
                " curvature='none', or use a convex criterion."
            )
        # B = diag(sqrt(lambda)) V^T
        roots = values.clamp_min(0).sqrt()[:, :, None] * vectors.mT
        return roots[:, ~is_zero]

    def compute_basis(self) -> Tensor:
        """Return orthonormal rows, of shape (k, d), whose span contains all gradients and Hessians.

        For a cross-entropy of d classes, k is d - 1: a common part of all logits has no effect.
        """
        # sum_n grad_n grad_n^T / |grad_n|^2 + H_n / tr H_n, so that each sample has a weight
        outer = self.gradients[:, :, None] * self.gradients[:, None]
        parts = []
        for matrices in (outer, self.hessians):
            traces = matrices.diagonal(dim1=1, dim2=2).sum(dim=1)
            parts.append((matrices / traces.clamp_min(1e-300)[:, None, None]).mean(dim=0))
        values, vectors = torch.linalg.eigh(parts[0] + parts[1])
        return vectors[:, values > _ROUNDING].mT


def differentiate_losses(
    engine: GradientEngine, X: Samples, y: Any, with_hessians: bool = True
) -> LossDerivatives:
    """Return the derivatives of the loss of each sample at the labels y.

    Parameters
    ----------
    engine : GradientEngine
        Engine of the network, which has a criterion.
    X : Samples of length n
        The samples.
    y : array-like of n labels
        Labels as numbers of classes, or as numbers in the shape of the outputs.
    with_hessians : bool
        Whether to compute the Hessians; if not, they have the shape (n, 0, 0).
    """
    labels, start = make_label_tensor(y), 0
    criterion = _convert_to_double(make_criterion(engine.network, _CAUSE))
    parts = []
    for raw in iterate_outputs(engine, X):
        if with_hessians:
            size = 8 * len(X) * raw[0].numel() ** 2
            check_within_budget("The Hessians of the loss of all samples", size, _FEWER)
        chunk = labels[start : start + len(raw)].to(raw.device)
        parts.append(_differentiate_chunk(engine, criterion, raw, chunk, with_hessians))
        start += len(raw)
    return LossDerivatives(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _convert_to_double(criterion: nn.Module) -> nn.Module:
    """Convert the tensors of a criterion to float64, also those that are no buffers."""
    for module in criterion.double().modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and value.is_floating_point():
                setattr(module, name, value.double())
    return criterion


def _differentiate_chunk(
    engine: GradientEngine, criterion: nn.Module, raw: Tensor, labels: Tensor, with_hessians: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradients and the Hessians of the losses of a chunk, from its outputs."""
    labels = convert_labels(engine.network, raw, labels)
    labels = labels.double() if labels.is_floating_point() else labels
    logits = engine.outputs.logits(raw).detach().double()
    with torch.enable_grad():
        logits.requires_grad_()
        outputs = _apply_link(criterion, logits.reshape(raw.shape))
        losses = compute_losses(criterion, outputs, labels, _CAUSE)
        (gradients,) = torch.autograd.grad(losses.sum(), logits, create_graph=with_hessians)
        # H[n,o,p] = d gradient[n,o] / d z[n,p]: a loss depends on the outputs of its sample.
        columns = [
            _differentiate(gradients[:, output].sum(), logits)
            for output in range(logits.shape[1] if with_hessians else 0)
        ]
    hessians = torch.stack(columns, dim=1) if columns else logits.new_zeros(len(logits), 0, 0)
    return gradients.detach().cpu(), hessians.detach().cpu()


def _differentiate(total: Tensor, logits: Tensor) -> Tensor:
    """Return the gradient of a sum in the outputs; zero if it does not depend on them."""
    if not total.requires_grad:
        return torch.zeros_like(logits)
    try:
        (gradient,) = torch.autograd.grad(total, logits, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        raise UnsupportedNetworkError(
            "`estimator` must have a criterion with a second derivative in the outputs, because its"
            f" curvature is needed; got one without: {error}. Set curvature='none', or use a"
            " criterion such as CrossEntropyLoss or MSELoss."
        ) from error
    return torch.zeros_like(logits) if gradient is None else gradient


def _apply_link(criterion: nn.Module, logits: Tensor) -> Tensor:
    """Return what the criterion takes: log-probabilities, probabilities, or the logits."""
    if isinstance(criterion, nn.NLLLoss | nn.KLDivLoss):
        return logits.log_softmax(dim=1)
    return logits.sigmoid() if isinstance(criterion, nn.BCELoss) else logits


def differentiate_margins(engine: GradientEngine, X: Samples, classes: Any) -> Tensor:
    r"""Return the gradient of the margin of each sample in its outputs, of shape (n, d), float64.

    The margin of class c is :math:`z_c - \log \sum_{o \ne c} \exp z_o`, the log-odds of the class.
    With one output z, it is z for the second of two classes, and -z for the first.

    Parameters
    ----------
    engine : GradientEngine
        Engine of the network.
    X : Samples of length n
        The samples.
    classes : array-like of shape (n,), int64, or None
        Numbers of the classes; None for the predicted ones.
    """
    parts: list[Tensor] = []
    for raw in iterate_outputs(engine, X):
        logits = engine.outputs.logits(raw).detach().double().cpu()
        every = expand_to_classes(logits)
        start = sum(map(len, parts))
        chosen = (
            every.argmax(dim=1)
            if classes is None
            else torch.as_tensor(classes[start : start + len(raw)])
        )
        is_chosen = nn.functional.one_hot(chosen, every.shape[1]).bool()
        # d margin / d z_o = 1 if o is the class, else minus the softmax over the other classes.
        others = every.masked_fill(is_chosen, -torch.inf).softmax(dim=1)
        gradients = is_chosen.double() - others
        parts.append(gradients[:, -logits.shape[1] :])
    return torch.cat(parts)


def add_criterion(network: Network, has_classes: bool, are_probabilities: bool) -> Network:
    """Return the network with a criterion, if it has none.

    The criterion is a cross-entropy if its labels are classes, else a squared error.
    """
    if network.criterion is not None:
        return network
    if not has_classes:
        return replace(network, criterion=nn.MSELoss())
    criterion = nn.NLLLoss() if are_probabilities else nn.CrossEntropyLoss()
    return replace(network, criterion=criterion, classifier=True)
