"""The user's network is as it was after every call, and after an exception inside one."""

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
from sknetsim._networks.isolation import needs_cudnn

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
    # Without a random_state it would draw from numpy's global one, as scikit-learn's estimators do.
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
def test_a_call_leaves_no_trace(case, call):
    network, X = build(case)
    before = record_state(make_state_uneven(network))
    call(network, case.output, X)
    assert record_state(network) == before


class Failing(nn.Module):
    """Fails from some call on, counts its calls in every way, and cannot be copied on demand."""

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
            raise ZeroDivisionError("the guest failed")
        return torch.nn.functional.dropout(self.layer(rows), p=0.0, training=True)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_nothing_is_written(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network, X = build(NETWORKS[10])
    call(network, "all", X)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("copyable", [True, False], ids=["shadow", "lent"])
@pytest.mark.parametrize("calls", [0, 1, 2, 3])
def test_an_exception_leaves_no_trace(calls, copyable):
    network = make_state_uneven(Failing(calls, copyable))
    before = record_state(network)
    with pytest.raises(ZeroDivisionError):
        NetworkKernel(network, batch_size=2)(torch.randn(8, 4))
    after = record_state(network)
    changed = {key for key in before if before[key] != after[key]}
    assert changed <= {"torch"}  # torch.randn of this test


def test_a_buffer_that_the_forward_pass_changes_is_put_back():
    for copyable in (True, False):
        network = Failing(1000, copyable)
        NetworkKernel(network)(torch.ones(3, 4))
        assert network.count == network.total == network.calls == 0
        assert network.seen == []
        assert not hasattr(network, "last")


def test_random_numbers_drawn_by_the_forward_pass_are_given_back():
    network = nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.0))
    network[1].forward = lambda rows: torch.nn.functional.dropout(rows, 0.0, training=True)
    before = torch.get_rng_state()
    NetworkKernel(network)(torch.ones(3, 4))
    assert torch.equal(torch.get_rng_state(), before)


def test_hooks_of_the_user_still_act_on_the_forward_pass():
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


def test_a_lent_half_precision_network_is_refused():
    with pytest.raises(UnsupportedNetworkError, match=r"Call \.float\(\)"):
        NetworkKernel(Failing(9, copyable=False).half())(torch.randn(3, 4))


def test_the_estimator_handed_in_is_not_changed_by_fit():
    network, X = build(NETWORKS[0])
    density = NetworkDensity(network)
    twin = copy.copy(vars(density))
    density.fit(X)
    assert all(getattr(density, name) is value for name, value in twin.items())
    assert density.estimator_ is network


class Reaching(nn.Module):
    """A closure leads from any copy to the original's batch normalisation and dropout."""

    def __init__(self, affine):
        super().__init__()
        self.layer, self.drop = nn.Linear(4, 3), nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(3, affine=affine)
        self.rest = lambda rows: self.drop(self.norm(rows))

    def forward(self, rows):
        return self.rest(self.layer(rows))


@pytest.mark.parametrize("affine", [True, False])
def test_a_closure_does_not_run_the_guest_in_train_mode(affine):
    network = Reaching(affine).train()
    before = record_state(network)
    gram = NetworkKernel(network)(torch.ones(5, 4) * torch.arange(5)[:, None])
    after = record_state(network)
    assert {key for key in before if before[key] != after[key]} == set()
    np.testing.assert_allclose(np.diag(gram), 1, atol=1e-5)


def _step(parameter):
    parameter.data.sub_(parameter.grad)


def test_optimisers_in_the_backward_pass_do_not_step():
    network = Failing(1000, copyable=False)
    network.scale = nn.Parameter(torch.ones(2))
    network.layer.register_forward_hook(lambda module, args, output: output * network.scale)
    for parameter in network.parameters():
        parameter.register_post_accumulate_grad_hook(_step)
    before = record_state(network)
    NetworkKernel(network)(torch.ones(3, 4))
    assert record_state(network) == before


def test_a_network_that_copies_to_itself_is_lent():
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


def test_an_untrained_kernel_asks_for_training():
    with pytest.raises(NotFittedError, match="call fit"):
        NetworkKernel()(np.ones((3, 2)))
