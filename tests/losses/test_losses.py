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
from sknetsim.losses._losses import (
    ContrastiveSimilarityLoss,
    GroupSimilarityLoss,
    PairSimilarityLoss,
)

from ..cases import NETWORKS, build
from ..states import make_state_uneven, record_state

SAMPLES = 6
GROUPS = np.array([0, 0, 1, 1, 1, 2])
LOSSES = [PairSimilarityLoss, GroupSimilarityLoss, ContrastiveSimilarityLoss]
losses = pytest.mark.parametrize("loss", LOSSES)
#: Networks that cannot be differentiated twice, and the layer that is to blame.
ONCE = {"embedding bag of words": "EmbeddingBag 'bag'", "checkpointed, reentrant": ""}
WRONG = ["weight_norm", "old-style weight_norm"]
TWICE = [case for case in NETWORKS if case.name not in (*ONCE, *WRONG)]
networks = pytest.mark.parametrize("case", TWICE, ids=lambda case: case.name)
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

    def function(*values):
        twin = copy.deepcopy(network)
        for name, found in zip(names, values, strict=True):
            owner, _, local = name.rpartition(".")
            twin.get_submodule(owner)._parameters[local] = found
        return value(loss, twin, X)

    return function, tuple(p.detach().clone().requires_grad_() for p in parameters)


@normalizations
@losses
@networks
def test_values_are_those_of_the_kernel(case, loss, normalize):
    network, X = build(case, n_samples=SAMPLES)
    gram = NetworkKernel(network, case.output, normalize=normalize)(X)
    made = loss(0.7, output=case.output, normalize=normalize)
    found = value(made, network, X).item()
    assert found == pytest.approx(expected_value(made, gram), rel=1e-6, abs=1e-9)


@losses
@networks
def test_derivatives_are_those_of_finite_differences(case, loss):
    """Along a random direction, of all parameters together."""
    network, X = build(case, n_samples=SAMPLES)
    made, parameters = (
        loss(output=case.output),
        [p for p in network.parameters() if p.requires_grad],
    )
    directions = [torch.randn_like(p) for p in parameters]
    for layer in network.modules():
        if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
            # Its gradient is zero by decree.
            place = next(i for i, p in enumerate(parameters) if p is layer.weight)
            directions[place][layer.padding_idx] = 0
    found = value(made, network, X)
    slope = 0.0
    if found.requires_grad:
        gradients = torch.autograd.grad(found, parameters, allow_unused=True)
        pairs = zip(gradients, directions, strict=True)
        slope = sum(float((g * d).sum()) for g, d in pairs if g is not None)
    step, ends = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter += sign * step * direction
        ends.append(value(made, network, X).item())
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter -= sign * step * direction
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("outputs", [1, 2])
@normalizations
@losses
def test_first_and_second_derivatives(loss, normalize, outputs):
    function, parameters = as_function(loss(normalize=normalize), perceptron(outputs), rows())
    assert gradcheck(function, parameters)
    assert gradgradcheck(function, parameters)


@losses
def test_outputs_without_full_rank_have_derivatives(loss):
    """The gradients of logarithms of probabilities have one direction less than there are."""
    network = nn.Sequential(*perceptron(3), nn.LogSoftmax(dim=1))
    function, parameters = as_function(loss(), network, rows())
    assert gradcheck(function, parameters)


@pytest.mark.parametrize("name", ONCE)
def test_a_layer_without_second_derivatives_is_named(name):
    case = next(case for case in NETWORKS if case.name == name)
    network, X = build(case)
    with pytest.raises(UnsupportedNetworkError, match=f"{ONCE[name]}.*cannot be differentiated"):
        value(PairSimilarityLoss(output=case.output), network, X)


@pytest.mark.parametrize("name", WRONG)
def test_weight_norm_is_refused(name):
    network, X = build(next(case for case in NETWORKS if case.name == name))
    with pytest.raises(UnsupportedNetworkError, match="network uses weight_norm"):
        value(PairSimilarityLoss(), network, X)


@losses
@networks
def test_a_loss_leaves_no_trace(case, loss):
    network, X = build(case, n_samples=SAMPLES)
    before = record_state(make_state_uneven(network))
    value(loss(output=case.output), network, X)
    assert record_state(network) == before


@pytest.mark.parametrize(("weight", "raised"), [(1.0, True), (-1.0, False)])
def test_a_step_raises_the_similarity_or_lowers_it(weight, raised):
    network, X = perceptron(), rows()
    made = PairSimilarityLoss(weight)
    before = made.similarities(network, X[:1], X[1:2]).item()
    made(network, X[:1], X[1:2]).backward()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.grad is not None:  # Of the last bias no gradient says anything.
                parameter -= 1e-3 * parameter.grad
    after = made.similarities(network, X[:1], X[1:2]).item()
    assert (after > before) == raised


def test_groups_by_their_mean_are_the_sums_of_all_pairs():
    network, X = perceptron(2), rows()
    gram = NetworkKernel(network)(X)
    found = GroupSimilarityLoss().similarities(network, X, np.zeros(SAMPLES)).same.item()
    assert found == pytest.approx((gram.sum() - SAMPLES) / (SAMPLES * (SAMPLES - 1)))


@losses
def test_zero_gradients_give_no_nan(loss):
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1, bias=False)).double()
    with torch.no_grad():
        network[0].weight.zero_()
        network[0].bias.fill_(-1)
    found = value(loss(), network, rows())
    assert found.item() == 0
    if found.requires_grad:
        found.backward()
        assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@losses
def test_equal_inputs_are_as_alike_as_can_be_and_stay_so(loss):
    network, X = perceptron(), rows(1).expand(SAMPLES, -1)
    made = value(loss(), network, X)
    made.backward()
    expected = 0 if loss is ContrastiveSimilarityLoss else -1
    assert made.item() == pytest.approx(expected)
    found = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(gradient.abs().max() < 1e-12 for gradient in found)


def test_networks_are_evaluated_without_dropout_in_their_own_mode():
    network = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 1))
    network, X = network.double().train(), rows()
    made = PairSimilarityLoss()
    first, second = (value(made, network, X).item() for _ in range(2))
    assert first == second and network.training and network[2].num_batches_tracked == 0


def test_no_memory_is_kept_from_step_to_step():
    network, X, made = perceptron(), rows(), ContrastiveSimilarityLoss()
    counts = []
    for _ in range(2):
        for _ in range(500):
            value(made, network, X).backward()
        gc.collect()
        counts.append(sum(issubclass(type(found), torch.Tensor) for found in gc.get_objects()))
    assert counts[1] <= counts[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@losses
@networks
def test_a_gpu_gives_the_values_and_derivatives_that_the_cpu_gives(case, loss):
    both = []
    for device in ("cpu", "cuda"):
        network, X = (made.to(device) for made in build(case))
        made = value(loss(output=case.output), network, X)
        if made.requires_grad:  # Not where each layer is the last.
            made.backward()
        trained = [p.grad for p in network.parameters() if p.grad is not None]
        both.append([found.detach().cpu().numpy() for found in (made, *trained)])
    for expected, found in zip(*both, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-7)


@losses
def test_losses_are_copied_and_pickled_without_what_they_found(loss):
    network, X, made = perceptron(), rows(), loss(0.5)
    expected = value(made, network, X).item()
    for twin in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert value(twin, network, X).item() == expected


def test_a_skorch_net_is_a_network_too():
    net = skorch.NeuralNetRegressor(perceptron(), device="cpu").initialize()
    X = rows()
    made = PairSimilarityLoss()
    assert value(made, net, X).item() == value(made, net.module_, X).item()


BAD = {
    "weight": (lambda: PairSimilarityLoss(float("nan")), ValueError, "weight is nan"),
    "weight, a word": (lambda: PairSimilarityLoss("much"), ValueError, "weight is 'much'"),
    "output": (lambda: PairSimilarityLoss(output="best"), ValueError, "output is 'best'"),
    "an array": (
        lambda: PairSimilarityLoss()(perceptron(), rows().numpy(), rows()),
        TypeError,
        "inputs is a ndarray",
    ),
    "no rows": (
        lambda: GroupSimilarityLoss()(perceptron(), rows(0), []),
        ValueError,
        "inputs has 0 rows",
    ),
    "lonely rows": (
        lambda: GroupSimilarityLoss()(perceptron(), rows(), range(SAMPLES)),
        ValueError,
        "groups has one row for each of its 6",
    ),
    "too few groups": (
        lambda: GroupSimilarityLoss()(perceptron(), rows(), [0, 1]),
        ValueError,
        r"groups has shape \(2,\) for 6 rows",
    ),
    "unknown groups": (
        lambda: GroupSimilarityLoss()(perceptron(), rows(), [0, 0, 1, 1, 2, float("nan")]),
        ValueError,
        "is not finite",
    ),
    "pairs": (
        lambda: PairSimilarityLoss()(perceptron(), rows(), rows(4)),
        ValueError,
        "others has 4 rows and inputs 6",
    ),
    "frozen": (
        lambda: PairSimilarityLoss()(perceptron().requires_grad_(False), rows(), rows()),
        UnsupportedNetworkError,
        "no trainable parameter",
    ),
    "half": (
        lambda: PairSimilarityLoss()(perceptron().half(), rows().half(), rows().half()),
        UnsupportedNetworkError,
        "half precision",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()


def test_inputs_come_to_the_network_in_its_dtype():
    network, X, made = perceptron().float(), rows(), PairSimilarityLoss()
    assert value(made, network, X).item() == value(made, network, X.float()).item()


def test_inputs_get_gradients_too():
    network, X = perceptron(), rows().requires_grad_()
    assert gradcheck(lambda X: value(PairSimilarityLoss(), network, X), (X,))


def test_autocast_changes_nothing():
    network, X, made = perceptron().float(), rows().float(), PairSimilarityLoss()
    expected = value(made, network, X).item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert value(made, network, X).item() == expected


def test_a_network_that_has_changed_is_looked_at_again():
    network, X, made = perceptron(), rows(), PairSimilarityLoss()
    network[0].requires_grad_(False)
    value(made, network, X)
    network[0].requires_grad_(True)
    assert value(made, network, X).item() == value(PairSimilarityLoss(), network, X).item()
    network.append(nn.Linear(1, 1).double())
    assert value(made, network, X).item() == value(PairSimilarityLoss(), network, X).item()


class Sorting(nn.Module):
    """Evaluates its rows in the order of their first number."""

    def __init__(self):
        super().__init__()
        self.network = perceptron()

    def forward(self, X):
        order = X[:, 0].argsort(stable=True)
        return self.network(X[order])[order.argsort()]


def test_later_batches_are_looked_at_too():
    network, made, X = Sorting(), PairSimilarityLoss(), rows()
    in_order = X.clone()
    in_order[:, 0] = 0
    value(made, network, in_order)
    value(made, network, X)  # Its second half is the fourth batch, and looked at.
    assert value(made, network, X).item() == pytest.approx(
        value(PairSimilarityLoss(), network, X).item()
    )


def test_samples_one_by_one_are_looked_at_once():
    network, X, made = perceptron(), rows(2), PairSimilarityLoss()
    made(network, X[:1], X[1:]), made(network, X[:1], X[1:])
    calls = []
    network.register_forward_hook(lambda *found: calls.append(found))
    made(network, X[:1], X[1:])
    assert len(calls) == 2


def test_samples_together_are_looked_at_after_samples_one_by_one():
    network, X, made = Sorting(), rows(), PairSimilarityLoss()
    for row in range(5):
        made(network, X[row : row + 1], X[row + 1 :][:1])
    assert value(made, network, X).item() == pytest.approx(
        value(PairSimilarityLoss(), network, X).item()
    )


def test_an_untied_weight_counts():
    network, X, made = perceptron(), rows(), PairSimilarityLoss()
    network[0], network[2] = nn.Linear(3, 3).double(), nn.Linear(3, 3).double()
    network[2].weight = network[0].weight
    value(made, network, X)
    network[2].weight = nn.Parameter(network[0].weight.detach().clone())
    assert value(made, network, X).item() == value(PairSimilarityLoss(), network, X).item()


def test_hooks_that_change_gradients_change_no_similarity():
    case = next(case for case in NETWORKS if case.name == "LSTM classifier")
    network, X = build(case, n_samples=SAMPLES)
    expected = value(PairSimilarityLoss(), network, X).item()
    for parameter in network.parameters():
        parameter.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))
    made = value(PairSimilarityLoss(), network, X)
    assert made.item() == pytest.approx(expected)
    made.backward()
    assert all(p.grad.abs().max() <= 0.01 for p in network.parameters() if p.grad is not None)


def test_a_part_of_the_network_does_not_become_the_losss():
    network, X = perceptron(), rows()
    made = PairSimilarityLoss(parameters=network[0])
    assert list(made.parameters()) == []
    expected = value(PairSimilarityLoss(parameters="0.*"), network, X).item()
    assert value(copy.deepcopy(made), network, X).item() == expected


def test_nothing_has_a_graph_where_no_gradients_are_asked_for():
    network, X, made = perceptron(), rows(), PairSimilarityLoss()
    with torch.no_grad():
        assert not value(made, network, X).requires_grad
        assert not made.similarities(network, X, X).requires_grad
