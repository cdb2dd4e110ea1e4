"""What losses of similarity have in common: weights, whitened Jacobians, rows in groups.

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
from .._kernels.blocks import squared_norms
from .._kernels.jacobian import Jacobian
from .._networks.inputs import Inputs
from ._differentiable import DifferentiableEngine
from ._differentiable_roots import differentiable_inverse_root


class BaseSimilarityLoss(nn.Module):
    """What the losses have in common: a weight, and what is compared."""

    def __init__(
        self,
        weight: float = 1.0,
        *,
        output: Any = "all",
        normalize: bool = True,
        parameters: Any = None,
    ):
        super().__init__()
        if not _is_finite(weight):
            raise ValueError(
                f"weight is {weight!r}; allowed are finite numbers: positive ones raise the"
                " similarity, negative ones lower it."
            )
        check_output(output)
        self.weight = weight
        self.normalize = normalize
        # Not as attributes: a part of the user's network would become a part of this module.
        self._compared = DifferentiableEngine(output, parameters)

    @property
    def output(self) -> Any:
        """Which outputs are compared."""
        return self._compared.output

    def __getstate__(self) -> dict[str, Any]:
        """Without what was found out about a network."""
        compared = DifferentiableEngine(self._compared.output, self._compared.parameters)
        return {**vars(self), "_compared": compared}

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Parts of a network that are named by themselves stay the network's."""
        compared = self._compared
        settings = {"output": compared.output, "parameters": compared.parameters}
        return type(self)(self.weight, normalize=self.normalize, **settings)

    def extra_repr(self) -> str:
        """What is compared, for `repr`.

        Returns
        -------
        settings : str
            The parameters.
        """
        return f"weight={self.weight}, output={self.output!r}, normalize={self.normalize}"

    def _whitened(self, network: Any, inputs: Inputs) -> Whitened:
        """Of a batch, with their graph."""
        jacobian = self._compared.jacobian(network, inputs).for_sums()
        kernel, outputs = jacobian.self_kernel(), jacobian.outputs.shape[1]
        if self.normalize:
            root, rank = differentiable_inverse_root(kernel, jacobian.outputs.dtype)
            root = root / rank.clamp(min=1).double().sqrt()[:, None, None]
            return Whitened(jacobian, root, (rank > 0).double())
        root = (torch.eye(outputs).to(kernel) / outputs**0.5).expand_as(kernel)
        return Whitened(jacobian, root, kernel.diagonal(dim1=1, dim2=2).mean(dim=1))


def _is_finite(weight: Any) -> bool:
    return isinstance(weight, numbers.Real) and bool(np.isfinite(float(weight)))


@dataclass(frozen=True)
class Whitened:
    """Jacobians, the roots (n, o, p) that make products of them similarities, and k(x, x) (n,)."""

    jacobian: Jacobian
    root: Tensor
    own: Tensor


def order_by_group(groups: Any, samples: int) -> tuple[Tensor, list[int]]:
    """An order in which the rows of a group follow each other, and the size of each."""
    found = groups.detach().cpu().numpy() if isinstance(groups, Tensor) else np.asarray(groups)
    if found.shape != (samples,) or (found.dtype.kind == "f" and not np.isfinite(found).all()):
        raise ValueError(
            f"groups has shape {found.shape} for {samples} rows, or is not finite; allowed is one"
            " group per row, a number or a name."
        )
    if samples == 0:
        raise ValueError("inputs has 0 rows; allowed are two or more: leave out empty batches.")
    _, codes, sizes = np.unique(found, return_inverse=True, return_counts=True)
    if sizes.max() < 2:
        raise ValueError(
            f"groups has one row for each of its {len(sizes)}; allowed are batches with two rows of"
            " some group: draw larger batches, or several samples of a group at a time."
        )
    return torch.as_tensor(np.argsort(codes, kind="stable")), sizes.tolist()


def squared_length(vectors: dict[str, Any]) -> Tensor:
    """Squared length of parameter vectors."""
    return torch.stack([squared_norms(vector).sum() for vector in vectors.values()]).sum()
