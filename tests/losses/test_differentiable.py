"""Jacobians with their graph: verification, second derivatives, and no trace in the network."""

import contextlib
import gc
import warnings

import numpy as np
import pytest
import skorch
import torch
from torch import nn
from torch.autograd import grad, gradcheck

from sknetsim.exceptions import UnsupportedNetworkError
from sknetsim.losses import ContrastiveSimilarityLoss, GroupSimilarityLoss, PairSimilarityLoss
from sknetsim.losses._differentiable import DifferentiableEngine, borrow_in_eval_mode
from sknetsim.losses._second_derivatives import ReplacedFunctions

from ..cases import NETWORKS, BagOfWords, build
from ..naive import jacobians
from ..states import make_state_uneven, record_state
from .batches import (
    ONCE_DIFFERENTIABLE,
    SAMPLES,
    compute_loss,
    losses,
    make_perceptron,
    make_samples,
    networks,
)


@pytest.mark.parametrize("name", ONCE_DIFFERENTIABLE)
def test_a_network_without_second_derivatives_raises_an_error(name):
    case = next(case for case in NETWORKS if case.name == name)
    network, X = build(case)
    with pytest.raises(UnsupportedNetworkError, match="can be differentiated twice; got a"):
        compute_loss(PairSimilarityLoss(output=case.output), network, X)


def test_a_layer_without_second_derivatives_is_named():
    network = BagOfWords()
    network.bag.mode = "max"
    with pytest.raises(
        UnsupportedNetworkError, match=r"can be differentiated twice; got a.*EmbeddingBag 'bag'"
    ):
        compute_loss(PairSimilarityLoss(), network, torch.randint(0, 13, (6, 5)))


def normalize_old_style(layer, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(layer, **options)


def normalize_by_hand(v, g, dim):
    """Return g v / |v|, with one norm for each entry along an axis, or one for all."""
    axes = None if dim in (None, -1) else [axis for axis in range(v.ndim) if axis != dim]
    return v * g / torch.linalg.vector_norm(v, dim=axes, keepdim=True)


WEIGHT_NORMS = [
    (normalize, dim)
    for normalize in (nn.utils.parametrizations.weight_norm, normalize_old_style)
    for dim in (0, 1, None, -1)
]


@pytest.mark.parametrize(("normalize", "dim"), WEIGHT_NORMS)
@pytest.mark.parametrize("is_convolution", [False, True], ids=["linear", "convolution"])
def test_similarities_with_weight_norm_have_the_gradient_of_a_double_loop(
    normalize, dim, is_convolution
):
    torch.manual_seed(0)
    layer, X = nn.Linear(3, 4), make_samples(4)
    if is_convolution:
        layer, X = nn.Conv1d(1, 4, 2), X[:, None]
    layer = normalize(layer, dim=dim)
    network = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.LazyLinear(2)).double()
    network(X)
    parameters = dict(network.named_parameters())
    bias, g, v, head_weight, head_bias = parameters.values()
    assert g.numel() < v.numel()

    def compute_output(x):
        weight = normalize_by_hand(v, g, dim)
        apply = nn.functional.conv1d if is_convolution else nn.functional.linear
        hidden = torch.tanh(apply(x[None], weight, bias)).flatten(1)
        return nn.functional.linear(hidden, head_weight, head_bias).sum()

    def compute_gradient(x):
        gradients = grad(compute_output(x), [*parameters.values()], create_graph=True)
        return torch.cat([gradient.flatten() for gradient in gradients])

    J = torch.stack([compute_gradient(x) for x in X])
    expected = nn.functional.cosine_similarity(J, J.roll(1, 0))
    similarities = PairSimilarityLoss(output="sum").similarities(network, X, X.roll(1, 0))
    torch.testing.assert_close(similarities, expected)
    gradients = [
        grad((torch.arange(4.0) * values).sum(), [v, g, bias, head_weight])
        for values in (similarities, expected)
    ]
    torch.testing.assert_close(*gradients)


class Normalized(nn.Module):
    """Network that normalises a weight, or hidden values, which depend on the samples."""

    def __init__(self, normalize, of_samples=False):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)
        self.v, self.g = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4, 1))
        self.normalize, self.of_samples = normalize, of_samples
        self.double()

    def forward(self, X):
        hidden = self.first(X).tanh()
        if self.of_samples:
            hidden = self.normalize(hidden, hidden[:, :1].exp(), 0)
        weight = self.normalize(self.v, self.g, 0)
        return self.last(nn.functional.linear(hidden, weight).tanh())


def compute_gradients(network, X, **options):
    """Return the gradients of a loss in all parameters of a network."""
    compute_loss(PairSimilarityLoss(output="sum", **options), network, X)
    return [parameter.grad for parameter in network.parameters()]


@pytest.mark.parametrize("of_samples", [False, True])
@pytest.mark.parametrize("parameters", [None, "first.*", "last.*", ["v", "g"]])
def test_second_derivatives_behind_weight_norm_are_correct(parameters, of_samples):
    """The normalised weight and the layer before it may be compared or not."""
    gradients, expected = (
        compute_gradients(Normalized(normalize, of_samples), make_samples(), parameters=parameters)
        for normalize in (torch._weight_norm, normalize_by_hand)
    )
    torch.testing.assert_close(gradients, expected)


def compile_weight_norm():
    def normalize(v: torch.Tensor, g: torch.Tensor, dim: int) -> torch.Tensor:
        return torch._weight_norm(v, g, dim)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(normalize)


@pytest.mark.parametrize("parameters", [None, ["v", "g"]])
def test_compiled_weight_norm_of_compared_parameters_raises_an_error(parameters):
    loss = PairSimilarityLoss(output="sum", parameters=parameters)
    with pytest.raises(UnsupportedNetworkError, match="got weight_norm in compiled code"):
        compute_loss(loss, Normalized(compile_weight_norm()), make_samples())


@pytest.mark.parametrize("parameters", ["first.*", "last.*"])
def test_compiled_weight_norm_of_other_parameters_has_correct_gradients(parameters):
    gradients, expected = (
        compute_gradients(Normalized(normalize), make_samples(), parameters=parameters)
        for normalize in (compile_weight_norm(), normalize_by_hand)
    )
    torch.testing.assert_close(gradients, expected)


@losses
@networks
def test_a_loss_does_not_change_the_network(case, loss):
    network, X = build(case, n_samples=SAMPLES)
    before = record_state(make_state_uneven(network))
    compute_loss(loss(output=case.output), network, X)
    assert record_state(network) == before


def test_networks_are_evaluated_in_eval_mode_and_restored():
    network = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 1))
    network, X = network.double().train(), make_samples()
    criterion = PairSimilarityLoss()
    first, second = (compute_loss(criterion, network, X).item() for _ in range(2))
    assert first == second and network.training and network[2].num_batches_tracked == 0


def test_memory_does_not_grow_with_the_number_of_steps():
    network, X, criterion = make_perceptron(), make_samples(), ContrastiveSimilarityLoss()
    counts = []
    for _ in range(2):
        for _ in range(500):
            compute_loss(criterion, network, X).backward()
        gc.collect()
        counts.append(sum(issubclass(type(item), torch.Tensor) for item in gc.get_objects()))
    assert counts[1] <= counts[0]


def test_a_skorch_net_gives_the_loss_of_its_module():
    net = skorch.NeuralNetRegressor(make_perceptron(), device="cpu").initialize()
    X = make_samples()
    criterion = PairSimilarityLoss()
    assert compute_loss(criterion, net, X).item() == compute_loss(criterion, net.module_, X).item()


def test_inputs_are_converted_to_the_dtype_of_the_network():
    network, X, criterion = make_perceptron().float(), make_samples(), PairSimilarityLoss()
    assert (
        compute_loss(criterion, network, X).item()
        == compute_loss(criterion, network, X.float()).item()
    )


def test_losses_can_be_differentiated_in_the_inputs():
    network, X = make_perceptron(), make_samples().requires_grad_()
    assert gradcheck(lambda X: compute_loss(PairSimilarityLoss(), network, X), (X,))


def test_autocast_does_not_change_the_loss():
    network, X, criterion = make_perceptron().float(), make_samples().float(), PairSimilarityLoss()
    expected = compute_loss(criterion, network, X).item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert compute_loss(criterion, network, X).item() == expected


def compute_new_loss(network, X):
    """Return the loss by a criterion that has not seen any network."""
    return compute_loss(PairSimilarityLoss(), network, X).item()


def test_a_changed_network_is_verified_again():
    network, X, criterion = make_perceptron(), make_samples(), PairSimilarityLoss()
    network[0].requires_grad_(False)
    compute_loss(criterion, network, X)
    network[0].requires_grad_(True)
    assert compute_loss(criterion, network, X).item() == compute_new_loss(network, X)
    network.append(nn.Linear(1, 1).double())
    assert compute_loss(criterion, network, X).item() == compute_new_loss(network, X)


class Sorting(nn.Module):
    """Network that sorts its samples by their first number."""

    def __init__(self):
        super().__init__()
        self.network = make_perceptron()

    def forward(self, X):
        order = X[:, 0].argsort(stable=True)
        return self.network(X[order])[order.argsort()]


def test_later_batches_are_verified_too():
    network, criterion, X = Sorting(), PairSimilarityLoss(), make_samples()
    in_order = X.clone()
    in_order[:, 0] = 0
    compute_loss(criterion, network, in_order)
    assert compute_loss(criterion, network, X).item() == pytest.approx(compute_new_loss(network, X))


def test_a_weight_that_later_batches_use_outside_its_layer_is_verified():
    class Gated(Sorting):
        def forward(self, X):
            outside = nn.functional.linear(X, self.network[0].weight)
            return self.network(X) + (X[:, :1] > 0) * outside[:, :1]

    network, criterion, X = Gated(), PairSimilarityLoss(), make_samples()
    closed = X.clone()
    closed[:, 0] = -1
    compute_loss(criterion, network, closed)
    assert compute_loss(criterion, network, X).item() == pytest.approx(compute_new_loss(network, X))


def test_a_network_may_change_its_inputs_in_place():
    class Changing(Sorting):
        def forward(self, X):
            return self.network(X.mul_(2))

    class Copying(Sorting):
        def forward(self, X):
            return self.network(X * 2)

    network, X = Changing(), make_samples()
    copying = Copying()
    copying.load_state_dict(network.state_dict())
    before, expected = X.clone(), compute_new_loss(copying, X)
    assert compute_loss(PairSimilarityLoss(), network, X).item() == pytest.approx(expected)
    assert torch.equal(X, before)


def test_batches_of_one_sample_are_not_verified_each_time():
    network, X, criterion = make_perceptron(), make_samples(2), PairSimilarityLoss()
    criterion(network, X[:1], X[1:]), criterion(network, X[:1], X[1:])
    calls = []
    network.register_forward_hook(lambda *call: calls.append(call))
    criterion(network, X[:1], X[1:])
    assert len(calls) == 2


def test_larger_batches_are_verified_after_batches_of_one_sample():
    network, X, criterion = Sorting(), make_samples(), PairSimilarityLoss()
    for row in range(5):
        criterion(network, X[row : row + 1], X[row + 1 :][:1])
    assert compute_loss(criterion, network, X).item() == pytest.approx(compute_new_loss(network, X))


def test_a_weight_that_is_no_longer_tied_is_compared_on_its_own():
    network, X, criterion = make_perceptron(), make_samples(), PairSimilarityLoss()
    network[0], network[2] = nn.Linear(3, 3).double(), nn.Linear(3, 3).double()
    network[2].weight = network[0].weight
    compute_loss(criterion, network, X)
    network[2].weight = nn.Parameter(network[0].weight.detach().clone())
    assert compute_loss(criterion, network, X).item() == compute_new_loss(network, X)


def test_hooks_that_change_gradients_do_not_change_similarities():
    case = next(case for case in NETWORKS if case.name == "LSTM classifier")
    network, X = build(case, n_samples=SAMPLES)
    expected = compute_loss(PairSimilarityLoss(), network, X).item()
    for parameter in network.parameters():
        parameter.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))
    loss = compute_loss(PairSimilarityLoss(), network, X)
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert all(p.grad.abs().max() <= 0.01 for p in network.parameters() if p.grad is not None)


def test_losses_have_no_graph_if_gradients_are_disabled():
    network, X, criterion = make_perceptron(), make_samples(), PairSimilarityLoss()
    with torch.no_grad():
        assert not compute_loss(criterion, network, X).requires_grad
        assert not criterion.similarities(network, X, X).requires_grad


def test_a_scripted_network_has_the_same_loss_and_gradients():
    network, X = make_perceptron(), make_samples()
    scripted = torch.jit.script(network)  # It shares the parameters.
    compute_loss(PairSimilarityLoss(), network, X).backward()
    expected = [None if p.grad is None else p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    compute_loss(PairSimilarityLoss(), scripted, X).backward()
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        if gradient is not None:
            torch.testing.assert_close(parameter.grad, gradient)


def test_hooks_are_restored_after_the_loss():
    network, X = make_perceptron(), make_samples()
    hooks = []
    for parameter in network.parameters():
        parameter.register_hook(lambda gradient: None)
        hooks.append(parameter._backward_hooks)
    compute_loss(PairSimilarityLoss(), network, X)
    assert all(p._backward_hooks is h for p, h in zip(network.parameters(), hooks, strict=True))


def test_gradients_are_enabled_only_inside_the_block():
    network = make_perceptron().train()
    with torch.no_grad():
        with borrow_in_eval_mode(network) as module:
            assert module is network and not network.training and torch.is_grad_enabled()
        assert network.training and not torch.is_grad_enabled()


SELECT = {"all": lambda y: y, "sum": lambda y: y.sum(1), 1: lambda y: y[:, 1]}


@pytest.mark.parametrize("output", SELECT)
def test_jacobians_are_those_of_autograd(output):
    network, X = make_perceptron(3), make_samples()
    with torch.no_grad():
        jacobian = DifferentiableEngine(output, None).jacobian(network, X)
    expected = jacobians(network, X, SELECT[output])
    np.testing.assert_allclose(jacobian.materialize(), expected, atol=1e-12)
    assert not jacobian.outputs.requires_grad


@pytest.mark.parametrize(("shape", "slopes"), [((), 1), ((5,), 1), ((4, 3), 3), ((2, 3, 2), 3)])
def test_fast_second_derivatives_of_prelu_are_those_of_torch(shape, slopes):
    torch.manual_seed(0)
    x, weight = torch.randn(shape).double(), torch.rand(slopes).double()
    x.flatten()[:1].zero_()
    leaves = [x.requires_grad_(), weight.requires_grad_()]
    results = []
    for mode in (contextlib.nullcontext(), ReplacedFunctions()):
        with mode:
            values = nn.functional.prelu(x, weight)
        # The factor makes the first derivatives depend on x.
        first = torch.autograd.grad((values * x).sum(), leaves, create_graph=True)
        total = sum(gradient.square().sum() for gradient in first)
        results.append([values, *first, *torch.autograd.grad(total, leaves)])
    torch.testing.assert_close(results[1], results[0])


def test_large_calls_have_the_derivatives_of_small_ones(monkeypatch):
    network, X = make_perceptron(2), make_samples()
    gradients = []
    for elements in (2**17, 0):
        monkeypatch.setattr("sknetsim._gradients.capture._BATCHED_ELEMENTS", elements)
        value = compute_loss(GroupSimilarityLoss(), network, X)
        gradients.append(torch.autograd.grad(value, list(network.parameters())[:3]))
    torch.testing.assert_close(gradients[1], gradients[0])
