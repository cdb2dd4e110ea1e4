"""Gradients of parameters without a rule, by vmap and by a loop."""

import numpy as np
import pytest
import torch
from torch import nn

from sknetsim import NetworkKernel

from .. import naive


class Branching(nn.Module):
    """Looks at its values, which vmap cannot."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.body = nn.Linear(5, 3)

    def forward(self, rows):
        hidden = self.body(rows) * self.scale
        return hidden * 2 if rows.abs().max().item() > 100 else hidden


def test_what_vmap_cannot_do_is_done_by_a_loop():
    network = Branching().double()
    X = torch.randn(6, 5, dtype=torch.float64)
    J = naive.jacobians(network, X)
    expected = naive.correlation(J, J, torch.finfo(torch.float64).eps)
    np.testing.assert_allclose(NetworkKernel(network)(X), expected, atol=1e-10)


def test_running_out_of_memory_is_no_reason_for_a_loop(monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr("sknetsim._gradients.fallback.vmap", full)
    with pytest.raises(torch.OutOfMemoryError):
        NetworkKernel(Branching())(torch.randn(3, 5))
