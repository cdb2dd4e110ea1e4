"""The network of ``estimator=None``: a small float64 perceptron for any width of input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import type_of_target
from torch import Tensor, nn
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]

_HIDDEN = 32

_STEPS = 100

_BATCH = 512


class DefaultNetwork(nn.Module):
    """Standardised inputs, two hidden layers of 32 tanh units, outputs as the labels are.

    Parameters
    ----------
    location, scale : Tensor of shape (n_features,)
        Mean and standard deviation of the inputs.
    output_location, output_scale : Tensor of shape (n_outputs,)
        Mean and standard deviation of the labels; 0 and 1 for logits.
    """

    location: Tensor
    scale: Tensor
    output_location: Tensor
    output_scale: Tensor

    def __init__(
        self, location: Tensor, scale: Tensor, output_location: Tensor, output_scale: Tensor
    ):
        super().__init__()
        self.register_buffer("location", location)
        self.register_buffer("scale", scale)
        self.register_buffer("output_location", output_location)
        self.register_buffer("output_scale", output_scale)
        self.layers = nn.Sequential(
            nn.Linear(len(location), _HIDDEN),
            nn.Tanh(),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.Tanh(),
            nn.Linear(_HIDDEN, len(output_location)),
        ).double()

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs of shape (n_samples, n_outputs)."""
        outputs: Tensor = self.layers((inputs - self.location) / self.scale)
        return self.output_location + self.output_scale * outputs


def train_default_network(
    X: np.ndarray, y: np.ndarray | None, random_state: int | np.random.RandomState | None
) -> DefaultNetwork:
    """Train on (X, y), or to reconstruct X where y is None; no global random state is touched."""
    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    inputs = torch.as_tensor(np.array(X, dtype=np.float64))
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(seed)
        location, scale = _moments(inputs)
        loss, targets, *moments = _task((inputs - location) / scale, y)
        network = DefaultNetwork(location, scale, *moments)
        _descend(network, inputs, targets, loss)
    return network.eval()


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    scale = values.std(dim=0, correction=0)
    return values.mean(dim=0), torch.where(scale > 1e-12, scale, 1.0)


def _task(inputs: Tensor, y: np.ndarray | None) -> tuple[Loss, Tensor, Tensor, Tensor]:
    """Loss, targets, and the outputs' location and scale."""
    if y is None:
        return functional.mse_loss, inputs, *_keep_scale(inputs.shape[1])
    y = np.asarray(y)
    if y.ndim == 1 and type_of_target(y) in ("binary", "multiclass"):
        classes, codes = np.unique(y, return_inverse=True)
        return functional.cross_entropy, torch.as_tensor(codes), *_keep_scale(len(classes))
    targets = torch.as_tensor(y.astype(np.float64).reshape(len(inputs), -1))
    location, scale = _moments(targets)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return ((outputs - targets) / scale).square().mean()

    return loss, targets, location, scale


def _keep_scale(count: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(count, dtype=torch.float64), torch.ones(count, dtype=torch.float64)


def _descend(network: nn.Module, inputs: Tensor, targets: Tensor, loss: Loss) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(_STEPS):
        rows = torch.randperm(len(inputs))[:_BATCH]
        optimizer.zero_grad()
        loss(network(inputs[rows]), targets[rows]).backward()
        optimizer.step()
