"""Base of the losses: parameters, copies, groups and whitening."""

import copy
import pickle

import numpy as np
import pytest
import torch

from sknetsim import NetworkKernel
from sknetsim.exceptions import UnsupportedNetworkError
from sknetsim.losses import GroupSimilarityLoss, PairSimilarityLoss
from sknetsim.losses._base import order_by_group

from .batches import SAMPLES, compute_loss, losses, make_perceptron, make_samples


@losses
def test_copies_and_pickles_of_a_used_loss_give_the_same_loss(loss):
    network, X, criterion = make_perceptron(), make_samples(), loss(0.5)
    expected = compute_loss(criterion, network, X).item()
    for twin in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
        assert compute_loss(twin, network, X).item() == expected


BAD = {
    "infinite weight": (
        lambda: PairSimilarityLoss(float("nan")),
        ValueError,
        "`weight` must be a finite number; got nan",
    ),
    "word as weight": (
        lambda: PairSimilarityLoss("much"),
        ValueError,
        "`weight` must be a finite number; got 'much'",
    ),
    "output": (lambda: PairSimilarityLoss(output="best"), ValueError, "output.* 'best'"),
    "array": (
        lambda: PairSimilarityLoss()(make_perceptron(), make_samples().numpy(), make_samples()),
        TypeError,
        "`inputs` must be a tensor, .*; got ndarray",
    ),
    "no samples": (
        lambda: PairSimilarityLoss()(make_perceptron(), make_samples(0), make_samples(0)),
        ValueError,
        "`inputs` must have at least one sample; got 0",
    ),
    "no samples in groups": (
        lambda: GroupSimilarityLoss()(make_perceptron(), make_samples(0), []),
        ValueError,
        "`inputs` must have at least two samples; got 0",
    ),
    "groups of one sample": (
        lambda: GroupSimilarityLoss()(make_perceptron(), make_samples(), range(SAMPLES)),
        ValueError,
        "`groups` must have at least one group with two samples; got one sample in each of 6",
    ),
    "too few groups": (
        lambda: GroupSimilarityLoss()(make_perceptron(), make_samples(), [0, 1]),
        ValueError,
        r"`groups` must have shape \(6,\), one group per sample; got \(2,\)",
    ),
    "unknown groups": (
        lambda: GroupSimilarityLoss()(
            make_perceptron(), make_samples(), [0, 0, 1, 1, 2, float("nan")]
        ),
        ValueError,
        "`groups` must be finite; got NaN",
    ),
    "pairs": (
        lambda: PairSimilarityLoss()(make_perceptron(), make_samples(), make_samples(4)),
        ValueError,
        "`others` must have 6 samples, as many as `inputs`; got 4",
    ),
    "frozen": (
        lambda: PairSimilarityLoss()(
            make_perceptron().requires_grad_(False), make_samples(), make_samples()
        ),
        UnsupportedNetworkError,
        "trainable parameter",
    ),
    "half precision": (
        lambda: PairSimilarityLoss()(
            make_perceptron().half(), make_samples().half(), make_samples().half()
        ),
        UnsupportedNetworkError,
        "got half precision",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_raises_an_error_that_names_it(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()


@losses
def test_the_repr_shows_the_parameters(loss):
    criterion = loss(0.5, output="predicted", normalize=False)
    assert repr(criterion) == (f"{loss.__name__}(weight=0.5, output='predicted', normalize=False)")
    assert criterion.output == "predicted"


def test_samples_are_ordered_by_group():
    order, sizes = order_by_group(["b", "a", "b", "c", "a", "b"], 6)
    assert order.tolist() == [1, 4, 0, 2, 5, 3] and sizes == [2, 3, 1]


def test_groups_may_be_tensors():
    order, sizes = order_by_group(torch.tensor([2.0, 1.0, 2.0], requires_grad=True), 3)
    assert order.tolist() == [1, 0, 2] and sizes == [1, 2]


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("normalize", [True, False])
def test_the_roots_make_similarities_of_the_jacobians(normalize, outputs):
    network, X = make_perceptron(outputs), make_samples()
    whitened = PairSimilarityLoss(normalize=normalize)._whiten(network, X)
    J = whitened.root @ whitened.jacobian.materialize()
    gram = NetworkKernel(network, normalize=normalize)(X)
    np.testing.assert_allclose(torch.einsum("nop,mop->nm", J, J).detach(), gram, atol=1e-12)
    np.testing.assert_allclose(whitened.self_similarity.detach(), gram.diagonal())


def test_a_zero_gradient_has_self_similarity_0():
    network = make_perceptron()
    torch.nn.init.zeros_(network[2].weight)
    network[2].bias.requires_grad_(False)
    X = torch.zeros(1, 3, dtype=torch.float64)
    torch.nn.init.zeros_(network[0].bias)
    assert PairSimilarityLoss()._whiten(network, X).self_similarity.tolist() == [0]


def test_a_part_of_the_network_does_not_become_a_part_of_the_loss():
    network, X = make_perceptron(), make_samples()
    criterion = PairSimilarityLoss(parameters=network[0])
    assert list(criterion.parameters()) == []
    expected = compute_loss(PairSimilarityLoss(parameters="0.*"), network, X).item()
    assert compute_loss(copy.deepcopy(criterion), network, X).item() == expected
