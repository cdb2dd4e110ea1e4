"""Recorded calls of layers, and the cotangents at these calls."""

import numpy as np
import pytest
import sklearn
import torch
from torch import nn

from sknetsim import NetworkKernel, OutputTooLargeError

from .. import naive


class AlteringItsInput(nn.Module):
    """A convolution that saves a padded copy of what is altered afterwards."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular")
        self.head = nn.Linear(15, 2)

    def forward(self, rows):
        rows = rows.clone()
        hidden = self.body(rows)
        rows.mul_(0)
        return self.head(torch.tanh(hidden).flatten(1))


def test_an_input_that_is_altered_later():
    network = AlteringItsInput().double()
    X = torch.randn(6, 2, 5, dtype=torch.float64)
    J = naive.jacobians(network, X)
    expected = naive.correlation(J, J, torch.finfo(torch.float64).eps)
    np.testing.assert_allclose(NetworkKernel(network)(X), expected, atol=1e-10)


class Adaptive(nn.Module):
    """As many steps through one layer as a batch's first number says."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, rows):
        hidden = rows
        for _ in range(1 + int(rows[0, 0] > 0)):
            hidden = torch.tanh(self.body(hidden))
        return self.head(hidden)


def test_layers_called_more_often_in_some_batches():
    network = Adaptive().double()
    X = torch.randn(9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    X[:3, 0], X[3:6, 0], X[6:, 0] = 1, -1, 1
    J = naive.jacobians(network, X)
    expected = naive.correlation(J, J, torch.finfo(torch.float64).eps)
    np.testing.assert_allclose(NetworkKernel(network, batch_size=3)(X), expected, atol=1e-10)


def test_too_many_outputs_are_refused_with_their_cost():
    network = nn.Linear(4, 3000)
    with (
        pytest.raises(
            OutputTooLargeError, match=r"3000 outputs that take about \d+ MiB.*'predicted'"
        ),
        sklearn.config_context(working_memory=100),
    ):
        NetworkKernel(network)(torch.randn(3, 4))
