"""Losses: values against the kernel, derivatives against finite differences."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from sknetsim import NetworkKernel
from sknetsim.losses import (
    ContrastiveSimilarityLoss,
    GroupSimilarityLoss,
    PairSimilarityLoss,
)

from ..cases import build
from .batches import GROUPS, SAMPLES, compute_loss, losses, make_perceptron, make_samples, networks

normalizations = pytest.mark.parametrize("normalize", [True, False])


def compute_expected_loss(loss, gram):
    """Return a loss from the similarities of all pairs of the batch."""
    if isinstance(loss, PairSimilarityLoss):
        return -loss.weight * gram[range(3), range(3, 6)].mean()
    same, distinct = GROUPS[:, None] == GROUPS, ~np.eye(SAMPLES, dtype=bool)
    within, between = gram[same & distinct].mean(), gram[~same].mean()
    return loss.weight * (between * isinstance(loss, ContrastiveSimilarityLoss) - within)


def make_function(loss, network, X):
    """Return a loss as a function of the network's parameters, and the parameters."""
    names, parameters = zip(*network.named_parameters(), strict=True)

    def function(*values):
        twin = copy.deepcopy(network)
        for name, parameter in zip(names, values, strict=True):
            owner, _, local = name.rpartition(".")
            twin.get_submodule(owner)._parameters[local] = parameter
        return compute_loss(loss, twin, X)

    return function, tuple(p.detach().clone().requires_grad_() for p in parameters)


@normalizations
@losses
@networks
def test_losses_equal_their_formula_applied_to_the_kernel(case, loss, normalize):
    network, X = build(case, n_samples=SAMPLES)
    gram = NetworkKernel(network, case.output, normalize=normalize)(X)
    criterion = loss(0.7, output=case.output, normalize=normalize)
    loss = compute_loss(criterion, network, X).item()
    assert loss == pytest.approx(compute_expected_loss(criterion, gram), rel=1e-6, abs=1e-9)


@losses
@networks
def test_derivatives_equal_finite_differences(case, loss):
    """Compare the derivative in a random direction of all parameters together."""
    network, X = build(case, n_samples=SAMPLES)
    criterion = loss(output=case.output)
    parameters = [p for p in network.parameters() if p.requires_grad]
    directions = [torch.randn_like(p) for p in parameters]
    for layer in network.modules():
        if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
            # torch sets its gradient to zero, although the loss depends on it.
            place = next(i for i, p in enumerate(parameters) if p is layer.weight)
            directions[place][layer.padding_idx] = 0
    value = compute_loss(criterion, network, X)
    slope = 0.0
    if value.requires_grad:
        gradients = torch.autograd.grad(value, parameters, allow_unused=True)
        pairs = zip(gradients, directions, strict=True)
        slope = sum(float((g * d).sum()) for g, d in pairs if g is not None)
    step, ends = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter += sign * step * direction
        ends.append(compute_loss(criterion, network, X).item())
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter -= sign * step * direction
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("outputs", [1, 2])
@normalizations
@losses
def test_first_and_second_derivatives_equal_finite_differences(loss, normalize, outputs):
    function, parameters = make_function(
        loss(normalize=normalize), make_perceptron(outputs, hidden=2), make_samples()
    )
    assert gradcheck(function, parameters)
    assert gradgradcheck(function, parameters)


@losses
def test_derivatives_are_correct_for_outputs_without_full_rank(loss):
    """The Jacobian of d log-probabilities has rank d - 1."""
    network = nn.Sequential(*make_perceptron(3), nn.LogSoftmax(dim=1))
    function, parameters = make_function(loss(), network, make_samples())
    assert gradcheck(function, parameters)


@pytest.mark.parametrize(("weight", "raised"), [(1.0, True), (-1.0, False)])
def test_a_training_step_raises_or_lowers_the_similarity(weight, raised):
    network, X = make_perceptron(), make_samples()
    criterion = PairSimilarityLoss(weight)
    before = criterion.similarities(network, X[:1], X[1:2]).item()
    criterion(network, X[:1], X[1:2]).backward()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.grad is not None:  # No gradient depends on the last bias.
                parameter -= 1e-3 * parameter.grad
    after = criterion.similarities(network, X[:1], X[1:2]).item()
    assert (after > before) == raised


def test_the_mean_gradient_gives_the_sum_over_all_pairs():
    network, X = make_perceptron(2), make_samples()
    gram = NetworkKernel(network)(X)
    same = GroupSimilarityLoss().similarities(network, X, np.zeros(SAMPLES)).same.item()
    assert same == pytest.approx((gram.sum() - SAMPLES) / (SAMPLES * (SAMPLES - 1)))


@losses
def test_zero_gradients_do_not_give_nan(loss):
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1, bias=False)).double()
    with torch.no_grad():
        network[0].weight.zero_()
        network[0].bias.fill_(-1)
    value = compute_loss(loss(), network, make_samples())
    assert value.item() == 0
    if value.requires_grad:
        value.backward()
        assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@losses
def test_equal_inputs_have_similarity_1_and_zero_derivatives(loss):
    network, X = make_perceptron(), make_samples(1).expand(SAMPLES, -1)
    value = compute_loss(loss(), network, X)
    value.backward()
    expected = 0 if loss is ContrastiveSimilarityLoss else -1
    assert value.item() == pytest.approx(expected)
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(gradient.abs().max() < 1e-12 for gradient in gradients)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@losses
@networks
def test_gpu_and_cpu_give_the_same_losses_and_derivatives(case, loss):
    results = []
    for device in ("cpu", "cuda"):
        network, X = (part.to(device) for part in build(case))
        value = compute_loss(loss(output=case.output), network, X)
        if value.requires_grad:  # A linear network has constant similarities.
            value.backward()
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        results.append([tensor.detach().cpu().numpy() for tensor in (value, *gradients)])
    for expected, actual in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-7)
