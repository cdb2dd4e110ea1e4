"""Base of the similarity losses: weights, whitened Jacobians, samples in groups.

Index legend: n samples; o, p outputs of the network (d of them).
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._gradients.outputs import check_output
from .._kernels.jacobian import Jacobian
from .._networks.batches import Inputs
from ._differentiable import DifferentiableEngine
from ._differentiable_roots import differentiable_inverse_root


class BaseSimilarityLoss(nn.Module):
    """Base class of the losses: a weight, and the gradients that are compared."""

    def __init__(
        self,
        weight: float = 1.0,
        *,
        output: Any = "all",
        normalize: bool = True,
        parameters: Any = None,
    ):
        super().__init__()
        if not _is_finite_number(weight):
            raise ValueError(
                f"`weight` must be a finite number; got {weight!r}. Use a positive weight to raise"
                " the similarity and a negative one to lower it."
            )
        check_output(output)
        self.weight = weight
        self.normalize = normalize
        # The engine keeps `output` and `parameters`. A part of the user's network, as an attribute
        # of this module, would become a part of the loss.
        self._engine = DifferentiableEngine(output, parameters)

    @property
    def output(self) -> Any:
        """Outputs whose gradients are compared."""
        return self._engine.output

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the verification of a network."""
        engine = DifferentiableEngine(self._engine.output, self._engine.parameters)
        return {**vars(self), "_engine": engine}

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Return a copy that shares the part of the network that was passed as ``parameters``."""
        engine = self._engine
        settings = {"output": engine.output, "parameters": engine.parameters}
        return type(self)(self.weight, normalize=self.normalize, **settings)

    def extra_repr(self) -> str:
        """Return the parameters for `repr`.

        Returns
        -------
        settings : str
            The weight, the outputs, and whether similarities are normalised.
        """
        return f"weight={self.weight}, output={self.output!r}, normalize={self.normalize}"

    def _whiten(self, network: Any, inputs: Inputs) -> WhitenedBatch:
        """Return the Jacobians of a batch and their whitening, with their graph."""
        jacobian = self._engine.jacobian(network, inputs)
        outputs = jacobian.outputs.shape[1]
        jacobian = jacobian.for_sums(outputs)
        kernel = jacobian.self_kernel()
        if self.normalize:
            # root = K(x, x)^{-1/2} / sqrt(r), r the rank of K(x, x), so that
            # k^C(x, x') = <root J(x), root' J(x')>_F, and k^C(x, x) = 1 (0 at a zero gradient).
            root, rank = differentiable_inverse_root(kernel, jacobian.outputs.dtype)
            root = root / rank.clamp(min=1).double().sqrt()[:, None, None]
            return WhitenedBatch(jacobian, root, (rank > 0).double())
        # root = 1 / sqrt(d), so that <root J(x), root J(x')>_F = tr K(x, x') / d.
        root = (torch.eye(outputs).to(kernel) / outputs**0.5).expand_as(kernel)
        return WhitenedBatch(jacobian, root, kernel.diagonal(dim1=1, dim2=2).mean(dim=1))


def _is_finite_number(weight: Any) -> bool:
    return isinstance(weight, numbers.Real) and bool(np.isfinite(float(weight)))


@dataclass(frozen=True)
class WhitenedBatch:
    """Jacobians of n samples with the matrices that whiten them.

    Attributes
    ----------
    jacobian : Jacobian
        The Jacobians J(x), not whitened.
    root : Tensor of shape (n, d, d), float64
        Matrices with k(x, x') = <root J(x), root' J(x')>_F.
    self_similarity : Tensor of shape (n,), float64
        k(x, x): for k^C 1, or 0 at a zero gradient.
    """

    jacobian: Jacobian
    root: Tensor
    self_similarity: Tensor


def order_by_group(groups: Any, samples: int) -> tuple[Tensor, list[int]]:
    """Return an order in which the samples of each group are adjacent, and the sizes of the groups.

    Parameters
    ----------
    groups : array-like or Tensor of shape (n,)
        The group of each sample.
    samples : int
        The number n of samples.

    Returns
    -------
    order : Tensor of shape (n,), int64
        Positions of the samples, group by group.
    sizes : list of int
        Number of samples in each group, in the same order.
    """
    labels = groups.detach().cpu().numpy() if isinstance(groups, Tensor) else np.asarray(groups)
    if labels.shape != (samples,):
        raise ValueError(
            f"`groups` must have shape ({samples},), one group per sample; got {labels.shape}. Pass"
            " the number or the name of each sample's group."
        )
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError(
            "`groups` must be finite; got NaN or infinity. Pass a number or a name for the group of"
            " each sample."
        )
    if samples == 0:
        raise ValueError("`inputs` must have at least two samples; got 0. Skip empty batches.")
    _, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if sizes.max() < 2:
        raise ValueError(
            "`groups` must have at least one group with two samples; got one sample in each of"
            f" {len(sizes)} groups. Draw larger batches, or several samples of a group at a time."
        )
    return torch.as_tensor(np.argsort(codes, kind="stable")), sizes.tolist()
