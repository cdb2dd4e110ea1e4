"""Fixtures of the displays' tests."""

import matplotlib as mpl
import pytest
import torch
from matplotlib import pyplot
from torch import nn

mpl.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pyplot.close("all")


@pytest.fixture
def images():
    """Return a network and twelve images."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    return network, torch.rand(12, 1, 4, 4, dtype=torch.float64)
