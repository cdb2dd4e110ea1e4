"""Memory budget, allocation, and peak memory for any number of samples."""

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import sklearn
import torch
from torch import nn

from sknetsim import NetworkDensity, NetworkKernel
from sknetsim._networks.memory import allocate, check_within_budget, halve, memory_budget

BUDGET = 32
# Each measurement needs a process of its own, which is forked, so that torch is imported once.
PROGRAM = """
import multiprocessing, resource, sys
import sklearn, torch
from torch import nn
from sknetsim import NetworkDensity, NetworkNeighbors

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def measure(name, samples):
    layers = [nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1)]
    network = nn.Sequential(*layers)
    X = torch.randn(int(samples), 64)
    estimator = {
        "soft": NetworkDensity(network),
        "power": NetworkDensity(network, method="power", dimension=2.0),
        "neighbors": NetworkNeighbors(network),
    }[name]
    query = "kneighbors" if name == "neighbors" else "score_samples"
    with sklearn.config_context(working_memory=int(sys.argv[1])):
        getattr(estimator.fit(X[:64]), query)(X[:64])
        before = peak()
        getattr(estimator.fit(X), query)(X[:500])
    print(name, samples, peak() - before)

torch.set_num_threads(1)
for case in sys.argv[2:]:
    process = multiprocessing.get_context("fork").Process(target=measure, args=case.split())
    process.start()
    process.join()
"""
PEAKS = [
    f"{name} {samples}" for name in ("soft", "power", "neighbors") for samples in (2000, 20000)
]


@pytest.fixture(scope="module")
def peaks():
    """Return the peak memory (MiB) of each case, measured by one program."""
    pytest.importorskip("resource")
    arguments = [sys.executable, "-c", PROGRAM, str(BUDGET), *PEAKS]
    process = subprocess.run(arguments, capture_output=True, text=True, check=True)
    lines = [line.rsplit(maxsplit=1) for line in process.stdout.splitlines()]
    return {case: float(peak) for case, peak in lines}


@pytest.mark.slow
@pytest.mark.parametrize("case", PEAKS)
def test_peak_memory_stays_within_the_budget(case, peaks):
    """Exact gradients of 20,000 samples would take 6.6 GiB."""
    assert peaks[case] < 1.25 * BUDGET


def make_network_and_samples(samples):
    """Return a network, and samples for it."""
    network = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    return network, torch.randn(samples, 64)


def test_a_sum_beyond_the_budget_raises_an_error():
    network, X = make_network_and_samples(8)
    with sklearn.config_context(working_memory=1):
        NetworkDensity(network, "predicted").fit(X)
        with pytest.raises(MemoryError, match=r"sum of the gradients of 10 outputs.*'predicted'"):
            NetworkDensity(network).fit(X)


def test_the_budget_must_be_positive():
    network, X = make_network_and_samples(8)
    refused = pytest.raises(
        ValueError, match=r"`working_memory` of .* must be a positive number of MiB; got 0"
    )
    with sklearn.config_context(working_memory=0), refused:
        NetworkDensity(network).fit(X)


def test_a_matrix_beyond_the_memory_of_the_machine_raises_an_error(monkeypatch):
    network, X = make_network_and_samples(8)
    monkeypatch.setattr("os.sysconf", lambda name: 10)
    with pytest.raises(MemoryError, match=r"Values of shape \(8, 8\).*fewer samples"):
        NetworkKernel(network)(X)


def test_the_budget_is_working_memory_in_bytes():
    with sklearn.config_context(working_memory=3):
        assert memory_budget() == 3 * 2**20
        assert memory_budget(Fraction(1, 4)) == 3 * 2**18
    with sklearn.config_context(working_memory=0.5):
        assert memory_budget() == 2**19


def test_the_budget_of_a_cuda_device_is_a_part_of_its_free_memory(monkeypatch):
    """What a pass has allocated for a share counts as free, so that the share stays the same."""
    cuda, free = torch.device("cuda"), 2**30
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (free - 2**20, 2**40))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: 3 * 2**20)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda device: 2 * 2**20)
    assert memory_budget(Fraction(1, 3), cuda) == free * 3 // 4 // 3
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda device: 3 * 2**20)
    assert memory_budget(Fraction(1, 3), cuda, allocated=2**20) == free * 3 // 4 // 3


def test_an_array_is_allocated_with_its_shape_and_dtype():
    array = allocate("Values", (2, 3), np.dtype(np.float32), "Pass fewer samples")
    assert array.shape == (2, 3)
    assert array.dtype == np.float32


def test_an_array_beyond_the_memory_of_the_machine_raises_an_error_with_a_cure():
    with pytest.raises(
        MemoryError, match=r"Values of shape \(1099511627776,\).*Pass fewer samples\."
    ):
        allocate("Values", (2**40,), np.dtype(np.float64), "Pass fewer samples")


def test_sizes_are_compared_with_the_budget():
    with sklearn.config_context(working_memory=1):
        check_within_budget("The sum", 2**20, "Compare fewer outputs")
        with pytest.raises(
            MemoryError, match=r"The sum must fit .* 1 MiB; it takes 2 MiB\. Compare"
        ):
            check_within_budget("The sum", 2**21, "Compare fewer outputs")


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError(), RuntimeError("can't allocate memory")]
)
def test_a_chunk_is_halved_down_to_one_sample_if_memory_is_exhausted(error):
    assert [halve(samples, error) for samples in (2, 5)] == [1, 2]
    with pytest.raises(type(error)):
        halve(1, error)


def test_other_errors_are_raised_again():
    with pytest.raises(RuntimeError, match="no such operation"):
        halve(4, RuntimeError("no such operation"))
