"""Peak memory stays within the budget, whatever the number of samples."""

import subprocess
import sys

import pytest
import sklearn
import torch
from torch import nn

from sknetsim import NetworkDensity, NetworkKernel

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
    process = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert float(process.stdout) < 1.25 * BUDGET


def make_network_and_samples(samples):
    """Return a network, and samples for it."""
    network = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    return network, torch.randn(samples, 64)


def test_a_sum_beyond_the_budget_is_refused_before_it_is_made():
    network, X = make_network_and_samples(8)
    with sklearn.config_context(working_memory=1):
        NetworkDensity(network, "predicted").fit(X)
        with pytest.raises(MemoryError, match=r"sum of the gradients of 10 outputs.*'predicted'"):
            NetworkDensity(network).fit(X)


def test_a_budget_of_nothing_is_refused():
    network, X = make_network_and_samples(8)
    refused = pytest.raises(
        ValueError, match=r"`working_memory` of .* must be a positive number of MiB; got 0"
    )
    with sklearn.config_context(working_memory=0), refused:
        NetworkDensity(network).fit(X)


def test_a_result_beyond_the_machine_is_refused(monkeypatch):
    network, X = make_network_and_samples(8)
    monkeypatch.setattr("os.sysconf", lambda name: 10)
    with pytest.raises(MemoryError, match=r"Values of shape \(8, 8\).*fewer samples"):
        NetworkKernel(network)(X)
