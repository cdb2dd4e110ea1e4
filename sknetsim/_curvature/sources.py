"""Sources of the gradients of combinations of outputs, and of preconditioned gradients.

Index legend: n samples; k combinations; d outputs.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .._gradients.engine import GradientEngine
from .._gradients.outputs import Combinations
from .._gradients.parameters import list_layout
from .._kernels.jacobian import Jacobian
from .._networks.fingerprint import fingerprint_value
from .._networks.network import Network
from .._networks.samples import Samples
from ..exceptions import UnsupportedNetworkError

#: Cure for a curvature that is too large.
CURE = "Set `n_components` to a number of landmarks, or curvature='ekfac'"


class CombinedJacobian(Jacobian):
    """Gradients of combinations of outputs, of which some may be zero without a loss of digits."""

    def roots(self, kernel: Tensor, inverted: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Return the roots; unless ``inverted``, all ranks are k, so that no zero is reported."""
        root, rank, dropped = super().roots(kernel, inverted)
        return root, rank if inverted else torch.full_like(rank, kernel.shape[1]), dropped


class CombinationEngine(GradientEngine):
    """Source of the gradients of combinations of outputs, whose weights are the labels.

    The labels have the shape (n, k, d). The gradient of combination k of sample n is
    sum_o labels[n,k,o] J_o(x_n).

    Parameters
    ----------
    network, parameters, batch_size, device
        See `GradientEngine`.
    """

    def __init__(
        self, network: Network, parameters: Any = None, batch_size: Any = None, device: Any = None
    ):
        super().__init__(network, Combinations(), parameters, batch_size, device)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._list_settings()

    def _list_settings(self) -> tuple[Any, ...]:
        """Return the arguments with which a copy is constructed."""
        return self.network, self._parameters, self.batch_size, self.device

    def count_elements(self) -> int:
        """Return the number P of elements of the selected parameters."""
        parameters = dict(self.network.module.named_parameters())
        layout = list_layout({name: parameters[name] for name in self.selected})
        return sum(shape.numel() for _, shape in layout)

    def jacobians(
        self, X: Samples, start: int = 0, factored: bool = False
    ) -> Iterator[tuple[slice, Jacobian]]:
        """Yield the gradients of the combinations from sample ``start`` on, chunk by chunk."""
        weights = X.labels
        assert weights is not None
        # The network is differentiated with weights of length 1, because the gradients of short
        # ones would leave the range of float32.
        lengths = weights.flatten(1).norm(dim=1)
        scales = torch.where(lengths > 0, lengths, 1.0)[:, None, None]
        identity = torch.eye(weights.shape[1], dtype=scales.dtype)
        scaled = X.with_labels(weights / scales)
        for rows, jacobian in super().jacobians(scaled, start, factored):
            matrices = (scales[rows] * identity).to(jacobian.outputs.device)
            outputs = jacobian.outputs * scales[rows, 0].to(jacobian.outputs)
            blocks = jacobian.whiten(matrices).blocks
            yield rows, CombinedJacobian(blocks, jacobian.layout, outputs)


class Ridge(abc.ABC):
    """Damped inverse (H + lambda)^{-1} of H = sum_n A_n^T A_n / N, from N fitted samples.

    A_n are k combinations of the gradients of the outputs at the fitted sample n.

    Attributes
    ----------
    damping : float
        The number lambda.
    """

    damping: float

    @property
    @abc.abstractmethod
    def n_features(self) -> int:
        """Number of features that the preconditioned gradient of a combination has."""

    def measure_rest(self, source: CombinationEngine, X: Samples) -> Tensor:
        """Return |G'|^2 / lambda for the part G' that is left out of each gradient.

        The shape is (n, k), or () if no part is left out.
        """
        return torch.zeros((), dtype=torch.float64)

    @abc.abstractmethod
    def jacobians(
        self,
        source: CombinationEngine,
        X: Samples,
        start: int,
        factored: bool,
        products: Tensor | None,
    ) -> Iterator[tuple[slice, Jacobian]]:
        """Yield Jacobians G' of the samples whose inner products are G (H + lambda)^{-1} G^T.

        G are the gradients of the combinations of outputs whose weights are the labels.
        ``products`` are what `multiply` returns for these samples, if it is known.
        """

    def multiply(self, source: CombinationEngine, X: Samples) -> Tensor | None:
        """Return products of the gradients that `jacobians` needs; None if it needs none."""
        return None

    def multiply_fitted(self, source: CombinationEngine, X: Samples) -> Tensor | None:
        """Return what `multiply` returns, for all fitted samples."""
        return self.multiply(source, X)


def compute_mean_eigenvalue(trace: float, elements: int) -> float:
    """Return the mean eigenvalue of a curvature; raise an error if it is not positive."""
    mean = trace / max(1, elements)
    if not mean > 0:
        raise UnsupportedNetworkError(
            "`estimator` must have a loss whose curvature is not zero at all fitted samples;"
            f" got a mean eigenvalue of {mean}. Set curvature='none'."
        )
    return mean


class PreconditionedEngine(CombinationEngine):
    """Source of gradients whose inner products are those of a ridge.

    Parameters
    ----------
    ridge : Ridge
        The damped inverse.
    network, parameters, batch_size, device
        See `GradientEngine`.
    """

    def __init__(self, ridge: Ridge, *settings: Any):
        super().__init__(*settings)
        self.ridge = ridge
        self._source = CombinationEngine(*settings)
        self._known: tuple[Any, Tensor | None] = (None, None)

    def _list_settings(self) -> tuple[Any, ...]:
        return self.ridge, *super()._list_settings()

    def remember(self, X: Samples, products: Tensor | None) -> None:
        """Keep the products of the samples whose weights are the object ``X.labels``."""
        self._known = X.labels, products

    def jacobians(
        self, X: Samples, start: int = 0, factored: bool = False
    ) -> Iterator[tuple[slice, Jacobian]]:
        """Yield the preconditioned gradients from sample ``start`` on, chunk by chunk."""
        products = self._known[1] if X.labels is self._known[0] else None
        yield from self.ridge.jacobians(self._source, X, start, factored, products)

    def identity(self) -> str:
        """Return the fingerprint of the network, the parameters and the ridge."""
        return fingerprint_value((super().identity(), self.ridge))
