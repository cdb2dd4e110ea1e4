"""Losses, networks and batches for the tests of the losses."""

import numpy as np
import pytest
import torch
from torch import nn

from sknetsim.losses import (
    ContrastiveSimilarityLoss,
    GroupSimilarityLoss,
    PairSimilarityLoss,
)

from ..cases import NETWORKS

SAMPLES = 6
GROUPS = np.array([0, 0, 1, 1, 1, 2])
LOSSES = [PairSimilarityLoss, GroupSimilarityLoss, ContrastiveSimilarityLoss]
losses = pytest.mark.parametrize("loss", LOSSES)
#: Networks that cannot be differentiated twice.
ONCE_DIFFERENTIABLE = ["checkpointed, reentrant"]
TWICE_DIFFERENTIABLE = [case for case in NETWORKS if case.name not in ONCE_DIFFERENTIABLE]
networks = pytest.mark.parametrize("case", TWICE_DIFFERENTIABLE, ids=lambda case: case.name)


def compute_loss(loss, network, X):
    """Return the loss of a batch of six: of three pairs, or of three groups."""
    if isinstance(loss, PairSimilarityLoss):
        return loss(network, X[:3], X[3:])
    return loss(network, X, GROUPS)


def make_perceptron(outputs=1, activation=nn.Tanh, hidden=4):
    torch.manual_seed(0)
    layers = [nn.Linear(3, hidden), activation(), nn.Linear(hidden, outputs)]
    return nn.Sequential(*layers).double()


def make_samples(count=SAMPLES):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, dtype=torch.float64, generator=generator)
