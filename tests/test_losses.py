"""Losses of similarity: values against the kernel, derivatives against finite differences."""

import copy
import gc
import pickle

import numpy as np
import pytest
import skorch
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from sknetsim import NetworkKernel
from sknetsim.exceptions import UnsupportedNetworkError
from sknetsim.losses import (
    ContrastiveSimilarityLoss,
    GroupSimilarityLoss,
    PairSimilarityLoss,
)

from .cases import NETWORKS, build
from .test_guest import lived_in, state

SAMPLES = 6
GROUPS = np.array([0, 0, 1, 1, 1, 2])
LOSSES = [PairSimilarityLoss, GroupSimilarityLoss, ContrastiveSimilarityLoss]
losses = pytest.mark.parametrize("loss", LOSSES)
networks = pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case.name)
normalizations = pytest.mark.parametrize("normalize", [True, False])


def value(loss, network, X):
    """Of a batch of six: three pairs, or three groups."""
    if isinstance(loss, PairSimilarityLoss):
        return loss(network, X[:3], X[3:])
    return loss(network, X, GROUPS)


def expected_value(loss, gram):
    """From all similarities of the batch."""
    if isinstance(loss, PairSimilarityLoss):
        return -loss.weight * gram[range(3), range(3, 6)].mean()
    same, distinct = GROUPS[:, None] == GROUPS, ~np.eye(SAMPLES, dtype=bool)
    within, between = gram[same & distinct].mean(), gram[~same].mean()
    return loss.weight * (between * isinstance(loss, ContrastiveSimilarityLoss) - within)


def perceptron(outputs=1, activation=nn.Tanh):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), activation(), nn.Linear(4, outputs)).double()


def rows(count=SAMPLES):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, dtype=torch.float64, generator=generator)


def as_function(loss, network, X):
    """Of the network's parameters."""
    names, parameters = zip(*network.named_parameters(), strict=True)

    class Called(nn.Module):
        def __init__(self, values):
            super().__init__()

    def function(*values):
        twin = copy.deepcopy(network)
        for name, found in zip(names, values, strict=True):
            owner, _, local = name.rpartition(".")
            layer = twin.get_submodule(owner)
            del layer._parameters[local]
            layer._parameters[local] = found
        return value(loss, twin, X)

    return function, tuple(p.detach().clone().requires_grad_() for p in parameters)


@normalizations
@losses
@networks
def test_values_are_those_of_the_kernel(case, loss, normalize):
    if isinstance(build(case)[1], dict | tuple | list):
        pytest.skip("pairs of this test are slices")
    network, X = build(case, n_samples=SAMPLES)
    kernel = NetworkKernel(network, case.output, normalize=normalize)
    made = loss(0.7, output=case.output, normalize=normalize)
    found = value(made, network, X)
    assert float(found) == pytest.approx(expected_value(made, kernel(X)), rel=1e-6, abs=1e-9)
