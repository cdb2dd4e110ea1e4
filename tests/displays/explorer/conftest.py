"""Fixtures of the explorer's tests."""

import numpy as np
import pytest
import torch
from torch import nn


@pytest.fixture
def images():
    """Return a network, forty images and their labels."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(15, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    X = torch.rand(40, 1, 3, 5, dtype=torch.float64)
    y = np.arange(40) % 3
    return network, X, y
