"""Peak memory stays within the budget, whatever the number of samples."""

import subprocess
import sys

import pytest

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
