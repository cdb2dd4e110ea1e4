"""Peak memory stays within the budget, whatever the number of samples."""

import subprocess
import sys

import numpy as np
import pytest
import sklearn
import torch
from torch import nn

from sknetsim import NetworkDensity, NetworkKernel
from sknetsim._gradients.engine import GradientEngine

BUDGET = 32
PROGRAM = """
import resource, sys
import sklearn, torch
from torch import nn
from sknetsim import NetworkDensity, NetworkNeighbors

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

torch.set_num_threads(1)
layers = [nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1)]
network = nn.Sequential(*layers)
X = torch.randn(int(sys.argv[2]), 64)
estimator = {
    "soft": NetworkDensity(network),
    "power": NetworkDensity(network, method="power", dimension=2.0),
    "neighbors": NetworkNeighbors(network),
}[sys.argv[1]]
query = "kneighbors" if sys.argv[1] == "neighbors" else "score_samples"
with sklearn.config_context(working_memory=int(sys.argv[3])):
    getattr(estimator.fit(X[:64]), query)(X[:64])
    before = peak()
    getattr(estimator.fit(X), query)(X[:500])
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("samples", [2000, 20000])
@pytest.mark.parametrize("estimator", ["soft", "power", "neighbors"])
def test_peak_memory_stays_within_the_budget(estimator, samples):
    """Exact gradients of 20,000 samples would take 6.6 GiB."""
    pytest.importorskip("resource")
    arguments = [sys.executable, "-c", PROGRAM, estimator, str(samples), str(BUDGET)]
    found = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert float(found.stdout) < 1.25 * BUDGET


def pixels(samples):
    """A network, and rows for it."""
    network = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    return network, torch.randn(samples, 64)


def test_a_sum_beyond_the_budget_is_refused_before_it_is_made():
    network, X = pixels(8)
    with sklearn.config_context(working_memory=1):
        NetworkDensity(network, "predicted").fit(X)
        with pytest.raises(MemoryError, match=r"sum of the gradients of 10 outputs.*'predicted'"):
            NetworkDensity(network).fit(X)


def test_a_budget_of_nothing_is_refused():
    network, X = pixels(8)
    refused = pytest.raises(
        ValueError, match=r"`working_memory` of .* must be a positive number of MiB; got 0"
    )
    with sklearn.config_context(working_memory=0), refused:
        NetworkDensity(network).fit(X)


def test_a_result_beyond_the_machine_is_refused(monkeypatch):
    network, X = pixels(8)
    monkeypatch.setattr("os.sysconf", lambda name: 10)
    with pytest.raises(MemoryError, match=r"Values of shape \(8, 8\).*fewer samples"):
        NetworkKernel(network)(X)


@pytest.fixture
def small_device(monkeypatch):
    """Batches of more than five rows do not fit; their sizes are counted."""
    attempt, sizes = GradientEngine._attempt, []

    def attempted(self, module, inputs, y, checked):
        if len(inputs) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        sizes.append(len(inputs))
        return attempt(self, module, inputs, y, checked)

    monkeypatch.setattr(GradientEngine, "_attempt", attempted)
    return sizes


def test_a_full_device_halves_the_chunk(small_device):
    network, X = pixels(40)
    found = NetworkKernel(network, "predicted", batch_size=20)(X)
    assert max(small_device) == 5
    expected = NetworkKernel(network, "predicted", batch_size=5)(X)
    np.testing.assert_array_equal(found, expected)


def test_a_device_without_room_for_one_sample_is_an_error(monkeypatch):
    network, X = pixels(4)

    def full(self, module, inputs, y, checked):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(GradientEngine, "_attempt", full)
    with pytest.raises(torch.OutOfMemoryError):
        NetworkKernel(network)(X)


def test_other_errors_do_not_halve_the_chunk(monkeypatch):
    network, X = pixels(4)
    sizes = []

    def failing(self, module, inputs, y, checked):
        sizes.append(len(inputs))
        raise RuntimeError("no such operation")

    monkeypatch.setattr(GradientEngine, "_attempt", failing)
    with pytest.raises(RuntimeError, match="no such operation"):
        NetworkKernel(network, batch_size=4)(X)
    assert sizes == [4]
