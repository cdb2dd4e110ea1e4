"""The user's network and the random states are the same before and after each call."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import nn

from sknetsim import (
    ActiveLearningSampler,
    GradientFeaturizer,
    NetworkDensity,
    NetworkKernel,
    NetworkNeighbors,
    PerceptualKernel,
    UnsupportedNetworkError,
)
from sknetsim._kernels.precision import needs_cudnn
from sknetsim._networks.isolation import (
    attach_hooks,
    record_called_modules,
)
from sknetsim._networks.sharing import consists_of_torch_layers, make_weight_sharing_copy

from ..cases import NETWORKS, build
from ..states import make_state_uneven, record_state

CALLS = {
    "kernel": lambda network, output, X: NetworkKernel(network, output)(X),
    "perceptual": lambda network, output, X: PerceptualKernel(network)(X),
    "contributions": lambda network, output, X: NetworkKernel(network, output).contributions(
        X[:3], X[3:]
    ),
    "matrix": lambda network, output, X: NetworkKernel(network, output).matrix(X),
    "influence": lambda network, output, X: NetworkKernel(network, output).influence(X),
    "features": lambda network, output, X: GradientFeaturizer(network, output).fit_transform(X),
    # Without a random_state, it draws from the global one of numpy, like scikit-learn's estimators.
    "queries": lambda network, output, X: (
        ActiveLearningSampler(network, output, random_state=0).fit(X).query(X, 3)
    ),
    "density": lambda network, output, X: NetworkDensity(network, output).fit(X).score_samples(X),
    "neighbors": lambda network, output, X: (
        NetworkNeighbors(network, output, n_neighbors=2).fit(X).kneighbors()
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case.name)
def test_a_call_does_not_change_the_network(case, call):
    network, X = build(case)
    before = record_state(make_state_uneven(network))
    call(network, case.output, X)
    assert record_state(network) == before


class Failing(nn.Module):
    """Network that changes its attributes in each call, and fails after some calls."""

    def __init__(self, calls, copyable=True):
        super().__init__()
        remaining = iter(range(calls))
        self.layer, self.calls, self.seen = nn.Linear(4, 2), 0, []
        self.spend = lambda: next(remaining, None)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("total", torch.zeros(()))
        if not copyable:
            self.generator = (value for value in ())

    def forward(self, rows):
        self.count += 1
        self.total = self.total + 1
        self.calls += 1
        self.seen.append(len(rows))
        self.last = rows
        if self.spend() is None:
            raise ZeroDivisionError("the network failed")
        return torch.nn.functional.dropout(self.layer(rows), p=0.0, training=True)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_files_are_written(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network, X = build(NETWORKS[10])
    call(network, "all", X)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("copyable", [True, False], ids=["copy", "original"])
@pytest.mark.parametrize("calls", [0, 1, 2, 3])
def test_an_exception_does_not_change_the_network(calls, copyable):
    network = make_state_uneven(Failing(calls, copyable))
    before = record_state(network)
    with pytest.raises(ZeroDivisionError):
        NetworkKernel(network, batch_size=2)(torch.randn(8, 4))
    after = record_state(network)
    changed = {key for key in before if before[key] != after[key]}
    assert changed <= {"torch"}  # The random state, from the torch.randn above.


def test_buffers_that_the_forward_pass_changes_are_restored():
    for copyable in (True, False):
        network = Failing(1000, copyable)
        NetworkKernel(network)(torch.ones(3, 4))
        assert network.count == network.total == network.calls == 0
        assert network.seen == []
        assert not hasattr(network, "last")


def test_the_random_state_is_restored_after_a_forward_pass_that_draws_numbers():
    network = nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.0))
    network[1].forward = lambda rows: torch.nn.functional.dropout(rows, 0.0, training=True)
    before = torch.get_rng_state()
    NetworkKernel(network)(torch.ones(3, 4))
    assert torch.equal(torch.get_rng_state(), before)


def test_hooks_of_the_user_run_in_the_forward_pass():
    network, X = build(NETWORKS[0])
    plain = NetworkKernel(network)(X)
    handle = network[0].register_forward_hook(lambda module, args, output: output * 3)
    hooked = NetworkKernel(network)(X)
    handle.remove()
    assert not np.allclose(hooked, plain)
    network[0].weight.data *= 3
    network[0].bias.data *= 3
    features = NetworkKernel(network, parameters=["2.*", "4.*"])(X)
    handle = network[0].register_forward_hook(lambda module, args, output: output / 3 * 3)
    again = NetworkKernel(network, parameters=["2.*", "4.*"])(X)
    handle.remove()
    np.testing.assert_allclose(features, again, atol=1e-12)


def test_a_half_precision_network_must_be_copyable():
    with pytest.raises(UnsupportedNetworkError, match=r"Call \.float\(\)"):
        NetworkKernel(Failing(9, copyable=False).half())(torch.randn(3, 4))


def test_fit_does_not_change_parameters_of_the_estimator():
    network, X = build(NETWORKS[0])
    density = NetworkDensity(network)
    before = copy.copy(vars(density))
    density.fit(X)
    assert all(getattr(density, name) is value for name, value in before.items())
    assert density.estimator_ is network


class Reaching(nn.Module):
    """Network whose copies use the batch normalisation and dropout of the original in a closure."""

    def __init__(self, affine):
        super().__init__()
        self.layer, self.drop = nn.Linear(4, 3), nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(3, affine=affine)
        self.rest = lambda rows: self.drop(self.norm(rows))

    def forward(self, rows):
        return self.rest(self.layer(rows))


@pytest.mark.parametrize("affine", [True, False])
def test_layers_in_a_closure_are_evaluated_in_eval_mode(affine):
    network = Reaching(affine).train()
    before = record_state(network)
    gram = NetworkKernel(network)(torch.ones(5, 4) * torch.arange(5)[:, None])
    after = record_state(network)
    assert {key for key in before if before[key] != after[key]} == set()
    np.testing.assert_allclose(np.diag(gram), 1, atol=1e-5)


def step(parameter):
    parameter.data.sub_(parameter.grad)


def test_optimisers_in_the_backward_pass_make_no_step():
    network = Failing(1000, copyable=False)
    network.scale = nn.Parameter(torch.ones(2))
    network.layer.register_forward_hook(lambda module, args, output: output * network.scale)
    for parameter in network.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    before = record_state(network)
    NetworkKernel(network)(torch.ones(3, 4))
    assert record_state(network) == before


def test_a_network_may_return_itself_as_its_copy():
    class Single(nn.Linear):
        def __deepcopy__(self, memo):
            return self

    network = nn.Sequential(Single(4, 3), nn.BatchNorm1d(3)).train()
    before = record_state(network)
    NetworkKernel(network)(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))
    assert record_state(network) == before


def test_threads_may_share_a_network():
    network, X = build(NETWORKS[10], n_samples=12)
    network.train()
    expected, before = NetworkKernel(network)(X), record_state(network)
    with ThreadPoolExecutor(4) as pool:
        grams = list(pool.map(lambda _: NetworkKernel(network, batch_size=3)(X), range(12)))
    for gram in grams:
        np.testing.assert_allclose(gram, expected, atol=1e-10)
    assert record_state(network) == before
    assert torch.backends.cudnn.enabled


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([nn.Linear(2, 2)], False),
        ([nn.Conv1d(1, 1, 1), nn.Linear(2, 2)], True),
        ([nn.ConvTranspose2d(1, 1, 1)], True),
        ([nn.LSTM(2, 2)], False),
        ([nn.Conv1d(1, 1, 1), nn.GRU(2, 2)], False),
    ],
)
def test_cudnn_is_needed_by_convolutions_if_no_layer_is_recurrent(layers, expected):
    assert needs_cudnn(nn.ModuleList(layers)) is expected


def test_an_untrained_kernel_must_be_fitted():
    with pytest.raises(NotFittedError, match="call fit"):
        NetworkKernel()(np.ones((3, 2)))


CPU = torch.device("cpu")


def test_a_copy_shares_parameters_but_not_buffers_and_modes():
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).train()
    shared_copy = make_weight_sharing_copy(network, {"0.weight"}, CPU)
    for name, parameter in shared_copy.named_parameters():
        assert parameter.data_ptr() == network.get_parameter(name).data_ptr()
        assert parameter.requires_grad == (name == "0.weight")
    assert shared_copy[1].running_mean.data_ptr() != network[1].running_mean.data_ptr()
    assert network.training and not shared_copy.training


def test_a_copy_of_a_half_precision_network_is_in_float32():
    shared_copy = make_weight_sharing_copy(nn.Linear(4, 3).bfloat16(), set(), CPU)
    assert {parameter.dtype for parameter in shared_copy.parameters()} == {torch.float32}


def test_a_network_that_cannot_be_copied_has_no_copy():
    assert make_weight_sharing_copy(Failing(1, copyable=False), set(), CPU) is None


def test_called_modules_are_recorded():
    network = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    with record_called_modules(network) as called:
        network[2](network[0](torch.ones(1, 4)))
    assert called == [network[0], network[2]]


def register_forward_hook(module):
    return module.register_forward_hook(lambda module, args, output: None)


def count_hooks(network):
    return [len(part._forward_hooks) for part in network]


def test_hooks_are_attached_inside_the_block_only():
    network = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    with attach_hooks(network, register_forward_hook):
        assert count_hooks(network) == [1, 1]
    assert count_hooks(network) == [0, 0]


def test_hooks_are_removed_after_an_exception_inside_the_block():
    network = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    with pytest.raises(ZeroDivisionError), attach_hooks(network, register_forward_hook):
        raise ZeroDivisionError
    assert count_hooks(network) == [0, 0]


def test_hooks_are_removed_if_registering_one_fails():
    network = nn.Sequential(nn.Linear(4, 3), nn.Tanh())

    def register(module):
        if module is network[1]:
            raise ZeroDivisionError
        return register_forward_hook(module)

    with pytest.raises(ZeroDivisionError), attach_hooks(network, register):
        pass
    assert count_hooks(network) == [0, 0]


def test_scripted_modules_have_no_hooks():
    network = nn.Sequential(nn.Linear(4, 3), torch.jit.script(nn.Linear(3, 2)))
    with attach_hooks(network, register_forward_hook):
        assert len(network[0]._forward_hooks) == 1
        assert network(torch.ones(1, 4)).shape == (1, 2)


def test_networks_of_torch_layers_have_no_code_of_the_user():
    layer = nn.TransformerEncoderLayer(4, 2, activation="gelu")
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), layer, nn.BatchNorm1d(3))
    assert consists_of_torch_layers(network)
    network[0].register_forward_hook(lambda module, args, output: None)
    assert not consists_of_torch_layers(network)


@pytest.mark.parametrize(
    "network",
    [
        Failing(1),
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))),
        nn.Sequential(nn.Linear(4, 3), Reaching(False)),
        nn.TransformerEncoderLayer(4, 2, activation=lambda hidden: hidden.tanh()),
    ],
    ids=["own class", "parametrized", "own class inside", "own activation"],
)
def test_networks_with_own_classes_have_code_of_the_user(network):
    assert not consists_of_torch_layers(network)
