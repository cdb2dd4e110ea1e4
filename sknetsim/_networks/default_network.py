"""Default network (``estimator=None``): a small float64 perceptron for tables of any width."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import type_of_target
from torch import Tensor, nn
from torch.nn import functional

from .samples import Samples
from .samples.labels import check_labels, check_numbers

Loss = Callable[[Tensor, Tensor], Tensor]

# Units of a hidden layer, steps of Adam, and samples per step.
_HIDDEN, _STEPS, _BATCH = 32, 100, 512


def make_matrix(X: Any) -> np.ndarray:
    """Return X as a numpy array, and check that it has two axes."""
    inputs = Samples(X).take(slice(None))
    axes = inputs.ndim if isinstance(inputs, Tensor) else 0
    if axes != 2:
        description = f"{axes} dimensions" if axes else "several arrays"
        raise ValueError(
            "`X` must have 2 dimensions (samples, features) if `estimator` is None; got"
            f" {description}. Pass a trained network for other inputs."
        )
    return np.asarray(inputs)


class DefaultNetwork(nn.Module):
    """Perceptron with standardised inputs, and outputs in the units of the labels.

    It has two hidden layers of 32 tanh units.

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
        """Return the outputs, of shape (n_samples, n_outputs)."""
        # z(x) = m + s * g((x - location) / scale), where g are the layers.
        outputs: Tensor = self.layers((inputs - self.location) / self.scale)
        return self.output_location + self.output_scale * outputs


def train_default_network(
    X: np.ndarray,
    y: np.ndarray | None,
    random_state: int | np.random.RandomState | None,
    sample_weight: np.ndarray | None = None,
) -> DefaultNetwork:
    """Train a network to predict y, or to reconstruct X if y is None.

    With weights, moments and losses are weighted means over the samples.

    Labels of shape (n,) that scikit-learn's `type_of_target` calls binary or multiclass are
    classes; other labels are targets of a regression. The global random states stay unchanged.
    """
    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    inputs = torch.as_tensor(np.array(X, dtype=np.float64))
    weights = torch.ones(len(inputs)) if sample_weight is None else torch.as_tensor(sample_weight)
    weights = weights.double()[:, None]
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(seed)
        location, scale = _moments(inputs, weights)
        loss, targets, *moments = _make_objective((inputs - location) / scale, y, weights)
        network = DefaultNetwork(location, scale, *moments)
        _minimize(network, inputs, targets, weights, loss)
    return network.eval()


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean over the samples, with weights of shape (n_samples, 1)."""
    return (weights * values).sum(dim=0) / weights.sum()


def _moments(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of each column; 1 for a constant column."""
    location = _mean(values, weights)
    scale = _mean((values - location).square(), weights).sqrt()
    return location, torch.where(scale > 1e-12, scale, 1.0)


def _make_objective(
    inputs: Tensor, y: np.ndarray | None, weights: Tensor
) -> tuple[Loss, Tensor, Tensor, Tensor]:
    """Return the loss of each sample, the targets, and location and scale of the outputs."""
    if y is None:
        return _square_errors, inputs, *_unit_scale(inputs.shape[1])
    y = check_labels(y)
    if y.ndim == 1 and type_of_target(y) in ("binary", "multiclass"):
        classes, codes = np.unique(y, return_inverse=True)
        loss = partial(functional.cross_entropy, reduction="none")
        return loss, torch.as_tensor(codes), *_unit_scale(len(classes))
    targets = torch.as_tensor(check_numbers(y).astype(np.float64).reshape(len(inputs), -1))
    location, scale = _moments(targets, weights)
    # Squared errors of the standardised targets.
    return partial(_square_errors, scale=scale), targets, location, scale


def _square_errors(outputs: Tensor, targets: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """Return the mean squared error of each sample, of shape (n_samples,)."""
    return ((outputs - targets) / scale).square().mean(dim=1)


def _unit_scale(count: int) -> tuple[Tensor, Tensor]:
    """Return location 0 and scale 1 for each output."""
    return torch.zeros(count, dtype=torch.float64), torch.ones(count, dtype=torch.float64)


def _minimize(
    network: nn.Module, inputs: Tensor, targets: Tensor, weights: Tensor, loss: Loss
) -> None:
    """Minimise the weighted mean loss with Adam, on a new random batch in each step."""
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(_STEPS):
        rows = torch.randperm(len(inputs))[:_BATCH]
        optimizer.zero_grad()
        losses = loss(network(inputs[rows]), targets[rows])
        _mean(losses[:, None], weights[rows]).sum().backward()
        optimizer.step()
